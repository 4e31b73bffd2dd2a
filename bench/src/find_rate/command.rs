//! `echometer find-rate` at the edge: carries it out, prints it, and turns it into an exit code.

use std::process::ExitCode;

use anyhow::Context;

use echometer_host::signals::Stop;

use crate::{
    find_rate::{find_rate, flags::FindRateSettings, record::FILE_NAME},
    report::{folder::json, text::find_rate as text},
    screen::stdout::{show_report, show_text},
};

/// Runs the command. `command_line` is kept in the file.
///
/// # Errors
/// It can't be done; see [`find_rate()`].
pub fn run(settings: &FindRateSettings, command_line: &str) -> anyhow::Result<ExitCode> {
    let stop = Stop::on_signals().context("cannot watch for signals")?;
    let finished = find_rate(settings, command_line, &stop)?;
    match settings.output.json {
        true => show_text(&json(&finished.file))?,
        false => show_report(&text::text(&finished.file), &finished.report, FILE_NAME)?,
    }
    Ok(ExitCode::from(finished.exit_code()))
}
