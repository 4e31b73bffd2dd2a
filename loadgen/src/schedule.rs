//! The schedule of an open loop: which message is due when, and on which connection. Neither socket nor clock is in
//! it, so two schedules made alike are alike.
//!
//! Uniform arrivals of all workers together are exactly `1 / rate` apart: worker `w` of `n` takes every n-th. Poisson
//! arrivals are independent at each worker, at its even share of the rate; their superposition is Poisson again at the
//! full rate (Kingman, Poisson Processes, 1993, superposition theorem).

use rand::{Rng, SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Exp1, Poisson};

use crate::plan::Arrivals;

/// A message that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// ns since the start of the stretch.
    pub at_ns: u64,
    /// The connection it goes to: an index below the worker's number of connections.
    pub connection: u32,
}

/// The due messages of one worker, in order, without end.
#[derive(Clone, Debug)]
pub struct Schedule {
    next: Due,
    connections: u32,
    gaps: Gaps,
}

#[derive(Clone, Debug)]
enum Gaps {
    /// Fixed point with 64 fractional bits: the error of the n-th instant stays below n * 2^-64 ns, so that a rate
    /// such as 30,000/s does not drift.
    Uniform { at: u128, gap: u128 },
    /// Doubles hold a day in ns with 16 bits to spare. The generator is boxed so that the variants weigh alike.
    Poisson {
        at_ns: f64,
        gap_mean_ns: f64,
        random: Box<SmallRng>,
    },
    /// Arrivals of a rate that changes: those of rate 1, each at the instant by which so many are due (time rescaling;
    /// Çinlar, Introduction to Stochastic Processes, 1975, 4.7).
    Ramp {
        ramp: Ramp,
        /// How many messages of all workers are due before the next one of ours.
        position: f64,
        /// By how much that grows: workers for uniform arrivals, on average for Poisson ones.
        step: f64,
        random: Option<Box<SmallRng>>,
    },
}

/// A rate that grows, or falls, evenly from one value to another: constant before and after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// Messages a second over all workers, until `from_ns`.
    pub from_per_s: f64,
    /// The same, from `until_ns` on.
    pub to_per_s: f64,
    /// When it begins to change, ns since the start of the stretch.
    pub from_ns: u64,
    /// When it has changed.
    pub until_ns: u64,
}

impl Ramp {
    /// When `count` messages are due, in ns.
    fn at_ns(&self, count: f64) -> f64 {
        let (from, to) = (self.from_per_s / 1e9, self.to_per_s / 1e9);
        let (begin, length) = (
            self.from_ns as f64,
            (self.until_ns - self.from_ns).max(1) as f64,
        );
        let before = from * begin;
        if count <= before {
            return count / from;
        }
        let during = (from + to) / 2.0 * length;
        let count = count - before;
        if during <= count {
            return begin + length + (count - during) / to;
        }
        // from x + (to - from) / (2 length) x^2 = count, solved in the form that doesn't cancel.
        let slope = (to - from) / length;
        begin + 2.0 * count / (from + (from * from + 2.0 * slope * count).sqrt())
    }

    /// How many messages are due by `at_ns`: the inverse of [`Ramp::at_ns`].
    fn count_by(&self, at_ns: f64) -> f64 {
        let (from, to) = (self.from_per_s / 1e9, self.to_per_s / 1e9);
        let (begin, length) = (
            self.from_ns as f64,
            (self.until_ns - self.from_ns).max(1) as f64,
        );
        let before = from * at_ns.min(begin);
        let x = (at_ns - begin).clamp(0.0, length);
        let during = (from + (to - from) / length / 2.0 * x) * x;
        let after = to * (at_ns - begin - length).max(0.0);
        before + during + after
    }
}

/// What part of the whole load a worker makes.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// The worker's index, below `workers`.
    pub worker: u32,
    /// How many workers share the load; at least 1.
    pub workers: u32,
    /// How many connections this worker has; at least 1.
    pub connections: u32,
}

impl Schedule {
    /// The schedule of one worker for a load of `rate_per_s` (above 0) over all workers.
    ///
    /// Equal arguments give an equal schedule.
    pub fn new(rate_per_s: f64, arrivals: Arrivals, share: Share, seed: u64) -> Schedule {
        let gap_ns = 1e9 / rate_per_s;
        let gaps = match arrivals {
            Arrivals::Uniform => {
                let gap = fixed_point(gap_ns);
                Gaps::Uniform {
                    at: gap * u128::from(share.worker),
                    gap: gap * u128::from(share.workers),
                }
            }
            Arrivals::Poisson => Gaps::Poisson {
                at_ns: 0.0,
                gap_mean_ns: gap_ns * f64::from(share.workers),
                random: random_of(share, seed),
            },
        };
        Schedule::of(gaps, share)
    }

    /// As [`Schedule::new`], for a rate that changes.
    pub fn ramp(ramp: Ramp, arrivals: Arrivals, share: Share, seed: u64) -> Schedule {
        let workers = f64::from(share.workers);
        let gaps = match arrivals {
            Arrivals::Uniform => Gaps::Ramp {
                ramp,
                position: f64::from(share.worker),
                step: workers,
                random: None,
            },
            Arrivals::Poisson => Gaps::Ramp {
                ramp,
                position: 0.0,
                step: workers,
                random: Some(random_of(share, seed)),
            },
        };
        Schedule::of(gaps, share)
    }

    fn of(gaps: Gaps, share: Share) -> Schedule {
        // In turn begins with connection 0; the first draw of Poisson is made here.
        let mut schedule = Schedule {
            next: Due {
                at_ns: 0,
                connection: share.connections - 1,
            },
            connections: share.connections,
            gaps,
        };
        schedule.advance();
        schedule
    }

    /// When the next message is due, in ns since the start of the stretch.
    #[inline]
    pub fn next_at_ns(&self) -> u64 {
        self.next.at_ns
    }

    /// Takes the next message if it is due at `now_ns` (since the start of the stretch) or was before.
    #[inline]
    pub fn take_due(&mut self, now_ns: u64) -> Option<Due> {
        if now_ns < self.next.at_ns {
            return None;
        }
        let due = self.next;
        self.advance();
        Some(due)
    }

    /// Takes all messages that are due before `end_ns`, and gives only how many they are: in a time that doesn't depend
    /// on their number. Uniform arrivals are counted exactly. Of Poisson arrivals, whose next ones nobody has seen yet,
    /// the number is drawn: what is left of a Poisson process is one too, so that it is as true a number as that of the
    /// arrivals that would have been drawn one by one, but not the same.
    pub fn count_due(&mut self, end_ns: u64) -> u64 {
        if end_ns <= self.next.at_ns {
            return 0;
        }
        // Those after the next one.
        let end = end_ns as f64;
        let more = match &mut self.gaps {
            Gaps::Uniform { at, gap } => {
                let more = (u128::from(end_ns) << 64)
                    .saturating_sub(*at)
                    .div_ceil(*gap);
                *at += more * *gap;
                more as u64
            }
            Gaps::Poisson {
                at_ns,
                gap_mean_ns,
                random,
            } => {
                let more = poisson((end - *at_ns) / *gap_mean_ns, random);
                *at_ns = end;
                more
            }
            Gaps::Ramp {
                ramp,
                position,
                step,
                random: None,
            } => {
                let is_due =
                    |count: u64| (ramp.at_ns(*position + count as f64 * *step) as u64) < end_ns;
                // By halves: `low` of them are due, and not `high`.
                let (mut low, mut high) = (0, 1);
                while is_due(high - 1) {
                    (low, high) = (high, high * 2);
                }
                while low + 1 < high {
                    let middle = low + (high - low) / 2;
                    if is_due(middle - 1) {
                        low = middle;
                    } else {
                        high = middle;
                    }
                }
                *position += low as f64 * *step;
                low
            }
            Gaps::Ramp {
                ramp,
                position,
                step,
                random: Some(random),
            } => {
                let by_then = ramp.count_by(end);
                let more = poisson((by_then - *position) / *step, random);
                *position = by_then.max(*position);
                more
            }
        };
        // In turn: as if each had been taken.
        let turns = more % u64::from(self.connections);
        let connection = (u64::from(self.next.connection) + turns) % u64::from(self.connections);
        self.next.connection = connection as u32;
        self.advance();
        more + 1
    }

    #[inline]
    fn advance(&mut self) {
        let in_turn = match self.next.connection + 1 {
            connection if connection < self.connections => connection,
            _ => 0,
        };
        self.next = match &mut self.gaps {
            Gaps::Uniform { at, gap } => {
                let at_ns = (*at >> 64) as u64;
                *at += *gap;
                Due {
                    at_ns,
                    connection: in_turn,
                }
            }
            Gaps::Poisson {
                at_ns,
                gap_mean_ns,
                random,
            } => {
                let gap: f64 = Exp1.sample(random);
                *at_ns += gap * *gap_mean_ns;
                Due {
                    at_ns: *at_ns as u64,
                    connection: random.random_range(0..self.connections),
                }
            }
            Gaps::Ramp {
                ramp,
                position,
                step,
                random: None,
            } => {
                let at_ns = ramp.at_ns(*position) as u64;
                *position += *step;
                Due {
                    at_ns,
                    connection: in_turn,
                }
            }
            Gaps::Ramp {
                ramp,
                position,
                step,
                random: Some(random),
            } => {
                let gap: f64 = Exp1.sample(random);
                *position += gap * *step;
                Due {
                    at_ns: ramp.at_ns(*position) as u64,
                    connection: random.random_range(0..self.connections),
                }
            }
        };
    }
}

/// Workers must not share a sequence; the odd constant keeps their seeds apart.
fn random_of(share: Share, seed: u64) -> Box<SmallRng> {
    let seed = seed ^ u64::from(share.worker + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Box::new(SmallRng::seed_from_u64(seed))
}

/// A Poisson variate of this mean.
fn poisson(mean: f64, random: &mut SmallRng) -> u64 {
    // There is no distribution for a mean of 0 (or, by rounding, a hair below).
    Poisson::new(mean).map_or(0, |distribution| distribution.sample(random) as u64)
}

/// A double (below 2^63) with 64 fractional bits. Its own 53 bits are all kept.
fn fixed_point(value: f64) -> u128 {
    let whole = value.trunc();
    let fraction = (value - whole) * 18_446_744_073_709_551_616.0;
    ((whole as u128) << 64) + fraction as u128
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn alone(connections: u32) -> Share {
        Share {
            worker: 0,
            workers: 1,
            connections,
        }
    }

    fn take(mut schedule: Schedule, count: usize) -> Vec<Due> {
        (0..count)
            .map(|_| schedule.take_due(u64::MAX).expect("a schedule has no end"))
            .collect()
    }

    #[test]
    fn uniform_goes_in_turn_at_equal_gaps() {
        let due = take(Schedule::new(1_000.0, Arrivals::Uniform, alone(3), 1), 5);
        let seen: Vec<_> = due.iter().map(|due| (due.at_ns, due.connection)).collect();
        assert_eq!(
            seen,
            [
                (0, 0),
                (1_000_000, 1),
                (2_000_000, 2),
                (3_000_000, 0),
                (4_000_000, 1)
            ]
        );
    }

    #[test]
    fn uniform_does_not_drift() {
        // Ten minutes at 30,000/s: a gap rounded to 33,333 ns would be 6 ms early by then.
        let count = 600 * 30_000;
        let last = take(
            Schedule::new(30_000.0, Arrivals::Uniform, alone(1), 1),
            count + 1,
        )[count];
        assert!(last.at_ns.abs_diff(600_000_000_000) <= 1, "{}", last.at_ns);
    }

    #[test]
    fn nothing_is_taken_before_it_is_due() {
        let mut schedule = Schedule::new(1_000.0, Arrivals::Uniform, alone(1), 1);
        assert!(schedule.take_due(0).is_some());
        assert_eq!(schedule.next_at_ns(), 1_000_000);
        assert_eq!(schedule.take_due(999_999), None);
        assert!(schedule.take_due(1_000_000).is_some());
    }

    #[test]
    fn uniform_workers_interleave() {
        let mut all: Vec<u64> = (0..4)
            .flat_map(|worker| {
                let share = Share {
                    worker,
                    workers: 4,
                    connections: 2,
                };
                take(Schedule::new(10_000.0, Arrivals::Uniform, share, 1), 25)
            })
            .map(|due| due.at_ns)
            .collect();
        all.sort_unstable();
        assert_eq!(
            all,
            (0..100).map(|index| index * 100_000).collect::<Vec<_>>()
        );
    }

    /// Kolmogorov-Smirnov against the exponential distribution: D * sqrt(n) stays below 1.95 in 999 of 1,000 true
    /// samples; the seeds are fixed, so this either always passes or never.
    #[test]
    fn poisson_gaps_are_exponential() {
        for (workers, seed) in [(1, 1), (1, 2), (3, 3)] {
            let count = 20_000;
            let mut at: Vec<u64> = (0..workers)
                .flat_map(|worker| {
                    let share = Share {
                        worker,
                        workers,
                        connections: 7,
                    };
                    take(
                        Schedule::new(50_000.0, Arrivals::Poisson, share, seed),
                        count,
                    )
                })
                .map(|due| due.at_ns)
                .collect();
            at.sort_unstable();
            // Beyond the first worker's last arrival the superposition is not whole.
            at.truncate(count);
            let mut gaps: Vec<f64> = at
                .windows(2)
                .map(|pair| (pair[1] - pair[0]) as f64)
                .collect();
            gaps.sort_unstable_by(f64::total_cmp);
            let n = gaps.len() as f64;
            let distance = gaps
                .iter()
                .enumerate()
                .map(|(index, gap)| {
                    let expected = 1.0 - (-gap / 20_000.0).exp();
                    (expected - index as f64 / n)
                        .abs()
                        .max((expected - (index + 1) as f64 / n).abs())
                })
                .fold(0.0, f64::max);
            assert!(
                distance * n.sqrt() < 1.95,
                "workers {workers}: D sqrt(n) = {}",
                distance * n.sqrt()
            );
        }
    }

    #[test]
    fn a_ramp_goes_evenly_from_one_rate_to_the_other() {
        // 1,000/s for a second, then up to 3,000/s over two seconds, then on: 1,000 + 4,000 and 3,000 a second.
        let ramp = Ramp {
            from_per_s: 1_000.0,
            to_per_s: 3_000.0,
            from_ns: 1_000_000_000,
            until_ns: 3_000_000_000,
        };
        let counted = |due: &[Due], from_s: f64, to_s: f64| {
            due.iter()
                .filter(|due| (from_s..to_s).contains(&(due.at_ns as f64 / 1e9)))
                .count() as f64
        };
        for (arrivals, scatter) in [(Arrivals::Uniform, 0.0), (Arrivals::Poisson, 5.0)] {
            let mut due: Vec<Due> = (0..2)
                .flat_map(|worker| {
                    let share = Share {
                        worker,
                        workers: 2,
                        connections: 3,
                    };
                    let schedule = Schedule::ramp(ramp, arrivals, share, 11);
                    let due = take(schedule, 6_000);
                    assert!(due.windows(2).all(|pair| pair[0].at_ns <= pair[1].at_ns));
                    due
                })
                .collect();
            due.sort_unstable_by_key(|due| due.at_ns);
            for (from_s, to_s, expected) in [
                (0.0, 1.0, 1_000.0),
                (1.0, 2.0, 1_500.0),
                (2.0, 3.0, 2_500.0),
                (3.0, 4.0, 3_000.0),
            ] {
                let counted = counted(&due, from_s, to_s);
                let most = 1.5 + scatter * f64::sqrt(expected);
                assert!(
                    (counted - expected).abs() <= most,
                    "{arrivals:?} {from_s}: {counted}"
                );
            }
        }
        // Downwards, and from the very start.
        let down = Ramp {
            from_per_s: 3_000.0,
            to_per_s: 1_000.0,
            from_ns: 0,
            ..ramp
        };
        let due = take(Schedule::ramp(down, Arrivals::Uniform, alone(1), 1), 8_000);
        assert!((counted(&due, 0.0, 3.0) - 6_000.0).abs() <= 1.5);
    }

    #[test]
    fn poisson_spreads_over_the_connections() {
        let mut seen = [0u32; 10];
        for due in take(
            Schedule::new(1_000.0, Arrivals::Poisson, alone(10), 5),
            100_000,
        ) {
            seen[due.connection as usize] += 1;
        }
        // Binomial, standard deviation 95: five of them either side.
        assert!(
            seen.iter().all(|count| count.abs_diff(10_000) < 475),
            "{seen:?}"
        );
    }

    #[test]
    fn what_nobody_can_deliver_is_counted_in_no_time() {
        // An hour at the highest rate: one by one it would take minutes.
        for (arrivals, scatter) in [(Arrivals::Uniform, 0), (Arrivals::Poisson, 12_000_000)] {
            let hour_ns = 3_600_000_000_000;
            let mut schedule = Schedule::new(1e9, arrivals, alone(3), 1);
            let counted = schedule.count_due(hour_ns);
            assert!(
                counted.abs_diff(hour_ns) <= scatter,
                "{arrivals:?}: {counted}"
            );
            assert!(hour_ns <= schedule.next_at_ns());
            assert_eq!(schedule.count_due(hour_ns), 0, "each is taken once");
        }
    }

    /// Ways to lay 1,000 to 3,000 messages a second in time, from the start of three seconds to their end.
    fn schedules(arrivals: Arrivals, seed: u64) -> [Schedule; 2] {
        let ramp = Ramp {
            from_per_s: 1_000.0,
            to_per_s: 3_000.0,
            from_ns: 1_000_000_000,
            until_ns: 2_000_000_000,
        };
        let share = Share {
            worker: 1,
            workers: 2,
            connections: 7,
        };
        [
            Schedule::new(2_000.0, arrivals, share, seed),
            Schedule::ramp(ramp, arrivals, share, seed),
        ]
    }

    #[test]
    fn uniform_arrivals_are_counted_as_if_they_had_been_taken() {
        for schedule in schedules(Arrivals::Uniform, 1) {
            let (mut counting, mut taking) = (schedule.clone(), schedule);
            // Before the ramp, on its bounds, within and after it; twice the same, and between two messages.
            for end_ns in [
                0,
                1,
                500_000,
                499_999_999,
                500_000_000,
                1_000_000_000,
                1_000_000_000,
                1_700_000_001,
                2_000_000_000,
                3_000_000_000,
            ] {
                let mut taken = 0;
                while end_ns != 0 && taking.take_due(end_ns - 1).is_some() {
                    taken += 1;
                }
                assert_eq!(counting.count_due(end_ns), taken, "{end_ns}");
                assert_eq!(counting.next, taking.next, "{end_ns}: it goes on alike");
            }
        }
    }

    #[test]
    fn poisson_arrivals_are_counted_by_their_rate_and_repeatably() {
        // Of this worker's half: 3,000 at a steady rate; on the ramp 500 + 1,000 + 1,500.
        let counted = |seed| {
            schedules(Arrivals::Poisson, seed).map(|mut schedule| {
                let ends_ns = [1_000_000_000, 1_500_000_000, 3_000_000_000];
                let counted: Vec<u64> = ends_ns.map(|end_ns| schedule.count_due(end_ns)).into();
                assert!(3_000_000_000 <= schedule.next_at_ns());
                counted
            })
        };
        assert_eq!(counted(1), counted(1));
        let mut sums = [[0; 3]; 2];
        for seed in 0..100 {
            for (sums, counts) in sums.iter_mut().zip(counted(seed)) {
                sums.iter_mut()
                    .zip(counts)
                    .for_each(|(sum, count)| *sum += count);
            }
        }
        let expected = [[1_000.0, 500.0, 1_500.0], [500.0, 375.0, 2_125.0]];
        for (sums, expected) in sums.into_iter().zip(expected) {
            for (sum, expected) in sums.into_iter().zip(expected) {
                let (sum, expected) = (sum as f64, 100.0 * expected);
                // Five standard deviations.
                let most = 5.0 * f64::sqrt(expected);
                assert!((sum - expected).abs() <= most, "{sum} for {expected}");
            }
        }
    }

    proptest! {
        #[test]
        fn schedules_are_ordered_repeatable_and_on_rate(
            rate in 1.0f64..1e6, poisson: bool, workers in 1u32..5, connections in 1u32..100, seed: u64,
        ) {
            let arrivals = if poisson { Arrivals::Poisson } else { Arrivals::Uniform };
            let share = Share { worker: workers - 1, workers, connections };
            let due = take(Schedule::new(rate, arrivals, share, seed), 5_000);
            prop_assert_eq!(&due, &take(Schedule::new(rate, arrivals, share, seed), 5_000));
            prop_assert!(due.windows(2).all(|pair| pair[0].at_ns <= pair[1].at_ns));
            prop_assert!(due.iter().all(|due| due.connection < connections));
            // The mean of 5,000 exponential gaps scatters by 1.4 %: seven standard deviations.
            let expected = 5_000.0 * f64::from(workers) * 1e9 / rate;
            let ratio = due.last().unwrap().at_ns as f64 / expected;
            prop_assert!((0.9..=1.1).contains(&ratio), "{}", ratio);
        }
    }
}
