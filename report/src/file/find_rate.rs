//! `find-rate.json`: what was asked, every run, the blocks' answers, the curve and the answer, as plain data.

use serde::{Deserialize, Serialize};

use echometer_host::{cpus::CpuList, fitness::Finding, machine::Facts};
use echometer_loadgen::{Plan, file::Summary, verdict};

use crate::file::{
    entries::{ArmEntry, CommandEntry},
    priorities::Priorities,
    quiet::QuietEntry,
    trust::Trust,
};

/// What the file says of its form.
pub const SCHEMA: &str = "echometer.find-rate/1";

/// The name of the file in its folder.
pub const FILE_NAME: &str = "find-rate.json";

/// The curve as a table, beside it.
pub const CURVE_NAME: &str = "curve.csv";

/// A search, finished or under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindRateFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Whether it was stopped before its last block.
    pub cut_short: bool,
    /// The answer for people.
    pub sentence: String,
    /// Whether it can be trusted.
    pub verdict: Trust,
    /// The objective, as typed; several are joined by ` and `, and the figures below are of the first.
    pub slo: String,
    /// The highest rate at which it holds, messages per second: the median over the blocks. `null` where even the
    /// lowest rate fails.
    pub rate_per_s: Option<f64>,
    /// The least of the blocks. `null` with fewer than six, and where even the lowest rate failed in a block.
    pub ci_low: Option<f64>,
    /// The greatest of the blocks.
    pub ci_high: Option<f64>,
    /// How sure the range is to hold the median of all blocks that there could be: 0.969 for six.
    pub confidence: Option<f64>,
    /// Who was asked.
    pub arm: ArmEntry,
    /// What else was asked.
    pub design: FindRateDesign,
    /// Repeats the payload and the arrivals.
    pub seed: u64,
    /// Where it was measured.
    pub machine: Facts,
    /// Whether that machine was fit for it, the gravest finding first; empty in files of older versions.
    #[serde(default)]
    pub doctor: Vec<Finding>,
    /// What was run: the bench itself, then the server as it was started last.
    pub commands: Vec<CommandEntry>,
    /// Latency against throughput: all runs that can be believed, those at one rate together.
    pub curve: Vec<CurvePoint>,
    /// What each block found.
    pub blocks: Vec<BlockEntry>,
    /// Every run, in order; block 0 is the first look of older versions.
    pub runs: Vec<RunEntry>,
}

/// What was asked, as far as it isn't the objective or the arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindRateDesign {
    /// How many blocks were to be run.
    pub blocks: usize,
    /// The lowest rate that was tried.
    pub lowest_per_s: f64,
    /// The highest that could have been tried.
    pub highest_per_s: f64,
    /// One rate over the next lower one.
    pub step: f64,
    /// Where the server ran; `null` where it is not ours.
    pub server_cpus: Option<CpuList>,
    /// Where the client ran, one thread per cpu.
    pub client_cpus: CpuList,
    /// The load; its duration is the least of a run, and its rate is no matter.
    pub load: Plan,
    /// The short look at the cpus before; `null` where there was none: in closed loop, and where cpus were named.
    #[serde(default)]
    pub quiet: Option<QuietEntry>,
    /// At which priority both sides ran; nobody was raised in files of older versions.
    #[serde(default)]
    pub priority: Priorities,
}

/// One block's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockEntry {
    /// Counted from 1.
    pub index: usize,
    /// Whether it counts.
    pub valid: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// The highest rate that held; `null` where even the lowest failed.
    pub rate_per_s: Option<f64>,
    /// Whether the next rate failed only because the client could not make it.
    pub client_bound: bool,
    /// Whether every rate held up to the highest.
    pub at_the_top: bool,
    /// How many of its rates were judged by a run that stayed invalid.
    pub doubtful: u32,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEntry {
    /// The block; 0 for the first look of older versions.
    pub block: usize,
    /// The rate that was asked for.
    pub rate_per_s: f64,
    /// 1, or more where earlier runs of this rate in this block had not decided on it.
    pub attempt: u32,
    /// Messages really due, per second.
    pub offered_per_s: f64,
    /// Replies, per second.
    pub achieved_per_s: f64,
    /// The latency that the objective is about.
    pub slo_ns: u64,
    /// Latency from the due time.
    pub latency_ns: Summary,
    /// Whether the objective held; `null` for an invalid run.
    pub holds: Option<bool>,
    /// The load generator's verdict.
    pub status: verdict::Status,
    /// Its reasons.
    pub reasons: Vec<String>,
    /// The client's busiest thread, 0..1.
    pub client_busy: f64,
    /// The file with its histogram, relative to this file.
    pub hlog: String,
}

/// A point of the curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The rate that was asked for.
    pub rate_per_s: f64,
    /// Replies, per second: the mean of its runs.
    pub achieved_per_s: f64,
    /// How many runs it stands on.
    pub runs: usize,
    /// In how many of them the objective held.
    pub held: usize,
    /// The latency that the objective is about, over all of them.
    pub slo_ns: u64,
    /// Latency from the due time, over all of them.
    pub latency_ns: Summary,
}
