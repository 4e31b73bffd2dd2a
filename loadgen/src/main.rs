//! `echometer-loadgen`: makes load on an echo server and times it. Parse, plan, run, report.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, error::ErrorKind};

use echometer_host::{
    limits,
    output::{deliver, is_plain_terminal, unless_closed, with_causes},
    signals, threads,
};
use echometer_loadgen::{
    Plan, Stop, Target, TargetError,
    flags::{Cli, with_default_help},
    histogram_log, report,
    run::{self, Run},
    verdict::RunStatus,
};

mod progress;

/// Could not do it: start, connect, a file, or a byte that came back wrong.
const EXIT_FAILED: u8 = 1;
/// Measured, but the run is not valid.
const EXIT_NOT_VALID: u8 = 3;
/// A `--fail-if` did not hold.
const EXIT_THRESHOLD: u8 = 99;

fn main() -> ExitCode {
    // A limit on file sizes is an error of the write that meets it, and not this process's end.
    let watched = signals::outlive_file_size_limit().context("cannot watch for signals");
    let code = watched.and_then(|()| Ok(threads::with_enough_stack(load)?));
    code.unwrap_or_else(|error| fail(&error))
}

fn load() -> ExitCode {
    let mut command = with_default_help(Cli::command(), &Plan::default());
    if is_plain_terminal() {
        command = command.color(clap::ColorChoice::Never);
    }
    let parsed = command.clone().try_get_matches();
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => error.exit(),
        // Help or version: asked for, so that it must arrive.
        Err(text) => return told(&text),
    };
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
    let mut progress = progress::Progress::new(
        plan,
        !cli.quiet && io::stderr().is_terminal() && !is_plain_terminal(),
    );
    let run = run::run(plan, target, cli.out.as_deref(), &stop, &mut |row| {
        progress.show(row);
    })?;
    progress.clear();
    deliver(output(cli, &run).as_bytes()).context("cannot write to stdout")?;
    if let Some(unwritten) = run.unwritten {
        return Err(unwritten.into());
    }
    Ok(match (run.mismatch, run.file.verdict.status) {
        (Some(_), _) => ExitCode::from(EXIT_FAILED),
        (None, RunStatus::Valid) if run.file.thresholds.iter().all(|held| held.holds) => {
            ExitCode::SUCCESS
        }
        (None, RunStatus::Valid) => ExitCode::from(EXIT_THRESHOLD),
        (None, _) => ExitCode::from(EXIT_NOT_VALID),
    })
}

fn output(cli: &Cli, run: &Run) -> String {
    if cli.json {
        return run.file.to_json();
    }
    let mut text = match (cli.quiet, run.file.verdict.status) {
        (false, _) => report::text(&run.file),
        (true, RunStatus::Valid) if !run.file.cut_short => {
            match run.file.thresholds.iter().all(|held| held.holds) {
                true => String::new(),
                false => report::thresholds(&run.file),
            }
        }
        (true, _) => report::thresholds(&run.file) + &report::verdict(&run.file),
    };
    if cli.latency {
        text.push('\n');
        text.push_str(&histogram_log::spectrum(&run.latency));
    }
    if let Some(out) = &cli.out
        && run.unwritten.is_none()
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

/// Prints what clap has to tell.
fn told(text: &clap::Error) -> ExitCode {
    let written = text.print().and_then(|()| io::stdout().flush());
    match unless_closed(written).context("cannot write to stdout") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Says what could not be done, in one line; exit 1.
fn fail(error: &anyhow::Error) -> ExitCode {
    let mut text = with_causes(error.as_ref());
    text.push_str(&limits::hint_of_chain(error.as_ref(), &text));
    // With stderr gone there is nobody left to tell, and the exit code says it too.
    let _ = writeln!(io::stderr(), "error: {text}");
    ExitCode::from(EXIT_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::Parser;
    use echometer_loadgen::recorder;

    /// A run as it was saved on a busy machine, with a histogram of 1 to 1,000 us.
    fn run() -> Run {
        let mut latency = recorder::histogram();
        for us in 1..=1_000_u64 {
            latency.record(us * 1_000).expect("it fits");
        }
        Run {
            file: serde_json::from_str(include_str!("../tests/saved/run.json"))
                .expect("it was saved by us"),
            latency,
            open: None,
            mismatch: None,
            unwritten: None,
        }
    }

    fn printed(flags: &[&str]) -> String {
        let words = [&["echometer-loadgen", "127.0.0.1:7777"], flags].concat();
        let text = output(&Cli::try_parse_from(words).expect("flags of ours"), &run());
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        text
    }

    #[test]
    fn a_run_with_its_spectrum_reads_like_this() {
        let text = printed(&["--latency"]);
        assert_eq!(text, include_str!("../tests/golden/run-latency.txt"));
    }

    #[test]
    fn a_run_that_was_stopped_is_not_simply_valid() {
        let mut run = run();
        run.file.verdict.status = RunStatus::Valid;
        run.file.verdict.reasons.clear();
        run.file.cut_short = true;
        for flags in [&[][..], &["--quiet"]] {
            let words = [&["echometer-loadgen", "127.0.0.1:7777"], flags].concat();
            let text = output(&Cli::try_parse_from(words).expect("flags of ours"), &run);
            assert!(
                text.contains("verdict: cut short, valid until then\n"),
                "{text}"
            );
            assert!(text.contains("it was stopped after"), "{text}");
        }
        // Without a reason to speak a quiet run is silent.
        run.file.cut_short = false;
        let words = ["echometer-loadgen", "127.0.0.1:7777", "--quiet"];
        let cli = Cli::try_parse_from(words).expect("flags of ours");
        if run.file.thresholds.iter().all(|held| held.holds) {
            assert_eq!(output(&cli, &run), "");
        }
    }

    #[test]
    fn a_quiet_run_says_only_what_is_wrong() {
        let text = printed(&["--quiet"]);
        assert_eq!(text, include_str!("../tests/golden/run-quiet.txt"));
    }
}
