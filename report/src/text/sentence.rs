//! The answer as one sentence: who needs less or is faster, by how much, how sure, under which load and on which
//! machine; or that it can't be said, and what would be needed.

use echometer_host::units::counted;
use echometer_statistics::{ALPHA, Good, Verdict};

use crate::file::{
    compare::{Comparison, MetricResult},
    metric::Metric,
    trust::Status,
};

/// Beyond this many blocks a quieter machine is the better advice.
const BLOCKS_ADVISED_MAX: f64 = 64.0;
/// How many more blocks are advised where a difference may be chance: p gets finer with each by a factor of two.
const BLOCKS_MORE: usize = 4;

/// Says what the comparison has found about its primary metric.
#[must_use]
pub fn sentence(comparison: &Comparison) -> String {
    let margin = comparison.design.margin;
    let questions = comparison
        .metrics
        .iter()
        .filter(|metric| metric.primary)
        .count();
    let claims: Vec<String> = comparison
        .metrics
        .iter()
        .filter(|metric| metric.primary)
        .map(|metric| match comparison.verdict.status {
            // Without enough blocks the reason is the same for every arm and metric, and the comparison's own.
            Status::Invalid if metric.ci_low.is_none() => {
                cannot_say(metric, &comparison.verdict.reasons.join("; "))
            }
            _ => claim(metric, questions, margin),
        })
        .collect();
    let cut = if comparison.cut_short {
        "Cut short. "
    } else {
        ""
    };
    format!(
        "{cut}With {}{}, on {}: {}.",
        comparison.design.load.words(),
        comparison.design.priority.clause(),
        comparison.machine.summary(),
        claims.join("; "),
    )
}

fn claim(metric: &MetricResult, questions: usize, margin: f64) -> String {
    let (Some(ratio), Some(low), Some(high)) = (metric.ratio, metric.ci_low, metric.ci_high) else {
        return cannot_say(
            metric,
            metric.reason.as_deref().unwrap_or("there are no figures"),
        );
    };
    let confidence = metric
        .confidence
        .map(|confidence| format!(", {:.1} % sure", confidence * 100.0));
    let sure = format!(
        "x{low:.3} to x{high:.3}{}",
        confidence.as_deref().unwrap_or_default()
    );
    let (arm, baseline) = (&metric.arm, &metric.baseline);
    let percent = (ratio - 1.0).abs() * 100.0;
    let difference = if percent < 99.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    };
    let margin_percent = margin * 100.0;
    match metric.verdict {
        Verdict::Better | Verdict::Worse => {
            format!(
                "{arm} {} than {baseline} ({sure})",
                comparative(metric.name, ratio, &difference)
            )
        }
        Verdict::Small => format!(
            "{arm} {} than {baseline} ({sure}), but maybe by less than the {margin_percent} % that matter",
            comparative(metric.name, ratio, "slightly"),
        ),
        Verdict::Same => {
            format!(
                "{arm} and {baseline} {}, within {margin_percent} % ({sure})",
                equality(metric.name)
            )
        }
        Verdict::Undecided => cannot_say(
            metric,
            &format!(
                "{sure}; {}",
                advice(metric, questions, margin, (ratio, low, high))
            ),
        ),
        Verdict::Invalid => cannot_say(
            metric,
            metric
                .reason
                .as_deref()
                .unwrap_or("the figures carry no verdict"),
        ),
    }
}

fn cannot_say(metric: &MetricResult, why: &str) -> String {
    let wish = match metric.name.good() {
        Good::Lower => comparative(metric.name, 0.5, ""),
        Good::Higher => comparative(metric.name, 2.0, ""),
    };
    format!(
        "whether {} {wish} than {} can't be said: {why}",
        metric.arm, metric.baseline
    )
}

/// "needs 12 % less server CPU per message"
fn comparative(metric: Metric, ratio: f64, amount: &str) -> String {
    let less = ratio < 1.0;
    let text = match metric {
        Metric::ServerCpuPerMessage => {
            format!(
                "needs {amount} {} server CPU per message",
                if less { "less" } else { "more" }
            )
        }
        Metric::ClientCpuPerMessage => {
            format!(
                "costs its client {amount} {} CPU per message",
                if less { "less" } else { "more" }
            )
        }
        Metric::Rate => format!(
            "answers {amount} {} messages per second",
            if less { "fewer" } else { "more" }
        ),
        _ => format!(
            "has {amount} {} latency at {}",
            if less { "lower" } else { "higher" },
            quantile_name(metric)
        ),
    };
    // Where there is no amount, its place closes up.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// "need the same server CPU per message"
fn equality(metric: Metric) -> String {
    match metric {
        Metric::ServerCpuPerMessage => "need the same server CPU per message".to_owned(),
        Metric::ClientCpuPerMessage => "cost their client the same CPU per message".to_owned(),
        Metric::Rate => "answer the same number of messages per second".to_owned(),
        _ => format!("have the same latency at {}", quantile_name(metric)),
    }
}

/// `p99.9`, of `latency p99.9`.
fn quantile_name(metric: Metric) -> &'static str {
    metric.label().trim_start_matches("latency ")
}

/// What would decide. Where the interval says that there is a difference, and only the correction for several arms stands
/// in the way, some more blocks; else a narrower interval: its width falls with the square root of the blocks, and it has
/// to clear the nearer edge of the margin.
fn advice(
    metric: &MetricResult,
    questions: usize,
    margin: f64,
    (ratio, low, high): (f64, f64, f64),
) -> String {
    let half_width = (high - low) / 2.0;
    let distance = (margin - (ratio - 1.0).abs()).abs();
    let factor = (half_width / distance).powi(2).max(1.0);
    let blocks = (metric.blocks_used as f64 * factor).ceil() + 1.0;
    let chance = metric.p_adjusted.filter(|&p| ALPHA <= p);
    if let Some(p) = chance.filter(|_| high < 1.0 || 1.0 < low) {
        format!(
            "with {} compared at once this can be chance (p {p:.2}): try --blocks {}",
            counted(questions as u64, "arm"),
            metric.blocks_used + BLOCKS_MORE,
        )
    } else if blocks <= BLOCKS_ADVISED_MAX {
        format!("about --blocks {blocks} or a quieter machine would tell")
    } else {
        "it would take a quieter machine or a longer -d to tell".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(name: Metric, ratio: f64, low: f64, high: f64, verdict: Verdict) -> MetricResult {
        MetricResult {
            arm: "uring".to_owned(),
            baseline: "epoll".to_owned(),
            name,
            unit: name.unit().to_owned(),
            primary: true,
            arm_value: None,
            baseline_value: None,
            ratio: Some(ratio),
            ci_low: Some(low),
            ci_high: Some(high),
            confidence: Some(1.0 - 10.0 / 256.0),
            p: Some(0.01),
            p_adjusted: Some(0.01),
            blocks_used: 8,
            verdict,
            reason: None,
            least: None,
        }
    }

    #[test]
    fn each_verdict_reads_as_a_sentence() {
        let cpu = Metric::ServerCpuPerMessage;
        let said = |name, ratio, low, high, verdict| {
            claim(&result(name, ratio, low, high, verdict), 1, 0.02)
        };
        assert_eq!(
            said(cpu, 0.88, 0.87, 0.892, Verdict::Better),
            "uring needs 12.0 % less server CPU per message than epoll (x0.870 to x0.892, 96.1 % sure)"
        );
        assert_eq!(
            said(Metric::Rate, 0.9, 0.85, 0.95, Verdict::Worse),
            "uring answers 10.0 % fewer messages per second than epoll (x0.850 to x0.950, 96.1 % sure)"
        );
        assert_eq!(
            said(Metric::LatencyP99, 1.2, 1.1, 1.3, Verdict::Worse),
            "uring has 20.0 % higher latency at p99 than epoll (x1.100 to x1.300, 96.1 % sure)"
        );
        assert_eq!(
            said(cpu, 1.0, 0.99, 1.01, Verdict::Same),
            "uring and epoll need the same server CPU per message, within 2 % (x0.990 to x1.010, 96.1 % sure)"
        );
        assert_eq!(
            said(cpu, 0.97, 0.95, 0.99, Verdict::Small),
            "uring needs slightly less server CPU per message than epoll (x0.950 to x0.990, 96.1 % sure), but maybe by \
             less than the 2 % that matter"
        );
        let undecided = said(cpu, 0.99, 0.95, 1.03, Verdict::Undecided);
        assert!(undecided.starts_with(
            "whether uring needs less server CPU per message than epoll can't be said: x0.950"
        ));
        assert!(
            undecided.ends_with("it would take a quieter machine or a longer -d to tell"),
            "{undecided}"
        );
        let close = said(cpu, 0.95, 0.91, 1.001, Verdict::Undecided);
        assert!(
            close.ends_with("about --blocks 20 or a quieter machine would tell"),
            "{close}"
        );
    }

    #[test]
    fn where_only_the_correction_stands_in_the_way_more_blocks_are_advised() {
        let cpu = Metric::ServerCpuPerMessage;
        let clear = MetricResult {
            blocks_used: 6,
            p: Some(2.0 / 64.0),
            p_adjusted: Some(6.0 / 64.0),
            ..result(cpu, 0.88, 0.87, 0.89, Verdict::Undecided)
        };
        assert_eq!(
            claim(&clear, 4, 0.02),
            "whether uring needs less server CPU per message than epoll can't be said: x0.870 to x0.890, 96.1 % sure; \
             with 4 arms compared at once this can be chance (p 0.09): try --blocks 10"
        );
        // Where the interval holds 1 it is the interval that is too wide.
        let wide = MetricResult {
            ci_high: Some(1.001),
            ..clear
        };
        assert!(!claim(&wide, 4, 0.02).contains("chance"));
    }

    #[test]
    fn what_has_no_interval_gives_its_reason() {
        let mut metric = result(Metric::Rate, 1.1, 1.0, 1.2, Verdict::Invalid);
        metric.reason = Some("client-bound".to_owned());
        let expected =
            "whether uring answers more messages per second than epoll can't be said: client-bound";
        assert_eq!(claim(&metric, 1, 0.02), expected);
        metric.ci_low = None;
        assert_eq!(claim(&metric, 1, 0.02), expected);
    }
}
