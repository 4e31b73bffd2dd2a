//! A selftest as text of at most 80 columns: each truth beside what was shown, then the sentence.

use std::fmt::Write as _;

use echometer_host::units::{counted, show_duration, show_ns};
use echometer_loadgen::plan::Engine;

use crate::{
    file::{
        metric::METRICS,
        selftest::{Check, Finding, Outcome, Rule, Selftest},
    },
    text::columns::paragraph,
};

/// The whole report, without colours; ends with the sentence.
#[must_use]
pub fn text(selftest: &Selftest) -> String {
    let mut text = heading(selftest);
    for truth in &selftest.truths {
        text.push_str(&outcome(truth));
    }
    let _ = write!(text, "\n{}", ending(selftest));
    text
}

/// What stands above the truths.
#[must_use]
pub fn heading(selftest: &Selftest) -> String {
    let mut text = String::new();
    paragraph(
        &mut text,
        "",
        &format!(
            "selftest on {}; server on cpu {}, client on cpu {}",
            selftest.machine.summary(),
            selftest.server_cpus,
            selftest.client_cpus,
        ),
    );
    text.push('\n');
    text.push_str(&row(
        "",
        "truth",
        "shown",
        "error, interval",
        "bound",
        "verdict",
    ));
    text
}

/// One truth with its checks.
#[must_use]
pub fn outcome(outcome: &Outcome) -> String {
    let client = match outcome.client {
        Some(Engine::Uring) => ", uring client",
        Some(Engine::Epoll) => ", epoll client",
        Some(Engine::Auto) | None => "",
    };
    let again = match outcome.attempt {
        1 => String::new(),
        attempt => format!(", attempt {attempt}"),
    };
    let mut text = format!("{}{client}{again}\n", outcome.truth.title());
    for check in &outcome.checks {
        text.push_str(&check_row(check));
    }
    if !outcome.passed() {
        // What the instrument doubts by itself is the likely cause.
        for remark in &outcome.remarks {
            paragraph(&mut text, "    note: ", remark);
        }
    }
    text
}

/// The sentence, in lines.
#[must_use]
pub fn ending(selftest: &Selftest) -> String {
    let mut text = String::new();
    paragraph(&mut text, "", &selftest.sentence);
    text
}

/// The answer for people.
#[must_use]
pub fn sentence(selftest: &Selftest) -> String {
    let all = selftest.checks().count();
    let failed: Vec<&str> = selftest
        .counting()
        .filter(|outcome| !outcome.passed())
        .map(|outcome| outcome.truth.title())
        .collect();
    let took = show_duration(std::time::Duration::from_secs(
        selftest.elapsed_ns / 1_000_000_000,
    ));
    let cut = if selftest.cut_short {
        "Cut short. "
    } else {
        ""
    };
    if all == 0 {
        return format!("{cut}Nothing was checked.");
    }
    // What was not looked at may be what is not shown: a part is no proof.
    if selftest.cut_short && failed.is_empty() {
        let looks = selftest.counting().count() as u64;
        return format!(
            "{cut}Nothing is proven: only {} {} looked at ({took}), and shown. Let `echometer selftest` run to its end.",
            counted(looks, "truth"),
            if looks == 1 { "was" } else { "were" },
        );
    }
    let passed = selftest.checks().filter(|check| check.passed).count();
    if failed.is_empty() {
        let again = selftest.truths.len() - selftest.counting().count();
        let again = match again {
            0 => String::new(),
            1 => "; one truth was missed while the machine was disturbed, and looked at again"
                .to_owned(),
            _ => format!(
                "; {again} times a truth was missed while the machine was disturbed, and looked at again"
            ),
        };
        return format!(
            "{cut}PASS: the instrument tells the truth on this machine: {passed} of {all} figures within their bounds \
             ({took}){again}."
        );
    }
    format!(
        "{cut}FAIL: {passed} of {all} figures within their bounds ({took}). Not shown: {}. Do not trust such figures of \
         this machine before `echometer selftest` passes: stop what else runs here, or give both sides cpus of their \
         own (--server-cpus, --client-cpus), and repeat it.",
        failed.join("; "),
    )
}

fn check_row(check: &Check) -> String {
    let verdict = if check.passed { "pass" } else { "FAIL" };
    match check.finding {
        Finding::Latency {
            truth_ns,
            shown_ns,
            bound_ns,
        } => {
            // A share says little of a time that is small beside its bound.
            let in_percent = bound_ns * 2 <= truth_ns;
            let (error, bound) = if in_percent {
                let error = shown_ns.map(|shown_ns| shown_ns as f64 / truth_ns as f64 - 1.0);
                (
                    error.map(|error| format!("{:+.1} %", error * 100.0)),
                    format!("{:.0} %", bound_ns as f64 / truth_ns as f64 * 100.0),
                )
            } else {
                let error = shown_ns.map(|shown_ns| {
                    let sign = if shown_ns < truth_ns { '-' } else { '+' };
                    format!("{sign}{}", show_ns(shown_ns.abs_diff(truth_ns)))
                });
                (error, show_ns(bound_ns))
            };
            row(
                &check.quantity,
                &show_ns(truth_ns),
                &shown_ns.map_or_else(|| "too few".to_owned(), show_ns),
                error.as_deref().unwrap_or("-"),
                &bound,
                verdict,
            )
        }
        Finding::Ratio {
            rule,
            truth_low,
            truth_high,
            ratio,
            ci_low,
            ci_high,
        } => {
            let (truth, bound) = match (rule, truth_low.zip(truth_high)) {
                (Rule::HoldsTruth, Some((low, high))) => {
                    (format!("x{low:.3}-{high:.3}"), "holds it")
                }
                (Rule::HoldsTruth, None) => ("unknown".to_owned(), "holds it"),
                (Rule::Same, _) => ("x1".to_owned(), "2 %"),
                (Rule::Higher, _) => ("higher".to_owned(), "2 %"),
                (Rule::Lower, _) => ("lower".to_owned(), "2 %"),
            };
            let interval = ci_low.zip(ci_high);
            row(
                quantity_label(&check.quantity),
                &truth,
                &ratio.map_or_else(|| "-".to_owned(), |ratio| format!("x{ratio:.3}")),
                &interval.map_or_else(
                    || "none".to_owned(),
                    |(low, high)| format!("{low:.3}-{high:.3}"),
                ),
                bound,
                verdict,
            )
        }
        Finding::Warning { shown } => row(
            &check.quantity,
            "warned of",
            if shown { "warned of" } else { "not said" },
            "-",
            "-",
            verdict,
        ),
    }
}

/// What a checked figure is called: a metric's label, or a quantile's name.
#[must_use]
pub fn quantity_label(quantity: &str) -> &str {
    METRICS
        .into_iter()
        .find(|metric| metric.name() == quantity)
        .map_or(quantity, |metric| metric.label())
}

fn row(
    quantity: &str,
    truth: &str,
    shown: &str,
    error: &str,
    bound: &str,
    verdict: &str,
) -> String {
    let line =
        format!("  {quantity:<20}{truth:>12}{shown:>11}{error:>16}{bound:>10}  {verdict:<7}");
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use echometer_host::machine::Facts;

    use super::*;
    use crate::{
        file::selftest::{SCHEMA, Truth},
        text::columns::COLUMNS,
    };

    fn latency(quantity: &str, truth_ns: u64, shown_ns: Option<u64>, bound_ns: u64) -> Check {
        Check {
            quantity: quantity.to_owned(),
            finding: Finding::Latency {
                truth_ns,
                shown_ns,
                bound_ns,
            },
            passed: shown_ns.is_some_and(|shown| shown.abs_diff(truth_ns) <= bound_ns),
        }
    }

    fn told(truth: Truth, client: Engine, checks: Vec<Check>) -> Outcome {
        Outcome {
            truth,
            attempt: 1,
            disturbed: false,
            client: Some(client),
            load: String::new(),
            servers: Vec::new(),
            folders: Vec::new(),
            checks,
            remarks: vec!["noisy: the client waited for its cpu 5 % of the time".to_owned()],
            elapsed_ns: 0,
        }
    }

    fn selftest(truths: Vec<Outcome>) -> Selftest {
        let mut selftest = Selftest {
            schema: SCHEMA.to_owned(),
            started_at: String::new(),
            elapsed_ns: 63_000_000_000,
            cut_short: false,
            passed: false,
            sentence: String::new(),
            quick: false,
            machine: Facts::read(),
            doctor: Vec::new(),
            server_cpus: "0".parse().expect("a list"),
            client_cpus: "1".parse().expect("a list"),
            command: String::new(),
            truths,
        };
        selftest.sentence = sentence(&selftest);
        selftest
    }

    #[test]
    fn the_report_reads_like_this() {
        let ratio =
            |quantity: &str, rule, truth: Option<f64>, interval: Option<(f64, f64)>| Check {
                quantity: quantity.to_owned(),
                finding: Finding::Ratio {
                    rule,
                    truth_low: truth,
                    truth_high: truth.map(|truth| truth + 0.002),
                    ratio: interval.map(|(low, _)| low + 0.001),
                    ci_low: interval.map(|(low, _)| low),
                    ci_high: interval.map(|(_, high)| high),
                },
                passed: interval.is_some(),
            };
        let selftest = selftest(vec![
            told(
                Truth::Fixed,
                Engine::Uring,
                vec![latency("p50", 1_012_000, Some(1_014_000), 50_600)],
            ),
            told(
                Truth::Freeze,
                Engine::Epoll,
                vec![
                    latency("p85", 15_000, Some(12_000), 200_000),
                    latency("p99", 180_000_000, Some(390_000), 3_600_000),
                    latency("p99.9", 198_000_000, None, 3_960_000),
                ],
            ),
            told(
                Truth::Omission,
                Engine::Uring,
                vec![Check {
                    quantity: "coordinated omission".to_owned(),
                    finding: Finding::Warning { shown: true },
                    passed: true,
                }],
            ),
            told(
                Truth::Ratio,
                Engine::Uring,
                vec![ratio(
                    "latency_p50",
                    Rule::HoldsTruth,
                    Some(1.093),
                    Some((1.092, 1.096)),
                )],
            ),
            told(
                Truth::Busy,
                Engine::Uring,
                vec![
                    ratio(
                        "server_cpu_per_message",
                        Rule::Higher,
                        None,
                        Some((5.2, 5.3)),
                    ),
                    ratio("rate", Rule::Lower, None, None),
                ],
            ),
        ]);
        let text = text(&selftest);
        let (_, below) = text
            .split_once("\n\n")
            .expect("a blank line below the heading");
        let expected = r"
                             truth      shown error, interval     bound  verdict
each echo 1 ms late, uring client
  p50                      1.01 ms    1.01 ms          +0.2 %       5 %  pass
frozen 200 ms every 2 s, epoll client
  p85                      15.0 us    12.0 us        -3.00 us    200 us  pass
  p99                       180 ms     390 us         -99.8 %       2 %  FAIL
  p99.9                     198 ms    too few               -       2 %  FAIL
    note: noisy: the client waited for its cpu 5 % of the time
frozen 200 ms every 2 s, closed loop, uring client
  coordinated omission   warned of  warned of               -         -  pass
1.1 ms late against 1 ms late, uring client
  latency p50         x1.093-1.095     x1.093     1.092-1.096  holds it  pass
busy 20 us per message against not, uring client
  server CPU/message        higher     x5.201     5.200-5.300       2 %  pass
  rate                       lower          -            none       2 %  FAIL
";
        assert!(below.starts_with(&expected[1..]), "{below}");
        assert!(
            text.lines().all(|line| line.chars().count() <= COLUMNS),
            "{text}"
        );
    }

    #[test]
    fn the_sentence_says_what_to_do() {
        let good = told(
            Truth::Fixed,
            Engine::Uring,
            vec![latency("p50", 100, Some(100), 1)],
        );
        let passed = selftest(vec![good.clone()]);
        assert!(
            passed
                .sentence
                .starts_with("PASS: the instrument tells the truth"),
            "{}",
            passed.sentence
        );
        assert!(
            passed.sentence.contains("1 of 1") && passed.sentence.contains("63s"),
            "{}",
            passed.sentence
        );
        let bad = told(
            Truth::Freeze,
            Engine::Uring,
            vec![latency("p99", 100, Some(102), 1)],
        );
        let failed = selftest(vec![good, bad]);
        assert!(
            failed.sentence.contains("Not shown: frozen 200 ms")
                && failed.sentence.contains("--server-cpus"),
            "{}",
            failed.sentence
        );
        // Looked at again, it passes.
        let mut again = told(
            Truth::Freeze,
            Engine::Uring,
            vec![latency("p99", 100, Some(100), 1)],
        );
        again.attempt = 2;
        let mut repeated = failed.truths.clone();
        repeated.push(again);
        let repeated = selftest(repeated);
        assert!(
            repeated.sentence.starts_with("PASS")
                && repeated.sentence.contains("2 of 2 figures")
                && repeated.sentence.contains("one truth was missed"),
            "{}",
            repeated.sentence
        );
        assert!(text(&repeated).contains("frozen 200 ms every 2 s, uring client, attempt 2\n"));
        assert_eq!(selftest(Vec::new()).sentence, "Nothing was checked.");
        // A part of it that passes proves nothing, and one that fails has failed.
        let mut cut = passed;
        cut.cut_short = true;
        let said = sentence(&cut);
        assert!(
            said.starts_with("Cut short. Nothing is proven: only 1 truth was looked at")
                && !said.contains("PASS"),
            "{said}"
        );
        let mut cut = failed;
        cut.cut_short = true;
        assert!(sentence(&cut).starts_with("Cut short. FAIL"));
    }
}
