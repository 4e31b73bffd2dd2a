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

impl Design {
    /// The word, as it stands in files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Slices => "slices",
            Self::Runs => "runs",
        }
    }
}
