//! A run of the load generator to look at.

use echometer_host::units::{counted, show_duration, show_rate};
use echometer_loadgen::{
    file::{RunFile, Summary},
    plan::{Engine, Load, Wait},
    verdict::Status,
};

use crate::{
    page::{
        chart::{Axis, Chart, Point, Scale, Series, Unit, connect_times, spectrum},
        model::{Page, TrustShown, machine_rows},
        table::{Cell, Table},
    },
    saved::hlog::Log,
};

/// The page of a run; without its log it has no spectrum.
pub(crate) fn page(run: &RunFile, log: Option<&Log>) -> Page {
    let whole = |tag: &str| log.and_then(|log| log.whole(tag));
    let latencies: Vec<_> = ["latency", "service"]
        .into_iter()
        .filter(|tag| *tag == "latency" || run.plan.load != Load::Closed)
        .filter_map(|tag| Some((tag.to_owned(), whole(tag)?)))
        .collect();
    let shown: Vec<_> = latencies
        .iter()
        .map(|(name, histogram)| (name.clone(), histogram))
        .collect();
    let mut charts = Vec::new();
    if !shown.is_empty() {
        charts.push(spectrum(&shown));
    }
    charts.push(over_time(run));
    charts.push(rates(run));
    if let Some(connect) = whole("connect") {
        let of = [("connections".to_owned(), &connect)];
        charts.push(connect_times(&of, run.machine.tcp_syn_linear_timeouts));
    }
    charts.retain(|chart| !chart.is_empty());
    let verdict = &run.verdict;
    let mut warnings = verdict.warnings.clone();
    if run.cut_short {
        warnings.insert(0, "it was cut short by a signal".into());
    }
    Page {
        kind: "run".into(),
        title: format!("Load on {}", run.server.target),
        subtitle: format!("{}; begun {}", load(run), run.started_at),
        sentence: sentence(run),
        trust: TrustShown {
            word: match verdict.status {
                Status::Valid if run.cut_short => "cut short, valid until then".into(),
                Status::Valid => "valid".into(),
                status => format!("not valid ({})", status.name()),
            },
            good: verdict.status == Status::Valid && !run.cut_short,
            reasons: verdict.reasons.clone(),
            warnings,
        },
        charts,
        tables: vec![summaries(run), counts(run), intervals(run)],
        facts: asked(run),
        machine: machine_rows(&run.machine),
        findings: run.doctor.clone(),
        commands: Some(run.command.clone())
            .filter(|command| !command.is_empty())
            .map(|command| (String::new(), command))
            .into_iter()
            .collect(),
        ..Page::default()
    }
}

fn sentence(run: &RunFile) -> String {
    let end = &run.end;
    let show =
        |ns: Option<u64>| ns.map_or_else(|| "unknown".into(), echometer_host::units::show_ns);
    let what = match run.plan.load {
        Load::Closed => "round trips of a closed loop, which are no latency under load",
        Load::Open { .. } => "latency from when each message was due",
    };
    format!(
        "{} answered at {}/s: p50 {}, p99 {} ({what}).",
        counted(end.answered, "message"),
        show_rate(end.rate_per_s),
        show(end.latency_ns.p50),
        show(end.latency_ns.p99),
    )
}

fn load(run: &RunFile) -> String {
    format!("{}, {}", run.plan.words(), show_duration(run.plan.duration))
}

fn asked(run: &RunFile) -> Vec<(String, String)> {
    let plan = &run.plan;
    let engine = match run.end.client.engine {
        Engine::Auto => "auto",
        Engine::Uring => "uring",
        Engine::Epoll => "epoll",
    };
    let wait = match plan.wait {
        Wait::Spin => "spin",
        Wait::Block => "block",
    };
    [
        // With the mix of sizes, the limit of messages in flight and the ramp, where there are any.
        ("load", plan.words().in_full()),
        (
            "client",
            format!(
                "{}, {}, {}",
                engine,
                wait,
                counted(plan.workers.len() as u64, "thread")
            ),
        ),
        ("seed", plan.seed.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// Every histogram of the window.
fn summaries(run: &RunFile) -> Table {
    let end = &run.end;
    let mut table = Table::new(
        "Times",
        [
            "", "count", "min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max",
        ],
    );
    let open = run.plan.load != Load::Closed;
    let rows: [(&str, &Summary, bool); 6] = [
        (
            if open { "latency" } else { "round trip" },
            &end.latency_ns,
            true,
        ),
        ("service", &end.service_ns, open),
        ("queue", &end.queue_ns, open),
        ("send lag", &end.send_lag_ns, open),
        ("recv lag", &end.recv_lag_ns, end.recv_lag_ns.count != 0),
        ("connect", &end.connect_ns, true),
    ];
    for (name, summary, shown) in rows {
        if !shown {
            continue;
        }
        let ns = |value: Option<u64>| {
            let mut cell = Cell::ns(value.map(|ns| ns as f64));
            if value.is_some_and(|value| summary.is_lower_bound(value)) {
                cell.text = format!(">= {}", cell.text);
            }
            cell
        };
        table.push(vec![
            Cell::text(name),
            Cell::count(Some(summary.count as f64)),
            ns(summary.min),
            ns(summary.mean),
            ns(summary.p50),
            ns(summary.p90),
            ns(summary.p99),
            ns(summary.p99_9),
            ns(summary.p99_99),
            ns(summary.max),
        ]);
    }
    table
}

fn counts(run: &RunFile) -> Table {
    let end = &run.end;
    let mut table = Table::new("Counts", ["", "value"]);
    let percent =
        |share: Option<f64>| Cell::shown(share, |share| format!("{:.1} %", share * 100.0));
    let counts = [
        ("sent", end.sent),
        ("answered", end.answered),
        ("lost", end.lost),
        ("outstanding", end.outstanding),
        ("due and never sent", end.unsent),
        ("clipped at 60 s", end.clipped),
        ("connections opened", end.connections_opened),
        ("reconnects", end.reconnects),
    ];
    for (name, count) in counts {
        table.push(vec![Cell::text(name), Cell::count(Some(count as f64))]);
    }
    for (kind, count) in &end.errors {
        let name = format!("connections failed: {}", kind.replace('_', " "));
        table.push(vec![Cell::text(name), Cell::count(Some(*count as f64))]);
    }
    table.push(vec![
        Cell::text("replies per second"),
        Cell::count(Some(end.rate_per_s)),
    ]);
    table.push(vec![
        Cell::text("due per second"),
        Cell::count(end.offered_per_s),
    ]);
    let client = &end.client;
    table.push(vec![
        Cell::text("client CPU per message"),
        Cell::ns(client.cpu_ns_per_message),
    ]);
    table.push(vec![
        Cell::text("client's busiest thread"),
        percent(Some(client.busiest_thread)),
    ]);
    table.push(vec![Cell::text("steal"), percent(client.steal_ratio)]);
    table
}

fn intervals(run: &RunFile) -> Table {
    let mut table = Table::new(
        "Intervals",
        [
            "from", "sent", "answered", "rate", "p50", "p90", "p99", "max",
        ],
    );
    for row in &run.intervals {
        let ns = |value: Option<u64>| Cell::ns(value.map(|ns| ns as f64));
        table.push(vec![
            Cell::shown(Some(row.start_ns as f64), |ns| format!("{:.1} s", ns / 1e9)),
            Cell::count(Some(row.sent as f64)),
            Cell::count(Some(row.answered as f64)),
            Cell::count(Some(row.rate_per_s)),
            ns(row.latency_ns.p50),
            ns(row.latency_ns.p90),
            ns(row.latency_ns.p99),
            ns(row.latency_ns.max),
        ]);
    }
    table
}

/// Percentile lines, one point an interval.
fn over_time(run: &RunFile) -> Chart {
    type Quantile = fn(&Summary) -> Option<u64>;
    let lines: [(&str, Quantile); 5] = [
        ("p50", |summary| summary.p50),
        ("p90", |summary| summary.p90),
        ("p99", |summary| summary.p99),
        ("p99.9", |summary| summary.p99_9),
        ("max", |summary| summary.max),
    ];
    let series = lines.iter().map(|(name, of)| Series {
        name: (*name).to_owned(),
        points: run
            .intervals
            .iter()
            .filter_map(|row| {
                Some(Point::at(
                    middle_s(row.start_ns, row.end_ns),
                    of(&row.latency_ns)?.max(1) as f64,
                ))
            })
            .collect(),
        ..Series::default()
    });
    Chart {
        id: "over-time".into(),
        title: "Percentiles over time".into(),
        caption: "The latency of the messages answered in each interval. A flat set of lines is a steady server.".into(),
        x: seconds(),
        y: Axis {
            label: "latency".into(),
            scale: Scale::Log,
            unit: Unit::Ns,
        },
        series: series.filter(|series| !series.points.is_empty()).collect(),
        marks: Vec::new(),
        figures: intervals(run),
    }
}

fn rates(run: &RunFile) -> Chart {
    let points = run
        .intervals
        .iter()
        .map(|row| Point::at(middle_s(row.start_ns, row.end_ns), row.rate_per_s));
    Chart {
        id: "rate".into(),
        title: "Throughput over time".into(),
        caption: "Replies per second in each interval.".into(),
        x: seconds(),
        y: Axis {
            label: "replies per second".into(),
            scale: Scale::Linear,
            unit: Unit::Number,
        },
        series: vec![Series {
            name: "replies per second".into(),
            points: points.collect(),
            ..Series::default()
        }],
        marks: Vec::new(),
        figures: intervals(run),
    }
}

fn seconds() -> Axis {
    Axis {
        label: "time".into(),
        scale: Scale::Linear,
        unit: Unit::Seconds,
    }
}

fn middle_s(start_ns: u64, end_ns: u64) -> f64 {
    (start_ns + end_ns) as f64 / 2e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_load_is_told() {
        let saved = include_str!("../../../loadgen/tests/saved/run.json");
        let mut run: RunFile = serde_json::from_str(saved).expect("it was saved by us");
        run.plan.size_mix = Some("64:90%,4KiB:10%".parse().expect("a mix"));
        run.plan.pipeline = 7;
        run.plan.ramp_to_per_s = Some(2_000.0);
        run.plan.load = Load::Open {
            rate_per_s: 0.5,
            arrivals: echometer_loadgen::plan::Arrivals::Poisson,
        };
        let facts = page(&run, None).facts;
        let (_, load) = facts.iter().find(|(name, _)| name == "load").expect("told");
        for part in [
            "64 B (90 %) or 4 KiB (10 %)",
            "7 in flight",
            "from 0.5/s to 2,000/s",
        ] {
            assert!(load.contains(part), "{part}: {load}");
        }
    }
}
