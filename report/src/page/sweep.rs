//! A sweep to look at: each metric over the levels, with its interval, and the curve of latency over throughput.

use echometer_host::units::{self, show_ns};
use echometer_statistics::Good;

use crate::{
    file::{
        metric::Metric,
        sweep::{CellMetric, Contrast, PointEntry, SweepFile},
    },
    page::{
        chart::{Axis, Chart, Forest, ForestRow, Mark, Point, Scale, Series, Unit, percent},
        frame::Frame,
        model::Page,
        table::{Cell, Table},
    },
};

/// The metrics of which there is a chart, with their titles.
const CHARTED: [(Metric, &str); 4] = [
    (Metric::ServerCpuPerMessage, "Server CPU per message"),
    (Metric::Rate, "Throughput"),
    (Metric::LatencyP50, "Median latency"),
    (Metric::LatencyP99, "99th percentile of the latency"),
];

/// The page of a sweep.
pub(crate) fn page(sweep: &SweepFile) -> Page {
    let keys: Vec<&str> = sweep.keys.iter().map(|key| key.name.as_str()).collect();
    let points = sweep.points.as_slice();
    let mut page = Frame {
        kind: "sweep",
        title: format!("Sweep over {}", keys.join(" and ")),
        started_at: &sweep.started_at,
        cut_short: sweep.cut_short,
        sentence: &sweep.sentence,
        verdict: Some(&sweep.verdict),
        machine: &sweep.machine,
        doctor: &sweep.doctor,
        commands: &sweep.commands,
    }
    .page();
    for (metric, title) in CHARTED {
        page.charts.push(over_levels(&keys, points, metric, title));
    }
    page.charts.push(throughput(points));
    page.charts.retain(|chart| !chart.is_empty());
    page.forests = forests(points, sweep.design.margin);
    page.tables = vec![table(&keys, points)];
    page.tables.extend(movements(points));
    let design = &sweep.design;
    let [server, client] = &design.cpus;
    page.facts = [
        (
            "load, where no level says otherwise",
            design.load.words().to_string(),
        ),
        ("blocks", design.blocks.to_string()),
        ("shortest slice", show_ns(design.slice_min_ns)),
        ("decides", design.primary.label().to_owned()),
        ("margin", percent(design.margin)),
        ("server on cpu", server.clone()),
        ("client on cpu", client.clone()),
        ("priority", design.priority.words().unwrap_or_default()),
        ("seed", sweep.seed.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .collect();
    page
}

/// What a metric is at a point, an entry per arm.
fn metrics(point: &PointEntry, metric: Metric) -> impl Iterator<Item = &CellMetric> {
    point
        .metrics
        .iter()
        .filter(move |entry| entry.name == metric)
}

/// A level as it was typed.
fn level<'a>(point: &'a PointEntry, key: &str) -> &'a str {
    point.levels.get(key).map_or("-", String::as_str)
}

fn cell(metric: Metric, value: Option<f64>) -> Cell {
    match metric {
        Metric::Rate => Cell::count(value),
        _ => Cell::ns(value),
    }
}

fn unit(metric: Metric) -> Unit {
    match metric {
        Metric::Rate => Unit::Number,
        _ => Unit::Ns,
    }
}

/// Where a level stands on the axis: at its number where all levels of the key are numbers, else in the order of the file.
struct Places {
    numbers: bool,
    log: bool,
}

impl Places {
    fn of(key: &str, points: &[PointEntry]) -> Self {
        let levels: Vec<Option<f64>> = points
            .iter()
            .map(|point| level_number(level(point, key)))
            .collect();
        let known: Vec<f64> = levels.iter().flatten().copied().collect();
        let numbers = !known.is_empty() && known.len() == levels.len();
        let least = known.iter().copied().fold(f64::INFINITY, f64::min);
        let most = known.iter().copied().fold(0.0, f64::max);
        Self {
            numbers,
            log: numbers && 0.0 < least && 8.0 * least <= most,
        }
    }
}

/// `1000`, `50k`, `4KiB`; none for words and lists.
fn level_number(text: &str) -> Option<f64> {
    let plain = text.parse::<f64>().ok().filter(|number| number.is_finite());
    plain
        .or_else(|| units::count(text).ok().map(|count| count as f64))
        .or_else(|| units::size(text).ok().map(|bytes| bytes as f64))
}

/// One line per arm, and for two keys one per arm and level of the second.
fn over_levels(keys: &[&str], points: &[PointEntry], metric: Metric, title: &str) -> Chart {
    let key = keys.first().copied().unwrap_or_default();
    let places = Places::of(key, points);
    let mut names: Vec<String> = Vec::new();
    let mut series: Vec<Series> = Vec::new();
    let mut figures = Table::new(title, ["level", "arm", "value", "from", "to"]);
    for point in points {
        let first = level(point, key);
        let index = names
            .iter()
            .position(|name| name == first)
            .unwrap_or_else(|| {
                names.push(first.to_owned());
                names.len() - 1
            });
        let x = match level_number(first).filter(|_| places.numbers) {
            Some(number) => number,
            None => (index + 1) as f64,
        };
        let others: Vec<String> = keys
            .iter()
            .skip(1)
            .map(|key| format!("{key} {}", level(point, key)))
            .collect();
        for entry in metrics(point, metric) {
            let Some(y) = entry.value else { continue };
            let (arm, low, high) = (&entry.arm, entry.value_low, entry.value_high);
            let name = match others.is_empty() {
                true => arm.clone(),
                false => format!("{arm}, {}", others.join(", ")),
            };
            let point_shown = Point { x, y, low, high };
            match series.iter_mut().find(|series| series.name == name) {
                Some(series) => series.points.push(point_shown),
                None => series.push(Series {
                    name: name.clone(),
                    points: vec![point_shown],
                    ..Series::default()
                }),
            }
            figures.push(vec![
                Cell::text(point.label.clone()),
                Cell::text(arm.clone()),
                cell(metric, Some(y)),
                cell(metric, low),
                cell(metric, high),
            ]);
        }
    }
    for series in &mut series {
        series
            .points
            .sort_by(|one, other| one.x.total_cmp(&other.x));
        // Lines between names would say that there is something in between.
        series.dots = !places.numbers;
    }
    let marks = match places.numbers {
        true => Vec::new(),
        false => names
            .into_iter()
            .zip(1_u32..)
            .map(|(label, index)| Mark {
                x: f64::from(index),
                label,
            })
            .collect(),
    };
    Chart {
        id: format!("over-{}", metric.name()).replace('_', "-"),
        title: title.to_owned(),
        caption: format!(
            "{title} over {key}, with the interval over the blocks where there is one."
        ),
        x: Axis {
            label: key.to_owned(),
            scale: if places.log {
                Scale::Log
            } else {
                Scale::Linear
            },
            unit: if places.numbers {
                Unit::Number
            } else {
                Unit::Name
            },
        },
        y: Axis {
            label: title.to_lowercase(),
            scale: if is_wide(&series) {
                Scale::Log
            } else {
                Scale::Linear
            },
            unit: unit(metric),
        },
        series,
        marks,
        figures,
    }
}

/// A metric's name for people.
fn words(metric: Metric) -> String {
    metric.name().replace("p99_9", "p99.9").replace('_', " ")
}

/// Whether values are so far apart that on an even scale the small ones could not be told from nothing.
fn is_wide(series: &[Series]) -> bool {
    let values = || {
        series
            .iter()
            .flat_map(|series| &series.points)
            .map(|point| point.y)
    };
    let (least, most) = (
        values().fold(f64::INFINITY, f64::min),
        values().fold(0.0, f64::max),
    );
    0.0 < least && 20.0 * least < most
}

/// Latency over throughput, one line per arm through its points in the order of their rates.
fn throughput(points: &[PointEntry]) -> Chart {
    let mut series: Vec<Series> = Vec::new();
    let mut figures = Table::new("Throughput and latency", ["level", "arm", "rate", "p99"]);
    for point in points {
        for rate in metrics(point, Metric::Rate) {
            let arm = &rate.arm;
            let tail = metrics(point, Metric::LatencyP99)
                .filter(|entry| entry.arm == *arm)
                .find_map(|entry| entry.value);
            let (Some(x), Some(y)) = (rate.value, tail) else {
                continue;
            };
            match series.iter_mut().find(|series| series.name == *arm) {
                Some(series) => series.points.push(Point::at(x, y)),
                None => series.push(Series {
                    name: arm.clone(),
                    points: vec![Point::at(x, y)],
                    ..Series::default()
                }),
            }
            figures.push(vec![
                Cell::text(point.label.clone()),
                Cell::text(arm.clone()),
                Cell::count(Some(x)),
                Cell::ns(Some(y)),
            ]);
        }
    }
    for series in &mut series {
        series
            .points
            .sort_by(|one, other| one.x.total_cmp(&other.x));
    }
    Chart {
        id: "throughput".into(),
        title: "Latency over throughput".into(),
        caption: "Each level's messages per second against its 99th percentile: where a line turns upwards the server is full."
            .into(),
        x: Axis {
            label: "messages per second".into(),
            scale: Scale::Linear,
            unit: Unit::Number,
        },
        y: Axis {
            label: "99th percentile".into(),
            scale: Scale::Log,
            unit: Unit::Ns,
        },
        series,
        marks: Vec::new(),
        figures,
    }
}

/// The primary metric against the first arm, or with one arm against the first level.
fn forests(points: &[PointEntry], margin: f64) -> Vec<Forest> {
    let primaries = || {
        points
            .iter()
            .flat_map(|point| point.metrics.iter().map(move |metric| (point, metric)))
            .filter(|(_, metric)| metric.primary)
    };
    let rows = |against: fn(&CellMetric) -> Option<&Contrast>| -> Vec<ForestRow> {
        primaries()
            .filter_map(|(point, metric)| {
                let contrast = against(metric)?;
                Some(ForestRow {
                    label: format!("{}: {}", point.label, metric.arm),
                    ratio: contrast.ratio,
                    low: contrast.ci_low,
                    high: contrast.ci_high,
                    verdict: contrast.verdict.word().to_owned(),
                    lower_is_better: metric.name.good() == Good::Lower,
                })
            })
            .collect()
    };
    let primary = primaries().next();
    let primary = primary.map_or_else(String::new, |(_, metric)| words(metric.name));
    let forest = |id: &str, title: String, rows| Forest {
        id: id.into(),
        title,
        caption: format!(
            "Ratios with their intervals. The band is the margin of {}, within which a difference does not matter.",
            percent(margin)
        ),
        margin,
        rows,
    };
    [
        forest(
            "arms",
            format!("{primary}, against the first arm at the same level"),
            rows(|metric| metric.against_arm.as_ref()),
        ),
        forest(
            "levels",
            format!("{primary}, against the first level"),
            rows(|metric| metric.against_point.as_ref()),
        ),
    ]
    .into_iter()
    .filter(|forest| !forest.rows.is_empty())
    .collect()
}

/// Every point, arm and metric.
fn table(keys: &[&str], points: &[PointEntry]) -> Table {
    let columns = keys.iter().copied().chain([
        "arm",
        "metric",
        "value",
        "from",
        "to",
        "against first arm",
        "verdict",
    ]);
    let mut table = Table::new("Points", columns);
    for point in points {
        for metric in &point.metrics {
            let levels = keys.iter().map(|key| {
                let level = level(point, key);
                Cell {
                    text: level.to_owned(),
                    number: level_number(level),
                }
            });
            let star = if metric.primary { " *" } else { "" };
            let against = metric.against_arm.as_ref();
            let mut row: Vec<Cell> = levels.collect();
            row.extend([
                Cell::text(metric.arm.clone()),
                Cell::text(format!("{}{star}", words(metric.name))),
                cell(metric.name, metric.value),
                cell(metric.name, metric.value_low),
                cell(metric.name, metric.value_high),
                Cell::ratio(against.and_then(|contrast| contrast.ratio)),
                Cell::text(against.map_or("-", |contrast| contrast.verdict.word())),
            ]);
            let reason = against.and_then(|contrast| contrast.reason.as_deref());
            table.push_judged(row, reason);
        }
    }
    table
}

/// How both sides were moved about, where that was watched.
fn movements(points: &[PointEntry]) -> Option<Table> {
    let mut table = Table::new(
        "Moved about",
        [
            "level",
            "layout",
            "arm",
            "server moves/s",
            "client moves/s",
            "server waited",
            "client waited",
        ],
    );
    let share = |share| Cell::shown(share, |share| format!("{:.1} %", share * 100.0));
    let moves = |moves| Cell::shown(moves, |moves| format!("{moves:.1}"));
    for point in points {
        for (arm, movement) in &point.movement {
            table.push(vec![
                Cell::text(point.label.clone()),
                Cell::text(point.layout.as_deref().unwrap_or("-")),
                Cell::text(arm.clone()),
                moves(movement.server_migrations_per_s),
                moves(movement.client_migrations_per_s),
                share(movement.server_run_delay),
                share(movement.client_run_delay),
            ]);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}
