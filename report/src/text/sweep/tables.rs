//! The chart and the tables of a sweep.

use echometer_statistics::median;

use crate::{
    file::{
        metric::Metric,
        sweep::{CellEntry, CellMetric, PointEntry, SweepFile},
    },
    text::{
        bars::{Bar, bars},
        columns::{align_right, five_chars, plain_table, render, short, show_value},
        sweep::primaries,
    },
};

/// Longer levels are shortened in tables.
const LEVEL_CHARS: usize = 16;

fn cell_label(file: &SweepFile, point: &PointEntry, arm: &str) -> String {
    let levels: Vec<&str> = file
        .keys
        .iter()
        .filter_map(|key| Some(point.levels.get(&key.name)?.as_str()))
        .collect();
    match file.arms.len() {
        1 => levels.join(" "),
        _ => format!("{} {}", levels.join(" "), short(arm)),
    }
}

pub(super) fn chart(file: &SweepFile) -> String {
    let all: Vec<Bar> = file
        .points
        .iter()
        .flat_map(|point| primaries(file, point).map(move |metric| (point, metric)))
        .map(|(point, metric)| Bar {
            label: cell_label(file, point, &metric.arm),
            value: metric.value,
            interval: metric.value_low.zip(metric.value_high),
            shown: show_value(metric.name, metric.value),
        })
        .collect();
    bars(&all)
}

/// The primary metric: each cell's value, and how it stands to the first arm, else to the first point.
pub(super) fn primary_table(file: &SweepFile) -> String {
    let several = 1 < file.arms.len();
    let roomy = file.keys.len() == 1 || !several;
    let mut header: Vec<String> = file.keys.iter().map(|key| key.name.clone()).collect();
    if several {
        header.push("arm".to_owned());
    }
    header.push(file.design.primary.label().replace("server ", ""));
    if roomy {
        header.push("95 % CI".to_owned());
    }
    header.push(match several {
        true => format!("to {}", short(&file.arms[0].name)),
        false => "to first".to_owned(),
    });
    header.push("95 % CI".to_owned());
    header.push(String::new());
    let columns = header.len();
    let mut table = plain_table();
    table.set_header(header);
    for point in &file.points {
        for metric in primaries(file, point) {
            let mut row: Vec<String> = file
                .keys
                .iter()
                .map(|key| level(point.levels.get(&key.name).map_or("", String::as_str)))
                .collect();
            if several {
                row.push(short(&metric.arm));
            }
            row.push(show_value(metric.name, metric.value));
            if roomy {
                row.push(half_width(metric));
            }
            let contrast = match several {
                true => metric.against_arm.as_ref(),
                false => metric.against_point.as_ref(),
            };
            let ratio = contrast.and_then(|contrast| contrast.ratio);
            row.push(ratio.map_or(String::new(), |ratio| format!("x{}", five_chars(ratio))));
            let interval = contrast.and_then(|contrast| {
                Some(format!(
                    "{} - {}",
                    five_chars(contrast.ci_low?),
                    five_chars(contrast.ci_high?)
                ))
            });
            row.push(interval.unwrap_or_default());
            row.push(contrast.map_or(String::new(), |contrast| contrast.verdict.word().to_owned()));
            table.add_row(row);
        }
    }
    align_right(
        &mut table,
        file.keys.len() + usize::from(several)..=columns - 2,
    );
    render(&mut table)
}

/// `+-1.8 %`: half the interval's width.
fn half_width(metric: &CellMetric) -> String {
    match (metric.value, metric.value_low, metric.value_high) {
        (Some(value), Some(low), Some(high)) => {
            format!("±{:.1} %", (high - low) / 2.0 / value * 100.0)
        }
        _ => "-".to_owned(),
    }
}

/// What else there is, medians over the blocks.
pub(super) fn others_table(file: &SweepFile) -> String {
    let others: Vec<Metric> = [
        Metric::ServerCpuPerMessage,
        Metric::Rate,
        Metric::LatencyP50,
        Metric::LatencyP99,
    ]
    .into_iter()
    .filter(|metric| *metric != file.design.primary)
    .collect();
    let mut table = plain_table();
    let mut header = vec![String::new()];
    header.extend(others.iter().map(|metric| match metric {
        Metric::ServerCpuPerMessage => "server CPU".to_owned(),
        other => other.label().replace("latency ", ""),
    }));
    header.extend(["server busy", "client busy", "blocks"].map(str::to_owned));
    let columns = header.len();
    table.set_header(header);
    for (index, point) in file.points.iter().enumerate() {
        for arm in &file.arms {
            let mut row = vec![cell_label(file, point, &arm.name)];
            row.extend(others.iter().map(|name| {
                let metric = point
                    .metrics
                    .iter()
                    .find(|metric| metric.name == *name && metric.arm == arm.name);
                show_value(*name, metric.and_then(|metric| metric.value))
            }));
            let cell = format!("{:02}-{}", index + 1, arm.name);
            let valid: Vec<&CellEntry> = file
                .blocks
                .iter()
                .filter_map(|block| block.cells.get(&cell))
                .filter(|cell| cell.valid)
                .collect();
            let share = |part: &dyn Fn(&CellEntry) -> Option<f64>| {
                let found: Vec<f64> = valid.iter().filter_map(|cell| part(cell)).collect();
                median(&found).map_or("-".to_owned(), percent)
            };
            row.push(share(&|cell| cell.figures.as_ref()?.server_busy));
            row.push(share(&|cell| Some(cell.figures.as_ref()?.client_busy)));
            row.push(valid.len().to_string());
            table.add_row(row);
        }
    }
    align_right(&mut table, 1..=columns - 1);
    render(&mut table)
}

/// How the scheduler treated both sides.
pub(super) fn movement_table(file: &SweepFile) -> String {
    let mut table = plain_table();
    table.set_header([
        "",
        "moved: server",
        "client",
        "waited for a cpu: server",
        "client",
    ]);
    let times = |count: Option<f64>| count.map_or("-".to_owned(), |count| format!("{count:.1}/s"));
    let share = |share: Option<f64>| share.map_or("-".to_owned(), percent);
    for point in &file.points {
        for arm in &file.arms {
            let Some(movement) = point.movement.get(&arm.name) else {
                continue;
            };
            table.add_row([
                cell_label(file, point, &arm.name),
                times(movement.server_migrations_per_s),
                times(movement.client_migrations_per_s),
                share(movement.server_run_delay),
                share(movement.client_run_delay),
            ]);
        }
    }
    align_right(&mut table, 1..=4);
    render(&mut table)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

pub(super) fn level(text: &str) -> String {
    match text.char_indices().nth(LEVEL_CHARS) {
        None => text.to_owned(),
        Some(_) => text
            .chars()
            .take(LEVEL_CHARS - 2)
            .chain("..".chars())
            .collect(),
    }
}
