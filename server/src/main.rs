//! The binary: parse, serve until told to stop, write what was counted.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _};
use echometer_host::files::check_writable;
use echometer_host::limits;
use echometer_host::output::{is_plain_terminal, unless_closed, with_causes};
use echometer_host::signals::{self, Stop};
use echometer_host::threads;
use echometer_server::flags::{Command, Flags, FlagsError};
use echometer_server::log;
use echometer_server::probe::probe;
use echometer_server::running::{StartError, start};

fn main() -> ExitCode {
    // A limit on file sizes is an error of the write that meets it, and not this process's end.
    let outcome = signals::outlive_file_size_limit()
        .context("cannot watch for signals")
        .and_then(|()| threads::with_enough_stack(serve)?);
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(StartError::Usage(text)), _) | (_, Some(FlagsError::Usage(text))) => Flags::command()
            .error(clap::error::ErrorKind::ValueValidation, text)
            .exit(),
        _ => {
            log::line(format_args!("error: {}", with_causes(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> anyhow::Result<()> {
    let mut command = Flags::command();
    if is_plain_terminal() {
        command = command.color(clap::ColorChoice::Never);
    }
    let parsed = command.try_get_matches();
    match parsed.and_then(|matches| Flags::from_arg_matches(&matches)) {
        Ok(flags) => run(flags),
        Err(error) if error.use_stderr() => error.exit(),
        // Help or version: asked for, so that it must arrive.
        Err(text) => arrived(text.print().and_then(|()| std::io::stdout().flush())),
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    if let Some(Command::Probe { json }) = flags.subcommand() {
        return tell_probe(json);
    }
    let stats_path = flags.stats();
    let config = flags.into_config()?;
    if let Some(path) = &stats_path {
        check_writable(path)?;
    }
    let stop = Stop::on_signals()
        .map_err(hinted)
        .context("cannot watch for signals")?;
    let server = start(config, &stop)?;
    if let Some(why) = server.fallback() {
        log::line(format_args!(
            "note: serving with {}: {why}",
            server.engine()
        ));
    }
    log::line(server.limits());
    if let Some(address) = server.metrics_address() {
        log::line(format_args!("metrics: http://{address}/metrics"));
    }
    // Whoever started us may have closed our stdout, and may still want the echo.
    let _ = writeln!(std::io::stdout().lock(), "{}", server.ready_line())
        .and_then(|()| std::io::stdout().flush());

    let (stats, result) = server.wait();
    if let Some(path) = stats_path {
        stats.write(&path)?;
    }
    Ok(result?)
}

fn tell_probe(json: bool) -> anyhow::Result<()> {
    let report = probe();
    let text = if json { report.json() } else { report.text() };
    let mut stdout = std::io::stdout().lock();
    arrived(writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()))?;
    anyhow::ensure!(
        report.is_sound(),
        "io_uring can't be used here, or not as it is: see above"
    );
    Ok(())
}

/// What became of a write to stdout of what was asked for. Whoever reads no further has what he wants (`probe | head -1`).
fn arrived(written: std::io::Result<()>) -> anyhow::Result<()> {
    unless_closed(written)
        .map_err(hinted)
        .context("cannot write to stdout")
}

/// The error with its cure, where a limit of this process is in the way.
#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn hinted(error: std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("{error}{}", limits::hint(&error))
}
