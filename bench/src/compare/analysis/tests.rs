use std::collections::BTreeMap;

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
        open: None,
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
                ratios_least: BTreeMap::new(),
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
    found.expect("one entry per arm and metric")
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
    assert!(cpu.primary && cpu.p_adjusted == cpu.p);
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
            (result.ci_low, result.ci_high, result.p, result.p_adjusted),
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
                open: None,
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
            "latency p99 of uring is a lower bound in 1 of 16 runs: messages were left without an answer (lower -R)"
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

/// Blocks of an open loop whose latencies have this ratio as they were seen, and that one without the client's lateness.
fn two_ended(seen: f64, least: f64) -> Analysis {
    let arms = ["epoll", "uring"];
    let mut open = blocks(8, &arms, seen);
    for (block, at_least) in open.iter_mut().zip(blocks(8, &arms, least)) {
        let latencies = at_least.ratios["uring"].clone().into_iter();
        let latencies = latencies.filter(|(metric, _)| metric.quantile().is_some());
        block.ratios_least = [("uring".to_owned(), latencies.collect())].into();
    }
    let terms = Terms {
        open: true,
        primary: Metric::LatencyP99,
        ..terms(&arms)
    };
    analyse(&terms, &open)
}

#[test]
fn an_open_loops_verdict_holds_with_and_without_the_clients_lateness() {
    let said = |seen, least| {
        let result = find(&two_ended(seen, least), "uring", Metric::LatencyP99).clone();
        (result.verdict, result.reason.unwrap_or_default())
    };
    assert_eq!(said(0.88, 0.85), (Verdict::Better, String::new()));
    assert_eq!(said(0.88, 0.98), (Verdict::Small, String::new()));
    assert_eq!(said(1.0, 1.0).0, Verdict::Same);
    for (seen, least) in [(0.88, 1.0), (1.2, 0.9)] {
        let (verdict, reason) = said(seen, least);
        assert_eq!(verdict, Verdict::Undecided);
        assert_eq!(
            reason,
            format!(
                "it depends on whether the client's own lateness is counted: x{seen:.3} with it, x{least:.3} without"
            )
        );
    }
}

#[test]
fn what_the_clients_lateness_does_not_touch_has_one_end() {
    let analysis = two_ended(0.88, 1.2);
    let cpu = find(&analysis, "uring", Metric::ServerCpuPerMessage);
    assert_eq!((cpu.verdict, cpu.least), (Verdict::Better, None));
    let latency = find(&analysis, "uring", Metric::LatencyP50);
    let least = latency.least.expect("a latency has two");
    assert_eq!(least.verdict, Verdict::Worse);
    assert_eq!(analysis.verdict.status, Status::Valid);
}

#[test]
fn six_blocks_decide_every_metric_of_four_arms() {
    let arms = ["epoll", "uring", "tokio", "blocking", "node"];
    let analysis = analyse(&terms(&arms), &blocks(6, &arms, 0.88));
    for result in &analysis.metrics {
        assert_eq!(result.verdict, Verdict::Better, "{result:?}");
        assert_eq!(result.p_adjusted, Some(2.0 / 64.0));
    }
    assert_eq!(analysis.verdict.warnings, Vec::<String>::new());
}

#[test]
fn a_difference_that_may_be_chance_among_so_many_says_so() {
    let arms = ["epoll", "uring", "tokio"];
    let mut blocks = blocks(6, &arms, 0.88);
    // The one's values are all of one size and of either sign: had they all one sign, they would differ by more.
    for (block, index) in blocks.iter_mut().zip(0..) {
        let up = if index % 2 == 0 { 1.4_f64 } else { 1.0 / 1.4 };
        let ratios = block.ratios.get_mut("tokio").expect("it is there");
        ratios.insert(Metric::ServerCpuPerMessage, up);
        let scatter = 1.0 + 0.05 * (f64::from(index % 3) - 1.0);
        let ratios = block.ratios.get_mut("uring").expect("it is there");
        ratios.insert(Metric::ServerCpuPerMessage, 0.88 * scatter);
    }
    let analysis = analyse(&terms(&arms), &blocks);
    let cpu = find(&analysis, "uring", Metric::ServerCpuPerMessage);
    assert!(cpu.ci_high.is_some_and(|high| high < 0.98), "{cpu:?}");
    assert!(cpu.p_adjusted.is_some_and(|p| 0.05 <= p), "{cpu:?}");
    assert_eq!(cpu.verdict, Verdict::Undecided);
    assert_eq!(
        cpu.reason.as_deref(),
        Some("does not outlast the correction for the number of questions")
    );
}

#[test]
fn where_samples_lack_in_a_block_nothing_is_filled_in() {
    let arms = ["epoll", "uring"];
    let mut blocks = blocks(8, &arms, 0.88);
    let ratios = blocks[5].ratios.get_mut("uring").expect("it is there");
    ratios.remove(&Metric::LatencyP99_9);
    let analysis = analyse(&terms(&arms), &blocks);
    let tail = find(&analysis, "uring", Metric::LatencyP99_9);
    assert_eq!(
        (tail.verdict, tail.p_adjusted, tail.blocks_used),
        (Verdict::Undecided, None, 7)
    );
    assert_eq!(
        tail.reason.as_deref(),
        Some("too few samples above it in 1 of 8 blocks: raise -d")
    );
    assert!(
        tail.ratio.is_some() && tail.ci_low.is_some(),
        "shown all the same"
    );
    assert_eq!(
        find(&analysis, "uring", Metric::LatencyP99).verdict,
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
