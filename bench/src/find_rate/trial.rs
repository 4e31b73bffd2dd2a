//! What a run says of a rate: whether the objective was held, and whether the run can be believed.

use echometer_loadgen::verdict::Status;
use echometer_report::file::slo::Slo;

use crate::{measure::sides::WholeRun, search::rungs::Vote};

/// What a run says of a rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trial {
    /// The objectives were held.
    Holds,
    /// It was not, or the server did not keep up at all.
    Fails,
    /// The run can't be believed: which way it would have gone, and why not.
    Invalid {
        /// What its figures say all the same.
        holds: bool,
        /// The client could not make the load: nothing can be said of the server.
        client_bound: bool,
        /// The gravest reason, in a word.
        status: Status,
    },
}

impl Trial {
    /// What it counts for in the search. Noise makes latency worse and not better, so that what holds in spite of it holds;
    /// what the client could not even send says nothing, and is not claimed.
    #[must_use]
    pub(crate) fn vote(&self) -> Vote {
        match self {
            Self::Holds => Vote::Holds,
            Self::Fails => Vote::Fails,
            Self::Invalid {
                client_bound: true, ..
            } => Vote::ClientBound,
            Self::Invalid { holds: true, .. } => Vote::Holds,
            Self::Invalid { .. } => Vote::Fails,
        }
    }
}

/// What a run says.
#[must_use]
pub(crate) fn judge(slos: &[Slo], run: &WholeRun) -> Trial {
    // Unanswered messages are in the histogram, at the time that they had waited.
    let latency = &run.stretch.latency;
    let within = slos.iter().all(|slo| slo.holds(slo.value_ns(latency)));
    let enough = slos.iter().all(|slo| slo.messages_min() <= latency.len());
    match run.judged.verdict.status {
        Status::Valid if enough => match within {
            true => Trial::Holds,
            false => Trial::Fails,
        },
        // Whatever the quantile says, a server that loses messages or falls behind does not hold the rate.
        Status::Errors | Status::Overloaded => Trial::Fails,
        // A late client makes the latency seem higher than it is, and never lower.
        Status::ClientBound if enough && within => Trial::Holds,
        Status::ClientBound if enough && misses_at_least(slos, run) => Trial::Fails,
        status => Trial::Invalid {
            holds: within,
            client_bound: status == Status::ClientBound,
            status,
        },
    }
}

/// Whether an objective is missed even without what the client's own lateness adds.
fn misses_at_least(slos: &[Slo], run: &WholeRun) -> bool {
    run.stretch
        .open
        .as_ref()
        .is_some_and(|open| slos.iter().any(|slo| !slo.holds(slo.least_ns(open))))
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use echometer_loadgen::{OpenLoop, verdict::Verdict};

    use super::*;
    use crate::measure::sides::Judged;
    use crate::measure::sides::Stretch;
    use std::collections::BTreeMap;

    fn slo(text: &str) -> [Slo; 1] {
        [text.parse().expect("a test's objective")]
    }

    fn run(status: Status, latency_ns: u64, count: u64) -> WholeRun {
        let mut latency = Histogram::new(3).expect("digits");
        latency.record_n(latency_ns, count).expect("it grows");
        WholeRun {
            stretch: Stretch {
                latency,
                open: None,
                overload: Vec::new(),
                recorded: count,
                recorded_span_ns: 1,
                messages: count,
                faults: BTreeMap::new(),
                wrong: None,
                client_cpu_ns: None,
                client_busiest: 0.5,
                client_run_delay: 0.0,
            },
            judged: Judged {
                verdict: Verdict {
                    status,
                    reasons: Vec::new(),
                    warnings: Vec::new(),
                },
                offered_per_s: Some(1.0),
                censored_from_ns: None,
            },
            cut_short: false,
        }
    }

    #[test]
    fn valid_runs_are_judged_by_their_quantile() {
        let objective = slo("p99<200us");
        assert_eq!(
            judge(&objective, &run(Status::Valid, 100_000, 10_000)),
            Trial::Holds
        );
        assert_eq!(
            judge(&objective, &run(Status::Valid, 300_000, 10_000)),
            Trial::Fails
        );
        assert!(matches!(
            judge(&objective, &run(Status::Valid, 100_000, 9_999)),
            Trial::Invalid {
                holds: true,
                client_bound: false,
                ..
            }
        ));
    }

    #[test]
    fn of_several_objectives_all_have_to_hold() {
        let both = [slo("p99<200us"), slo("p50<80us")].concat();
        let judged = |latency_ns| judge(&both, &run(Status::Valid, latency_ns, 10_000));
        assert_eq!(judged(70_000), Trial::Holds);
        assert_eq!(judged(100_000), Trial::Fails);
    }

    #[test]
    fn a_server_that_falls_behind_fails_and_a_run_that_is_spoilt_says_nothing() {
        let objective = slo("p99<200us");
        for status in [Status::Overloaded, Status::Errors] {
            assert_eq!(judge(&objective, &run(status, 1_000, 10_000)), Trial::Fails);
        }
        for (status, by_client) in [
            (Status::Noisy, false),
            (Status::Unsteady, false),
            (Status::ClientBound, true),
        ] {
            assert_eq!(
                judge(&objective, &run(status, 300_000, 10_000)),
                Trial::Invalid {
                    holds: false,
                    client_bound: by_client,
                    status
                }
            );
        }
    }

    #[test]
    fn a_late_client_leaves_open_only_what_lies_between_the_two_ends() {
        let objective = slo("p99<200us");
        let late = |latency_ns, least_ns| {
            let mut open = OpenLoop::default();
            open.queue.record_n(0, 10_000).expect("in range");
            open.service_least
                .record_n(least_ns, 10_000)
                .expect("in range");
            let mut run = run(Status::ClientBound, latency_ns, 10_000);
            run.stretch.open = Some(open);
            judge(&objective, &run)
        };
        assert_eq!(late(190_000, 90_000), Trial::Holds);
        assert_eq!(late(300_000, 210_000), Trial::Fails);
        assert!(matches!(
            late(300_000, 150_000),
            Trial::Invalid {
                holds: false,
                client_bound: true,
                ..
            }
        ));
    }
}
