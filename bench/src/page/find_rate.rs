//! A search for the highest rate to look at: the rates that were tried, what they did to the objective, the answer.

use serde_json::Value;

use super::{
    Page,
    chart::{Axis, Chart, Mark, Point, Scale, Series, Unit},
    table::{Cell, Table},
    value::{self, number, shown},
};

/// The page of a search.
pub(super) fn page(search: &Value) -> Page {
    let slo = search["slo"]
        .as_str()
        .or(search["slo"]["text"].as_str())
        .map_or_else(|| shown(&search["slo"]), str::to_owned);
    let mut page = value::page(
        "find-rate",
        format!("Highest rate that holds {slo}"),
        search,
    );
    let tried = tried(search);
    page.charts.push(curve(search, &tried));
    page.charts.retain(|chart| !chart.is_empty());
    page.tables = vec![table(&tried)];
    for (name, key) in [
        ("rate", "rate_per_s"),
        ("from", "rate_low_per_s"),
        ("to", "rate_high_per_s"),
    ] {
        if let Some(rate) = number(search, &[key]) {
            page.facts.push((
                name.to_owned(),
                format!("{}/s", Cell::count(Some(rate)).text),
            ));
        }
    }
    page
}

/// The rates that were tried, in the order in which they were, however the file calls their list.
fn tried(search: &Value) -> Vec<&Value> {
    let lists = ["curve", "trials", "probes", "points", "runs"];
    let list = lists.iter().find_map(|key| search[*key].as_array());
    list.into_iter().flatten().collect()
}

fn rate_of(trial: &Value) -> Option<f64> {
    let keys = ["rate_per_s", "asked_per_s", "offered_per_s", "rate"];
    keys.iter().find_map(|key| number(trial, &[key]))
}

fn quantile(trial: &Value, name: &str) -> Option<f64> {
    number(trial, &["latency_ns", name]).or_else(|| number(trial, &[&format!("{name}_ns")]))
}

fn holds(trial: &Value) -> Option<bool> {
    let keys = ["holds", "held", "ok", "passed"];
    keys.iter().find_map(|key| trial[*key].as_bool())
}

fn curve(search: &Value, tried: &[&Value]) -> Chart {
    let lines = ["p50", "p90", "p99", "p99_9"].map(|name| {
        let mut points: Vec<Point> = tried
            .iter()
            .filter_map(|trial| Some(Point::at(rate_of(trial)?, quantile(trial, name)?.max(1.0))))
            .collect();
        points.sort_by(|one, other| one.x.total_cmp(&other.x));
        Series {
            name: name.replace('_', "."),
            points,
            ..Series::default()
        }
    });
    let found = number(search, &["rate_per_s"]);
    let marks = found.map(|x| Mark {
        x,
        label: format!("{}/s holds", Cell::count(Some(x)).text),
    });
    Chart {
        id: "curve".into(),
        title: "Latency over throughput".into(),
        caption: "Every rate that was tried, against its percentiles. The mark is the highest rate that holds.".into(),
        x: Axis {
            label: "messages a second".into(),
            scale: Scale::Linear,
            unit: Unit::Number,
        },
        y: Axis {
            label: "latency".into(),
            scale: Scale::Log,
            unit: Unit::Ns,
        },
        series: lines.into_iter().filter(|line| !line.points.is_empty()).collect(),
        marks: marks.into_iter().collect(),
        figures: table(tried),
    }
}

fn table(tried: &[&Value]) -> Table {
    let mut table = Table::new(
        "Rates that were tried",
        ["rate", "holds", "p50", "p90", "p99", "p99.9"],
    );
    for trial in tried {
        let ns = |name| Cell::ns(quantile(trial, name));
        table.push(vec![
            Cell::count(rate_of(trial)),
            Cell::text(match holds(trial) {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            }),
            ns("p50"),
            ns("p90"),
            ns("p99"),
            ns("p99_9"),
        ]);
    }
    table
}
