//! A comparison to look at.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use echometer_host::units::counted;
use echometer_loadgen::file::Summary;
use echometer_statistics::{Good, Verdict};

use crate::{
    file::{
        compare::{Comparison, MetricResult},
        metric::Metric,
        trust::Status,
    },
    page::{
        chart::{Axis, Chart, Forest, ForestRow, Point, Scale, Series, Unit, percent, spectrum},
        model::{Page, TrustShown, machine_rows},
        table::{Cell, Table},
    },
    text::compare as report,
};

/// The page of a comparison. `latencies` are the arms' over all valid blocks, as far as they are there.
pub(crate) fn page(comparison: &Comparison, latencies: &BTreeMap<String, Histogram<u64>>) -> Page {
    let names: Vec<&str> = comparison
        .arms
        .iter()
        .map(|arm| arm.name.as_str())
        .collect();
    let whole: Vec<(String, &Histogram<u64>)> = names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), latencies.get(*name)?)))
        .collect();
    let mut charts = Vec::new();
    if !whole.is_empty() {
        charts.push(spectrum(&whole));
    }
    charts.push(over_blocks(comparison));
    charts.push(throughput(comparison));
    charts.retain(|chart| !chart.is_empty());
    let status = comparison.verdict.status;
    Page {
        kind: "compare".into(),
        title: format!("Compared: {}", names.join(", ")),
        subtitle: format!(
            "{}; {}; begun {}",
            comparison.design.load.words(),
            blocks(comparison),
            comparison.started_at
        ),
        sentence: comparison.sentence.clone(),
        trust: TrustShown {
            word: match status {
                Status::Valid => "valid".into(),
                Status::Invalid => "not valid".into(),
            },
            good: status == Status::Valid,
            reasons: comparison.verdict.reasons.clone(),
            warnings: report::remarks(comparison)
                .into_iter()
                .filter(|remark| !remark.starts_with("not valid: "))
                .map(|remark| remark.trim_start_matches("warning: ").to_owned())
                .collect(),
        },
        forests: names
            .iter()
            .skip(1)
            .map(|arm| forest(comparison, arm))
            .collect(),
        charts,
        tables: vec![
            metrics(comparison),
            arms(comparison),
            blocks_table(comparison),
        ],
        facts: asked(comparison),
        machine: machine_rows(&comparison.machine),
        findings: comparison.doctor.clone(),
        commands: comparison
            .commands
            .iter()
            .map(|command| (command.of.clone(), command.command.clone()))
            .collect(),
        ..Page::default()
    }
}

fn blocks(comparison: &Comparison) -> String {
    format!(
        "{} of {} valid",
        comparison.valid_blocks().count(),
        counted(
            comparison.blocks.len().max(comparison.design.blocks) as u64,
            "block"
        )
    )
}

fn forest(comparison: &Comparison, arm: &str) -> Forest {
    let metrics = of_arm(comparison, arm);
    let baseline = comparison.arms.first().map_or("", |arm| arm.name.as_str());
    let sure = metrics.iter().find_map(|metric| metric.confidence);
    let sure = sure.map_or_else(String::new, |sure| {
        format!(
            " The bars are {} intervals.",
            percent((sure * 1e4).round() / 1e4)
        )
    });
    Forest {
        id: format!("ratios-{arm}"),
        title: format!("{arm} / {baseline}"),
        caption: format!(
            "Left of 1 {arm} has less than {baseline}, right of it more; less is better but for the rate. The band is the \
             margin of {}, within which a difference does not matter.{sure}",
            percent(comparison.design.margin)
        ),
        margin: comparison.design.margin,
        rows: metrics
            .iter()
            .map(|metric| ForestRow {
                label: label(metric),
                ratio: metric.ratio,
                low: metric.ci_low,
                high: metric.ci_high,
                verdict: metric.verdict.word().to_owned(),
                lower_is_better: metric.name.good() == Good::Lower,
            })
            .collect(),
    }
}

fn label(metric: &MetricResult) -> String {
    let star = if metric.primary { " *" } else { "" };
    format!("{}{star}", metric.name.label())
}

fn of_arm<'a>(comparison: &'a Comparison, arm: &str) -> Vec<&'a MetricResult> {
    let all = comparison.metrics.iter();
    all.filter(|metric| metric.arm == arm).collect()
}

/// The metrics of every arm, the ratio against the baseline in each row.
fn metrics(comparison: &Comparison) -> Table {
    let mut table = Table::new(
        "Metrics (* decides)",
        [
            "arm",
            "metric",
            "baseline",
            "arm's",
            "ratio",
            "from",
            "to",
            "p",
            comparison.correction.column(),
            "verdict",
        ],
    );
    for metric in &comparison.metrics {
        let row = vec![
            Cell::text(metric.arm.clone()),
            Cell::text(label(metric)),
            value(metric.name, metric.baseline_value),
            value(metric.name, metric.arm_value),
            Cell::ratio(metric.ratio),
            Cell::ratio(metric.ci_low),
            Cell::ratio(metric.ci_high),
            Cell::shown(metric.p, |p| format!("{p:.4}")),
            Cell::shown(metric.p_adjusted, |p| format!("{p:.4}")),
            Cell::text(match (&metric.reason, metric.verdict) {
                // Why a verdict is invalid stands among the warnings, once for all metrics that it spoils.
                (Some(reason), Verdict::Undecided) => format!("undecided: {reason}"),
                _ => metric.verdict.word().to_owned(),
            }),
        ];
        table.push_judged(row, metric.reason.as_deref());
    }
    table
}

fn value(metric: Metric, value: Option<f64>) -> Cell {
    match metric {
        Metric::Rate => rate(value),
        _ => Cell::ns(value),
    }
}

fn rate(value: Option<f64>) -> Cell {
    let mut cell = Cell::count(value);
    if cell.number.is_some() {
        cell.text.push_str("/s");
    }
    cell
}

/// What each arm is.
fn arms(comparison: &Comparison) -> Table {
    let mut table = Table::new("Arms", ["arm", "what it is", "what it said"]);
    for arm in &comparison.arms {
        table.push(vec![
            Cell::text(arm.name.clone()),
            Cell::text(arm.spec.clone()),
            Cell::text(arm.ready_line.clone().unwrap_or_else(|| "-".into())),
        ]);
    }
    table
}

/// Every block of every arm.
fn blocks_table(comparison: &Comparison) -> Table {
    let mut table = Table::new(
        "Blocks",
        [
            "block",
            "arm",
            "rate",
            "server CPU",
            "client CPU",
            "p50",
            "p90",
            "p99",
            "server busy",
            "client busy",
            "counts",
        ],
    );
    for block in &comparison.blocks {
        let counts = match block.valid {
            true => "yes".to_owned(),
            false => format!("no: {}", block.reasons.join("; ")),
        };
        let index = Cell::count(Some(block.index as f64));
        if block.arms.is_empty() {
            let mut row = vec![Cell::none(); table.columns.len()];
            row[0] = index.clone();
            row[10] = Cell::text(counts.clone());
            table.push(row);
        }
        for (name, arm) in &block.arms {
            let share =
                |share: Option<f64>| Cell::shown(share, |share| format!("{:.0} %", share * 100.0));
            let ns = |ns: Option<u64>| Cell::ns(ns.map(|ns| ns as f64));
            table.push(vec![
                index.clone(),
                Cell::text(name.clone()),
                rate(Some(arm.rate_per_s)),
                Cell::ns(arm.server_cpu_ns_per_message),
                Cell::ns(arm.client_cpu_ns_per_message),
                ns(arm.latency_ns.p50),
                ns(arm.latency_ns.p90),
                ns(arm.latency_ns.p99),
                share(arm.server_busy),
                share(Some(arm.client_busy)),
                Cell::text(counts.clone()),
            ]);
        }
    }
    table
}

/// The percentiles of each arm from block to block: time goes to the right.
fn over_blocks(comparison: &Comparison) -> Chart {
    type Quantile = fn(&Summary) -> Option<u64>;
    let quantiles: [(&str, Quantile); 3] = [
        ("p50", |summary| summary.p50),
        ("p90", |summary| summary.p90),
        ("p99", |summary| summary.p99),
    ];
    let mut series = Vec::new();
    let mut figures = Table::new(
        "Percentiles by block",
        ["block", "arm", "p50", "p90", "p99"],
    );
    for arm in &comparison.arms {
        for (quantile, of) in quantiles {
            let points = comparison.valid_blocks().filter_map(|block| {
                let ns = of(&block.arms.get(&arm.name)?.latency_ns)?;
                Some(Point::at(block.index as f64, ns.max(1) as f64))
            });
            series.push(Series {
                name: format!("{} {quantile}", arm.name),
                points: points.collect(),
                ..Series::default()
            });
        }
        for block in comparison.valid_blocks() {
            if let Some(figure) = block.arms.get(&arm.name) {
                let mut row = vec![
                    Cell::count(Some(block.index as f64)),
                    Cell::text(arm.name.clone()),
                ];
                row.extend(
                    quantiles
                        .iter()
                        .map(|(_, of)| Cell::ns(of(&figure.latency_ns).map(|ns| ns as f64))),
                );
                figures.push(row);
            }
        }
    }
    Chart {
        id: "over-time".into(),
        title: "Percentiles over time".into(),
        caption:
            "Each arm's percentiles in each valid block, in the order in which the blocks were run."
                .into(),
        x: Axis {
            label: "block".into(),
            scale: Scale::Linear,
            unit: Unit::Number,
        },
        y: Axis {
            label: "latency".into(),
            scale: Scale::Log,
            unit: Unit::Ns,
        },
        series,
        marks: Vec::new(),
        figures,
    }
}

/// Where each block of each arm lies between throughput and latency.
fn throughput(comparison: &Comparison) -> Chart {
    let mut figures = Table::new(
        "Throughput and latency by block",
        ["arm", "block", "rate", "p50"],
    );
    let series = comparison.arms.iter().map(|arm| {
        let mut points = Vec::new();
        for block in comparison.valid_blocks() {
            let Some(figure) = block.arms.get(&arm.name) else {
                continue;
            };
            let Some(p50) = figure.latency_ns.p50 else {
                continue;
            };
            points.push(Point::at(figure.rate_per_s, p50 as f64));
            figures.push(vec![
                Cell::text(arm.name.clone()),
                Cell::count(Some(block.index as f64)),
                rate(Some(figure.rate_per_s)),
                Cell::ns(Some(p50 as f64)),
            ]);
        }
        points.sort_by(|one, other| one.x.total_cmp(&other.x));
        Series {
            name: arm.name.clone(),
            points,
            dots: true,
            steps: false,
        }
    });
    let series = series.collect();
    Chart {
        id: "throughput".into(),
        title: "Throughput and latency".into(),
        caption: "One dot per block: messages per second against the median latency. Right and below is better.".into(),
        x: Axis {
            label: "messages per second".into(),
            scale: Scale::Linear,
            unit: Unit::Number,
        },
        y: Axis {
            label: "median latency".into(),
            scale: Scale::Linear,
            unit: Unit::Ns,
        },
        series,
        marks: Vec::new(),
        figures,
    }
}

fn asked(comparison: &Comparison) -> Vec<(String, String)> {
    let design = &comparison.design;
    let cpus = |cpus: Option<String>| cpus.unwrap_or_else(|| "elsewhere".into());
    [
        ("load", design.load.words().to_string()),
        ("design", design.kind.word().to_owned()),
        ("blocks", blocks(comparison)),
        (
            "measured in a block",
            format!("{:?} per arm", design.load.duration),
        ),
        ("decides", design.primary.label().to_owned()),
        ("margin", percent(design.margin)),
        (
            "server on cpu",
            cpus(design.server_cpus.as_ref().map(ToString::to_string)),
        ),
        ("client on cpu", design.client_cpus.to_string()),
        (
            "priority",
            design.priority.words().unwrap_or_else(|| "none".to_owned()),
        ),
        ("seed", comparison.seed.to_string()),
        (
            "took",
            format!("{:.0} s", comparison.elapsed_ns as f64 / 1e9),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}
