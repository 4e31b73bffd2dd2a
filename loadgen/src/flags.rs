//! The flags: what was typed, turned once into a valid [`Plan`]. Nobody further down sees a flag.
//!
//! [`LoadFlags`] is what every program that makes load understands (the bench flattens it into its own flags);
//! [`Cli`] adds what only `echometer-loadgen` has.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, ValueHint};

use echometer_host::{cpus::CpuList, units};

use crate::{
    fail_if::Threshold,
    plan::{Arrivals, Close, Engine, Load, OPEN_LOOP_PIPELINE, Plan, PlanError, Timestamps, Wait},
    sizes::{SizeMix, message_size},
    source::Sources,
};

/// Makes load on an echo server, and times it.
///
/// Open loop (-R) for any claim about latency under load: a message's latency counts from when it was due, whether or
/// not the client could send it then. Closed loop (without -R) finds throughput and the cost of a message.
#[derive(Clone, Debug, Parser)]
#[command(name = "echometer-loadgen", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// The server.
    #[arg(
        value_name = "ADDR",
        value_hint = ValueHint::Hostname,
        help = "The server: HOST:PORT, [v6]:PORT or unix:/path"
    )]
    pub target: String,

    /// What load is made.
    #[command(flatten)]
    pub load: LoadFlags,

    /// One worker thread per cpu, pinned to it: 1, 2-5, 0,4
    #[arg(long, value_name = "LIST", value_parser = cpu_list, conflicts_with = "threads", help_heading = "Client")]
    pub cpus: Option<CpuList>,

    /// Worker threads, free to move [default: 1]
    #[arg(long, value_name = "N", value_parser = positive_count, help_heading = "Client")]
    pub threads: Option<u32>,

    /// Who tells when a reply came. With the kernel's times too, `recv lag` shows how long replies waited for the client
    #[arg(
        long,
        value_name = "WHOSE",
        value_enum,
        default_value = "client",
        help_heading = "Client"
    )]
    pub timestamps: Timestamps,

    /// Length of one line of the interval series [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = positive_duration, help_heading = "Output")]
    pub interval: Option<Duration>,

    /// Exit 99 unless this holds: p99<200us, service.p99.9<1ms, rate>=50k, errors==0. May be given again
    #[arg(long, value_name = "EXPR", value_parser = Threshold::from_str, help_heading = "Output")]
    pub fail_if: Vec<Threshold>,

    /// Write run.json, run.hlog and run.hgrm into this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Output")]
    pub out: Option<PathBuf>,

    /// Print the run file (JSON) instead of the text
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Print the HDR percentile spectrum of the latency too
    #[arg(long, help_heading = "Output", conflicts_with = "json")]
    pub latency: bool,

    /// No progress; print only what is wrong
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,
}

/// The load that is made: shared by all programs that make any. What was not typed is `None`, so that each program
/// has its own defaults.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Load")]
pub struct LoadFlags {
    /// Connections, over all worker threads
    #[arg(short = 'c', long, value_name = "N", value_parser = positive_count)]
    pub connections: Option<u32>,

    /// Bytes in a message: 64, 4KiB; or a mix: 64:90%,4KiB:9%,64KiB:1%
    #[arg(short = 's', long, value_name = "SIZE", value_parser = SizeFlag::from_str)]
    pub size: Option<SizeFlag>,

    /// How long is measured: 10s, 500ms
    #[arg(short = 'd', long, value_name = "TIME", value_parser = positive_duration)]
    pub duration: Option<Duration>,

    /// Load before that, on the same connections, not recorded
    #[arg(short = 'w', long, value_name = "TIME", value_parser = units::duration)]
    pub warmup: Option<Duration>,

    /// Open loop: messages per second in total, whatever the replies do: 20k; or changing over the duration: 10k..100k.
    /// Without it closed loop
    #[arg(short = 'R', long, value_name = "RATE", value_parser = rates)]
    pub rate: Option<Rates>,

    /// How the due times of an open loop lie in time [default: poisson]
    #[arg(long, value_enum, requires = "rate")]
    pub arrivals: Option<Arrivals>,

    /// Closed loop: wait this long after an answer before the next message [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = units::duration, conflicts_with = "rate")]
    pub think: Option<Duration>,

    /// Messages in flight on each connection, at most [default: 1; 1,024 with -R]
    #[arg(long, value_name = "N", value_parser = positive_count)]
    pub pipeline: Option<u32>,

    /// Churn: connect, send this many messages, close, and begin again. 0: connections stay [default: 0]
    #[arg(long, value_name = "K", value_parser = any_count)]
    pub requests_per_connection: Option<u32>,

    /// Who closes a connection then, and how [default: fin]
    #[arg(long, value_enum, requires = "requests_per_connection")]
    pub close: Option<Close>,

    /// Connects per second at most, over all worker threads; 0: no limit [default: 0]
    #[arg(long, value_name = "RATE", value_parser = rate_or_none)]
    pub connect_rate: Option<f64>,

    /// Replace a connection that fails by a new one (with churn this is always done)
    #[arg(long)]
    pub reconnect: bool,

    /// Addresses to connect from, in turn: 127.0.0.2-127.0.0.40 [default: the kernel's choice; on loopback as many as
    /// the ports take]
    #[arg(long, value_name = "A-B", help_heading = "Client")]
    pub source: Option<Sources>,

    /// Compare every byte that comes back with what was sent
    #[arg(long)]
    pub verify: bool,

    /// Makes schedule and payload repeatable [default: from the clock]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// How the client moves its bytes [default: auto]
    #[arg(long, value_enum, help_heading = "Client")]
    pub engine: Option<Engine>,

    /// How the client waits [default: block; spin with -R]
    #[arg(long, value_enum, help_heading = "Client")]
    pub wait: Option<Wait>,

    /// Leave Nagle's algorithm on
    #[arg(long, help_heading = "Client")]
    pub nagle: bool,

    /// SO_SNDBUF of the client's sockets
    #[arg(long, value_name = "SIZE", value_parser = socket_buffer, help_heading = "Client")]
    pub sndbuf: Option<u32>,

    /// SO_RCVBUF of the client's sockets
    #[arg(long, value_name = "SIZE", value_parser = socket_buffer, help_heading = "Client")]
    pub rcvbuf: Option<u32>,
}

/// A rate, or a change from one to another, in messages per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// At the start.
    pub from_per_s: f64,
    /// At the end, where that is another.
    pub to_per_s: Option<f64>,
}

impl From<f64> for Rates {
    /// A rate that does not change.
    fn from(per_s: f64) -> Rates {
        Rates {
            from_per_s: per_s,
            to_per_s: None,
        }
    }
}

impl Cli {
    /// The plan that was asked for.
    ///
    /// # Errors
    /// A combination of flags that can't be carried out; a usage error.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let workers = match (&self.cpus, self.threads) {
            (Some(cpus), _) => cpus.iter().map(Some).collect(),
            (None, threads) => vec![None; threads.unwrap_or(1) as usize],
        };
        let defaults = Plan::default();
        let interval = self.interval.unwrap_or(defaults.interval);
        self.load.plan(&Plan {
            workers,
            interval,
            fail_if: self.fail_if.clone(),
            timestamps: self.timestamps,
            ..defaults
        })
    }
}

impl LoadFlags {
    /// What was typed, over `defaults`: with `-R` the pipeline and the way of waiting have defaults of their own.
    ///
    /// # Errors
    /// A combination of flags that can't be carried out; a usage error.
    pub fn plan(&self, defaults: &Plan) -> Result<Plan, PlanError> {
        let load = match self.rate {
            None => defaults.load,
            Some(rates) => Load::Open {
                rate_per_s: rates.from_per_s,
                arrivals: self.arrivals.unwrap_or(Arrivals::Poisson),
            },
        };
        let open = matches!(load, Load::Open { .. });
        let pipeline = if open {
            OPEN_LOOP_PIPELINE
        } else {
            defaults.pipeline
        };
        let wait = if open { Wait::Spin } else { defaults.wait };
        let (message_size, size_mix) = match &self.size {
            None => (defaults.message_size, defaults.size_mix.clone()),
            Some(SizeFlag::Fixed(size)) => (*size, None),
            Some(SizeFlag::Mix(mix)) => (mix.largest(), Some(mix.clone())),
        };
        let plan = Plan {
            connections: self.connections.unwrap_or(defaults.connections),
            message_size,
            size_mix,
            duration: self.duration.unwrap_or(defaults.duration),
            warmup: self.warmup.unwrap_or(defaults.warmup),
            load,
            ramp_to_per_s: self
                .rate
                .map_or(defaults.ramp_to_per_s, |rates| rates.to_per_s),
            think: self.think.unwrap_or(defaults.think),
            pipeline: self.pipeline.unwrap_or(pipeline),
            requests_per_connection: self
                .requests_per_connection
                .unwrap_or(defaults.requests_per_connection),
            close: self.close.unwrap_or(defaults.close),
            reconnect: self.reconnect || defaults.reconnect,
            connect_rate_per_s: self.connect_rate.unwrap_or(defaults.connect_rate_per_s),
            sources: self.source.or(defaults.sources),
            workers: defaults.workers.clone(),
            engine: self.engine.unwrap_or(defaults.engine),
            wait: self.wait.unwrap_or(wait),
            verify: self.verify,
            timestamps: defaults.timestamps,
            seed: self.seed.unwrap_or_else(seed_from_clock),
            fail_if: defaults.fail_if.clone(),
            interval: defaults.interval,
            nagle: self.nagle,
            sndbuf: self.sndbuf.or(defaults.sndbuf),
            rcvbuf: self.rcvbuf.or(defaults.rcvbuf),
        };
        plan.validate()?;
        Ok(plan)
    }
}

/// Writes `defaults` into the help of the flags of [`LoadFlags`] whose defaults differ from program to program.
#[must_use]
pub fn with_default_help(command: clap::Command, defaults: &Plan) -> clap::Command {
    let shown = [
        (
            "connections",
            units::show_count(u64::from(defaults.connections)),
        ),
        ("size", defaults.show_size()),
        ("duration", units::show_duration(defaults.duration)),
        ("warmup", units::show_duration(defaults.warmup)),
    ];
    shown.into_iter().fold(command, |command, (id, default)| {
        command.mut_arg(id, |arg| {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            arg.help(format!("{help} [default: {default}]"))
        })
    })
}

const EXAMPLES: &str = "\
Examples:
  echometer-loadgen 127.0.0.1:7777 -c 50 -s 64             closed loop: how fast can it go?
  echometer-loadgen 127.0.0.1:7777 -R 20k                  open loop: how long does a user wait?
  echometer-loadgen 127.0.0.1:7777 -R 20k --cpus 1 --out run    on a core of its own, with files

A --fail-if says what is to hold: [OF.]FIGURE OP VALUE, with OF latency (if left out), service,
queue, send_lag, recv_lag (--timestamps kernel), connect or first_echo; FIGURE a quantile (p50,
p99.9), min, mean or max; or rate, errors (connections), lost (messages) alone;
OP one of < <= > >= ==. A figure that is unknown does not hold.

Exit codes: 0 ok, 1 could not do it, 2 usage, 3 measured but not valid, 99 a --fail-if did not hold,
130 cut short by a second signal.";

/// A seed for those who named none: different from run to run, and written into the run file.
fn seed_from_clock() -> u64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    // Below 2^53, so that readers of JSON which know doubles only keep every digit.
    (now.as_nanos() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11
}

fn cpu_list(text: &str) -> Result<CpuList, String> {
    let cpus: CpuList = text.parse().map_err(|error| format!("{error}"))?;
    if cpus.is_empty() {
        Err("an empty list: name one cpu or more, such as 1 or 2-5".to_owned())
    } else {
        Ok(cpus)
    }
}

fn positive_count(text: &str) -> Result<u32, String> {
    match units::count(text)? {
        0 => Err("0 is too few: give 1 or more".to_owned()),
        count => u32::try_from(count).map_err(|_| "more than this program can hold".to_owned()),
    }
}

fn any_count(text: &str) -> Result<u32, String> {
    let count = units::count(text)?;
    u32::try_from(count).map_err(|_| "more than this program can hold".to_owned())
}

fn rate_or_none(text: &str) -> Result<f64, String> {
    if text.trim() == "0" {
        return Ok(0.0);
    }
    units::rate(text)
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match units::duration(text)? {
        Duration::ZERO => {
            Err("0 is too short to measure anything: give a time such as 10s".to_owned())
        }
        duration => Ok(duration),
    }
}

fn rates(text: &str) -> Result<Rates, String> {
    Ok(match text.split_once("..") {
        None => Rates::from(units::rate(text)?),
        Some((from, to)) => Rates {
            from_per_s: units::rate(from)?,
            to_per_s: Some(units::rate(to)?),
        },
    })
}

fn socket_buffer(text: &str) -> Result<u32, String> {
    match units::size(text)? {
        0 => Err("a socket needs a buffer: give a size such as 64KiB".to_owned()),
        size => u32::try_from(size)
            .ok()
            .filter(|size| *size <= 1 << 30)
            .ok_or_else(|| "at most 1 GiB".to_owned()),
    }
}

/// What `-s` takes: one size, or a mix.
#[derive(Clone, Debug, PartialEq)]
pub enum SizeFlag {
    /// All messages have this many bytes.
    Fixed(u32),
    /// A mix.
    Mix(SizeMix),
}

impl FromStr for SizeFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<SizeFlag, String> {
        if text.contains([':', ',']) {
            return text.parse().map(SizeFlag::Mix);
        }
        message_size(text).map(SizeFlag::Fixed)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn typed(text: &str) -> Result<Plan, String> {
        let words = std::iter::once("echometer-loadgen").chain(text.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        cli.plan().map_err(|error| error.to_string())
    }

    #[test]
    fn a_size_is_one_or_a_mix() {
        assert_eq!("4KiB".parse(), Ok(SizeFlag::Fixed(4096)));
        assert!(matches!("64:50%,4KiB:50%".parse(), Ok(SizeFlag::Mix(_))));
        for (text, reason) in [("0", "0 bytes"), ("65MiB", "64 MiB"), ("64,", "no share")] {
            let error = text.parse::<SizeFlag>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn the_command_is_well_formed() {
        with_default_help(Cli::command(), &Plan::default()).debug_assert();
    }

    #[test]
    fn closed_loop_is_the_default() {
        let plan = typed("[::1]:7777 -c 50 -s 4KiB -d 3s").unwrap();
        assert_eq!(
            (plan.connections, plan.message_size, plan.pipeline),
            (50, 4096, 1)
        );
        assert_eq!((plan.load, plan.wait), (Load::Closed, Wait::Block));
        assert_eq!(plan.duration, Duration::from_secs(3));
    }

    #[test]
    fn a_rate_brings_its_own_defaults() {
        let plan = typed("host:1 -R 50k").unwrap();
        assert_eq!(
            plan.load,
            Load::Open {
                rate_per_s: 50_000.0,
                arrivals: Arrivals::Poisson
            }
        );
        assert_eq!((plan.pipeline, plan.wait), (OPEN_LOOP_PIPELINE, Wait::Spin));
        let plan =
            typed("host:1 -R 50k --arrivals uniform --wait block --pipeline 2 --cpus 0,2-3 -c 3")
                .unwrap();
        assert_eq!(
            (plan.pipeline, plan.wait, plan.workers.len()),
            (2, Wait::Block, 3)
        );
    }

    #[test]
    fn churn_is_read() {
        let plan = typed(
            "host:1 --requests-per-connection 1 --close rst --connect-rate 2k --source 127.0.0.2-127.0.0.9",
        )
        .unwrap();
        assert_eq!((plan.requests_per_connection, plan.close), (1, Close::Rst));
        assert_eq!(plan.connect_rate_per_s, 2_000.0);
        assert_eq!(plan.sources.unwrap().count(), 8);
        assert!(plan.dials() && !typed("host:1").unwrap().dials());
        assert_eq!(
            typed("host:1 --connect-rate 0").unwrap().connect_rate_per_s,
            0.0
        );
    }

    #[test]
    fn mixes_ramps_and_thinking_are_read() {
        let plan = typed("host:1 -s 64:90%,4KiB:10% -R 10k..100k").unwrap();
        assert_eq!(plan.message_size, 4096);
        assert_eq!(plan.show_size(), "64 B (90 %) or 4 KiB (10 %)");
        assert_eq!(
            (plan.rate_per_s(), plan.ramp_to_per_s),
            (Some(10_000.0), Some(100_000.0))
        );
        let plan = typed("host:1 --think 5ms").unwrap();
        assert_eq!(plan.think, Duration::from_millis(5));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_flag() {
        let wrong = [
            ("-c 0", "--connections", "1 or more"),
            ("-s 0", "--size", "1 or more"),
            ("-R 0", "--rate", "closed loop"),
            ("-d 0s", "--duration", "10s"),
            ("-d 10", "--duration", "10s"),
            ("--engine nope", "--engine", "epoll"),
            ("--threads 9 -c 8", "--threads", "raise -c"),
            ("--arrivals uniform", "--rate", "required"),
            ("-s 65MiB", "-s", "64 MiB"),
            ("--cpus x", "--cpus", "x"),
            ("--pipeline 2M", "--pipeline", "at most"),
            ("--source 1-2", "--source", "127.0.0.2-127.0.0.40"),
            ("--fail-if p99<200", "--fail-if", "unit is missing"),
            ("--fail-if p99", "--fail-if", "no comparison"),
            ("-R 10k..", "--rate", "500, 20k"),
            ("-R 10k --think 1ms", "--think", "cannot be used"),
            ("-s 64:90%", "--size", "90 %"),
            ("--close rst", "--requests-per-connection", "required"),
            (
                "--requests-per-connection 1 --close client",
                "--close",
                "fin",
            ),
        ];
        for (flags, flag, cure) in wrong {
            let error = typed(&format!("host:1 {flags}")).unwrap_err();
            assert!(
                error.contains(flag) && error.contains(cure),
                "{flags}: {error}"
            );
        }
    }
}
