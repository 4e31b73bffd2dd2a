//! `echometer`: the bench. Parse, compare, print; the error is printed here, once.
#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use clap::{FromArgMatches, error::ErrorKind};

use echometer::{
    compare::{Finished, compare},
    doctor,
    flags::{Cli, Colour, Command, CompareSettings, doctor::DoctorFlags},
    floor, guard, report, selftest, storm, sweep, trace,
};
use echometer_host::signals::Stop;

fn main() -> ExitCode {
    let mut command = Cli::parser();
    // A job file stands for a command line.
    let words = match sweep::job::expand(env::args_os().collect()) {
        Ok(words) => words,
        Err(error) => command
            .error(ErrorKind::ValueValidation, format!("{error:#}"))
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
        Command::Selftest(flags) => {
            let settings = flags
                .settings()
                .unwrap_or_else(|text| usage(&mut command, "selftest", text));
            selftest::main(&settings, &command_line())
        }
        Command::Trace(flags) => {
            let settings = flags
                .settings()
                .unwrap_or_else(|text| usage(&mut command, "trace", text));
            trace::main(&settings)
        }
    };
    outcome.unwrap_or_else(|error| {
        // With stderr gone there is nobody left to tell, and the exit code says it too.
        let _ = writeln!(io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Ends with a usage error of a subcommand.
fn usage(command: &mut clap::Command, subcommand: &str, text: String) -> ! {
    let subcommand = command
        .find_subcommand_mut(subcommand)
        .expect("it was just parsed");
    subcommand.error(ErrorKind::ValueValidation, text).exit()
}

fn run_compare(settings: &CompareSettings) -> anyhow::Result<ExitCode> {
    let stop = Stop::on_signals().context("cannot watch for signals")?;
    let finished = compare(settings, &command_line(), &stop)?;
    let shown = match settings.output.json {
        true => io::stdout()
            .lock()
            .write_all(finished.comparison.to_json().as_bytes()),
        false => show(&finished),
    };
    match shown {
        // Who closes our output early (`| head`) has seen enough: that is no failure of the measurement.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(error).context("cannot write to stdout");
        }
        _ => {}
    }
    Ok(ExitCode::from(finished.exit_code(settings.decide)))
}

fn run_doctor(flags: &DoctorFlags) -> anyhow::Result<ExitCode> {
    let examination = doctor::examine(flags.purpose());
    print(&match flags.json {
        true => examination.to_json(),
        false => report::coloured(&examination.text()),
    })?;
    Ok(ExitCode::from(if examination.failed() { 3 } else { 0 }))
}

/// Prints in colour where that is wanted. Who closes our output early (`| head`) has seen enough: that is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match anstream::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// The table in colour where colour is wanted, and the file to open.
fn show(finished: &Finished) -> io::Result<()> {
    let text = report::coloured(&report::text(&finished.comparison));
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    writeln!(
        stdout,
        "\nopen: {} (data: compare.json beside it)",
        finished.report.display()
    )
}

/// As a shell would take it, the program by its name alone.
fn command_line() -> String {
    let mut words: Vec<String> = env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if let Some(program) = words.first_mut() {
        let name = Path::new(program.as_str())
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        *program = name.unwrap_or_else(|| "echometer".to_owned());
    }
    shell_words::join(words)
}
