//! A sweep as text of at most 80 columns: what to know about it, the chart, the tables, the sentence.

use std::{collections::HashSet, fmt::Write as _};

use echometer_loadgen::LoadPart;
use echometer_statistics::{Verdict, median};

use crate::{
    file::{
        metric::Metric,
        sweep::{CellEntry, CellMetric, Conclusion, Contrast, PointEntry, Ranking, SweepFile},
        trust::Status,
    },
    text::{
        bars::{Bar, bars},
        columns::{align_right, five_chars, paragraph, plain_table, render, short, show_value},
        counted::counted,
    },
};

/// Longer levels are shortened in tables.
const LEVEL_CHARS: usize = 16;

/// The whole report; ends with the sentence.
#[must_use]
pub fn text(file: &SweepFile) -> String {
    let mut text = String::new();
    paragraph(&mut text, "", &header(file));
    let remarks = remarks(file);
    if !remarks.is_empty() {
        text.push('\n');
    }
    for remark in &remarks {
        paragraph(&mut text, "- ", remark);
    }
    let _ = writeln!(text, "\n{}:", file.design.primary.label());
    text.push_str(&chart(file));
    let _ = writeln!(text, "\n{}", primary_table(file));
    let _ = writeln!(text, "\n{}\n", others_table(file));
    if file.points.iter().any(|point| point.layout.is_some()) {
        let _ = writeln!(text, "{}\n", movement_table(file));
    }
    paragraph(&mut text, "", &file.sentence);
    text
}

/// Says what the sweep has found about its primary metric.
#[must_use]
pub fn sentence(file: &SweepFile) -> String {
    let mut claims: Vec<String> = Vec::new();
    if file.verdict.status == Status::Invalid
        && file
            .points
            .iter()
            .all(|point| primaries(file, point).all(|metric| metric.value_low.is_none()))
    {
        let why = file.verdict.reasons.first().map_or("", String::as_str);
        claims.push(format!("nothing can be said yet: {why}"));
    } else {
        for arm in file.arms.iter().skip(1) {
            claims.push(across(file, &arm.name));
        }
        if file.rankings.is_empty() {
            if file.arms.len() == 1 {
                claims.push(along(file));
            }
        } else {
            claims.extend(file.rankings.iter().map(|ranking| best(file, ranking)));
        }
    }
    let cut = if file.cut_short { "Cut short. " } else { "" };
    format!(
        "{cut}With {}, {}: {}.",
        load_words(file),
        place_words(file),
        claims.join("; ")
    )
}

/// The first and the last point's primary metric, in a few words for the progress.
#[must_use]
pub fn estimate(file: &SweepFile) -> Option<String> {
    let shown = |point: &PointEntry| {
        let metric = primaries(file, point).next()?;
        let value = show_value(metric.name, Some(metric.value?));
        Some(format!("{} {value}", point.label))
    };
    let first = shown(file.points.first()?)?;
    let last = shown(file.points.last()?)?;
    Some(format!("{first}, {last}"))
}

/// How an arm stands to the baseline from point to point.
fn across(file: &SweepFile, arm: &str) -> String {
    let baseline = &file.arms[0].name;
    let metric = file.design.primary;
    let mut told: Vec<String> = Vec::new();
    for (verdicts, words) in [
        (
            [Verdict::Better, Verdict::Better],
            format!("has better {} than {baseline} at", metric.label()),
        ),
        ([Verdict::Worse, Verdict::Worse], "worse at".to_owned()),
        (
            [Verdict::Same, Verdict::Small],
            format!("within about {:.0} % at", file.design.margin * 100.0),
        ),
        (
            [Verdict::Undecided, Verdict::Undecided],
            "undecided at".to_owned(),
        ),
        (
            [Verdict::Invalid, Verdict::Invalid],
            "without a verdict at".to_owned(),
        ),
    ] {
        let points: Vec<String> = file
            .points
            .iter()
            .filter_map(|point| {
                let contrast = of_arm(file, point, arm)?.against_arm.as_ref()?;
                verdicts
                    .contains(&contrast.verdict)
                    .then(|| format!("{}{}", point.label, interval_words(contrast)))
            })
            .collect();
        if !points.is_empty() {
            told.push(format!("{words} {}", points.join(", ")));
        }
    }
    format!("{arm} {}", told.join("; "))
}

/// How the only arm's metric goes from the first point to the last, and where it is best.
fn along(file: &SweepFile) -> String {
    let arm = &file.arms[0].name;
    let metric = file.design.primary;
    let known: Vec<(&PointEntry, &CellMetric)> = file
        .points
        .iter()
        .filter_map(|point| {
            let metric = primaries(file, point).next()?;
            metric.value.map(|_| (point, metric))
        })
        .collect();
    let (Some((first, from)), Some((last, to))) = (known.first(), known.last()) else {
        return format!("nothing can be said of {arm}");
    };
    let value = |metric: &CellMetric| show_value(metric.name, metric.value);
    let mut told = format!(
        "the {} of {arm} is {} at {}",
        metric.label(),
        value(from),
        first.label
    );
    if known.len() == 1 {
        return told;
    }
    let _ = write!(told, " and {} at {}", value(to), last.label);
    if let Some(contrast) = &to.against_point {
        let word = match contrast.verdict {
            Verdict::Better | Verdict::Worse => "surely different",
            Verdict::Small => "different, but maybe by less than matters",
            Verdict::Same => "the same within the margin",
            Verdict::Undecided => "whether they differ is undecided",
            Verdict::Invalid => "no verdict",
        };
        let _ = write!(told, "{}, {word}", interval_words(contrast));
        if let Some(reason) = &contrast.reason {
            let _ = write!(told, ": {reason}");
        }
    }
    let (low, high) = known.iter().fold((known[0], known[0]), |(low, high), one| {
        (
            if one.1.value < low.1.value { *one } else { low },
            if high.1.value < one.1.value {
                *one
            } else {
                high
            },
        )
    });
    if 2 < known.len() {
        let _ = write!(
            told,
            "; the lowest is {} at {}, the highest {} at {}",
            value(low.1),
            low.0.label,
            value(high.1),
            high.0.label
        );
    }
    told
}

/// Which way to run the server is to be recommended.
fn best(file: &SweepFile, ranking: &Ranking) -> String {
    let metric = file.design.primary;
    let arm = &ranking.arm;
    let margin = file.design.margin * 100.0;
    let first = &ranking.best[0];
    let noun = match file.keys.first().map(|key| key.name.as_str()) {
        Some("pinning") => "layout",
        _ => "level",
    };
    let value = |label: &str| {
        let point = file.points.iter().find(|point| point.label == label);
        let metric = point.and_then(|point| of_arm(file, point, arm));
        metric.map_or("?".to_owned(), |metric| {
            show_value(metric.name, metric.value)
        })
    };
    let against: Vec<String> = ranking
        .against_best
        .iter()
        .map(|contrast| {
            let tie = if ranking.best.contains(&contrast.of) {
                ", not told apart"
            } else {
                ""
            };
            format!(
                "{} {}{}{tie}",
                contrast.of,
                value(&contrast.of),
                interval_words(contrast)
            )
        })
        .collect();
    let against = against.join(", ");
    let layout = file
        .points
        .iter()
        .find(|point| &point.label == first)
        .and_then(|point| point.layout.as_ref())
        .map_or_else(String::new, |layout| format!(", {layout}"));
    match ranking.conclusion {
        Conclusion::Best => format!(
            "take {first} for {arm}{layout}: {} {}, against {against}",
            metric.label(),
            value(first)
        ),
        Conclusion::Several => format!(
            "take {} for {arm}: {} {}, against {against}",
            ranking.best.join(" or "),
            metric.label(),
            value(first)
        ),
        Conclusion::Same => {
            format!(
                "no {noun} of {arm} differs by more than {margin:.0} % in {} ({against})",
                metric.label()
            )
        }
        Conclusion::Undecided => format!(
            "which {noun} is best for {arm} can't be said: {first} leads with {}, against {against}; more blocks or a \
             quieter machine would tell",
            value(first)
        ),
    }
}

/// ` (x0.862 to x0.898)`, or nothing.
fn interval_words(contrast: &Contrast) -> String {
    match (contrast.ci_low, contrast.ci_high) {
        (Some(low), Some(high)) => format!(" (x{} to x{})", five_chars(low), five_chars(high)),
        _ => String::new(),
    }
}

fn header(file: &SweepFile) -> String {
    let keys: Vec<String> = file
        .keys
        .iter()
        .map(|key| format!("{} over {}", key.name, key.levels.join(", ")))
        .collect();
    format!(
        "{}; {}; {}; {} of {}, every cell once in each",
        keys.join("; "),
        load_words(file),
        place_words(file),
        file.blocks.len(),
        counted(file.design.blocks as u64, "block"),
    )
}

/// The load, without what is varied.
fn load_words(file: &SweepFile) -> String {
    let parts = [
        ("connections", LoadPart::Connections),
        ("size", LoadPart::Size),
        ("pipeline", LoadPart::Pipeline),
        ("rate", LoadPart::Rate),
    ];
    let varied = |name: &str| file.keys.iter().any(|key| key.name == name);
    parts
        .into_iter()
        .filter(|(name, _)| varied(name))
        .fold(file.design.load.words(), |words, (_, part)| {
            words.without(part)
        })
        .to_string()
}

fn place_words(file: &SweepFile) -> String {
    let machine = file.machine.summary();
    let placed = file
        .keys
        .iter()
        .any(|key| matches!(key.name.as_str(), "pinning" | "cpus"));
    let [server, client] = &file.design.cpus;
    match (placed, server.is_empty()) {
        (true, _) => format!("on {machine}"),
        (false, true) => format!("client on cpu {client} of {machine}"),
        (false, false) => format!("server on cpu {server}, client on cpu {client} of {machine}"),
    }
}

/// What to know before the figures, the gravest first, each once.
fn remarks(file: &SweepFile) -> Vec<String> {
    let trust = &file.verdict;
    let mut remarks: Vec<String> = trust
        .reasons
        .iter()
        .map(|reason| format!("not valid: {reason}"))
        .collect();
    for block in &file.blocks {
        let reasons = block.cells.values().flat_map(|cell| &cell.reasons);
        remarks.extend(reasons.map(|reason| format!("block {}: {reason}", block.index)));
    }
    remarks.extend(
        trust
            .warnings
            .iter()
            .map(|warning| format!("warning: {warning}")),
    );
    for point in &file.points {
        for metric in &point.metrics {
            let contrasts = [&metric.against_arm, &metric.against_point];
            let objections = contrasts.into_iter().flatten().filter_map(|contrast| {
                let objection = contrast.verdict == Verdict::Invalid && metric.primary;
                objection.then(|| contrast.reason.clone())?
            });
            remarks.extend(
                objections.map(|reason| format!("no verdict on {}: {reason}", metric.name.label())),
            );
        }
        remarks.extend(
            point
                .layout
                .iter()
                .map(|layout| format!("{}: {layout}", point.label)),
        );
    }
    if file.points.iter().any(|point| point.layout.is_some()) {
        remarks.push(
            "one server thread and one client thread in every layout; the client sleeps while it waits, so that it leaves \
             a shared cpu to the server"
                .to_owned(),
        );
    }
    let mut seen = HashSet::new();
    remarks.retain(|remark| seen.insert(remark.clone()));
    remarks
}

fn primaries<'a>(
    file: &'a SweepFile,
    point: &'a PointEntry,
) -> impl Iterator<Item = &'a CellMetric> {
    let primary = file.design.primary;
    point
        .metrics
        .iter()
        .filter(move |metric| metric.name == primary)
}

fn of_arm<'a>(file: &'a SweepFile, point: &'a PointEntry, arm: &str) -> Option<&'a CellMetric> {
    primaries(file, point).find(|metric| metric.arm == arm)
}

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

fn chart(file: &SweepFile) -> String {
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
fn primary_table(file: &SweepFile) -> String {
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
fn others_table(file: &SweepFile) -> String {
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
fn movement_table(file: &SweepFile) -> String {
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

fn level(text: &str) -> String {
    match text.char_indices().nth(LEVEL_CHARS) {
        None => text.to_owned(),
        Some(_) => text
            .chars()
            .take(LEVEL_CHARS - 2)
            .chain("..".chars())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use echometer_loadgen::plan::{Arrivals, Load};

    use super::*;
    use crate::file::sweep::KeyEntry;

    #[test]
    fn what_is_varied_is_left_out_of_the_load() {
        let saved = include_str!("../../tests/saved/sweep.json");
        let mut file: SweepFile = serde_json::from_str(saved).expect("a sweep");
        file.design.load.load = Load::Open {
            rate_per_s: 1_000.0,
            arrivals: Arrivals::Poisson,
        };
        file.design.load.connections = 50;
        let mut said = |keys: &[&str]| {
            file.keys = keys
                .iter()
                .map(|&name| KeyEntry {
                    name: name.to_owned(),
                    levels: Vec::new(),
                })
                .collect();
            load_words(&file)
        };
        assert_eq!(said(&["rate"]), "50 connections, 64 B, open loop, Poisson");
        assert_eq!(
            said(&["connections", "size"]),
            "open loop at 1,000/s, Poisson"
        );
        assert_eq!(
            said(&["backlog"]),
            "50 connections, 64 B, open loop at 1,000/s, Poisson"
        );
    }
}
