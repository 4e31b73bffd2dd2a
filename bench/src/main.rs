//! `echometer`: the bench. Parse, compare, print; the error is printed here, once.
#![forbid(unsafe_code)]

use std::{
    env, fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{FromArgMatches, error::ErrorKind};

use echometer::{
    cli::{Cli, Colour, Command, manual},
    compare::{compare, flags::CompareSettings},
    doctor::{self, flags::DoctorFlags},
    find_rate, floor,
    report::{
        file::compare::FILE_NAME,
        folder::json,
        render::{self, Format},
        saved::{Saved, harmless::harmless},
        text::compare as report,
    },
    screen::stdout::{show_report, show_text},
    selftest,
    serve::guard,
    show::{
        export::export,
        flags::{ExportFlags, ManFlags, ReportFlags},
        merge::merge_files,
    },
    storm, sweep, trace,
};
use echometer_host::signals::Stop;
use echometer_loadgen::run::command_line;

fn main() -> ExitCode {
    let mut command = Cli::parser();
    // A job file stands for a command line.
    let words = match sweep::job::expand(env::args_os().collect()) {
        Ok(words) => words,
        Err(error) => command
            .error(ErrorKind::ValueValidation, harmless(&format!("{error:#}")))
            .exit(),
    };
    let cli = Cli::from_arg_matches(&command.clone().get_matches_from(&words))
        .unwrap_or_else(|error| error.exit());
    match cli.color {
        // What anstream finds out by itself.
        Colour::Auto => {}
        Colour::Always => anstream::ColorChoice::Always.write_global(),
        Colour::Never => anstream::ColorChoice::Never.write_global(),
    }
    let outcome = match cli.command {
        Command::Doctor(flags) => run_doctor(&flags),
        Command::Report(flags) => run_report(&flags),
        Command::Merge(flags) => {
            merge_files(&flags.logs, &flags.out).and_then(|said| printed(&said))
        }
        Command::Export(flags) => run_export(&flags),
        Command::Completions(flags) => printed(&manual::completions(command, flags.shell)),
        Command::Man(flags) => run_man(&mut command, &flags),
        Command::Guard => {
            guard::stand(io::stdin().lock());
            return ExitCode::SUCCESS;
        }
        Command::Compare(flags) => {
            let settings = flags
                .settings()
                .unwrap_or_else(|text| usage(&mut command, "compare", text));
            run_compare(&settings)
        }
        Command::Floor(flags) => {
            let settings = flags
                .settings()
                .unwrap_or_else(|text| usage(&mut command, "floor", text));
            floor::command::run(&settings, &command_line())
        }
        Command::FindRate(flags) => {
            let settings = flags
                .settings()
                .unwrap_or_else(|text| usage(&mut command, "find-rate", text));
            find_rate::command::run(&settings, &command_line())
        }
        Command::Storm(flags) => {
            let settings = flags
                .settings()
                .unwrap_or_else(|text| usage(&mut command, "storm", text));
            storm::command::run(&settings, &command_line())
        }
        Command::Sweep(flags) => {
            let settings = flags
                .settings()
                .unwrap_or_else(|text| usage(&mut command, "sweep", text));
            sweep::command::run(&settings, &command_line(), &words)
        }
        Command::Selftest(flags) => match flags.settings() {
            Ok(settings) => selftest::main(&settings, &command_line()),
            Err(text) => usage(&mut command, "selftest", text),
        },
        Command::Trace(flags) => match flags.settings() {
            Ok(settings) => trace::main(&settings),
            Err(text) => usage(&mut command, "trace", text),
        },
    };
    outcome.unwrap_or_else(|error| {
        // With stderr gone there is nobody left to tell, and the exit code says it too.
        // It may quote a foreign file, or a server.
        let text = format!("{error:#}");
        let _ = writeln!(io::stderr(), "error: {}", harmless(&text));
        ExitCode::FAILURE
    })
}

/// Ends with a usage error of a subcommand.
fn usage(command: &mut clap::Command, subcommand: &str, text: String) -> ! {
    // Only then a subcommand knows that it is called `echometer trace`.
    command.build();
    let subcommand = command
        .find_subcommand_mut(subcommand)
        .expect("it was just parsed");
    subcommand.error(ErrorKind::ValueValidation, text).exit()
}

fn run_compare(settings: &CompareSettings) -> anyhow::Result<ExitCode> {
    let stop = Stop::on_signals().context("cannot watch for signals")?;
    let finished = compare(settings, &command_line(), &stop)?;
    match settings.output.json {
        true => show_text(&json(&finished.comparison))?,
        false => show_report(
            &report::text(&finished.comparison),
            &finished.report,
            FILE_NAME,
        )?,
    }
    Ok(ExitCode::from(finished.exit_code(settings.decide)))
}

fn run_doctor(flags: &DoctorFlags) -> anyhow::Result<ExitCode> {
    let examination = doctor::examine(flags.purpose());
    show_text(&match flags.json {
        true => json(&examination),
        false => report::coloured(&examination.text()),
    })?;
    Ok(ExitCode::from(if examination.failed() { 3 } else { 0 }))
}

fn run_report(flags: &ReportFlags) -> anyhow::Result<ExitCode> {
    let saved = Saved::open(&flags.result)?;
    if let Some(folder) = &flags.svg {
        return list(&render::figures(&saved, folder)?);
    }
    let by_name = flags.out.as_deref().and_then(Format::of_file);
    let format = flags.format.or(by_name).unwrap_or(Format::Html);
    let text = render::render(&saved, format)?;
    let beside = || saved.folder.join("report.html");
    let out = match (&flags.out, format) {
        (Some(out), _) => out.clone(),
        (None, Format::Html) => beside(),
        (None, Format::Text) => return printed(&report::coloured(&text)),
        (None, _) => return printed(&text),
    };
    fs::write(&out, text).with_context(|| format!("cannot write {}", out.display()))?;
    printed(&format!("open: {}\n", out.display()))
}

fn run_export(flags: &ExportFlags) -> anyhow::Result<ExitCode> {
    let saved = Saved::open(&flags.result)?;
    let beside = || saved.folder.join("export");
    list(&export(&saved, &flags.out.clone().unwrap_or_else(beside))?)
}

fn run_man(command: &mut clap::Command, flags: &ManFlags) -> anyhow::Result<ExitCode> {
    printed(&match &flags.out {
        Some(folder) => manual::write_man(command, folder)?,
        None => manual::man(command, flags.command.as_deref())
            .unwrap_or_else(|text| usage(command, "man", text)),
    })
}

/// What was written, a line each.
fn list(paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let lines: Vec<String> = paths
        .iter()
        .map(|path| format!("{}\n", path.display()))
        .collect();
    printed(&lines.concat())
}

fn printed(text: &str) -> anyhow::Result<ExitCode> {
    show_text(text).map(|()| ExitCode::SUCCESS)
}
