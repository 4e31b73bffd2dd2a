//! The plan: what load is to be made, as values that are already valid.
//!
//! It comes from the flags (or from the bench), goes to every worker, and is written into the run file, so that a
//! result can be traced to what was asked for.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use echometer_host::{
    address::Address,
    target::Target,
    units::{counted, show_count},
};

use crate::{
    fail_if::Threshold,
    flow::MESSAGES_MAX,
    sizes::{SizeMix, Sizes},
    source::Sources,
};

pub use crate::sizes::MESSAGE_SIZE_MAX;

/// The most connections that one plan may ask for. The descriptor limit is met long before.
pub const CONNECTIONS_MAX: u32 = 1_000_000;
/// The most messages in flight on one connection.
pub const PIPELINE_MAX: u32 = 1 << 20;
/// The most worker threads.
pub const WORKERS_MAX: usize = 1_024;
/// How many messages may be in flight on one connection in open loop, unless the user says otherwise: enough that
/// nothing waits in the client before the server is truly overloaded.
pub const OPEN_LOOP_PIPELINE: u32 = 1_024;

/// The shortest line of the interval series: to add up a line takes the client about 0.3 ms of CPU per worker.
pub const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// The most lines of the interval series: 11 days by the second.
pub const INTERVALS_MAX: u128 = 1_000_000;

/// On loopback, churn goes over so many sources: 64 hold 1.8 million ports, so that 30,000 connections per second last
/// the minute that a port is out of use.
const CHURN_SOURCES: u32 = 64;

/// What load is to be made. [`Plan::validate`] holds for every plan that [`crate::flags`] hands out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Connections, over all workers: 1 to [`CONNECTIONS_MAX`], and no fewer than there are workers.
    pub connections: u32,
    /// Bytes in a message: 1 to [`MESSAGE_SIZE_MAX`]. Of a mix the largest.
    pub message_size: u32,
    /// Messages of several sizes, by shares.
    #[serde(default)]
    pub size_mix: Option<SizeMix>,
    /// Length of the window that is recorded; above 0.
    #[serde(rename = "duration_ns", with = "duration_as_ns")]
    pub duration: Duration,
    /// Load before the window, on the same connections, that is not recorded.
    #[serde(rename = "warmup_ns", with = "duration_as_ns")]
    pub warmup: Duration,
    /// When messages are sent.
    pub load: Load,
    /// Open loop: the rate changes evenly over the window, from the load's to this; before it, it is the load's.
    #[serde(default)]
    pub ramp_to_per_s: Option<f64>,
    /// Closed loop: how long after an answer the next message is sent.
    #[serde(default, rename = "think_ns", with = "duration_as_ns")]
    pub think: Duration,
    /// How many messages may be in flight on one connection: 1 to [`PIPELINE_MAX`]; in closed loop no more on all of a
    /// worker's connections than `MESSAGES_MAX`.
    pub pipeline: u32,
    /// Connection churn: after so many messages a connection is closed and made anew. 0: connections stay.
    #[serde(default)]
    pub requests_per_connection: u32,
    /// Who closes a connection then, and how.
    #[serde(default)]
    pub close: Close,
    /// A connection that fails is made anew. (With churn it is in any case.)
    #[serde(default)]
    pub reconnect: bool,
    /// Connects per second over all workers; 0 for as fast as can be.
    #[serde(default)]
    pub connect_rate_per_s: f64,
    /// The addresses to connect from; `None` leaves it to the kernel, or to [`Plan::sources_for`].
    #[serde(default)]
    pub sources: Option<Sources>,
    /// One entry per worker thread: the cpu that it is pinned to, or `None` for a thread that is free to move.
    pub workers: Vec<Option<u32>>,
    /// How the client moves its bytes.
    pub engine: Engine,
    /// How a worker waits when there is nothing to do.
    pub wait: Wait,
    /// Compare every byte that comes back with what was sent.
    pub verify: bool,
    /// Whether the kernel's receive times are asked for too.
    #[serde(default)]
    pub timestamps: Timestamps,
    /// Makes the schedule, the choice of connections and the payload repeatable.
    pub seed: u64,
    /// What is to hold of the figures.
    #[serde(default)]
    pub fail_if: Vec<Threshold>,
    /// Length of one line of the interval series: [`INTERVAL_MIN`] or more, and at most [`INTERVALS_MAX`] lines.
    #[serde(rename = "interval_ns", with = "duration_as_ns")]
    pub interval: Duration,
    /// Leave Nagle's algorithm on (it is off unless asked for).
    pub nagle: bool,
    /// SO_SNDBUF in bytes, where asked for.
    pub sndbuf: Option<u32>,
    /// SO_RCVBUF in bytes, where asked for.
    pub rcvbuf: Option<u32>,
}

/// When messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loop", rename_all = "lowercase")]
pub enum Load {
    /// A connection sends its next message when a reply has come: throughput, but no latency under load.
    Closed,
    /// Messages are due at instants that don't depend on the replies.
    Open {
        /// Messages per second over all workers; above 0.
        rate_per_s: f64,
        /// How the due instants lie in time.
        arrivals: Arrivals,
    },
}

/// Who closes a connection after its last message, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Close {
    /// The client, by FIN: its side remembers the connection for a minute (TIME_WAIT).
    #[default]
    Fin,
    /// The client, by a reset: nobody remembers it.
    Rst,
    /// The server: the client waits until it does. For servers that close after so many messages.
    Server,
}

/// How the due instants of an open loop lie in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Independent arrivals: exponential gaps, each message to a connection chosen at random.
    Poisson,
    /// Equal gaps, connections in turn.
    Uniform,
}

/// How the client moves its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// io_uring where this kernel and its policy allow it, else epoll.
    Auto,
    /// io_uring, or an error that says why not.
    Uring,
    /// epoll with recv(2) and send(2).
    Epoll,
}

/// Whose clock reads tell when a reply came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Timestamps {
    /// The client's own, when it harvests: what its user would see.
    #[default]
    Client,
    /// The kernel's besides (SO_TIMESTAMPING): how long replies waited for the client is a figure of its own.
    Kernel,
}

/// How a worker waits when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// Asks again and again: the least send lag, at the price of a whole core.
    Spin,
    /// Sleeps in the kernel.
    Block,
}

impl Default for Plan {
    /// What `echometer-loadgen ADDR` does when nothing else is asked for.
    fn default() -> Plan {
        Plan {
            connections: 64,
            message_size: 64,
            size_mix: None,
            duration: Duration::from_secs(10),
            warmup: Duration::from_secs(2),
            load: Load::Closed,
            ramp_to_per_s: None,
            think: Duration::ZERO,
            pipeline: 1,
            requests_per_connection: 0,
            close: Close::Fin,
            reconnect: false,
            connect_rate_per_s: 0.0,
            sources: None,
            workers: vec![None],
            engine: Engine::Auto,
            wait: Wait::Block,
            verify: false,
            timestamps: Timestamps::Client,
            seed: 1,
            fail_if: Vec::new(),
            interval: Duration::from_secs(1),
            nagle: false,
            sndbuf: None,
            rcvbuf: None,
        }
    }
}

/// A plan that can't be carried out: which flag, and why. The text is a whole sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag}: {reason}")]
pub struct PlanError {
    /// The flag as the user writes it, `--pipeline`.
    pub flag: &'static str,
    /// The cause and the cure.
    pub reason: String,
}

impl Plan {
    /// Checks every bound that the fields' documentation states.
    ///
    /// # Errors
    /// The first bound that doesn't hold.
    pub fn validate(&self) -> Result<(), PlanError> {
        let no = |flag, reason: String| Err(PlanError { flag, reason });
        if self.connections == 0 {
            return no(
                "-c",
                "0 connections make no load: give 1 or more".to_owned(),
            );
        }
        if CONNECTIONS_MAX < self.connections {
            return no(
                "-c",
                format!("at most {} connections", show_count(CONNECTIONS_MAX.into())),
            );
        }
        if self.message_size == 0 {
            return no(
                "-s",
                "a message of 0 bytes has no echo: give 1 or more".to_owned(),
            );
        }
        if MESSAGE_SIZE_MAX < self.message_size {
            return no("-s", "at most 64 MiB per message".to_owned());
        }
        if self.duration.is_zero() {
            return no(
                "-d",
                "a run of 0 s measures nothing: give a duration such as 10s".to_owned(),
            );
        }
        if self.interval.is_zero() {
            return no(
                "--interval",
                "an interval of 0 s is none: give a duration such as 1s".to_owned(),
            );
        }
        if self.interval < INTERVAL_MIN
            || INTERVALS_MAX < self.duration.as_nanos().div_ceil(self.interval.as_nanos())
        {
            return no(
                "--interval",
                format!(
                    "10 ms or more, and at most {} of them in a run: give a longer one",
                    show_count(INTERVALS_MAX as u64)
                ),
            );
        }
        if self.pipeline == 0 {
            return no(
                "--pipeline",
                "with 0 messages in flight nothing is sent: give 1 or more".to_owned(),
            );
        }
        if PIPELINE_MAX < self.pipeline {
            return no(
                "--pipeline",
                format!(
                    "at most {} messages in flight on a connection",
                    show_count(PIPELINE_MAX.into())
                ),
            );
        }
        let is_rate = |rate_per_s: f64| (1e-3..=1e9).contains(&rate_per_s);
        if !self.rate_per_s().is_none_or(is_rate) || !self.ramp_to_per_s.is_none_or(is_rate) {
            return no(
                "-R",
                "a rate lies between 0.001 and 1,000,000,000 per second".to_owned(),
            );
        }
        if self.ramp_to_per_s.is_some() && self.load == Load::Closed {
            return no("-R", "only an open loop has a rate to change".to_owned());
        }
        if !self.think.is_zero() && self.load != Load::Closed {
            return no(
                "--think",
                "an open loop sends when a message is due, whatever the replies do: leave out --think or -R"
                    .to_owned(),
            );
        }
        if let Some(mix) = &self.size_mix
            && mix.largest() != self.message_size
        {
            return no("-s", "the largest size of the mix is another".to_owned());
        }
        if self.connect_rate_per_s != 0.0 && !(1e-3..=1e9).contains(&self.connect_rate_per_s) {
            return no(
                "--connect-rate",
                "a rate lies between 0.001 and 1,000,000,000 per second; 0 is as fast as can be"
                    .to_owned(),
            );
        }
        if self.workers.is_empty() || WORKERS_MAX < self.workers.len() {
            return no("--threads", format!("1 to {WORKERS_MAX} worker threads"));
        }
        // A closed loop has them all from the start.
        if self.load == Load::Closed
            && MESSAGES_MAX < u64::from(self.connections_of(0)) * u64::from(self.pipeline)
        {
            return no(
                "--pipeline",
                format!(
                    "at most {} messages in flight per worker thread: lower it or -c, or raise --threads",
                    show_count(MESSAGES_MAX)
                ),
            );
        }
        if (self.connections as usize) < self.workers.len() {
            let (threads, connections) = (self.workers.len(), self.connections);
            return no(
                "--threads",
                format!(
                    "{} for {}: raise -c or lower --threads",
                    counted(threads as u64, "worker thread"),
                    counted(connections.into(), "connection"),
                ),
            );
        }
        Ok(())
    }

    /// The connections that belong to worker `index`: as even as can be, the first workers taking one more.
    pub fn connections_of(&self, index: usize) -> u32 {
        let workers = self.workers.len() as u32;
        let index = index as u32;
        self.connections / workers + u32::from(index < self.connections % workers)
    }

    /// Checks what depends on who is loaded.
    ///
    /// # Errors
    /// A flag that means nothing to a unix socket, and would be ignored without a word.
    pub fn validate_for(&self, target: &Target) -> Result<(), PlanError> {
        if !target.is_unix() {
            return Ok(());
        }
        let meaningless = [
            (
                self.is_stamped(),
                "--timestamps",
                "the kernel stamps what comes over TCP, and not over a unix socket",
            ),
            (
                self.sources.is_some(),
                "--source",
                "a client of a unix socket has no address",
            ),
            (
                self.nagle,
                "--nagle",
                "Nagle's algorithm is TCP's, and a unix socket has none",
            ),
            (
                self.rcvbuf.is_some(),
                "--rcvbuf",
                "a unix socket has only the sender's buffer (--sndbuf)",
            ),
            (
                self.requests_per_connection != 0 && self.close == Close::Rst,
                "--close",
                "a reset is TCP's, and a unix socket has none",
            ),
        ];
        match meaningless.into_iter().find(|(is_asked, ..)| *is_asked) {
            Some((_, flag, cause)) => Err(PlanError {
                flag,
                reason: format!("{cause}: leave it out, or give HOST:PORT"),
            }),
            None => Ok(()),
        }
    }

    /// What each message's size is.
    pub fn sizes(&self) -> Sizes {
        match &self.size_mix {
            None => Sizes::fixed(self.message_size),
            Some(mix) => Sizes::mixed(mix, self.seed),
        }
    }

    /// Whether connections are made while load is driven, and not only before.
    pub fn dials(&self) -> bool {
        self.requests_per_connection != 0 || self.reconnect
    }

    /// The addresses to connect to `address` from: the plan's; or, on loopback, as many of 127.0.0.2 and on as it takes
    /// for the ports not to run out; else whatever the kernel chooses.
    ///
    /// A source has `ports` for each peer, and a port of a connection that the client closed is not used again for up to
    /// a minute (TIME_WAIT).
    pub fn sources_for(&self, address: &Address, ports: u32) -> Option<Sources> {
        let Address::Tcp(SocketAddr::V4(peer)) = address else {
            return self.sources;
        };
        if self.sources.is_some() || !peer.ip().is_loopback() {
            return self.sources;
        }
        let ports = ports.max(2);
        // Below two thirds of the range a free port is found quickly.
        let needed = if self.requests_per_connection == 0 {
            self.connections.div_ceil(ports / 3 * 2 + 1)
        } else {
            CHURN_SOURCES.max(self.connections.div_ceil(ports / 3 * 2 + 1))
        };
        let text = format!("127.0.0.2-{}", Ipv4Addr::from(0x7f00_0001 + needed));
        if needed == 1 { None } else { text.parse().ok() }
    }

    /// The rate asked for, in messages per second over all workers; `None` in closed loop.
    pub fn rate_per_s(&self) -> Option<f64> {
        match self.load {
            Load::Closed => None,
            Load::Open { rate_per_s, .. } => Some(rate_per_s),
        }
    }

    /// Whether the kernel tells when it received something.
    pub fn is_stamped(&self) -> bool {
        self.timestamps == Timestamps::Kernel
    }

    /// The highest rate that a ramp reaches, or the rate: messages per second over all workers; `None` in closed loop.
    pub fn rate_max_per_s(&self) -> Option<f64> {
        let rate_per_s = self.rate_per_s()?;
        Some(self.ramp_to_per_s.unwrap_or(rate_per_s).max(rate_per_s))
    }
}

/// Durations in files are integers in ns.
mod duration_as_ns {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(Plan::default().validate(), Ok(()));
    }

    #[test]
    fn every_connection_belongs_to_one_worker() {
        let plan = Plan {
            connections: 11,
            workers: vec![None; 4],
            ..Plan::default()
        };
        let shares: Vec<u32> = (0..4).map(|index| plan.connections_of(index)).collect();
        assert_eq!(shares, [3, 3, 3, 2]);
    }

    #[test]
    fn more_workers_than_connections_is_refused() {
        let plan = Plan {
            connections: 1,
            workers: vec![None, None],
            ..Plan::default()
        };
        assert_eq!(plan.validate().unwrap_err().flag, "--threads");
    }

    #[test]
    fn what_no_memory_holds_is_refused() {
        let plan = |connections, workers, pipeline| Plan {
            connections,
            pipeline,
            workers: vec![None; workers],
            ..Plan::default()
        };
        assert_eq!(plan(8, 2, PIPELINE_MAX).validate(), Ok(()));
        let refused = plan(9, 2, PIPELINE_MAX).validate().unwrap_err();
        assert_eq!(refused.flag, "--pipeline");
        // An open loop takes them in as they are due.
        let open = Plan {
            load: Load::Open {
                rate_per_s: 1.0,
                arrivals: Arrivals::Uniform,
            },
            ..plan(9, 2, PIPELINE_MAX)
        };
        assert_eq!(open.validate(), Ok(()));
        for (interval, duration, holds) in [
            (Duration::from_millis(9), Duration::from_secs(1), false),
            (INTERVAL_MIN, Duration::from_secs(10_000), true),
            (INTERVAL_MIN, Duration::from_secs(10_001), false),
        ] {
            let plan = Plan {
                interval,
                duration,
                ..Plan::default()
            };
            assert_eq!(plan.validate().is_ok(), holds, "{interval:?}");
        }
    }

    #[test]
    fn sources_are_taken_where_ports_would_run_out() {
        let loopback: Address = "127.0.0.1:80".parse().unwrap();
        let sources = |connections, requests_per_connection, address: &Address| {
            let plan = Plan {
                connections,
                requests_per_connection,
                ..Plan::default()
            };
            plan.sources_for(address, 28_232)
                .map(|sources| sources.to_string())
        };
        assert_eq!(sources(18_000, 0, &loopback), None);
        assert_eq!(
            sources(100_000, 0, &loopback).as_deref(),
            Some("127.0.0.2-127.0.0.7")
        );
        assert_eq!(
            sources(10, 1, &loopback).as_deref(),
            Some("127.0.0.2-127.0.0.65")
        );
        for other in ["[::1]:80", "10.0.0.1:80", "unix:/run/echo"] {
            assert_eq!(sources(100_000, 1, &other.parse().unwrap()), None);
        }
    }

    #[test]
    fn a_plan_survives_its_file() {
        let load = Load::Open {
            rate_per_s: 20_000.5,
            arrivals: Arrivals::Poisson,
        };
        let plan = Plan {
            load,
            workers: vec![Some(1), None],
            ..Plan::default()
        };
        let text = serde_json::to_string(&plan).unwrap();
        assert!(text.contains(r#""duration_ns":10000000000"#), "{text}");
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}
