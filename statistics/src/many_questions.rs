//! The test of the tester where many questions are asked at once: made-up comparisons of several arms in several metrics,
//! whose truth is known. How often is anything called different that is not, and how often is found what differs?

use std::{fmt::Write as _, thread};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use rand_distr::{Distribution, Exp, Normal, StudentT};

use crate::{ALPHA, RunBlock, Samples, aligned_rank, max_t::step_down_max_t, signed_rank};

/// As many as a comparison asks for; the first is the primary one.
const METRICS: usize = 7;
/// A quarter of the margin of 2 %.
const S0: f64 = 0.005;

/// What makes a figure differ from block to block, by about 5 % in each case.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Noise {
    /// Each arm's process has its luck, which shows in all its metrics, and all arms are compared with one baseline.
    Normal,
    /// Each question has its own.
    Independent,
    /// As `Normal`, with the tails of Student's t with two degrees of freedom.
    Heavy,
    /// As `Normal`, but an exponential luck: most blocks are good and some are bad.
    Skewed,
}

/// A row of the table in `docs/statistics.md`.
struct Row {
    what: &'static str,
    /// Arms besides the baseline; of these the first half, rounded down, differ by `truth`.
    arms: usize,
    truth: f64,
    comparisons: usize,
    make: fn(&mut StdRng, usize, f64) -> Vec<Samples>,
}

const fn row(
    what: &'static str,
    truth: f64,
    make: fn(&mut StdRng, usize, f64) -> Vec<Samples>,
) -> Row {
    Row {
        what,
        arms: 4,
        truth,
        comparisons: 5_000,
        make,
    }
}

const fn runs_row(
    what: &'static str,
    truth: f64,
    make: fn(&mut StdRng, usize, f64) -> Vec<Samples>,
) -> Row {
    // Of two and two runs there are 46,656 dealings, so each comparison takes a while.
    Row {
        arms: 2,
        comparisons: 1_000,
        ..row(what, truth, make)
    }
}

const ROWS: [Row; 16] = [
    row("8 blocks, normal", 1.0, |random, arms, truth| {
        slices(random, 8, arms, truth, Noise::Normal)
    }),
    row("8 blocks, independent", 1.0, |random, arms, truth| {
        slices(random, 8, arms, truth, Noise::Independent)
    }),
    row("8 blocks, heavy tails", 1.0, |random, arms, truth| {
        slices(random, 8, arms, truth, Noise::Heavy)
    }),
    row("8 blocks, skewed", 1.0, |random, arms, truth| {
        slices(random, 8, arms, truth, Noise::Skewed)
    }),
    row("6 blocks, normal", 1.0, |random, arms, truth| {
        slices(random, 6, arms, truth, Noise::Normal)
    }),
    row("6 blocks, skewed", 1.0, |random, arms, truth| {
        slices(random, 6, arms, truth, Noise::Skewed)
    }),
    row("8 blocks, normal", 1.3, |random, arms, truth| {
        slices(random, 8, arms, truth, Noise::Normal)
    }),
    row("8 blocks, independent", 1.3, |random, arms, truth| {
        slices(random, 8, arms, truth, Noise::Independent)
    }),
    row("8 blocks, heavy tails", 1.3, |random, arms, truth| {
        slices(random, 8, arms, truth, Noise::Heavy)
    }),
    row("8 blocks, skewed", 1.3, |random, arms, truth| {
        slices(random, 8, arms, truth, Noise::Skewed)
    }),
    row("6 blocks, normal", 1.3, |random, arms, truth| {
        slices(random, 6, arms, truth, Noise::Normal)
    }),
    row("6 blocks, heavy tails", 1.3, |random, arms, truth| {
        slices(random, 6, arms, truth, Noise::Heavy)
    }),
    row("6 blocks, normal", 1.5, |random, arms, truth| {
        slices(random, 6, arms, truth, Noise::Normal)
    }),
    runs_row(
        "runs, 6 blocks, calm machine",
        1.0,
        |random, arms, truth| runs(random, arms, truth, &CALM),
    ),
    runs_row(
        "runs, 6 blocks, rough machine",
        1.0,
        |random, arms, truth| runs(random, arms, truth, &ROUGH),
    ),
    runs_row(
        "runs, 6 blocks, rough machine",
        1.3,
        |random, arms, truth| runs(random, arms, truth, &ROUGH),
    ),
];

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    false_primary: usize,
    false_others: usize,
    false_either: usize,
    found: usize,
    found_by_holm: usize,
    different: usize,
}

/// The seed is fixed, so that the table is the same on every machine.
#[test]
fn the_table_in_the_docs_is_what_the_simulation_gives() {
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let rows: Vec<_> = ROWS
            .iter()
            .map(|row| scope.spawn(|| simulate(row)))
            .collect();
        let joined = rows.into_iter().map(|row| row.join().expect("it ran"));
        joined.collect()
    });
    let mut table = String::from(
        "| blocks and noise | true ratio | comparisons | a false one in the first family | in the second | in either | found | found by Holm |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (row, tally) in ROWS.iter().zip(tallies) {
        let percent = |count: usize, all: usize| match all {
            0 => "-".to_owned(),
            _ => format!("{:.1} %", count as f64 * 100.0 / all as f64),
        };
        let all = row.comparisons;
        let _ = writeln!(
            table,
            "| {} | {:.1} | {all} | {} | {} | {} | {} | {} |",
            row.what,
            row.truth,
            percent(tally.false_primary, all),
            percent(tally.false_others, all),
            percent(tally.false_either, all),
            percent(tally.found, tally.different),
            percent(tally.found_by_holm, tally.different),
        );
        // Three standard errors above 5 % are chance; more is an error.
        let most = 0.05 * all as f64 + 3.0 * (0.05 * 0.95 * all as f64).sqrt();
        for wrong in [tally.false_primary, tally.false_others] {
            assert!(wrong as f64 <= most, "{}: {tally:?}", row.what);
        }
        assert!(
            tally.found * 10 >= tally.different * 9 || row.what.contains("rough"),
            "{}: {tally:?}",
            row.what
        );
    }
    let docs = include_str!("../../docs/statistics.md");
    assert!(
        docs.contains(&table),
        "docs/statistics.md should hold this table:\n{table}"
    );
}

fn simulate(row: &Row) -> Tally {
    let mut random = StdRng::seed_from_u64(19_930_601);
    let mut tally = Tally::default();
    let differs = |question: usize| row.truth != 1.0 && question / METRICS < row.arms / 2;
    for _ in 0..row.comparisons {
        let samples = (row.make)(&mut random, row.arms, row.truth);
        let (p, p_holm) = adjusted(&samples);
        let wrong = |primary: bool| {
            (0..samples.len()).any(|question| {
                (question % METRICS == 0) == primary && !differs(question) && p[question] < ALPHA
            })
        };
        let (primary, others) = (wrong(true), wrong(false));
        tally.false_primary += usize::from(primary);
        tally.false_others += usize::from(others);
        tally.false_either += usize::from(primary || others);
        for question in (0..samples.len()).filter(|&question| differs(question)) {
            tally.different += 1;
            tally.found += usize::from(p[question] < ALPHA);
            tally.found_by_holm += usize::from(p_holm[question] < ALPHA);
        }
    }
    tally
}

/// Adjusted in both families by step-down max-t, and by Holm over exact rank tests.
fn adjusted(samples: &[Samples]) -> (Vec<f64>, Vec<f64>) {
    let (mut p, mut p_holm) = (vec![1.0; samples.len()], vec![1.0; samples.len()]);
    for primary in [true, false] {
        let family: Vec<usize> = (0..samples.len())
            .filter(|index| (index % METRICS == 0) == primary)
            .collect();
        let asked: Vec<&Samples> = family.iter().map(|&index| &samples[index]).collect();
        let alone: Vec<f64> = asked.iter().map(|samples| rank_p(samples)).collect();
        let adjusted = step_down_max_t(&asked, S0).into_iter().zip(holm(&alone));
        for (index, (max_t, holm)) in family.into_iter().zip(adjusted) {
            (p[index], p_holm[index]) = (max_t, holm);
        }
    }
    (p, p_holm)
}

fn rank_p(samples: &Samples) -> f64 {
    match samples {
        Samples::Ratios(ratios) => {
            let ratios: Vec<f64> = ratios.iter().copied().flatten().collect();
            let test = signed_rank(&ratios, ALPHA).expect("there are blocks");
            test.p.expect("six blocks")
        }
        Samples::Runs(blocks) => {
            aligned_rank::p(&blocks.iter().flatten().cloned().collect::<Vec<_>>())
        }
    }
}

/// Holm, A simple sequentially rejective multiple test procedure (1979): the i-th smallest of m is multiplied by
/// m - i + 1, and never falls below an adjusted smaller one.
fn holm(p_values: &[f64]) -> Vec<f64> {
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

/// The logarithm of what an arm differs by.
fn shift(arm: usize, arms: usize, truth: f64) -> f64 {
    if arm < arms / 2 { truth.ln() } else { 0.0 }
}

/// A comparison by slices: for each arm and metric one ratio per block.
fn slices(
    random: &mut StdRng,
    blocks: usize,
    arms: usize,
    truth: f64,
    noise: Noise,
) -> Vec<Samples> {
    let mut ratios = vec![Vec::new(); arms * METRICS];
    for _ in 0..blocks {
        let baseline = levels(random, noise);
        for arm in 0..arms {
            let levels = levels(random, noise);
            for metric in 0..METRICS {
                let apart = match noise {
                    Noise::Independent => normal(random, 0.05),
                    _ => levels[metric] - baseline[metric],
                };
                ratios[arm * METRICS + metric].push(Some(apart + shift(arm, arms, truth)));
            }
        }
    }
    ratios.into_iter().map(Samples::Ratios).collect()
}

/// What one process shows in one block in each metric: two thirds of it luck that they share.
fn levels(random: &mut StdRng, noise: Noise) -> [f64; METRICS] {
    let tails = StudentT::new(2.0).expect("a valid count of degrees of freedom");
    let mut draw = |scale: f64| match noise {
        Noise::Normal | Noise::Independent => normal(random, scale),
        Noise::Heavy => 0.6 * scale * tails.sample(random),
        Noise::Skewed => scale * Exp::new(1.0).expect("a valid rate").sample(random),
    };
    let luck = draw(0.03);
    std::array::from_fn(|_| luck + draw(0.015))
}

fn normal(random: &mut StdRng, deviation: f64) -> f64 {
    Normal::new(0.0, deviation)
        .expect("a valid deviation")
        .sample(random)
}

/// The bad habits of a machine under whole runs, as shares of a run's figure: as in the table of two arms.
struct Machine {
    run: f64,
    drift: f64,
    spike: f64,
    start: f64,
}

const CALM: Machine = Machine {
    run: 0.01,
    drift: 0.05,
    spike: 0.0,
    start: 0.02,
};
const ROUGH: Machine = Machine {
    run: 0.05,
    drift: 0.30,
    spike: 0.10,
    start: 0.02,
};

/// A comparison by runs: in each of six blocks two of each arm in random order, the machine drifting underneath. What a
/// neighbour takes, and the speed, show in all metrics of a run.
fn runs(random: &mut StdRng, arms: usize, truth: f64, machine: &Machine) -> Vec<Samples> {
    let tails = StudentT::new(2.0).expect("a valid count of degrees of freedom");
    let mut questions = vec![Vec::new(); arms * METRICS];
    for _ in 0..6 {
        let mut order: Vec<usize> = (0..=arms).chain(0..=arms).collect();
        order.shuffle(random);
        let mut speed = 0.0;
        let mut seen: Vec<Vec<[f64; METRICS]>> = vec![Vec::new(); arms + 1];
        for arm in order {
            speed += normal(random, machine.drift / 2.0);
            let neighbour = f64::from(u8::from(random.random_bool(machine.spike))) * 0.4;
            let luck = normal(random, machine.start) + neighbour + speed;
            let truth = match arm {
                0 => 0.0,
                arm => shift(arm - 1, arms, truth),
            };
            seen[arm].push(std::array::from_fn(|_| {
                truth + luck + machine.run * tails.sample(random)
            }));
        }
        for arm in 0..arms {
            for metric in 0..METRICS {
                let of = |runs: &[[f64; METRICS]]| runs.iter().map(|run| run[metric]).collect();
                questions[arm * METRICS + metric].push(Some(RunBlock {
                    baseline: of(&seen[0]),
                    arm: of(&seen[arm + 1]),
                }));
            }
        }
    }
    questions.into_iter().map(Samples::Runs).collect()
}
