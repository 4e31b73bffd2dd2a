//! A connection storm to look at.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use echometer_host::{fitness, units::show_size};

use crate::{
    file::storm::{LevelEntry, StormFile},
    page::{
        chart::{Axis, Chart, Mark, Point, Scale, Series, Unit, connect_times},
        frame::Frame,
        model::Page,
        table::{Cell, Table},
    },
    saved::hlog::Log,
};

/// The page of a storm. `logs` are the histograms of its levels, by the level's name, as far as they are there.
pub(crate) fn page(storm: &StormFile, logs: &BTreeMap<String, Log>) -> Page {
    let plural = if storm.connects == 1 { "" } else { "s" };
    let mut page = Frame {
        kind: "storm",
        title: format!("Connection storm: {} connect{plural}", storm.connects),
        started_at: &storm.started_at,
        cut_short: storm.cut_short,
        sentence: &storm.sentence,
        verdict: None,
        machine: &storm.machine,
        doctor: &storm.doctor,
        commands: &storm.commands,
    }
    .page();
    page.trust.reasons = fitness::objections(&page.findings);
    page.trust.warnings.extend(storm.faults.iter().cloned());
    let linear = storm.machine.tcp_syn_linear_timeouts;
    let whole = |tag: &str| -> Vec<(String, Histogram<u64>)> {
        let whole = |log: &Log| log.whole(tag);
        logs.iter()
            .filter_map(|(name, log)| Some((name.clone(), whole(log)?)))
            .collect()
    };
    for (tag, id, title) in [
        ("connect", "connect", "Time to connect"),
        ("first_echo", "first-echo", "Time to the first echo"),
    ] {
        let of_levels = whole(tag);
        let shown: Vec<(String, &Histogram<u64>)> = of_levels
            .iter()
            .map(|(name, histogram)| (name.clone(), histogram))
            .collect();
        let mut chart = connect_times(&shown, linear);
        chart.id = id.into();
        chart.title = title.into();
        chart.x.label = title.to_lowercase();
        page.charts.push(chart);
    }
    page.charts.push(by_backlog(storm));
    page.charts.retain(|chart| !chart.is_empty());
    page.tables = vec![losses(&storm.levels)];
    page.facts = asked(storm);
    page
}

/// The kernel's settings, unknown ones too; then what was asked, without what was not.
fn asked(storm: &StormFile) -> Vec<(String, String)> {
    let sysctls = &storm.sysctls;
    let known = |value: Option<u32>| Some(value.map_or("-".to_owned(), |value| value.to_string()));
    [
        ("somaxconn", known(sysctls.somaxconn)),
        (
            "tcp_abort_on_overflow",
            known(sysctls.tcp_abort_on_overflow),
        ),
        ("tcp_max_syn_backlog", known(sysctls.tcp_max_syn_backlog)),
        (
            "tcp_syn_linear_timeouts",
            known(sysctls.tcp_syn_linear_timeouts),
        ),
        ("tcp_syn_retries", known(sysctls.tcp_syn_retries)),
        ("tcp_syncookies", known(sysctls.tcp_syncookies)),
        (
            "connects per second",
            storm.connect_rate_per_s.map(|rate| rate.to_string()),
        ),
        ("message size", Some(show_size(storm.message_size.into()))),
        ("blocks", Some(storm.blocks.to_string())),
        ("seed", Some(storm.seed.to_string())),
        (
            "server on cpu",
            storm.server_cpus.as_ref().map(ToString::to_string),
        ),
        ("client on cpu", Some(storm.client_cpus.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

fn name(level: &LevelEntry) -> String {
    let backlog = level
        .backlog
        .map_or("-".to_owned(), |backlog| backlog.to_string());
    format!("{}, backlog {backlog}", level.arm)
}

fn ns(value: Option<u64>) -> Cell {
    Cell::ns(value.map(|ns| ns as f64))
}

fn losses(levels: &[LevelEntry]) -> Table {
    let mut table = Table::new(
        "Levels",
        [
            "arm",
            "backlog",
            "effective",
            "connects",
            "failed",
            "SYNs again",
            "overflows",
            "drops",
            "longest queue",
            "connect p50",
            "connect p99",
            "connect max",
            "echo p50",
            "echo p99",
            "echo max",
        ],
    );
    let count = |count: Option<u64>| Cell::count(count.map(|count| count as f64));
    for level in levels {
        let (connect, echo) = (&level.connect_ns, &level.first_echo_ns);
        table.push(vec![
            Cell::text(level.arm.clone()),
            count(level.backlog.map(u64::from)),
            count(level.effective_backlog.map(u64::from)),
            count(Some(level.connects)),
            count(Some(level.failed)),
            count(Some(level.syn_retransmits.values().sum())),
            count(level.listen_overflows),
            count(level.listen_drops),
            count(level.queue_max.map(u64::from)),
            ns(connect.p50),
            ns(connect.p99),
            ns(connect.max),
            ns(echo.p50),
            ns(echo.p99),
            ns(echo.max),
        ]);
    }
    table
}

/// The slowest connects and first echoes over the backlog: a queue that is too short shows as a second and more.
fn by_backlog(storm: &StormFile) -> Chart {
    type Figure = fn(&LevelEntry) -> Option<u64>;
    let lines: [(&str, Figure); 3] = [
        ("connect p50", |level| level.connect_ns.p50),
        ("connect max", |level| level.connect_ns.max),
        ("first echo max", |level| level.first_echo_ns.max),
    ];
    let levels = &storm.levels;
    let mut arms: Vec<&str> = Vec::new();
    for level in levels {
        if !arms.contains(&level.arm.as_str()) {
            arms.push(&level.arm);
        }
    }
    let mut series = Vec::new();
    for arm in arms {
        for (label, of) in lines {
            let mut points: Vec<Point> = levels
                .iter()
                .filter(|level| level.arm == arm)
                .filter_map(|level| {
                    let y = of(level).filter(|ns| 0 < *ns)? as f64;
                    Some(Point::at(f64::from(level.backlog?), y))
                })
                .collect();
            points.sort_by(|one, other| one.x.total_cmp(&other.x));
            series.push(Series {
                name: format!("{arm} {label}"),
                points,
                ..Series::default()
            });
        }
    }
    let first = storm.syn_steps_ns.first();
    let again = first.map_or_else(String::new, |&first| {
        format!(" A lost SYN is sent again after {}.", ns(Some(first)).text)
    });
    Chart {
        id: "backlog".into(),
        title: "Connect times by backlog".into(),
        caption: format!(
            "The median and the slowest of each level: a queue that is too short shows as a second and more.{again}"
        ),
        x: Axis {
            label: "backlog".into(),
            scale: Scale::Log,
            unit: Unit::Number,
        },
        y: Axis {
            label: "time".into(),
            scale: Scale::Log,
            unit: Unit::Ns,
        },
        series,
        marks: Vec::<Mark>::new(),
        figures: {
            let mut table = Table::new(
                "Connect times by backlog",
                ["level", "connect p50", "connect max", "first echo max"],
            );
            for level in levels {
                table.push(vec![
                    Cell::text(name(level)),
                    ns(level.connect_ns.p50),
                    ns(level.connect_ns.max),
                    ns(level.first_echo_ns.max),
                ]);
            }
            table
        },
    }
}
