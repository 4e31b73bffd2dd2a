//! What the blocks of a comparison gave for one question, and the test that one question asked alone is answered by.

use crate::{ALPHA, Interval, RunBlock, aligned_rank, blocks_min, signed_rank};

/// What the blocks gave for one question, on the scale of logarithms; finite. One entry for each block, the same blocks
/// for all questions of a comparison; `None` for a block that gave nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    /// Slices: ln(arm / baseline).
    Ratios(Vec<Option<f64>>),
    /// Whole runs: ln of each run's figure.
    Runs(Vec<Option<RunBlock>>),
}

impl Samples {
    /// How many blocks gave something.
    #[must_use]
    pub fn blocks(&self) -> usize {
        match self {
            Self::Ratios(ratios) => ratios.iter().flatten().count(),
            Self::Runs(blocks) => blocks.iter().flatten().count(),
        }
    }

    /// The exact rank test over the blocks that gave something. `None` where none did.
    pub(crate) fn test(&self) -> Option<Test> {
        match self {
            Self::Ratios(ratios) => {
                let ratios: Vec<f64> = ratios.iter().copied().flatten().collect();
                signed_rank(&ratios, ALPHA).map(|test| Test {
                    estimate: test.estimate,
                    p: test.p,
                    interval: test.interval,
                })
            }
            Self::Runs(blocks) => {
                let blocks: Vec<RunBlock> = blocks.iter().flatten().cloned().collect();
                let test = aligned_rank(&blocks, ALPHA)?;
                // Fewer would do for the ranks, but blocks are few enough to be all of one odd minute.
                let enough = blocks_min(ALPHA) <= blocks.len();
                Some(Test {
                    estimate: test.estimate,
                    p: test.p.filter(|_| enough),
                    interval: test.interval.filter(|_| enough),
                })
            }
        }
    }
}

/// What either test gives, on the scale of logarithms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Test {
    pub estimate: f64,
    pub p: Option<f64>,
    pub interval: Option<Interval>,
}
