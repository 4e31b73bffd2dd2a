//! `echometer find-rate` at the edge: carries it out, prints it, and turns it into an exit code.

use std::process::ExitCode;

use echometer_report::file::find_rate::FILE_NAME;

use crate::{
    find_rate::{exit_code, find_rate, flags::FindRateSettings},
    invocation::Invocation,
    screen::stdout::show,
};

/// Runs the command.
///
/// # Errors
/// It can't be done; see [`find_rate()`].
pub(crate) fn run(settings: &FindRateSettings, how: &Invocation) -> anyhow::Result<ExitCode> {
    let finished = find_rate(settings, &how.command_line, &how.stop()?)?;
    let file = show(finished, FILE_NAME, settings.output.json)?;
    Ok(ExitCode::from(exit_code(&file)))
}
