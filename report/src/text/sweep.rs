//! A sweep as text of at most 80 columns: what to know about it, the chart, the tables, the sentence.

mod tables;

use std::fmt::Write as _;

use echometer_host::units::counted;
use echometer_loadgen::LoadPart;
use echometer_statistics::Verdict;

use crate::{
    file::{
        sweep::{CellMetric, Conclusion, Contrast, PointEntry, Ranking, SweepFile},
        trust::Status,
    },
    text::{
        columns::{five_chars, paragraph, show_value},
        remarks,
        sweep::tables::{chart, movement_table, others_table, primary_table},
    },
};

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
    let blocks = file.blocks.iter().flat_map(|block| {
        let reasons = block.cells.values().flat_map(|cell| &cell.reasons);
        reasons.map(|reason| format!("block {}: {reason}", block.index))
    });
    let mut more = Vec::new();
    for point in &file.points {
        for metric in &point.metrics {
            let contrasts = [&metric.against_arm, &metric.against_point];
            let objections = contrasts.into_iter().flatten().filter_map(|contrast| {
                let objection = contrast.verdict == Verdict::Invalid && metric.primary;
                objection.then(|| contrast.reason.clone())?
            });
            more.extend(
                objections.map(|reason| format!("no verdict on {}: {reason}", metric.name.label())),
            );
        }
        let layout = point.layout.iter();
        more.extend(layout.map(|layout| format!("{}: {layout}", point.label)));
    }
    if file.points.iter().any(|point| point.layout.is_some()) {
        more.push(
            "one server thread and one client thread in every layout; the client sleeps while it waits, so that it leaves \
             a shared cpu to the server"
                .to_owned(),
        );
    }
    remarks::remarks(&file.verdict, blocks, more)
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

#[cfg(test)]
mod tests {
    use echometer_loadgen::plan::{Arrivals, Load, OPEN_LOOP_PIPELINE};

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
        file.design.load.pipeline = OPEN_LOOP_PIPELINE;
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
