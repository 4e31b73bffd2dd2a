//! The verdict's tests: each rule finds its fault, and nothing else.

use super::*;

#[test]
fn a_machine_that_is_not_fit_makes_a_valid_run_noisy_and_a_failed_one_no_better() {
    let verdict = |status| RunVerdict {
        status,
        reasons: Vec::new(),
        warnings: Vec::new(),
    };
    let mut run = verdict(RunStatus::Valid);
    run.object(Vec::new());
    assert_eq!(run.status, RunStatus::Valid);
    run.object(vec!["the machine is not fit (clocksource: hpet)".into()]);
    assert_eq!((run.status, run.reasons.len()), (RunStatus::Noisy, 1));
    let mut run = verdict(RunStatus::Errors);
    run.object(vec!["x".into()]);
    assert_eq!(run.status, RunStatus::Errors);
}
use crate::{
    failure::Failures,
    payload::Difference,
    segment::{OpenLoop, Segment, Shape},
    summary::histogram,
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
        service_least,
        ..
    }) = &mut open
    {
        service.record_n(99_000, 10_000).unwrap();
        queue.record_n(0, 10_000).unwrap();
        send_lag.record_n(1_000, 10_000).unwrap();
        service_least.record_n(98_000, 10_000).unwrap();
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
        client_cpu_ns: Some(100_000_000),
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

fn judged(open: bool, steal: f64, change: impl FnOnce(&mut Tally)) -> RunVerdict {
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
        assert_eq!(
            (verdict.status, verdict.reasons),
            (RunStatus::Valid, vec![])
        );
    }
}

#[test]
fn a_client_without_a_connection_is_not_called_busy() {
    let verdict = judged(true, 0.0, |tally| {
        tally.errors.count(Failure::ClosedByPeer);
        (tally.connections_alive, tally.busiest_thread) = (0, 1.0);
    });
    assert_eq!(verdict.reasons.len(), 1, "{:?}", verdict.reasons);
}

#[test]
fn each_rule_finds_its_fault_and_says_what_to_do() {
    type Change = fn(&mut Tally);
    let faults: [(RunStatus, &str, Change); 12] = [
        (RunStatus::Errors, "see the server's log", |tally| {
            tally.errors.count(Failure::Reset);
            (tally.lost, tally.messages) = (5, 11_995);
        }),
        (RunStatus::Errors, "did the server die", |tally| {
            tally.errors.count(Failure::ClosedByPeer);
            tally.connections_alive = 0;
        }),
        (RunStatus::Errors, "connection 3, byte 9", |tally| {
            tally.mismatch = Some(Difference {
                connection: 3,
                offset: 9,
                expected: 1,
                got: 2,
            });
        }),
        (RunStatus::Errors, "echo server, and is it alive", |tally| {
            tally.outstanding = 1;
        }),
        (RunStatus::ClientBound, "add --threads", |tally| {
            tally.busiest_thread = 0.91;
        }),
        (RunStatus::ClientBound, "the client sent late", |tally| {
            // A hundredth and more of the messages was due 100 us before it was written.
            tally.latency.record_n(200_000, 200).unwrap();
            let open = tally.open.as_mut().unwrap();
            open.send_lag.record_n(100_000, 200).unwrap();
        }),
        (RunStatus::ClientBound, "the client looked late", |tally| {
            tally.latency.record_n(200_000, 200).unwrap();
            let open = tally.open.as_mut().unwrap();
            open.service.record_n(199_000, 200).unwrap();
        }),
        (RunStatus::Overloaded, "lower -R", |tally| {
            tally.window.unsent = 102;
        }),
        (RunStatus::Overloaded, "unanswered messages grew", |tally| {
            last(tally).unanswered_mean = 33.5;
        }),
        (
            RunStatus::Overloaded,
            "wait for room on the connections grew",
            |tally| {
                last(tally).queue_p50_ns = 5_000;
            },
        ),
        (RunStatus::Noisy, "pin it", |tally| {
            tally.run_delay_ns = 101_000_000;
        }),
        (RunStatus::Unsteady, "warm up longer", |tally| {
            last(tally).latency_p50_ns = 105_100;
        }),
    ];
    for (status, words, change) in faults {
        let verdict = judged(true, 0.0, change);
        assert_eq!(verdict.status, status, "{verdict:?}");
        assert!(verdict.reasons[0].contains(words), "{verdict:?}");
    }
    let stolen = judged(true, 0.011, |_| {});
    assert_eq!(stolen.status, RunStatus::Noisy);
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
        assert_eq!(verdict.status, RunStatus::Errors, "{verdict:?}");
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
    assert_eq!(verdict.status, RunStatus::Valid, "{verdict:?}");
}

#[test]
fn a_closed_loop_can_t_be_overloaded_or_client_bound() {
    let verdict = judged(false, 0.0, |tally| {
        tally.busiest_thread = 1.0;
        last(tally).unanswered_mean = 1_000.0;
    });
    assert_eq!(verdict.status, RunStatus::Valid, "{verdict:?}");
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
        (RunStatus::Errors, 4),
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
        (RunStatus::Overloaded, 1),
        "{verdict:?}"
    );
    let verdict = judged(true, 0.0, |tally| {
        (tally.outstanding, tally.messages) = (12_000, 0);
        (tally.window.answered, tally.window.outstanding) = (0, 10_000);
    });
    assert_eq!(verdict.status, RunStatus::Errors, "{verdict:?}");
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
        verdict.warnings[1].contains("1 value above 60 s"),
        "{verdict:?}"
    );
}

#[test]
fn a_ramp_is_not_unsteady() {
    let verdict = judged(true, 0.0, |tally| {
        last(tally).latency_p50_ns = 1_000_000;
        tally.ramped = true;
    });
    assert_eq!(verdict.status, RunStatus::Valid, "{verdict:?}");
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
    assert_eq!(verdict.status, RunStatus::Valid, "{verdict:?}");
}
