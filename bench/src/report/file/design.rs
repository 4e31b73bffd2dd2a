//! How the arms of a comparison take turns.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the arms of a comparison take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Design {
    /// All servers alive, loaded in turn in short slices.
    Slices,
    /// Whole runs in random order, two of each arm in a block, each on a server started afresh.
    Runs,
}
