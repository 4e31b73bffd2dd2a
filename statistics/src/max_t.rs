//! Many questions asked of the same blocks at once: Westfall and Young's step-down max-t over the ways in which the
//! labels "arm" and "baseline" could have been dealt in the blocks.
//!
//! Where nothing differs, the labels within a block could as well have been swapped. A swap changes all questions of the
//! block together, so what goes together (p50 and p90, rate and CPU) is not paid for twice, as it is where p values are
//! multiplied.
//!
//! For slices the statistic is a studentized mean: a dealing that gives all values of a question the same sign makes its
//! rank sum as large as it can be, but not its t. So a large effect keeps the smallest p there is, 2 / 2^K after K blocks,
//! however many questions are asked beside it. Whole runs have so many more dealings that ranks can be told apart, and
//! their tails are heavier: there it is the sum of aligned ranks, over its standard deviation.
//!
//! Source: Westfall and Young, Resampling-Based Multiple Testing (1993), algorithm 2.8.

use crate::{RunBlock, Samples, aligned_rank::aligned_ranks};

/// All dealings are gone through where there are at most so many (16 blocks of slices, 6 of two and two runs). Of more,
/// a random sample of this size stands for all: p comes in steps of 1 / 65,536, and one near 5 % has a standard error
/// of 0.09 %.
const DEALINGS_MAX: usize = 1 << 16;
/// Blocks are looked up in groups of at most so many dealings.
const GROUP_MAX: usize = 1 << 8;
/// What a tie of two squares of t may differ by, as a share: they are sums of logarithms, taken in different orders.
const TIE: f64 = 1e-9;

/// Adjusts for asking all `questions` of the same blocks: two-sided p values, in the order given, each of which may be
/// compared with the size of the whole family.
///
/// `s0` is added to the standard deviation of ratios (0 <= s0, on the scale of the samples). It must be fixed before the data are
/// seen. Without it a question whose values differ by next to nothing has no variance under one dealing or another, hence
/// a huge t there, which takes the power of all others.
///
/// A question need not have a value in each block, but must have none for a reason that is the same for both arms. The
/// blocks of all must be dealt alike: the same number of runs, if they are runs. A question that does not fit has p = 1.
/// The time grows with questions times blocks, but not with the number of dealings: 30 questions take 0.2 s at 200 blocks.
#[must_use]
pub(crate) fn step_down_max_t(questions: &[&Samples], s0: f64) -> Vec<f64> {
    let outcomes: Vec<Vec<Vec<f64>>> = questions.iter().map(|samples| outcomes(samples)).collect();
    let blocks = outcomes.iter().map(Vec::len).max().unwrap_or(0);
    // In how many ways each block's labels can be dealt.
    let ways: Vec<usize> = (0..blocks)
        .map(|block| {
            let of_block = outcomes.iter().filter_map(|blocks| blocks.get(block));
            of_block.map(Vec::len).max().unwrap_or(0).max(1)
        })
        .collect();
    let groups = groups(&ways);
    let tables: Vec<Option<Table>> = questions
        .iter()
        .zip(&outcomes)
        .map(|(samples, blocks)| {
            let ranked = matches!(samples, Samples::Runs(_));
            Table::of(blocks, &ways, &groups, ranked)
        })
        .collect();

    // The first dealing is the one that was seen.
    let seen = vec![0; groups.len()];
    let t_squared = |question: usize, dealing: &[usize]| {
        let table = tables[question].as_ref();
        table.map_or(0.0, |table| table.t_squared(dealing, s0))
    };
    let t_seen: Vec<f64> = (0..questions.len())
        .map(|question| t_squared(question, &seen))
        .collect();
    let mut descending: Vec<usize> = (0..questions.len()).collect();
    descending.sort_by(|&one, &other| t_seen[other].total_cmp(&t_seen[one]));

    let mut reached = vec![0_usize; questions.len()];
    let mut dealings = 0_usize;
    for_each_dealing(&ways, &groups, |dealing| {
        dealings += 1;
        // The largest among this question and all that showed less.
        let mut max = 0.0_f64;
        for &question in descending.iter().rev() {
            max = max.max(t_squared(question, dealing));
            reached[question] += usize::from(t_seen[question] * (1.0 - TIE) <= max);
        }
    });

    let mut adjusted = vec![1.0; questions.len()];
    let mut floor = 0.0_f64;
    for question in descending {
        if tables[question].is_some() {
            floor = floor.max(reached[question] as f64 / dealings as f64);
            adjusted[question] = floor;
        }
    }
    adjusted
}

/// What a question would have shown in each block under each dealing of its labels, the true one first; nothing for a
/// block that it has no value of.
fn outcomes(samples: &Samples) -> Vec<Vec<f64>> {
    match samples {
        Samples::Ratios(ratios) => ratios
            .iter()
            .map(|ratio| ratio.map_or_else(Vec::new, |ratio| vec![ratio, -ratio]))
            .collect(),
        Samples::Runs(blocks) => {
            let given: Vec<&RunBlock> = blocks.iter().flatten().collect();
            let mut ranks = aligned_ranks(&given, 0.0).into_iter();
            let mut of_block = |_: &RunBlock| {
                let ranks = ranks.next()?;
                Some(differences(&ranks.arm, &ranks.baseline))
            };
            blocks
                .iter()
                .map(|block| block.as_ref().and_then(&mut of_block).unwrap_or_default())
                .collect()
        }
    }
}

/// Mean rank of the arm's runs minus that of the baseline's, for every choice of runs that may be called the arm's: first
/// those that are.
fn differences(arm: &[usize], baseline: &[usize]) -> Vec<f64> {
    let ranks: Vec<f64> = arm
        .iter()
        .chain(baseline)
        .map(|&rank| rank as f64)
        .collect();
    let (arms, baselines) = (arm.len(), baseline.len());
    if arms == 0 || baselines == 0 {
        return Vec::new();
    }
    let total: f64 = ranks.iter().sum();
    // The arm's runs are listed first, so the first choice in order is the true one.
    let mut chosen: Vec<usize> = (0..arms).collect();
    let mut differences = Vec::new();
    loop {
        let sum: f64 = chosen.iter().map(|&run| ranks[run]).sum();
        differences.push(sum / arms as f64 - (total - sum) / baselines as f64);
        // The next choice: move the last run that can move, and let those behind it follow.
        let Some(place) = (0..arms)
            .rev()
            .find(|&place| chosen[place] < place + baselines)
        else {
            return differences;
        };
        chosen[place] += 1;
        for behind in place + 1..arms {
            chosen[behind] = chosen[behind - 1] + 1;
        }
    }
}

/// Consecutive blocks whose dealings are taken together: for each group the index of its first block, and behind its last.
fn groups(ways: &[usize]) -> Vec<(usize, usize)> {
    let mut groups: Vec<(usize, usize)> = Vec::new();
    let mut size = usize::MAX;
    for (block, &ways) in ways.iter().enumerate() {
        size = size.saturating_mul(ways);
        match groups.last_mut() {
            Some(group) if size <= GROUP_MAX => group.1 = block + 1,
            _ => {
                groups.push((block, block + 1));
                size = ways;
            }
        }
    }
    groups
}

/// Hands over all dealings, or a sample: for each group the number of its dealing. The first is the true one, all zeros.
fn for_each_dealing(ways: &[usize], groups: &[(usize, usize)], mut take: impl FnMut(&[usize])) {
    let sizes: Vec<usize> = groups
        .iter()
        .map(|&(first, behind)| ways[first..behind].iter().product())
        .collect();
    let all = sizes
        .iter()
        .fold(1_usize, |all, &size| all.saturating_mul(size));
    let mut dealing = vec![0; groups.len()];
    if all <= DEALINGS_MAX {
        for _ in 0..all {
            take(&dealing);
            // Counts up, the first group fastest.
            for (place, &size) in dealing.iter_mut().zip(&sizes) {
                *place = (*place + 1) % size;
                if *place != 0 {
                    break;
                }
            }
        }
        return;
    }
    take(&dealing);
    let mut random = SplitMix(0x9E37_79B9);
    for _ in 1..DEALINGS_MAX {
        for (place, &size) in dealing.iter_mut().zip(&sizes) {
            *place = random.below(size);
        }
        take(&dealing);
    }
}

/// Steele, Lea and Flood's generator (2014): a saved result must give the same p on any machine and in any later version,
/// which a library's default generator does not promise.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        ((u128::from(bits) * bound as u128) >> 64) as usize
    }
}

/// A question's sums over each group of blocks under each of the group's dealings.
struct Table {
    /// The blocks that have a value.
    blocks: f64,
    /// For ranks: the variance of their sum over all dealings.
    variance: Option<f64>,
    /// By group and dealing: the sum of the values, and of their squares.
    sums: Vec<Vec<(f64, f64)>>,
}

impl Table {
    /// `None` where the question's blocks are not dealt as the others' are, or are fewer than two.
    fn of(
        outcomes: &[Vec<f64>],
        ways: &[usize],
        groups: &[(usize, usize)],
        ranked: bool,
    ) -> Option<Self> {
        let given = outcomes.iter().filter(|block| !block.is_empty()).count();
        let fits = outcomes
            .iter()
            .zip(ways)
            .all(|(block, &ways)| block.is_empty() || block.len() == ways);
        if !fits || given < 2 {
            return None;
        }
        let sums = groups.iter().map(|&(first, behind)| {
            let mut sums = vec![(0.0, 0.0)];
            for (block, &ways) in (first..behind).zip(&ways[first..behind]) {
                let of_block = outcomes.get(block).map_or(&[][..], Vec::as_slice);
                sums = (0..ways)
                    .flat_map(|way| {
                        let value = of_block.get(way).copied().unwrap_or(0.0);
                        let add = move |&(sum, squares): &(f64, f64)| {
                            (sum + value, squares + value * value)
                        };
                        sums.iter().map(add).collect::<Vec<_>>()
                    })
                    .collect();
            }
            sums
        });
        // The mean over a block's dealings is 0.
        let mean_square = |block: &Vec<f64>| {
            let squares: f64 = block.iter().map(|value| value * value).sum();
            squares / block.len().max(1) as f64
        };
        Some(Self {
            blocks: given as f64,
            variance: ranked.then(|| outcomes.iter().map(mean_square).sum()),
            sums: sums.collect(),
        })
    }

    /// The square of t = mean / sqrt((s^2 + s0^2) / K) under a dealing, or for ranks of sum / deviation: it orders as |t|
    /// does, and costs no root.
    fn t_squared(&self, dealing: &[usize], s0: f64) -> f64 {
        let (mut sum, mut squares) = (0.0, 0.0);
        for (group, &dealing) in self.sums.iter().zip(dealing) {
            let (more, more_squares) = group[dealing];
            sum += more;
            squares += more_squares;
        }
        // Nothing over nothing is no difference.
        if sum == 0.0 {
            return 0.0;
        }
        if let Some(variance) = self.variance {
            return sum * sum / variance;
        }
        let of_mean = sum * sum / self.blocks;
        let freedom = self.blocks - 1.0;
        of_mean * freedom / ((squares - of_mean).max(0.0) + s0 * s0 * freedom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S0: f64 = 0.005;

    /// One question for each column of `rows`, which are blocks.
    fn columns<const N: usize>(rows: &[[f64; N]]) -> Vec<Samples> {
        (0..N)
            .map(|column| Samples::Ratios(rows.iter().map(|row| Some(row[column])).collect()))
            .collect()
    }

    fn adjusted(questions: &[Samples], s0: f64) -> Vec<f64> {
        step_down_max_t(&questions.iter().collect::<Vec<_>>(), s0)
    }

    /// The definition, without shortcuts. `outcomes`: by question, block and dealing, the true dealing first.
    fn by_brute_force(outcomes: &[Vec<Vec<f64>>], t_of: impl Fn(&[f64], usize) -> f64) -> Vec<f64> {
        let ways: Vec<usize> = outcomes[0].iter().map(Vec::len).collect();
        let mut dealings: Vec<Vec<usize>> = vec![Vec::new()];
        for &ways in &ways {
            dealings = dealings
                .iter()
                .flat_map(|dealing| (0..ways).map(move |way| [&dealing[..], &[way]].concat()))
                .collect();
        }
        let t = |question: usize, dealing: &[usize]| {
            let values: Vec<f64> = dealing
                .iter()
                .enumerate()
                .map(|(block, &way)| outcomes[question][block][way])
                .collect();
            t_of(&values, question)
        };
        let t_seen: Vec<f64> = (0..outcomes.len())
            .map(|question| t(question, &dealings[0]))
            .collect();
        let mut order: Vec<usize> = (0..outcomes.len()).collect();
        order.sort_by(|&one, &other| t_seen[other].total_cmp(&t_seen[one]));
        let mut adjusted = vec![0.0; outcomes.len()];
        let mut last = 0.0_f64;
        for (step, &question) in order.iter().enumerate() {
            let rest = &order[step..];
            let reaches = |dealing: &&Vec<usize>| {
                let largest = rest.iter().map(|&one| t(one, dealing));
                t_seen[question] * (1.0 - 1e-9) <= largest.fold(0.0, f64::max)
            };
            let reached = dealings.iter().filter(reaches).count();
            last = last.max(reached as f64 / dealings.len() as f64);
            adjusted[question] = last;
        }
        adjusted
    }

    fn studentized(values: &[f64], _: usize) -> f64 {
        let k = values.len() as f64;
        let mean = values.iter().sum::<f64>() / k;
        let apart: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        mean.abs() / ((apart / (k - 1.0) + S0 * S0) / k).sqrt()
    }

    /// Figures of an independent, slow implementation.
    #[test]
    fn agrees_with_an_independent_implementation() {
        let example = columns(&[
            [0.41, 0.02, -0.01],
            [0.39, -0.03, 0.02],
            [0.40, 0.01, 0.01],
            [0.42, 0.00, -0.02],
            [0.38, 0.02, 0.03],
            [0.41, -0.01, 0.00],
            [0.40, 0.03, -0.01],
            [0.43, -0.02, 0.02],
        ]);
        assert_eq!(adjusted(&example, S0), [0.007_812_5, 0.875, 0.773_437_5]);
        let graded = columns(&[
            [-0.013, 0.056, 0.049, 0.074, 0.073],
            [-0.011, 0.086, 0.081, 0.142, 0.132],
            [0.02, 0.039, -0.023, 0.133, 0.145],
            [0.025, -0.055, -0.027, 0.046, 0.097],
            [0.015, 0.028, 0.086, 0.058, 0.135],
            [0.02, -0.003, 0.146, 0.118, 0.18],
            [-0.031, -0.007, 0.043, 0.085, 0.152],
        ]);
        let of_128 = |counts: [u8; 5]| counts.map(|count| f64::from(count) / 128.0);
        assert_eq!(adjusted(&graded, S0), of_128([84, 62, 26, 2, 2]));
        assert_eq!(adjusted(&graded, 0.02), of_128([84, 52, 20, 2, 2]));
    }

    /// Six questions of one part in a thousand beside a true x1.5, in six blocks. The figures are the independent
    /// implementation's.
    #[test]
    fn questions_that_differ_by_a_histogram_bucket_do_not_take_the_power_of_the_others() {
        let questions = columns(&[
            [
                0.40, -0.000998, -0.000999, 0.001, 0.001001, -0.001002, -0.000998,
            ],
            [
                0.36, 0.001001, -0.001002, 0.000998, -0.000999, 0.001, -0.001001,
            ],
            [
                0.45, -0.000999, 0.001, 0.001001, -0.001002, -0.000998, 0.000999,
            ],
            [
                0.41, 0.001002, 0.000998, 0.000999, 0.001, 0.001001, 0.001002,
            ],
            [
                0.38, -0.001, -0.001001, 0.001002, 0.000998, -0.000999, -0.001,
            ],
            [
                0.43, 0.000998, -0.000999, 0.001, -0.001001, 0.001002, -0.000998,
            ],
        ]);
        assert_eq!(
            adjusted(&questions, S0),
            [0.03125, 1.0, 0.78125, 0.09375, 1.0, 1.0, 1.0]
        );
        assert_eq!(
            adjusted(&questions, 0.0),
            [0.125, 1.0, 0.75, 0.03125, 1.0, 1.0, 1.0],
            "without the constant they do"
        );
    }

    #[test]
    fn the_smallest_p_does_not_depend_on_the_number_of_questions() {
        for count in [1, 6, 27, 100] {
            let large = |question: usize| {
                Samples::Ratios(
                    (0..6)
                        .map(|block| Some(1.0 + 0.01 * (block * question % 7) as f64))
                        .collect(),
                )
            };
            let questions: Vec<Samples> = (0..count).map(large).collect();
            assert_eq!(adjusted(&questions, S0), vec![2.0 / 64.0; count]);
        }
    }

    #[test]
    fn the_true_dealing_comes_first_of_all_choices() {
        assert_eq!(
            differences(&[10, 20], &[1, 2]),
            [13.5, -5.5, -4.5, 4.5, 5.5, -13.5],
            "called the arm's: 10 and 20, 10 and 1, 10 and 2, 20 and 1, 20 and 2, 1 and 2"
        );
        assert_eq!(differences(&[], &[1]), Vec::<f64>::new());
    }

    #[test]
    fn what_does_not_fit_is_never_different() {
        let ratios = Samples::Ratios(vec![Some(1.0); 6]);
        let block = RunBlock {
            baseline: vec![0.0, 0.1],
            arm: vec![5.0, 5.1],
        };
        let runs = Samples::Runs(vec![Some(block); 6]);
        let p = adjusted(&[ratios.clone(), runs], S0);
        assert!(p[0] == 1.0 && p[1] < 1e-3, "{p:?}");
        assert_eq!(adjusted(&[Samples::Ratios(vec![None; 6])], S0), [1.0]);
        assert_eq!(adjusted(&[Samples::Ratios(vec![Some(0.0); 6])], S0), [1.0]);
        assert_eq!(adjusted(&[], S0), Vec::<f64>::new());
        // Blocks that the list does not even mention are blocks without a value.
        let short = Samples::Ratios(vec![Some(0.5); 3]);
        assert_eq!(adjusted(&[ratios, short], S0), [2.0 / 64.0, 2.0 / 8.0]);
    }

    #[test]
    fn sixteen_blocks_are_gone_through_and_of_more_a_sample() {
        let blocks = |count: usize| vec![Samples::Ratios(vec![Some(0.1); count])];
        assert_eq!(adjusted(&blocks(16), S0), [2.0 / 65_536.0]);
        // The true dealing is among the sample, so that no p is 0.
        assert_eq!(adjusted(&blocks(40), S0), [1.0 / 65_536.0]);
        let count = |ways: &[usize]| {
            let (mut count, mut last) = (0, 0);
            for_each_dealing(ways, &groups(ways), |dealing| {
                if count == 0 {
                    assert!(dealing.iter().all(|&place| place == 0));
                }
                count += 1;
                last = dealing.iter().sum();
            });
            (count, last)
        };
        assert_eq!(count(&[2; 16]), (65_536, 2 * 255));
        assert_eq!(count(&[6; 6]), (46_656, 2 * 215));
        assert_eq!(count(&[2; 17]).0, 65_536);
        assert_eq!(count(&[6; 7]).0, 65_536);
        assert_eq!(count(&[]), (1, 0));
    }

    /// A sample of the dealings gives what all would, within four standard errors.
    #[test]
    fn a_sample_of_the_dealings_stands_for_all() {
        let value = |block: usize, question: usize| {
            let noise = ((block * 7 + question * 5) * 2_654_435_761 % 1_000) as f64 / 1_000.0 - 0.5;
            0.1 * question as f64 / 3.0 + 0.4 * noise
        };
        let questions = |blocks: usize| -> Vec<Samples> {
            (0..4)
                .map(|question| {
                    Samples::Ratios(
                        (0..blocks)
                            .map(|block| Some(value(block, question)))
                            .collect(),
                    )
                })
                .collect()
        };
        let seventeen = questions(17);
        let sampled = adjusted(&seventeen, S0);
        let all: Vec<Vec<Vec<f64>>> = seventeen.iter().map(outcomes).collect();
        let exact = by_brute_force(&all, studentized);
        for (sampled, exact) in sampled.iter().zip(&exact) {
            let error = (exact * (1.0 - exact) / 65_536.0).sqrt();
            assert!(
                (sampled - exact).abs() <= 4.0 * error,
                "{sampled} {exact} {error}"
            );
        }
        assert!(
            exact.iter().any(|&p| (0.01..0.2).contains(&p)),
            "some must be of the size that matters: {exact:?}"
        );
    }

    /// So thirty questions take 0.2 s at 200 blocks, optimised: a test of the time itself fails on a busy machine.
    #[test]
    fn blocks_are_looked_up_in_groups() {
        assert_eq!(groups(&[2; 200]).len(), 25);
        assert_eq!(groups(&[6; 200]).len(), 67);
        assert_eq!(groups(&[2, 2, 6, 6]), [(0, 4)]);
        assert_eq!(groups(&[6, 6, 6, 2]), [(0, 3), (3, 4)]);
        assert_eq!(groups(&[924, 924, 2]), [(0, 1), (1, 2), (2, 3)]);
        assert_eq!(groups(&[]), []);
    }

    fn value() -> impl Strategy<Value = f64> {
        // Coarse, so that there are ties and zeros.
        (-8..=12_i32).prop_map(|value| f64::from(value) / 100.0)
    }

    proptest! {
        #[test]
        fn equals_brute_force(rows in prop::collection::vec(prop::array::uniform5(value()), 2..=9)) {
            let questions = columns(&rows);
            let all: Vec<Vec<Vec<f64>>> = questions.iter().map(outcomes).collect();
            for (got, expected) in adjusted(&questions, S0).iter().zip(by_brute_force(&all, studentized)) {
                prop_assert!((got - expected).abs() < 1e-12, "{got} {expected}");
            }
        }

        #[test]
        fn equals_brute_force_over_runs(
            blocks in prop::collection::vec(prop::collection::vec(prop::array::uniform4(value()), 3), 2..=4),
        ) {
            let questions: Vec<Samples> = (0..3)
                .map(|question| {
                    let block = |values: &Vec<[f64; 4]>| {
                        let [one, two, three, four] = values[question];
                        Some(RunBlock { baseline: vec![one, two], arm: vec![three, four] })
                    };
                    Samples::Runs(blocks.iter().map(block).collect())
                })
                .collect();
            let all: Vec<Vec<Vec<f64>>> = questions.iter().map(outcomes).collect();
            // The deviation over all dealings of all blocks, gone through one by one.
            let deviations: Vec<f64> = all
                .iter()
                .map(|blocks| {
                    let mut sums = vec![0.0];
                    for block in blocks {
                        sums = sums.iter().flat_map(|sum| block.iter().map(move |more| sum + more)).collect();
                    }
                    (sums.iter().map(|sum: &f64| sum * sum).sum::<f64>() / sums.len() as f64).sqrt()
                })
                .collect();
            let standardized = |values: &[f64], question: usize| match values.iter().sum::<f64>() {
                0.0 => 0.0,
                sum => sum.abs() / deviations[question],
            };
            for (got, expected) in adjusted(&questions, S0).iter().zip(by_brute_force(&all, standardized)) {
                prop_assert!((got - expected).abs() < 1e-12, "{got} {expected}");
            }
        }

        /// Which arm is called the baseline changes nothing, and more questions never make a p smaller.
        #[test]
        fn mirrored_and_enlarged(rows in prop::collection::vec(prop::array::uniform3(value()), 6..=9)) {
            let p = adjusted(&columns(&rows), S0);
            let mirrored: Vec<[f64; 3]> = rows.iter().map(|row| row.map(|value| -value)).collect();
            prop_assert_eq!(&p, &adjusted(&columns(&mirrored), S0));
            let fewer = adjusted(&columns(&rows)[..2], S0);
            prop_assert!(fewer[0] <= p[0] && fewer[1] <= p[1], "{fewer:?} {p:?}");
        }
    }
}
