//! Whether a result can be trusted as a whole.

use serde::{Deserialize, Serialize};

/// Whether the comparison as a whole can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// `Invalid` when fewer than six blocks are valid, or the primary metric can't carry a verdict.
    pub status: Status,
    /// Why it is invalid, and what to do.
    pub reasons: Vec<String>,
    /// What to know besides.
    pub warnings: Vec<String>,
}

impl Trust {
    /// Of something of which nothing was measured.
    #[must_use]
    pub fn nothing_yet() -> Self {
        Self {
            status: Status::Invalid,
            reasons: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Takes reasons from elsewhere for not trusting it; none changes nothing.
    pub fn object(&mut self, reasons: Vec<String>) {
        if !reasons.is_empty() {
            self.status = Status::Invalid;
            self.reasons.extend(reasons);
        }
    }
}

/// See [`Trust`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The intervals hold what they promise.
    Valid,
    /// They don't.
    Invalid,
}
