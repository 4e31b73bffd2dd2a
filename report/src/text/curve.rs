//! A load curve as text of at most 80 columns: what each arm did at each rate, how that compares, the sentence.

use std::fmt::Write as _;

use echometer_host::units::{counted, show_ns, show_rate};
use echometer_loadgen::LoadPart;
use echometer_statistics::Verdict;

use crate::{
    file::{
        curve::{CURVE_METRICS, CurveFile, CurveMetric, CurvePoint, KNEE_RATIO, Knee},
        metric::Metric,
    },
    text::{
        columns::{cpus, five_chars, paragraph, plain_table, render_right, short},
        remarks::{remarks, spoilt},
    },
};

/// The whole report; ends with the sentence.
#[must_use]
pub fn text(file: &CurveFile) -> String {
    let mut text = String::new();
    paragraph(&mut text, "", &header(file));
    let invalid = file.blocks.iter().filter(|block| !block.valid);
    let invalid = invalid.map(|block| spoilt(block.index, &block.reasons));
    let remarks = remarks(&file.verdict, invalid, dots(file));
    if !remarks.is_empty() {
        text.push('\n');
    }
    for remark in &remarks {
        paragraph(&mut text, "- ", remark);
    }
    if !file.points.is_empty() {
        let _ = writeln!(text, "\n{}", values(file));
    }
    if file.arms.len() != 1 && file.points.iter().any(is_compared) {
        let baseline = &file.arms[0].name;
        let _ = writeln!(
            text,
            "\nagainst {baseline} at the same rate (? is undecided):\n\n{}",
            ratios(file)
        );
    }
    text.push('\n');
    paragraph(&mut text, "", &file.sentence);
    text
}

/// The answer.
#[must_use]
pub fn sentence(file: &CurveFile) -> String {
    let cut = if file.cut_short { "Cut short. " } else { "" };
    let place = format!("With {}, on {}: ", load_words(file), file.machine.summary());
    if !file.blocks.iter().any(|block| block.valid) {
        return format!("{cut}{place}no block is whole, so nothing can be said.");
    }
    let knees: Vec<String> = file
        .knee
        .iter()
        .map(|knee| knee_words(file, knee))
        .collect();
    let compared: Vec<String> = file
        .arms
        .iter()
        .skip(1)
        .filter_map(|arm| tail_words(file, &arm.name))
        .collect();
    let compared = match compared.is_empty() {
        true => String::new(),
        false => format!(" {}.", compared.join(". ")),
    };
    format!("{cut}{place}{}.{compared}", knees.join("; "))
}

/// Where an arm's p99 takes off, in words.
#[must_use]
pub(crate) fn knee_words(file: &CurveFile, knee: &Knee) -> String {
    let arm = &knee.arm;
    match knee.rate_per_s {
        None => format!(
            "no knee can be named for {arm}: it was overloaded, or had too few messages for a p99"
        ),
        Some(rate) if knee.at_highest => format!(
            "{arm} has no knee up to {}/s, its highest rate",
            show_rate(rate)
        ),
        Some(rate) => {
            let share = file
                .points
                .iter()
                .find(|point| point.rate_per_s.total_cmp(&rate).is_eq())
                .and_then(|point| point.share)
                .filter(|_| file.arms.len() == 1);
            let share = share.map_or_else(String::new, |share| {
                format!(" ({:.0} % of its capacity)", share * 100.0)
            });
            format!("the knee of {arm} is at {}/s{share}", show_rate(rate))
        }
    }
}

/// How an arm's p99 compares over the rates: `p99 of uring against epoll: better at 3 of 5 rates (10,000/s to 75,000/s), ...`.
fn tail_words(file: &CurveFile, arm: &str) -> Option<String> {
    let verdicts: Vec<Verdict> = file
        .points
        .iter()
        .filter_map(|point| point.metric(arm, Metric::LatencyP99)?.verdict)
        .collect();
    let all = verdicts.len();
    let counted_words = [
        Verdict::Better,
        Verdict::Worse,
        Verdict::Same,
        Verdict::Small,
        Verdict::Undecided,
    ]
    .into_iter()
    .filter_map(|word| {
        let count = verdicts.iter().filter(|verdict| **verdict == word).count();
        let word = match word {
            Verdict::Small => "a small difference",
            other => other.word(),
        };
        (count != 0).then(|| format!("{word} at {count}"))
    });
    let words: Vec<String> = counted_words.collect();
    let baseline = &file.arms[0].name;
    (all != 0).then(|| {
        format!(
            "p99 of {arm} against {baseline} is {} of {}",
            words.join(", "),
            counted(all as u64, "rate"),
        )
    })
}

/// The load, without the rate: that is what is varied.
pub(crate) fn load_words(file: &CurveFile) -> String {
    let mut words = file.design.load.words().without(LoadPart::Rate);
    words.arrivals = None;
    words.to_string()
}

/// How the knee is named.
pub(crate) fn rule() -> String {
    format!(
        "The knee is the highest rate up to which p99 is at most {KNEE_RATIO} times that at the lowest rate (where it is known)."
    )
}

fn header(file: &CurveFile) -> String {
    let cpus = cpus(file.design.server_cpus.as_ref(), &file.design.client_cpus);
    let names: Vec<&str> = file.arms.iter().map(|arm| arm.name.as_str()).collect();
    let capacities: Vec<String> = file
        .capacities
        .iter()
        .map(|capacity| format!("{} {}/s", capacity.arm, show_rate(capacity.rate_per_s)))
        .collect();
    let capacities = match capacities.is_empty() {
        true => String::new(),
        false => format!(
            "; capacities ({}): {}",
            file.design.slos.join(", "),
            capacities.join(", ")
        ),
    };
    let confidence = file
        .points
        .iter()
        .flat_map(|point| &point.metrics)
        .find_map(|metric| metric.confidence)
        .map_or_else(String::new, |sure| {
            format!("; intervals {:.1} %", sure * 100.0)
        });
    format!(
        "latency and CPU against rate: {}; {}; {cpus}; {} of {}{confidence}{capacities}",
        names.join(", "),
        load_words(file),
        file.blocks.len(),
        counted(file.design.blocks as u64, "block"),
    )
}

/// What a dot stands for, where there is one, and how the knee is named.
fn dots(file: &CurveFile) -> Vec<String> {
    let mut said = Vec::new();
    let metrics = || file.points.iter().flat_map(|point| &point.metrics);
    let few = metrics().any(|metric| metric.value.is_none() && metric.name.quantile().is_some());
    if few && file.blocks.iter().any(|block| block.valid) {
        said.push(
            "a dot: fewer than 100 samples above the quantile in a block; a longer -d would show it".to_owned(),
        );
    }
    for point in &file.points {
        for (arm, reason) in &point.overloaded {
            said.push(format!(
                "{arm} is overloaded at {}/s ({reason})",
                show_rate(point.rate_per_s)
            ));
        }
    }
    said.push(rule());
    said
}

fn is_compared(point: &CurvePoint) -> bool {
    point.metrics.iter().any(|metric| metric.verdict.is_some())
}

/// The first column's width: four of 14 characters and the blanks between them are the rest.
const FIRST_CHARS: usize = 16;

const HEADS: [&str; 4] = ["p50", "p99", "p99.9", "CPU/message"];

/// Each rate on a line of its own, the arms below it.
fn values(file: &CurveFile) -> String {
    let mut table = plain_table();
    table.set_header([["rate, arm"].as_slice(), &HEADS].concat());
    for point in &file.points {
        let cells = |arm: &str| {
            CURVE_METRICS.map(|name| point.metric(arm, name).map_or(".".to_owned(), show_value))
        };
        rows(&mut table, file, point, &cells);
    }
    render_right(&mut table, 1..=4)
}

fn ratios(file: &CurveFile) -> String {
    let mut table = plain_table();
    table.set_header([["rate, arm"].as_slice(), &HEADS].concat());
    let baseline = &file.arms[0].name;
    for point in file.points.iter().filter(|point| is_compared(point)) {
        add(&mut table, rate_words(point), None);
        for arm in point.arms().filter(|arm| arm != baseline) {
            let cells = CURVE_METRICS
                .map(|name| point.metric(arm, name).map_or(".".to_owned(), show_ratio));
            add(&mut table, format!("  {}", short(arm)), Some(cells));
        }
    }
    render_right(&mut table, 1..=4)
}

fn rows(
    table: &mut comfy_table::Table,
    file: &CurveFile,
    point: &CurvePoint,
    cells: &dyn Fn(&str) -> [String; 4],
) {
    add(table, rate_words(point), None);
    for arm in point.arms() {
        let marks = [
            (point.overloaded.contains_key(arm), "!"),
            (is_knee(file, point, arm), "<"),
        ];
        let mark: String = marks
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, mark)| *mark)
            .collect();
        add(table, format!("  {} {mark}", short(arm)), Some(cells(arm)));
    }
}

fn add(table: &mut comfy_table::Table, first: String, cells: Option<[String; 4]>) {
    let cells = cells.unwrap_or_default();
    table.add_row(std::iter::once(first).chain(cells));
}

/// `75,000/s, 50 %`.
fn rate_words(point: &CurvePoint) -> String {
    let rate = format!("{}/s", show_rate(point.rate_per_s));
    let with_share = point
        .share
        .map(|share| format!("{rate}, {:.0} %", share * 100.0));
    // Wider, and the table would be.
    with_share
        .filter(|words| words.chars().count() <= FIRST_CHARS)
        .unwrap_or(rate)
}

/// Whether an arm's knee is at this rate.
pub(crate) fn is_knee(file: &CurveFile, point: &CurvePoint, arm: &str) -> bool {
    file.knee.iter().any(|knee| {
        let here = knee
            .rate_per_s
            .is_some_and(|rate| rate.total_cmp(&point.rate_per_s).is_eq());
        here && knee.arm == arm && !knee.at_highest
    })
}

/// `41.2 us +-3 %`, or a dot.
pub(crate) fn show_value(metric: &CurveMetric) -> String {
    let Some(value) = metric.value else {
        return ".".to_owned();
    };
    let shown = show_ns(value.round() as u64);
    match (metric.ci_low, metric.ci_high) {
        (Some(low), Some(high)) if 0.0 < value => {
            // The farther end.
            let width = (high / value - 1.0).max(1.0 - low / value) * 100.0;
            match width {
                width if width < 9.95 => format!("{shown} +-{width:.1}%"),
                width => format!("{shown} +-{:.0}%", width.min(999.0)),
            }
        }
        _ => shown,
    }
}

/// `x0.912 better`, or a dot.
pub(crate) fn show_ratio(metric: &CurveMetric) -> String {
    match (metric.ratio, metric.verdict) {
        (Some(ratio), Some(Verdict::Undecided)) => format!("x{} ?", five_chars(ratio)),
        (Some(ratio), Some(verdict)) => format!("x{} {}", five_chars(ratio), verdict.word()),
        _ => ".".to_owned(),
    }
}
