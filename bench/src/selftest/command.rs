//! `echometer selftest` at the edge: prints each truth as soon as it is known, and says in the exit code whether all were
//! shown.

use std::process::ExitCode;

use crate::{
    invocation::Invocation,
    selftest::{flags::SelftestSettings, screen::Screen, selftest},
};

/// Not all that was to be looked at was looked at.
const EXIT_CUT_SHORT: u8 = 3;

/// Runs the command.
///
/// # Errors
/// As [`selftest()`]; stdout can't be written to.
pub(crate) fn run(settings: &SelftestSettings, how: &Invocation) -> anyhow::Result<ExitCode> {
    let stop = how.stop()?;
    let mut screen = Screen::new(&settings.output);
    let (selftest, folder) = selftest(settings, &how.command_line, &stop, &mut |step| {
        screen.show(&step);
    })?;
    screen.finish(&selftest, &folder)?;
    let missed = selftest.checks().any(|check| !check.passed);
    Ok(match (selftest.passed, missed) {
        (true, _) => ExitCode::SUCCESS,
        (false, false) if selftest.cut_short => ExitCode::from(EXIT_CUT_SHORT),
        (false, _) => ExitCode::FAILURE,
    })
}
