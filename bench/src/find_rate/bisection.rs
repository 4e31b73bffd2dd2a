//! The search for the highest rate that holds: a ladder of rates in steps of 2 %, a first look upwards in doublings to
//! see how long the ladder must be, and a bisection of it. Pure: what a rate does comes in as an answer.

/// One rung over the one below.
pub(crate) const STEP: f64 = 1.02;
/// The ladder ends this far above the first rate that failed: one failure may be bad luck.
const HEADROOM: f64 = 1.5;

/// Rates from the lowest on, each [`STEP`] above the one below, as whole messages per second. At least one.
#[must_use]
pub(crate) fn ladder(lowest: f64, highest: f64) -> Vec<f64> {
    let mut rates = vec![lowest];
    let mut rate = lowest;
    loop {
        rate *= STEP;
        if highest < rate {
            return rates;
        }
        rates.push(rate);
    }
}

/// The first look: doubles the rate until it fails, or the highest is reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Climb {
    lowest: f64,
    highest: f64,
    next: Option<f64>,
    /// Where the ladder shall end.
    top: f64,
}

impl Climb {
    /// Begins at the lowest rate; `highest` is not exceeded.
    #[must_use]
    pub(crate) fn new(lowest: f64, highest: f64) -> Self {
        Self {
            lowest,
            highest,
            next: Some(lowest),
            top: lowest,
        }
    }

    /// The rate to be tried next; `None` at the end.
    #[must_use]
    pub(crate) fn next(&self) -> Option<f64> {
        self.next
    }

    /// What became of it.
    pub(crate) fn tried(&mut self, holds: bool) {
        let Some(rate) = self.next else { return };
        self.top = rate;
        self.next = match holds {
            // Even the lowest fails: there is nothing below to look for, and the blocks will look at it alone.
            false if rate <= self.lowest => None,
            false => {
                self.top = (rate * HEADROOM).min(self.highest);
                None
            }
            true if self.highest <= rate => None,
            true => Some((rate * 2.0).min(self.highest)),
        };
    }

    /// The highest rate that the blocks should look at.
    #[must_use]
    pub(crate) fn top(&self) -> f64 {
        self.top
    }
}

/// One search over a ladder: the highest rung that holds, where all below are taken to hold too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bisection {
    /// Rungs below this one hold, as far as is known.
    low: usize,
    /// This one and those above fail, as far as is known.
    high: usize,
}

impl Bisection {
    /// Nothing is known of a ladder of so many rungs.
    #[must_use]
    pub(crate) fn new(rungs: usize) -> Self {
        Self {
            low: 0,
            high: rungs,
        }
    }

    /// The rung to be tried next; `None` when the answer is known.
    #[must_use]
    pub(crate) fn next(&self) -> Option<usize> {
        (self.low < self.high).then(|| self.low.midpoint(self.high))
    }

    /// What became of the rung that was next.
    pub(crate) fn tried(&mut self, holds: bool) {
        let Some(rung) = self.next() else { return };
        match holds {
            true => self.low = rung + 1,
            false => self.high = rung,
        }
    }

    /// The highest rung that held; `None` where even the lowest failed. Of use once nothing is to be tried any more.
    #[must_use]
    pub(crate) fn found(&self) -> Option<usize> {
        self.low.checked_sub(1)
    }

    /// How many trials a ladder of so many rungs takes at most.
    #[cfg(test)]
    fn trials_max(rungs: usize) -> u32 {
        rungs.checked_ilog2().map_or(0, |log| log + 1)
    }
}

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
    use proptest::prelude::*;

    use super::*;

    fn climb(lowest: f64, highest: f64, capacity: f64) -> (Vec<f64>, f64) {
        let mut climb = Climb::new(lowest, highest);
        let mut tried = Vec::new();
        while let Some(rate) = climb.next() {
            tried.push(rate);
            climb.tried(rate <= capacity);
        }
        (tried, climb.top())
    }

    #[test]
    fn a_climb_ends_above_the_first_failure() {
        assert_eq!(climb(1e3, 1e6, 5e3), (vec![1e3, 2e3, 4e3, 8e3], 12e3));
        assert_eq!(climb(1e3, 3e3, 1e9), (vec![1e3, 2e3, 3e3], 3e3));
        assert_eq!(
            climb(1e3, 1e6, 10.0),
            (vec![1e3], 1e3),
            "the lowest alone is left"
        );
        assert_eq!(climb(1e3, 5e3, 3e3).1, 5e3, "the highest is the highest");
    }

    #[test]
    fn ladders_have_small_steps() {
        let rates = ladder(1_000.0, 2_000.0);
        assert_eq!(rates.len(), 36);
        assert!(
            rates
                .windows(2)
                .all(|pair| (pair[1] / pair[0] - STEP).abs() < 1e-9)
        );
        assert!(rates[35] <= 2_000.0 && 2_000.0 < rates[35] * STEP);
        assert_eq!(ladder(5.0, 1.0), [5.0]);
    }

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

    proptest! {
        #[test]
        fn a_bisection_finds_the_edge_in_few_trials(rungs in 1_usize..2_000, edge in 0_usize..2_001) {
            let edge = edge.min(rungs);
            let mut search = Bisection::new(rungs);
            let mut trials = 0;
            while let Some(rung) = search.next() {
                prop_assert!(rung < rungs);
                search.tried(rung < edge);
                trials += 1;
            }
            prop_assert_eq!(search.found(), edge.checked_sub(1));
            prop_assert!(trials <= Bisection::trials_max(rungs));
        }
    }
}
