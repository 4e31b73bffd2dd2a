//! From the blocks to the answer: each metric of each arm with its interval and verdict, and whatever makes the
//! whole less than it seems, said aloud. Pure: it can be repeated on a saved file.

use std::ops::RangeInclusive;

use echometer_loadgen::verdict::Status as Judged;
use echometer_report::{
    file::{
        compare::MetricResult,
        design::Design,
        figures::{ArmFigures, BlockFigures, RunFigures},
        metric::{METRICS, Metric},
        trust::{Status, Trust},
    },
    text::counted::counted_are,
};
use echometer_statistics::{
    ALPHA, Answer, Question, RunBlock, Samples, Verdict, answer_all, blocks_min, blocks_needed,
    median,
};

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
pub struct Terms {
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
pub struct Analysis {
    /// One entry an arm (but the baseline) and metric.
    pub metrics: Vec<MetricResult>,
    /// Whether it can be trusted, and what to know about it.
    pub verdict: Trust,
}

/// Analyses what the blocks so far have given.
#[must_use]
pub fn analyse(terms: &Terms, blocks: &[BlockFigures]) -> Analysis {
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
        .map(|(&(arm, metric), objection)| Question {
            samples: samples(terms, &valid, arm, metric),
            good: metric.good(),
            primary: metric == terms.primary,
            decidable: objection.is_none(),
        })
        .collect();
    let answers = answer_all(&questions, terms.margin);
    let metrics: Vec<MetricResult> = asked
        .iter()
        .zip(answers)
        .zip(objections)
        .map(|((&(arm, metric), answer), objection)| {
            result(terms, &valid, arm, metric, answer, objection)
        })
        .collect();
    let verdict = trust(terms, blocks, &valid, &metrics);
    Analysis { metrics, verdict }
}

/// One ratio a block, or all the block's runs. A block in which a figure is missing gives none.
fn samples(terms: &Terms, valid: &[&BlockFigures], arm: &str, metric: Metric) -> Samples {
    let ratio = |block: &&BlockFigures| Some(block.ratios.get(arm)?.get(&metric)?.ln());
    let runs = |block: &&BlockFigures, name: &str| -> Option<Vec<f64>> {
        let runs = &block.arms.get(name)?.runs;
        runs.iter()
            .map(|run| Some(run.value(metric)?.ln()))
            .collect()
    };
    match terms.design {
        Design::Slices => Samples::Ratios(valid.iter().filter_map(ratio).collect()),
        Design::Runs => {
            let block = |block| {
                Some(RunBlock {
                    baseline: runs(block, &terms.arms[0])?,
                    arm: runs(block, arm)?,
                })
            };
            Samples::Runs(valid.iter().filter_map(block).collect())
        }
    }
}

/// Why a metric can be shown and not judged, if so.
fn objection(terms: &Terms, valid: &[&BlockFigures], arm: &str, metric: Metric) -> Option<String> {
    let baseline = terms.arms[0].as_str();
    match metric {
        Metric::ServerCpuPerMessage => [baseline, arm].into_iter().find_map(|name| {
            let unread = |figures: &ArmFigures| figures.server_cpu_ns_per_message.is_none();
            let unknown = arm_figures(valid, name).any(unread);
            unknown.then(|| format!("{name} runs elsewhere or unseen: its CPU is unknown"))
        }),
        Metric::Rate if terms.open => Some("open loop: -R sets the rate".to_owned()),
        Metric::Rate => terms.arms.iter().find_map(|name| client_bound(valid, name)),
        _ if metric.quantile().is_some() && terms.design == Design::Runs => [baseline, arm]
            .into_iter()
            .find_map(|name| {
                let spoilt = [Judged::ClientBound, Judged::Overloaded];
                let judged = |status| runs_judged(valid, name, status, MOST..=1.0);
                spoilt.into_iter().find_map(judged).or_else(|| lower_bounds(valid, name, metric))
            }),
        Metric::LatencyP99 | Metric::LatencyP99_9 if terms.open => {
            Some("slices empty the queues at each turn and hide tails: no verdict above p90 in open loop".to_owned())
        }
        _ => None,
    }
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

/// Says where a quantile is only a lower bound in some of an arm's runs. To leave these out would be to judge the arm by
/// its better runs.
fn lower_bounds(valid: &[&BlockFigures], name: &str, metric: Metric) -> Option<String> {
    let runs = || arm_figures(valid, name).flat_map(|arm| &arm.runs);
    let bounds = runs().filter(|run| metric.is_lower_bound(&run.latency_ns));
    let (count, all) = (bounds.count(), runs().count());
    (0 < count).then(|| {
        format!(
            "{} is a lower bound in {count} of {all} runs of {name}: messages were left without an answer (lower -R)",
            metric.label()
        )
    })
}

/// Says where the client and not the server sets an arm's rate: its busiest thread has more to do than the server's.
fn client_bound(valid: &[&BlockFigures], name: &str) -> Option<String> {
    let client = median(
        &arm_figures(valid, name)
            .map(|arm| arm.client_busy)
            .collect::<Vec<_>>(),
    )?;
    let server: Option<Vec<f64>> = arm_figures(valid, name)
        .map(|arm| arm.server_busy)
        .collect();
    match server.and_then(|shares| median(&shares)) {
        None => Some(format!(
            "{name}'s CPU is unknown, so nobody can say which side sets the rate"
        )),
        Some(server) if server <= client => Some(format!(
            "client-bound: with {name} the client is {:.0} % busy and the server {:.0} %",
            client * 100.0,
            server * 100.0,
        )),
        Some(_) => None,
    }
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
    let reason = objection.or_else(|| undecided_reason(metric, answer));
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
        p_holm: answer.p_holm,
        blocks_used: answer.blocks_used,
        verdict: answer.verdict,
        reason,
    }
}

fn undecided_reason(metric: Metric, answer: Answer) -> Option<String> {
    let needed = blocks_min(ALPHA);
    if answer.verdict != Verdict::Undecided {
        None
    } else if metric.quantile().is_some() && answer.blocks_used == 0 {
        Some("too few samples above it: raise -d".to_owned())
    } else if answer.blocks_used < needed {
        Some(format!("needs {needed} blocks, has {}", answer.blocks_used))
    } else if answer.p_holm.is_some_and(|p| ALPHA <= p) && answer.p.is_some_and(|p| p < ALPHA) {
        Some("does not outlast the correction for the number of questions".to_owned())
    } else {
        Some("the interval is too wide".to_owned())
    }
}

fn trust(
    terms: &Terms,
    blocks: &[BlockFigures],
    valid: &[&BlockFigures],
    metrics: &[MetricResult],
) -> Trust {
    let needed = blocks_min(ALPHA);
    let mut reasons = Vec::new();
    if valid.len() < needed {
        let invalid = blocks.len() - valid.len();
        reasons.push(match invalid {
            0 => format!(
                "{} too few: a 95 % interval needs {needed} blocks",
                counted_are(valid.len() as u64, "valid block")
            ),
            _ => format!(
                "{} of {} valid, and a 95 % interval needs {needed}: see the reasons of the others",
                valid.len(),
                counted_are(blocks.len() as u64, "block"),
            ),
        });
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
        warnings: warnings(terms, valid, metrics),
    }
}

fn warnings(terms: &Terms, valid: &[&BlockFigures], metrics: &[MetricResult]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (primary, what) in [
        (true, "arms against the baseline"),
        (false, "metrics besides the primary one"),
    ] {
        // Each family that was tested together needs blocks enough for its smallest p to outlast the correction.
        let tested = metrics
            .iter()
            .filter(|metric| metric.primary == primary && metric.p_holm.is_some())
            .count();
        let needed = blocks_needed(tested.max(1), ALPHA);
        // Runs have so many more labellings that six blocks decide hundreds of questions.
        if terms.design == Design::Slices && (blocks_min(ALPHA)..needed).contains(&valid.len()) {
            warnings.push(format!(
                "{} blocks can't decide {tested} {what}: --blocks {needed} could",
                valid.len()
            ));
        }
    }
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
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_not_fit_makes_a_comparison_invalid() {
        let mut trust = Trust {
            status: Status::Valid,
            reasons: Vec::new(),
            warnings: Vec::new(),
        };
        trust.object(Vec::new());
        assert_eq!(trust.status, Status::Valid);
        trust.object(vec!["the machine is not fit (clocksource: hpet)".into()]);
        assert_eq!((trust.status, trust.reasons.len()), (Status::Invalid, 1));
    }
    use echometer_loadgen::file::Summary;

    use echometer_report::file::figures::CpuShares;

    fn terms(arms: &[&str]) -> Terms {
        Terms {
            arms: arms.iter().map(|&arm| arm.to_owned()).collect(),
            primary: Metric::ServerCpuPerMessage,
            margin: 0.02,
            design: Design::Slices,
            open: false,
        }
    }

    fn arm() -> ArmFigures {
        ArmFigures {
            rate_per_s: 100_000.0,
            server_cpu_ns_per_message: Some(10_000.0),
            client_cpu_ns_per_message: Some(8_000.0),
            context_switches: Some(1_000),
            rss_bytes: Some(1 << 20),
            hlog: String::new(),
            messages: 300_000,
            recorded: 290_000,
            slices: 60,
            latency_ns: Summary {
                count: 290_000,
                p50: Some(480_000),
                p90: Some(600_000),
                p99: Some(900_000),
                p99_9: Some(1_500_000),
                ..Summary::default()
            },
            server_busy: Some(0.99),
            client_busy: 0.80,
            server_cpus: CpuShares {
                busy: 1.0,
                softirq: 0.2,
                steal: 0.0,
            },
            resting_cpu: Some(0.0),
            client_run_delay: 0.0,
            rate_drift: Some(1.0),
            runs: Vec::new(),
        }
    }

    /// Blocks in which every metric but the rate is `ratio` times the baseline's, give or take half a per cent.
    fn blocks(count: usize, arms: &[&str], ratio: f64) -> Vec<BlockFigures> {
        (1..=count)
            .map(|index| {
                let scatter = 1.0 + 0.001 * (index as f64 - 4.3);
                let all = |metric: Metric| match metric {
                    Metric::Rate => (metric, scatter / ratio),
                    _ => (metric, scatter * ratio),
                };
                BlockFigures {
                    index,
                    order: Vec::new(),
                    valid: true,
                    reasons: Vec::new(),
                    slice_ns: 50_000_000,
                    arms: arms.iter().map(|&name| (name.to_owned(), arm())).collect(),
                    ratios: arms[1..]
                        .iter()
                        .map(|&name| (name.to_owned(), METRICS.into_iter().map(all).collect()))
                        .collect(),
                    floor: None,
                }
            })
            .collect()
    }

    fn find<'a>(analysis: &'a Analysis, arm: &str, metric: Metric) -> &'a MetricResult {
        let found = analysis
            .metrics
            .iter()
            .find(|result| result.arm == arm && result.name == metric);
        found.expect("one entry an arm and metric")
    }

    #[test]
    fn a_clear_difference_is_found_in_every_metric() {
        let arms = ["epoll", "uring"];
        let analysis = analyse(&terms(&arms), &blocks(8, &arms, 0.88));
        assert_eq!(analysis.metrics.len(), METRICS.len());
        for result in &analysis.metrics {
            assert_eq!(result.verdict, Verdict::Better, "{result:?}");
            assert_eq!((result.blocks_used, result.reason.as_deref()), (8, None));
        }
        let cpu = find(&analysis, "uring", Metric::ServerCpuPerMessage);
        assert!(cpu.primary && cpu.p_holm == cpu.p);
        assert_eq!(
            (cpu.arm_value, cpu.baseline_value),
            (Some(10_000.0), Some(10_000.0))
        );
        assert!(
            cpu.ci_low.is_some_and(|low| 0.87 < low) && cpu.ci_high.is_some_and(|high| high < 0.89)
        );
        assert_eq!(
            analysis.verdict,
            Trust {
                status: Status::Valid,
                reasons: Vec::new(),
                warnings: Vec::new()
            }
        );
    }

    #[test]
    fn four_blocks_give_estimates_and_no_intervals() {
        let arms = ["epoll", "uring"];
        let analysis = analyse(&terms(&arms), &blocks(4, &arms, 0.5));
        for result in &analysis.metrics {
            assert_eq!(
                (result.ci_low, result.ci_high, result.p, result.p_holm),
                (None, None, None, None)
            );
            assert_eq!(result.verdict, Verdict::Undecided);
            assert_eq!(result.reason.as_deref(), Some("needs 6 blocks, has 4"));
            assert!(result.ratio.is_some());
        }
        assert_eq!(analysis.verdict.status, Status::Invalid);
        assert!(
            analysis.verdict.reasons[0].contains("needs 6 blocks"),
            "{:?}",
            analysis.verdict.reasons
        );
    }

    #[test]
    fn invalid_blocks_do_not_count_and_are_told_of() {
        let arms = ["epoll", "uring"];
        let mut blocks = blocks(8, &arms, 0.88);
        for block in &mut blocks[..3] {
            block.valid = false;
            block.reasons.push("uring died".to_owned());
        }
        let analysis = analyse(&terms(&arms), &blocks);
        assert_eq!(find(&analysis, "uring", Metric::Rate).blocks_used, 5);
        assert_eq!(analysis.verdict.status, Status::Invalid);
        assert!(analysis.verdict.reasons[0].starts_with("5 of 8 blocks are valid"));
        blocks[0].valid = true;
        assert_eq!(
            analyse(&terms(&arms), &blocks).verdict.status,
            Status::Valid
        );
    }

    #[test]
    fn a_busier_client_withholds_the_verdict_on_the_rate_only() {
        let arms = ["epoll", "uring", "other"];
        let mut blocks = blocks(8, &arms, 0.88);
        for block in &mut blocks {
            block
                .arms
                .get_mut("other")
                .expect("it is there")
                .client_busy = 0.995;
        }
        let analysis = analyse(&terms(&arms), &blocks);
        for name in ["uring", "other"] {
            let rate = find(&analysis, name, Metric::Rate);
            assert_eq!(rate.verdict, Verdict::Invalid, "in every arm, or in none");
            assert!(
                rate.reason
                    .as_ref()
                    .is_some_and(|reason| reason.contains("client-bound: with other"))
            );
            assert!(
                rate.ratio.is_some() && rate.ci_low.is_some(),
                "shown all the same"
            );
            assert_eq!(
                find(&analysis, name, Metric::ServerCpuPerMessage).verdict,
                Verdict::Better
            );
        }
        assert_eq!(analysis.verdict.status, Status::Valid);
        let primary = Terms {
            primary: Metric::Rate,
            ..terms(&arms)
        };
        let verdict = analyse(&primary, &blocks).verdict;
        assert_eq!(verdict.status, Status::Invalid);
        assert!(
            verdict.reasons[0].contains("rate of uring, the primary metric: client-bound"),
            "{verdict:?}"
        );
    }

    #[test]
    fn what_is_a_lower_bound_in_some_runs_is_not_judged_by_the_others() {
        let arms = ["epoll", "uring"];
        let mut blocks = blocks(8, &arms, 0.88);
        for (block, index) in blocks.iter_mut().zip(0_u64..) {
            for (name, figures) in &mut block.arms {
                let ns = if name == "uring" { 500_000 } else { 900_000 };
                let run = RunFigures {
                    rate_per_s: 20_000.0,
                    offered_per_s: Some(20_000.0),
                    server_cpu_ns_per_message: Some(10_000.0),
                    client_cpu_ns_per_message: Some(8_000.0),
                    latency_ns: Summary {
                        count: 290_000,
                        p50: Some(100_000 + index),
                        p90: Some(200_000 + index),
                        p99: Some(ns + index),
                        ..Summary::default()
                    },
                    status: Judged::Valid,
                    reasons: Vec::new(),
                };
                figures.runs = vec![run.clone(), run];
            }
        }
        let terms = Terms {
            design: Design::Runs,
            open: true,
            primary: Metric::LatencyP99,
            ..terms(&arms)
        };
        assert_eq!(
            find(&analyse(&terms, &blocks), "uring", Metric::LatencyP99).verdict,
            Verdict::Better
        );
        // In its worst run uring answers too late for its p99 to be known.
        let worst = &mut blocks[3].arms.get_mut("uring").expect("it is there").runs[1];
        worst.status = Judged::Overloaded;
        worst.latency_ns.p99 = Some(900_000_000);
        worst.latency_ns.censored_from = Some(1_000_000);
        let analysis = analyse(&terms, &blocks);
        let tail = find(&analysis, "uring", Metric::LatencyP99);
        assert_eq!(tail.verdict, Verdict::Invalid);
        assert_eq!(
            tail.reason.as_deref(),
            Some(
                "latency p99 is a lower bound in 1 of 16 runs of uring: messages were left without an answer (lower -R)"
            )
        );
        assert_eq!(
            analysis.verdict.status,
            Status::Invalid,
            "it is the primary"
        );
        assert_ne!(
            find(&analysis, "uring", Metric::LatencyP50).verdict,
            Verdict::Invalid,
            "only what reaches those messages"
        );
    }

    #[test]
    fn an_unknown_cpu_can_be_neither_compared_nor_clear_the_rate() {
        let arms = ["epoll", "far"];
        let mut blocks = blocks(8, &arms, 0.88);
        for block in &mut blocks {
            let far = block.arms.get_mut("far").expect("it is there");
            (far.server_cpu_ns_per_message, far.server_busy) = (None, None);
            block
                .ratios
                .get_mut("far")
                .expect("it is there")
                .remove(&Metric::ServerCpuPerMessage);
        }
        let analysis = analyse(
            &Terms {
                primary: Metric::LatencyP50,
                ..terms(&arms)
            },
            &blocks,
        );
        let cpu = find(&analysis, "far", Metric::ServerCpuPerMessage);
        assert_eq!(
            (cpu.verdict, cpu.ratio, cpu.arm_value),
            (Verdict::Invalid, None, None)
        );
        assert!(cpu.baseline_value.is_some());
        assert_eq!(
            find(&analysis, "far", Metric::Rate).verdict,
            Verdict::Invalid
        );
        assert_eq!(
            find(&analysis, "far", Metric::LatencyP50).verdict,
            Verdict::Better
        );
    }

    #[test]
    fn slices_of_an_open_loop_judge_no_tail() {
        let arms = ["epoll", "uring"];
        let terms = Terms {
            open: true,
            primary: Metric::LatencyP90,
            ..terms(&arms)
        };
        let analysis = analyse(&terms, &blocks(8, &arms, 0.88));
        assert_eq!(
            find(&analysis, "uring", Metric::LatencyP90).verdict,
            Verdict::Better
        );
        assert_eq!(
            find(&analysis, "uring", Metric::LatencyP99).verdict,
            Verdict::Invalid
        );
        assert_eq!(
            find(&analysis, "uring", Metric::LatencyP99_9).verdict,
            Verdict::Invalid
        );
    }

    #[test]
    fn many_arms_need_more_blocks_for_the_other_metrics_and_are_told_how_many() {
        let arms = ["epoll", "uring", "tokio", "blocking"];
        let analysis = analyse(&terms(&arms), &blocks(8, &arms, 0.88));
        // Three arms: 3 x 2/256 for the primary, 18 x 2/256 = 0.14 for the rest.
        assert_eq!(
            find(&analysis, "tokio", Metric::ServerCpuPerMessage).verdict,
            Verdict::Better
        );
        let rate = find(&analysis, "tokio", Metric::Rate);
        assert_eq!(rate.verdict, Verdict::Undecided);
        assert_eq!(
            rate.reason.as_deref(),
            Some("does not outlast the correction for the number of questions")
        );
        let expected =
            "8 blocks can't decide 18 metrics besides the primary one: --blocks 10 could";
        assert_eq!(analysis.verdict.warnings, [expected]);
    }

    #[test]
    fn six_blocks_cannot_tell_two_arms_from_the_baseline() {
        let arms = ["epoll", "uring", "tokio"];
        // 2 x 2/64 = 0.0625.
        let analysis = analyse(&terms(&arms), &blocks(6, &arms, 0.88));
        assert_eq!(
            find(&analysis, "uring", Metric::ServerCpuPerMessage).verdict,
            Verdict::Undecided
        );
        let expected = "6 blocks can't decide 2 arms against the baseline: --blocks 7 could";
        assert!(
            analysis
                .verdict
                .warnings
                .iter()
                .any(|warning| warning == expected),
            "{:?}",
            analysis.verdict.warnings
        );
        let analysis = analyse(&terms(&arms), &blocks(7, &arms, 0.88));
        assert_eq!(
            find(&analysis, "uring", Metric::ServerCpuPerMessage).verdict,
            Verdict::Better
        );
    }

    #[test]
    fn a_metric_without_samples_is_undecided_and_says_why() {
        let arms = ["epoll", "uring"];
        let mut blocks = blocks(8, &arms, 0.88);
        for block in &mut blocks {
            block
                .ratios
                .get_mut("uring")
                .expect("it is there")
                .remove(&Metric::LatencyP99_9);
        }
        let analysis = analyse(&terms(&arms), &blocks);
        let tail = find(&analysis, "uring", Metric::LatencyP99_9);
        assert_eq!((tail.verdict, tail.blocks_used), (Verdict::Undecided, 0));
        assert_eq!(
            tail.reason.as_deref(),
            Some("too few samples above it: raise -d")
        );
    }

    #[test]
    fn disturbances_are_warned_of_and_change_no_verdict() {
        let arms = ["epoll", "uring"];
        let mut blocks = blocks(8, &arms, 0.88);
        for arm in blocks.iter_mut().flat_map(|block| block.arms.values_mut()) {
            arm.server_cpus.steal = 0.03;
            arm.client_run_delay = 0.02;
            arm.rate_drift = Some(0.9);
        }
        let analysis = analyse(&terms(&arms), &blocks);
        assert_eq!(analysis.verdict.status, Status::Valid);
        let warnings = analysis.verdict.warnings.join("\n");
        for word in [
            "3.0 %",
            "2.0 %",
            "epoll's rate changes by -10 %",
            "uring's rate",
        ] {
            assert!(warnings.contains(word), "{word}: {warnings}");
        }
        assert_eq!(
            find(&analysis, "uring", Metric::Rate).verdict,
            Verdict::Better
        );
    }

    #[test]
    fn no_block_at_all_is_no_answer_and_no_panic() {
        let arms = ["epoll", "uring"];
        let analysis = analyse(&terms(&arms), &[]);
        assert_eq!(analysis.verdict.status, Status::Invalid);
        assert!(analysis.metrics.iter().all(|metric| metric.ratio.is_none()));
    }
}
