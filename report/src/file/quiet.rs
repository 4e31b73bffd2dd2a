//! The short look at the cpus before a comparison of latencies.

use serde::{Deserialize, Serialize};

/// What the look showed, and whether both sides were placed by it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuietEntry {
    /// How long each cpu was looked at, in ns.
    pub look_ns: u64,
    /// The candidates, the topology's choice first.
    pub cpus: Vec<QuietCpu>,
    /// Why both sides are not where the topology alone would have them; `null` where they are.
    pub moved: Option<String>,
}

/// One candidate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct QuietCpu {
    /// Which.
    pub cpu: u32,
    /// The mean wait that its gaps give a message which is due at any time, in ns.
    pub mean_wait_ns: f64,
    /// The longest gap, in ns.
    pub longest_ns: u64,
}
