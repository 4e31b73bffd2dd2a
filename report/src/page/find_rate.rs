//! A search for the highest rate to look at: the rates that were tried, what they did to the objective, the answer.

use crate::{
    file::find_rate::FindRateFile,
    page::{
        chart::{Axis, Chart, Mark, Point, Scale, Series, Unit},
        frame::Frame,
        model::Page,
        table::{Cell, Table},
    },
    text::find_rate as text,
};

/// The page of a search.
pub(crate) fn page(search: &FindRateFile) -> Page {
    let title = format!(
        "Highest rate of {} that holds {}",
        search.arm.name, search.slo
    );
    let mut page = Frame {
        kind: "find-rate",
        title,
        started_at: &search.started_at,
        cut_short: search.cut_short,
        sentence: &search.sentence,
        verdict: Some(&search.verdict),
        machine: &search.machine,
        doctor: &search.doctor,
        commands: &search.commands,
    }
    .page();
    page.charts.push(curve(search));
    page.charts.retain(|chart| !chart.is_empty());
    page.tables = vec![table(search), blocks(search), runs(search)];
    let rate = |rate: Option<f64>| rate.map(|rate| format!("{}/s", Cell::count(Some(rate)).text));
    let design = &search.design;
    let facts = [
        ("objective", Some(search.slo.clone())),
        ("highest rate that holds", rate(search.rate_per_s)),
        ("from", rate(search.ci_low)),
        ("to", rate(search.ci_high)),
        ("load", Some(text::load_words(search))),
        ("blocks", Some(design.blocks.to_string())),
        ("lowest rate", rate(Some(design.lowest_per_s))),
        ("highest rate allowed", rate(Some(design.highest_per_s))),
        (
            "server on cpu",
            design.server_cpus.as_ref().map(ToString::to_string),
        ),
        ("client on cpu", Some(design.client_cpus.to_string())),
        ("priority", design.priority.words()),
        ("seed", Some(search.seed.to_string())),
    ];
    let known = facts.into_iter();
    page.facts = known
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    page
}

fn ns(value: Option<u64>) -> Cell {
    Cell::ns(value.map(|ns| ns as f64))
}

fn curve(search: &FindRateFile) -> Chart {
    type Quantile = fn(&echometer_loadgen::file::Summary) -> Option<u64>;
    let quantiles: [(&str, Quantile); 4] = [
        ("p50", |summary| summary.p50),
        ("p90", |summary| summary.p90),
        ("p99", |summary| summary.p99),
        ("p99.9", |summary| summary.p99_9),
    ];
    let series = quantiles.map(|(name, of)| {
        let points = search.curve.iter().filter_map(|point| {
            let y = of(&point.latency_ns)?.max(1) as f64;
            Some(Point::at(point.rate_per_s, y))
        });
        let mut points: Vec<Point> = points.collect();
        points.sort_by(|one, other| one.x.total_cmp(&other.x));
        Series {
            name: name.to_owned(),
            points,
            ..Series::default()
        }
    });
    let found = search.rate_per_s.map(|x| Mark {
        x,
        label: format!("{}/s holds", Cell::count(Some(x)).text),
    });
    Chart {
        id: "curve".into(),
        title: "Latency over throughput".into(),
        caption: "Every rate that was tried, against its percentiles. The mark is the highest rate that holds.".into(),
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
        series: series.into_iter().filter(|line| !line.points.is_empty()).collect(),
        marks: found.into_iter().collect(),
        figures: table(search),
    }
}

fn table(search: &FindRateFile) -> Table {
    let mut table = Table::new(
        "Rates that were tried",
        [
            "rate",
            "achieved",
            "runs",
            "held",
            "objective",
            "p50",
            "p90",
            "p99",
            "p99.9",
        ],
    );
    for point in &search.curve {
        table.push(vec![
            Cell::count(Some(point.rate_per_s)),
            Cell::count(Some(point.achieved_per_s)),
            Cell::count(Some(point.runs as f64)),
            Cell::count(Some(point.held as f64)),
            ns(Some(point.slo_ns)),
            ns(point.latency_ns.p50),
            ns(point.latency_ns.p90),
            ns(point.latency_ns.p99),
            ns(point.latency_ns.p99_9),
        ]);
    }
    table
}

fn blocks(search: &FindRateFile) -> Table {
    let mut table = Table::new("Blocks", ["block", "highest rate that held", "counts"]);
    for block in &search.blocks {
        table.push(vec![
            Cell::count(Some(block.index as f64)),
            Cell::count(block.rate_per_s),
            Cell::text(match block.valid {
                true => "yes".to_owned(),
                false => format!("no: {}", block.reasons.join("; ")),
            }),
        ]);
    }
    table
}

fn runs(search: &FindRateFile) -> Table {
    let mut table = Table::new(
        "Runs",
        [
            "block",
            "rate",
            "attempt",
            "due",
            "achieved",
            "objective",
            "holds",
            "verdict",
        ],
    );
    for run in &search.runs {
        table.push(vec![
            Cell::count(Some(run.block as f64)),
            Cell::count(Some(run.rate_per_s)),
            Cell::count(Some(f64::from(run.attempt))),
            Cell::count(Some(run.offered_per_s)),
            Cell::count(Some(run.achieved_per_s)),
            ns(Some(run.slo_ns)),
            Cell::text(match run.holds {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            }),
            Cell::text(run.status.name()),
        ]);
    }
    table
}
