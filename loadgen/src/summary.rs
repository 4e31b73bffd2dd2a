//! What does a histogram say? Its shape, and its figures as plain data: quantiles that have enough samples above them.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Values above this are clipped to it, and counted: 60 s in ns.
pub const VALUE_NS_MAX: u64 = 60_000_000_000;

/// An empty histogram as all of ours are: 1 ns to 60 s, 3 significant digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, VALUE_NS_MAX, 3)
        .expect("1 ns to 60 s in 3 digits is a shape that HdrHistogram has")
}

/// A histogram in figures, ns. A quantile with fewer than 10 samples above it is null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Samples, censored ones included.
    pub count: u64,
    /// The least.
    pub min: Option<u64>,
    /// The mean, rounded.
    pub mean: Option<u64>,
    /// Half lie at or below it.
    pub p50: Option<u64>,
    /// 90 % lie at or below it.
    pub p90: Option<u64>,
    /// 99 % lie at or below it.
    pub p99: Option<u64>,
    /// 99.9 % lie at or below it.
    pub p99_9: Option<u64>,
    /// 99.99 % lie at or below it.
    pub p99_99: Option<u64>,
    /// The greatest.
    pub max: Option<u64>,
    /// Where messages without an answer are among the samples: the least time that one had waited. A quantile (and
    /// the maximum) from here on is a lower bound of the true one: `>= x`.
    #[serde(default)]
    pub censored_from: Option<u64>,
}

impl Summary {
    /// Sums a histogram up. `censored_from` is the least value that is a lower bound and not a measurement.
    pub fn of(histogram: &Histogram<u64>, censored_from: Option<u64>) -> Summary {
        let count = histogram.len();
        if count == 0 {
            return Summary::default();
        }
        Summary {
            count,
            min: Some(histogram.min()),
            mean: Some(histogram.mean().round() as u64),
            p50: quantile(histogram, 0.5),
            p90: quantile(histogram, 0.9),
            p99: quantile(histogram, 0.99),
            p99_9: quantile(histogram, 0.999),
            p99_99: quantile(histogram, 0.999_9),
            max: Some(histogram.max()),
            // A bucket's quantiles are told as its upper end; the bound is brought to its lower.
            censored_from: censored_from.map(|from| histogram.lowest_equivalent(from)),
        }
    }

    /// Whether `value`, one of this summary's, is only known to be at least that.
    pub fn is_lower_bound(&self, value: u64) -> bool {
        self.censored_from.is_some_and(|from| from <= value)
    }
}

/// How many samples must lie above a quantile for it to be shown.
pub(crate) const SAMPLES_ABOVE_MIN: u64 = 10;

/// The value that a share `quantile` (below 1) of the samples doesn't exceed, if `SAMPLES_ABOVE_MIN` lie above it.
pub fn quantile(histogram: &Histogram<u64>, quantile: f64) -> Option<u64> {
    let count = histogram.len();
    // The rank as HdrHistogram takes it: the least whole number not below the share.
    let rank = (quantile * count as f64).ceil() as u64;
    let above = count.saturating_sub(rank);
    (SAMPLES_ABOVE_MIN <= above).then(|| histogram.value_at_quantile(quantile))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: u64) -> Histogram<u64> {
        let mut histogram = histogram();
        (1..=count).for_each(|value| histogram.record(value).unwrap());
        histogram
    }

    #[test]
    fn a_quantile_needs_ten_samples_above_it() {
        let summary = Summary::of(&filled(19), None);
        assert_eq!(
            (summary.count, summary.p50, summary.max),
            (19, None, Some(19))
        );
        assert_eq!(Summary::of(&filled(20), None).p50, Some(10));
        assert_eq!(Summary::of(&filled(999), None).p99, None);
        assert_eq!(Summary::of(&filled(1_000), None).p99, Some(990));
        assert_eq!(Summary::of(&filled(0), None), Summary::default());
    }

    #[test]
    fn what_reaches_censored_values_is_a_lower_bound() {
        let summary = Summary::of(&filled(1_000), Some(950));
        assert!(!summary.is_lower_bound(summary.p90.unwrap()));
        assert!(summary.is_lower_bound(summary.p99.unwrap()));
        assert!(!Summary::of(&filled(1_000), None).is_lower_bound(1_000));
    }
}
