//! What a command leaves on stdout: its report in colour where colour is wanted and the file to open, or its data.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use serde::Serialize;

use echometer_host::output::unless_closed;
use echometer_report::{folder::json, text::columns::coloured};

/// A result that was made, and saved.
#[derive(Debug)]
pub(crate) struct Finished<T> {
    /// All of it.
    pub file: T,
    /// Its report, as it was saved.
    pub text: String,
    /// The file to open.
    pub report: PathBuf,
    /// Why files of it are not there, or are older than what is shown.
    pub unsaved: Option<anyhow::Error>,
}

/// The report and where to find it, or with `data_only` the data; gives the data back. `data` is the data file's name,
/// beside the report.
///
/// # Errors
/// stdout can't be written to, or the result could not be saved: what was measured is shown before that is said.
pub(crate) fn show<T: Serialize>(
    finished: Finished<T>,
    data: &str,
    data_only: bool,
) -> anyhow::Result<T> {
    if data_only {
        show_text(&json(&finished.file))?;
    } else if finished.unsaved.is_some() {
        show_text(&coloured(&finished.text))?;
    } else {
        show_and_point(&finished, data)?;
    }
    match finished.unsaved {
        Some(error) => Err(error),
        None => Ok(finished.file),
    }
}

fn show_and_point<T>(finished: &Finished<T>, data: &str) -> anyhow::Result<()> {
    let text = coloured(&finished.text);
    let mut stdout = anstream::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| {
        writeln!(
            stdout,
            "\nopen: {} (data: {data} beside it)",
            finished.report.display()
        )
        .and_then(|()| stdout.flush())
    });
    unless_closed(written).context("cannot write to stdout")
}

/// Text as it is, with its colours where colour is wanted; or the data file itself, which has none.
///
/// # Errors
/// stdout can't be written to.
pub(crate) fn show_text(text: &str) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    unless_closed(written).context("cannot write to stdout")
}

/// As [`show_text`], where nothing else is to be done.
///
/// # Errors
/// stdout can't be written to.
pub(crate) fn printed(text: &str) -> anyhow::Result<ExitCode> {
    show_text(text).map(|()| ExitCode::SUCCESS)
}
