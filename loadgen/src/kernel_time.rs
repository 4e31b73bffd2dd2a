//! Brings the kernel's receive times, which are of the wall's clock, onto the clock of a stretch.

use echometer_host::clock;

/// How long one comparison of the two clocks is good for. They run at the same rate: only a clock that is set (a step, by
/// a person or a time service) moves one against the other, and until the next comparison lags are wrong by the step.
const COMPARED_FOR_NS: u64 = 1_000_000_000;

/// Where a stretch began, by the wall's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelTime {
    /// `CLOCK_MONOTONIC`.
    start_ns: u64,
    /// `CLOCK_REALTIME`.
    wall_start_ns: u64,
    /// Since the start.
    compare_again_ns: u64,
}

impl KernelTime {
    /// For a stretch that begins at `start_ns` (`CLOCK_MONOTONIC`).
    pub(crate) fn new(start_ns: u64) -> KernelTime {
        KernelTime {
            start_ns,
            wall_start_ns: clock::wall_ahead_ns().saturating_add(start_ns),
            compare_again_ns: COMPARED_FOR_NS,
        }
    }

    /// Compares the clocks again, where it is time. `now_ns` counts from the stretch's start.
    #[inline]
    pub(crate) fn keep(&mut self, now_ns: u64) {
        if self.compare_again_ns <= now_ns {
            *self = KernelTime {
                compare_again_ns: now_ns + COMPARED_FOR_NS,
                ..KernelTime::new(self.start_ns)
            };
        }
    }

    /// How long before `now_ns` (since the stretch's start) the kernel's `stamp_ns` was; 0 if it is later: an engine that
    /// reads after the harvest has begun may find what came since.
    #[inline]
    pub(crate) fn lag_ns(&self, stamp_ns: u64, now_ns: u64) -> u64 {
        (self.wall_start_ns.saturating_add(now_ns)).saturating_sub(stamp_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_the_time_since_the_stamp() {
        let start_ns = clock::now_ns();
        let time = KernelTime::new(start_ns);
        let before_ns = clock::now_ns() - start_ns;
        let stamp_ns = clock::wall_unix_ns();
        let after_ns = clock::now_ns() - start_ns;
        // Ten milliseconds later it is ten milliseconds old, to within what reading the clocks took.
        let lag_ns = time.lag_ns(stamp_ns, after_ns + 10_000_000);
        let slack_ns = (after_ns - before_ns) + 1_000_000;
        assert!(
            (10_000_000 - 1_000_000..=10_000_000 + slack_ns).contains(&lag_ns),
            "{lag_ns}"
        );
        assert_eq!(time.lag_ns(stamp_ns + 60_000_000_000, after_ns), 0);
    }

    #[test]
    fn clocks_are_compared_once_a_second() {
        let mut time = KernelTime::new(clock::now_ns());
        time.wall_start_ns = 7;
        time.keep(COMPARED_FOR_NS - 1);
        assert_eq!(time.wall_start_ns, 7);
        time.keep(COMPARED_FOR_NS);
        assert_ne!(time.wall_start_ns, 7);
        assert_eq!(time.compare_again_ns, 2 * COMPARED_FOR_NS);
    }
}
