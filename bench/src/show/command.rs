//! `echometer report`, `merge` and `export` at the edge: a saved result, in another form.

use std::{path::PathBuf, process::ExitCode};

use echometer_host::files::write_whole;
use echometer_report::{
    render::{self, Format},
    saved::Saved,
    text::columns::coloured,
};

use crate::{
    invocation::Invocation,
    screen::stdout::printed,
    show::{
        export::write_files,
        flags::{ExportFlags, MergeFlags, ReportFlags},
        merge::merge_files,
    },
};

/// `echometer report`.
///
/// # Errors
/// The result can't be read, or what was asked for can't be written.
pub(crate) fn report(flags: &ReportFlags, _: &Invocation) -> anyhow::Result<ExitCode> {
    let saved = Saved::open(&flags.result, flags.unit)?;
    if let Some(folder) = &flags.svg {
        return list(&render::figures(&saved, folder)?);
    }
    let by_name = flags.out.as_deref().and_then(Format::of_file);
    let format = flags.format.or(by_name).unwrap_or(Format::Html);
    let text = render::render(&saved, format)?;
    let beside = || saved.folder.join("report.html");
    let out = match (&flags.out, format) {
        (Some(out), _) => out.clone(),
        (None, Format::Html) => beside(),
        (None, Format::Text) => return printed(&coloured(&text)),
        (None, _) => return printed(&text),
    };
    write_whole(&out, text.as_bytes())?;
    printed(&format!("open: {}\n", out.display()))
}

/// `echometer merge`.
///
/// # Errors
/// A log can't be read or written.
pub(crate) fn merge(flags: &MergeFlags, _: &Invocation) -> anyhow::Result<ExitCode> {
    merge_files(&flags.logs, &flags.out, flags.unit).and_then(|said| printed(&said))
}

/// `echometer export`.
///
/// # Errors
/// The result can't be read, or a file can't be written.
pub(crate) fn export(flags: &ExportFlags, _: &Invocation) -> anyhow::Result<ExitCode> {
    let saved = Saved::open(&flags.result, flags.unit)?;
    let beside = || saved.folder.join("export");
    list(&write_files(
        &saved,
        &flags.out.clone().unwrap_or_else(beside),
    )?)
}

/// What was written, a line each.
fn list(paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let lines: Vec<String> = paths
        .iter()
        .map(|path| format!("{}\n", path.display()))
        .collect();
    printed(&lines.concat())
}
