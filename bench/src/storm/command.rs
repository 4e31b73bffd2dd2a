//! `echometer storm` at the edge: carries it out, prints it, and turns it into an exit code.

use std::process::ExitCode;

use anyhow::Context;

use echometer_host::signals::Stop;

use crate::{
    report::{folder::json, text::storm as text},
    screen::stdout::{show_report, show_text},
    storm::{flags::StormSettings, record::FILE_NAME, storm},
};

/// Runs the command. `command_line` is kept in the file.
///
/// # Errors
/// It can't be done; see [`storm()`].
pub fn run(settings: &StormSettings, command_line: &str) -> anyhow::Result<ExitCode> {
    let stop = Stop::on_signals().context("cannot watch for signals")?;
    let finished = storm(settings, command_line, &stop)?;
    match settings.output.json {
        true => show_text(&json(&finished.file))?,
        false => show_report(&text::text(&finished.file), &finished.report, FILE_NAME)?,
    }
    Ok(ExitCode::from(finished.exit_code()))
}
