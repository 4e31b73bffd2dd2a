//! How cells compare: each metric of each cell with its interval, against another cell over the blocks. Pure.

use echometer_loadgen::plan::Load;
use echometer_report::file::{
    figures::ArmFigures,
    metric::{METRICS, Metric},
    sweep::{CellMetric, Contrast},
};
use echometer_statistics::{ALPHA, Answer, Interval, Question, Samples, answer_all, signed_rank};

use crate::{
    judge::{figures::ratio, objections},
    sweep::{
        block::{CellBlock, SweepBlock},
        grid::Grid,
    },
};

/// What was asked before the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Terms {
    /// The metric that decides.
    pub primary: Metric,
    /// A smaller difference is of no practical use; a share.
    pub margin: f64,
}

/// Whether the figures of a cell in a block count.
pub(crate) fn counts(block: &SweepBlock, cell: usize) -> Option<&CellBlock> {
    let data = block.cells[cell].as_ref()?;
    (data.reasons.is_empty() && data.figures.is_some()).then_some(data)
}

/// The figures of a cell in all blocks where they count.
pub(super) fn figures_of(
    blocks: &[SweepBlock],
    cell: usize,
) -> impl Iterator<Item = (&CellBlock, &ArmFigures)> {
    blocks.iter().filter_map(move |block| {
        let data = counts(block, cell)?;
        Some((data, data.figures.as_ref()?))
    })
}

/// ln(one / other) in a block; `None` where it can't be had.
pub(crate) fn log_ratio(
    grid: &Grid,
    block: &SweepBlock,
    metric: Metric,
    one: usize,
    other: usize,
) -> Option<f64> {
    let (this, that) = (counts(block, one)?, counts(block, other)?);
    let together = grid.cells[one].group == grid.cells[other].group;
    // Latencies come from whole histograms, whoever shared a cycle; the rule on their samples stands there.
    let found = if together || metric.quantile().is_some() {
        ratio(metric, this.raw.as_ref()?, that.raw.as_ref()?)?
    } else {
        this.figures.as_ref()?.value(metric)? / that.figures.as_ref()?.value(metric)?
    };
    (0.0 < found && found.is_finite()).then(|| found.ln())
}

/// What is asked of a metric of two cells, one / other. A block in which either does not count is no block of theirs; one
/// in which both do, and give no figure, is missing.
pub(crate) fn question(
    grid: &Grid,
    blocks: &[SweepBlock],
    (metric, primary, decidable): (Metric, bool, bool),
    [one, other]: [usize; 2],
) -> Question {
    let samples = Samples::Ratios(
        blocks
            .iter()
            .map(|block| log_ratio(grid, block, metric, one, other))
            .collect(),
    );
    let both = |block: &&SweepBlock| counts(block, one).is_some() && counts(block, other).is_some();
    Question {
        missing: blocks.iter().filter(both).count() - samples.blocks(),
        samples,
        good: metric.good(),
        primary,
        decidable,
    }
}

/// Every cell and metric against the cell that `baseline` names. All are asked together, so all are corrected together.
pub(crate) fn contrasts(
    terms: Terms,
    grid: &Grid,
    blocks: &[SweepBlock],
    baseline: impl Fn(usize) -> Option<usize>,
) -> Vec<Vec<Option<Contrast>>> {
    let asked: Vec<(usize, usize, Metric, Option<String>)> = (0..grid.cells.len())
        .filter_map(|cell| Some((cell, baseline(cell)?)))
        .flat_map(|(cell, other)| {
            METRICS.into_iter().map(move |metric| {
                let objection = objection(grid, blocks, metric, [cell, other]);
                (cell, other, metric, objection)
            })
        })
        .collect();
    let questions: Vec<Question> = asked
        .iter()
        .map(|(cell, other, metric, objection)| {
            let asked = (*metric, *metric == terms.primary, objection.is_none());
            question(grid, blocks, asked, [*cell, *other])
        })
        .collect();
    let answers = answer_all(&questions, terms.margin);
    let mut found: Vec<Vec<Option<Contrast>>> = vec![vec![None; METRICS.len()]; grid.cells.len()];
    for ((cell, other, metric, objection), answer) in asked.into_iter().zip(answers) {
        let place = METRICS
            .iter()
            .position(|known| *known == metric)
            .expect("METRICS holds every metric");
        let names = match grid.cells[cell].point == grid.cells[other].point {
            true => [cell, other].map(|cell| grid.arms[grid.cells[cell].arm].clone()),
            false => [cell, other].map(|cell| grid.points[grid.cells[cell].point].label.clone()),
        };
        found[cell][place] = Some(contrast(names, metric, answer, objection));
    }
    found
}

/// Why two cells can be shown and not judged in a metric, if so.
pub(crate) fn objection(
    grid: &Grid,
    blocks: &[SweepBlock],
    metric: Metric,
    cells: [usize; 2],
) -> Option<String> {
    let name = |cell: usize| grid.arms[grid.cells[cell].arm].as_str();
    let place = |cell: usize| {
        let label = &grid.points[grid.cells[cell].point].label;
        format!("{} at {label}", name(cell))
    };
    let figures = |cell: usize| figures_of(blocks, cell).map(|(_, figures)| figures);
    let mut cells = cells.into_iter();
    match metric {
        Metric::ServerCpuPerMessage => {
            cells.find_map(|cell| objections::unread(name(cell), figures(cell)))
        }
        Metric::Rate if cells.clone().any(|cell| is_open(grid, cell)) => {
            Some(objections::OPEN_LOOP.to_owned())
        }
        // A layout is about both sides, and so is the rate that they reach together.
        Metric::Rate if grid.points.iter().all(|point| point.layout.is_none()) => {
            cells.find_map(|cell| objections::client_bound(&place(cell), figures(cell)))
        }
        _ => cells.find_map(|cell| {
            let latencies = figures(cell).map(|figures| &figures.latency_ns);
            objections::lower_bounds(&place(cell), metric, latencies)
        }),
    }
}

/// Whether messages are due at instants of their own, whatever the server does.
pub(crate) fn is_open(grid: &Grid, cell: usize) -> bool {
    let load = &grid.groups[grid.cells[cell].group].load;
    matches!(load.load, Load::Open { .. })
}

pub(crate) fn contrast(
    [of, baseline]: [String; 2],
    metric: Metric,
    answer: Answer,
    objection: Option<String>,
) -> Contrast {
    let interval: Option<Interval> = answer.interval;
    let undecided = objections::undecided(metric, &answer);
    Contrast {
        of,
        baseline,
        ratio: answer.ratio,
        ci_low: interval.map(|interval| interval.low),
        ci_high: interval.map(|interval| interval.high),
        p: answer.p,
        p_adjusted: answer.p_adjusted,
        blocks_used: answer.blocks_used,
        verdict: answer.verdict,
        reason: objection.or(undecided),
    }
}

pub(crate) fn cell_metric(
    terms: Terms,
    grid: &Grid,
    blocks: &[SweepBlock],
    cell: usize,
    metric: Metric,
    (against_arm, against_point): (Option<Contrast>, Option<Contrast>),
) -> CellMetric {
    let values: Vec<f64> = figures_of(blocks, cell)
        .filter_map(|(_, figures)| figures.value(metric))
        .filter(|value| 0.0 < *value)
        .map(f64::ln)
        .collect();
    let found = signed_rank(&values, ALPHA);
    let interval = found.and_then(|found| found.interval);
    CellMetric {
        arm: grid.arms[grid.cells[cell].arm].clone(),
        name: metric,
        unit: metric.unit().to_owned(),
        primary: metric == terms.primary,
        value: found.map(|found| found.estimate.exp()),
        value_low: interval.map(|interval| interval.low.exp()),
        value_high: interval.map(|interval| interval.high.exp()),
        confidence: interval.map(|interval| interval.confidence),
        blocks_used: values.len(),
        against_arm,
        against_point,
    }
}
