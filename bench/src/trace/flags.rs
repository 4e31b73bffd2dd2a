//! The flags of `echometer trace`, and what they mean.

use clap::Args;

use crate::{
    serve::arm::{Arm, Spec, parse_arms},
    trace::demos::Demo,
};

/// The flags of `echometer trace`.
#[derive(Debug, Args)]
pub(crate) struct TraceFlags {
    /// What is traced: uring or epoll (both sides), HOST:PORT or another arm (the client's side)
    /// [default: epoll, with --demo]
    #[arg(value_name = "ADDR | ARM", required_unless_present = "demo")]
    target: Option<String>,

    /// A sentence on what each step means
    #[arg(long)]
    explain: bool,

    /// Show what goes wrong with connections, for real
    #[arg(long, value_enum, value_name = "WHAT")]
    demo: Option<Demo>,

    /// Print the trace as JSON
    #[arg(long)]
    json: bool,
}

/// A trace that can be carried out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TraceSettings {
    /// What is traced.
    pub target: TraceTarget,
    /// Whether each step is explained.
    pub explain: bool,
    /// What shall go wrong; with one of our own engines only.
    pub demo: Option<Demo>,
    /// Whether it is printed as JSON.
    pub json: bool,
}

/// What is traced.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TraceTarget {
    /// Both sides, by io_uring operations.
    Uring,
    /// Both sides, by system calls.
    Epoll,
    /// The client's side, with this server.
    Server(Arm),
}

impl TraceFlags {
    /// What is meant by what was typed.
    ///
    /// # Errors
    /// A sentence for the user: a usage error.
    pub(crate) fn settings(self) -> Result<TraceSettings, String> {
        let target = match self.target.as_deref() {
            None | Some("epoll") => TraceTarget::Epoll,
            Some("uring") => TraceTarget::Uring,
            Some(text) => TraceTarget::Server(server(text)?),
        };
        if self.demo.is_some() && matches!(target, TraceTarget::Server(_)) {
            return Err(
                "--demo needs both sides: name uring or epoll, or leave the server away".to_owned(),
            );
        }
        Ok(TraceSettings {
            target,
            explain: self.explain,
            demo: self.demo,
            json: self.json,
        })
    }
}

/// An arm; and an address alone is one that is already running, for nobody has a program named `10.0.0.2:7777`.
fn server(text: &str) -> Result<Arm, String> {
    let is_address = text.starts_with('[')
        || text.rsplit_once(':').is_some_and(|(host, port)| {
            port.parse::<u16>().is_ok() && !host.is_empty() && !host.contains([' ', '=', '/', ':'])
        });
    let spec = match is_address {
        true => format!("tcp:{text}"),
        false => text.to_owned(),
    };
    if spec.starts_with("unix:") {
        return Err("a trace follows TCP: a unix socket has no handshake to show".to_owned());
    }
    let mut arms = parse_arms(&[&spec]).map_err(|error| error.to_string())?;
    let arm = arms.pop().expect("one text is one arm");
    // A digit that is missing makes an address a command; it would be started for nothing.
    match &arm.spec {
        Spec::Command { words } if words.len() == 1 && !words[0].contains('/') => Err(format!(
            "'{text}' is neither an engine nor HOST:PORT nor a command with {{port}}"
        )),
        _ => Ok(arm),
    }
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  echometer trace uring --explain              both sides, as io_uring operations
  echometer trace 127.0.0.1:7777               the client's side, with a server that runs
  echometer trace './my-server {port}'         the same, started for the trace
  echometer trace --demo backlog-full          a connect that takes a second, and why

Exit codes: 0 ok, 1 a step failed (or it could not be done), 2 usage.";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn typed(line: &str) -> Result<TraceSettings, String> {
        let words = shell_words::split(&format!("echometer trace {line}")).expect("a test's line");
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Trace(flags) = cli.command else {
            panic!("it is trace")
        };
        flags.settings()
    }

    fn spec(line: &str) -> String {
        match typed(line).expect("valid").target {
            TraceTarget::Server(arm) => arm.spec.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn addresses_engines_and_commands_are_told_apart() {
        for (line, expected) in [
            ("uring", "Uring"),
            ("epoll", "Epoll"),
            ("--demo half-close", "Epoll"),
            ("127.0.0.1:7777", "tcp:127.0.0.1:7777"),
            ("[::1]:7777", "tcp:[::1]:7777"),
            ("[fe80::1%eth0]:7777", "tcp:[fe80::1%eth0]:7777"),
            ("localhost:7777", "tcp:localhost:7777"),
            ("tcp:localhost:7777", "tcp:localhost:7777"),
            ("tokio", "tokio"),
            ("'./my-server {port}'", "./my-server {port}"),
        ] {
            assert_eq!(spec(line), expected, "{line}");
        }
        assert!(spec("'uring:--backlog 16'").starts_with("uring:"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_cure() {
        for (line, cure) in [
            ("", "ADDR"),
            ("io_uring", "HOST:PORT"),
            ("unix:/tmp/x", "TCP"),
            ("127.0.0.1:7777 --demo half-close", "uring or epoll"),
            ("epoll --demo crash", "backlog-full"),
        ] {
            let error = typed(line).expect_err(line);
            assert!(error.contains(cure), "{line}: {error}");
        }
    }
}
