//! The flags of `echometer sweep`, and what they mean.

use std::time::Duration;

use clap::Args;

use echometer_host::units;
use echometer_loadgen::{
    Plan,
    flags::LoadFlags,
    plan::{Load, PlanError},
};
use echometer_report::file::metric::Metric;

use crate::{
    flags::{MachineFlags, MachineSettings, OutputFlags, OutputSettings, margin, sleepers_only},
    levels::{Axis, Key, parse_axes},
    serve::arm::{Arm, parse_arms},
};

/// The most blocks: beyond, a better machine helps more than more blocks.
const BLOCKS_MAX: u64 = 200;

/// The flags of `echometer sweep`.
#[derive(Debug, Args)]
pub(crate) struct SweepFlags {
    /// What is measured; the first is the baseline. Or a job file (job.toml)
    #[arg(value_name = "ARM", required = true, num_args = 1..)]
    arms: Vec<String>,

    /// What is varied: KEY=V,V; twice for two keys. Values with commas are separated by semicolons
    #[arg(long, value_name = "KEY=V,V", required = true, help_heading = "Sweep")]
    over: Vec<String>,

    /// Print every command and the time that it will take, and do nothing
    #[arg(long, help_heading = "Sweep")]
    dry_run: bool,

    /// Six short blocks: a first look
    #[arg(long, help_heading = "Sweep")]
    quick: bool,

    /// Blocks: each measures every cell once. An interval needs six [default: 8]
    #[arg(long, value_name = "N", value_parser = units::count, help_heading = "Sweep")]
    blocks: Option<u64>,

    /// Length of a slice of a closed loop, at the least [default: 50ms]
    #[arg(long, value_name = "TIME", value_parser = units::duration, help_heading = "Sweep")]
    slice: Option<Duration>,

    /// A smaller difference is of no practical use to you [default: 2%]
    #[arg(long, value_name = "SHARE", value_parser = margin, help_heading = "Sweep")]
    margin: Option<f64>,

    /// The metric that decides [default: server_cpu_per_message; latency_p99 with -R or rate; latency_p50 over pinning]
    #[arg(long, value_name = "METRIC", value_enum, help_heading = "Sweep")]
    primary: Option<Metric>,

    /// Exit 4 where the primary metric stays undecided
    #[arg(long, help_heading = "Sweep")]
    decide: bool,

    #[command(flatten)]
    load: LoadFlags,

    #[command(flatten)]
    machine: MachineFlags,

    #[command(flatten)]
    output: OutputFlags,
}

/// A sweep that can be carried out, but for what only the machine can say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SweepSettings {
    /// One or more, the baseline first.
    pub arms: Vec<Arm>,
    /// One or two keys.
    pub axes: Vec<Axis>,
    /// Whether it is only to be shown what would be done.
    pub dry_run: bool,
    /// The load, before any level changes it. Its workers are placed later.
    pub load: Plan,
    /// 1 to 200.
    pub blocks: usize,
    /// The shortest slice; above 0.
    pub slice: Duration,
    /// Half the width of the band in which a difference does not matter; a share of 0 to below 1.
    pub margin: f64,
    /// The metric that decides.
    pub primary: Metric,
    /// Whether an undecided primary metric is a failure.
    pub decide: bool,
    /// What to know of these settings.
    pub notes: Vec<String>,
    /// Where both sides run, and what the machine is called.
    pub machine: MachineSettings,
    /// Where the results go, and how they are shown.
    pub output: OutputSettings,
}

impl SweepFlags {
    /// What is meant by what was typed.
    ///
    /// # Errors
    /// A sentence for the user: a usage error.
    pub(crate) fn settings(self: Box<Self>) -> Result<SweepSettings, String> {
        let arms = parse_arms(&self.arms).map_err(|error| error.to_string())?;
        let axes = parse_axes(&self.over)?;
        let varies = |key: Key| axes.iter().any(|axis| axis.key == key);
        for (key, typed, flag) in [
            (Key::Connections, self.load.connections.is_some(), "-c"),
            (Key::Size, self.load.size.is_some(), "-s"),
            (Key::Pipeline, self.load.pipeline.is_some(), "--pipeline"),
            (Key::Rate, self.load.rate.is_some(), "-R"),
        ] {
            if typed && varies(key) {
                return Err(format!(
                    "{flag}: --over {key} varies that already: leave one of them away"
                ));
            }
        }
        let mut flags = self.load;
        let open = flags.rate.is_some() || varies(Key::Rate);
        if varies(Key::Rate) {
            // For the defaults that an open loop brings; every level sets its own.
            flags.rate = Some(1_000.0.into());
        }
        let load = flags
            .plan(&load_defaults(self.quick, open))
            .map_err(|PlanError { flag, reason }| format!("{flag}: {reason}"))?;
        let machine = self.machine.settings()?;
        sleepers_only(&arms, machine.priority)?;
        let placed = machine.server_cpus.is_some() || machine.client_cpus.is_some();
        if varies(Key::Pinning) && placed {
            return Err(
                "--over pinning says where both sides run: leave --server-cpus and --client-cpus away"
                    .to_owned(),
            );
        }
        if varies(Key::Cpus) && machine.server_cpus.is_some() {
            return Err(
                "--over cpus says where the server runs: leave --server-cpus away".to_owned(),
            );
        }
        let slice = self.slice.unwrap_or(Duration::from_millis(50));
        if slice.is_zero() {
            return Err(
                "--slice: 0 is too short to measure anything: give a time such as 50ms".to_owned(),
            );
        }
        let remote = arms.iter().find(|arm| !arm.spec.is_local());
        let mut notes = Vec::new();
        let primary = match (self.primary, remote) {
            (Some(Metric::Rate), _) if open => {
                return Err(
                    "--primary: in open loop -R sets the rate, and not the server: name another, such as latency_p99"
                        .to_owned(),
                );
            }
            (Some(Metric::ServerCpuPerMessage), Some(arm)) => {
                return Err(format!(
                    "--primary: the CPU of arm '{}' is unknown, so server_cpu_per_message can't decide: name another",
                    arm.name
                ));
            }
            (Some(metric), _) => metric,
            (None, _) if open => Metric::LatencyP99,
            (None, _) if varies(Key::Pinning) => Metric::LatencyP50,
            (None, Some(arm)) => {
                notes.push(format!(
                    "the CPU of {} is unknown, so latency_p50 decides",
                    arm.name
                ));
                Metric::LatencyP50
            }
            (None, None) => Metric::ServerCpuPerMessage,
        };
        let blocks = self.blocks.unwrap_or(if self.quick { 6 } else { 8 });
        if !(1..=BLOCKS_MAX).contains(&blocks) {
            return Err(format!(
                "--blocks: give 1 to {BLOCKS_MAX}; an interval needs 6"
            ));
        }
        Ok(SweepSettings {
            arms,
            axes,
            dry_run: self.dry_run,
            load,
            blocks: blocks as usize,
            slice,
            margin: self.margin.unwrap_or(0.02),
            primary,
            decide: self.decide,
            notes,
            machine,
            output: self.output.settings(),
        })
    }
}

/// What a sweep loads with, where nothing else is asked for.
#[must_use]
pub(crate) fn load_defaults(quick: bool, open: bool) -> Plan {
    let (duration, warmup) = match (quick, open) {
        (true, false) => (400, 100),
        (true, true) => (1_000, 200),
        (false, false) => (1_000, 200),
        (false, true) => (3_000, 500),
    };
    let load = match open {
        true => Plan::default().load,
        false => Load::Closed,
    };
    Plan {
        connections: 50,
        message_size: 64,
        duration: Duration::from_millis(duration),
        warmup: Duration::from_millis(warmup),
        load,
        ..Plan::default()
    }
}

pub(crate) const EXAMPLES: &str = "\
Keys: connections size pipeline rate (the load); backlog buffer-size wait uring
server-threads (flags of our server; a command takes them as {backlog}, {wait}
and so on); cpus (the server's); pinning (auto, or unpinned same-cpu smt
same-l3 other-l3 other-node other-cpu).

Examples:
  echometer sweep --over connections=1,50,1000 epoll uring
  echometer sweep --over 'uring=+bundle;-bundle;-direct' uring
  echometer sweep --over pinning=auto uring
  echometer sweep --over rate=10k,20k,40k --over size=64,4KiB uring
  echometer sweep results/.../sweep-001/job.toml

Exit codes: 0 ok, 1 could not do it, 2 usage, 3 measured but not valid,
4 undecided under --decide, 130 cut short by a second signal.";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn typed(line: &str) -> Result<SweepSettings, String> {
        let words = shell_words::split(&format!("echometer sweep {line}")).expect("a test's line");
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Sweep(flags) = cli.command else {
            panic!("it is sweep")
        };
        flags.settings()
    }

    #[test]
    fn one_arm_is_enough() {
        let settings = typed("--over connections=1,50 uring").expect("valid");
        assert_eq!((settings.arms.len(), settings.axes.len()), (1, 1));
        assert_eq!(settings.primary, Metric::ServerCpuPerMessage);
        assert_eq!(settings.blocks, 8);
        assert_eq!(settings.load.duration, Duration::from_secs(1));
    }

    #[test]
    fn what_is_varied_decides_what_is_looked_at() {
        let pinning = typed("--over pinning=auto uring").expect("valid");
        assert_eq!(pinning.primary, Metric::LatencyP50);
        let rate = typed("--over rate=1k,2k uring").expect("valid");
        assert_eq!(rate.primary, Metric::LatencyP99);
        assert!(rate.load.rate_per_s().is_some());
        let remote = typed("--over size=1,2 tcp:h:1").expect("valid");
        assert_eq!(
            (remote.primary, remote.notes.len()),
            (Metric::LatencyP50, 1)
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, words) in [
            ("uring", "--over"),
            ("--over size=1,2 -s 3 uring", "-s: --over size varies that"),
            (
                "--over pinning=auto --client-cpus 1 uring",
                "leave --server-cpus",
            ),
            ("--over cpus=0 --server-cpus 1 uring", "leave --server-cpus"),
            ("--over size=1,2 --blocks 0 uring", "--blocks"),
            (
                "--over rate=1k,2k --primary rate uring",
                "--primary: in open loop -R sets the rate",
            ),
            ("--over size=1,2 --slice 0s uring", "--slice"),
        ] {
            let error = typed(line).expect_err(line);
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
