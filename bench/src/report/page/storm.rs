//! A connection storm to look at.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde_json::Value;

use echometer_host::fitness;

use crate::report::{
    page::{
        Page,
        chart::{Axis, Chart, Mark, Point, Scale, Series, Unit, connect_times},
        table::{Cell, Table},
        value::{self, number, shown, texts},
    },
    saved::hlog::Log,
};

/// The page of a storm. `logs` are the histograms of its levels, by the level's name, as far as they are there.
pub(super) fn page(storm: &Value, logs: &BTreeMap<String, Log>) -> Page {
    let levels: Vec<&Value> = storm["levels"].as_array().into_iter().flatten().collect();
    let connects = number(storm, &["connects"]).or_else(|| {
        let of_level = levels.first().map(|level| number(level, &["connects"]));
        of_level.flatten()
    });
    let title = match connects {
        Some(connects) => format!("Connection storm: {connects} connects"),
        None => "Connection storm".to_owned(),
    };
    let mut page = value::page("storm", title, storm);
    page.trust.reasons = fitness::objections(&page.findings);
    page.trust.warnings.extend(texts(&storm["faults"]));
    let linear = number(storm, &["machine", "tcp_syn_linear_timeouts"]).map(|count| count as u64);
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
    page.charts.push(by_backlog(storm, &levels));
    page.charts.retain(|chart| !chart.is_empty());
    page.tables = vec![losses(&levels)];
    let sysctls = storm["sysctls"].as_object().into_iter().flatten();
    page.facts = sysctls
        .map(|(name, value)| (name.clone(), shown(value)))
        .collect();
    for key in [
        "connect_rate_per_s",
        "message_size",
        "blocks",
        "seed",
        "server_cpus",
        "client_cpus",
    ] {
        if !storm[key].is_null() {
            page.facts.push((key.replace('_', " "), shown(&storm[key])));
        }
    }
    page
}

fn name(level: &Value) -> String {
    format!(
        "{}, backlog {}",
        shown(&level["arm"]),
        shown(&level["backlog"])
    )
}

fn losses(levels: &[&Value]) -> Table {
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
    for level in levels {
        let count = |key: &str| Cell::count(number(level, &[key]));
        let ns = |of: &str, quantile: &str| Cell::ns(number(level, &[of, quantile]));
        let again = match &level["syn_retransmits"] {
            Value::Object(by_count) => Some(by_count.values().filter_map(Value::as_f64).sum()),
            other => other.as_f64(),
        };
        table.push(vec![
            Cell::text(shown(&level["arm"])),
            count("backlog"),
            count("effective_backlog"),
            count("connects"),
            count("failed"),
            Cell::count(again),
            count("listen_overflows"),
            count("listen_drops"),
            count("queue_max"),
            ns("connect_ns", "p50"),
            ns("connect_ns", "p99"),
            ns("connect_ns", "max"),
            ns("first_echo_ns", "p50"),
            ns("first_echo_ns", "p99"),
            ns("first_echo_ns", "max"),
        ]);
    }
    table
}

/// The slowest connects and first echoes over the backlog: a queue that is too short shows as a second and more.
fn by_backlog(storm: &Value, levels: &[&Value]) -> Chart {
    let mut arms: Vec<String> = Vec::new();
    for level in levels {
        let arm = shown(&level["arm"]);
        if !arms.contains(&arm) {
            arms.push(arm);
        }
    }
    let mut series = Vec::new();
    for arm in &arms {
        for (of, quantile, label) in [
            ("connect_ns", "p50", "connect p50"),
            ("connect_ns", "max", "connect max"),
            ("first_echo_ns", "max", "first echo max"),
        ] {
            let mut points: Vec<Point> = levels
                .iter()
                .filter(|level| shown(&level["arm"]) == *arm)
                .filter_map(|level| {
                    let y = number(level, &[of, quantile]).filter(|ns| 0.0 < *ns)?;
                    Some(Point::at(number(level, &["backlog"])?, y))
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
    let steps = storm["syn_steps_ns"].as_array().into_iter().flatten();
    let first = steps.filter_map(Value::as_f64).next();
    let again = first.map_or_else(String::new, |ns| {
        format!(
            " A lost SYN is sent again after {}.",
            Cell::ns(Some(ns)).text
        )
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
                let ns = |of: &str, quantile: &str| Cell::ns(number(level, &[of, quantile]));
                table.push(vec![
                    Cell::text(name(level)),
                    ns("connect_ns", "p50"),
                    ns("connect_ns", "max"),
                    ns("first_echo_ns", "max"),
                ]);
            }
            table
        },
    }
}
