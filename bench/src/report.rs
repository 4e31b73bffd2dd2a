//! A comparison as text of at most 80 columns: the table, what to know about it, the sentence. Colour supports the
//! words and adds nothing to them.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use echometer_loadgen::units::{show_count, show_ns, show_size};

use crate::{
    analysis::{MetricResult, Status},
    figures::ArmFigures,
    file::Comparison,
    metric::Metric,
    sentence,
    statistics::{Verdict, median},
};

/// The widest line.
pub const COLUMNS: usize = 80;
/// Longer names are shortened in tables, where a column has to fit.
const NAME_CHARS: usize = 12;

/// The whole report, without colours; ends with the sentence.
#[must_use]
pub fn text(comparison: &Comparison) -> String {
    let mut text = String::new();
    let valid = comparison.valid_blocks().count();
    let design = &comparison.design;
    let cpus = match &design.server_cpus {
        Some(server) => format!(
            "server on cpu {server}, client on cpu {}",
            design.client_cpus
        ),
        None => format!("client on cpu {}", design.client_cpus),
    };
    let slice = comparison
        .blocks
        .iter()
        .map(|block| block.slice_ns)
        .max()
        .unwrap_or(design.slice_min_ns);
    let header = format!(
        "{}; {cpus}; {valid} of {} blocks valid, slices of {}",
        sentence::load(&design.load),
        comparison.blocks.len().max(design.blocks),
        show_ns(slice),
    );
    paragraph(&mut text, "", &header);
    for arm in comparison.arms.iter().skip(1) {
        let _ = writeln!(text, "\n{}", metrics_table(comparison, &arm.name));
    }
    let _ = writeln!(text, "\n{}\n", arms_table(comparison));

    let mut said: Vec<String> = Vec::new();
    let objections = comparison
        .metrics
        .iter()
        .filter(|metric| metric.verdict == Verdict::Invalid);
    for metric in objections {
        if let Some(reason) = &metric.reason {
            said.push(format!("no verdict on {}: {reason}", metric.name.label()));
        }
    }
    let invalid = comparison.blocks.iter().filter(|block| !block.valid);
    said.extend(invalid.map(|block| {
        format!(
            "block {} does not count: {}",
            block.index,
            block.reasons.join("; ")
        )
    }));
    said.extend(
        comparison
            .verdict
            .warnings
            .iter()
            .map(|warning| format!("warning: {warning}")),
    );
    if comparison.verdict.status == Status::Invalid {
        said.extend(
            comparison
                .verdict
                .reasons
                .iter()
                .map(|reason| format!("not valid: {reason}")),
        );
    }
    said.dedup();
    for line in &said {
        paragraph(&mut text, "- ", line);
    }
    if !said.is_empty() {
        text.push('\n');
    }
    paragraph(&mut text, "", &comparison.sentence);
    text
}

/// The report with the verdicts in colour, for a terminal. Whoever writes it out decides whether colour is wanted.
#[must_use]
pub fn coloured(text: &str) -> String {
    const WORDS: [(&str, &str); 4] = [
        ("better", "\x1b[32m"),
        ("worse", "\x1b[31m"),
        ("undecided", "\x1b[33m"),
        ("invalid", "\x1b[33m"),
    ];
    let mut painted = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        // In a table's row the verdict is the last word, with blanks before it.
        let verdict = WORDS.iter().find_map(|(word, colour)| {
            let row = line.trim_end().strip_suffix(word)?;
            row.ends_with("  ")
                .then(|| format!("{row}{colour}{word}\x1b[0m"))
        });
        painted.push_str(verdict.as_deref().unwrap_or(line));
        painted.push('\n');
    }
    painted
}

fn metrics_table(comparison: &Comparison, arm: &str) -> String {
    let metrics: Vec<&MetricResult> = comparison
        .metrics
        .iter()
        .filter(|metric| metric.arm == arm)
        .collect();
    let baseline = comparison.arms.first().map_or("", |arm| arm.name.as_str());
    let confidence = metrics.iter().find_map(|metric| metric.confidence);
    let interval = confidence.map_or("interval".to_owned(), |sure| {
        format!("{:.1} % interval", sure * 100.0)
    });
    let mut table = plain_table();
    table.set_header([
        "",
        &short(baseline),
        &short(arm),
        "ratio",
        &interval,
        "verdict",
    ]);
    for metric in metrics {
        let star = if metric.primary { " *" } else { "" };
        let interval = match (metric.ci_low, metric.ci_high) {
            (Some(low), Some(high)) => format!("{low:.3} - {high:.3}"),
            _ => "-".to_owned(),
        };
        table.add_row([
            format!("{}{star}", metric.name.label()),
            show_value(metric.name, metric.baseline_value),
            show_value(metric.name, metric.arm_value),
            metric
                .ratio
                .map_or("-".to_owned(), |ratio| format!("x{ratio:.3}")),
            interval,
            metric.verdict.word().to_owned(),
        ]);
    }
    align_right(&mut table, 1..=4);
    render(&table)
}

/// What each arm did, beside the comparison: who was busy, and what it took.
fn arms_table(comparison: &Comparison) -> String {
    let mut table = plain_table();
    table.set_header([
        "",
        "server busy",
        "client busy",
        "cpu softirq",
        "switches/msg",
        "memory",
    ]);
    for arm in &comparison.arms {
        let figures: Vec<&ArmFigures> = comparison
            .valid_blocks()
            .filter_map(|block| block.arms.get(&arm.name))
            .collect();
        let of = |part: &dyn Fn(&ArmFigures) -> Option<f64>| {
            median(
                &figures
                    .iter()
                    .filter_map(|figures| part(figures))
                    .collect::<Vec<_>>(),
            )
        };
        let percent = |share: Option<f64>| {
            share.map_or("-".to_owned(), |share| format!("{:.0} %", share * 100.0))
        };
        let switches = of(&|arm| Some(arm.context_switches? as f64 / arm.messages.max(1) as f64));
        let memory = of(&|arm| Some(arm.rss_bytes? as f64));
        let local = arm_is_local(comparison, &arm.name);
        table.add_row([
            short(&arm.name),
            percent(of(&|arm| arm.server_busy)),
            percent(of(&|arm| Some(arm.client_busy))),
            percent(of(&|arm| Some(arm.server_cpus.softirq)).filter(|_| local)),
            switches.map_or("-".to_owned(), |switches| format!("{switches:.3}")),
            memory.map_or("-".to_owned(), |bytes| show_size(bytes as u64)),
        ]);
    }
    align_right(&mut table, 1..=5);
    render(&table)
}

fn arm_is_local(comparison: &Comparison, name: &str) -> bool {
    comparison.commands.iter().any(|command| command.of == name)
}

fn show_value(metric: Metric, value: Option<f64>) -> String {
    match (metric, value) {
        (_, None) => "-".to_owned(),
        (Metric::Rate, Some(rate)) => format!("{}/s", show_count(rate.round() as u64)),
        (_, Some(ns)) => show_ns(ns.round() as u64),
    }
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn align_right(table: &mut Table, columns: std::ops::RangeInclusive<usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Without the blanks that fill the last column.
fn render(table: &Table) -> String {
    let text = table.to_string();
    text.lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
}

fn short(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS) {
        None => name.to_owned(),
        Some(_) => name
            .chars()
            .take(NAME_CHARS - 2)
            .chain("..".chars())
            .collect(),
    }
}

/// Writes words into lines of at most [`COLUMNS`], the first after `mark`, the others below its text.
fn paragraph(text: &mut String, mark: &str, words: &str) {
    let indent = " ".repeat(mark.len());
    let mut line = mark.to_owned();
    let mut empty = true;
    for word in words.split_whitespace() {
        if !empty && COLUMNS < line.chars().count() + 1 + word.chars().count() {
            let _ = writeln!(text, "{line}");
            line.clone_from(&indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    let _ = writeln!(text, "{line}");
}
