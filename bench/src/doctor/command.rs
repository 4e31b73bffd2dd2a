//! `echometer doctor` at the edge: looks, prints, and turns it into an exit code.

use std::process::ExitCode;

use echometer_report::{
    folder::json,
    text::{columns::coloured, doctor::text},
};

use crate::{
    doctor::{examine, flags::DoctorFlags},
    invocation::Invocation,
    screen::stdout::show_text,
};

/// Runs the command. The exit code is 3 where the machine is not fit.
///
/// # Errors
/// stdout can't be written to.
pub(crate) fn run(flags: &DoctorFlags, _: &Invocation) -> anyhow::Result<ExitCode> {
    let examination = examine(flags.purpose());
    show_text(&match flags.json {
        true => json(&examination),
        false => coloured(&text(&examination)),
    })?;
    Ok(ExitCode::from(if examination.failed() { 3 } else { 0 }))
}
