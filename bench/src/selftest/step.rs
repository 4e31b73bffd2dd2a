//! What happens in a selftest, for whoever shows its progress.

use std::time::Duration;

use echometer_loadgen::plan::Engine;
use echometer_report::file::selftest::{Selftest, Truth};

/// One look at one truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    /// Which.
    pub truth: Truth,
    /// The client's engine.
    pub client: Engine,
    /// Counted from 1.
    pub attempt: usize,
    /// How long the last attempt took.
    pub(crate) took: Duration,
}

/// What happens; for whoever shows progress.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A truth is about to be looked at.
    Begin {
        /// Counted from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// Which.
        item: Item,
    },
    /// It was looked at, and is saved: the last of the selftest's outcomes.
    End(&'a Selftest),
}
