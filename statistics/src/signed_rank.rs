//! Wilcoxon's signed-rank test, exact over the sign flips of the ranks that were really seen, with the
//! Hodges-Lehmann estimate and the interval that belong to it.
//!
//! Sources: Wilcoxon, Individual comparisons by ranking methods (1945); Hodges and Lehmann, Estimates of location
//! based on rank tests (1963); for zeros Pratt, Remarks on zeros and ties (1959): zeros are ranked with the others,
//! then carry no sign.

use crate::median;

/// What a test over one value per block gives. All on the scale of the values (here logarithms of ratios).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignedRank {
    /// Hodges-Lehmann: the median of the Walsh averages, the means of all pairs (each value with itself too).
    pub estimate: f64,
    /// Two-sided, exact. `None` below [`blocks_min`] values: no such p could reach `alpha`.
    pub p: Option<f64>,
    /// `None` below [`blocks_min`] values: no interval of that confidence exists.
    pub interval: Option<Interval>,
}

/// A confidence interval from order statistics of the Walsh averages.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// How sure it really is, 0..1: at least what was asked, and more, because ranks come in steps
    /// (0.961 for eight values where 0.95 was asked).
    pub confidence: f64,
}

/// Tests whether values scatter around zero and estimates around what they do scatter.
///
/// `alpha` is the size of the test and one minus the confidence asked, 0 < alpha < 1. `None` where there is no
/// value. Values must be finite.
#[must_use]
pub fn signed_rank(values: &[f64], alpha: f64) -> Option<SignedRank> {
    let walsh = walsh_averages(values);
    let estimate = median(&walsh)?;
    let interval = interval(&walsh, values.len(), alpha);
    let p = interval.map(|_| p_value(values));
    Some(SignedRank {
        estimate,
        p,
        interval,
    })
}

/// The fewest values for which an interval of confidence 1 - `alpha` exists: 6 for 5 %.
///
/// The most extreme of the 2^K sign flips has the two-sided p of 2 / 2^K.
#[must_use]
pub fn blocks_min(alpha: f64) -> usize {
    (1..).find(|&k| 2.0 * 0.5_f64.powi(k) <= alpha).unwrap_or(1) as usize
}

/// The share of the 2^K sign flips that lie at least as far from balance as what was seen.
fn p_value(values: &[f64]) -> f64 {
    let ranks = doubled_midranks(values);
    let total: usize = ranks.iter().map(|&(_, rank)| rank).sum();
    let positive: usize = ranks
        .iter()
        .filter(|&&(sign, _)| sign > 0)
        .map(|&(_, rank)| rank)
        .sum();
    let weights: Vec<usize> = ranks.iter().map(|&(_, rank)| rank).collect();
    let imbalance = (2 * positive).abs_diff(total);
    flip_distribution(&weights)
        .iter()
        .enumerate()
        .filter(|&(sum, _)| imbalance <= (2 * sum).abs_diff(total))
        .map(|(_, probability)| probability)
        .sum()
}

/// Order statistics of the Walsh averages: the c-th smallest to the c-th largest, c as large as `alpha` allows.
///
/// The ranks here are 1..K: at a shift that equals no Walsh average only equal values are tied, and these have the
/// same sign, so that their sum of ranks is the same however the tie is broken.
fn interval(walsh: &[f64], values: usize, alpha: f64) -> Option<Interval> {
    let ranks: Vec<usize> = (1..=values).collect();
    let mut cut = 0;
    let mut tail = 0.0;
    for probability in flip_distribution(&ranks) {
        if alpha < 2.0 * (tail + probability) {
            break;
        }
        tail += probability;
        cut += 1;
    }
    // The c-th smallest has index c - 1; c = 0 means that not even the extremes reach the confidence.
    let below = usize::checked_sub(cut, 1)?;
    let mut sorted = walsh.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(Interval {
        low: sorted[below],
        high: sorted[sorted.len() - 1 - below],
        confidence: 1.0 - 2.0 * tail,
    })
}

/// (x + y) / 2 of every pair, each value with itself included: K (K + 1) / 2 of them.
fn walsh_averages(values: &[f64]) -> Vec<f64> {
    let mut averages = Vec::with_capacity(values.len() * (values.len() + 1) / 2);
    for (index, &first) in values.iter().enumerate() {
        averages.extend(
            values[index..]
                .iter()
                .map(|&second| f64::midpoint(first, second)),
        );
    }
    averages
}

/// Sign and twice the midrank of the distance from zero: doubled, ranks of ties are whole numbers, and sums of them
/// compare exactly. A zero is ranked with the others and then given the weight 0 (Pratt).
fn doubled_midranks(values: &[f64]) -> Vec<(i8, usize)> {
    // Two ratios that are each other's inverse differ from a tie in the last bit of their logarithms only.
    const TIE: f64 = 1e12;
    let rounded: Vec<f64> = values.iter().map(|value| (value * TIE).round()).collect();
    rounded
        .iter()
        .map(|&value| {
            let below = rounded
                .iter()
                .filter(|other| other.abs() < value.abs())
                .count();
            let equal = rounded
                .iter()
                .filter(|other| other.abs() == value.abs())
                .count();
            // The midrank of a group of ties on the ranks below + 1 ..= below + equal.
            let doubled = 2 * below + equal + 1;
            match value {
                0.0 => (0, 0),
                value if value < 0.0 => (-1, doubled),
                _ => (1, doubled),
            }
        })
        .collect()
}

/// The probability of each sum of weights, every weight being in the sum or not with even chances: the null
/// distribution by convolution. Probabilities are multiples of 2^-K, exact in a double up to K = 52.
fn flip_distribution(weights: &[usize]) -> Vec<f64> {
    let mut distribution = vec![0.0; weights.iter().sum::<usize>() + 1];
    distribution[0] = 1.0;
    let mut reached = 0;
    for &weight in weights {
        for sum in (0..=reached).rev() {
            let half = distribution[sum] / 2.0;
            distribution[sum] = half;
            distribution[sum + weight] += half;
        }
        reached += weight;
    }
    distribution
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal};

    use super::*;
    use crate::ALPHA;

    /// The definition, without shortcuts: every one of the 2^K sign patterns is tried.
    fn p_by_brute_force(values: &[f64]) -> f64 {
        let ranks = doubled_midranks(values);
        let signed_sum = |pattern: &dyn Fn(usize) -> i64| -> i64 {
            ranks
                .iter()
                .enumerate()
                .map(|(index, &(_, rank))| pattern(index) * rank as i64)
                .sum()
        };
        let seen = signed_sum(&|index| i64::from(ranks[index].0)).abs();
        let patterns = 1_u32 << values.len();
        let extreme = (0..patterns)
            .filter(|bits| {
                seen <= signed_sum(&|index| if bits >> index & 1 == 1 { 1 } else { -1 }).abs()
            })
            .count();
        extreme as f64 / f64::from(patterns)
    }

    #[test]
    fn eight_blocks_take_the_fourth_smallest_and_fourth_largest_walsh_average() {
        // With these values the 36 averages are all different.
        let values: Vec<f64> = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0].to_vec();
        let mut walsh = walsh_averages(&values);
        walsh.sort_by(f64::total_cmp);
        assert_eq!(walsh.len(), 36);
        let result = signed_rank(&values, ALPHA).expect("there are values");
        let interval = result.interval.expect("eight values have an interval");
        assert_eq!((interval.low, interval.high), (walsh[3], walsh[32]));
        assert!(
            (interval.confidence - (1.0 - 10.0 / 256.0)).abs() < 1e-12,
            "96.1 %"
        );
        assert_eq!(result.p, Some(2.0 / 256.0));
        assert_eq!(result.estimate, f64::midpoint(walsh[17], walsh[18]));
    }

    #[test]
    fn six_blocks_are_the_fewest() {
        assert_eq!(blocks_min(ALPHA), 6);
        let five = signed_rank(&[1.0, 2.0, 3.0, 4.0, 5.0], ALPHA).expect("there are values");
        assert_eq!((five.p, five.interval), (None, None));
        assert_eq!(five.estimate, 3.0);
        let six = signed_rank(&[1.0, 2.0, 3.0, 4.0, 5.0, 7.0], ALPHA).expect("there are values");
        let interval = six.interval.expect("six values have an interval");
        assert_eq!((interval.low, interval.high), (1.0, 7.0));
        assert_eq!(interval.confidence, 1.0 - 2.0 / 64.0);
        assert_eq!(signed_rank(&[], ALPHA), None);
    }

    /// Textbook critical values of T (two-sided 5 %): the largest T with p <= 0.05.
    #[test]
    fn cuts_agree_with_the_published_table() {
        for (blocks, critical) in [
            (6, 0),
            (7, 2),
            (8, 3),
            (9, 5),
            (10, 8),
            (12, 13),
            (15, 25),
            (20, 52),
            (25, 89),
        ] {
            let values: Vec<f64> = (1..=blocks)
                .map(|value| f64::from(1 << (value % 20)) * 1.001_f64.powi(value))
                .collect();
            let mut walsh = walsh_averages(&values);
            walsh.sort_by(f64::total_cmp);
            let interval = interval(&walsh, values.len(), ALPHA).expect("six or more");
            assert_eq!(interval.low, walsh[critical], "K = {blocks}");
        }
    }

    #[test]
    fn ties_alone_are_the_sign_test() {
        let binomial = Binomial::new(0.5, 9).expect("valid");
        for positive in 0..=9_u64 {
            let values: Vec<f64> = (0..9)
                .map(|index| if index < positive { 0.25 } else { -0.25 })
                .collect();
            let expected = (2.0 * binomial.cdf(positive.min(9 - positive))).min(1.0);
            assert!(
                (p_value(&values) - expected).abs() < 1e-12,
                "{positive} of 9"
            );
        }
    }

    #[test]
    fn many_blocks_approach_the_normal_distribution() {
        let blocks = 60;
        let values: Vec<f64> = (1..=blocks)
            .map(|rank| f64::from(rank) * if rank % 3 == 0 { -1.0 } else { 1.0 })
            .collect();
        let k = f64::from(blocks);
        let positive: f64 = values.iter().filter(|value| 0.0 < **value).sum();
        let variance = k * (k + 1.0) * (2.0 * k + 1.0) / 24.0;
        let distance = ((positive - k * (k + 1.0) / 4.0).abs() - 0.5) / variance.sqrt();
        let approximate = 2.0 * (1.0 - Normal::standard().cdf(distance));
        assert!(
            (p_value(&values) - approximate).abs() < 1e-3,
            "{} {approximate}",
            p_value(&values)
        );
    }

    #[test]
    fn zeros_are_ranked_and_carry_no_sign() {
        assert_eq!(p_value(&[0.0; 8]), 1.0);
        // Ranks: two zeros on 1 and 2, then 3..8 all positive: 2 of the 64 flips of six are as extreme.
        assert_eq!(
            p_value(&[0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            2.0 / 64.0
        );
        // Where zeros were dropped before ranking instead, 1 and -2 would weigh 1 and 2; here 2 and 3: both give p = 1.
        assert_eq!(p_value(&[0.0, 1.0, -2.0]), 1.0);
    }

    #[test]
    fn inverse_ratios_are_ties() {
        let values = [(1.1_f64 / 1.0).ln(), (1.0 / 1.1_f64).ln()];
        assert_eq!(p_value(&values), 1.0);
        assert_eq!(doubled_midranks(&values), vec![(1, 3), (-1, 3)]);
    }

    /// Values with many ties and zeros, so that midranks matter.
    fn coarse_values(max: usize) -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(
            (-4..=4_i32).prop_map(|value| f64::from(value) / 4.0),
            1..=max,
        )
    }

    proptest! {
        #[test]
        fn exact_p_equals_brute_force_with_ties_and_zeros(values in coarse_values(10)) {
            prop_assert!((p_value(&values) - p_by_brute_force(&values)).abs() < 1e-12);
        }

        #[test]
        fn exact_p_equals_brute_force(values in prop::collection::vec(-1.0..1.0_f64, 1..=10)) {
            prop_assert!((p_value(&values) - p_by_brute_force(&values)).abs() < 1e-12);
        }

        /// The interval holds exactly those shifts that the test does not reject.
        #[test]
        fn interval_is_the_test_inverted(values in prop::collection::vec(-1.0..1.0_f64, 6..=12), shift in -1.0..1.0_f64) {
            let interval = signed_rank(&values, ALPHA).and_then(|result| result.interval).expect("six or more values");
            let shifted: Vec<f64> = values.iter().map(|value| value - shift).collect();
            let held = interval.low <= shift && shift <= interval.high;
            prop_assert_eq!(held, ALPHA < p_value(&shifted));
        }

        /// Which arm is called the baseline changes the sign of the answer and nothing else.
        #[test]
        fn swapping_the_arms_mirrors_the_answer(values in coarse_values(12)) {
            let mirrored: Vec<f64> = values.iter().map(|value| -value).collect();
            let one = signed_rank(&values, ALPHA).expect("values");
            let other = signed_rank(&mirrored, ALPHA).expect("values");
            prop_assert!((one.estimate + other.estimate).abs() < 1e-12);
            prop_assert_eq!(one.p, other.p);
            prop_assert_eq!(one.interval.map(|interval| -interval.low), other.interval.map(|interval| interval.high));
        }
    }
}
