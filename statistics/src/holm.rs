//! Holm's correction: when several questions are asked of the same blocks, one of them would be answered wrongly
//! by chance sooner or later. Source: Holm, A simple sequentially rejective multiple test procedure (1979).

/// Adjusts p values, in the order given: each may then be compared with the size of the whole family.
///
/// The i-th smallest of m is multiplied by m - i + 1, never falls below an adjusted smaller one, and ends at 1.
#[must_use]
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut by_size: Vec<usize> = (0..p_values.len()).collect();
    by_size.sort_by(|&left, &right| p_values[left].total_cmp(&p_values[right]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut floor = 0.0_f64;
    for (position, &index) in by_size.iter().enumerate() {
        let factor = (p_values.len() - position) as f64;
        floor = floor.max(p_values[index] * factor).min(1.0);
        adjusted[index] = floor;
    }
    adjusted
}

/// The blocks that `questions` asked together need before the smallest of them can be decided at `alpha`: the
/// smallest K with 2 m / 2^K <= alpha (the smallest two-sided p of K sign flips, times m).
#[must_use]
pub fn blocks_needed(questions: usize, alpha: f64) -> usize {
    (1..)
        .find(|&k| 2.0 * questions as f64 * 0.5_f64.powi(k) <= alpha)
        .unwrap_or(1) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_example() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (got, expected) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((got - expected).abs() < 1e-12, "{adjusted:?}");
        }
        assert_eq!(holm(&[]), Vec::<f64>::new());
        assert_eq!(holm(&[0.3]), vec![0.3]);
        assert_eq!(holm(&[0.6, 0.7]), vec![1.0, 1.0]);
    }

    #[test]
    fn blocks_needed_grows_with_the_questions() {
        assert_eq!(blocks_needed(1, 0.05), 6);
        assert_eq!(blocks_needed(6, 0.05), 8);
        assert_eq!(blocks_needed(7, 0.05), 9);
        assert_eq!(blocks_needed(24, 0.05), 10);
    }

    proptest! {
        /// Holm's own wording, step by step: reject while p_(i) <= alpha / (m - i + 1), stop at the first that fails.
        #[test]
        fn rejects_what_the_stepwise_procedure_rejects(
            p_values in prop::collection::vec(0.0..1.0_f64, 1..12), alpha in 0.001..0.5_f64,
        ) {
            let mut by_size: Vec<usize> = (0..p_values.len()).collect();
            by_size.sort_by(|&left, &right| p_values[left].total_cmp(&p_values[right]));
            let mut rejected = vec![false; p_values.len()];
            for (position, &index) in by_size.iter().enumerate() {
                if alpha < p_values[index] * (p_values.len() - position) as f64 {
                    break;
                }
                rejected[index] = true;
            }
            let adjusted: Vec<bool> = holm(&p_values).iter().map(|&p| p <= alpha).collect();
            prop_assert_eq!(adjusted, rejected);
        }
    }
}
