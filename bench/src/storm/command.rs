//! `echometer storm` at the edge: carries it out, prints it, and turns it into an exit code.

use std::process::ExitCode;

use echometer_report::file::storm::FILE_NAME;

use crate::{
    invocation::Invocation,
    screen::stdout::show,
    storm::{exit_code, flags::StormSettings, storm},
};

/// Runs the command.
///
/// # Errors
/// It can't be done; see [`storm()`].
pub(crate) fn run(settings: &StormSettings, how: &Invocation) -> anyhow::Result<ExitCode> {
    let finished = storm(settings, &how.command_line, &how.stop()?)?;
    let file = show(finished, FILE_NAME, settings.output.json)?;
    Ok(ExitCode::from(exit_code(&file)))
}
