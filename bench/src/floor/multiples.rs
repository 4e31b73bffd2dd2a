//! What the floor says of the servers: each one's CPU a message as a multiple of the kernel's own, block by block,
//! and over the blocks with its interval. Pure: it can be repeated on a saved file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    floor::{FloorSlice, pairs::PairsPlan},
    judge::figures::BlockFigures,
    measure::slices::{ArmBlock, Block},
    statistics::{ALPHA, median, signed_rank},
};

/// The floor in one block, as it stands in `compare.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloorFigures {
    /// CPU time an echo and side, less two empty syscalls: the median over its slices.
    pub cpu_ns_per_message: f64,
    /// What two empty syscalls cost: the median over its slices.
    pub two_syscalls_ns: f64,
    /// Echoes of either side.
    pub echoes: u64,
    /// How many slices it had.
    pub slices: usize,
    /// By the arm's name: its server's CPU a message over the floor's, the median over the cycles. Arms whose CPU is
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
    /// CPU time an echo and side, less two empty syscalls: the median over the valid blocks.
    pub cpu_ns_per_message: Option<f64>,
    /// What two empty syscalls cost: the median over the valid blocks.
    pub two_syscalls_ns: Option<f64>,
    /// One entry an arm, the baseline too. They carry no verdict, and take no part in any correction.
    pub multiples: Vec<FloorMultiple>,
}

/// How many times the floor an arm's server needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloorMultiple {
    /// The arm's name.
    pub arm: String,
    /// Server CPU a message over the floor: the Hodges-Lehmann estimate over the blocks.
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

impl FloorFigures {
    /// The figures of a whole `block`; `names` are the arms' in their order. `None` where the floor had no slice, or
    /// nothing was left of it.
    #[must_use]
    pub fn of(block: &Block, names: &[String]) -> Option<Self> {
        let slices: Vec<&FloorSlice> = block.floor.iter().map(|(_, slice)| slice).collect();
        let of_slices = |part: &dyn Fn(&FloorSlice) -> Option<f64>| {
            let parts: Vec<f64> = slices.iter().filter_map(|slice| part(slice)).collect();
            median(&parts)
        };
        let multiples = names
            .iter()
            .zip(&block.arms)
            .filter_map(|(name, arm)| Some((name.clone(), multiple(arm, &block.floor)?)));
        Some(Self {
            cpu_ns_per_message: of_slices(&FloorSlice::ns_per_echo)?,
            two_syscalls_ns: of_slices(&|slice| Some(slice.two_syscalls_ns))?,
            echoes: slices.iter().map(|slice| slice.echoes).sum(),
            slices: slices.len(),
            multiples: multiples.collect(),
        })
    }
}

/// The median over the cycles of the logarithm, as for every ratio of a block.
fn multiple(arm: &ArmBlock, floor: &[(u32, FloorSlice)]) -> Option<f64> {
    let floor: BTreeMap<u32, f64> = floor
        .iter()
        .filter_map(|(cycle, slice)| Some((*cycle, slice.ns_per_echo()?)))
        .collect();
    let logarithms: Vec<f64> = arm
        .slices
        .iter()
        .filter_map(|slice| {
            let a_message = slice.server_cpu_ns? as f64 / slice.messages as f64;
            let ratio = a_message / floor.get(&slice.cycle)?;
            (0.0 < ratio && ratio.is_finite()).then(|| ratio.ln())
        })
        .collect();
    median(&logarithms).map(f64::exp)
}

impl FloorEntry {
    /// A floor that is to be measured.
    #[must_use]
    pub fn planned(cpu: u32, pairs: &PairsPlan, notes: Vec<String>) -> Self {
        Self {
            cpu: Some(cpu),
            pairs: Some(pairs.pairs),
            notes,
            ..Self::withheld(None)
        }
    }

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

    /// The same with what the blocks so far have given.
    #[must_use]
    pub fn answered(mut self, names: &[String], blocks: &[BlockFigures]) -> Self {
        let floors: Vec<&FloorFigures> = blocks
            .iter()
            .filter(|block| block.valid)
            .filter_map(|block| block.floor.as_ref())
            .collect();
        let over_blocks = |part: fn(&FloorFigures) -> f64| {
            median(&floors.iter().map(|floor| part(floor)).collect::<Vec<_>>())
        };
        self.cpu_ns_per_message = over_blocks(|floor| floor.cpu_ns_per_message);
        self.two_syscalls_ns = over_blocks(|floor| floor.two_syscalls_ns);
        self.multiples = match floors.is_empty() {
            true => Vec::new(),
            false => names
                .iter()
                .map(|name| FloorMultiple::of(name, &floors))
                .collect(),
        };
        self
    }
}

impl FloorMultiple {
    fn of(name: &str, floors: &[&FloorFigures]) -> Self {
        let logarithms: Vec<f64> = floors
            .iter()
            .filter_map(|floor| Some(floor.multiples.get(name)?.ln()))
            .collect();
        let test = signed_rank(&logarithms, ALPHA);
        let interval = test.and_then(|test| test.interval);
        let reason = test
            .is_none()
            .then(|| format!("{name} runs elsewhere or unseen: its CPU is unknown"));
        Self {
            arm: name.to_owned(),
            ratio: test.map(|test| test.estimate.exp()),
            ci_low: interval.map(|interval| interval.low.exp()),
            ci_high: interval.map(|interval| interval.high.exp()),
            confidence: interval.map(|interval| interval.confidence),
            blocks_used: logarithms.len(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floors(multiples: &[f64]) -> Vec<BlockFigures> {
        multiples
            .iter()
            .zip(1..)
            .map(|(&multiple, index)| BlockFigures {
                valid: true,
                reasons: Vec::new(),
                floor: Some(FloorFigures {
                    cpu_ns_per_message: 7_000.0 + multiple,
                    two_syscalls_ns: 250.0,
                    echoes: 100,
                    slices: 60,
                    multiples: [("epoll".to_owned(), multiple)].into(),
                }),
                ..BlockFigures::failed(index, String::new())
            })
            .collect()
    }

    fn names() -> Vec<String> {
        vec!["epoll".to_owned(), "far".to_owned()]
    }

    #[test]
    fn each_arm_has_a_multiple_or_a_reason() {
        let blocks = floors(&[1.10, 1.12, 1.11, 1.13, 1.09, 1.11]);
        let entry = FloorEntry::withheld(None).answered(&names(), &blocks);
        assert_eq!(entry.cpu_ns_per_message, Some(7_001.11));
        let [epoll, far] = &entry.multiples[..] else {
            panic!("one an arm: {entry:?}")
        };
        assert!(
            epoll
                .ratio
                .is_some_and(|ratio| (1.10..1.12).contains(&ratio))
        );
        assert!(epoll.ci_low.is_some_and(|low| (low - 1.09).abs() < 1e-9));
        assert!(epoll.ci_high.is_some_and(|high| (high - 1.13).abs() < 1e-9));
        assert_eq!((far.ratio, far.blocks_used), (None, 0));
        assert!(
            far.reason
                .as_ref()
                .is_some_and(|reason| reason.contains("unknown"))
        );
    }

    #[test]
    fn few_blocks_have_a_multiple_without_an_interval_and_invalid_ones_count_nothing() {
        let mut blocks = floors(&[1.1, 1.2, 9.0]);
        blocks[2].valid = false;
        let entry = FloorEntry::withheld(None).answered(&names()[..1], &blocks);
        let multiple = &entry.multiples[0];
        assert_eq!((multiple.ci_low, multiple.blocks_used), (None, 2));
        assert!(multiple.ratio.is_some_and(|ratio| ratio < 1.2));
        let nothing = FloorEntry::withheld(None).answered(&names(), &[]);
        assert_eq!(
            (nothing.cpu_ns_per_message, nothing.multiples),
            (None, Vec::new())
        );
    }
}
