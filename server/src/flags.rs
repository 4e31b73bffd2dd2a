//! The command line: what was typed, and what it means. Nobody else sees a flag.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use echometer_host::address::Address;
use echometer_host::cpus::{self, CpuList};

use crate::config::{Accept, Config, EngineChoice, OWED_MAX_DEFAULT};
use crate::delay::Delay;
use crate::engine::{ENGINES, Engine};
use crate::wait::Wait;
use echometer_host::units;

/// An echo server to measure against: one pinned worker per cpu, everything that it does counted.
#[derive(Debug, Parser)]
#[command(name = "echometer-server", version, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Once every worker accepts, one line on stdout says what runs, and where; logs go to stderr.
SIGTERM or Ctrl-C: stops accepting, flushes, lets peers read to their end, exits 0. A second one exits at once, 130.
Exit codes: 0 stopped in order, 1 could not serve, 2 usage, 130 cut short.

Examples:
  echometer-server --engine uring --cpus 0
  echometer-server --listen [::1]:0 --engine epoll --threads 2
  echometer-server --delay freeze:200ms/2s        a known truth to check a load generator against")]
pub struct Flags {
    #[command(subcommand)]
    command: Option<Command>,

    /// Where to listen: v4 or v6 with a port (0 picks one), unix:/path, or unix:@name (no file).
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:7777",
        help_heading = "Serving"
    )]
    listen: Address,

    /// How bytes are moved. `auto` takes the best one that this machine allows.
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = engine, help_heading = "Serving")]
    engine: EngineChoice,

    /// One worker on each of these cpus, pinned. Default: all cpus that this process may use.
    #[arg(
        long,
        value_name = "LIST",
        conflicts_with = "threads",
        help_heading = "Serving"
    )]
    cpus: Option<CpuList>,

    /// That many workers, not pinned.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Serving")]
    threads: Option<u16>,

    /// Connections that may wait to be accepted, on each listener (the kernel caps it at net.core.somaxconn).
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(0..=0x7fff_ffff), help_heading = "Serving")]
    backlog: u32,

    /// A listener per worker (reuseport: spread by the kernel), or one for all (shared: the next free worker takes it).
    #[arg(long, value_name = "HOW", default_value = "reuseport", value_parser = accept, help_heading = "Serving")]
    accept: Accept,

    /// Take v4 connections too on a v6 address such as [::]:7777.
    #[arg(long, help_heading = "Serving")]
    dual_stack: bool,

    /// What a worker does between messages: block (sleep), spin (never sleep), or hybrid:50us (spin that long first).
    #[arg(
        long,
        value_name = "HOW",
        default_value = "block",
        help_heading = "Serving"
    )]
    wait: Wait,

    /// Write the counters to this file (JSON, echometer.stats/1) at exit.
    #[arg(long, value_name = "FILE", help_heading = "Serving")]
    stats: Option<PathBuf>,

    /// Serve the counters for Prometheus at http://ADDRESS/metrics (port 0 picks one; the log says which).
    #[arg(long, value_name = "ADDRESS", value_parser = metrics_address, help_heading = "Serving")]
    metrics: Option<SocketAddr>,

    /// How long a stop waits for peers to read what they are owed and close.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = drain_timeout, help_heading = "Serving")]
    drain_timeout: Duration,

    /// Bytes received at once. Default: the engine's choice.
    #[arg(long, value_name = "SIZE", value_parser = buffer_size, help_heading = "Limits")]
    buffer_size: Option<u32>,

    /// Receive buffers per worker, for an engine with a pool of them. Default: the engine's choice.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32768), help_heading = "Limits")]
    buffers: Option<u32>,

    /// Connections open at once; one more is accepted, closed at once and counted.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits")]
    max_connections: Option<u32>,

    /// Close a connection on which nothing moves for this long. 0: never.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = idle_timeout, help_heading = "Limits")]
    idle_timeout: IdleTimeout,

    /// Leave Nagle's algorithm on (default: TCP_NODELAY).
    #[arg(long, help_heading = "Sockets")]
    nagle: bool,

    /// SO_SNDBUF of each connection. Default: the kernel's autotuning.
    #[arg(long, value_name = "SIZE", value_parser = socket_buffer, help_heading = "Sockets")]
    sndbuf: Option<usize>,

    /// SO_RCVBUF of each connection. Default: the kernel's autotuning.
    #[arg(long, value_name = "SIZE", value_parser = socket_buffer, help_heading = "Sockets")]
    rcvbuf: Option<usize>,

    /// A known slowness: none, fixed:1ms, exp:1ms, freeze:200ms/2s or busy:20us.
    #[arg(
        long,
        value_name = "KIND",
        default_value = "none",
        help_heading = "Experiments"
    )]
    delay: Delay,

    /// Features of the uring engine to switch on or off, as in +bundle,-direct.
    #[arg(long, value_name = "LIST", allow_hyphen_values = true, value_parser = switches, help_heading = "Experiments")]
    uring: Option<Switches>,
}

/// `--idle-timeout` as typed. (An `Option` here would mean to clap that the flag itself may be absent.)
#[derive(Debug, Clone, Copy)]
struct IdleTimeout(Option<Duration>);

/// `--uring` as typed, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Switches(Vec<(bool, String)>);

/// Flags that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FlagsError {
    /// They contradict each other.
    #[error("{0}")]
    Usage(String),
    /// The machine would not say which cpus there are.
    #[error(
        "cannot read which cpus this process may use: {0}; name them with --cpus, or use --threads"
    )]
    Cpus(std::io::Error),
}

/// What else than serving.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub enum Command {
    /// Say what io_uring offers on this kernel, and what would be used
    #[command(after_help = "\
Exit codes: 0 a sound ring can be had here, 1 none can, or it corrupts streams, 2 usage.

Examples:
  echometer-server probe
  echometer-server probe --json | jq .features")]
    Probe {
        /// As JSON on stdout.
        #[arg(long)]
        json: bool,
    },
}

impl Flags {
    /// What is asked for instead of serving, if anything.
    pub fn subcommand(&self) -> Option<Command> {
        self.command
    }

    /// Where the counters are to be written at exit.
    pub fn stats(&self) -> Option<PathBuf> {
        self.stats.clone()
    }

    /// What the flags mean.
    ///
    /// # Errors
    /// [`FlagsError`]: what clap could not see by looking at one flag alone.
    pub fn into_config(self) -> Result<Config, FlagsError> {
        let uring = self.uring.map(|switches| switches.0).unwrap_or_default();
        if let EngineChoice::Named(name) = &self.engine
            && name != "uring"
            && !uring.is_empty()
        {
            return Err(FlagsError::Usage(format!(
                "--uring switches features of the engine uring, not of {name}: drop it, or use --engine uring"
            )));
        }
        if self.dual_stack && !matches!(self.listen, Address::Tcp(SocketAddr::V6(_))) {
            return Err(FlagsError::Usage(format!(
                "--dual-stack needs a v6 address to listen on, not {}: use --listen [::]:7777, or drop it",
                self.listen
            )));
        }
        let workers = match (self.cpus, self.threads) {
            (Some(cpus), _) => cpus.iter().map(Some).collect(),
            (None, Some(threads)) => vec![None; usize::from(threads)],
            (None, None) => cpus::allowed()
                .map_err(FlagsError::Cpus)?
                .iter()
                .map(Some)
                .collect(),
        };
        Ok(Config {
            listen: self.listen,
            engine: self.engine,
            workers,
            backlog: self.backlog,
            accept: self.accept,
            dual_stack: self.dual_stack,
            wait: self.wait,
            buffer_size: self.buffer_size,
            buffers: self.buffers,
            connections_max: self.max_connections,
            owed_max: OWED_MAX_DEFAULT,
            idle_timeout: self.idle_timeout.0,
            drain_timeout: self.drain_timeout,
            delay: self.delay,
            nodelay: !self.nagle,
            sndbuf: self.sndbuf,
            rcvbuf: self.rcvbuf,
            metrics: self.metrics,
            uring,
        })
    }
}

fn engine(text: &str) -> Result<EngineChoice, String> {
    match text {
        "auto" => Ok(EngineChoice::Auto),
        _ if Engine::named(text).is_some() => Ok(EngineChoice::Named(text.into())),
        _ => {
            let names: Vec<_> = ENGINES.iter().map(|engine| engine.name).collect();
            Err(format!("there are auto, {}", names.join(", ")))
        }
    }
}

fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse() {
        Ok(Address::Tcp(address)) => Ok(address),
        Ok(Address::Unix(_)) => Err("Prometheus comes by TCP: write 127.0.0.1:9464".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn accept(text: &str) -> Result<Accept, String> {
    match text {
        "reuseport" => Ok(Accept::ReusePort),
        "shared" => Ok(Accept::Shared),
        _ => Err("there are reuseport, shared".into()),
    }
}

fn drain_timeout(text: &str) -> Result<Duration, String> {
    time_within(text, Duration::ZERO, Duration::from_secs(3600))
}

fn idle_timeout(text: &str) -> Result<IdleTimeout, String> {
    // No other time is the same in all units.
    if text == "0" || units::duration(text)?.is_zero() {
        return Ok(IdleTimeout(None));
    }
    let day = Duration::from_secs(24 * 3600);
    time_within(text, Duration::from_millis(1), day).map(|time| IdleTimeout(Some(time)))
}

fn time_within(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let time = units::duration(text)?;
    if min <= time && time <= max {
        Ok(time)
    } else {
        Err(format!("it may be {min:?} to {max:?}"))
    }
}

fn buffer_size(text: &str) -> Result<u32, String> {
    size_within(text, 1, 1 << 30).map(|bytes| bytes as u32)
}

fn socket_buffer(text: &str) -> Result<usize, String> {
    // The kernel takes an int and doubles it.
    size_within(text, 1, (i32::MAX / 2) as u64).map(|bytes| bytes as usize)
}

fn size_within(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let bytes = units::size(text)?;
    if min <= bytes && bytes <= max {
        Ok(bytes)
    } else {
        Err(format!("it may be {min} to {max} bytes"))
    }
}

fn switches(text: &str) -> Result<Switches, String> {
    let switch = |item: &str| {
        let (on, name) = match (item.strip_prefix('+'), item.strip_prefix('-')) {
            (Some(name), _) => (true, name),
            (_, Some(name)) => (false, name),
            _ => {
                return Err(format!(
                    "`{item}` needs + or - before it, as in +bundle,-direct"
                ));
            }
        };
        if name.is_empty() {
            return Err(format!("`{item}` names no feature"));
        }
        Ok((on, name.to_owned()))
    };
    text.split(',')
        .map(switch)
        .collect::<Result<_, _>>()
        .map(Switches)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(args: &[&str]) -> Result<Flags, clap::Error> {
        Flags::try_parse_from(std::iter::once(&"echometer-server").chain(args))
    }

    fn config(args: &[&str]) -> Config {
        parse(args)
            .expect("these parse")
            .into_config()
            .expect("these mean something")
    }

    #[test]
    fn the_command_is_sound() {
        Flags::command().debug_assert();
    }

    #[test]
    fn no_flags_mean_a_pinned_worker_for_each_cpu() {
        let config = config(&[]);
        assert_eq!(config.listen.to_string(), "127.0.0.1:7777");
        let allowed = cpus::allowed().expect("a mask");
        assert_eq!(config.workers, allowed.iter().map(Some).collect::<Vec<_>>());
        assert!(config.nodelay);
        assert_eq!((config.wait, config.idle_timeout), (Wait::Block, None));
    }

    #[test]
    fn flags_mean_what_they_say() {
        let config = config(&[
            "--listen",
            "[::1]:0",
            "--engine",
            "epoll",
            "--threads",
            "3",
            "--backlog",
            "16",
            "--buffer-size",
            "4KiB",
            "--buffers",
            "512",
            "--max-connections",
            "7",
            "--nagle",
            "--sndbuf",
            "64KiB",
            "--rcvbuf",
            "65536",
            "--drain-timeout",
            "250ms",
            "--delay",
            "fixed:1ms",
            "--accept",
            "shared",
            "--wait",
            "hybrid:50us",
            "--idle-timeout",
            "1.5s",
            "--dual-stack",
            "--metrics",
            "127.0.0.1:9464",
        ]);
        assert_eq!(config.listen.to_string(), "[::1]:0");
        assert_eq!(config.engine, EngineChoice::Named("epoll".into()));
        assert_eq!(config.workers, [None; 3]);
        assert_eq!(
            (config.backlog, config.buffer_size, config.buffers),
            (16, Some(4096), Some(512))
        );
        assert_eq!(config.connections_max, Some(7));
        assert!(!config.nodelay);
        assert_eq!((config.sndbuf, config.rcvbuf), (Some(65536), Some(65536)));
        assert_eq!(config.drain_timeout, Duration::from_millis(250));
        assert_eq!((config.accept, config.dual_stack), (Accept::Shared, true));
        assert_eq!(config.metrics, "127.0.0.1:9464".parse().ok());
        let scoped = metrics_address("[fe80::1%lo]:9464").map(|address| address.to_string());
        assert_eq!(scoped.as_deref(), Ok("[fe80::1%1]:9464"));
        assert!(metrics_address("unix:/x").is_err() && metrics_address("localhost:1").is_err());
        let spin = Duration::from_micros(50);
        assert_eq!(config.wait, Wait::Hybrid { spin });
        assert_eq!(config.idle_timeout, Some(Duration::from_millis(1500)));
        assert_eq!(
            config.delay,
            Delay::Fixed {
                delay_ns: 1_000_000
            }
        );
    }

    #[test]
    fn cpus_are_workers() {
        assert_eq!(
            config(&["--cpus", "0,2-3"]).workers,
            [Some(0), Some(2), Some(3)]
        );
    }

    #[test]
    fn switches_may_begin_with_a_minus() {
        let config = config(&["--uring", "-direct,+sqpoll"]);
        assert_eq!(
            config.uring,
            [(false, "direct".into()), (true, "sqpoll".into())]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (args, words) in [
            (&["--engine", "nope"][..], &["--engine", "nope", "auto"][..]),
            (&["--listen", "127.0.0.1"], &["--listen", "port"]),
            (&["--cpus", "0,x"], &["--cpus", "x"]),
            (&["--cpus", "0", "--threads", "1"], &["--cpus", "--threads"]),
            (&["--threads", "0"], &["--threads", "0"]),
            (&["--buffer-size", "4kib"], &["--buffer-size", "KiB"]),
            (&["--buffer-size", "0"], &["--buffer-size", "1 to"]),
            (&["--drain-timeout", "5"], &["--drain-timeout", "unit"]),
            (&["--delay", "slow"], &["--delay", "freeze:200ms/2s"]),
            (&["--uring", "bundle"], &["--uring", "+ or -"]),
            (&["--accept", "both"], &["--accept", "reuseport, shared"]),
            (&["--wait", "hybrid"], &["--wait", "hybrid:50us"]),
            (&["--idle-timeout", "5"], &["--idle-timeout", "unit"]),
            (&["--idle-timeout", "1us"], &["--idle-timeout", "1ms to"]),
        ] {
            let text = parse(args).expect_err("wrong").to_string();
            for word in words {
                assert!(text.contains(word), "{args:?}: `{word}` is not in: {text}");
            }
        }
    }

    #[test]
    fn a_dual_stack_needs_a_v6_address() {
        let flags = parse(&["--listen", "127.0.0.1:0", "--dual-stack"]).expect("right alone");
        assert!(
            matches!(flags.into_config(), Err(FlagsError::Usage(text)) if text.contains("[::]:7777"))
        );
    }

    #[test]
    fn switches_of_another_engine_are_refused() {
        let flags =
            parse(&["--engine", "epoll", "--uring", "+bundle"]).expect("each is right alone");
        assert!(
            matches!(flags.into_config(), Err(FlagsError::Usage(text)) if text.contains("--engine uring"))
        );
    }
}
