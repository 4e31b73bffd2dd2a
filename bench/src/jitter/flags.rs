//! The flags of `echometer jitter`, and what they mean.

use std::time::Duration;

use clap::Args;

use echometer_host::{cpus::CpuList, units};

use crate::flags::{OutputFlags, OutputSettings};

/// The flags of `echometer jitter`.
#[derive(Debug, Args)]
pub(crate) struct JitterFlags {
    /// The cpus that are looked at, two at a time: 0, 2-5 [default: all that may be used, at most eight]
    #[arg(long, value_name = "LIST")]
    cpus: Option<CpuList>,

    /// How long each cpu is looked at
    #[arg(long, short, value_name = "TIME", value_parser = units::duration, default_value = "10s")]
    duration: Duration,

    /// The rate for which p99 and p99.9 are told, messages per second
    #[arg(long, short = 'R', value_name = "RATE", value_parser = units::count, default_value = "50k")]
    rate: u64,

    /// The machine's name in the results' path [default: from its cpu and kernel]
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,

    #[command(flatten)]
    output: OutputFlags,
}

/// A look that can be taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JitterSettings {
    /// The cpus, where some were named; not empty.
    pub cpus: Option<CpuList>,
    /// Of each; 1 ms to an hour.
    pub duration: Duration,
    /// Messages per second; above 0.
    pub rate_per_s: f64,
    /// The machine's name in paths.
    pub machine: Option<String>,
    /// Where the results go, and how they are shown.
    pub output: OutputSettings,
}

impl JitterFlags {
    /// What is meant by what was typed.
    ///
    /// # Errors
    /// A sentence for the user: a usage error.
    pub(crate) fn settings(self) -> Result<JitterSettings, String> {
        if self.cpus.as_ref().is_some_and(CpuList::is_empty) {
            return Err("--cpus: an empty list: name one cpu or more, such as 1 or 2-5".to_owned());
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(3_600)).contains(&self.duration) {
            return Err("-d: give 1ms to 1h, such as 10s".to_owned());
        }
        if self.rate == 0 {
            return Err("-R: at 0/s no message meets a gap: give a rate such as 50k".to_owned());
        }
        Ok(JitterSettings {
            cpus: self.cpus,
            duration: self.duration,
            rate_per_s: self.rate as f64,
            machine: self.machine,
            output: self.output.settings(),
        })
    }
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  echometer jitter                    every cpu for 10 s
  echometer jitter --cpus 2-3 -d 60s  two of them for longer: what is rare needs time
  sudo echometer jitter               where procfs hides the tasks of others (hidepid)

Exit codes: 0 ok, 1 could not do it, 2 usage, 3 cut short before anything was seen.";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn typed(line: &str) -> Result<JitterSettings, String> {
        let words = shell_words::split(&format!("echometer jitter {line}")).expect("a test's line");
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Jitter(flags) = cli.command else {
            panic!("it is jitter")
        };
        flags.settings()
    }

    #[test]
    fn flags_arrive_and_what_is_wrong_is_said() {
        let usual = typed("").expect("valid");
        assert_eq!(
            (usual.cpus, usual.duration, usual.rate_per_s),
            (None, Duration::from_secs(10), 50_000.0)
        );
        let own = typed("--cpus 1,3 -d 200ms -R 2k --json").expect("valid");
        assert_eq!(
            (own.cpus, own.duration),
            ("1,3".parse().ok(), Duration::from_millis(200))
        );
        assert!(own.output.json);
        for (line, cure) in [
            ("-d 0ms", "10s"),
            ("-R 0", "50k"),
            ("--cpus x", "x"),
            ("-d 10", "unit"),
        ] {
            let error = typed(line).expect_err(line);
            assert!(error.contains(cure), "{line}: {error}");
        }
    }
}
