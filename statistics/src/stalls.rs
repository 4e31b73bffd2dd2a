//! What do gaps, in which a server can't run, do to its latencies? A message that is due in a gap waits for the rest of
//! it, and for what came before it in the gap; and the backlog of a gap is worked off while new messages come.
//!
//! A gap of length g at a busy share u: who is due t after its start waits g - t(1 - u), until that is 0. (Within the gap:
//! its rest g - t and the work u t that is before it; after it: the work that is left.) So of each gap g, waits beyond w
//! take (g - w) / (1 - u) of the time. Gaps are taken to be rare: none begins before the last one's backlog is gone.

/// The wait that gaps alone give at quantile `q` (0.999), in the unit of the gaps; `None` where they are so few that the
/// quantile is without a wait.
///
/// `span` is the time in which the gaps were seen, `busy` the share of it in which the server works, 0 to below 1.
#[must_use]
pub fn wait_quantile(gaps: &[u64], span: u64, busy: f64, q: f64) -> Option<f64> {
    let free = (1.0 - busy).max(f64::MIN_POSITIVE);
    let share = (1.0 - q) * free * span as f64;
    let mut sorted = gaps.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    // The sum of (g - w) over the gaps above w is the greatest of the sums over the k longest: so w is, too.
    let (mut sum, mut wait) = (0.0, 0.0f64);
    for (index, &gap) in sorted.iter().enumerate() {
        sum += gap as f64;
        wait = wait.max((sum - share) / (index + 1) as f64);
    }
    (0.0 < wait).then_some(wait)
}

/// The mean wait of a message that is due at any time, in the unit of the gaps: what tells quiet cpus from others.
#[must_use]
pub fn mean_wait(gaps: &[u64], span: u64) -> f64 {
    let squares: f64 = gaps.iter().map(|&gap| (gap as f64).powi(2)).sum();
    squares / 2.0 / span.max(1) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_gap_every_tenth_of_a_second() {
        // 2 ms in 100 ms, 10 s: 2 % of the messages wait, those beyond w: (2 ms - w) / 100 ms. A thousandth: 1.9 ms.
        let gaps = [2_000_000; 100];
        let span = 10_000_000_000;
        let wait = wait_quantile(&gaps, span, 0.0, 0.999).expect("there is one");
        assert!((wait - 1_900_000.0).abs() < 1.0, "{wait}");
        let median = wait_quantile(&gaps, span, 0.0, 0.5);
        assert_eq!(median, None);
        let busy = wait_quantile(&gaps, span, 0.5, 0.999).expect("there is one");
        assert!((busy - 1_950_000.0).abs() < 1.0, "{busy}");
        // 2 ms^2 / 2 each, 10 times a second.
        assert!((mean_wait(&gaps, span) - 20_000.0).abs() < 1e-6);
        assert_eq!(wait_quantile(&[], span, 0.0, 0.999), None);
    }

    /// A server that takes `service` for each message, except in gaps; messages are due every `every`. Gives the waits.
    fn simulated(gaps: &[(u64, u64)], span: u64, service: u64, every: u64) -> Vec<u64> {
        let mut free = 0;
        let mut next = 0;
        let mut waits = Vec::new();
        let mut due = every / 3;
        while due < span {
            let mut start = due.max(free);
            while let Some(&(from, length)) = gaps.get(next) {
                if start + service <= from {
                    break;
                }
                // Whatever part of the work was done is done after the gap.
                start = start.max(from) + length;
                next += 1;
            }
            free = start + service;
            waits.push(start - due);
            due += every;
        }
        waits
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// The formula against a schedule that is played message by message.
        #[test]
        fn the_formula_is_what_a_schedule_shows(
            lengths in proptest::collection::vec(100_000u64..3_000_000, 10..60),
            service in 1_000u64..12_000,
        ) {
            // One gap in each 50 ms; a message every 20 us: busy from 5 to 60 %.
            let (period, every) = (50_000_000, 20_000);
            let span = period * lengths.len() as u64;
            let gaps: Vec<(u64, u64)> = lengths
                .iter()
                .enumerate()
                .map(|(index, &length)| (index as u64 * period + 7_000_000, length))
                .collect();
            let mut waits = simulated(&gaps, span, service, every);
            waits.sort_unstable();
            let seen = waits[(waits.len() as f64 * 0.999) as usize] as f64;
            let busy = service as f64 / every as f64;
            let said = wait_quantile(&lengths, span, busy, 0.999).unwrap_or(0.0);
            // The schedule is coarse by a message.
            let slack = every as f64;
            prop_assert!(seen <= said * 1.1 + slack && said <= seen * 1.1 + slack, "said {said}, seen {seen}");
        }

        /// More gaps never wait less.
        #[test]
        fn a_gap_more_is_no_gain(gaps in proptest::collection::vec(5_000u64..5_000_000, 1..200), more in 5_000u64..5_000_000) {
            let span = 10_000_000_000;
            let wait = |gaps: &[u64]| wait_quantile(gaps, span, 0.3, 0.999).unwrap_or(0.0);
            let fewer = wait(&gaps);
            let mut gaps = gaps;
            gaps.push(more);
            prop_assert!(fewer <= wait(&gaps));
        }
    }
}
