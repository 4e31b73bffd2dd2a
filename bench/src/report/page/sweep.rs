//! A sweep to look at: each metric over the levels, with its interval, and the curve of latency over throughput.

use serde_json::Value;

use crate::report::page::{
    Page,
    chart::{Axis, Chart, Forest, ForestRow, Point, Scale, Series, Unit, percent},
    table::{Cell, Table},
    value::{self, number, shown},
};

/// The metrics of which there is a chart, with their titles.
const CHARTED: [(&str, &str); 4] = [
    ("server_cpu_per_message", "Server CPU a message"),
    ("rate", "Throughput"),
    ("latency_p50", "Median latency"),
    ("latency_p99", "99th percentile of the latency"),
];

/// The page of a sweep.
pub(super) fn page(sweep: &Value) -> Page {
    let points: Vec<&Value> = sweep["points"].as_array().into_iter().flatten().collect();
    let keys: Vec<String> = sweep["keys"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|key| {
            key["name"]
                .as_str()
                .map_or_else(|| shown(key), str::to_owned)
        })
        .collect();
    let mut page = value::page("sweep", format!("Sweep over {}", keys.join(" and ")), sweep);
    for (metric, title) in CHARTED {
        page.charts.push(over_levels(&keys, &points, metric, title));
    }
    page.charts.push(throughput(&keys, &points));
    page.charts.retain(|chart| !chart.is_empty());
    page.forests = forests(
        &keys,
        &points,
        number(sweep, &["design", "margin"]).unwrap_or(0.02),
    );
    page.tables = vec![table(&keys, &points)];
    page.tables.extend(movements(&keys, &points));
    let design = sweep["design"].as_object().into_iter().flatten();
    let plain = design.filter(|(_, value)| !value.is_object());
    page.facts = plain
        .map(|(name, value)| (name.replace('_', " "), shown(value)))
        .collect();
    page
}

fn label(keys: &[String], point: &Value) -> String {
    if let Some(label) = point["label"].as_str() {
        return label.to_owned();
    }
    let levels: Vec<String> = keys
        .iter()
        .map(|key| shown(&point["levels"][key]))
        .collect();
    levels.join(", ")
}

fn metrics<'a>(point: &'a Value, name: &str) -> Vec<(String, &'a Value)> {
    let all = point["metrics"].as_array().into_iter().flatten();
    all.filter(|metric| metric["name"] == name)
        .map(|metric| (shown(&metric["arm"]), metric))
        .collect()
}

/// A metric's value at a point, however the file calls it.
fn value_of(metric: &Value) -> Option<f64> {
    number(metric, &["value"]).or_else(|| number(metric, &["arm_value"]))
}

fn cell(name: &str, value: Option<f64>) -> Cell {
    match name {
        "rate" => Cell::count(value),
        _ => Cell::ns(value),
    }
}

fn unit(metric: &str) -> Unit {
    if metric == "rate" {
        Unit::Number
    } else {
        Unit::Ns
    }
}

/// Where a level stands on the axis: at its number where all levels of the key are numbers, else in the order of the file.
struct Places {
    numbers: bool,
    log: bool,
}

impl Places {
    fn of(key: Option<&String>, points: &[&Value]) -> Self {
        let levels: Vec<Option<f64>> = points
            .iter()
            .map(|point| level_number(&point["levels"][key.map_or("", String::as_str)]))
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
fn level_number(level: &Value) -> Option<f64> {
    let text = match level {
        Value::String(text) => text.as_str(),
        other => return other.as_f64(),
    };
    let plain = text.parse::<f64>().ok().filter(|number| number.is_finite());
    plain
        .or_else(|| {
            echometer_host::units::count(text)
                .ok()
                .map(|count| count as f64)
        })
        .or_else(|| {
            echometer_host::units::size(text)
                .ok()
                .map(|bytes| bytes as f64)
        })
}

/// One line an arm, and for two keys one an arm and level of the second.
fn over_levels(keys: &[String], points: &[&Value], metric: &str, title: &str) -> Chart {
    let first = keys.first();
    let places = Places::of(first, points);
    let key = first.map_or("", String::as_str);
    let mut names: Vec<String> = Vec::new();
    let mut series: Vec<Series> = Vec::new();
    let mut figures = Table::new(title, ["level", "arm", "value", "from", "to"]);
    for point in points {
        let level = shown(&point["levels"][key]);
        let index = names
            .iter()
            .position(|name| *name == level)
            .unwrap_or_else(|| {
                names.push(level.clone());
                names.len() - 1
            });
        let x = match level_number(&point["levels"][key]).filter(|_| places.numbers) {
            Some(number) => number,
            None => (index + 1) as f64,
        };
        let others: Vec<String> = keys
            .iter()
            .skip(1)
            .map(|key| format!("{key} {}", shown(&point["levels"][key])))
            .collect();
        for (arm, entry) in metrics(point, metric) {
            let Some(y) = value_of(entry) else { continue };
            let (low, high) = (
                number(entry, &["value_low"]),
                number(entry, &["value_high"]),
            );
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
                Cell::text(label(keys, point)),
                Cell::text(arm),
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
            .map(|(label, index)| crate::report::page::chart::Mark {
                x: f64::from(index),
                label,
            })
            .collect(),
    };
    Chart {
        id: format!("over-{metric}").replace('_', "-"),
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
fn words(name: &str) -> String {
    name.replace("p99_9", "p99.9").replace('_', " ")
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

/// Latency over throughput, one line an arm through its points in the order of their rates.
fn throughput(keys: &[String], points: &[&Value]) -> Chart {
    let mut series: Vec<Series> = Vec::new();
    let mut figures = Table::new("Throughput and latency", ["level", "arm", "rate", "p99"]);
    for point in points {
        for (arm, rate) in metrics(point, "rate") {
            let tail = metrics(point, "latency_p99").into_iter();
            let tail = tail
                .filter(|(name, _)| *name == arm)
                .find_map(|(_, entry)| value_of(entry));
            let (Some(x), Some(y)) = (value_of(rate), tail) else {
                continue;
            };
            match series.iter_mut().find(|series| series.name == arm) {
                Some(series) => series.points.push(Point::at(x, y)),
                None => series.push(Series {
                    name: arm.clone(),
                    points: vec![Point::at(x, y)],
                    ..Series::default()
                }),
            }
            figures.push(vec![
                Cell::text(label(keys, point)),
                Cell::text(arm),
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
        caption: "Each level's messages a second against its 99th percentile: where a line turns upwards the server is full."
            .into(),
        x: Axis {
            label: "messages a second".into(),
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
fn forests(keys: &[String], points: &[&Value], margin: f64) -> Vec<Forest> {
    let rows = |against: &str| -> Vec<ForestRow> {
        let mut rows = Vec::new();
        for point in points {
            let all = point["metrics"].as_array().into_iter().flatten();
            for metric in all.filter(|metric| metric["primary"] == true) {
                let contrast = &metric[against];
                if contrast.is_null() {
                    continue;
                }
                rows.push(ForestRow {
                    label: format!("{}: {}", label(keys, point), shown(&metric["arm"])),
                    ratio: number(contrast, &["ratio"]),
                    low: number(contrast, &["ci_low"]),
                    high: number(contrast, &["ci_high"]),
                    verdict: contrast["verdict"].as_str().unwrap_or_default().to_owned(),
                    lower_is_better: metric["name"] != "rate",
                });
            }
        }
        rows
    };
    let primary = points
        .iter()
        .flat_map(|point| point["metrics"].as_array().into_iter().flatten())
        .find(|metric| metric["primary"] == true);
    let primary = primary.map_or_else(String::new, |metric| words(&shown(&metric["name"])));
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
            rows("against_arm"),
        ),
        forest(
            "levels",
            format!("{primary}, against the first level"),
            rows("against_point"),
        ),
    ]
    .into_iter()
    .filter(|forest| !forest.rows.is_empty())
    .collect()
}

/// Every point, arm and metric.
fn table(keys: &[String], points: &[&Value]) -> Table {
    let columns = keys.iter().cloned().chain(
        [
            "arm",
            "metric",
            "value",
            "from",
            "to",
            "against first arm",
            "verdict",
        ]
        .map(str::to_owned),
    );
    let mut table = Table::new("Points", columns);
    for point in points {
        for metric in point["metrics"].as_array().into_iter().flatten() {
            let name = metric["name"].as_str().unwrap_or_default();
            let levels = keys.iter().map(|key| {
                let level = &point["levels"][key];
                Cell {
                    text: shown(level),
                    number: level_number(level),
                }
            });
            let star = if metric["primary"] == true { " *" } else { "" };
            let against = &metric["against_arm"];
            let ratio = number(against, &["ratio"]).or_else(|| number(metric, &["ratio"]));
            let verdict = against["verdict"].as_str().or(metric["verdict"].as_str());
            let mut row: Vec<Cell> = levels.collect();
            row.extend([
                Cell::text(shown(&metric["arm"])),
                Cell::text(format!("{}{star}", words(name))),
                cell(name, value_of(metric)),
                cell(name, number(metric, &["value_low"])),
                cell(name, number(metric, &["value_high"])),
                Cell::ratio(ratio),
                Cell::text(verdict.unwrap_or("-")),
            ]);
            table.push_judged(row, against["reason"].as_str());
        }
    }
    table
}

/// How both sides were moved about, where that was watched.
fn movements(keys: &[String], points: &[&Value]) -> Option<Table> {
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
    for point in points {
        for (arm, movement) in point["movement"].as_object().into_iter().flatten() {
            let share = |key: &str| {
                Cell::shown(number(movement, &[key]), |share| {
                    format!("{:.1} %", share * 100.0)
                })
            };
            let moves =
                |key: &str| Cell::shown(number(movement, &[key]), |moves| format!("{moves:.1}"));
            table.push(vec![
                Cell::text(label(keys, point)),
                Cell::text(shown(&point["layout"])),
                Cell::text(arm.clone()),
                moves("server_migrations_per_s"),
                moves("client_migrations_per_s"),
                share("server_run_delay"),
                share("client_run_delay"),
            ]);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}
