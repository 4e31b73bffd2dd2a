//! The schedule's tests: gaps, ramps, and counting as if taken.

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
    // 1,000/s for a second, then up to 3,000/s over two seconds, then on: 1,000 + 4,000 and 3,000 per second.
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

/// Ways to lay 1,000 to 3,000 messages per second in time, from the start of three seconds to their end.
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

#[test]
fn a_greeting_reaches_each_connection_once_and_moves_the_rest() {
    for arrivals in [Arrivals::Uniform, Arrivals::Poisson] {
        let plain = take(Schedule::new(1_000.0, arrivals, alone(4), 1), 20);
        let greeting = Schedule::new(1_000.0, arrivals, alone(4), 1).after_greeting(8_000);
        assert_eq!(greeting.next_at_ns(), 0);
        let greeted = take(greeting, 24);
        let first: Vec<_> = greeted[..4]
            .iter()
            .map(|due| (due.at_ns, due.connection))
            .collect();
        assert_eq!(first, [(0, 0), (2_000, 1), (4_000, 2), (6_000, 3)]);
        for (late, due) in greeted[4..].iter().zip(plain) {
            assert_eq!(
                (late.at_ns, late.connection),
                (due.at_ns + 8_000, due.connection)
            );
        }
    }
}

proptest! {
    #[test]
    fn counting_over_a_greeting_counts_what_would_be_taken(end_ns in 0u64..40_000_000, taken in 0usize..8) {
        let schedule = || Schedule::new(1_000.0, Arrivals::Uniform, alone(5), 1).after_greeting(10_000_000);
        let (mut counted, mut one_by_one) = (schedule(), schedule());
        for _ in 0..taken {
            prop_assert_eq!(counted.take_due(u64::MAX), one_by_one.take_due(u64::MAX));
        }
        let count = counted.count_due(end_ns);
        let mut by_hand = 0;
        while one_by_one.next_at_ns() < end_ns {
            one_by_one.take_due(u64::MAX);
            by_hand += 1;
        }
        prop_assert_eq!(count, by_hand);
        prop_assert_eq!(counted.take_due(u64::MAX), one_by_one.take_due(u64::MAX));
    }
}
