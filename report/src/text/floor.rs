//! The floor as text of at most 80 columns, and its answer.

use echometer_host::{
    machine::Facts,
    units::{counted, show_count, show_ns, show_size},
};
use echometer_statistics::{ALPHA, blocks_min};

use crate::{
    file::floor::{FloorFile, FloorRow},
    text::columns::{interval_title, paragraph, plain_table, render_right},
};

/// The report, of at most 80 columns; ends with the sentence.
#[must_use]
pub fn text(file: &FloorFile) -> String {
    let mut text = String::new();
    paragraph(
        &mut text,
        "",
        &format!("{} On cpu {}.", file.method, file.cpu),
    );
    text.push('\n');
    let confidence = file.rows.iter().find_map(|row| row.confidence);
    let mut table = plain_table();
    table.set_header([
        "connections",
        "CPU/message",
        &interval_title(confidence),
        "two empty syscalls",
        "echoes",
    ]);
    let ns = |ns: Option<f64>| ns.map_or("-".to_owned(), |ns| show_ns(ns.round() as u64));
    for row in &file.rows {
        let interval = match (row.ci_low, row.ci_high) {
            (Some(_), Some(_)) => format!("{} - {}", ns(row.ci_low), ns(row.ci_high)),
            _ => "-".to_owned(),
        };
        table.add_row([
            show_count(u64::from(row.connections)),
            ns(row.cpu_ns_per_message),
            interval,
            ns(row.two_syscalls_ns),
            show_count(row.echoes),
        ]);
    }
    text.push_str(&render_right(&mut table, 0..=4));
    text.push_str("\n\n");
    for caveat in &file.caveats {
        paragraph(&mut text, "- ", caveat);
    }
    text.push('\n');
    paragraph(&mut text, "", &file.sentence);
    text
}

/// The answer: what an echo costs at each number of connections.
#[must_use]
pub fn sentence(rows: &[FloorRow], size: u32, machine: &Facts, cut_short: bool) -> String {
    let parts: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let sure = match (row.ci_low, row.ci_high) {
                (Some(low), Some(high)) => format!(
                    " ({} to {})",
                    show_ns(low.round() as u64),
                    show_ns(high.round() as u64)
                ),
                _ => format!(
                    " (without an interval: that needs {} blocks)",
                    blocks_min(ALPHA)
                ),
            };
            let ns = show_ns(row.cpu_ns_per_message?.round() as u64);
            let connections = counted(u64::from(row.connections), "connection");
            Some(format!("{ns}{sure} at {connections}"))
        })
        .collect();
    let cut = if cut_short { "Cut short. " } else { "" };
    if parts.is_empty() {
        return format!("{cut}Nothing was measured.");
    }
    format!(
        "{cut}On {}, an echo of {} costs the kernel, on the server's side, at least {}.",
        machine.summary(),
        show_size(u64::from(size)),
        parts.join(", "),
    )
}
