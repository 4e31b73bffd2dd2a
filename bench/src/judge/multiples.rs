//! What the floor says of the servers: each one's CPU per message as a multiple of the kernel's own, block by block,
//! and over the blocks with its interval. Pure: it can be repeated on a saved file.

use echometer_report::file::{
    figures::BlockFigures,
    floor::{FloorEntry, FloorFigures, FloorMultiple},
};
use echometer_statistics::{ALPHA, median, signed_rank};

use crate::{judge::objections::cpu_unknown, measure::floor::pairs::PairsPlan};

/// A floor that is to be measured.
#[must_use]
pub(crate) fn planned(cpu: u32, pairs: &PairsPlan, notes: Vec<String>) -> FloorEntry {
    FloorEntry {
        cpu: Some(cpu),
        pairs: Some(pairs.pairs),
        notes,
        ..FloorEntry::withheld(None)
    }
}

/// The same with what the blocks so far have given.
#[must_use]
pub(crate) fn answered(
    mut floor: FloorEntry,
    names: &[String],
    blocks: &[BlockFigures],
) -> FloorEntry {
    let floors: Vec<&FloorFigures> = blocks
        .iter()
        .filter(|block| block.valid)
        .filter_map(|block| block.floor.as_ref())
        .collect();
    let over_blocks = |part: fn(&FloorFigures) -> f64| {
        median(&floors.iter().map(|floor| part(floor)).collect::<Vec<_>>())
    };
    floor.cpu_ns_per_message = over_blocks(|figures| figures.cpu_ns_per_message);
    floor.two_syscalls_ns = over_blocks(|figures| figures.two_syscalls_ns);
    floor.multiples = match floors.is_empty() {
        true => Vec::new(),
        false => names
            .iter()
            .map(|name| multiple_over_blocks(name, &floors))
            .collect(),
    };
    floor
}

fn multiple_over_blocks(name: &str, floors: &[&FloorFigures]) -> FloorMultiple {
    let logarithms: Vec<f64> = floors
        .iter()
        .filter_map(|floor| Some(floor.multiples.get(name)?.ln()))
        .collect();
    let test = signed_rank(&logarithms, ALPHA);
    let interval = test.and_then(|test| test.interval);
    let reason = test.is_none().then(|| cpu_unknown(name));
    FloorMultiple {
        arm: name.to_owned(),
        ratio: test.map(|test| test.estimate.exp()),
        ci_low: interval.map(|interval| interval.low.exp()),
        ci_high: interval.map(|interval| interval.high.exp()),
        confidence: interval.map(|interval| interval.confidence),
        blocks_used: logarithms.len(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::figures::failed_block;

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
                ..failed_block(index, String::new())
            })
            .collect()
    }

    fn names() -> Vec<String> {
        vec!["epoll".to_owned(), "far".to_owned()]
    }

    #[test]
    fn each_arm_has_a_multiple_or_a_reason() {
        let blocks = floors(&[1.10, 1.12, 1.11, 1.13, 1.09, 1.11]);
        let entry = answered(FloorEntry::withheld(None), &names(), &blocks);
        assert_eq!(entry.cpu_ns_per_message, Some(7_001.11));
        let [epoll, far] = &entry.multiples[..] else {
            panic!("one per arm: {entry:?}")
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
        let entry = answered(FloorEntry::withheld(None), &names()[..1], &blocks);
        let multiple = &entry.multiples[0];
        assert_eq!((multiple.ci_low, multiple.blocks_used), (None, 2));
        assert!(multiple.ratio.is_some_and(|ratio| ratio < 1.2));
        let nothing = answered(FloorEntry::withheld(None), &names(), &[]);
        assert_eq!(
            (nothing.cpu_ns_per_message, nothing.multiples),
            (None, Vec::new())
        );
    }
}
