//! The flags of `echometer compare`, and what they mean.

use std::time::Duration;

use clap::Args;

use echometer_host::units;
use echometer_loadgen::{
    Plan,
    flags::LoadFlags,
    plan::{Load, PlanError},
};
use echometer_report::file::{
    design::Design,
    metric::{COMPARED_ABOVE_MIN, Metric},
};

use crate::{
    flags::{MachineFlags, MachineSettings, OutputFlags, OutputSettings, margin, sleepers_only},
    serve::arm::{Arm, parse_arms},
};

/// The most blocks: beyond, a better machine helps more than more blocks.
const BLOCKS_MAX: usize = 200;

/// A run is not made longer than this of its own accord.
const RUN_MAX: Duration = Duration::from_secs(30);
/// The shortest slice of an open loop.
const OPEN_SLICE_MIN: Duration = Duration::from_millis(250);

/// The flags of `echometer compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareFlags {
    /// What is compared; the first is the baseline
    #[arg(value_name = "ARM", required = true, num_args = 1..)]
    arms: Vec<String>,

    #[command(flatten)]
    load: LoadFlags,

    /// Six short blocks instead of eight: a first look, in about twenty seconds
    #[arg(long, help_heading = "Comparison")]
    quick: bool,

    /// Blocks: each starts every server afresh. An interval needs six [default: 8; 6 with --quick and for runs]
    #[arg(long, value_name = "N", value_parser = units::count, help_heading = "Comparison")]
    blocks: Option<u64>,

    /// How the arms take turns [default: slices; runs for servers that never sleep, and with -R for those whose p99 is
    /// above 20 ms]
    #[arg(long, value_enum, help_heading = "Comparison")]
    design: Option<Design>,

    /// Length of a slice, at the least [default: 50ms; 250ms with -R]
    #[arg(long, value_name = "TIME", value_parser = units::duration, help_heading = "Comparison")]
    slice: Option<Duration>,

    /// A smaller difference is of no practical use to you [default: 2%]
    #[arg(long, value_name = "SHARE", value_parser = margin, help_heading = "Comparison")]
    margin: Option<f64>,

    /// The metric that decides [default: server_cpu_per_message; latency_p99 with -R]
    #[arg(long, value_name = "METRIC", value_enum, help_heading = "Comparison")]
    primary: Option<Metric>,

    /// Exit 4 where the primary metric stays undecided
    #[arg(long, help_heading = "Comparison")]
    decide: bool,

    /// Don't measure the floor, the kernel's own cost of an echo, beside the arms
    #[arg(long, help_heading = "Comparison")]
    no_floor: bool,

    #[command(flatten)]
    machine: MachineFlags,

    #[command(flatten)]
    output: OutputFlags,
}

/// A comparison that can be carried out, but for what only the machine can say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CompareSettings {
    /// Two or more, the baseline first.
    pub arms: Vec<Arm>,
    /// The load. Its workers are placed later; `duration` is the time that each arm is measured in a block.
    pub load: Plan,
    /// 1 to 200.
    pub blocks: usize,
    /// How the arms take turns.
    pub design: Design,
    /// Why so, where it is not the usual one.
    pub design_note: Option<String>,
    /// What to do where slices of an open loop turn out too short for the arms; `None` where they stay, come what may.
    pub instead: Option<RunsInstead>,
    /// The shortest slice; above 0.
    pub slice: Duration,
    /// Half the width of the band in which a difference does not matter; a share of 0 to below 1.
    pub margin: f64,
    /// The metric that decides.
    pub primary: Metric,
    /// Why that one, where it is not the usual one.
    pub primary_note: Option<String>,
    /// Whether an undecided primary metric is a failure.
    pub decide: bool,
    /// Whether the floor is measured beside the arms, where it can be.
    pub floor: bool,
    /// Where both sides run, and what the machine is called.
    pub machine: MachineSettings,
    /// Where the results go, and how they are shown.
    pub output: OutputSettings,
}

/// Whole runs instead of slices.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunsInstead {
    /// As of the settings.
    pub load: Plan,
    /// As of the settings.
    pub blocks: usize,
}

impl CompareSettings {
    /// The same by whole runs, because of `note`; `None` where slices stay, come what may.
    #[must_use]
    pub(crate) fn by_runs(&self, note: String) -> Option<Self> {
        let RunsInstead { load, blocks } = self.instead.clone()?;
        Some(Self {
            load,
            blocks,
            design: Design::Runs,
            design_note: Some(note),
            instead: None,
            ..self.clone()
        })
    }
}

impl CompareFlags {
    /// What is meant by what was typed.
    ///
    /// # Errors
    /// A sentence for the user: a usage error.
    pub(crate) fn settings(self: Box<Self>) -> Result<CompareSettings, String> {
        let arms = parse_arms(&self.arms).map_err(|error| error.to_string())?;
        if arms.len() < 2 {
            return Err(format!(
                "one arm is no comparison: name two or more, such as `compare {} uring`",
                self.arms[0]
            ));
        }
        let plan = |defaults: &Plan| {
            let plan = self.load.plan(defaults);
            plan.map_err(|PlanError { flag, reason }| format!("{flag}: {reason}"))
        };
        let load = plan(&load_defaults(self.quick))?;
        let open = load.load != Load::Closed;
        let machine = self.machine.settings()?;
        sleepers_only(&arms, machine.priority)?;
        let (design, design_note) = settle_design(self.design, &arms)?;
        let (primary, primary_note) = settle_primary(self.primary, open, &arms)?;
        if design == Design::Runs && self.slice.is_some() {
            return Err("--slice: whole runs have no slices: give their length with -d".to_owned());
        }
        let blocks = |design| {
            let few = self.quick || design == Design::Runs;
            let blocks = self.blocks.unwrap_or(if few { 6 } else { 8 });
            usize::try_from(blocks)
                .ok()
                .filter(|blocks| (1..=BLOCKS_MAX).contains(blocks))
                .ok_or_else(|| format!("--blocks: give 1 to {BLOCKS_MAX}; an interval needs 6"))
        };
        let seed = load.seed;
        let by = |defaults: Plan| {
            Ok::<Plan, String>(Plan {
                seed,
                ..plan(&defaults)?
            })
        };
        let rate_per_s = load.rate_per_s();
        let runs = || by(run_defaults(self.quick, rate_per_s, primary));
        let load = match design {
            Design::Slices if open => by(open_defaults(self.quick, rate_per_s, primary))?,
            Design::Slices => load,
            Design::Runs => runs()?,
        };
        let instead = match (design, self.design) {
            (Design::Slices, None) if open => Some(RunsInstead {
                load: runs()?,
                blocks: blocks(Design::Runs)?,
            }),
            _ => None,
        };
        let slice = self.slice.unwrap_or(match open {
            true => OPEN_SLICE_MIN,
            false => Duration::from_millis(50),
        });
        if slice.is_zero() {
            return Err(
                "--slice: 0 is too short to measure anything: give a time such as 50ms".to_owned(),
            );
        }
        Ok(CompareSettings {
            arms,
            load,
            blocks: blocks(design)?,
            design,
            design_note,
            instead,
            slice,
            margin: self.margin.unwrap_or(0.02),
            primary,
            primary_note,
            decide: self.decide,
            floor: !self.no_floor,
            machine,
            output: self.output.settings(),
        })
    }
}

/// What a comparison loads with, where nothing else is asked for. Two arms and eight blocks take about a minute.
#[must_use]
pub(crate) fn load_defaults(quick: bool) -> Plan {
    let (duration, warmup) = if quick { (1_000, 200) } else { (3_000, 300) };
    Plan {
        connections: 50,
        message_size: 64,
        duration: Duration::from_millis(duration),
        warmup: Duration::from_millis(warmup),
        ..Plan::default()
    }
}

/// What slices of an open loop of `rate_per_s` load with, where nothing else is asked for: two arms and eight blocks take a
/// minute and a half, or as long as the `primary` quantile needs.
fn open_defaults(quick: bool, rate_per_s: Option<f64>, primary: Metric) -> Plan {
    let (duration, warmup) = if quick { (1_000, 200) } else { (4_000, 400) };
    Plan {
        duration: long_enough(Duration::from_millis(duration), rate_per_s, primary),
        warmup: Duration::from_millis(warmup),
        ..load_defaults(quick)
    }
}

/// `usual`, or so long that the `primary` quantile can be compared at this rate, up to [`RUN_MAX`].
fn long_enough(usual: Duration, rate_per_s: Option<f64>, primary: Metric) -> Duration {
    let needed = rate_per_s.zip(primary.quantile()).map(|(rate, quantile)| {
        // A tenth more than needed on average: arrivals are random.
        let seconds = 1.1 * COMPARED_ABOVE_MIN as f64 / (1.0 - quantile) / rate;
        Duration::from_millis((seconds * 1e3).ceil().min(1e9) as u64)
    });
    needed.unwrap_or(usual).clamp(usual, RUN_MAX.max(usual))
}

/// What whole runs load with, where nothing else is asked for. Two arms and six blocks take about a minute, but with an
/// open loop of `rate_per_s` and a quantile as the `primary` metric a run is long enough to compare that quantile: up to
/// half a minute.
fn run_defaults(quick: bool, rate_per_s: Option<f64>, primary: Metric) -> Plan {
    let (duration, warmup) = if quick { (500, 200) } else { (2_000, 400) };
    Plan {
        duration: long_enough(Duration::from_millis(duration), rate_per_s, primary),
        warmup: Duration::from_millis(warmup),
        ..load_defaults(quick)
    }
}

/// Slices measure arms that rest while they are not loaded. The rest takes whole runs.
fn settle_design(typed: Option<Design>, arms: &[Arm]) -> Result<(Design, Option<String>), String> {
    let restless = arms.iter().find(|arm| arm.spec.never_sleeps());
    match (typed, restless) {
        (Some(Design::Slices), Some(arm)) => Err(format!(
            "--design slices: arm '{}' never sleeps (--wait spin or sqpoll) and would burn the others' cpu in their \
             slices: leave --design away (whole runs), or give the arm --wait hybrid:50us",
            arm.name,
        )),
        (Some(design), _) => Ok((design, None)),
        (None, Some(arm)) => {
            let note = format!(
                "{} never sleeps and could not rest while another is measured: whole runs instead of slices",
                arm.name
            );
            Ok((Design::Runs, Some(note)))
        }
        (None, None) => Ok((Design::Slices, None)),
    }
}

fn settle_primary(
    typed: Option<Metric>,
    open: bool,
    arms: &[Arm],
) -> Result<(Metric, Option<String>), String> {
    let remote = arms.iter().find(|arm| !arm.spec.is_local());
    match (typed, remote) {
        (Some(Metric::Rate), _) if open => Err(
            "--primary: in open loop -R sets the rate, and not the server: name another, such as latency_p99".to_owned(),
        ),
        (Some(Metric::ServerCpuPerMessage), Some(arm)) => Err(format!(
            "--primary: the CPU of arm '{}' is unknown, so server_cpu_per_message can't decide: name another",
            arm.name,
        )),
        (Some(metric), _) => Ok((metric, None)),
        (None, _) if open => Ok((Metric::LatencyP99, None)),
        (None, Some(arm)) => {
            let note = format!("the CPU of {} is unknown, so latency_p50 decides", arm.name);
            Ok((Metric::LatencyP50, Some(note)))
        }
        (None, None) => Ok((Metric::ServerCpuPerMessage, None)),
    }
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  echometer compare epoll uring                             takes about a minute
  echometer compare epoll uring --quick                     a first look
  echometer compare epoll uring -c 1000 -s 4KiB --blocks 12 another load, and surer
  echometer compare epoll uring -R 50k                      latency under load
  echometer compare uring 'big=uring:--buffer-size 64KiB'   one flag against another
  echometer compare epoll 'mine=./my-server {port}'         your own server, in any language

Exit codes: 0 ok, 1 could not do it, 2 usage, 3 measured but not valid,
4 undecided under --decide, 130 cut short by a second signal.";

/// What `words` behind `echometer compare` ask for; they come from a program of ours and not from a user.
///
/// # Errors
/// As the user would be told.
pub(crate) fn parse(words: &[&str]) -> Result<CompareSettings, String> {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        flags: CompareFlags,
    }
    let words = std::iter::once(&"compare").chain(words);
    let line = <Line as clap::Parser>::try_parse_from(words).map_err(|error| error.to_string())?;
    Box::new(line.flags).settings()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::Parser;

    use echometer_host::priority::Priority;

    use super::*;
    use crate::cli::{Cli, Command};

    fn typed(line: &str) -> Result<CompareSettings, String> {
        let words =
            shell_words::split(&format!("echometer compare {line}")).expect("a test's line");
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Compare(flags) = cli.command else {
            panic!("it is compare")
        };
        flags.settings()
    }

    #[test]
    fn the_command_is_well_formed() {
        Cli::parser().debug_assert();
    }

    #[test]
    fn the_defaults_are_a_minute_of_closed_loop_in_slices() {
        let settings = typed("epoll uring").expect("valid");
        assert_eq!(
            settings
                .arms
                .iter()
                .map(|arm| arm.name.as_str())
                .collect::<Vec<_>>(),
            ["epoll", "uring"]
        );
        let load = &settings.load;
        assert_eq!(
            (
                load.connections,
                load.message_size,
                load.pipeline,
                load.load
            ),
            (50, 64, 1, Load::Closed)
        );
        assert_eq!((settings.blocks, settings.design), (8, Design::Slices));
        assert_eq!(
            (settings.slice, settings.margin),
            (Duration::from_millis(50), 0.02)
        );
        assert_eq!(
            (settings.primary, settings.primary_note.as_deref()),
            (Metric::ServerCpuPerMessage, None)
        );
        let measured = load.duration * 2 * settings.blocks as u32;
        assert!((40..60).contains(&measured.as_secs()), "{measured:?}");
    }

    #[test]
    fn quick_changes_defaults_and_nothing_that_was_typed() {
        let quick = typed("epoll uring --quick").expect("valid");
        assert_eq!(
            (quick.blocks, quick.load.duration),
            (6, Duration::from_secs(1))
        );
        let own = typed("epoll uring --quick --blocks 7 -d 2s").expect("valid");
        assert_eq!((own.blocks, own.load.duration), (7, Duration::from_secs(2)));
    }

    #[test]
    fn flags_arrive() {
        let settings = typed(
            "epoll 'b=./b {port}' --priority rt -c 1000 -s 4KiB --pipeline 16 --seed 7 --blocks 12 --slice 20ms --margin 5% \
             --primary latency_p99 --decide --server-cpus 0,2-3 --client-cpus 1 --machine box --out here --json -q",
        )
        .expect("valid");
        assert_eq!(
            (settings.load.connections, settings.load.message_size),
            (1_000, 4_096)
        );
        assert_eq!((settings.load.pipeline, settings.load.seed), (16, 7));
        assert_eq!(
            (settings.blocks, settings.slice),
            (12, Duration::from_millis(20))
        );
        assert!((settings.margin - 0.05).abs() < 1e-12);
        assert_eq!(
            (settings.primary, settings.decide),
            (Metric::LatencyP99, true)
        );
        assert_eq!(settings.machine.server_cpus, "0,2-3".parse().ok());
        assert_eq!(settings.machine.client_cpus, "1".parse().ok());
        assert_eq!(settings.machine.priority, Priority::Rt);
        assert_eq!(
            (settings.machine.name.as_deref(), settings.output.out),
            (Some("box"), Some(PathBuf::from("here")))
        );
        assert!(settings.output.json && settings.output.quiet);
    }

    #[test]
    fn an_open_loop_is_compared_in_long_slices_and_by_its_tail() {
        let settings = typed("epoll uring -R 20k").expect("valid");
        assert_eq!((settings.design, settings.blocks), (Design::Slices, 8));
        assert_eq!(
            (settings.primary, settings.slice),
            (Metric::LatencyP99, Duration::from_millis(250))
        );
        assert_eq!(settings.load.duration, Duration::from_secs(4));
        // Where slices are too short, whole runs: a minute of them.
        let runs = settings.by_runs("slow".to_owned()).expect("it gives way");
        assert_eq!((runs.design, runs.blocks), (Design::Runs, 6));
        assert_eq!(runs.load.seed, settings.load.seed);
        let two_each = (runs.load.duration + runs.load.warmup) * 4 * runs.blocks as u32;
        assert!((50..65).contains(&two_each.as_secs()), "{two_each:?}");
        assert_eq!(runs.by_runs("again".to_owned()), None);
        let typed_so = typed("epoll uring -R 20k --design slices").expect("valid");
        assert_eq!((typed_so.design, typed_so.instead), (Design::Slices, None));
        let whole = typed("epoll uring -R 20k --design runs").expect("valid");
        assert_eq!((whole.design, whole.blocks), (Design::Runs, 6));
        let error = typed("epoll uring -R 20k --primary rate").expect_err("it is given");
        assert!(error.contains("-R sets the rate"), "{error}");
    }

    #[test]
    fn runs_are_long_enough_for_their_quantile_unless_told_otherwise() {
        let length = |line: &str| {
            typed(&format!("epoll uring {line}"))
                .expect(line)
                .load
                .duration
        };
        for (design, usual) in [("runs", 2), ("slices", 4)] {
            let length = |line: &str| length(&format!("--design {design} {line}"));
            assert_eq!(length("-R 20k"), Duration::from_secs(usual));
            // 11,000 messages have 110 above p99.
            assert_eq!(length("-R 1k"), Duration::from_secs(11));
            assert_eq!(length("-R 1k --quick"), Duration::from_secs(11));
            assert_eq!(
                length("-R 1k --primary latency_p50"),
                Duration::from_secs(usual)
            );
            assert_eq!(length("-R 1k -d 3s"), Duration::from_secs(3));
            assert_eq!(length("-R 10"), RUN_MAX);
        }
        assert_eq!(length("--design runs"), Duration::from_secs(2));
    }

    #[test]
    fn who_never_sleeps_goes_to_runs_and_it_is_said() {
        for arm in ["uring:--wait spin", "uring:--uring +sqpoll"] {
            let settings = typed(&format!("epoll 'busy={arm}'")).expect("valid");
            assert_eq!(settings.design, Design::Runs);
            assert_eq!(settings.primary, Metric::ServerCpuPerMessage);
            assert!(
                settings
                    .design_note
                    .is_some_and(|note| note.contains("busy never sleeps")),
                "{arm}"
            );
        }
        let usual = typed("epoll uring --design runs").expect("valid");
        assert_eq!((usual.design, usual.design_note), (Design::Runs, None));
    }

    #[test]
    fn a_server_of_unknown_cpu_is_decided_by_latency() {
        let settings = typed("epoll far=tcp:10.0.0.2:7777").expect("valid");
        assert_eq!(settings.primary, Metric::LatencyP50);
        assert!(
            settings
                .primary_note
                .is_some_and(|note| note.contains("far"))
        );
        let error = typed("epoll far=tcp:10.0.0.2:7777 --primary server_cpu_per_message")
            .expect_err("unknown");
        assert!(error.contains("'far'"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_cure() {
        let wrong = [
            ("", "<ARM>", "ARM"),
            ("epoll", "one arm", "two or more"),
            ("epoll a=", "names no server", "tcp:HOST:PORT"),
            ("a=epoll a=uring", "two arms are named 'a'", "NAME=SPEC"),
            ("epoll uring --blocks 0", "--blocks", "1 to 200"),
            ("epoll uring --blocks 1M", "--blocks", "1 to 200"),
            ("epoll uring --slice 0ms", "--slice", "50ms"),
            ("epoll uring --slice 50", "--slice", "unit is missing"),
            ("epoll uring --margin 2", "--margin", "2% or 0.02"),
            ("epoll uring --margin inf", "--margin", "2% or 0.02"),
            ("epoll uring --primary p99", "--primary", "latency_p99"),
            ("epoll uring --server-cpus x", "--server-cpus", "x"),
            ("epoll uring --machine a/b", "--machine", "without slashes"),
            ("epoll uring --machine ..", "--machine", "no dot"),
            ("epoll uring -c 0", "--connections", "1 or more"),
            ("epoll uring -d 3", "--duration", "unit is missing"),
            (
                "epoll 'uring:--wait spin' --design slices",
                "never sleeps",
                "hybrid:50us",
            ),
            ("epoll uring --design blocks", "--design", "runs"),
            ("epoll uring --priority fifo", "--priority", "rt"),
            (
                "epoll 'uring:--wait spin' --priority rt",
                "never sleeps",
                "--priority nice",
            ),
            (
                "epoll uring --design runs --slice 9ms",
                "--slice",
                "with -d",
            ),
        ];
        for (line, what, cure) in wrong {
            let error = typed(line).expect_err(line);
            assert!(
                error.contains(what) && error.contains(cure),
                "{line}: {error}"
            );
        }
    }

    #[test]
    fn margins_are_percentages_or_shares() {
        for (text, share) in [
            ("2%", 0.02),
            ("0.5 %", 0.005),
            ("0.02", 0.02),
            ("0", 0.0),
            ("99%", 0.99),
        ] {
            let read = margin(text).expect("valid");
            assert!((read - share).abs() < 1e-12, "{text}: {read}");
        }
        for text in ["", "%", "-1%", "100%", "1", "nan", "1e-3", "2 percent"] {
            assert!(margin(text).is_err(), "{text}");
        }
    }
}
