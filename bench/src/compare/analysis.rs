//! From the blocks to the answer: each metric of each arm with its interval and verdict, and whatever makes the
//! whole less than it seems, said in words. Pure: it can be repeated on a saved file.

use std::ops::RangeInclusive;

use echometer_loadgen::verdict::Status as Judged;
use echometer_report::file::{
    compare::{LeastResult, MetricResult},
    design::Design,
    figures::{ArmFigures, BlockFigures, RunFigures},
    metric::{METRICS, Metric},
    trust::{Status, Trust},
};
use echometer_statistics::{
    Answer, End, Question, RunBlock, Samples, Verdict, answer_all, median, of_both_ends,
};

use crate::judge::objections;

/// Steal and run delay above this share are warned of.
const DISTURBANCE_MAX: f64 = 0.01;
/// A rate that moves by more than this from the first third of a block to its last is warned of.
const DRIFT_MAX: f64 = 0.05;

/// The share of an arm's runs from which on what spoilt them takes the verdicts from its latencies.
const MOST: f64 = 0.5;
/// The share from which on it is warned of.
const SOME: f64 = 0.1;

/// What was asked before the run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Terms {
    /// The arms' names, the baseline first.
    pub arms: Vec<String>,
    /// The metric that decides.
    pub primary: Metric,
    /// A smaller difference is of no practical use; a share.
    pub margin: f64,
    /// How the arms take turns. Slices under an open loop empty the queues at each turn: what they show above p90 is not
    /// what a user would see.
    pub design: Design,
    /// Whether messages are due at instants of their own, whatever the server does.
    pub open: bool,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Analysis {
    /// One entry per arm (but the baseline) and metric.
    pub metrics: Vec<MetricResult>,
    /// Whether it can be trusted, and what to know about it.
    pub verdict: Trust,
}

/// Analyses what the blocks so far have given.
#[must_use]
pub(crate) fn analyse(terms: &Terms, blocks: &[BlockFigures]) -> Analysis {
    let valid: Vec<&BlockFigures> = blocks.iter().filter(|block| block.valid).collect();
    let asked: Vec<(&str, Metric)> = terms.arms[1..]
        .iter()
        .flat_map(|arm| {
            METRICS
                .into_iter()
                .map(move |metric| (arm.as_str(), metric))
        })
        .collect();
    let objections: Vec<Option<String>> = asked
        .iter()
        .map(|&(arm, metric)| objection(terms, &valid, arm, metric))
        .collect();
    let questions: Vec<Question> = asked
        .iter()
        .zip(&objections)
        .map(|(&(arm, metric), objection)| {
            let samples = samples(terms, &valid, arm, metric, Side::Seen);
            Question {
                missing: valid.len() - samples.blocks(),
                samples,
                good: metric.good(),
                primary: metric == terms.primary,
                decidable: objection.is_none(),
            }
        })
        .collect();
    let answers = answer_all(&questions, terms.margin);
    let at_least = answers_at_least(terms, &valid, &asked, &questions);
    let metrics: Vec<MetricResult> = asked
        .iter()
        .zip(answers)
        .zip(at_least)
        .zip(objections)
        .map(|(((&(arm, metric), answer), least), objection)| {
            let result = result(terms, &valid, arm, metric, answer, objection);
            match least {
                Some(least) => held_at_both_ends(result, &least),
                None => result,
            }
        })
        .collect();
    let verdict = trust(terms, blocks, &valid, &metrics);
    Analysis { metrics, verdict }
}

/// The answers at the other end of an open loop's latencies, without what the client's own lateness may add; `None` for
/// other metrics, in closed loop, and where figures don't tell.
fn answers_at_least(
    terms: &Terms,
    valid: &[&BlockFigures],
    asked: &[(&str, Metric)],
    questions: &[Question],
) -> Vec<Option<Answer>> {
    let of_latency = |metric: Metric| terms.open && metric.quantile().is_some();
    let at_least: Vec<Option<Samples>> = asked
        .iter()
        .zip(questions)
        .map(|(&(arm, metric), question)| {
            let samples =
                of_latency(metric).then(|| samples(terms, valid, arm, metric, Side::Least))?;
            // Else it stands on other blocks than the latency.
            (samples.blocks() == question.samples.blocks()).then_some(samples)
        })
        .collect();
    if at_least.iter().all(Option::is_none) {
        return vec![None; asked.len()];
    }
    let questions: Vec<Question> = questions
        .iter()
        .zip(&at_least)
        .map(|(question, samples)| Question {
            samples: samples.as_ref().unwrap_or(&question.samples).clone(),
            ..question.clone()
        })
        .collect();
    answer_all(&questions, terms.margin)
        .into_iter()
        .zip(at_least)
        .map(|(answer, samples)| samples.map(|_| answer))
        .collect()
}

/// The result of a latency, if it holds without the client's own lateness, too.
fn held_at_both_ends(mut result: MetricResult, least: &Answer) -> MetricResult {
    let (Some(ratio), Some(least_ratio)) = (result.ratio, least.ratio) else {
        return result;
    };
    result.least = Some(LeastResult {
        ratio: least_ratio,
        ci_low: least.interval.map(|interval| interval.low),
        ci_high: least.interval.map(|interval| interval.high),
        verdict: least.verdict,
    });
    let ends = [(result.verdict, ratio), (least.verdict, least_ratio)]
        .map(|(verdict, ratio)| End { verdict, ratio });
    let verdict = of_both_ends(ends[0], ends[1]);
    if verdict.is_none() {
        result.reason = Some(format!(
            "it depends on whether the client's own lateness is counted: x{ratio:.3} with it, x{least_ratio:.3} without"
        ));
    } else if verdict == Some(Verdict::Undecided) && result.verdict != Verdict::Undecided {
        result.reason = Some(format!(
            "too little of it is left without the client's own lateness: x{ratio:.3} with it, x{least_ratio:.3} without"
        ));
    }
    result.verdict = verdict.unwrap_or(Verdict::Undecided);
    result
}

/// Which end of a latency.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// As it was seen.
    Seen,
    /// Without what the client's own lateness may add.
    Least,
}

/// One ratio per block, or all the block's runs. A block in which a figure is missing gives none.
fn samples(
    terms: &Terms,
    valid: &[&BlockFigures],
    arm: &str,
    metric: Metric,
    side: Side,
) -> Samples {
    let ratio = |block: &&BlockFigures| {
        let ratios = match side {
            Side::Seen => &block.ratios,
            Side::Least => &block.ratios_least,
        };
        Some(ratios.get(arm)?.get(&metric)?.ln())
    };
    let runs = |block: &&BlockFigures, name: &str| -> Option<Vec<f64>> {
        let runs = &block.arms.get(name)?.runs;
        let value = |run: &RunFigures| match side {
            Side::Seen => run.value(metric),
            Side::Least => run.least(metric),
        };
        runs.iter().map(|run| Some(value(run)?.ln())).collect()
    };
    match terms.design {
        Design::Slices => Samples::Ratios(valid.iter().map(ratio).collect()),
        Design::Runs => {
            let block = |block| {
                Some(RunBlock {
                    baseline: runs(block, &terms.arms[0])?,
                    arm: runs(block, arm)?,
                })
            };
            Samples::Runs(valid.iter().map(block).collect())
        }
    }
}

/// Why a metric can be shown and not judged, if so.
fn objection(terms: &Terms, valid: &[&BlockFigures], arm: &str, metric: Metric) -> Option<String> {
    let baseline = terms.arms[0].as_str();
    match metric {
        Metric::ServerCpuPerMessage => [baseline, arm]
            .into_iter()
            .find_map(|name| objections::unread(name, arm_figures(valid, name))),
        Metric::Rate if terms.open => Some(objections::OPEN_LOOP.to_owned()),
        Metric::Rate => terms
            .arms
            .iter()
            .find_map(|name| objections::client_bound(name, arm_figures(valid, name))),
        _ if metric.quantile().is_some() && terms.design == Design::Runs => {
            [baseline, arm].into_iter().find_map(|name| {
                let judged = |status| runs_judged(valid, name, status, MOST..=1.0);
                // A late client takes the verdict only where nobody knows how late.
                let client_bound = || {
                    let mut runs = arm_figures(valid, name).flat_map(|arm| &arm.runs);
                    let untold = runs.all(|run| run.open.is_none());
                    judged(Judged::ClientBound).filter(|_| untold)
                };
                client_bound()
                    .or_else(|| judged(Judged::Overloaded))
                    .or_else(|| {
                        let runs = arm_figures(valid, name).flat_map(|arm| &arm.runs);
                        let bounds =
                            objections::lower_bounds(name, metric, runs.map(|run| &run.latency_ns));
                        bounds.map(|reason| format!("{reason} (lower -R)"))
                    })
            })
        }
        _ if metric.quantile().is_some() && terms.open => [baseline, arm]
            .into_iter()
            .find_map(|name| overloaded_in_slices(valid, name)),
        _ => None,
    }
}

/// Says where an arm did not keep up in most of its slices in most of its blocks, with the first reason.
fn overloaded_in_slices(valid: &[&BlockFigures], name: &str) -> Option<String> {
    let blocks = || arm_figures(valid, name);
    let overloaded = |arm: &&ArmFigures| {
        let open = arm.open.as_ref();
        open.is_some_and(|open| arm.slices < 2 * open.overloaded_slices)
    };
    let (count, all) = (blocks().filter(overloaded).count(), blocks().count());
    let reason = blocks()
        .find(overloaded)?
        .open
        .as_ref()?
        .overload
        .as_ref()?;
    (MOST <= count as f64 / all as f64)
        .then(|| format!("overloaded: {count} of {all} blocks of {name}, first: {reason}"))
}

/// Says where a share of an arm's runs within `shares` was judged so by the load generator, with the first one's reason.
fn runs_judged(
    valid: &[&BlockFigures],
    name: &str,
    status: Judged,
    shares: RangeInclusive<f64>,
) -> Option<String> {
    let runs = || arm_figures(valid, name).flat_map(|arm| &arm.runs);
    let judged: Vec<&RunFigures> = runs().filter(|run| run.status == status).collect();
    let reason = judged.first()?.reasons.first()?;
    let (count, all) = (judged.len(), runs().count());
    shares.contains(&(count as f64 / all as f64)).then(|| {
        format!(
            "{}: {count} of {all} runs of {name}, first: {reason}",
            status.name()
        )
    })
}

fn arm_figures<'a>(
    valid: &'a [&BlockFigures],
    name: &'a str,
) -> impl Iterator<Item = &'a ArmFigures> {
    valid.iter().filter_map(move |block| block.arms.get(name))
}

fn result(
    terms: &Terms,
    valid: &[&BlockFigures],
    arm: &str,
    metric: Metric,
    answer: Answer,
    objection: Option<String>,
) -> MetricResult {
    let baseline = terms.arms[0].as_str();
    let value = |name| {
        let values: Vec<f64> = arm_figures(valid, name)
            .filter_map(|figures| figures.value(metric))
            .collect();
        median(&values)
    };
    let interval = answer.interval;
    let reason = objection.or_else(|| objections::undecided(metric, &answer));
    MetricResult {
        arm: arm.to_owned(),
        baseline: baseline.to_owned(),
        name: metric,
        unit: metric.unit().to_owned(),
        primary: metric == terms.primary,
        arm_value: value(arm),
        baseline_value: value(baseline),
        ratio: answer.ratio,
        ci_low: interval.map(|interval| interval.low),
        ci_high: interval.map(|interval| interval.high),
        confidence: interval.map(|interval| interval.confidence),
        p: answer.p,
        p_adjusted: answer.p_adjusted,
        blocks_used: answer.blocks_used,
        verdict: answer.verdict,
        reason,
        least: None,
    }
}

fn trust(
    terms: &Terms,
    blocks: &[BlockFigures],
    valid: &[&BlockFigures],
    metrics: &[MetricResult],
) -> Trust {
    let mut reasons = Vec::new();
    if let Some(few) = objections::too_few_blocks(valid.len(), blocks.len()) {
        reasons.push(few);
    } else {
        let undecidable = metrics
            .iter()
            .filter(|metric| metric.primary && metric.verdict == Verdict::Invalid);
        reasons.extend(undecidable.map(|metric| {
            let why = metric
                .reason
                .as_deref()
                .unwrap_or("it can't carry a verdict");
            format!(
                "{} of {}, the primary metric: {why}",
                metric.name.label(),
                metric.arm
            )
        }));
    }
    let status = if reasons.is_empty() {
        Status::Valid
    } else {
        Status::Invalid
    };
    Trust {
        status,
        reasons,
        warnings: warnings(terms, valid),
    }
}

fn warnings(terms: &Terms, valid: &[&BlockFigures]) -> Vec<String> {
    let mut warnings = Vec::new();
    let everyone: Vec<&ArmFigures> = valid.iter().flat_map(|block| block.arms.values()).collect();
    let mean = |part: fn(&ArmFigures) -> f64| {
        everyone.iter().map(|arm| part(arm)).sum::<f64>() / everyone.len().max(1) as f64
    };
    let steal = mean(|arm| arm.server_cpus.steal);
    if DISTURBANCE_MAX < steal {
        warnings.push(format!(
            "noisy: the hypervisor took {:.1} % of the servers' cpus; the arms take turns, so that it hits all alike",
            steal * 100.0,
        ));
    }
    let delay = mean(|arm| arm.client_run_delay);
    if DISTURBANCE_MAX < delay {
        warnings.push(format!(
            "noisy: the client waited for its cpu {:.1} % of the time: something else runs there",
            delay * 100.0,
        ));
    }
    for name in &terms.arms {
        let odd = [Judged::ClientBound, Judged::Overloaded, Judged::Unsteady];
        // Where it takes the verdicts it is told there.
        let most = |status| match status {
            Judged::Unsteady => 1.0,
            _ => MOST - f64::EPSILON,
        };
        warnings.extend(
            odd.into_iter()
                .filter_map(|status| runs_judged(valid, name, status, SOME..=most(status))),
        );
    }
    for name in &terms.arms {
        let drifts: Vec<f64> = arm_figures(valid, name)
            .filter_map(|arm| arm.rate_drift)
            .collect();
        if let Some(drift) = median(&drifts).filter(|drift| DRIFT_MAX < (drift - 1.0).abs()) {
            warnings.push(format!(
                "unsteady: {name}'s rate changes by {:+.0} % from the first third of a block to the last; a longer -w may help",
                (drift - 1.0) * 100.0,
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod stored;
#[cfg(test)]
mod tests;
