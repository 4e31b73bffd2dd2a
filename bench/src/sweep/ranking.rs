//! Which of several ways to run a server is best, as far as the blocks tell. Pure.

use echometer_report::file::sweep::{Conclusion, Contrast, Ranking};
use echometer_statistics::{Good, Question, Verdict, answer_all};

use crate::{
    levels::Key,
    sweep::{
        block::SweepBlock,
        contrasts::{Terms, cell_metric, contrast, objection, question},
        grid::Grid,
    },
};

/// Whether the levels are ways to run a server, of which one may be the best; loads are not.
#[must_use]
fn is_ranked(grid: &Grid) -> bool {
    let [axis] = grid.axes.as_slice() else {
        return false;
    };
    !matches!(
        axis.key,
        Key::Connections | Key::Size | Key::Pipeline | Key::Rate
    )
}

pub(crate) fn rankings(terms: Terms, grid: &Grid, blocks: &[SweepBlock]) -> Vec<Ranking> {
    if !is_ranked(grid) || grid.points.len() < 2 {
        return Vec::new();
    }
    (0..grid.arms.len())
        .filter_map(|arm| ranking(terms, grid, blocks, arm))
        .collect()
}

pub(crate) fn ranking(
    terms: Terms,
    grid: &Grid,
    blocks: &[SweepBlock],
    arm: usize,
) -> Option<Ranking> {
    let metric = terms.primary;
    let estimate = |point: usize| {
        let cell = grid.cell(point, arm);
        cell_metric(terms, grid, blocks, cell, metric, (None, None)).value
    };
    let mut known: Vec<(usize, f64)> = (0..grid.points.len())
        .filter_map(|point| Some((point, estimate(point)?)))
        .collect();
    known.sort_by(|one, other| match metric.good() {
        Good::Lower => one.1.total_cmp(&other.1),
        Good::Higher => other.1.total_cmp(&one.1),
    });
    let order: Vec<usize> = known.iter().map(|&(point, _)| point).collect();
    let (&best, others) = order.split_first()?;
    // Those against the best come first; the pairs of the others are asked too, for the best was chosen by looking.
    let mut pairs: Vec<(usize, usize)> = others.iter().map(|&point| (point, best)).collect();
    for (index, &one) in others.iter().enumerate() {
        pairs.extend(others[index + 1..].iter().map(|&other| (other, one)));
    }
    let objections: Vec<Option<String>> = pairs
        .iter()
        .map(|&(one, other)| {
            let cells = [one, other].map(|point| grid.cell(point, arm));
            objection(grid, blocks, metric, cells)
        })
        .collect();
    let questions: Vec<Question> = pairs
        .iter()
        .zip(&objections)
        .map(|(&(one, other), objection)| {
            let cells = [one, other].map(|point| grid.cell(point, arm));
            question(grid, blocks, (metric, true, objection.is_none()), cells)
        })
        .collect();
    let answers = answer_all(&questions, terms.margin);
    let label = |point: usize| grid.points[point].label.clone();
    let same = answers.iter().all(|answer| answer.verdict == Verdict::Same);
    let against_best: Vec<Contrast> = pairs
        .iter()
        .zip(answers)
        .zip(objections)
        .take(others.len())
        .map(|((&(one, other), answer), objection)| {
            contrast([label(one), label(other)], metric, answer, objection)
        })
        .collect();
    let behind = |contrast: &&Contrast| matches!(contrast.verdict, Verdict::Worse | Verdict::Small);
    let left_behind = against_best.iter().filter(behind).count();
    let conclusion = if same {
        Conclusion::Same
    } else if left_behind == others.len() {
        Conclusion::Best
    } else if 0 < left_behind {
        Conclusion::Several
    } else {
        Conclusion::Undecided
    };
    let mut ahead = vec![label(best)];
    ahead.extend(
        against_best
            .iter()
            .filter(|contrast| !behind(contrast))
            .map(|contrast| contrast.of.clone()),
    );
    Some(Ranking {
        arm: grid.arms[arm].clone(),
        order: order.into_iter().map(label).collect(),
        conclusion,
        best: ahead,
        against_best,
    })
}
