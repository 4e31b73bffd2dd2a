//! From the blocks of a sweep to its answers: each metric of each cell with its interval, against the first arm at the
//! same point and against the first point with the same arm; and which of several ways to run a server is best. Pure.

use echometer_loadgen::plan::Load;
use echometer_report::{
    file::{
        figures::ArmFigures,
        metric::{METRICS, Metric},
        sweep::{CellMetric, Conclusion, Contrast, Ranking},
        trust::{Status, Trust},
    },
    text::counted::counted,
};
use echometer_statistics::{
    ALPHA, Answer, Good, Interval, Question, Samples, Verdict, answer_all, blocks_min,
    blocks_needed, median, signed_rank,
};

use crate::{
    judge::figures::ratio,
    levels::Key,
    sweep::{block::CellBlock, grid::Grid},
};

/// One block: what each cell gave; `None` where it was not measured.
#[derive(Debug, Clone)]
pub struct SweepBlock {
    /// Counted from 1.
    pub index: usize,
    /// Groups in the order in which they were measured.
    pub order: Vec<usize>,
    /// By the cell's number.
    pub cells: Vec<Option<CellBlock>>,
}

/// What was asked before the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// The metric that decides.
    pub primary: Metric,
    /// A smaller difference is of no practical use; a share.
    pub margin: f64,
}

/// The answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Findings {
    /// By the cell's number: every metric.
    pub cells: Vec<Vec<CellMetric>>,
    /// For each arm, which level is best, where the levels are ways to run a server and not loads.
    pub rankings: Vec<Ranking>,
    /// Whether it can be trusted.
    pub verdict: Trust,
}

/// Draws the conclusions from what there is.
#[must_use]
pub fn find(terms: Terms, grid: &Grid, blocks: &[SweepBlock]) -> Findings {
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

/// How many blocks the corrections for the number of questions need, so that a clear difference can be called one.
#[must_use]
pub fn blocks_advised(grid: &Grid) -> usize {
    let (points, arms) = (grid.points.len(), grid.arms.len());
    let along = (points - 1) * arms;
    let across = points * (arms - 1);
    let pairs = if is_ranked(grid) {
        points * (points - 1) / 2
    } else {
        0
    };
    blocks_needed(along.max(across).max(pairs).max(1), ALPHA)
}

/// Whether the levels are ways to run a server, of which one may be the best; loads are not.
#[must_use]
pub fn is_ranked(grid: &Grid) -> bool {
    let [axis] = grid.axes.as_slice() else {
        return false;
    };
    !matches!(
        axis.key,
        Key::Connections | Key::Size | Key::Pipeline | Key::Rate
    )
}

/// Whether the figures of a cell in a block count.
fn counts(block: &SweepBlock, cell: usize) -> Option<&CellBlock> {
    let data = block.cells[cell].as_ref()?;
    (data.reasons.is_empty() && data.figures.is_some()).then_some(data)
}

/// The figures of a cell in all blocks where they count.
pub fn figures_of(
    blocks: &[SweepBlock],
    cell: usize,
) -> impl Iterator<Item = (&CellBlock, &ArmFigures)> {
    blocks.iter().filter_map(move |block| {
        let data = counts(block, cell)?;
        Some((data, data.figures.as_ref()?))
    })
}

/// ln(one / other) in a block; `None` where it can't be had.
fn log_ratio(
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

fn log_ratios(
    grid: &Grid,
    blocks: &[SweepBlock],
    metric: Metric,
    one: usize,
    other: usize,
) -> Vec<f64> {
    blocks
        .iter()
        .filter_map(|block| log_ratio(grid, block, metric, one, other))
        .collect()
}

/// Every cell and metric against the cell that `baseline` names. All are asked together, so all are corrected together.
fn contrasts(
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
        .map(|(cell, other, metric, objection)| Question {
            samples: Samples::Ratios(log_ratios(grid, blocks, *metric, *cell, *other)),
            good: metric.good(),
            primary: *metric == terms.primary,
            decidable: objection.is_none(),
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
fn objection(
    grid: &Grid,
    blocks: &[SweepBlock],
    metric: Metric,
    cells: [usize; 2],
) -> Option<String> {
    let name = |cell: usize| grid.arms[grid.cells[cell].arm].as_str();
    match metric {
        Metric::ServerCpuPerMessage => cells.into_iter().find_map(|cell| {
            let unknown = figures_of(blocks, cell)
                .any(|(_, figures)| figures.server_cpu_ns_per_message.is_none());
            unknown.then(|| format!("{} runs elsewhere or unseen: its CPU is unknown", name(cell)))
        }),
        Metric::Rate if cells.into_iter().any(|cell| is_open(grid, cell)) => {
            Some("open loop: -R sets the rate".to_owned())
        }
        // A layout is about both sides, and so is the rate that they reach together.
        Metric::Rate if grid.points.iter().all(|point| point.layout.is_none()) => {
            cells.into_iter().find_map(|cell| {
                let shares: Vec<(f64, Option<f64>)> = figures_of(blocks, cell)
                    .map(|(_, figures)| (figures.client_busy, figures.server_busy))
                    .collect();
                let client = median(&shares.iter().map(|(client, _)| *client).collect::<Vec<_>>())?;
                let servers: Option<Vec<f64>> = shares.iter().map(|(_, server)| *server).collect();
                let label = &grid.points[grid.cells[cell].point].label;
                match servers.and_then(|shares| median(&shares)) {
                    None => Some(format!(
                        "{}'s CPU at {label} is unknown, so nobody can say which side sets the rate",
                        name(cell),
                    )),
                    Some(server) if server <= client => Some(format!(
                        "client-bound: with {} at {label} the client is {:.0} % busy and the server {:.0} %",
                        name(cell),
                        client * 100.0,
                        server * 100.0,
                    )),
                    Some(_) => None,
                }
            })
        }
        _ => cells.into_iter().find_map(|cell| {
            let figures = || figures_of(blocks, cell).map(|(_, figures)| figures);
            let bounds = figures().filter(|figures| metric.is_lower_bound(&figures.latency_ns));
            let (count, all) = (bounds.count(), figures().count());
            (0 < count).then(|| {
                format!(
                    "{} of {} at {} is a lower bound in {count} of {all} runs: messages were left without an answer",
                    metric.label(),
                    name(cell),
                    grid.points[grid.cells[cell].point].label,
                )
            })
        }),
    }
}

/// Whether messages are due at instants of their own, whatever the server does.
fn is_open(grid: &Grid, cell: usize) -> bool {
    let load = &grid.groups[grid.cells[cell].group].load;
    matches!(load.load, Load::Open { .. })
}

fn contrast(
    [of, baseline]: [String; 2],
    metric: Metric,
    answer: Answer,
    objection: Option<String>,
) -> Contrast {
    let interval: Option<Interval> = answer.interval;
    let needed = blocks_min(ALPHA);
    let undecided = (answer.verdict == Verdict::Undecided).then(|| match answer.blocks_used {
        0 if metric.quantile().is_some() => "too few samples above it: raise -d".to_owned(),
        used if used < needed => format!("needs {needed} blocks, has {used}"),
        _ if answer.p.is_some_and(|p| p < ALPHA) && answer.p_holm.is_some_and(|p| ALPHA <= p) => {
            "does not outlast the correction for the number of questions".to_owned()
        }
        _ => "the interval is too wide".to_owned(),
    });
    Contrast {
        of,
        baseline,
        ratio: answer.ratio,
        ci_low: interval.map(|interval| interval.low),
        ci_high: interval.map(|interval| interval.high),
        p: answer.p,
        p_holm: answer.p_holm,
        blocks_used: answer.blocks_used,
        verdict: answer.verdict,
        reason: objection.or(undecided),
    }
}

fn cell_metric(
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

fn rankings(terms: Terms, grid: &Grid, blocks: &[SweepBlock]) -> Vec<Ranking> {
    if !is_ranked(grid) || grid.points.len() < 2 {
        return Vec::new();
    }
    (0..grid.arms.len())
        .filter_map(|arm| ranking(terms, grid, blocks, arm))
        .collect()
}

fn ranking(terms: Terms, grid: &Grid, blocks: &[SweepBlock], arm: usize) -> Option<Ranking> {
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
        .map(|(&(one, other), objection)| Question {
            samples: Samples::Ratios(log_ratios(
                grid,
                blocks,
                metric,
                grid.cell(one, arm),
                grid.cell(other, arm),
            )),
            good: metric.good(),
            primary: true,
            decidable: objection.is_none(),
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

fn trust(grid: &Grid, blocks: &[SweepBlock], cells: &[Vec<CellMetric>]) -> Trust {
    let needed = blocks_min(ALPHA);
    let mut reasons = Vec::new();
    for (cell, spec) in grid.cells.iter().enumerate() {
        let valid = figures_of(blocks, cell).count();
        if valid < needed {
            let invalid = blocks.len().saturating_sub(valid);
            let others = match invalid {
                0 => String::new(),
                _ => format!("; see the reasons of the other {invalid}"),
            };
            reasons.push(format!(
                "{} at {} has {}, and a 95 % interval needs {needed}{others}",
                grid.arms[spec.arm],
                grid.points[spec.point].label,
                counted(valid as u64, "valid block"),
            ));
        }
    }
    // With too few blocks there is no answer whatever the metric, and that is said. Points of which some carry no
    // verdict (overloaded ones, say) cost the others nothing.
    if reasons.is_empty() {
        reasons.extend(no_verdict_anywhere(grid, cells));
    }
    let mut warnings = Vec::new();
    let advised = blocks_advised(grid);
    if (needed..advised).contains(&blocks.len()) {
        warnings.push(format!(
            "{} blocks can't decide so many questions at once: --blocks {advised} could",
            blocks.len()
        ));
    }
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
mod tests {
    use super::*;
    use crate::{
        judge::figures::arm_figures,
        levels::parse_axes,
        measure::slices::{ArmBlock, CpuTimes, Slice},
        place::{
            layouts::{Layout, LayoutKind},
            placement::Placement,
        },
        serve::arm::parse_arms,
        sweep::grid::Base,
    };
    use echometer_host::cpus::CpuList;
    use echometer_loadgen::Plan;
    use hdrhistogram::Histogram;

    fn list(text: &str) -> CpuList {
        text.parse().expect("a test's list")
    }

    fn grid(over: &[&str], arms: &[&str]) -> Grid {
        let layout = |kind, client| Layout {
            kind,
            server: list("0"),
            client,
        };
        let base = Base {
            arms: parse_arms(arms).expect("test arms"),
            load: Plan::default(),
            placement: Placement {
                server: list("0"),
                client: list("1"),
            },
            layouts: vec![
                layout(LayoutKind::Unpinned, None),
                layout(LayoutKind::SameCpu, Some(0)),
                layout(LayoutKind::SameL3, Some(1)),
            ],
        };
        Grid::plan(&parse_axes(over).expect("test axes"), &base).expect("it can be planned")
    }

    /// A cell whose messages cost the server so much, with a latency of as much.
    fn cell(message_ns: f64, grid: &Grid, number: usize) -> CellBlock {
        let messages = (1e8 / message_ns) as u64;
        let slice = Slice {
            cycle: 0,
            recorded: messages,
            recorded_span_ns: 100_000_000,
            messages,
            span_ns: 100_000_000,
            server_cpu_ns: Some((messages as f64 * message_ns) as u64),
            client_cpu_ns: 1_000,
            client_busiest: 0.5,
            client_run_delay: 0.0,
            server_cpus: CpuTimes::default(),
        };
        let mut latency = Histogram::new(3).expect("digits");
        latency
            .record_n(message_ns as u64, messages)
            .expect("it grows");
        let raw = ArmBlock {
            slices: vec![slice],
            runs: Vec::new(),
            latency,
            resting_cpu_ns: None,
            resting_span_ns: 0,
            usage: None,
        };
        let figures = arm_figures(&raw, String::new(), 1);
        assert!(number < grid.cells.len());
        CellBlock {
            raw: Some(raw),
            figures: Some(figures),
            censored_from_ns: None,
            reasons: Vec::new(),
            remarks: Vec::new(),
            movement: None,
            started: None,
        }
    }

    /// Blocks in which each cell costs what is given, give or take half a percent, the machine drifting under all.
    fn blocks(grid: &Grid, count: usize, costs: &[f64]) -> Vec<SweepBlock> {
        (1..=count)
            .map(|index| {
                let drift = 1.0 + 0.05 * index as f64;
                let wave = |number: usize| 1.0 + 0.001 * ((index * 7 + number * 3) % 5) as f64;
                let cells = costs
                    .iter()
                    .enumerate()
                    .map(|(number, cost)| Some(cell(cost * drift * wave(number), grid, number)));
                SweepBlock {
                    index,
                    order: Vec::new(),
                    cells: cells.collect(),
                }
            })
            .collect()
    }

    const TERMS: Terms = Terms {
        primary: Metric::ServerCpuPerMessage,
        margin: 0.02,
    };

    fn primary(metrics: &[CellMetric]) -> &CellMetric {
        metrics
            .iter()
            .find(|metric| metric.primary)
            .expect("there is one")
    }

    #[test]
    fn cells_stand_against_the_first_arm_and_against_the_first_point() {
        let grid = grid(&["connections=1,50"], &["epoll", "uring"]);
        // In the order of cells: epoll and uring at 1, epoll and uring at 50.
        let found = find(TERMS, &grid, &blocks(&grid, 8, &[20e3, 20e3, 10e3, 9e3]));
        assert_eq!(found.verdict.status, Status::Valid);
        let uring_at_50 = primary(&found.cells[3]);
        let arm = uring_at_50
            .against_arm
            .as_ref()
            .expect("it is not the first arm");
        assert_eq!((arm.of.as_str(), arm.baseline.as_str()), ("uring", "epoll"));
        assert!((arm.ratio.expect("blocks") - 0.9).abs() < 0.01, "{arm:?}");
        assert_eq!(arm.verdict, Verdict::Better);
        let point = uring_at_50
            .against_point
            .as_ref()
            .expect("it is not the first point");
        assert_eq!(point.baseline, "connections=1");
        assert!((point.ratio.expect("blocks") - 0.45).abs() < 0.01);
        let first = primary(&found.cells[0]);
        assert_eq!((&first.against_arm, &first.against_point), (&None, &None));
        let same = primary(&found.cells[1])
            .against_arm
            .as_ref()
            .expect("an arm");
        assert_eq!(same.verdict, Verdict::Same);
        assert!(found.rankings.is_empty(), "loads are not ranked");
        let value = uring_at_50.value.expect("blocks");
        let (low, high) = (
            uring_at_50.value_low.expect("8"),
            uring_at_50.value_high.expect("8"),
        );
        assert!(low < value && value < high);
    }

    #[test]
    fn the_best_layout_is_found() {
        let grid = grid(&["pinning=auto"], &["uring"]);
        let found = find(TERMS, &grid, &blocks(&grid, 8, &[15e3, 30e3, 10e3]));
        let [ranking] = found.rankings.as_slice() else {
            panic!("one arm, one ranking")
        };
        assert_eq!(
            ranking.order,
            ["pinning=same-l3", "pinning=unpinned", "pinning=same-cpu"]
        );
        assert_eq!(
            (ranking.conclusion, ranking.best.len()),
            (Conclusion::Best, 1)
        );
        assert!(ranking.against_best.iter().all(|contrast| {
            contrast.baseline == "pinning=same-l3" && contrast.verdict == Verdict::Worse
        }));
    }

    #[test]
    fn what_carries_no_verdict_is_not_ranked_either() {
        let grid = grid(&["backlog=16,128"], &["uring"]);
        let terms = Terms {
            primary: Metric::Rate,
            ..TERMS
        };
        let mut blocks = blocks(&grid, 8, &[10e3, 30e3]);
        let best = |blocks: &[SweepBlock]| find(terms, &grid, blocks).rankings[0].conclusion;
        assert_eq!(best(&blocks), Conclusion::Best);
        for cell in blocks
            .iter_mut()
            .flat_map(|block| &mut block.cells)
            .flatten()
        {
            let figures = cell.figures.as_mut().expect("measured");
            (figures.client_busy, figures.server_busy) = (1.0, Some(0.4));
        }
        let found = find(terms, &grid, &blocks);
        let ranking = &found.rankings[0];
        assert_eq!(ranking.conclusion, Conclusion::Undecided);
        let against = &ranking.against_best[0];
        assert_eq!(against.verdict, Verdict::Invalid);
        assert!(
            against
                .reason
                .as_ref()
                .is_some_and(|reason| reason.starts_with("client-bound")),
            "{against:?}"
        );
    }

    #[test]
    fn of_an_unknown_server_nobody_says_that_it_is_idle() {
        let grid = grid(&["connections=1,50"], &["uring"]);
        let mut blocks = blocks(&grid, 8, &[10e3, 30e3]);
        for cell in blocks
            .iter_mut()
            .flat_map(|block| &mut block.cells)
            .flatten()
        {
            let figures = cell.figures.as_mut().expect("measured");
            (figures.server_busy, figures.server_cpu_ns_per_message) = (None, None);
        }
        let found = find(TERMS, &grid, &blocks);
        let rate = found.cells[1]
            .iter()
            .find(|metric| metric.name == Metric::Rate)
            .and_then(|metric| metric.against_point.as_ref())
            .expect("it is not the first point");
        let reason = rate.reason.as_deref().expect("it carries no verdict");
        assert_eq!(rate.verdict, Verdict::Invalid);
        assert!(
            reason.contains("CPU at") && reason.contains("is unknown") && !reason.contains("0 %"),
            "{reason}"
        );
    }

    #[test]
    fn a_sweep_whose_primary_metric_carries_no_verdict_is_not_valid() {
        let terms = Terms {
            primary: Metric::Rate,
            ..TERMS
        };
        for arms in [&["uring"][..], &["epoll", "uring"]] {
            let grid = grid(&["connections=1,50,100"], arms);
            let costs = vec![10e3; grid.cells.len()];
            let mut blocks = blocks(&grid, 8, &costs);
            assert_eq!(find(terms, &grid, &blocks).verdict.status, Status::Valid);
            // The client is the busier side, at the last point first and then at all of them.
            for point in [2, 1, 0] {
                for block in &mut blocks {
                    for arm in 0..arms.len() {
                        let cell = block.cells[grid.cell(point, arm)].as_mut();
                        let figures = cell.and_then(|cell| cell.figures.as_mut());
                        let figures = figures.expect("measured");
                        (figures.client_busy, figures.server_busy) = (1.0, Some(0.4));
                    }
                }
                let verdict = find(terms, &grid, &blocks).verdict;
                let judged_without = match arms.len() {
                    // Against the first point: the second and the third.
                    1 => point < 2,
                    _ => point == 0,
                };
                if judged_without {
                    assert_eq!(verdict.status, Status::Invalid, "{arms:?} {point}");
                    assert!(
                        verdict.reasons.len() == 1
                            && verdict.reasons[0].starts_with(
                                "no verdict anywhere on rate, the primary metric: client-bound"
                            ),
                        "{verdict:?}"
                    );
                } else {
                    assert_eq!(verdict.status, Status::Valid, "{arms:?} {point}");
                }
            }
        }
    }

    #[test]
    fn an_open_loop_judges_neither_its_rate_nor_what_has_no_answer() {
        let grid = grid(&["rate=1k,2k"], &["epoll", "uring"]);
        let mut blocks = blocks(&grid, 8, &[20e3, 18e3, 20e3, 18e3]);
        let of = |blocks: &[SweepBlock], metric: Metric| {
            let found = find(TERMS, &grid, blocks);
            // uring at 2k.
            let wanted = found.cells[3].iter().find(|entry| entry.name == metric);
            let against = wanted.and_then(|entry| entry.against_arm.clone());
            against.expect("it is not the first arm")
        };
        let rate = of(&blocks, Metric::Rate);
        assert_eq!(rate.verdict, Verdict::Invalid);
        assert_eq!(rate.reason.as_deref(), Some("open loop: -R sets the rate"));
        assert_eq!(of(&blocks, Metric::LatencyP90).verdict, Verdict::Better);
        let cell = blocks[5].cells[3].as_mut().expect("measured");
        cell.figures
            .as_mut()
            .expect("measured")
            .latency_ns
            .censored_from = Some(1_000);
        let latency = of(&blocks, Metric::LatencyP90);
        assert_eq!(latency.verdict, Verdict::Invalid);
        assert_eq!(
            latency.reason.as_deref(),
            Some(
                "latency p90 of uring at rate=2k is a lower bound in 1 of 8 runs: messages were left without an answer"
            )
        );
    }

    #[test]
    fn layouts_that_can_t_be_told_apart_are_all_named() {
        let grid = grid(&["pinning=auto"], &["uring"]);
        let several = find(TERMS, &grid, &blocks(&grid, 8, &[10e3, 30e3, 10e3]));
        assert_eq!(several.rankings[0].conclusion, Conclusion::Several);
        assert_eq!(several.rankings[0].best.len(), 2);
        let same = find(TERMS, &grid, &blocks(&grid, 8, &[10e3, 10e3, 10e3]));
        assert_eq!(same.rankings[0].conclusion, Conclusion::Same);
        assert_eq!(same.rankings[0].best.len(), 3);
    }

    #[test]
    fn too_few_blocks_decide_nothing_and_say_so() {
        let grid = grid(&["pinning=auto"], &["uring"]);
        let found = find(TERMS, &grid, &blocks(&grid, 5, &[10e3, 30e3, 20e3]));
        assert_eq!(found.verdict.status, Status::Invalid);
        assert!(
            found.verdict.reasons[0].contains("needs 6"),
            "{:?}",
            found.verdict
        );
        assert_eq!(found.rankings[0].conclusion, Conclusion::Undecided);
        let nothing = find(TERMS, &grid, &[]);
        assert!(nothing.rankings.is_empty());
    }

    #[test]
    fn a_cell_that_failed_costs_the_others_nothing() {
        let grid = grid(&["connections=1,50"], &["uring"]);
        let mut blocks = blocks(&grid, 8, &[20e3, 10e3]);
        for block in &mut blocks {
            let failed = block.cells[1].as_mut().expect("measured");
            failed.reasons.push("02-uring died".to_owned());
        }
        let found = find(TERMS, &grid, &blocks);
        assert_eq!(primary(&found.cells[0]).blocks_used, 8);
        assert_eq!(primary(&found.cells[1]).value, None);
        assert_eq!(found.verdict.reasons.len(), 1);
    }

    #[test]
    fn remarks_are_counted() {
        let grid = grid(&["rate=1k,2k"], &["uring"]);
        let mut blocks = blocks(&grid, 6, &[20e3, 10e3]);
        for block in &mut blocks[..2] {
            let cell = block.cells[1].as_mut().expect("measured");
            cell.remarks.push("overloaded".to_owned());
        }
        let warnings = find(TERMS, &grid, &blocks).verdict.warnings;
        assert!(
            warnings
                .iter()
                .any(|warning| warning.contains("uring at rate=2k was overloaded in 2 of 6")),
            "{warnings:?}"
        );
    }

    #[test]
    fn more_questions_need_more_blocks() {
        assert_eq!(blocks_advised(&grid(&["connections=1,2"], &["uring"])), 6);
        assert_eq!(blocks_advised(&grid(&["pinning=auto"], &["uring"])), 7);
        assert_eq!(
            blocks_advised(&grid(&["connections=1,2,3,4,5"], &["epoll", "uring"])),
            9
        );
    }
}
