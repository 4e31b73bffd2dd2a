//! `compare.json`: everything that a comparison asked, saw and concludes, as plain data. The table and the sentence
//! are renderings of it.

use serde::{Deserialize, Serialize};

use echometer_host::{cpus::CpuList, fitness::Finding, machine::Facts};
use echometer_loadgen::Plan;
use echometer_statistics::Verdict;

use crate::file::{
    correction::Correction,
    design::Design,
    entries::{ArmEntry, CommandEntry},
    figures::BlockFigures,
    floor::FloorEntry,
    metric::Metric,
    priorities::Priorities,
    quiet::QuietEntry,
    trust::Trust,
};

/// What the file says of its form.
pub const SCHEMA: &str = "echometer.compare/1";
/// The name of the file in its folder.
pub const FILE_NAME: &str = "compare.json";

/// A comparison, finished or under way: it is saved after every block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// How long it took so far.
    pub elapsed_ns: u64,
    /// Whether it was stopped before its last block.
    pub cut_short: bool,
    /// The answer for people.
    pub sentence: String,
    /// Whether the whole can be trusted.
    pub verdict: Trust,
    /// In the order of the command line, the baseline first.
    pub arms: Vec<ArmEntry>,
    /// What was asked.
    pub design: DesignEntry,
    /// Repeats the order of the slices, the payload and, in open loop, the arrivals.
    pub seed: u64,
    /// Where it was measured.
    pub machine: Facts,
    /// Whether that machine was fit for it, the gravest finding first; empty in files of older versions.
    #[serde(default)]
    pub doctor: Vec<Finding>,
    /// What was run: the bench itself, then each arm's server as it was started last.
    pub commands: Vec<CommandEntry>,
    /// Every block, invalid ones too.
    pub blocks: Vec<BlockFigures>,
    /// How the questions of a family were corrected for each other.
    #[serde(default)]
    pub correction: Correction,
    /// One entry per arm (but the baseline) and metric.
    pub metrics: Vec<MetricResult>,
    /// What an echo costs the kernel at least, and each server as a multiple of it; `null` where it was not asked for.
    #[serde(default)]
    pub floor: Option<FloorEntry>,
}

/// What was asked, as far as it isn't an arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesignEntry {
    /// How the arms take turns.
    pub kind: Design,
    /// How many blocks were to be run.
    pub blocks: usize,
    /// The shortest slice (see each block for what it was), or the length of a run.
    pub slice_min_ns: u64,
    /// The metric that was named before the run.
    pub primary: Metric,
    /// Smaller differences are of no practical use; a share.
    pub margin: f64,
    /// Where the servers ran; `null` where none of them was ours.
    pub server_cpus: Option<CpuList>,
    /// Where the client ran, one thread per cpu.
    pub client_cpus: CpuList,
    /// The short look at the cpus before; `null` where there was none: in closed loop, and where cpus were named.
    #[serde(default)]
    pub quiet: Option<QuietEntry>,
    /// At which priority both sides ran; nobody was raised in files of older versions.
    #[serde(default)]
    pub priority: Priorities,
    /// The load; its duration is the time that each arm was measured in a block, or the length of a run.
    pub load: Plan,
}

impl Comparison {
    /// Blocks that are part of the comparison.
    pub fn valid_blocks(&self) -> impl Iterator<Item = &BlockFigures> {
        self.blocks.iter().filter(|block| block.valid)
    }
}

/// One metric of one arm against the baseline, as it stands in `compare.json`. What can't be had is `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricResult {
    /// The arm's name.
    pub arm: String,
    /// The baseline's name.
    pub baseline: String,
    /// Which metric.
    pub name: Metric,
    /// Its unit.
    pub unit: String,
    /// Whether this is the metric that was named before the run.
    pub primary: bool,
    /// Median over the valid blocks.
    pub arm_value: Option<f64>,
    /// Median over the valid blocks.
    pub baseline_value: Option<f64>,
    /// arm / baseline: the Hodges-Lehmann estimate over the blocks' ratios (not the ratio of the two values).
    pub ratio: Option<f64>,
    /// Lower end of its interval.
    pub ci_low: Option<f64>,
    /// Upper end of its interval.
    pub ci_high: Option<f64>,
    /// How sure the interval really is: 0.961 for eight blocks.
    pub confidence: Option<f64>,
    /// Two-sided, exact over ranks, of this question alone.
    pub p: Option<f64>,
    /// Corrected for the questions that were asked with it; `null` too where a valid block gave no figure.
    #[serde(alias = "p_holm")]
    pub p_adjusted: Option<f64>,
    /// How many blocks it stands on.
    pub blocks_used: usize,
    /// The word.
    pub verdict: Verdict,
    /// Why the verdict is `invalid` or `undecided`.
    pub reason: Option<String>,
    /// A latency of an open loop: the same without what the client's own lateness may add. The verdict holds for both.
    /// `null` for other metrics, and in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least: Option<LeastResult>,
}

/// The lower of the two ends between which an open loop's latency lies, compared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LeastResult {
    /// arm / baseline.
    pub ratio: f64,
    /// Lower end of its interval.
    pub ci_low: Option<f64>,
    /// Upper end of its interval.
    pub ci_high: Option<f64>,
    /// What this end alone would say.
    pub verdict: Verdict,
}
