//! All questions of a comparison answered together: which are tested, how the families are corrected, which word
//! each gets. One primary metric was named before the run; it is a family, and everything else is another.

use crate::{
    ALPHA, Good, Interval, Samples, Verdict, max_t::step_down_max_t, samples::Test, verdict,
};

/// The constant in the denominator of the studentized test is this share of the margin.
const S0_OF_MARGIN: f64 = 0.25;
/// And at least this, whatever the margin: the step of a histogram of three digits.
const S0_MIN: f64 = 0.001;

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
    /// How many blocks that count for it gave no figure (too few samples above its quantile). Decided from counts, not
    /// from what the figures say. One is enough: among others it is no question then.
    pub missing: usize,
}

/// The answer to a [`Question`], on the scale of the ratio. Whatever can't be had is `None`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// arm / baseline, Hodges-Lehmann over the blocks. `None` without a block.
    pub ratio: Option<f64>,
    /// The interval, with the confidence that it really has.
    pub interval: Option<Interval>,
    /// Two-sided, exact over ranks, not corrected.
    pub p: Option<f64>,
    /// Corrected for the questions of its family; `None` where there is no p, no verdict to be had, or a block is missing.
    pub p_adjusted: Option<f64>,
    /// How many blocks it stands on.
    pub blocks_used: usize,
    /// How many gave no figure, where that keeps it from being asked; else 0.
    pub missing: usize,
    /// The word.
    pub verdict: Verdict,
}

/// Answers every question: two families, the primary metric (one question per arm) and everything else. Each is called
/// different wrongly, in any of its questions, in at most 5 of 100 comparisons.
///
/// A question that is alone in its family keeps its exact rank test; several are asked by step-down max-t. `margin` as
/// for [`verdict()`].
#[must_use]
pub fn answer_all(questions: &[Question], margin: f64) -> Vec<Answer> {
    let tests: Vec<Option<Test>> = questions
        .iter()
        .map(|question| question.samples.test())
        .collect();
    let p_of = |index: usize| tests[index].and_then(|test| test.p);
    let mut p_adjusted = vec![None; questions.len()];
    let mut missing = vec![0; questions.len()];
    for primary in [true, false] {
        let family: Vec<usize> = (0..questions.len())
            .filter(|&index| questions[index].primary == primary && questions[index].decidable)
            .collect();
        if let [alone] = family[..] {
            p_adjusted[alone] = p_of(alone);
            continue;
        }
        let (asked, incomplete): (Vec<usize>, Vec<usize>) = family
            .into_iter()
            .partition(|&index| questions[index].missing == 0);
        for index in incomplete {
            missing[index] = questions[index].missing;
        }
        // Fewer than six blocks have no p that could decide.
        let asked: Vec<usize> = asked
            .into_iter()
            .filter(|&index| p_of(index).is_some())
            .collect();
        let samples: Vec<&Samples> = asked
            .iter()
            .map(|&index| &questions[index].samples)
            .collect();
        let s0 = (margin * S0_OF_MARGIN).max(S0_MIN);
        for (index, p) in asked.into_iter().zip(step_down_max_t(&samples, s0)) {
            p_adjusted[index] = Some(p);
        }
    }
    (0..questions.len())
        .map(|index| {
            answer(
                &questions[index],
                tests[index],
                p_adjusted[index],
                missing[index],
                margin,
            )
        })
        .collect()
}

fn answer(
    question: &Question,
    test: Option<Test>,
    p_adjusted: Option<f64>,
    missing: usize,
    margin: f64,
) -> Answer {
    let interval = test
        .and_then(|test| test.interval)
        .map(|interval| Interval {
            low: interval.low.exp(),
            high: interval.high.exp(),
            confidence: interval.confidence,
        });
    let significant = p_adjusted.is_some_and(|p| p < ALPHA);
    let word = match interval {
        _ if !question.decidable => Verdict::Invalid,
        Some(interval) if missing == 0 => verdict(
            interval.low,
            interval.high,
            margin,
            question.good,
            significant,
        ),
        _ => Verdict::Undecided,
    };
    Answer {
        ratio: test.map(|test| test.estimate.exp()),
        interval,
        p: test.and_then(|test| test.p),
        p_adjusted,
        blocks_used: question.samples.blocks(),
        missing,
        verdict: word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunBlock;

    /// Eight blocks that scatter a little around `ratio`.
    fn around(ratio: f64) -> Vec<Option<f64>> {
        (0..8)
            .map(|block| Some(ratio.ln() + 0.001 * (f64::from(block) - 3.3)))
            .collect()
    }

    fn question(ratio: f64, primary: bool) -> Question {
        Question {
            samples: Samples::Ratios(around(ratio)),
            good: Good::Lower,
            primary,
            decidable: true,
            missing: 0,
        }
    }

    #[test]
    fn the_primary_of_two_arms_is_not_corrected() {
        let answers = answer_all(&[question(0.9, true), question(0.9, false)], 0.02);
        assert_eq!(answers[0].p_adjusted, answers[0].p);
        assert_eq!(answers[0].p, Some(2.0 / 256.0));
        assert_eq!(answers[0].verdict, Verdict::Better);
        let ratio = answers[0].ratio.expect("there are blocks");
        assert!((ratio - 0.9).abs() < 0.001, "{ratio}");
    }

    #[test]
    fn a_large_difference_is_found_in_six_blocks_however_many_ask() {
        // Holm over exact ranks would need 27 x 2/64 to be below 5 %.
        let blocks = |ratio: f64| Question {
            samples: Samples::Ratios(around(ratio)[..6].to_vec()),
            ..question(ratio, true)
        };
        let mut questions: Vec<Question> = (0..27).map(|_| blocks(0.5)).collect();
        questions.push(blocks(0.999));
        let answers = answer_all(&questions, 0.02);
        assert_eq!(answers[0].p_adjusted, Some(2.0 / 64.0));
        assert!(
            answers[..27]
                .iter()
                .all(|answer| answer.verdict == Verdict::Better)
        );
        assert_eq!(
            answers[27].verdict,
            Verdict::Same,
            "rests on its own interval"
        );
    }

    #[test]
    fn the_families_do_not_pay_for_each_other() {
        // Values of either sign, so large that they would stand in the way of a small difference in their family.
        let noisy = |block: usize| Some(if block.is_multiple_of(2) { 0.4 } else { -0.37 });
        let noise = Question {
            samples: Samples::Ratios((0..8).map(noisy).collect()),
            ..question(1.0, false)
        };
        let alone = question(0.9, true);
        let answers = answer_all(&[alone.clone(), noise.clone(), noise.clone()], 0.02);
        assert_eq!(answers[0].p_adjusted, Some(2.0 / 256.0));
        assert!(answers[1].p_adjusted.is_some_and(|p| 0.05 < p));
        let together = Question {
            primary: false,
            ..alone
        };
        let answers = answer_all(&[together, noise.clone(), noise], 0.02);
        assert!(answers[0].p_adjusted > Some(2.0 / 256.0), "{answers:?}");
    }

    #[test]
    fn among_others_a_question_with_a_missing_block_is_none() {
        let mut short = question(0.5, false);
        short.samples = Samples::Ratios([&around(0.5)[..7], &[None]].concat());
        short.missing = 1;
        let answers = answer_all(&[short.clone(), question(0.9, false)], 0.02);
        assert_eq!(
            (answers[0].p_adjusted, answers[0].verdict),
            (None, Verdict::Undecided)
        );
        assert_eq!((answers[0].blocks_used, answers[0].missing), (7, 1));
        assert!(answers[0].interval.is_some(), "shown all the same");
        assert_eq!(answers[1].verdict, Verdict::Better);
        // Not even "same", which needs no p.
        let alike = Question {
            samples: Samples::Ratios([&around(1.0)[..7], &[None]].concat()),
            ..short.clone()
        };
        let answers = answer_all(&[alike, question(0.9, false)], 0.02);
        assert_eq!(answers[0].verdict, Verdict::Undecided);
        // Alone it keeps its own test, over the blocks that there are.
        let answers = answer_all(&[short], 0.02);
        assert_eq!(answers[0].p_adjusted, Some(2.0 / 128.0));
        assert_eq!(answers[0].verdict, Verdict::Better);
    }

    #[test]
    fn a_block_that_does_not_count_for_a_question_keeps_none_from_being_asked() {
        let mut short = question(0.5, false);
        short.samples = Samples::Ratios([&around(0.5)[..7], &[None]].concat());
        let answers = answer_all(&[short, question(0.9, false)], 0.02);
        assert_eq!(answers[0].p_adjusted, Some(2.0 / 128.0));
        assert_eq!(answers[0].verdict, Verdict::Better);
    }

    #[test]
    fn a_margin_of_nothing_still_has_a_constant() {
        // One value of all sizes alike but for a last digit, and a clear difference.
        let coarse = |block: usize| Some(if block.is_multiple_of(3) { 1e-4 } else { -1e-4 });
        let coarse = Question {
            samples: Samples::Ratios((0..8).map(coarse).collect()),
            ..question(1.0, true)
        };
        let answers = answer_all(&[question(0.9, true), coarse], 0.0);
        assert_eq!(answers[0].p_adjusted, Some(2.0 / 256.0));
    }

    #[test]
    fn what_carries_no_verdict_costs_the_others_nothing() {
        let mut questions: Vec<Question> = (0..7).map(|_| question(0.5, false)).collect();
        questions[0].decidable = false;
        let answers = answer_all(&questions, 0.02);
        assert_eq!(answers[0].verdict, Verdict::Invalid);
        assert_eq!(answers[0].p_adjusted, None);
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
            (answers[0].interval, answers[0].p, answers[0].p_adjusted),
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
            samples: Samples::Runs((0..blocks).map(block).map(Some).collect()),
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
