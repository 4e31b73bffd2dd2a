//! From the blocks' answers to one: the middle, and the range. Pure.

/// The middle of the blocks' answers and their range. `None` (even the lowest rate failed) is below every rate.
#[must_use]
pub(crate) fn middle(found: &[Option<f64>]) -> (Option<f64>, Option<f64>, Option<f64>) {
    let mut sorted = found.to_vec();
    // `None` sorts first.
    sorted.sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    let half = sorted.len() / 2;
    let middle = match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => sorted[half],
        _ => sorted[half - 1]
            .zip(sorted[half])
            .map(|(low, high)| f64::midpoint(low, high)),
    };
    (
        middle,
        sorted.first().copied().flatten(),
        sorted.last().copied().flatten(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_knows_that_nothing_is_below_the_lowest() {
        let some = |rates: &[f64]| rates.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(
            middle(&some(&[3.0, 1.0, 2.0])),
            (Some(2.0), Some(1.0), Some(3.0))
        );
        assert_eq!(
            middle(&some(&[4.0, 1.0, 2.0, 3.0])),
            (Some(2.5), Some(1.0), Some(4.0))
        );
        assert_eq!(
            middle(&[None, Some(1.0), Some(2.0)]),
            (Some(1.0), None, Some(2.0))
        );
        assert_eq!(
            middle(&[None, None, Some(2.0), Some(2.0)]),
            (None, None, Some(2.0))
        );
        assert_eq!(middle(&[]), (None, None, None));
        assert_eq!(middle(&[None; 6]), (None, None, None));
    }
}
