//! `echometer compare` at the edge: carries it out, prints it, and turns it into an exit code.

use std::process::ExitCode;

use echometer_report::file::compare::FILE_NAME;

use crate::{
    compare::{compare, exit_code, flags::CompareSettings},
    invocation::Invocation,
    screen::stdout::show,
};

/// Runs the command.
///
/// # Errors
/// It can't be done; see [`compare()`].
pub(crate) fn run(settings: &CompareSettings, how: &Invocation) -> anyhow::Result<ExitCode> {
    let finished = compare(settings, &how.command_line, &how.stop()?)?;
    let file = show(finished, FILE_NAME, settings.output.json)?;
    Ok(ExitCode::from(exit_code(&file, settings.decide)))
}
