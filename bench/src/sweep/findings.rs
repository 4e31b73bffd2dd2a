//! From the blocks of a sweep to its answers: each metric of each cell with its interval, against the first arm at the
//! same point and against the first point with the same arm; and which of several ways to run a server is best. Pure.

use echometer_report::file::{
    metric::METRICS,
    sweep::{CellMetric, Ranking},
    trust::{Status, Trust},
};
use echometer_statistics::Verdict;

use crate::{
    judge::objections,
    sweep::{
        block::SweepBlock,
        contrasts::{Terms, cell_metric, contrasts, figures_of},
        grid::Grid,
        ranking::rankings,
    },
};

/// The answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Findings {
    /// By the cell's number: every metric.
    pub cells: Vec<Vec<CellMetric>>,
    /// For each arm, which level is best, where the levels are ways to run a server and not loads.
    pub rankings: Vec<Ranking>,
    /// Whether it can be trusted.
    pub verdict: Trust,
}

/// Draws the conclusions from what there is.
#[must_use]
pub(crate) fn find(terms: Terms, grid: &Grid, blocks: &[SweepBlock]) -> Findings {
    let across = contrasts(terms, grid, blocks, |cell| {
        let (point, arm) = (grid.cells[cell].point, grid.cells[cell].arm);
        (arm != 0).then(|| grid.cell(point, 0))
    });
    let along = contrasts(terms, grid, blocks, |cell| {
        let (point, arm) = (grid.cells[cell].point, grid.cells[cell].arm);
        (point != 0).then(|| grid.cell(0, arm))
    });
    let cells: Vec<Vec<CellMetric>> = across
        .into_iter()
        .zip(along)
        .enumerate()
        .map(|(cell, (across, along))| {
            METRICS
                .into_iter()
                .zip(across)
                .zip(along)
                .map(|((metric, arm), point)| {
                    cell_metric(terms, grid, blocks, cell, metric, (arm, point))
                })
                .collect()
        })
        .collect();
    let verdict = trust(grid, blocks, &cells);
    Findings {
        cells,
        rankings: rankings(terms, grid, blocks),
        verdict,
    }
}

fn trust(grid: &Grid, blocks: &[SweepBlock], cells: &[Vec<CellMetric>]) -> Trust {
    let mut reasons = Vec::new();
    for (cell, spec) in grid.cells.iter().enumerate() {
        let valid = figures_of(blocks, cell).count();
        if let Some(few) = objections::too_few_blocks(valid, blocks.len()) {
            reasons.push(format!(
                "{} at {}: {few}",
                grid.arms[spec.arm], grid.points[spec.point].label,
            ));
        }
    }
    // With too few blocks there is no answer whatever the metric, and that is said. Points of which some carry no
    // verdict (overloaded ones, say) cost the others nothing.
    if reasons.is_empty() {
        reasons.extend(no_verdict_anywhere(grid, cells));
    }
    let mut warnings = Vec::new();
    for (cell, spec) in grid.cells.iter().enumerate() {
        let place = format!(
            "{} at {}",
            grid.arms[spec.arm], grid.points[spec.point].label
        );
        let mut remarks: Vec<&String> = figures_of(blocks, cell)
            .flat_map(|(data, _)| &data.remarks)
            .collect();
        remarks.sort();
        let blocks_used = figures_of(blocks, cell).count();
        for chunk in remarks.chunk_by(|one, other| one == other) {
            warnings.push(format!(
                "{place} was {} in {} of {blocks_used} runs",
                chunk[0],
                chunk.len()
            ));
        }
    }
    Trust {
        status: if reasons.is_empty() {
            Status::Valid
        } else {
            Status::Invalid
        },
        reasons,
        warnings,
    }
}

/// That the metric which was to decide carries a verdict nowhere, if so.
fn no_verdict_anywhere(grid: &Grid, cells: &[Vec<CellMetric>]) -> Option<String> {
    let judged = || {
        let primary = cells.iter().flatten().filter(|metric| metric.primary);
        primary.filter_map(|metric| Some((metric.name, metric.judged(grid.arms.len())?)))
    };
    let (name, first) = judged().next()?;
    if judged().any(|(_, contrast)| contrast.verdict != Verdict::Invalid) {
        return None;
    }
    let why = first.reason.as_deref().unwrap_or("it can't carry one");
    Some(format!(
        "no verdict anywhere on {}, the primary metric: {why}",
        name.label()
    ))
}

#[cfg(test)]
mod tests;
