//! All questions of a comparison answered together: which are tested, how the families are corrected, which word
//! each gets. One primary metric was named before the run; over everything else Holm's correction watches.

use crate::{
    ALPHA, Good, Interval, RunBlock, Verdict, aligned_rank, blocks_min, holm, signed_rank, verdict,
};

/// One metric of one arm against the baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// What the valid blocks gave.
    pub samples: Samples,
    /// Which way the ratio is good.
    pub good: Good,
    /// Whether this is the metric that was named before the run.
    pub primary: bool,
    /// False where the figures can be shown, but carry no verdict (the client bounds the rate): the verdict is
    /// `Invalid`, and the question takes no part in the correction of the others.
    pub decidable: bool,
}

/// What the blocks of a comparison gave for one question, on the scale of logarithms; finite.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    /// Slices: ln(arm / baseline), one per block.
    Ratios(Vec<f64>),
    /// Whole runs: ln of each run's figure, by block.
    Runs(Vec<RunBlock>),
}

impl Samples {
    /// How many blocks there are.
    #[must_use]
    pub fn blocks(&self) -> usize {
        match self {
            Self::Ratios(ratios) => ratios.len(),
            Self::Runs(blocks) => blocks.len(),
        }
    }

    fn test(&self) -> Option<Test> {
        match self {
            Self::Ratios(ratios) => signed_rank(ratios, ALPHA).map(|test| Test {
                estimate: test.estimate,
                p: test.p,
                interval: test.interval,
            }),
            Self::Runs(blocks) => {
                let test = aligned_rank(blocks, ALPHA)?;
                // Fewer would do for the ranks, but blocks are few enough to be all of one odd minute.
                let enough = blocks_min(ALPHA) <= blocks.len();
                Some(Test {
                    estimate: test.estimate,
                    p: test.p.filter(|_| enough),
                    interval: test.interval.filter(|_| enough),
                })
            }
        }
    }
}

/// What either test gives, on the scale of logarithms.
#[derive(Debug, Clone, Copy)]
struct Test {
    estimate: f64,
    p: Option<f64>,
    interval: Option<Interval>,
}

/// The answer to a [`Question`], on the scale of the ratio. Whatever can't be had is `None`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// arm / baseline, Hodges-Lehmann over the blocks. `None` without a block.
    pub ratio: Option<f64>,
    /// The interval, with the confidence that it really has.
    pub interval: Option<Interval>,
    /// Two-sided, exact, not corrected.
    pub p: Option<f64>,
    /// Corrected for the questions of its family; `None` where there is no p or no verdict to be had.
    pub p_holm: Option<f64>,
    /// How many blocks it stands on.
    pub blocks_used: usize,
    /// The word.
    pub verdict: Verdict,
}

/// Answers every question: two families, the primary metric (one question per arm) and everything else.
///
/// `margin` as for [`verdict()`].
#[must_use]
pub fn answer_all(questions: &[Question], margin: f64) -> Vec<Answer> {
    let tests: Vec<Option<Test>> = questions
        .iter()
        .map(|question| question.samples.test())
        .collect();
    let mut p_holm = vec![None; questions.len()];
    for primary in [true, false] {
        let family: Vec<(usize, f64)> = questions
            .iter()
            .enumerate()
            .filter(|(_, question)| question.primary == primary && question.decidable)
            .filter_map(|(index, _)| Some((index, tests[index]?.p?)))
            .collect();
        let p_values: Vec<f64> = family.iter().map(|&(_, p)| p).collect();
        for (&(index, _), adjusted) in family.iter().zip(holm(&p_values)) {
            p_holm[index] = Some(adjusted);
        }
    }
    questions
        .iter()
        .zip(tests)
        .zip(p_holm)
        .map(|((question, test), p_holm)| answer(question, test, p_holm, margin))
        .collect()
}

fn answer(question: &Question, test: Option<Test>, p_holm: Option<f64>, margin: f64) -> Answer {
    let interval = test
        .and_then(|test| test.interval)
        .map(|interval| Interval {
            low: interval.low.exp(),
            high: interval.high.exp(),
            confidence: interval.confidence,
        });
    let significant = p_holm.is_some_and(|p| p < ALPHA);
    let word = match interval {
        _ if !question.decidable => Verdict::Invalid,
        None => Verdict::Undecided,
        Some(interval) => verdict(
            interval.low,
            interval.high,
            margin,
            question.good,
            significant,
        ),
    };
    Answer {
        ratio: test.map(|test| test.estimate.exp()),
        interval,
        p: test.and_then(|test| test.p),
        p_holm,
        blocks_used: question.samples.blocks(),
        verdict: word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight blocks that scatter a little around `ratio`.
    fn around(ratio: f64) -> Vec<f64> {
        (0..8)
            .map(|block| ratio.ln() + 0.001 * (f64::from(block) - 3.3))
            .collect()
    }

    fn question(ratio: f64, primary: bool) -> Question {
        Question {
            samples: Samples::Ratios(around(ratio)),
            good: Good::Lower,
            primary,
            decidable: true,
        }
    }

    #[test]
    fn the_primary_of_two_arms_is_not_corrected() {
        let answers = answer_all(&[question(0.9, true), question(0.9, false)], 0.02);
        assert_eq!(answers[0].p_holm, answers[0].p);
        assert_eq!(answers[0].p, Some(2.0 / 256.0));
        assert_eq!(answers[0].verdict, Verdict::Better);
        let ratio = answers[0].ratio.expect("there are blocks");
        assert!((ratio - 0.9).abs() < 0.001, "{ratio}");
    }

    #[test]
    fn too_many_questions_for_eight_blocks_leave_the_others_undecided() {
        // 7 x 2/256 = 0.055: not below 5 %, however large the difference; 6 x 2/256 is.
        for (others, expected) in [(6, Verdict::Better), (7, Verdict::Undecided)] {
            let mut questions = vec![question(0.9, true)];
            questions.extend((0..others).map(|_| question(0.5, false)));
            let answers = answer_all(&questions, 0.02);
            assert_eq!(
                answers[0].verdict,
                Verdict::Better,
                "the primary is a family of its own"
            );
            assert!(
                answers[1..].iter().all(|answer| answer.verdict == expected),
                "{others} others"
            );
        }
    }

    #[test]
    fn what_carries_no_verdict_costs_the_others_nothing() {
        let mut questions: Vec<Question> = (0..7).map(|_| question(0.5, false)).collect();
        questions[0].decidable = false;
        let answers = answer_all(&questions, 0.02);
        assert_eq!(answers[0].verdict, Verdict::Invalid);
        assert_eq!(answers[0].p_holm, None);
        assert!(
            answers[0].ratio.is_some() && answers[0].interval.is_some(),
            "shown all the same"
        );
        assert!(
            answers[1..]
                .iter()
                .all(|answer| answer.verdict == Verdict::Better)
        );
    }

    #[test]
    fn fewer_than_six_blocks_are_undecided_with_a_ratio_and_no_interval() {
        let few = Question {
            samples: Samples::Ratios(around(0.5)[..5].to_vec()),
            ..question(0.5, true)
        };
        let none = Question {
            samples: Samples::Ratios(Vec::new()),
            ..question(0.5, true)
        };
        let answers = answer_all(&[few, none], 0.02);
        assert_eq!(answers[0].verdict, Verdict::Undecided);
        assert!(answers[0].ratio.is_some());
        assert_eq!(
            (answers[0].interval, answers[0].p, answers[0].p_holm),
            (None, None, None)
        );
        assert_eq!(
            (answers[1].ratio, answers[1].verdict),
            (None, Verdict::Undecided)
        );
    }

    /// Blocks of two runs each: the arm's are `ratio` times the baseline's, give or take a little.
    fn runs(ratio: f64, blocks: usize) -> Question {
        let block = |index: usize| {
            let level = 0.3 * index as f64;
            let scatter = 0.001 * (index % 3) as f64;
            RunBlock {
                baseline: vec![level, level + 0.002],
                arm: vec![level + ratio.ln() + scatter, level + ratio.ln() - 0.001],
            }
        };
        Question {
            samples: Samples::Runs((0..blocks).map(block).collect()),
            ..question(ratio, true)
        }
    }

    #[test]
    fn whole_runs_are_answered_by_aligned_ranks() {
        let answer = answer_all(&[runs(0.9, 6)], 0.02)[0];
        assert_eq!((answer.verdict, answer.blocks_used), (Verdict::Better, 6));
        let interval = answer.interval.expect("six blocks");
        assert!(
            interval.low < 0.9 && 0.9 < interval.high && interval.high < 0.91,
            "{interval:?}"
        );
        assert!(answer.p.is_some_and(|p| p < 1e-3));
    }

    #[test]
    fn fewer_than_six_blocks_of_runs_have_no_interval_either() {
        let answer = answer_all(&[runs(0.5, 5)], 0.02)[0];
        assert_eq!(
            (answer.interval, answer.p, answer.verdict),
            (None, None, Verdict::Undecided)
        );
        assert!(answer.ratio.is_some_and(|ratio| (ratio - 0.5).abs() < 0.01));
    }
}
