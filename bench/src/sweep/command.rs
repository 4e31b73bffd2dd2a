//! `echometer sweep` at the edge: carries it out, prints it, and turns it into an exit code.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Context;

use echometer_host::signals::Stop;

use crate::{
    report::{folder::json, text::sweep as text},
    screen::stdout::{show_report, show_text},
    sweep::{Outcome, flags::SweepSettings, record::FILE_NAME, sweep},
};

/// Runs the command. `command_line` is kept in the file, `words` in its job.
///
/// # Errors
/// It can't be done; see [`sweep()`].
pub fn run(
    settings: &SweepSettings,
    command_line: &str,
    words: &[OsString],
) -> anyhow::Result<ExitCode> {
    let stop = Stop::on_signals().context("cannot watch for signals")?;
    let finished = match sweep(settings, command_line, words, &stop)? {
        Outcome::Shown(text) => {
            show_text(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
        Outcome::Finished(finished) => finished,
    };
    match settings.output.json {
        true => show_text(&json(&finished.file))?,
        false => show_report(&text::text(&finished.file), &finished.report, FILE_NAME)?,
    }
    Ok(ExitCode::from(finished.exit_code(settings.decide)))
}
