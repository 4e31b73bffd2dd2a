//! The truths: what a calibration server does, what load shows it, and what must be shown then. Pure: histograms and
//! comparisons in, checks out. f is what the same load shows of a server without delay: its quantile, or where a random
//! time is added to it, its distribution.

use std::time::Duration;

use hdrhistogram::Histogram;

use echometer_loadgen::{
    file::quantile,
    plan::{Arrivals, Engine, Load, OPEN_LOOP_PIPELINE, Plan, Wait},
    verdict::Verdict,
};
use echometer_report::file::{
    compare::{Comparison, MetricResult},
    metric::Metric,
    selftest::{Check, Finding, Rule, Truth},
};

/// Half the width of the band in which a ratio counts as 1: `compare`'s default.
const MARGIN: f64 = 0.02;
const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// How a truth is looked at.
pub(crate) enum Method {
    /// One run of the load generator, and one on a server without delay where f is needed.
    Run(Box<RunMethod>),
    /// A comparison: the words after `echometer compare`.
    Compare(Vec<String>),
}

/// See [`Method::Run`].
pub(crate) struct RunMethod {
    /// `--delay` of the server.
    pub delay: &'static str,
    /// The load, but for its workers and its engine.
    pub plan: Plan,
    /// How long f is measured, half of it before and half after; `None` where it is not needed.
    pub floor: Option<Duration>,
}

/// How it is looked at; `quick` in less time, where that leaves the check as sharp.
#[must_use]
pub(crate) fn method(truth: Truth, quick: bool) -> Method {
    let pick = |long: u64, short: u64| Duration::from_millis(if quick { short } else { long });
    let run = |delay, plan, floor| Method::Run(Box::new(RunMethod { delay, plan, floor }));
    let words =
        |line: &str| Method::Compare(line.split('|').map(|word| word.trim().to_owned()).collect());
    match truth {
        // Poisson: with equal gaps of 1 ms an echo that is 1 ms late always leaves when the next message comes.
        Truth::Fixed => run(
            "fixed:1ms",
            open(1_000.0, 10, Arrivals::Poisson, pick(5_000, 1_500)),
            Some(pick(2_000, 800)),
        ),
        // A multiple of the period, so that exactly a tenth of the messages are due in a freeze.
        Truth::Freeze => run(
            "freeze:200ms/2s",
            open(1_000.0, 10, Arrivals::Uniform, Duration::from_secs(10)),
            Some(pick(2_000, 800)),
        ),
        Truth::Omission => run(
            "freeze:200ms/2s",
            Plan {
                connections: 10,
                duration: pick(4_000, 2_000),
                warmup: Duration::from_millis(200),
                ..Plan::default()
            },
            None,
        ),
        // The p99 of 30,000 messages scatters by 1.3 %, of 21,000 by 1.5 %. On each connection 10 per second, because a
        // message that comes while another is held back on its connection may not overtake it.
        Truth::Exponential => {
            let (rate, connections) = if quick {
                (3_000.0, 300)
            } else {
                (1_000.0, 100)
            };
            run(
                "exp:1ms",
                open(rate, connections, Arrivals::Poisson, pick(30_000, 7_000)),
                // Longer than elsewhere: its tail is part of the truth, and not its median alone.
                Some(pick(10_000, 2_000)),
            )
        }
        Truth::Ratio => words(if quick {
            "late-1.0=auto:--delay fixed:1ms | late-1.1=auto:--delay fixed:1.1ms | none=auto | -R | 2000 | -c | 10 \
             | --design | slices | --primary | latency_p50 | --blocks | 6 | -d | 400ms | -w | 100ms"
        } else {
            "late-1.0=auto:--delay fixed:1ms | late-1.1=auto:--delay fixed:1.1ms | none=auto | -R | 1000 | -c | 10 \
             | --design | slices | --primary | latency_p50 | --blocks | 8 | -d | 1s | -w | 200ms"
        }),
        Truth::Same => words(if quick {
            "one=auto | other=auto | --blocks | 6 | -d | 500ms | -w | 100ms"
        } else {
            "one=auto | other=auto"
        }),
        Truth::Busy => words(if quick {
            "none=auto | busy=auto:--delay busy:20us | --blocks | 6 | -d | 250ms | -w | 50ms"
        } else {
            "none=auto | busy=auto:--delay busy:20us | --blocks | 8 | -d | 1s | -w | 200ms"
        }),
    }
}

/// What one run shows, beside the truth. `floor` is f's histogram where the truth's method measures it.
#[must_use]
pub(crate) fn check_run(
    truth: Truth,
    shown: &Histogram<u64>,
    floor: Option<&Histogram<u64>>,
    verdict: &Verdict,
) -> Vec<Check> {
    let f = |at: f64| {
        floor
            .and_then(|floor| quantile(floor, at))
            .unwrap_or_default()
    };
    let near =
        |name: &str, at: f64, truth_ns, bound| latency(name, quantile(shown, at), truth_ns, bound);
    let max = (!shown.is_empty()).then(|| shown.max());
    let percent = |truth_ns: u64, bound: u64| truth_ns * bound / 100;
    match truth {
        Truth::Fixed => {
            let truth_ns = MS + f(0.5);
            vec![near("p50", 0.5, truth_ns, percent(truth_ns, 5))]
        }
        // Nine tenths are not frozen: the p85 of all is their p94.4.
        Truth::Freeze => vec![
            near("p85", 0.85, f(0.85 / 0.9), 200 * US),
            near("p95", 0.95, 100 * MS, percent(100 * MS, 5)),
            near("p99", 0.99, 180 * MS, percent(180 * MS, 2)),
            near("p99.9", 0.999, 198 * MS, percent(198 * MS, 2)),
            latency("max", max, 200 * MS, percent(200 * MS, 5)),
        ],
        Truth::Exponential => [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)]
            .into_iter()
            .map(|(name, at)| {
                let truth_ns = exponential_and(floor, MS, at);
                near(name, at, truth_ns, percent(truth_ns, 5))
            })
            .collect(),
        Truth::Omission => {
            let shown = verdict
                .warnings
                .iter()
                .any(|warning| warning.starts_with("coordinated omission"));
            vec![Check {
                quantity: "coordinated omission".to_owned(),
                finding: Finding::Warning { shown },
                passed: shown,
            }]
        }
        Truth::Ratio | Truth::Same | Truth::Busy => Vec::new(),
    }
}

/// The quantile `at` (below 1) of X + F, in ns: X an exponential time of mean `mean_ns`, F independent of it and as
/// `floor` holds it (0 where it holds nothing). To F's median alone a late wake-up in fifty would be no part of the
/// truth, and it moves every quantile of the sum by ln E(e^F/mean).
fn exponential_and(floor: Option<&Histogram<u64>>, mean_ns: u64, at: f64) -> u64 {
    let mut counted: Vec<(u64, u64)> = floor
        .into_iter()
        .flat_map(|floor| floor.iter_recorded())
        .map(|step| (step.value_iterated_to(), step.count_at_value()))
        .collect();
    if counted.is_empty() {
        counted.push((0, 1));
    }
    let total: u64 = counted.iter().map(|(_, count)| count).sum();
    let greatest = counted[counted.len() - 1].0;
    let mean = mean_ns as f64;
    // P(X + F > t), the mean over F of P(X > t - F).
    let survives = |t: u64| {
        let after = |f: u64| (-(t.saturating_sub(f) as f64) / mean).exp();
        let sum: f64 = counted
            .iter()
            .map(|&(f, count)| after(f) * count as f64)
            .sum();
        sum / total as f64
    };
    // It falls as t grows. X's own quantile is below the sum's, and with the greatest F above it.
    let least = (-(1.0 - at).ln() * mean) as u64;
    let (mut low, mut high) = (least, least + greatest + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match survives(middle) <= 1.0 - at {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    low
}

/// What a comparison shows, beside the truth.
#[must_use]
pub(crate) fn check_comparison(truth: Truth, comparison: &Comparison) -> Vec<Check> {
    // The first arm but the baseline is what it is about.
    let metric = |name| {
        comparison
            .metrics
            .iter()
            .find(|metric| metric.name == name)
            .expect("a comparison has all metrics of its arms")
    };
    match truth {
        Truth::Ratio => {
            let truth = late_ratios(comparison);
            vec![ratio(metric(Metric::LatencyP50), Rule::HoldsTruth, truth)]
        }
        Truth::Same => vec![ratio(metric(Metric::ServerCpuPerMessage), Rule::Same, None)],
        Truth::Busy => vec![
            ratio(metric(Metric::ServerCpuPerMessage), Rule::Higher, None),
            ratio(metric(Metric::Rate), Rule::Lower, None),
        ],
        Truth::Fixed | Truth::Freeze | Truth::Omission | Truth::Exponential => Vec::new(),
    }
}

/// (1.1 + f) / (1 + f) for the least and the greatest f that a block showed, the smaller ratio first.
fn late_ratios(comparison: &Comparison) -> Option<(f64, f64)> {
    let floors = comparison
        .valid_blocks()
        .filter_map(|block| block.arms.get("none")?.latency_ns.p50);
    let (least, greatest) = floors.fold((u64::MAX, 0), |(least, greatest), f| {
        (least.min(f), greatest.max(f))
    });
    let of = |f: u64| (1.1e6 + f as f64) / (1e6 + f as f64);
    (least <= greatest).then(|| (of(greatest), of(least)))
}

fn latency(quantity: &str, shown_ns: Option<u64>, truth_ns: u64, bound_ns: u64) -> Check {
    Check {
        quantity: quantity.to_owned(),
        finding: Finding::Latency {
            truth_ns,
            shown_ns,
            bound_ns,
        },
        passed: shown_ns.is_some_and(|shown_ns| shown_ns.abs_diff(truth_ns) <= bound_ns),
    }
}

fn ratio(metric: &MetricResult, rule: Rule, truth: Option<(f64, f64)>) -> Check {
    let interval = metric.ci_low.zip(metric.ci_high);
    let passed = interval.is_some_and(|(low, high)| match rule {
        Rule::HoldsTruth => {
            1.0 < low && truth.is_some_and(|(least, greatest)| low <= greatest && least <= high)
        }
        Rule::Same => (low <= 1.0 && 1.0 <= high) || (1.0 - MARGIN <= low && high <= 1.0 + MARGIN),
        Rule::Higher => 1.0 + MARGIN < low,
        Rule::Lower => high < 1.0 - MARGIN,
    });
    Check {
        quantity: metric.name.name().to_owned(),
        finding: Finding::Ratio {
            rule,
            truth_low: truth.map(|(low, _)| low),
            truth_high: truth.map(|(_, high)| high),
            ratio: metric.ratio,
            ci_low: metric.ci_low,
            ci_high: metric.ci_high,
        },
        passed,
    }
}

fn open(rate_per_s: f64, connections: u32, arrivals: Arrivals, duration: Duration) -> Plan {
    Plan {
        connections,
        duration,
        warmup: Duration::from_millis(200),
        load: Load::Open {
            rate_per_s,
            arrivals,
        },
        pipeline: OPEN_LOOP_PIPELINE,
        wait: Wait::Spin,
        engine: Engine::Auto,
        ..Plan::default()
    }
}

#[cfg(test)]
mod tests {
    use echometer_loadgen::{recorder::histogram, verdict::Status};

    use clap::ValueEnum;

    use super::*;
    use echometer_report::file::selftest::TRUTHS;

    fn valid(warnings: &[&str]) -> Verdict {
        Verdict {
            status: Status::Valid,
            reasons: Vec::new(),
            warnings: warnings.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    fn filled(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut filled = histogram();
        values
            .into_iter()
            .for_each(|value| filled.record(value).expect("below 60 s"));
        filled
    }

    /// Messages due every 1 ms for 10 s; those due in the first 200 ms of each 2 s wait for its end.
    fn frozen() -> Histogram<u64> {
        filled((0..10_000_u64).map(|ms| (200_u64.saturating_sub(ms % 2_000)) * MS + 15 * US))
    }

    fn passed(checks: &[Check]) -> Vec<bool> {
        checks.iter().map(|check| check.passed).collect()
    }

    #[test]
    fn a_tail_that_is_shown_passes_and_one_that_is_hidden_does_not() {
        let floor = filled([15 * US; 1_000]);
        let verdict = valid(&[]);
        let shown = check_run(Truth::Freeze, &frozen(), Some(&floor), &verdict);
        assert_eq!(passed(&shown), [true; 5], "{shown:?}");
        // What a closed loop of 10 connections sees of the same server.
        let hidden = filled((0..10_000).map(|n| if n < 50 { 200 * MS } else { 15 * US }));
        let shown = check_run(Truth::Freeze, &hidden, Some(&floor), &verdict);
        assert_eq!(
            passed(&shown),
            [true, false, false, true, true],
            "{shown:?}"
        );
    }

    #[test]
    fn the_floor_is_part_of_the_truth() {
        let floor = filled([100 * US; 100]);
        let verdict = valid(&[]);
        let check = |shown_us: u64| {
            let shown = filled(vec![shown_us * US; 100]);
            check_run(Truth::Fixed, &shown, Some(&floor), &verdict)[0].passed
        };
        assert_eq!(
            [1_040, 1_050, 1_150, 1_160].map(check),
            [false, true, true, false]
        );
    }

    #[test]
    fn the_sum_of_an_exponential_time_and_the_floor_is_as_simulated() {
        let near = |got: u64, want_ns: f64| {
            let error = got as f64 / want_ns - 1.0;
            assert!(error.abs() < 0.002, "{got} ns for {want_ns} ns");
        };
        // Without a floor, and with one that never changes, by the formula -ln(1 - q).
        for (at, alone_ns) in [(0.5, 693_147.0), (0.9, 2_302_585.0), (0.99, 4_605_170.0)] {
            near(exponential_and(None, MS, at), alone_ns);
            let constant = filled([60 * US; 10]);
            near(exponential_and(Some(&constant), MS, at), alone_ns + 60e3);
        }
        // 50 us, and 2 ms for one in fifty: every pair of a fine grid of either.
        let floor = filled((0..50).map(|n| if n == 0 { 2 * MS } else { 50 * US }));
        let steps = 100_000;
        let mut sums: Vec<f64> = (0..steps)
            .map(|step| -(1.0 - (f64::from(step) + 0.5) / f64::from(steps)).ln() * 1e6)
            .flat_map(|x| (0..50).map(move |n| x + if n == 0 { 2e6 } else { 50e3 }))
            .collect();
        sums.sort_unstable_by(f64::total_cmp);
        for at in [0.5, 0.9, 0.99] {
            let want_ns = sums[(at * sums.len() as f64) as usize];
            near(exponential_and(Some(&floor), MS, at), want_ns);
        }
    }

    #[test]
    fn too_few_messages_show_nothing() {
        let checks = check_run(
            Truth::Exponential,
            &filled([MS; 12]),
            Some(&filled([US; 100])),
            &valid(&[]),
        );
        assert_eq!(passed(&checks), [false; 3]);
    }

    #[test]
    fn a_warning_must_be_there() {
        let check =
            |verdict: &Verdict| check_run(Truth::Omission, &histogram(), None, verdict)[0].passed;
        assert!(check(&valid(&["coordinated omission: 2 gaps"])));
        assert!(!check(&valid(&["closed loop: no latency under load"])));
    }

    #[test]
    fn intervals_are_held_to_their_rules() {
        let metric = |interval: Option<(f64, f64)>| MetricResult {
            arm: "b".to_owned(),
            baseline: "a".to_owned(),
            name: Metric::LatencyP50,
            unit: "ns".to_owned(),
            primary: true,
            arm_value: None,
            baseline_value: None,
            ratio: interval.map(|(low, high)| (low + high) / 2.0),
            ci_low: interval.map(|(low, _)| low),
            ci_high: interval.map(|(_, high)| high),
            confidence: None,
            p: None,
            p_adjusted: None,
            blocks_used: 8,
            verdict: echometer_statistics::Verdict::Undecided,
            reason: None,
            least: None,
        };
        let truth = Some((1.09, 1.095));
        let cases = [
            (Rule::HoldsTruth, 1.092, 1.1, true),
            (Rule::HoldsTruth, 1.096, 1.1, false),
            (Rule::HoldsTruth, 0.99, 1.2, false),
            (Rule::Same, 0.9, 1.0, true),
            (Rule::Same, 1.005, 1.019, true),
            (Rule::Same, 1.005, 1.021, false),
            (Rule::Higher, 1.021, 1.5, true),
            (Rule::Higher, 1.019, 1.5, false),
            (Rule::Lower, 0.5, 0.979, true),
            (Rule::Lower, 0.5, 0.99, false),
        ];
        for (rule, low, high, passes) in cases {
            let check = ratio(&metric(Some((low, high))), rule, truth);
            assert_eq!(check.passed, passes, "{check:?}");
            assert!(!ratio(&metric(None), rule, truth).passed, "no interval");
        }
    }

    #[test]
    fn the_table_keeps_to_its_terms() {
        for quick in [false, true] {
            let Method::Run(freeze) = method(Truth::Freeze, quick) else {
                panic!("a run")
            };
            assert_eq!(freeze.plan.duration.as_millis() % 2_000, 0);
            assert!(Duration::from_secs(10) <= freeze.plan.duration);
            let Method::Run(exponential) = method(Truth::Exponential, quick) else {
                panic!("a run")
            };
            let Load::Open { rate_per_s, .. } = exponential.plan.load else {
                panic!("open loop")
            };
            let messages = rate_per_s * exponential.plan.duration.as_secs_f64();
            assert_eq!(messages, if quick { 21_000.0 } else { 30_000.0 });
        }
        assert_eq!(TRUTHS.len(), Truth::value_variants().len());
    }
}
