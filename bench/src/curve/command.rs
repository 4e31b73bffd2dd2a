//! `echometer curve` at the edge: carries it out, prints it, and turns it into an exit code.

use std::process::ExitCode;

use echometer_report::file::curve::FILE_NAME;

use crate::{
    curve::{curve, exit_code, flags::CurveSettings},
    invocation::Invocation,
    screen::stdout::show,
};

/// Runs the command.
///
/// # Errors
/// It can't be done; see [`curve()`].
pub(crate) fn run(settings: &CurveSettings, how: &Invocation) -> anyhow::Result<ExitCode> {
    let finished = curve(settings, &how.command_line, &how.stop()?)?;
    let file = show(finished, FILE_NAME, settings.output.json)?;
    Ok(ExitCode::from(exit_code(&file)))
}
