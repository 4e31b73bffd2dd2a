//! A histogram log without a run file to look at: a merged one, or another tool's.

use std::path::Path;

use hdrhistogram::Histogram;

use echometer_host::units::show_count;

use crate::{
    page::{
        chart::{Axis, Chart, Point, Scale, Series, Unit, connect_times, spectrum},
        model::Page,
        table::{Cell, Table},
    },
    saved::hlog::Log,
};

/// The page of a log. Values are taken for ns, as HdrHistogram's own tools record, unless the log or the user said else.
pub(crate) fn page(log: &Log, file: &Path) -> Page {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let of_tags: Vec<(String, Histogram<u64>)> = log
        .tags()
        .into_iter()
        .filter_map(|tag| Some((shown(tag), log.whole(tag)?)))
        .collect();
    let times = |connect: bool| -> Vec<(String, &Histogram<u64>)> {
        let these = of_tags
            .iter()
            .filter(|(tag, _)| (tag == "connect") == connect);
        these.map(|(tag, whole)| (tag.clone(), whole)).collect()
    };
    let mut charts = vec![spectrum(&times(false)), over_time(log)];
    charts.push(connect_times(&times(true), None));
    charts.retain(|chart| !chart.is_empty());
    let mut table = Table::new(
        "Times",
        [
            &format!("read as {}", log.read_as()),
            "count",
            "min",
            "mean",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "p99.99",
            "max",
        ],
    );
    for (tag, whole) in &of_tags {
        let quantile = |quantile| {
            let value = echometer_loadgen::file::quantile(whole, quantile);
            Cell::ns(value.map(|ns| ns as f64))
        };
        let filled = |value: f64| Cell::ns(Some(value).filter(|_| !whole.is_empty()));
        table.push(vec![
            Cell::text(tag.clone()),
            Cell::count(Some(whole.len() as f64)),
            filled(whole.min() as f64),
            filled(whole.mean()),
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            quantile(0.999),
            quantile(0.9999),
            filled(whole.max() as f64),
        ]);
    }
    let values: u64 = of_tags.iter().map(|(_, whole)| whole.len()).sum();
    Page {
        kind: "log".into(),
        title: format!("Histogram log {name}"),
        subtitle: subtitle(log),
        sentence: format!(
            "{} values in {} intervals.",
            show_count(values),
            show_count(log.intervals.len() as u64)
        ),
        charts,
        tables: vec![table],
        ..Page::default()
    }
}

/// What the values were taken for, and what else to know.
fn subtitle(log: &Log) -> String {
    let taken = match log.unit {
        Some(unit) if !log.own_unit => format!("values are {}, as --unit says", unit.words()),
        _ => "values are taken for nanoseconds".to_owned(),
    };
    let notes = log.notes.iter().cloned();
    let all: Vec<String> = std::iter::once(taken).chain(notes).collect();
    all.join("; ")
}

fn shown(tag: &str) -> String {
    if tag.is_empty() { "untagged" } else { tag }.to_owned()
}

/// The median and the 99th percentile of each tag, one point an interval.
fn over_time(log: &Log) -> Chart {
    let begin = log.intervals.iter().map(|interval| interval.start).min();
    let begin = begin.unwrap_or_default();
    let mut figures = Table::new("Intervals", ["from", "tag", "count", "p50", "p99", "max"]);
    let mut series = Vec::new();
    for tag in log.tags().into_iter().filter(|tag| *tag != "connect") {
        let mut lines = [("p50", 0.5), ("p99", 0.99)].map(|(name, quantile)| {
            let name = format!("{} {name}", shown(tag));
            (
                quantile,
                Series {
                    name,
                    ..Series::default()
                },
            )
        });
        for interval in log.intervals.iter().filter(|interval| interval.tag == tag) {
            let from = (interval.start - begin).as_secs_f64();
            let values = &interval.histogram.histogram();
            let at = |quantile| {
                echometer_loadgen::file::quantile(values, quantile).map(|ns| ns.max(1) as f64)
            };
            for (quantile, line) in &mut lines {
                let x = from + interval.length.as_secs_f64() / 2.0;
                line.points.extend(at(*quantile).map(|y| Point::at(x, y)));
            }
            figures.push(vec![
                Cell::shown(Some(from), |from| format!("{from:.1} s")),
                Cell::text(shown(tag)),
                Cell::count(Some(values.len() as f64)),
                Cell::ns(at(0.5)),
                Cell::ns(at(0.99)),
                Cell::ns(Some(values.max() as f64).filter(|_| !values.is_empty())),
            ]);
        }
        series.extend(lines.into_iter().map(|(_, line)| line));
    }
    Chart {
        id: "over-time".into(),
        title: "Percentiles over time".into(),
        caption: "The values of each interval.".into(),
        x: Axis {
            label: "time".into(),
            scale: Scale::Linear,
            unit: Unit::Seconds,
        },
        y: Axis {
            label: "value".into(),
            scale: Scale::Log,
            unit: Unit::Ns,
        },
        series,
        marks: Vec::new(),
        figures,
    }
}
