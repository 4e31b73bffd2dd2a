//! `sweep.json`: what was asked, every block and the answers, as plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use echometer_host::{fitness::Finding, machine::Facts};
use echometer_loadgen::{Plan, plan::Load};
use echometer_statistics::Verdict;

use crate::file::{
    correction::Correction,
    entries::{ArmEntry, CommandEntry},
    figures::ArmFigures,
    metric::Metric,
    priorities::Priorities,
    trust::Trust,
};

/// What the file says of its form.
pub const SCHEMA: &str = "echometer.sweep/1";

/// The name of the file in its folder.
pub const FILE_NAME: &str = "sweep.json";

/// The job that repeats the sweep, beside it.
pub const JOB_NAME: &str = "job.toml";

/// A sweep, finished or under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepFile {
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
    /// What was varied, one or two, each with its levels in the order of the command line.
    pub keys: Vec<KeyEntry>,
    /// In the order of the command line, the baseline first.
    pub arms: Vec<ArmEntry>,
    /// What else was asked.
    pub design: SweepDesign,
    /// Repeats the orders, the payload and, in open loop, the arrivals.
    pub seed: u64,
    /// Where it was measured.
    pub machine: Facts,
    /// Whether that machine was fit for it, the gravest finding first; empty in files of older versions.
    #[serde(default)]
    pub doctor: Vec<Finding>,
    /// What was run: the bench itself, then each cell's server as it was started last.
    pub commands: Vec<CommandEntry>,
    /// How the questions of a family were corrected for each other.
    #[serde(default)]
    pub correction: Correction,
    /// Every combination of levels, the last key changing fastest.
    pub points: Vec<PointEntry>,
    /// Which level is best for each arm, where the levels are ways to run a server.
    pub rankings: Vec<Ranking>,
    /// Every block with every cell, invalid ones too.
    pub blocks: Vec<BlockEntry>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// Its name, as in `--over`.
    pub name: String,
    /// Its levels, as typed.
    pub levels: Vec<String>,
}

/// What was asked, as far as it is neither key nor arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepDesign {
    /// How many blocks were to be run: each measures every cell once.
    pub blocks: usize,
    /// The shortest slice of a closed loop.
    pub slice_min_ns: u64,
    /// The metric that was named before the run.
    pub primary: Metric,
    /// Smaller differences are of no practical use; a share.
    pub margin: f64,
    /// The load, where no level says otherwise; its duration is the time that each cell is measured in a block.
    pub load: Plan,
    /// Where both sides run, where no level says otherwise: server, client.
    pub cpus: [String; 2],
    /// At which priority both sides ran; nobody was raised in files of older versions.
    #[serde(default)]
    pub priority: Priorities,
}

/// One combination of levels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointEntry {
    /// By key.
    pub levels: BTreeMap<String, String>,
    /// All of them in a few words.
    pub label: String,
    /// Where both sides stood, in words, where that was varied.
    pub layout: Option<String>,
    /// One entry per arm and metric.
    pub metrics: Vec<CellMetric>,
    /// By the arm's name: how both sides were moved about, medians over the blocks.
    pub movement: BTreeMap<String, MovementEntry>,
}

/// How both sides were moved about and kept waiting. What can't be read is `null`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct MovementEntry {
    /// Moves of the server's threads to another cpu, per second.
    pub server_migrations_per_s: Option<f64>,
    /// Moves of the client's threads, per second.
    pub client_migrations_per_s: Option<f64>,
    /// The share of the time in which the server's threads were ready and had no cpu.
    pub server_run_delay: Option<f64>,
    /// The same of the client's busiest thread.
    pub client_run_delay: Option<f64>,
}

/// One block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockEntry {
    /// Counted from 1, as its files are.
    pub index: usize,
    /// Cells in the order in which their groups were measured.
    pub order: Vec<String>,
    /// By the cell's name, `POINT-ARM`, points counted from 1.
    pub cells: BTreeMap<String, CellEntry>,
}

/// One cell in one block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellEntry {
    /// Whether it counts.
    pub valid: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// What to know of it all the same: `overloaded`, `noisy`, `unsteady`.
    pub remarks: Vec<String>,
    /// Its figures; `null` where it never had any.
    pub figures: Option<ArmFigures>,
    /// How it was moved about.
    pub movement: Option<Movement>,
}

impl SweepFile {
    /// Whether the loop was open at every point.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.design.load.load != Load::Closed || self.keys.iter().any(|key| key.name == "rate")
    }
}

/// One metric of one arm at one point, as it stands in `sweep.json`. What can't be had is `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellMetric {
    /// The arm's name.
    pub arm: String,
    /// Which metric.
    pub name: Metric,
    /// Its unit.
    pub unit: String,
    /// Whether this is the metric that was named before the run.
    pub primary: bool,
    /// Hodges-Lehmann estimate over the blocks' values, on the scale of logarithms.
    pub value: Option<f64>,
    /// Lower end of its interval: how far the value would move from run to run on this machine.
    pub value_low: Option<f64>,
    /// Upper end.
    pub value_high: Option<f64>,
    /// How sure the interval really is.
    pub confidence: Option<f64>,
    /// How many blocks it stands on.
    pub blocks_used: usize,
    /// Against the first arm at the same point; `null` for that arm itself.
    pub against_arm: Option<Contrast>,
    /// Against the same arm at the first point; `null` for that point itself.
    pub against_point: Option<Contrast>,
}

impl CellMetric {
    /// What the cell is judged by in a sweep of so many arms: against the first arm; of a lone arm against the first point.
    #[must_use]
    pub fn judged(&self, arms: usize) -> Option<&Contrast> {
        match arms {
            1 => self.against_point.as_ref(),
            _ => self.against_arm.as_ref(),
        }
    }
}

/// How one cell stands to another in a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contrast {
    /// What is compared: an arm's name, or a point's label.
    pub of: String,
    /// With what.
    pub baseline: String,
    /// of / baseline, Hodges-Lehmann over the blocks.
    pub ratio: Option<f64>,
    /// Lower end of its interval.
    pub ci_low: Option<f64>,
    /// Upper end.
    pub ci_high: Option<f64>,
    /// Two-sided, exact over ranks, of this question alone.
    pub p: Option<f64>,
    /// Corrected for the questions that were asked with it; `null` too where a block that counts gave no figure.
    #[serde(alias = "p_holm")]
    pub p_adjusted: Option<f64>,
    /// How many blocks it stands on.
    pub blocks_used: usize,
    /// The word.
    pub verdict: Verdict,
    /// Why the verdict is `invalid` or `undecided`.
    pub reason: Option<String>,
}

/// Which point is best for an arm, in the primary metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// The arm's name.
    pub arm: String,
    /// Labels of the points, the best estimate first.
    pub order: Vec<String>,
    /// What can be said.
    pub conclusion: Conclusion,
    /// Points that are not surely worse than the best, the best first.
    pub best: Vec<String>,
    /// Each of the others against the best, in that order. Corrected for all pairs of points, because the best was
    /// chosen after the fact.
    pub against_best: Vec<Contrast>,
}

/// What a ranking says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conclusion {
    /// One point is better than each other one.
    Best,
    /// Several are ahead of the rest and can't be told apart.
    Several,
    /// No two differ by more than the margin.
    Same,
    /// There are too few blocks, or nothing can be told apart.
    Undecided,
}

/// How both sides were moved and kept waiting over the measured part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    /// How long that was, ns.
    pub span_ns: u64,
    /// Times that a thread of the server was moved to another cpu. `null` where the kernel does not count them.
    pub server_migrations: Option<u64>,
    /// Times that a thread of the client was. `null` too where its threads did not live as long.
    pub client_migrations: Option<u64>,
    /// Time that threads of the server were ready to run and had no cpu, ns.
    pub server_run_delay_ns: Option<u64>,
}
