//! `echometer report`: a saved result in the form that is wanted: a page, text, data, or figures in files.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Map, json};

use echometer_loadgen::{file::Summary, report as run_report};

use crate::report::{
    names::{file_name, free_name},
    page::{Page, csv, html, markdown, svg, text},
    saved::{Kind, Saved},
    text::compare as report,
};

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A page for a browser, in one file that needs no network.
    Html,
    /// Text of 80 columns.
    Text,
    /// The result file itself.
    Json,
    /// The main table, in base units.
    Csv,
    /// Tables for issues and pages.
    Markdown,
}

impl Format {
    /// What a file's name asks for.
    #[must_use]
    pub fn of_file(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "html" | "htm" => Some(Self::Html),
            "txt" => Some(Self::Text),
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "md" => Some(Self::Markdown),
            _ => None,
        }
    }
}

/// A saved result in a form.
///
/// # Errors
/// The page can't be made, which is a fault of this program.
pub fn render(saved: &Saved, format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Html => html::html(&Page::of(saved))?,
        Format::Text => plain(saved),
        Format::Json => data(saved),
        Format::Csv => csv::csv(&Page::of(saved)),
        Format::Markdown => markdown::markdown(&Page::of(saved)),
    })
}

/// Writes every figure of a result into `folder` as SVG, and says which.
///
/// # Errors
/// The folder or a file can't be written.
pub fn figures(saved: &Saved, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let page = Page::of(saved);
    let mut drawn = Vec::new();
    for forest in &page.forests {
        drawn.push((forest.id.clone(), svg::forest(forest)?));
    }
    for chart in &page.charts {
        drawn.push((chart.id.clone(), svg::chart(chart)?));
    }
    let mut taken = HashSet::new();
    drawn
        .into_iter()
        .map(|(id, svg)| {
            // The name of an arm is in it, and it comes from a file.
            let name = free_name(file_name(&id), &mut taken);
            let path = folder.join(format!("{name}.svg"));
            fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        })
        .collect()
}

/// As the command that made it printed it; a log, which none of ours printed, as its page's words and main table.
fn plain(saved: &Saved) -> String {
    match &saved.kind {
        Kind::Run(run, _) => run_report::text(run),
        Kind::Compare(comparison, _) => report::text(comparison),
        Kind::Sweep(sweep) => crate::report::text::sweep::text(sweep),
        Kind::FindRate(search) => crate::report::text::find_rate::text(search),
        Kind::Storm(storm, _) => crate::report::text::storm::text(storm),
        Kind::Floor(floor) => crate::report::text::floor::text(floor),
        Kind::Selftest(selftest) => crate::report::text::selftest::text(selftest),
        Kind::Doctor(examination) => crate::report::text::doctor::text(examination),
        Kind::Log(_) => text::text(&Page::of(saved)),
    }
}

/// The file as it is; of a log its figures, since it has no JSON of its own.
fn data(saved: &Saved) -> String {
    let Kind::Log(log) = &saved.kind else {
        return saved.json.clone();
    };
    let tags: Map<String, serde_json::Value> = log
        .tags()
        .into_iter()
        .filter_map(|tag| {
            let summary = Summary::of(&log.whole(tag)?, None);
            Some((tag.to_owned(), serde_json::to_value(summary).ok()?))
        })
        .collect();
    let value =
        json!({"schema": "echometer.log/1", "intervals": log.intervals.len(), "tags": tags});
    format!("{value:#}\n")
}
