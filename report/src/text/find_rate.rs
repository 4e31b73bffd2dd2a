//! The search as text of at most 80 columns: the curve, the blocks, the sentence.

use std::fmt::Write as _;

use echometer_host::units::{self, counted, show_ns};
use echometer_loadgen::LoadPart;

use crate::{
    file::{
        find_rate::{CurvePoint, FindRateFile},
        slo::Slo,
    },
    text::{
        bars::{Bar, bars},
        columns::{align_right, cpus, paragraph, plain_table, render},
        counted::counted_are,
        remarks::{remarks, spoilt},
    },
};

/// Bars end at so many times the limit: an overloaded server's would hide all others.
const BAR_LIMITS: f64 = 3.0;
/// Points of the curve that lie closer to the one before are left out of the chart, but for those near the answer.
const CHART_STEP: f64 = 1.15;
/// Near the answer all points are drawn.
const NEAR: f64 = 0.05;

/// The whole report; ends with the sentence.
#[must_use]
pub fn text(file: &FindRateFile) -> String {
    let mut text = String::new();
    paragraph(&mut text, "", &header(file));
    let invalid = file.blocks.iter().filter(|block| !block.valid);
    let invalid = invalid.map(|block| spoilt(block.index, &block.reasons));
    let remarks = remarks(&file.verdict, invalid, []);
    if !remarks.is_empty() {
        text.push('\n');
    }
    for remark in &remarks {
        paragraph(&mut text, "- ", remark);
    }
    if !file.curve.is_empty() {
        let drawn = drawn(file);
        let end = bars_end_ns(file).map_or_else(String::new, |_| {
            format!(" (bars end at {BAR_LIMITS} x the limit)")
        });
        let _ = writeln!(text, "\n{} by rate{end}:", slo_name(file));
        text.push_str(&chart(file, &drawn));
        let _ = writeln!(text, "\n{}", curve_table(&drawn));
        let _ = writeln!(
            text,
            "\n{} in all: curve.csv",
            counted(file.curve.len() as u64, "point")
        );
    }
    let found: Vec<String> = file
        .blocks
        .iter()
        .filter(|block| block.valid)
        .map(|block| block.rate_per_s.map_or("none".to_owned(), show_rate))
        .collect();
    if !found.is_empty() {
        paragraph(
            &mut text,
            "",
            &format!("blocks found: {}", found.join(", ")),
        );
    }
    text.push('\n');
    paragraph(&mut text, "", &file.sentence);
    text
}

/// The answer.
#[must_use]
pub fn sentence(file: &FindRateFile) -> String {
    let (arm, slo) = (&file.arm.name, &file.slo);
    let cut = if file.cut_short { "Cut short. " } else { "" };
    let place = format!(
        "With {}{}, on {}: ",
        load_words(file),
        file.design.priority.clause(),
        file.machine.summary()
    );
    let valid = file.blocks.iter().filter(|block| block.valid).count();
    let answer = match (file.rate_per_s, file.ci_low, file.ci_high) {
        _ if valid == 0 => format!("no block is whole, so nothing can be said of {arm}"),
        (None, ..) => format!(
            "{arm} does not hold {slo} even at the lowest rate tried, {}",
            show_rate(file.design.lowest_per_s)
        ),
        (Some(rate), low, Some(high)) => {
            let low = low.map_or_else(
                || format!("below {}", show_rate(file.design.lowest_per_s)),
                show_rate,
            );
            let at_least = if file.verdict.reasons.is_empty() {
                ""
            } else {
                "at least "
            };
            let sure = file.confidence.map_or_else(String::new, |confidence| {
                format!("{:.1} % sure, ", confidence * 100.0)
            });
            format!(
                "{arm} holds {slo} up to {at_least}{} ({low} to {}, {sure}{})",
                show_rate(rate),
                show_rate(high),
                counted(valid as u64, "block"),
            )
        }
        (Some(rate), ..) => format!(
            "{arm} holds {slo} up to about {}; {} too few for an interval",
            show_rate(rate),
            counted_are(valid as u64, "block"),
        ),
    };
    let why = match file.verdict.reasons.first() {
        Some(reason) if 0 < valid => format!("; {reason}"),
        _ => String::new(),
    };
    format!("{cut}{place}{answer}{why}.")
}

/// `12,345/s`.
#[must_use]
pub fn show_rate(rate_per_s: f64) -> String {
    format!("{}/s", units::show_rate(rate_per_s))
}

fn slo_name(file: &FindRateFile) -> &str {
    file.slo.split('<').next().unwrap_or_default()
}

/// Where bars end, ns; `None` where the objective of a foreign file can't be read.
fn bars_end_ns(file: &FindRateFile) -> Option<f64> {
    // Of several, the first is drawn.
    let slo: Slo = file.slo.split(" and ").next()?.parse().ok()?;
    Some(slo.limit_ns() as f64 * BAR_LIMITS)
}

/// The load, without the rate: that is what was searched for.
pub(crate) fn load_words(file: &FindRateFile) -> String {
    let mut words = file.design.load.words().without(LoadPart::Rate);
    words.arrivals = None;
    words.to_string()
}

fn header(file: &FindRateFile) -> String {
    let cpus = cpus(file.design.server_cpus.as_ref(), &file.design.client_cpus);
    format!(
        "the highest rate at which {} holds {}; {}; {cpus}; {} of {}, steps of 2 %",
        file.arm.name,
        file.slo,
        load_words(file),
        file.blocks.len(),
        counted(file.design.blocks as u64, "block"),
    )
}

/// The points worth drawing: spread over the whole curve, and all near the answer.
fn drawn(file: &FindRateFile) -> Vec<&CurvePoint> {
    let mut last = 0.0;
    file.curve
        .iter()
        .filter(|point| {
            let near = file
                .rate_per_s
                .is_some_and(|rate| (point.rate_per_s / rate - 1.0).abs() < NEAR);
            let far = last * CHART_STEP <= point.rate_per_s;
            if near || far {
                last = point.rate_per_s;
            }
            near || far
        })
        .collect()
}

fn chart(file: &FindRateFile, drawn: &[&CurvePoint]) -> String {
    let most = bars_end_ns(file).unwrap_or(f64::INFINITY);
    let all: Vec<Bar> = drawn
        .iter()
        .map(|point| Bar {
            label: format!("{:>11}", show_rate(point.rate_per_s)),
            value: Some((point.slo_ns as f64).min(most)),
            interval: None,
            shown: show_ns(point.slo_ns),
        })
        .collect();
    bars(&all)
}

fn curve_table(drawn: &[&CurvePoint]) -> String {
    let mut table = plain_table();
    table.set_header(["rate", "achieved", "p50", "p99", "p99.9", "max", "held"]);
    let show = |value: Option<u64>| value.map_or("-".to_owned(), show_ns);
    for point in drawn {
        let latency = &point.latency_ns;
        table.add_row([
            show_rate(point.rate_per_s),
            show_rate(point.achieved_per_s),
            show(latency.p50),
            show(latency.p99),
            show(latency.p99_9),
            show(latency.max),
            format!("{} of {}", point.held, point.runs),
        ]);
    }
    align_right(&mut table, 0..=6);
    render(&mut table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_of_an_objective_that_cannot_be_read_are_as_long_as_they_are() {
        let saved = include_str!("../../tests/saved/find-rate.json");
        let mut file: FindRateFile = serde_json::from_str(saved).expect("a search");
        let bars_of = |file: &FindRateFile| chart(file, &drawn(file));
        assert!(text(&file).contains("(bars end at 3 x the limit)"));
        assert!(bars_of(&file).contains('#') || bars_of(&file).contains('\u{2588}'));
        file.slo = "from another world".to_owned();
        assert!(!text(&file).contains("bars end"));
        let bars = bars_of(&file);
        assert!(bars.contains('#') || bars.contains('\u{2588}'), "{bars}");
    }
}
