//! `echometer-loadgen`: makes load on an echo server and times it. Parse, plan, run, report.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, error::ErrorKind};

use echometer_host::signals::Stop;
use echometer_loadgen::{
    Plan, Target,
    flags::{Cli, with_default_help},
    histogram_log, progress, report,
    run::{self, Run},
    target::TargetError,
    verdict::Status,
};

/// Could not do it: start, connect, a file, or a byte that came back wrong.
const EXIT_FAILED: u8 = 1;
/// Measured, but the run is not valid.
const EXIT_NOT_VALID: u8 = 3;
/// A `--fail-if` did not hold.
const EXIT_THRESHOLD: u8 = 99;

fn main() -> ExitCode {
    let command = with_default_help(Cli::command(), &Plan::default());
    let cli =
        Cli::from_arg_matches(&command.clone().get_matches()).unwrap_or_else(|error| error.exit());
    let plan = match cli.plan() {
        Ok(plan) => plan,
        Err(error) => usage(command, &error),
    };
    let target = match Target::resolve(&cli.target) {
        Ok(target) => target,
        Err(error @ TargetError::Malformed { .. }) => usage(command, &error),
        Err(error @ TargetError::Unresolved { .. }) => return fail(&error.into()),
    };
    if let Err(error) = plan.validate_for(&target) {
        usage(command, &error);
    }
    match measure(&cli, &plan, &target) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

fn measure(cli: &Cli, plan: &Plan, target: &Target) -> anyhow::Result<ExitCode> {
    let stop = Stop::on_signals().context("cannot watch for signals")?;
    let mut progress = progress::Progress::new(plan, !cli.quiet && io::stderr().is_terminal());
    let run = run::run(plan, target, cli.out.as_deref(), &stop, &mut |row| {
        progress.show(row);
    })?;
    progress.clear();
    // Who closes our output early (`| head`) has seen enough: that is no failure of the measurement.
    match io::stdout().lock().write_all(output(cli, &run).as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(error).context("cannot write to stdout");
        }
        _ => {}
    }
    Ok(match (run.mismatch, run.file.verdict.status) {
        (Some(_), _) => ExitCode::from(EXIT_FAILED),
        (None, Status::Valid) if run.file.thresholds.iter().all(|held| held.holds) => {
            ExitCode::SUCCESS
        }
        (None, Status::Valid) => ExitCode::from(EXIT_THRESHOLD),
        (None, _) => ExitCode::from(EXIT_NOT_VALID),
    })
}

fn output(cli: &Cli, run: &Run) -> String {
    if cli.json {
        return run.file.to_json();
    }
    let mut text = match (cli.quiet, run.file.verdict.status) {
        (false, _) => report::text(&run.file),
        (true, Status::Valid) if run.file.thresholds.iter().all(|held| held.holds) => String::new(),
        (true, Status::Valid) => report::thresholds(&run.file),
        (true, _) => report::thresholds(&run.file) + &report::verdict(&run.file.verdict),
    };
    if cli.latency {
        text.push('\n');
        text.push_str(&histogram_log::spectrum(&run.latency));
    }
    if let Some(out) = &cli.out
        && !cli.quiet
    {
        text.push_str(&format!("\nwritten: {}\n", out.join("run.json").display()));
    }
    text
}

/// Says what is wrong with the flags and how they are used; exit 2.
fn usage(mut command: clap::Command, error: &dyn Error) -> ! {
    command.error(ErrorKind::ValueValidation, error).exit()
}

/// Says what could not be done, in one line; exit 1.
fn fail(error: &anyhow::Error) -> ExitCode {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Most of our errors name their cause themselves.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    // With stderr gone there is nobody left to tell, and the exit code says it too.
    let _ = writeln!(io::stderr(), "error: {text}");
    ExitCode::from(EXIT_FAILED)
}
