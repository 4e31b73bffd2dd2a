//! `floor.json`, and the floor in a comparison: what an echo costs the kernel at least, as plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use echometer_host::{fitness::Finding, machine::Facts};

/// The floor in one block, as it stands in `compare.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloorFigures {
    /// CPU time per echo and side, minus two empty syscalls: the median over its slices.
    pub cpu_ns_per_message: f64,
    /// What two empty syscalls cost: the median over its slices.
    pub two_syscalls_ns: f64,
    /// Echoes of either side.
    pub echoes: u64,
    /// How many slices it had.
    pub slices: usize,
    /// By the arm's name: its server's CPU per message over the floor's, the median over the cycles. Arms whose CPU is
    /// unknown are absent.
    pub multiples: BTreeMap<String, f64>,
}

/// The floor of a comparison, as it stands in `compare.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloorEntry {
    /// Why there is none; every figure is `null` then.
    pub withheld: Option<String>,
    /// What to know when reading it.
    pub notes: Vec<String>,
    /// The cpu that its thread was pinned to: the servers' first.
    pub cpu: Option<u32>,
    /// Its connections: as many as the load's.
    pub pairs: Option<u32>,
    /// CPU time per echo and side, minus two empty syscalls: the median over the valid blocks.
    pub cpu_ns_per_message: Option<f64>,
    /// What two empty syscalls cost: the median over the valid blocks.
    pub two_syscalls_ns: Option<f64>,
    /// One entry per arm, the baseline too. They carry no verdict, and take no part in any correction.
    pub multiples: Vec<FloorMultiple>,
}

/// How many times the floor an arm's server needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloorMultiple {
    /// The arm's name.
    pub arm: String,
    /// Server CPU per message over the floor: the Hodges-Lehmann estimate over the blocks.
    pub ratio: Option<f64>,
    /// Lower end of its interval; `null` below six blocks.
    pub ci_low: Option<f64>,
    /// Upper end of its interval.
    pub ci_high: Option<f64>,
    /// How sure the interval is.
    pub confidence: Option<f64>,
    /// How many blocks it stands on.
    pub blocks_used: usize,
    /// Why there is no multiple, if so.
    pub reason: Option<String>,
}

/// What the file says of its form.
pub const SCHEMA: &str = "echometer.floor/1";

/// The name of the file in its folder.
pub const FILE_NAME: &str = "floor.json";

/// A measurement of the floor, as it is saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloorFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Whether it was stopped before its last block; only whole blocks are in it.
    pub cut_short: bool,
    /// How it is measured, in words.
    pub method: String,
    /// What to know when reading it.
    pub caveats: Vec<String>,
    /// The answer for people.
    pub sentence: String,
    /// The command line.
    pub command: String,
    /// Where it was measured.
    pub machine: Facts,
    /// Whether that machine is fit to measure on; empty in files from before it was asked.
    #[serde(default)]
    pub doctor: Vec<Finding>,
    /// The cpu that the thread was pinned to.
    pub cpu: u32,
    /// Bytes in a message.
    pub message_size: u32,
    /// How long each row was measured in a block, in ns.
    pub duration_ns: u64,
    /// Repeats the order within the blocks.
    pub seed: u64,
    /// One per number of connections.
    pub rows: Vec<FloorRow>,
}

/// The floor at one number of connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloorRow {
    /// Pairs of sockets.
    pub connections: u32,
    /// CPU time per echo and side, minus two empty syscalls: Hodges-Lehmann over the blocks.
    pub cpu_ns_per_message: Option<f64>,
    /// Lower end of its interval; `null` below six blocks.
    pub ci_low: Option<f64>,
    /// Upper end of its interval.
    pub ci_high: Option<f64>,
    /// How sure the interval is.
    pub confidence: Option<f64>,
    /// What two empty syscalls cost: the median over the blocks.
    pub two_syscalls_ns: Option<f64>,
    /// Every block's value of `cpu_ns_per_message`, in order.
    pub blocks: Vec<f64>,
    /// Echoes of either side, over all blocks.
    pub echoes: u64,
}

/// What stands for the floor among the arms' names; no arm can be named so.
pub const LABEL: &str = "(floor)";

impl FloorEntry {
    /// No floor, and why not.
    #[must_use]
    pub fn withheld(reason: Option<String>) -> Self {
        Self {
            withheld: reason,
            notes: Vec::new(),
            cpu: None,
            pairs: None,
            cpu_ns_per_message: None,
            two_syscalls_ns: None,
            multiples: Vec::new(),
        }
    }
}
