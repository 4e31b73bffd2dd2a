//! Words and tables in 80 columns, and the colours of verdicts.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

pub use echometer_host::output::{COLUMNS, paragraph};
use echometer_host::{
    cpus::CpuList,
    units::{show_ns, show_rate},
};

use crate::file::metric::Metric;

/// Longer names are shortened in tables, where a column has to fit.
const NAME_CHARS: usize = 11;

/// Where both sides ran, in words. `server` is `None` where no server was started here.
pub(crate) fn cpus(server: Option<&CpuList>, client: &CpuList) -> String {
    match server {
        Some(server) => format!("server on cpu {server}, client on cpu {client}"),
        None => format!("client on cpu {client}"),
    }
}

/// The report with the verdicts in colour, for a terminal. Whoever writes it out decides whether colour is wanted.
#[must_use]
pub fn coloured(text: &str) -> String {
    const WORDS: [(&str, &str); 6] = [
        ("better", "\x1b[32m"),
        ("worse", "\x1b[31m"),
        ("undecided", "\x1b[33m"),
        ("invalid", "\x1b[33m"),
        // A selftest's.
        ("pass", "\x1b[32m"),
        ("FAIL", "\x1b[31m"),
    ];
    // The doctor's grades are the first word of a line, with blanks up to the tenth column.
    const GRADES: [(&str, &str); 4] = [
        ("PASS     ", "\x1b[32m"),
        ("WARN     ", "\x1b[33m"),
        ("FAIL     ", "\x1b[31m"),
        ("unknown  ", "\x1b[33m"),
    ];
    let mut painted = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        let grade = GRADES.iter().find_map(|(word, colour)| {
            let rest = line.strip_prefix(word)?;
            Some(format!("{colour}{word}\x1b[0m{rest}"))
        });
        // In a table's row the verdict is the last word, with blanks before it.
        let verdict = WORDS.iter().find_map(|(word, colour)| {
            let row = line.trim_end().strip_suffix(word)?;
            row.ends_with("  ")
                .then(|| format!("{row}{colour}{word}\x1b[0m"))
        });
        painted.push_str(grade.or(verdict).as_deref().unwrap_or(line));
        painted.push('\n');
    }
    painted
}

/// The head of a column of intervals.
pub(crate) fn interval_title(confidence: Option<f64>) -> String {
    confidence.map_or("interval".to_owned(), |sure| {
        format!("{:.1} % CI", sure * 100.0)
    })
}

pub(crate) fn show_interval(low: Option<f64>, high: Option<f64>) -> String {
    match (low, high) {
        (Some(low), Some(high)) => format!("{} - {}", five_chars(low), five_chars(high)),
        _ => "-".to_owned(),
    }
}

pub(crate) fn show_value(metric: Metric, value: Option<f64>) -> String {
    match (metric, value) {
        (_, None) => "-".to_owned(),
        (Metric::Rate, Some(rate)) if rate < 999_999.5 => {
            format!("{}/s", show_rate(rate))
        }
        (Metric::Rate, Some(rate)) => format!("{} M/s", five_chars(rate / 1e6)),
        (_, Some(ns)) => show_ns(ns.round() as u64),
    }
}

/// A ratio in the same width up to 1,000, so that columns fit whatever is compared.
pub(crate) fn five_chars(number: f64) -> String {
    match number {
        number if number < 9.999_5 => format!("{number:.3}"),
        number if number < 99.995 => format!("{number:.2}"),
        number => format!("{number:.1}"),
    }
}

pub(crate) fn plain_table() -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

pub(crate) fn align_right(table: &mut Table, columns: std::ops::RangeInclusive<usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// As text, with these columns set to the right.
pub(crate) fn render_right(table: &mut Table, columns: std::ops::RangeInclusive<usize>) -> String {
    align_right(table, columns);
    render(table)
}

/// Two blanks between columns, none at the end of a line.
pub(crate) fn render(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    text.lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
}

pub(crate) fn short(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS) {
        None => name.to_owned(),
        Some(_) => name
            .chars()
            .take(NAME_CHARS - 2)
            .chain("..".chars())
            .collect(),
    }
}
