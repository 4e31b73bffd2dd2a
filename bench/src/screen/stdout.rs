//! What a command leaves on stdout: its report in colour where colour is wanted and the file to open, or its data.

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::Context;

use crate::report::text::compare::coloured;

/// The report, and where to find it. `data` is the data file's name, beside it.
///
/// # Errors
/// stdout can't be written to.
pub fn show_report(text: &str, report: &Path, data: &str) -> anyhow::Result<()> {
    let text = coloured(text);
    let mut stdout = anstream::stdout().lock();
    settled(stdout.write_all(text.as_bytes()).and_then(|()| {
        writeln!(
            stdout,
            "\nopen: {} (data: {data} beside it)",
            report.display()
        )
    }))
}

/// Text as it is, with its colours where colour is wanted; or the data file itself, which has none.
///
/// # Errors
/// stdout can't be written to.
pub fn show_text(text: &str) -> anyhow::Result<()> {
    settled(anstream::stdout().lock().write_all(text.as_bytes()))
}

/// Who closes our output early (`| head`) has seen enough: that is no failure of the measurement.
fn settled(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}
