//! `echometer report`: a saved result in the form that is wanted: a page, text, data, or figures in files.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::ValueEnum;

use echometer_host::files::write_whole;

use crate::{
    names::{file_name, free_name},
    page::{self, csv, html, markdown, svg},
    saved::Saved,
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
        Format::Html => html::html(&page::of(saved))?,
        Format::Text => saved.kind.text(),
        Format::Json => saved.json.clone(),
        Format::Csv => csv::csv(&page::of(saved)),
        Format::Markdown => markdown::markdown(&page::of(saved)),
    })
}

/// Writes every figure of a result into `folder` as SVG, and says which.
///
/// # Errors
/// The folder or a file can't be written.
pub fn figures(saved: &Saved, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let page = page::of(saved);
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
            write_whole(&path, svg.as_bytes())?;
            Ok(path)
        })
        .collect()
}
