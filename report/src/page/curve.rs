//! A load curve to look at: latency over rate, the figures behind it, the knees.

use echometer_host::units::show_rate;

use crate::{
    file::{
        curve::{CURVE_METRICS, CurveFile, CurveMetric, CurvePoint},
        metric::Metric,
    },
    page::{
        chart::{Axis, Chart, Mark, Point, Scale, Series, Unit},
        frame::Frame,
        model::Page,
        table::{Cell, Table},
    },
    text::curve as text,
};

/// The page of a curve.
pub(crate) fn page(curve: &CurveFile) -> Page {
    let names: Vec<&str> = curve.arms.iter().map(|arm| arm.name.as_str()).collect();
    let mut page = Frame {
        kind: "curve",
        title: format!("Latency against rate: {}", names.join(", ")),
        started_at: &curve.started_at,
        cut_short: curve.cut_short,
        sentence: &curve.sentence,
        verdict: Some(&curve.verdict),
        machine: &curve.machine,
        doctor: &curve.doctor,
        commands: &curve.commands,
    }
    .page();
    page.charts.push(latency(curve));
    page.charts.retain(|chart| !chart.is_empty());
    page.tables = vec![summary(curve), figures(curve)];
    let design = &curve.design;
    let capacities = curve.capacities.iter().map(|capacity| {
        let rate = format!("{}/s", show_rate(capacity.rate_per_s));
        (format!("capacity of {}", capacity.arm), rate)
    });
    let facts = [
        ("load", Some(text::load_words(curve))),
        (
            "capacity holds",
            (!design.slos.is_empty()).then(|| design.slos.join(", ")),
        ),
        ("knee", Some(text::rule())),
        ("blocks", Some(design.blocks.to_string())),
        (
            "slices per block, arm and rate",
            Some(design.cycles.to_string()),
        ),
        ("margin", Some(format!("{:.1} %", design.margin * 100.0))),
        (
            "server on cpu",
            design.server_cpus.as_ref().map(ToString::to_string),
        ),
        ("client on cpu", Some(design.client_cpus.to_string())),
        ("seed", Some(curve.seed.to_string())),
    ];
    let known = facts
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    page.facts = capacities.chain(known).collect();
    page
}

/// One line per arm and quantile, as far as the arm kept up, with the knees as marks.
fn latency(curve: &CurveFile) -> Chart {
    let quantiles = CURVE_METRICS
        .into_iter()
        .filter(|name| name.quantile().is_some());
    let series = quantiles.flat_map(|name| {
        curve.arms.iter().map(move |arm| {
            let label = name.label().trim_start_matches("latency ");
            Series {
                name: format!("{} {label}", arm.name),
                points: line(curve, &arm.name, name),
                ..Series::default()
            }
        })
    });
    // An arm that has no knee has no mark. Two at one rate share theirs.
    let mut marks: Vec<Mark> = Vec::new();
    for knee in curve.knee.iter().filter(|knee| !knee.at_highest) {
        let Some(x) = knee.rate_per_s else { continue };
        match marks.iter_mut().find(|mark| mark.x.total_cmp(&x).is_eq()) {
            Some(mark) => mark.label = format!("{}, {}", mark.label, knee.arm),
            None => marks.push(Mark {
                x,
                label: format!("knee of {}", knee.arm),
            }),
        }
    }
    Chart {
        id: "curve".into(),
        title: "Latency against rate".into(),
        caption: format!(
            "Latency from when messages were due. Bars are intervals over the blocks. Lines end where an arm is overloaded, \
             and have no point where too few samples lie above the quantile. {}",
            text::rule()
        ),
        x: Axis {
            label: "messages per second".into(),
            scale: Scale::Linear,
            unit: Unit::Number,
        },
        y: Axis {
            label: "latency".into(),
            scale: Scale::Log,
            unit: Unit::Ns,
        },
        series: series.filter(|line| !line.points.is_empty()).collect(),
        marks,
        figures: figures(curve),
    }
}

fn line(curve: &CurveFile, arm: &str, name: Metric) -> Vec<Point> {
    let kept_up = |point: &&CurvePoint| !point.overloaded.contains_key(arm);
    let points = curve.points.iter().filter(kept_up).filter_map(|point| {
        let metric = point.metric(arm, name)?;
        Some(Point {
            x: point.rate_per_s,
            y: metric.value.filter(|value| 0.0 < *value)?,
            low: metric.ci_low,
            high: metric.ci_high,
        })
    });
    points.collect()
}

/// One row per rate and arm: what can be read before the chart.
fn summary(curve: &CurveFile) -> Table {
    let mut table = Table::new(
        "Each arm at each rate, in short",
        [
            "rate",
            "arm",
            "p50",
            "p99",
            "p99.9",
            "CPU/message",
            "p99 ratio",
            "verdict",
        ],
    );
    for point in &curve.points {
        for arm in point.arms() {
            let tail = point.metric(arm, Metric::LatencyP99);
            let mut cells = vec![
                Cell::count(Some(point.rate_per_s)),
                Cell::text(arm.to_owned()),
            ];
            cells.extend(CURVE_METRICS.map(|name| match point.metric(arm, name) {
                Some(metric) => Cell {
                    text: text::show_value(metric),
                    number: metric.value,
                },
                None => Cell::none(),
            }));
            cells.push(Cell::ratio(tail.and_then(|metric| metric.ratio)));
            let verdict = tail.and_then(|metric| metric.verdict);
            cells.push(Cell::text(match verdict {
                _ if point.overloaded.contains_key(arm) => "overloaded",
                Some(verdict) => verdict.word(),
                None if text::is_knee(curve, point, arm) => "knee",
                None => "",
            }));
            table.push(cells);
        }
    }
    table
}

fn figures(curve: &CurveFile) -> Table {
    let mut table = Table::new(
        "Each arm at each rate",
        [
            "rate", "share", "arm", "metric", "value", "from", "to", "ratio", "from", "to",
            "verdict",
        ],
    );
    for point in &curve.points {
        for metric in &point.metrics {
            let (row, reason) = row(curve, point, metric);
            table.push_judged(row, reason);
        }
    }
    table
}

fn row<'a>(
    curve: &CurveFile,
    point: &'a CurvePoint,
    metric: &'a CurveMetric,
) -> (Vec<Cell>, Option<&'a str>) {
    let overload = point.overloaded.get(&metric.arm);
    let knee = metric.name == Metric::LatencyP99 && text::is_knee(curve, point, &metric.arm);
    let word = match (metric.verdict, overload) {
        (_, Some(_)) => "overloaded",
        (Some(verdict), None) => verdict.word(),
        (None, None) if knee => "knee",
        (None, None) => "",
    };
    let cells = vec![
        Cell::count(Some(point.rate_per_s)),
        Cell::shown(point.share, |share| format!("{:.0} %", share * 100.0)),
        Cell::text(metric.arm.clone()),
        Cell::text(metric.name.label()),
        match metric.value {
            None => Cell::text("."),
            value => Cell::ns(value),
        },
        Cell::ns(metric.ci_low),
        Cell::ns(metric.ci_high),
        Cell::ratio(metric.ratio),
        Cell::ratio(metric.ratio_low),
        Cell::ratio(metric.ratio_high),
        Cell::text(word),
    ];
    let reason = overload.or(metric.reason.as_ref());
    (cells, reason.map(String::as_str))
}
