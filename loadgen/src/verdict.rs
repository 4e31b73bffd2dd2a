//! The verdict: can this run be believed? Rules over the run's own figures, each with a reason that a person can act
//! on. Pure: figures in, words out.

use serde::{Deserialize, Serialize};

use crate::{
    failure::Failure,
    file::quantile,
    tally::{Tally, Third},
};
use echometer_host::units::{show_count, show_ns};

/// Whether a run can be believed, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The gravest of the reasons, or valid.
    pub status: Status,
    /// Why it is not valid; empty if it is.
    pub reasons: Vec<String>,
    /// What a reader should know of a valid run, too.
    pub warnings: Vec<String>,
}

impl Verdict {
    /// Takes reasons from the machine for not believing the run; none changes nothing.
    pub fn object(&mut self, reasons: Vec<String>) {
        if !reasons.is_empty() {
            self.status = self.status.min(Status::Noisy);
            self.reasons.extend(reasons);
        }
    }
}

/// What is wrong with a run, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Connections failed, or messages were lost.
    Errors,
    /// The client was the bottleneck, or late.
    ClientBound,
    /// The server did not keep up with what was due.
    Overloaded,
    /// The machine was not ours alone.
    Noisy,
    /// The run's end doesn't look like its beginning.
    Unsteady,
    /// None of these.
    Valid,
}

impl Status {
    /// Its name in files and in the report: `client-bound`.
    pub fn name(self) -> &'static str {
        match self {
            Status::Errors => "errors",
            Status::ClientBound => "client-bound",
            Status::Overloaded => "overloaded",
            Status::Noisy => "noisy",
            Status::Unsteady => "unsteady",
            Status::Valid => "valid",
        }
    }
}

/// What the rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The run's figures.
    pub tally: &'a Tally,
    /// Open loop: messages were due.
    pub open: bool,
    /// Share of the client's cpus' time that the hypervisor gave to others, if known.
    pub steal_ratio: Option<f64>,
    /// The client fell back to another engine, and why.
    pub fallback: Option<&'a str>,
}

/// Above this share of the window the client's busiest thread bounds an open loop.
const BUSY_MAX: f64 = 0.90;
/// The least share of what was due that must have been answered.
const ACHIEVED_MIN: f64 = 0.99;
/// The most of the latency's p99 that the send lag's may be.
const LAG_SHARE_MAX: f64 = 0.10;
/// The most of the window that the hypervisor or other threads may take from a client thread.
const NOISE_MAX: f64 = 0.01;
/// The most by which the median may change from the first third to the last.
const DRIFT_MAX: f64 = 0.05;
/// The most by which the number of unanswered messages may grow from the first third to the last, as a share of the
/// messages answered in a third: an overload by half a percent makes it grow that much.
const GROWTH_MAX: f64 = 0.01;
/// A gap counts as an omission if it is longer than so many times the p99.
const GAP_P99S: u64 = 10;
/// The most of the window that such gaps may take in closed loop.
const GAPS_MAX: f64 = 0.01;

/// Judges a run.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let mut reasons: Vec<(Status, String)> = Vec::new();
    let rules = [
        errors,
        client_bound,
        overloaded,
        noisy,
        unsteady,
        unanswered,
    ];
    rules.iter().for_each(|rule| rule(evidence, &mut reasons));
    reasons.sort_by_key(|(status, _)| *status);
    let status = reasons.first().map_or(Status::Valid, |(status, _)| *status);
    let reasons = reasons.into_iter().map(|(_, reason)| reason).collect();
    Verdict {
        status,
        reasons,
        warnings: warnings(evidence),
    }
}

fn errors(evidence: &Evidence<'_>, reasons: &mut Vec<(Status, String)>) {
    let tally = evidence.tally;
    let mut say = |reason| reasons.push((Status::Errors, reason));
    if let Some(difference) = tally.mismatch {
        say(format!("what came back is not what was sent: {difference}"));
    }
    if tally.errors.total() != 0 {
        let kinds: Vec<String> = tally
            .errors
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        let (failed, kinds) = (
            counted(tally.errors.total(), "connection"),
            kinds.join(", "),
        );
        let lost = counted(tally.lost, "message");
        let mut cures = tally.errors.iter().filter_map(|(kind, _)| kind.cure());
        let cure = match cures.next() {
            Some(cure) => cure,
            None if tally.connections_alive == 0 => "none is left: did the server die?",
            None => "see the server's log, and its limits on connections and descriptors",
        };
        say(format!("{failed} failed ({kinds}), {lost} lost; {cure}"));
        if tally.errors.of(Failure::Surplus) != 0 {
            say("more came back than was sent: this is no echo server".to_owned());
        }
    }
    // Where something failed, that is why.
    let window = tally.window;
    let nothing = window.sent + window.unsent == 0 && window.answered == 0;
    if nothing && tally.errors.total() == 0 && tally.outstanding == 0 {
        let why = if tally.stopped_early {
            "the run was stopped before that; let it run"
        } else if evidence.open {
            "the run was too short for its rate; raise -d or -R"
        } else if tally.think_ns != 0 {
            "the run was too short for its pauses; raise -d, or lower --think"
        } else {
            "the run was too short; raise -d"
        };
        say(format!("nothing was sent while it was recorded: {why}"));
    }
}

/// Comes last: where a server is plainly overloaded, that is why messages are left unanswered.
fn unanswered(evidence: &Evidence<'_>, reasons: &mut Vec<(Status, String)>) {
    let overloaded = reasons
        .iter()
        .any(|(status, _)| *status == Status::Overloaded);
    if evidence.tally.outstanding != 0 && !(overloaded && evidence.tally.messages != 0) {
        let outstanding = counted(evidence.tally.outstanding, "message");
        let reason = format!(
            "{outstanding} never answered within the time for it: is this an echo server, and alive?"
        );
        reasons.push((Status::Errors, reason));
    }
}

fn client_bound(evidence: &Evidence<'_>, reasons: &mut Vec<(Status, String)>) {
    let tally = evidence.tally;
    let mut say = |reason| reasons.push((Status::ClientBound, reason));
    if !evidence.open {
        return;
    }
    if BUSY_MAX < tally.busiest_thread {
        let busy = tally.busiest_thread * 100.0;
        say(format!(
            "client core {busy:.0} % busy: add --threads (or --cpus), or lower -R"
        ));
    }
    let lag = tally
        .open
        .as_ref()
        .and_then(|open| quantile(&open.send_lag, 0.99));
    if let (Some(lag), Some(latency)) = (lag, quantile(&tally.latency, 0.99))
        && LAG_SHARE_MAX * latency as f64 <= lag as f64
        && lag != 0
    {
        say(format!(
            "the client was late itself: send lag p99 {} of latency p99 {}: give it a core of its own (--cpus), \
             add --threads, or lower -R",
            show_ns(lag),
            show_ns(latency),
        ));
    }
}

fn overloaded(evidence: &Evidence<'_>, reasons: &mut Vec<(Status, String)>) {
    let tally = evidence.tally;
    let mut say = |reason| reasons.push((Status::Overloaded, reason));
    if !evidence.open {
        return;
    }
    // What failed connections took with them is not for lack of speed.
    let due = tally.window.sent + tally.window.unsent - tally.window.lost;
    let achieved = tally.window.answered as f64 / due.max(1) as f64;
    if due != 0 && achieved < ACHIEVED_MIN && tally.connections_alive != 0 {
        let (answered, due, share) = (
            show_count(tally.window.answered),
            show_count(due),
            achieved * 100.0,
        );
        say(format!(
            "only {answered} of {due} messages due were answered ({share:.1} %): lower -R"
        ));
    }
    let Some([first, _, last]) = &tally.thirds else {
        return;
    };
    let growth = last.unanswered_mean - first.unanswered_mean;
    if GROWTH_MAX * last.answered.max(1) as f64 <= growth {
        let (from, to) = (first.unanswered_mean, last.unanswered_mean);
        say(format!(
            "unanswered messages grew from {from:.0} in the first third to {to:.0} in the last: lower -R"
        ));
    }
    // The queue's median is 0 as long as half of all messages find room at once.
    if settled(first)
        && settled(last)
        && first.queue_p50_ns as f64 * (1.0 + DRIFT_MAX) < last.queue_p50_ns as f64
    {
        let (from, to) = (show_ns(first.queue_p50_ns), show_ns(last.queue_p50_ns));
        say(format!(
            "the wait for room grew, p50 {from} in the first third to {to} in the last: lower -R"
        ));
    }
}

fn noisy(evidence: &Evidence<'_>, reasons: &mut Vec<(Status, String)>) {
    let mut say = |reason| reasons.push((Status::Noisy, reason));
    if let Some(steal) = evidence.steal_ratio
        && NOISE_MAX < steal
    {
        let share = steal * 100.0;
        say(format!(
            "the hypervisor took {share:.1} % of the client's time: use a quieter host, or dedicated cpus"
        ));
    }
    let run_delay =
        evidence.tally.run_delay_ns as f64 / evidence.tally.recorded_span_ns.max(1) as f64;
    if NOISE_MAX < run_delay {
        let share = run_delay * 100.0;
        say(format!(
            "a client thread waited {share:.1} % of the window for its cpu: stop what else runs there, or pin it to a \
             cpu of its own (--cpus)"
        ));
    }
}

fn unsteady(evidence: &Evidence<'_>, reasons: &mut Vec<(Status, String)>) {
    let Some([first, _, last]) = &evidence.tally.thirds else {
        return;
    };
    if !settled(first) || !settled(last) || evidence.tally.ramped {
        return;
    }
    let (from, to) = (first.latency_p50_ns as f64, last.latency_p50_ns as f64);
    if DRIFT_MAX < (to - from).abs() / from.max(1.0) {
        let (from, to) = (show_ns(first.latency_p50_ns), show_ns(last.latency_p50_ns));
        reasons.push((
            Status::Unsteady,
            format!("p50 went from {from} in the first third to {to} in the last: warm up longer (-w), or run longer (-d)"),
        ));
    }
}

/// Whether a third has enough messages for a median.
fn settled(third: &Third) -> bool {
    20 <= third.answered
}

fn warnings(evidence: &Evidence<'_>) -> Vec<String> {
    let tally = evidence.tally;
    let mut warnings = Vec::new();
    if !evidence.open {
        warnings.push(
            "closed loop: it sends only when the server has answered, so this is throughput and service time, and no \
             latency under load; for that use -R"
                .to_owned(),
        );
        warnings.extend(coordinated_omission(tally));
    }
    if tally.window.censored() != 0 {
        let censored = counted(tally.window.censored(), "message");
        warnings.push(format!(
            "{censored} without an answer are in the latency at the time that they had waited; where a quantile reaches \
             them it is shown as >= x"
        ));
    }
    if tally.window.clipped != 0 {
        warnings.push(format!(
            "{} over 60 s, held as 60 s",
            counted(tally.window.clipped, "value")
        ));
    }
    if let Some(reason) = evidence.fallback {
        warnings.push(format!("the client uses epoll: {reason}"));
    }
    if cfg!(debug_assertions) {
        warnings.push(
            "this is a debug build: build with --release before you believe a figure".to_owned(),
        );
    }
    warnings
}

/// A closed loop waits with a server that stands still, and so records one slow message where a user would have met
/// many. Such stands show as gaps in which nothing at all came back.
fn coordinated_omission(tally: &Tally) -> Option<String> {
    let p99_ns = quantile(&tally.latency, 0.99)?;
    let mut omitted = (0u64, 0u128, 0u64);
    for step in tally.gaps.iter_recorded() {
        let gap_ns = step.value_iterated_to();
        // Who thinks is silent too.
        if (GAP_P99S * p99_ns).saturating_add(tally.think_ns) < gap_ns {
            let count = step.count_at_value();
            omitted = (
                omitted.0 + count,
                omitted.1 + u128::from(gap_ns) * u128::from(count),
                gap_ns,
            );
        }
    }
    let (count, sum_ns, longest_ns) = omitted;
    let share = sum_ns as f64 / (tally.recorded_span_ns as f64 * tally.workers.max(1) as f64);
    (GAPS_MAX < share).then(|| {
        format!(
            "coordinated omission: {} without any reply (the longest {}) take {:.1} % of the window, and closed loop \
             sent nothing meanwhile: the true p99 is far above the {} shown; use -R",
            counted(count, "gap"),
            show_ns(longest_ns),
            share * 100.0,
            show_ns(p99_ns),
        )
    })
}

fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", show_count(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_not_fit_makes_a_valid_run_noisy_and_a_failed_one_no_better() {
        let verdict = |status| Verdict {
            status,
            reasons: Vec::new(),
            warnings: Vec::new(),
        };
        let mut run = verdict(Status::Valid);
        run.object(Vec::new());
        assert_eq!(run.status, Status::Valid);
        run.object(vec!["the machine is not fit (clocksource: hpet)".into()]);
        assert_eq!((run.status, run.reasons.len()), (Status::Noisy, 1));
        let mut run = verdict(Status::Errors);
        run.object(vec!["x".into()]);
        assert_eq!(run.status, Status::Errors);
    }
    use crate::{
        failure::Failures,
        payload::Difference,
        recorder::{OpenLoop, Segment, Shape, histogram},
        tally::WindowCounts,
    };

    /// Ten seconds at 1,000/s, everything answered after 100 us, nothing wrong.
    fn faultless(open: bool) -> Tally {
        let Segment {
            mut latency,
            mut open,
            gaps,
            ..
        } = Segment::new(Shape {
            open,
            ..Shape::default()
        });
        latency.record_n(100_000, 10_000).unwrap();
        if let Some(OpenLoop {
            service,
            queue,
            send_lag,
            ..
        }) = &mut open
        {
            service.record_n(99_000, 10_000).unwrap();
            queue.record_n(0, 10_000).unwrap();
            send_lag.record_n(1_000, 10_000).unwrap();
        }
        let third = Third {
            answered: 3_333,
            latency_p50_ns: 100_000,
            queue_p50_ns: 0,
            unanswered_mean: 0.1,
        };
        Tally {
            latency,
            open,
            recv_lag: None,
            ramped: false,
            think_ns: 0,
            connects: None,
            life_opened: 10,
            life_reopened: 0,
            recorded: 10_000,
            recorded_span_ns: 10_000_000_000,
            replies: 10_000,
            messages: 12_000,
            sent: 12_000,
            lost: 0,
            outstanding: 0,
            window: WindowCounts {
                sent: 10_000,
                answered: 10_000,
                ..WindowCounts::default()
            },
            errors: Failures::default(),
            mismatch: None,
            connections_alive: 10,
            client_cpu_ns: 100_000_000,
            busiest_thread: 0.1,
            run_delay_ns: 0,
            gaps,
            workers: 1,
            thirds: Some([third; 3]),
            stopped_early: false,
            life_sent_bytes: 640_000,
            life_received_bytes: 640_000,
        }
    }

    fn judged(open: bool, steal: f64, change: impl FnOnce(&mut Tally)) -> Verdict {
        let mut tally = faultless(open);
        change(&mut tally);
        judge(&Evidence {
            tally: &tally,
            open,
            steal_ratio: Some(steal),
            fallback: None,
        })
    }

    fn last(tally: &mut Tally) -> &mut Third {
        &mut tally.thirds.as_mut().unwrap()[2]
    }

    #[test]
    fn a_faultless_run_is_valid() {
        for open in [true, false] {
            let verdict = judged(open, 0.01, |_| {});
            assert_eq!((verdict.status, verdict.reasons), (Status::Valid, vec![]));
        }
    }

    #[test]
    fn each_rule_finds_its_fault_and_says_what_to_do() {
        type Change = fn(&mut Tally);
        let faults: [(Status, &str, Change); 11] = [
            (Status::Errors, "see the server's log", |tally| {
                tally.errors.count(Failure::Reset);
                (tally.lost, tally.messages) = (5, 11_995);
            }),
            (Status::Errors, "did the server die", |tally| {
                tally.errors.count(Failure::ClosedByPeer);
                tally.connections_alive = 0;
            }),
            (Status::Errors, "connection 3, byte 9", |tally| {
                tally.mismatch = Some(Difference {
                    connection: 3,
                    offset: 9,
                    expected: 1,
                    got: 2,
                });
            }),
            (Status::Errors, "echo server, and alive", |tally| {
                tally.outstanding = 1;
            }),
            (Status::ClientBound, "add --threads", |tally| {
                tally.busiest_thread = 0.91;
            }),
            (Status::ClientBound, "send lag p99 10.0 us", |tally| {
                tally
                    .open
                    .as_mut()
                    .unwrap()
                    .send_lag
                    .record_n(10_000, 200)
                    .unwrap();
            }),
            (Status::Overloaded, "lower -R", |tally| {
                tally.window.unsent = 102;
            }),
            (Status::Overloaded, "unanswered messages grew", |tally| {
                last(tally).unanswered_mean = 33.5;
            }),
            (Status::Overloaded, "wait for room grew", |tally| {
                last(tally).queue_p50_ns = 5_000;
            }),
            (Status::Noisy, "pin it", |tally| {
                tally.run_delay_ns = 101_000_000;
            }),
            (Status::Unsteady, "warm up longer", |tally| {
                last(tally).latency_p50_ns = 105_100;
            }),
        ];
        for (status, words, change) in faults {
            let verdict = judged(true, 0.0, change);
            assert_eq!(verdict.status, status, "{verdict:?}");
            assert!(verdict.reasons[0].contains(words), "{verdict:?}");
        }
        let stolen = judged(true, 0.011, |_| {});
        assert_eq!(stolen.status, Status::Noisy);
        assert!(
            stolen.reasons[0].contains("hypervisor took 1.1 %"),
            "{stolen:?}"
        );
    }

    #[test]
    fn a_window_with_nothing_in_it_is_no_valid_run() {
        for (open, think_ns, stopped_early, words) in [
            (true, 0, false, "raise -d or -R"),
            (false, 0, false, "raise -d"),
            (false, 60_000_000_000, false, "lower --think"),
            (false, 0, true, "was stopped"),
        ] {
            // There was a warm-up, with messages.
            let verdict = judged(open, 0.0, |tally| {
                tally.window = WindowCounts::default();
                tally.think_ns = think_ns;
                tally.stopped_early = stopped_early;
            });
            assert_eq!(verdict.status, Status::Errors, "{verdict:?}");
            assert!(verdict.reasons[0].contains(words), "{verdict:?}");
        }
    }

    #[test]
    fn what_lies_on_the_right_side_of_its_bound_is_no_fault() {
        let verdict = judged(true, 0.01, |tally| {
            tally.busiest_thread = 0.90;
            tally.window.unsent = 101;
            tally.run_delay_ns = 100_000_000;
            last(tally).latency_p50_ns = 95_000;
            last(tally).unanswered_mean = 33.3;
        });
        assert_eq!(verdict.status, Status::Valid, "{verdict:?}");
    }

    #[test]
    fn a_closed_loop_can_t_be_overloaded_or_client_bound() {
        let verdict = judged(false, 0.0, |tally| {
            tally.busiest_thread = 1.0;
            last(tally).unanswered_mean = 1_000.0;
        });
        assert_eq!(verdict.status, Status::Valid, "{verdict:?}");
        assert!(verdict.warnings[0].contains("no latency under load"));
        assert!(
            judged(true, 0.0, |_| {})
                .warnings
                .iter()
                .all(|warning| !warning.contains("closed loop"))
        );
    }

    #[test]
    fn the_gravest_reason_comes_first_and_none_is_left_out() {
        let verdict = judged(true, 0.5, |tally| {
            last(tally).latency_p50_ns = 1;
            tally.busiest_thread = 0.99;
            tally.errors.count(Failure::Reset);
        });
        assert_eq!(
            (verdict.status, verdict.reasons.len()),
            (Status::Errors, 4),
            "{verdict:?}"
        );
    }

    #[test]
    fn unanswered_under_overload_is_the_overload_s_fault() {
        let verdict = judged(true, 0.0, |tally| {
            tally.outstanding = 500;
            (tally.window.answered, tally.window.outstanding) = (9_500, 500);
        });
        assert_eq!(
            (verdict.status, verdict.reasons.len()),
            (Status::Overloaded, 1),
            "{verdict:?}"
        );
        let verdict = judged(true, 0.0, |tally| {
            (tally.outstanding, tally.messages) = (12_000, 0);
            (tally.window.answered, tally.window.outstanding) = (0, 10_000);
        });
        assert_eq!(verdict.status, Status::Errors, "{verdict:?}");
    }

    #[test]
    fn a_frozen_server_in_closed_loop_is_warned_of() {
        // Five freezes of 200 ms in 10 s: 10 % of the window; p99 is 100 us.
        let frozen = judged(false, 0.0, |tally| {
            tally.gaps.record_n(90_000, 10_000).unwrap();
            tally.gaps.record_n(200_000_000, 5).unwrap();
        });
        let warning = frozen
            .warnings
            .iter()
            .find(|warning| warning.starts_with("coordinated omission"))
            .unwrap();
        assert!(
            warning.contains("5 gaps") && warning.contains("10.0 %"),
            "{warning}"
        );
        // Nor is thinking an omission.
        let thoughtful = judged(false, 0.0, |tally| {
            tally.think_ns = 200_000_000;
            tally.gaps.record_n(200_000_000, 5).unwrap();
        });
        assert!(
            thoughtful
                .warnings
                .iter()
                .all(|warning| !warning.starts_with("coordinated omission")),
            "{thoughtful:?}"
        );
        // Many short gaps are how a closed loop works, however much of the window they make up.
        let busy = judged(false, 0.0, |tally| {
            tally.gaps.record_n(990_000, 10_000).unwrap();
        });
        assert!(
            busy.warnings
                .iter()
                .all(|warning| !warning.starts_with("coordinated omission"))
        );
    }

    #[test]
    fn what_was_censored_or_clipped_is_said() {
        let verdict = judged(true, 0.0, |tally| {
            (tally.window.unsent, tally.window.clipped) = (3, 1);
        });
        assert!(
            verdict.warnings[0].contains("3 messages without an answer"),
            "{verdict:?}"
        );
        assert!(
            verdict.warnings[1].contains("1 value over 60 s"),
            "{verdict:?}"
        );
    }

    #[test]
    fn a_ramp_is_not_unsteady() {
        let verdict = judged(true, 0.0, |tally| {
            last(tally).latency_p50_ns = 1_000_000;
            tally.ramped = true;
        });
        assert_eq!(verdict.status, Status::Valid, "{verdict:?}");
    }

    #[test]
    fn too_few_messages_for_a_median_are_not_judged_by_it() {
        let verdict = judged(true, 0.0, |tally| {
            for third in tally.thirds.as_mut().unwrap() {
                third.answered = 19;
            }
            last(tally).latency_p50_ns = 1_000_000;
            tally.latency = histogram();
        });
        assert_eq!(verdict.status, Status::Valid, "{verdict:?}");
    }
}
