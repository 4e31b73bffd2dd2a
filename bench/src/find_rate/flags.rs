//! The flags of `echometer find-rate`, and what they mean.

use std::time::Duration;

use clap::Args;

use echometer_host::{priority::Priority, units};
use echometer_loadgen::{Plan, flags::LoadFlags, plan::PlanError};
use echometer_report::file::slo::Slo;

use crate::{
    flags::{MachineFlags, MachineSettings, OutputFlags, OutputSettings},
    serve::arm::{Arm, parse_arms},
};

/// The most blocks.
const BLOCKS_MAX: u64 = 200;
/// The lowest rate is such that a run of it takes no longer than this.
const LOWEST_RUN: Duration = Duration::from_secs(10);
/// But not lower than this, where nothing else is asked for.
const LOWEST: f64 = 1_000.0;
/// No server on one machine gets there.
const HIGHEST: f64 = 20e6;

/// The flags of `echometer find-rate`.
#[derive(Debug, Args)]
pub(crate) struct FindRateFlags {
    /// The server
    #[arg(value_name = "ARM")]
    arm: String,

    /// What has to hold: a quantile of the latency and its limit, 'p99<200us', 'p99.9<=1ms', 'max<50ms'. Given again, all
    /// have to hold
    #[arg(long, value_name = "SLO", required = true, help_heading = "Search")]
    slo: Vec<Slo>,

    /// The lowest rate that is tried [default: 1k, or what a run of 10 s needs for the quantile]
    #[arg(long, value_name = "RATE", value_parser = units::rate, help_heading = "Search")]
    lowest: Option<f64>,

    /// The highest rate that is tried [default: until it fails]
    #[arg(long, value_name = "RATE", value_parser = units::rate, help_heading = "Search")]
    highest: Option<f64>,

    /// Blocks: each searches anew on a fresh server. An interval needs six
    #[arg(long, value_name = "N", default_value = "6", value_parser = units::count, help_heading = "Search")]
    blocks: u64,

    #[command(flatten)]
    load: LoadFlags,

    #[command(flatten)]
    machine: MachineFlags,

    #[command(flatten)]
    output: OutputFlags,
}

/// A search that can be carried out, but for what only the machine can say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FindRateSettings {
    /// The server.
    pub arm: Arm,
    /// What has to hold, all of it; one or more.
    pub slos: Vec<Slo>,
    /// The lowest rate that is tried, messages per second.
    pub lowest: f64,
    /// The highest that may be tried; not below the lowest.
    pub highest: f64,
    /// 1 to 200.
    pub blocks: usize,
    /// The load: an open loop whose rate is no matter. Its duration is the least of a run.
    pub load: Plan,
    /// Where both sides run, and what the machine is called.
    pub machine: MachineSettings,
    /// Where the results go, and how they are shown.
    pub output: OutputSettings,
}

impl FindRateFlags {
    /// What is meant by what was typed.
    ///
    /// # Errors
    /// A sentence for the user: a usage error.
    pub(crate) fn settings(self: Box<Self>) -> Result<FindRateSettings, String> {
        let arm = parse_arms(&[&self.arm])
            .map_err(|error| error.to_string())?
            .remove(0);
        let mut flags = self.load;
        if flags.rate.is_some() {
            return Err(
                "-R: the rate is what is searched for; --lowest and --highest bound it".to_owned(),
            );
        }
        let messages = self.slo.iter().map(Slo::messages_min).max().unwrap_or(0);
        let needed = messages as f64 / LOWEST_RUN.as_secs_f64();
        let lowest = self.lowest.unwrap_or(LOWEST.max(needed.ceil()));
        let highest = self.highest.unwrap_or(HIGHEST.max(lowest));
        if highest < lowest {
            return Err("--highest lies below --lowest".to_owned());
        }
        flags.rate = Some(lowest.into());
        let load = flags
            .plan(&load_defaults())
            .map_err(|PlanError { flag, reason }| format!("{flag}: {reason}"))?;
        if !(1..=BLOCKS_MAX).contains(&self.blocks) {
            return Err(format!(
                "--blocks: give 1 to {BLOCKS_MAX}; an interval needs 6"
            ));
        }
        Ok(FindRateSettings {
            arm,
            slos: self.slo,
            lowest,
            highest,
            blocks: self.blocks as usize,
            load,
            machine: self.machine.settings()?.without_priority(
                &[Priority::Rt],
                "the search loads the server until it is more than 80 % busy, where the kernel gives others their share in \
                 lumps of 50 ms: use nice",
            )?,
            output: self.output.settings(),
        })
    }
}

/// What a search loads with, where nothing else is asked for.
#[must_use]
pub(crate) fn load_defaults() -> Plan {
    Plan {
        connections: 50,
        message_size: 64,
        // A neighbour that takes a cpu for 5 ms and more spoils the p99 of a run, and two such runs decide a rate: so rather
        // short runs, of which a third decides, than a long one that is sure to meet one.
        duration: Duration::from_millis(500),
        warmup: Duration::from_millis(100),
        ..Plan::default()
    }
}

pub(crate) const EXAMPLES: &str = "\
Every run is an open loop, as long as its quantile needs: 100 messages above it.
Two equal runs of at most three decide a rate, so that one stall does not.

Examples:
  echometer find-rate --slo 'p99<200us' uring
  echometer find-rate --slo 'p99<200us' --slo 'p99.9<1ms' -c 500 -s 4KiB epoll
  echometer find-rate --slo 'p50<50us' --highest 200k 'mine=./srv {port}'

Exit codes: 0 ok (also where even the lowest rate fails), 1 could not do it,
2 usage, 3 measured but not valid, 130 cut short by a second signal.";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn typed(line: &str) -> Result<FindRateSettings, String> {
        let words =
            shell_words::split(&format!("echometer find-rate {line}")).expect("a test's line");
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::FindRate(flags) = cli.command else {
            panic!("it is find-rate")
        };
        flags.settings()
    }

    #[test]
    fn the_lowest_rate_is_one_whose_run_ends_soon() {
        let settings = typed("--slo 'p99<200us' uring").expect("valid");
        assert_eq!((settings.lowest, settings.blocks), (1_000.0, 6));
        assert!(settings.load.rate_per_s().is_some());
        let both = typed("--slo 'p99<200us' --slo 'p99.9<1ms' uring").expect("valid");
        assert_eq!((both.slos.len(), both.lowest), (2, 10_000.0));
        let rare = typed("--slo 'p99.9<1ms' uring").expect("valid");
        assert_eq!(rare.lowest, 10_000.0);
        let own = typed("--slo 'p99.9<1ms' --lowest 100 --highest 5k -c 7 uring").expect("valid");
        assert_eq!(
            (own.lowest, own.highest, own.load.connections),
            (100.0, 5_000.0, 7)
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, words) in [
            ("uring", "--slo"),
            ("--slo p99 uring", "p99<200us"),
            ("--slo 'p99<1ms' -R 5k uring", "-R: the rate is what"),
            (
                "--slo 'p99<1ms' --lowest 5k --highest 1k uring",
                "below --lowest",
            ),
            ("--slo 'p99<1ms' --blocks 0 uring", "--blocks"),
            ("--slo 'p99<1ms' uring epoll", "epoll"),
        ] {
            let error = typed(line).expect_err(line);
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
