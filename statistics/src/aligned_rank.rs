//! The aligned-rank test for blocks of whole runs, several of each arm in random order within a block: subtract each
//! block's median, rank everything together, and ask how the arm's ranks would have come out had the labels within
//! the blocks been dealt otherwise.
//!
//! Source: Hodges and Lehmann, Rank methods for combination of independent experiments in analysis of variance,
//! Annals of Mathematical Statistics 33 (1962), 482-497. Exact over all labellings, by convolution over the blocks.

use crate::{Interval, median};

/// The runs of one block, on the scale of the test (here logarithms): as many of the arm as of the baseline.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunBlock {
    /// One value per run of the baseline; finite.
    pub baseline: Vec<f64>,
    /// One value per run of the arm; finite.
    pub arm: Vec<f64>,
}

/// What the test gives: how far the arm lies above the baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AlignedRank {
    /// Hodges-Lehmann: the shift that, taken off the arm, balances the ranks; the middle where several do.
    pub estimate: f64,
    /// Two-sided, exact. `None` where not even the most extreme labelling reaches `alpha`.
    pub p: Option<f64>,
    /// The shifts that the test does not reject. `None` where `p` is.
    pub interval: Option<Interval>,
}

/// Tests whether arm and baseline differ, and estimates by how much.
///
/// `alpha` is the size of the test, 0 < alpha < 1; the interval's confidence is 1 - `alpha` or a little more, for ranks
/// come in steps. `None` where no block has runs of both.
#[must_use]
pub fn aligned_rank(blocks: &[RunBlock], alpha: f64) -> Option<AlignedRank> {
    if blocks
        .iter()
        .any(|block| block.arm.len() != block.baseline.len())
    {
        return None;
    }
    let blocks: Vec<&RunBlock> = blocks.iter().collect();
    let reach = reach(&blocks)?;
    let estimate = f64::midpoint(
        crossing(-reach, reach, |shift| 0.0 < imbalance(&blocks, shift)),
        crossing(-reach, reach, |shift| 0.0 <= imbalance(&blocks, shift)),
    );
    // Beyond the data's reach every value of the arm lies on one side: what is not rejected there never will be.
    let decides = |shift: f64| p_value(&blocks, shift) <= alpha;
    let interval = (decides(estimate - reach) && decides(estimate + reach)).then(|| Interval {
        low: crossing(estimate - reach, estimate, decides),
        high: crossing(estimate, estimate + reach, |shift| !decides(shift)),
        confidence: 1.0 - alpha,
    });
    let p = interval.map(|_| p_value(&blocks, 0.0));
    Some(AlignedRank {
        estimate,
        p,
        interval,
    })
}

/// A shift that parts the arm from the baseline in every block, whichever way it is applied.
fn reach(blocks: &[&RunBlock]) -> Option<f64> {
    let values = || {
        blocks
            .iter()
            .flat_map(|block| block.baseline.iter().chain(&block.arm))
            .copied()
    };
    let (low, high) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
    Some(2.0 * (high - low) + 1.0)
}

/// Where between `low` and `high` something that holds at first ceases to hold, to the last bit that matters.
fn crossing(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// Ranks of the arm minus what they would be on average, with `shift` taken off the arm. Falls as the shift grows.
fn imbalance(blocks: &[&RunBlock], shift: f64) -> f64 {
    let ranks = aligned_ranks(blocks, shift);
    let sum = |side: fn(&BlockRanks) -> &[usize]| ranks.iter().flat_map(side).sum::<usize>() as f64;
    // With as many runs of each, either has half of all ranks on average.
    (sum(|block| &block.arm) - sum(|block| &block.baseline)) / 2.0
}

/// Two-sided: twice the smaller tail of the labellings whose rank sum is at least as extreme, at most 1.
fn p_value(blocks: &[&RunBlock], shift: f64) -> f64 {
    let ranks = aligned_ranks(blocks, shift);
    let seen: usize = ranks.iter().flat_map(|block| &block.arm).sum();
    let distribution = label_distribution(&ranks);
    let tail = |part: &[f64]| part.iter().sum::<f64>();
    (2.0 * tail(&distribution[..=seen]).min(tail(&distribution[seen..]))).min(1.0)
}

/// Twice the midranks of a block's runs among all runs.
pub(crate) struct BlockRanks {
    pub baseline: Vec<usize>,
    pub arm: Vec<usize>,
}

/// Ranks all runs together, each less the median of its block, with `shift` taken off the arm.
pub(crate) fn aligned_ranks(blocks: &[&RunBlock], shift: f64) -> Vec<BlockRanks> {
    // As in the signed-rank test: what differs in the last bits only is a tie.
    const TIE: f64 = 1e12;
    let aligned: Vec<(Vec<f64>, Vec<f64>)> = blocks
        .iter()
        .map(|block| {
            let arm: Vec<f64> = block.arm.iter().map(|value| value - shift).collect();
            let all: Vec<f64> = block.baseline.iter().chain(&arm).copied().collect();
            let middle = median(&all).unwrap_or_default();
            let align = |values: &[f64]| {
                values
                    .iter()
                    .map(|value| ((value - middle) * TIE).round())
                    .collect()
            };
            (align(&block.baseline), align(&arm))
        })
        .collect();
    let mut sorted: Vec<f64> = aligned
        .iter()
        .flat_map(|(baseline, arm)| baseline.iter().chain(arm))
        .copied()
        .collect();
    sorted.sort_by(f64::total_cmp);
    let doubled = |values: &[f64]| -> Vec<usize> {
        values
            .iter()
            .map(|&value| {
                let below = sorted.partition_point(|&other| other < value);
                let not_above = sorted.partition_point(|&other| other <= value);
                below + not_above + 1
            })
            .collect()
    };
    aligned
        .iter()
        .map(|(baseline, arm)| BlockRanks {
            baseline: doubled(baseline),
            arm: doubled(arm),
        })
        .collect()
}

/// The probability of each sum of the arm's doubled ranks, every labelling within a block being as likely as any other.
fn label_distribution(blocks: &[BlockRanks]) -> Vec<f64> {
    let mut distribution = vec![1.0];
    for block in blocks {
        let part = block_distribution(block);
        let mut next = vec![0.0; distribution.len() + part.len() - 1];
        for (sum, probability) in distribution
            .iter()
            .enumerate()
            .filter(|(_, probability)| 0.0 < **probability)
        {
            for (more, share) in part.iter().enumerate() {
                next[sum + more] += probability * share;
            }
        }
        distribution = next;
    }
    distribution
}

/// The same for one block: of its ranks, as many as the arm has runs are drawn without replacement.
fn block_distribution(block: &BlockRanks) -> Vec<f64> {
    let ranks: Vec<usize> = block.arm.iter().chain(&block.baseline).copied().collect();
    let drawn_max = block.arm.len();
    let total: usize = ranks.iter().sum();
    // ways[drawn][sum]: in how many ways that many ranks add up to that sum.
    let mut ways = vec![vec![0.0; total + 1]; drawn_max + 1];
    ways[0][0] = 1.0;
    for rank in ranks {
        for drawn in (0..drawn_max).rev() {
            for sum in 0..=total - rank {
                let more = ways[drawn][sum];
                ways[drawn + 1][sum + rank] += more;
            }
        }
    }
    let all: f64 = ways[drawn_max].iter().sum();
    ways[drawn_max].iter().map(|ways| ways / all).collect()
}

/// The p alone, for simulations: the interval takes a hundred times as long.
#[cfg(test)]
pub(crate) fn p(blocks: &[RunBlock]) -> f64 {
    p_value(&blocks.iter().collect::<Vec<_>>(), 0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use rand_distr::{Distribution, Normal, StudentT};
    use statrs::distribution::{DiscreteCDF, Hypergeometric};

    use super::*;
    use crate::ALPHA;

    fn block(baseline: [f64; 2], arm: [f64; 2]) -> RunBlock {
        RunBlock {
            baseline: baseline.to_vec(),
            arm: arm.to_vec(),
        }
    }

    /// The definition, without shortcuts: every labelling of every block is tried.
    fn p_by_brute_force(blocks: &[RunBlock]) -> f64 {
        let ranks = aligned_ranks(&blocks.iter().collect::<Vec<_>>(), 0.0);
        let seen: usize = ranks.iter().flat_map(|block| &block.arm).sum();
        let mut sums = vec![0];
        for block in &ranks {
            let all: Vec<usize> = block.arm.iter().chain(&block.baseline).copied().collect();
            let draws: Vec<usize> = (0..1_u32 << all.len())
                .filter(|bits| bits.count_ones() as usize == block.arm.len())
                .map(|bits| {
                    all.iter()
                        .enumerate()
                        .filter(|(index, _)| bits >> index & 1 == 1)
                        .map(|(_, rank)| rank)
                        .sum()
                })
                .collect();
            sums = sums
                .iter()
                .flat_map(|sum| draws.iter().map(move |draw| sum + draw))
                .collect();
        }
        let share = |extreme: &dyn Fn(usize) -> bool| {
            sums.iter().filter(|&&sum| extreme(sum)).count() as f64 / sums.len() as f64
        };
        (2.0 * share(&|sum| sum <= seen).min(share(&|sum| seen <= sum))).min(1.0)
    }

    /// Where there are only two values, drawing ranks is drawing balls of two colours.
    #[test]
    fn one_block_of_two_values_is_the_hypergeometric_distribution() {
        for (baseline_high, arm_high) in [(0, 5), (1, 4), (2, 3), (3, 5), (4, 1), (5, 5)] {
            let side = |high: usize, runs: usize| {
                (0..runs)
                    .map(|run| f64::from(u8::from(run < high)))
                    .collect()
            };
            let block = RunBlock {
                baseline: side(baseline_high, 7),
                arm: side(arm_high, 5),
            };
            let high = (baseline_high + arm_high) as u64;
            let drawn = Hypergeometric::new(12, high, 5).expect("valid");
            let arm_high = arm_high as u64;
            let below = if arm_high == 0 {
                0.0
            } else {
                drawn.cdf(arm_high - 1)
            };
            let expected = (2.0 * drawn.cdf(arm_high).min(1.0 - below)).min(1.0);
            let got = p(&[block]);
            assert!(
                (got - expected).abs() < 1e-9,
                "{arm_high} of {high}: {got} {expected}"
            );
        }
    }

    /// Figures of an independent, slow implementation (bisection over enumerated labellings) for made-up blocks of 2 + 2.
    #[test]
    fn agrees_with_an_independent_implementation() {
        let first = [
            block([0.1572, 0.0481], [0.2243, 0.1618]),
            block([-0.1665, -0.2536], [-0.1837, -0.145]),
            block([1.1253, 1.1563], [1.1582, 1.1885]),
            block([-0.5047, -0.5136], [-0.4395, -0.3701]),
            block([-0.1884, -0.169], [-0.1592, -0.0964]),
            block([0.2757, 0.1958], [0.2981, 0.2173]),
        ];
        let second = [
            block([-0.6135, -0.5746], [-0.3686, -0.5337]),
            block([0.815, 0.7829], [0.9015, 0.9049]),
            block([1.0339, 1.0158], [1.0952, 1.0761]),
            block([-0.0842, 0.0085], [-0.0584, -0.0196]),
            block([-1.0578, -0.8581], [-0.9936, -0.8873]),
            block([-0.4424, -0.6245], [-0.3916, -0.4818]),
        ];
        let expected = [
            (first, 0.003_900_891_632_373_11, 0.053_45, 0.0215, 0.0975),
            (second, 0.028_249_314_128_943_8, 0.0671, 0.0021, 0.124_95),
        ];
        for (blocks, p, estimate, low, high) in expected {
            let result = aligned_rank(&blocks, ALPHA).expect("there are runs");
            let interval = result.interval.expect("six blocks are enough");
            assert!(
                result.p.is_some_and(|got| (got - p).abs() < 1e-9),
                "{result:?} {p}"
            );
            assert!(
                (result.estimate - estimate).abs() < 1e-3,
                "{result:?} {estimate}"
            );
            assert!((interval.low - low).abs() < 1e-6, "{result:?} {low}");
            assert!((interval.high - high).abs() < 1e-6, "{result:?} {high}");
        }
    }

    #[test]
    fn blocks_of_different_levels_are_aligned_away() {
        // The arm is 0.1 above in each block, while the blocks lie far apart.
        let blocks: Vec<RunBlock> = (0..6)
            .map(|index| {
                let level = f64::from(index * index);
                block([level, level + 0.01], [level + 0.1, level + 0.11])
            })
            .collect();
        let result = aligned_rank(&blocks, ALPHA).expect("there are runs");
        assert!((result.estimate - 0.1).abs() < 0.011, "{result:?}");
        let interval = result.interval.expect("six blocks are enough");
        assert!(
            0.0 < interval.low
                && interval.low <= result.estimate
                && result.estimate <= interval.high
        );
        // The most extreme of 6^6 labellings, both ways.
        assert!(
            result.p.is_some_and(|p| (p - 2.0 / 46_656.0).abs() < 1e-12),
            "{result:?}"
        );
    }

    #[test]
    fn too_few_labellings_give_an_estimate_only() {
        // 2 blocks: 36 labellings, smallest p 0.056.
        let result = aligned_rank(
            &[block([0.0, 0.1], [1.0, 1.1]), block([5.0, 5.1], [6.0, 6.1])],
            ALPHA,
        );
        let result = result.expect("there are runs");
        assert_eq!((result.p, result.interval), (None, None));
        assert!((result.estimate - 1.0).abs() < 0.11, "{result:?}");
        assert_eq!(aligned_rank(&[], ALPHA), None);
        let uneven = RunBlock {
            baseline: vec![1.0],
            arm: vec![1.0, 2.0],
        };
        assert_eq!(aligned_rank(&[uneven], ALPHA), None);
        assert_eq!(
            aligned_rank(
                &[RunBlock {
                    baseline: vec![1.0],
                    arm: Vec::new()
                }],
                ALPHA
            ),
            None
        );
    }

    #[test]
    fn ties_without_end_are_no_difference() {
        let blocks = vec![block([1.0, 1.0], [1.0, 1.0]); 6];
        let result = aligned_rank(&blocks, ALPHA).expect("there are runs");
        assert_eq!(result.p, Some(1.0));
        assert!(result.estimate.abs() < 1e-9, "{result:?}");
    }

    /// As `one_block` in the simulation of slices: 5,000 comparisons of alike arms with drift, heavy tails and spikes.
    #[test]
    fn alike_arms_are_told_apart_at_most_as_often_as_promised() {
        let mut random = StdRng::seed_from_u64(19_620_601);
        let tails = StudentT::new(2.0).expect("valid");
        let level = Normal::new(0.0, 0.3).expect("valid");
        let comparisons = 5_000;
        let rejected = (0..comparisons)
            .filter(|_| {
                let blocks: Vec<RunBlock> = (0..6)
                    .map(|_| {
                        let drift = level.sample(&mut random);
                        let mut runs: Vec<f64> = (0..4)
                            .map(|turn| {
                                let spike = if random.random_bool(0.1) { 0.4 } else { 0.0 };
                                drift * f64::from(turn) + spike + 0.05 * tails.sample(&mut random)
                            })
                            .collect();
                        // Random order within the block: the labels are dealt.
                        for last in (1..runs.len()).rev() {
                            runs.swap(last, random.random_range(0..=last));
                        }
                        block([runs[0], runs[1]], [runs[2], runs[3]])
                    })
                    .collect();
                p(&blocks) <= ALPHA
            })
            .count();
        println!("aligned ranks, A/A: {rejected} of {comparisons}");
        assert!(rejected <= comparisons * 55 / 1_000, "rejected {rejected}");
    }

    fn blocks(
        coarse: bool,
        count: std::ops::RangeInclusive<usize>,
    ) -> impl Strategy<Value = Vec<RunBlock>> {
        let value = (-100..=100_i32).prop_map(move |value| {
            let step = if coarse { 25 } else { 1 };
            f64::from(value / step * step) / 100.0
        });
        let runs = (1..=3_usize).prop_flat_map(move |runs| {
            let side = prop::collection::vec(value.clone(), runs);
            (side.clone(), side)
        });
        let block = runs.prop_map(|(baseline, arm)| RunBlock { baseline, arm });
        prop::collection::vec(block, count)
    }

    proptest! {
        #[test]
        fn exact_p_equals_brute_force(blocks in blocks(false, 1..=3)) {
            prop_assert!((p(&blocks) - p_by_brute_force(&blocks)).abs() < 1e-12);
        }

        #[test]
        fn exact_p_equals_brute_force_with_ties(blocks in blocks(true, 1..=3)) {
            prop_assert!((p(&blocks) - p_by_brute_force(&blocks)).abs() < 1e-12);
        }

        /// A shift of the whole arm shifts the answer by as much.
        #[test]
        fn the_estimate_follows_the_arm(blocks in blocks(false, 3..=6), shift in -0.5..0.5_f64) {
            let moved: Vec<RunBlock> = blocks
                .iter()
                .map(|block| RunBlock {
                    baseline: block.baseline.clone(),
                    arm: block.arm.iter().map(|value| value + shift).collect(),
                })
                .collect();
            let (one, other) = (aligned_rank(&blocks, ALPHA), aligned_rank(&moved, ALPHA));
            let (one, other) = (one.expect("runs"), other.expect("runs"));
            prop_assert!((one.estimate + shift - other.estimate).abs() < 1e-6, "{one:?} {other:?}");
        }
    }
}
