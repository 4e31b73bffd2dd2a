//! `curve.json`: the capacities that were found, and at each rate each arm's latencies and CPU per message, with intervals and
//! against the baseline, as plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use echometer_host::{cpus::CpuList, fitness::Finding, machine::Facts};
use echometer_loadgen::Plan;
use echometer_statistics::Verdict;

use crate::file::{
    correction::Correction,
    entries::{ArmEntry, CommandEntry},
    figures::ArmFigures,
    metric::Metric,
    trust::Trust,
};

/// What the file says of its form.
pub const SCHEMA: &str = "echometer.curve/1";

/// The name of the file in its folder.
pub const FILE_NAME: &str = "curve.json";

/// The metrics of a curve, in the order of its tables.
pub const CURVE_METRICS: [Metric; 4] = [
    Metric::LatencyP50,
    Metric::LatencyP99,
    Metric::LatencyP99_9,
    Metric::ServerCpuPerMessage,
];

/// The knee is the highest rate whose p99 is at most so many times that at the lowest rate.
pub const KNEE_RATIO: f64 = 2.0;

/// A load curve, finished or under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurveFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// How long it took so far, in ns.
    pub elapsed_ns: u64,
    /// Whether it was stopped before its last block.
    pub cut_short: bool,
    /// The answer for people.
    pub sentence: String,
    /// Whether it can be trusted.
    pub verdict: Trust,
    /// Who was measured, the baseline first.
    pub arms: Vec<ArmEntry>,
    /// What else was asked.
    pub design: CurveDesign,
    /// Repeats the orders, the payload and the arrivals.
    pub seed: u64,
    /// Where it was measured.
    pub machine: Facts,
    /// Whether that machine was fit for it, the gravest finding first.
    pub doctor: Vec<Finding>,
    /// What was run: the bench itself, then the servers as they were started last.
    pub commands: Vec<CommandEntry>,
    /// The highest rate with which each arm kept up and held the objectives; empty where the rates were given.
    pub capacities: Vec<Capacity>,
    /// How the p of the questions were corrected.
    pub correction: Correction,
    /// By ascending rate.
    pub points: Vec<CurvePoint>,
    /// Where each arm's p99 takes off.
    pub knee: Vec<Knee>,
    /// What each block gave.
    pub blocks: Vec<CurveBlock>,
}

/// What was asked, as far as it isn't an arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurveDesign {
    /// How many blocks were to be run.
    pub blocks: usize,
    /// How many slices each arm had at each rate in a block.
    pub cycles: u32,
    /// What each arm held up to its capacity, as typed.
    pub slos: Vec<String>,
    /// A smaller difference is of no practical use; a share.
    pub margin: f64,
    /// Where the servers ran; `null` where none of them was ours.
    pub server_cpus: Option<CpuList>,
    /// Where the client ran, one thread per cpu.
    pub client_cpus: CpuList,
    /// The load; its rate is no matter, and its duration is the least time that an arm was measured at a rate in a block.
    pub load: Plan,
}

/// The highest rate with which an arm kept up and held the objectives, while the client had time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// The arm's name.
    pub arm: String,
    /// Messages per second.
    pub rate_per_s: f64,
    /// Whether the next step failed only because the client could not make it, so that the arm may do more.
    pub client_bound: bool,
    /// How many slices it took.
    pub slices: u32,
}

/// One rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Messages due per second.
    pub rate_per_s: f64,
    /// The rate as a share of the smallest capacity; `null` where the rates were given.
    pub share: Option<f64>,
    /// The arm whose own capacity this is, and which alone was measured here; `null` where all were.
    pub own: Option<String>,
    /// By the arm's name: why it did not keep up in most slices of most blocks. Arms that did are absent.
    pub overloaded: BTreeMap<String, String>,
    /// One per arm and metric.
    pub metrics: Vec<CurveMetric>,
}

/// One metric of one arm at one rate. What can't be had is `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurveMetric {
    /// The arm's name.
    pub arm: String,
    /// Which metric.
    pub name: Metric,
    /// Its unit.
    pub unit: String,
    /// The Hodges-Lehmann estimate over the valid blocks (of logarithms). `null` too where a quantile has fewer than 100
    /// samples above it in a block.
    pub value: Option<f64>,
    /// Lower end of its interval.
    pub ci_low: Option<f64>,
    /// Upper end of its interval.
    pub ci_high: Option<f64>,
    /// How sure both intervals really are: 0.969 for six blocks.
    pub confidence: Option<f64>,
    /// How many blocks it stands on.
    pub blocks_used: usize,
    /// arm / baseline at this rate; `null` for the baseline itself, and where either was overloaded.
    pub ratio: Option<f64>,
    /// Lower end of its interval.
    pub ratio_low: Option<f64>,
    /// Upper end of its interval.
    pub ratio_high: Option<f64>,
    /// Corrected for all that was asked with it.
    pub p_adjusted: Option<f64>,
    /// The word; `null` where nothing was compared.
    pub verdict: Option<Verdict>,
    /// Why the verdict is `invalid` or `undecided`, or why there is no value.
    pub reason: Option<String>,
}

/// Where an arm's p99 takes off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Knee {
    /// The arm's name.
    pub arm: String,
    /// The highest measured rate up to which p99 is at most [`KNEE_RATIO`] times that at the lowest rate where it is known.
    /// `null` where it is unknown at every rate, or the arm was overloaded before.
    pub rate_per_s: Option<f64>,
    /// Whether that is the highest rate at which the arm was measured: its knee, if it has one, lies beyond.
    pub at_highest: bool,
}

/// One block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurveBlock {
    /// Counted from 1, as its files are.
    pub index: usize,
    /// Whether it counts.
    pub valid: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// Each arm at each rate, as far as it was measured.
    pub cells: Vec<CurveCell>,
}

/// One arm at one rate in one block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurveCell {
    /// The arm's name.
    pub arm: String,
    /// Messages due per second.
    pub rate_per_s: f64,
    /// What it did.
    pub figures: ArmFigures,
}

impl CurvePoint {
    /// A metric of an arm.
    #[must_use]
    pub fn metric(&self, arm: &str, name: Metric) -> Option<&CurveMetric> {
        self.metrics
            .iter()
            .find(|metric| metric.arm == arm && metric.name == name)
    }

    /// The names of those that were measured here, in the order of the arms.
    pub fn arms(&self) -> impl Iterator<Item = &str> {
        let first = self.metrics.first().map(|metric| metric.name);
        self.metrics
            .iter()
            .filter(move |metric| Some(metric.name) == first)
            .map(|metric| metric.arm.as_str())
    }
}
