//! `echometer sweep` at the edge: carries it out, prints it, and turns it into an exit code.

use std::process::ExitCode;

use echometer_report::file::sweep::FILE_NAME;

use crate::{
    invocation::Invocation,
    screen::stdout::{printed, show},
    sweep::{Outcome, exit_code, flags::SweepSettings, sweep},
};

/// Runs the command.
///
/// # Errors
/// It can't be done; see [`sweep()`].
pub(crate) fn run(settings: &SweepSettings, how: &Invocation) -> anyhow::Result<ExitCode> {
    let finished = match sweep(settings, how, &how.stop()?)? {
        Outcome::Shown(text) => return printed(&text),
        Outcome::Finished(finished) => finished,
    };
    let file = show(*finished, FILE_NAME, settings.output.json)?;
    Ok(ExitCode::from(exit_code(&file, settings.decide)))
}
