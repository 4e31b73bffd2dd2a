//! `echometer trace` at the edge: traces, prints, and turns it into an exit code.

use std::process::ExitCode;

use echometer_report::folder::json;

use crate::{
    invocation::Invocation,
    screen::stdout::show_text,
    trace::{flags::TraceSettings, text::text, trace},
};

/// Runs the command. The exit code is 1 where a step failed that should not have.
///
/// # Errors
/// The server can't be started or found, the engine is not available; stdout can't be written to.
pub(crate) fn run(settings: &TraceSettings, _: &Invocation) -> anyhow::Result<ExitCode> {
    let trace = trace(settings)?;
    show_text(&match settings.json {
        true => json(&trace),
        false => text(&trace, settings.explain),
    })?;
    Ok(match trace.complete {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
