//! `storm.json`: what was asked, what each level of the backlog gave, and the answer, as plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use echometer_host::{cpus::CpuList, fitness::Finding, machine::Facts};
use echometer_loadgen::{Plan, file::Summary};

use crate::file::{entries::CommandEntry, sysctls::Sysctls};

/// What the file says of its form.
pub const SCHEMA: &str = "echometer.storm/1";

/// The name of the file in its folder.
pub const FILE_NAME: &str = "storm.json";

/// A storm, finished or under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StormFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Whether it was stopped before its last block.
    pub cut_short: bool,
    /// The answer for people.
    pub sentence: String,
    /// Connects of one storm; with `connect_rate_per_s` null all at once.
    pub connects: u32,
    /// Connects per second, where they were not all made at once.
    pub connect_rate_per_s: Option<f64>,
    /// Bytes of the one message that follows each connect.
    pub message_size: u32,
    /// How often each level was to be stormed.
    pub blocks: usize,
    /// How many blocks are whole.
    pub blocks_done: usize,
    /// Repeats the order of the levels.
    pub seed: u64,
    /// Where the servers ran; `null` where none of them was ours.
    pub server_cpus: Option<CpuList>,
    /// Where the client ran, one thread per cpu.
    pub client_cpus: CpuList,
    /// The load.
    pub load: Plan,
    /// The kernel's settings that matter.
    pub sysctls: Sysctls,
    /// When a lost SYN is sent again, ns after the first.
    pub syn_steps_ns: Vec<u64>,
    /// Where it was measured.
    pub machine: Facts,
    /// Whether that machine was fit for it, the gravest finding first; empty in files of older versions.
    #[serde(default)]
    pub doctor: Vec<Finding>,
    /// What was run: the bench itself, then each level's server as it was started last.
    pub commands: Vec<CommandEntry>,
    /// One entry per level, in the order of the command line.
    pub levels: Vec<LevelEntry>,
    /// Storms that gave no figures, and why.
    pub faults: Vec<String>,
}

/// One level: all its storms together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LevelEntry {
    /// The arm's name, as typed.
    pub arm: String,
    /// What serves, as it can be typed again.
    pub spec: String,
    /// What was asked for; `null` for a server that was running already.
    pub backlog: Option<u32>,
    /// What it came to after `somaxconn`: what the kernel says of the listener. `null` where it can't be asked.
    pub effective_backlog: Option<u32>,
    /// How many storms it has had.
    pub storms: usize,
    /// Connects of all its storms.
    pub connects: u64,
    /// Those that failed or had no echo.
    pub failed: u64,
    /// The same by kind.
    pub errors: BTreeMap<String, u64>,
    /// From before connect(2) until the connection was there.
    pub connect_ns: Summary,
    /// From before connect(2) until the echo was there.
    pub first_echo_ns: Summary,
    /// How many connections needed 1, 2, 3... SYNs to be sent again.
    pub syn_retransmits: BTreeMap<u32, u64>,
    /// The kernel's counter, over its storms; `null` where it can't be read.
    pub listen_overflows: Option<u64>,
    /// The kernel's counter, over its storms.
    pub listen_drops: Option<u64>,
    /// All of the kernel's counters that were read.
    pub counters: Option<Losses>,
    /// The longest accept queue that was seen; it was sampled, so that a longer one may have been missed.
    pub queue_max: Option<u32>,
    /// How often the queue was looked at.
    pub queue_samples: u64,
    /// Whether no storm lost anything: no connect failed or needed a second SYN, no first echo came as late as a lost
    /// last ACK makes it, no queue overflowed. `null` before the first storm.
    pub lost_none: Option<bool>,
}

/// A first echo later than this after the connect's start, where nothing is busy for so long, has met a retransmission
/// of a last ACK or of the first message: the kernel's least retransmission time (`TCP_RTO_MIN`) is 200 ms.
const RETRANSMITTED_ECHO_NS: u64 = 200_000_000;

/// Whether a level lost nothing in any of its storms.
#[must_use]
pub fn lost_none(level: &LevelEntry) -> bool {
    let counted = |counter: Option<u64>| counter.unwrap_or(0) != 0;
    level.failed == 0
        && level.syn_retransmits.is_empty()
        && !counted(level.listen_overflows)
        && !counted(level.listen_drops)
        && !late_echoes(level)
}

/// Whether a first echo came so much later than the slowest connect that something was sent again in between.
pub fn late_echoes(level: &LevelEntry) -> bool {
    match (level.connect_ns.max, level.first_echo_ns.max) {
        (Some(connect), Some(echo)) => RETRANSMITTED_ECHO_NS <= echo.saturating_sub(connect),
        _ => false,
    }
}

/// What the kernel counted during a storm. The counters belong to the whole network namespace: what others lose
/// meanwhile is in them. A counter that this kernel lacks is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// `ListenOverflows`: no place in an accept queue.
    pub listen_overflows: Option<u64>,
    /// `ListenDrops`: SYNs and last ACKs that a listener dropped, for that reason or another.
    pub listen_drops: Option<u64>,
    /// `TCPTimeouts`: retransmission timers that ran out.
    pub tcp_timeouts: Option<u64>,
    /// `TCPReqQFullDrop`: SYNs dropped because as many connections as the backlog were half open, and cookies are off.
    pub syn_queue_full_drops: Option<u64>,
    /// `TCPReqQFullDoCookies`: SYNs that were answered with a cookie for the same reason, or all with `tcp_syncookies` 2.
    pub syn_cookies: Option<u64>,
}

impl Losses {
    /// The sum of both; what one lacks, the sum lacks.
    #[must_use]
    pub fn plus(self, other: Losses) -> Losses {
        let plus = |one: Option<u64>, other: Option<u64>| Some(one? + other?);
        Losses {
            listen_overflows: plus(self.listen_overflows, other.listen_overflows),
            listen_drops: plus(self.listen_drops, other.listen_drops),
            tcp_timeouts: plus(self.tcp_timeouts, other.tcp_timeouts),
            syn_queue_full_drops: plus(self.syn_queue_full_drops, other.syn_queue_full_drops),
            syn_cookies: plus(self.syn_cookies, other.syn_cookies),
        }
    }
}
