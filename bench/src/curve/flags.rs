//! The flags of `echometer curve`, and what they mean.

use std::time::Duration;

use clap::Args;

use echometer_host::units;
use echometer_loadgen::{Plan, flags::LoadFlags, plan::PlanError};
use echometer_report::file::slo::Slo;

use crate::{
    flags::{MachineFlags, MachineSettings, OutputFlags, OutputSettings, margin},
    serve::arm::{Arm, parse_arms},
};

/// The most blocks.
const BLOCKS_MAX: u64 = 200;
/// The load generator has memory for a second of its schedule up to this rate; it may go beyond.
const EXPECTED_MAX: f64 = 300e3;
/// What has to hold up to the capacity, where nothing else is asked for.
const DEFAULT_SLO: &str = "p99<1ms";
/// The most rates.
const RATES_MAX: usize = 20;

/// The flags of `echometer curve`.
#[derive(Debug, Args)]
pub(crate) struct CurveFlags {
    /// What is measured; the first is the baseline. One is enough
    #[arg(value_name = "ARM", required = true, num_args = 1..)]
    arms: Vec<String>,

    /// The rates, instead of shares of the smallest capacity: 10k,50k,100k. No capacity is searched for then
    #[arg(long, value_name = "RATE,RATE", value_delimiter = ',', value_parser = units::rate, help_heading = "Curve")]
    rates: Vec<f64>,

    /// What makes the capacity: what has to hold besides that the server keeps up; may be given again [default: p99<1ms]
    #[arg(long, value_name = "SLO", help_heading = "Curve")]
    slo: Vec<Slo>,

    /// Shorter slices: a first look, in about a third of the time
    #[arg(long, help_heading = "Curve")]
    quick: bool,

    /// Blocks: each starts every server afresh and measures every rate of every arm. An interval needs six
    #[arg(long, value_name = "N", default_value = "6", value_parser = units::count, help_heading = "Curve")]
    blocks: u64,

    /// A smaller difference is of no practical use to you [default: 2%]
    #[arg(long, value_name = "SHARE", value_parser = margin, help_heading = "Curve")]
    margin: Option<f64>,

    #[command(flatten)]
    load: LoadFlags,

    #[command(flatten)]
    machine: MachineFlags,

    #[command(flatten)]
    output: OutputFlags,
}

/// A curve that can be measured, but for what only the machine can say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CurveSettings {
    /// One or more, the baseline first.
    pub arms: Vec<Arm>,
    /// Messages per second, ascending; empty where they follow from the capacities.
    pub rates: Vec<f64>,
    /// What an arm holds up to its capacity.
    pub slos: Vec<Slo>,
    /// 1 to 200.
    pub blocks: usize,
    /// How many slices each arm has at each rate in a block.
    pub cycles: u32,
    /// Half the width of the band in which a difference does not matter; a share.
    pub margin: f64,
    /// The load: an open loop whose rate is no matter. Its duration is the time that each arm is measured at each rate in a
    /// block, at the least; its warm-up that of each arm at each rate.
    pub load: Plan,
    /// Where both sides run, and what the machine is called.
    pub machine: MachineSettings,
    /// Where the results go, and how they are shown.
    pub output: OutputSettings,
}

impl CurveFlags {
    /// What is meant by what was typed.
    ///
    /// # Errors
    /// A sentence for the user: a usage error.
    pub(crate) fn settings(self: Box<Self>) -> Result<CurveSettings, String> {
        let arms = parse_arms(&self.arms).map_err(|error| error.to_string())?;
        if let Some(arm) = arms.iter().find(|arm| arm.spec.never_sleeps()) {
            return Err(format!(
                "arm '{}' never sleeps (--wait spin or sqpoll) and would burn the others' cpu in their slices: give it \
                 --wait hybrid:50us, or use `sweep --over rate=...`, which measures an open loop in whole runs",
                arm.name
            ));
        }
        let mut flags = self.load;
        if flags.rate.is_some() {
            return Err(
                "-R: a curve goes through many rates: name them with --rates 10k,50k".to_owned(),
            );
        }
        if flags
            .requests_per_connection
            .is_some_and(|count| count != 0)
            || flags.reconnect
        {
            return Err(
                "--requests-per-connection, --reconnect: a curve is measured on connections that stay".to_owned(),
            );
        }
        let mut rates = self.rates;
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        if RATES_MAX < rates.len() {
            return Err(format!("--rates: give {RATES_MAX} at the most"));
        }
        let most = rates.last().copied().unwrap_or(EXPECTED_MAX);
        flags.rate = Some(most.into());
        let load = flags
            .plan(&load_defaults(self.quick))
            .map_err(|PlanError { flag, reason }| format!("{flag}: {reason}"))?;
        if !(1..=BLOCKS_MAX).contains(&self.blocks) {
            return Err(format!(
                "--blocks: give 1 to {BLOCKS_MAX}; an interval needs 6"
            ));
        }
        let slos = match self.slo.is_empty() {
            true => vec![DEFAULT_SLO.parse()?],
            false => self.slo,
        };
        Ok(CurveSettings {
            arms,
            rates,
            slos,
            blocks: self.blocks as usize,
            cycles: if self.quick { 2 } else { 4 },
            margin: self.margin.unwrap_or(0.02),
            load,
            machine: self.machine.settings()?,
            output: self.output.settings(),
        })
    }
}

/// What a curve loads with, where nothing else is asked for: three arms take less than five minutes.
#[must_use]
pub(crate) fn load_defaults(quick: bool) -> Plan {
    let (duration, warmup) = if quick { (500, 50) } else { (1_400, 100) };
    Plan {
        connections: 50,
        message_size: 64,
        duration: Duration::from_millis(duration),
        warmup: Duration::from_millis(warmup),
        ..Plan::default()
    }
}

pub(crate) const EXAMPLES: &str = "\
The rates are 10, 25, 50, 75 and 90 % of the smallest capacity found, and each
arm's own capacity: the highest rate with which it keeps up, --slo holds and
the client is not the busier side.

Examples:
  echometer curve epoll uring                      about three minutes
  echometer curve epoll uring tokio --quick        a first look
  echometer curve --rates 10k,50k,100k epoll 'mine=./srv {port}'
  echometer curve --slo 'p99<200us' --slo 'p99.9<1ms' -c 500 -s 4KiB uring

Exit codes: 0 ok, 1 could not do it, 2 usage, 3 measured but not valid,
130 cut short by a second signal.";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn typed(line: &str) -> Result<CurveSettings, String> {
        let words = shell_words::split(&format!("echometer curve {line}")).expect("a test's line");
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Curve(flags) = cli.command else {
            panic!("it is curve")
        };
        flags.settings()
    }

    #[test]
    fn flags_arrive() {
        let usual = typed("epoll uring").expect("valid");
        assert_eq!((usual.arms.len(), usual.blocks, usual.cycles), (2, 6, 4));
        assert!(usual.rates.is_empty() && usual.load.rate_per_s().is_some());
        assert_eq!((usual.load.connections, usual.load.message_size), (50, 64));
        assert_eq!(usual.slos[0].to_string(), "p99<1ms");
        let two = typed("uring --slo 'p99<2ms' --slo 'p50<1ms'").expect("valid");
        assert_eq!(two.slos.len(), 2);
        let own =
            typed("uring --rates 50k,10k,50k -c 7 -d 2s -w 10ms --margin 5% --quick --blocks 7")
                .expect("valid");
        assert_eq!(own.rates, [10_000.0, 50_000.0]);
        assert_eq!(own.load.rate_per_s(), Some(50_000.0));
        assert_eq!((own.load.connections, own.blocks, own.cycles), (7, 7, 2));
        assert_eq!(own.load.duration, Duration::from_secs(2));
        assert!((own.margin - 0.05).abs() < 1e-12);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, words) in [
            ("", "<ARM>"),
            ("uring -R 5k", "--rates"),
            ("uring --rates 0", "rate"),
            ("uring --blocks 0", "--blocks"),
            ("epoll 'uring:--wait spin'", "never sleeps"),
            ("uring --requests-per-connection 5", "that stay"),
        ] {
            let error = typed(line).expect_err(line);
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
