//! The flags of `echometer selftest`, and what they mean.

use clap::{Args, ValueEnum};

use echometer_host::priority::Priority;
use echometer_loadgen::plan::Engine;
use echometer_report::file::selftest::{TRUTHS, Truth};

use crate::flags::{MachineFlags, MachineSettings, OutputFlags, OutputSettings};

/// The flags of `echometer selftest`.
#[derive(Debug, Args)]
pub(crate) struct SelftestFlags {
    /// All truths within a minute: shorter comparisons, and one client engine instead of two
    #[arg(long)]
    quick: bool,

    /// Look at these truths only
    #[arg(long, value_name = "TRUTH", value_enum, value_delimiter = ',')]
    only: Vec<Truth>,

    /// How the client moves its bytes: uring, epoll, or one after the other
    #[arg(long, value_name = "ENGINE", value_delimiter = ',', value_parser = client_engine)]
    engine: Vec<Engine>,

    #[command(flatten)]
    machine: MachineFlags,

    #[command(flatten)]
    output: OutputFlags,
}

/// A selftest that can be carried out, but for what only the machine can say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SelftestSettings {
    /// Whether it shall end within a minute.
    pub quick: bool,
    /// In their own order, each once; not empty.
    pub truths: Vec<Truth>,
    /// The client's engines; empty for as many as the machine and `quick` allow.
    pub engines: Vec<Engine>,
    /// Where both sides run, and what the machine is called.
    pub machine: MachineSettings,
    /// Where the results go, and how they are shown.
    pub output: OutputSettings,
}

impl SelftestFlags {
    /// What is meant by what was typed.
    ///
    /// # Errors
    /// A sentence for the user: a usage error.
    pub(crate) fn settings(self) -> Result<SelftestSettings, String> {
        let mut engines = self.engine;
        let mut seen = Vec::new();
        engines.retain(|engine| {
            let new = !seen.contains(engine);
            seen.push(*engine);
            new
        });
        Ok(SelftestSettings {
            quick: self.quick,
            truths: TRUTHS
                .into_iter()
                .filter(|truth| self.only.is_empty() || self.only.contains(truth))
                .collect(),
            engines,
            machine: self.machine.settings()?.without_priority(
                &[Priority::Nice, Priority::Rt],
                "the instrument is tested as it is: leave it away",
            )?,
            output: self.output.settings(),
        })
    }
}

/// `auto` would say nothing about which of the two was proven.
fn client_engine(text: &str) -> Result<Engine, String> {
    match Engine::from_str(text, false) {
        Ok(Engine::Auto) | Err(_) => {
            Err("the client has the engines uring and epoll: name one of them, or both".to_owned())
        }
        Ok(engine) => Ok(engine),
    }
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  echometer selftest                        everything, in about six minutes
  echometer selftest --quick                within a minute
  echometer selftest --only freeze,fixed    two of the truths

Exit codes: 0 all truths are shown, 1 one is not (or it could not be done), 2 usage,
3 cut short before all were looked at, 130 cut short by a second signal.";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn typed(line: &str) -> Result<SelftestSettings, String> {
        let words = format!("echometer selftest {line}");
        let cli =
            Cli::try_parse_from(words.split_whitespace()).map_err(|error| error.to_string())?;
        let Command::Selftest(flags) = cli.command else {
            panic!("it is selftest")
        };
        flags.settings()
    }

    #[test]
    fn everything_is_the_default() {
        let settings = typed("").expect("valid");
        assert_eq!(settings.truths, TRUTHS);
        assert!(settings.engines.is_empty() && !settings.quick);
    }

    #[test]
    fn some_can_be_named_and_keep_their_order() {
        let settings = typed("--quick --only same,fixed --engine epoll,epoll").expect("valid");
        assert_eq!(settings.truths, [Truth::Fixed, Truth::Same]);
        assert_eq!(settings.engines, [Engine::Epoll]);
        assert!(settings.quick);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_cure() {
        for (line, cure) in [
            ("--only late", "fixed"),
            ("--engine auto", "uring and epoll"),
            ("--engine tokio", "uring and epoll"),
        ] {
            let error = typed(line).expect_err(line);
            assert!(error.contains(cure), "{line}: {error}");
        }
    }
}
