//! `selftest.json`: what a selftest asked, saw and concludes, as plain data. The table is a rendering of it.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use echometer_host::{cpus::CpuList, fitness, machine::Facts};
use echometer_loadgen::plan::Engine;

/// What the file says of its form.
pub const SCHEMA: &str = "echometer.selftest/1";
/// The name of the file in its folder.
pub const FILE_NAME: &str = "selftest.json";

/// A selftest, finished or under way: it is saved after every truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selftest {
    /// [`SCHEMA`].
    pub schema: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// How long it took so far.
    pub elapsed_ns: u64,
    /// Whether it was stopped before its last truth.
    pub cut_short: bool,
    /// Whether all truths were looked at and all that was checked was shown within its bounds; false where nothing was
    /// checked.
    pub passed: bool,
    /// The answer for people.
    pub sentence: String,
    /// Whether it was the short form.
    pub quick: bool,
    /// Where it was measured.
    pub machine: Facts,
    /// Whether that machine is fit to measure on; empty in files from before it was asked.
    #[serde(default)]
    pub doctor: Vec<fitness::Finding>,
    /// Where the calibration servers ran.
    pub server_cpus: CpuList,
    /// Where the client ran, one thread per cpu.
    pub client_cpus: CpuList,
    /// The selftest's own command line.
    pub command: String,
    /// What was checked, in order.
    pub truths: Vec<Outcome>,
}

/// One truth, as one client showed it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which.
    pub truth: Truth,
    /// Counted from 1. A truth that was missed while the machine was disturbed is looked at again; its last attempt
    /// counts.
    pub attempt: usize,
    /// Whether something else took the cpus of either side for long enough to explain a miss.
    pub disturbed: bool,
    /// How the client moved its bytes: `uring` or `epoll`. `null` for a comparison, which has the default client.
    pub client: Option<Engine>,
    /// The load in words: `1,000/s over 10 connections, 10s`.
    pub load: String,
    /// The calibration servers' command lines.
    pub servers: Vec<String>,
    /// The raw results, relative to the selftest's folder: a run's or a comparison's own folder.
    pub folders: Vec<String>,
    /// What must be shown, and what is.
    pub checks: Vec<Check>,
    /// What the instrument says of its own figures, and what disturbed it.
    pub remarks: Vec<String>,
    /// How long it took.
    pub elapsed_ns: u64,
}

/// One figure against the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// `p50`, `max`, or a comparison's metric: `server_cpu_per_message`.
    pub quantity: String,
    /// The truth and what was shown.
    #[serde(flatten)]
    pub finding: Finding,
    /// Whether it was shown within its bound.
    pub passed: bool,
}

/// The truth and what was shown.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// A latency.
    Latency {
        /// The truth.
        truth_ns: u64,
        /// `null` where too few messages were answered for this quantile.
        shown_ns: Option<u64>,
        /// How far from the truth it may be.
        bound_ns: u64,
    },
    /// One server's figure over another's.
    Ratio {
        /// What its interval must do.
        rule: Rule,
        /// The truth, where it is a number: a range, because it holds f, which scatters from block to block.
        truth_low: Option<f64>,
        /// Its upper end.
        truth_high: Option<f64>,
        /// The estimate; `null` where the comparison has none.
        ratio: Option<f64>,
        /// Lower end of the interval.
        ci_low: Option<f64>,
        /// Upper end of the interval.
        ci_high: Option<f64>,
    },
    /// A warning that must be there.
    Warning {
        /// Whether it was.
        shown: bool,
    },
}

/// What an interval must do to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Hold the truth (meet its range), and not 1.
    HoldsTruth,
    /// Hold 1, or lie within the margin of 2 % around it.
    Same,
    /// Lie beyond 1 and the margin, above.
    Higher,
    /// Lie beyond 1 and the margin, below.
    Lower,
}

impl Selftest {
    /// The outcomes that count: the last attempt at each truth with each client.
    pub fn counting(&self) -> impl Iterator<Item = &Outcome> {
        self.truths
            .iter()
            .enumerate()
            .filter_map(|(index, outcome)| {
                let again = self.truths[index + 1..]
                    .iter()
                    .any(|later| (later.truth, later.client) == (outcome.truth, outcome.client));
                (!again).then_some(outcome)
            })
    }

    /// All checks that count.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.counting().flat_map(|outcome| &outcome.checks)
    }
}

impl Outcome {
    /// Whether all of it was shown within its bounds.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

/// Something known about a server, which the instrument must show.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Truth {
    /// It echoes 1 ms late: the median says so
    Fixed,
    /// It freezes for 200 ms every 2 s: an open loop shows the tail that users would see
    Freeze,
    /// The same in closed loop, which hides the tail: it must warn of coordinated omission
    Omission,
    /// It echoes after times drawn from the exponential distribution: every quantile is known
    Exponential,
    /// It echoes 1.1 ms late, another one 1 ms: the comparison's interval holds the ratio
    Ratio,
    /// It is the same server twice: the comparison finds no difference that matters
    Same,
    /// It burns 20 us per message: the comparison calls its CPU and its rate worse
    Busy,
}

/// All truths, the quick ones first.
pub const TRUTHS: [Truth; 7] = [
    Truth::Fixed,
    Truth::Freeze,
    Truth::Omission,
    Truth::Exponential,
    Truth::Ratio,
    Truth::Same,
    Truth::Busy,
];

impl Truth {
    /// In words, as a heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Fixed => "each echo 1 ms late",
            Self::Freeze => "frozen 200 ms every 2 s",
            Self::Omission => "frozen 200 ms every 2 s, closed loop",
            Self::Exponential => "exponential delay, mean 1 ms",
            Self::Ratio => "1.1 ms late against 1 ms late",
            Self::Same => "the same server twice",
            Self::Busy => "busy 20 us per message against not",
        }
    }
}
