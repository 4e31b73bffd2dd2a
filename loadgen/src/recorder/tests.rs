//! The recorder's tests: what is a member of the window, and what is censored, clipped, summed and handed over.

use std::time::Duration;

use super::*;
use crate::segment::Shape;

const WINDOW: Window = Window {
    from_ns: 1_000,
    until_ns: 2_000,
};

const OPEN: Shape = Shape {
    open: true,
    dials: false,
    stamped: false,
};

fn recorder(membership: Membership, open: bool) -> Recorder {
    Recorder::new(
        Cuts::new(WINDOW, None),
        membership,
        Box::new(Segment::new(Shape {
            open,
            ..Shape::default()
        })),
    )
}

fn never(_: &mut Box<Segment>) {
    panic!("one segment has no cut");
}

fn message(due_ns: u64, written_ns: u64) -> Message {
    Message { due_ns, written_ns }
}

#[test]
fn a_run_counts_what_was_due_in_the_window() {
    let mut recorder = recorder(Membership::ByStart, true);
    for (due_ns, reply_ns) in [(999, 1_500), (1_000, 1_100), (1_999, 5_000), (2_000, 5_000)] {
        recorder.begin_turn(reply_ns, reply_ns, 1, never);
        recorder.written(Written {
            due_ns,
            queue_ns: 3,
            send_lag_ns: 4,
        });
        recorder.answered(message(due_ns, due_ns + 7), reply_ns, None);
    }
    let segment = recorder.finish();
    assert_eq!((segment.sent, segment.answered, segment.replies), (2, 2, 2));
    assert_eq!((segment.latency.min(), segment.latency.max()), (100, 3_001));
    let open = segment.open.expect("an open loop");
    assert_eq!(open.service.min(), 93);
    assert_eq!((open.queue.max(), open.send_lag.max()), (3, 4));
}

#[test]
fn the_least_service_time_ends_with_the_last_look_that_did_not_find_the_reply() {
    let least = |written_ns, looked_ns, waited_from_ns, reply_ns, lag_ns| {
        let mut recorder = recorder(Membership::ByStart, true);
        recorder.begin_turn(looked_ns, looked_ns, 1, never);
        recorder.begin_turn(reply_ns, waited_from_ns, 1, never);
        recorder.answered(message(1_000, written_ns), reply_ns, lag_ns);
        let open = recorder.finish().open.expect("an open loop");
        assert_eq!(open.service.max(), reply_ns - written_ns);
        open.service_least.max()
    };
    // A worker that spins: the look before last was at 1,400.
    assert_eq!(least(1_100, 1_400, 1_500, 1_500, None), 300);
    // It was written after that look, so it may have been there at once.
    assert_eq!(least(1_450, 1_400, 1_500, 1_500, None), 0);
    // A worker that slept from 1,410 on was woken: only the 10 before may have been lost.
    assert_eq!(least(1_100, 1_400, 1_410, 1_500, None), 390);
    // The kernel knows better.
    assert_eq!(least(1_100, 1_400, 1_500, 1_500, Some(30)), 370);
}

#[test]
fn a_slice_counts_what_was_answered_in_the_window() {
    let mut recorder = recorder(Membership::ByReply, false);
    for (written_ns, reply_ns) in [(500, 999), (900, 1_000), (1_500, 1_999), (1_500, 2_000)] {
        recorder.begin_turn(reply_ns, reply_ns, 1, never);
        recorder.answered(message(written_ns, written_ns), reply_ns, None);
    }
    let segment = recorder.finish();
    assert_eq!((segment.answered, segment.replies), (2, 2));
    assert_eq!((segment.latency.min(), segment.latency.max()), (100, 499));
    assert_eq!(segment.service().0, &segment.latency);
}

#[test]
fn who_is_not_answered_is_censored_and_who_is_too_late_clipped() {
    let mut recorder = recorder(Membership::ByStart, true);
    recorder.begin_turn(1_500, 1_500, 0, never);
    recorder.unanswered(message(1_100, 1_200), false, 1_500);
    recorder.unanswered(message(1_100, 1_100), true, VALUE_NS_MAX + 1_101);
    recorder.unsent(1_300, 1_500);
    recorder.unsent(500, 1_500);
    let segment = recorder.finish();
    assert_eq!(
        (
            segment.lost,
            segment.outstanding,
            segment.unsent,
            segment.clipped
        ),
        (1, 1, 1, 2)
    );
    assert_eq!(
        (segment.censored_from_ns, segment.service().1),
        (Some(200), Some(300))
    );
    assert_eq!(segment.latency.len(), 3);
}

#[test]
fn messages_that_are_alike_are_recorded_as_one_by_one() {
    let window = Window {
        from_ns: 5_000_000,
        until_ns: 20_000_000,
    };
    // Soon after the last was due; and so late that the first are clipped.
    for now_ns in [20_000_100, VALUE_NS_MAX + 10_000_000] {
        let new = || {
            let segment = Box::new(Segment::new(OPEN));
            Recorder::new(Cuts::new(window, None), Membership::ByStart, segment)
        };
        let (mut each, mut alike) = (new(), new());
        for due_ns in (0..20_000_000).step_by(100) {
            each.unsent(due_ns, now_ns);
        }
        let (mut due_ns, mut steps) = (0, 0);
        while due_ns < 20_000_000 {
            let end_ns = alike.alike_until(due_ns, now_ns).min(20_000_000);
            assert!(due_ns < end_ns);
            let count = (due_ns..end_ns).filter(|at_ns| at_ns % 100 == 0).count() as u64;
            if count != 0 {
                alike.unsent_alike(due_ns, now_ns, count);
            }
            (due_ns, steps) = (end_ns, steps + 1);
        }
        assert!(steps < 30_000, "{steps}");
        let (each, alike) = (each.finish(), alike.finish());
        assert_eq!((each.unsent, alike.unsent), (150_000, 150_000));
        assert_eq!(each.clipped, alike.clipped);
        assert_eq!(each.latency, alike.latency);
        let same = |segment: &Segment| {
            let from_ns = segment.censored_from_ns.expect("all are censored");
            segment.latency.lowest_equivalent(from_ns.min(VALUE_NS_MAX))
        };
        assert_eq!(same(&each), same(&alike));
    }
}

#[test]
fn gaps_without_replies_are_cut_to_the_window() {
    let mut recorder = recorder(Membership::ByStart, false);
    for (reply_ns, replies) in [(900, 1), (1_300, 2), (1_400, 0), (1_500, 1), (5_000, 1)] {
        recorder.begin_turn(reply_ns, reply_ns, 0, never);
        recorder.end_turn(replies, reply_ns);
    }
    let gaps: Vec<u64> = recorder
        .finish()
        .gaps
        .iter_recorded()
        .flat_map(|step| vec![step.value_iterated_to(); step.count_at_value() as usize])
        .collect();
    // 1,000-1,300, 1,300-1,500, 1,500-2,000, each to two digits.
    assert_eq!(gaps.len(), 3);
    for (gap, expected) in gaps.into_iter().zip([200u64, 300, 500]) {
        assert!(
            gap.abs_diff(expected) <= expected / 100,
            "{gap} for {expected}"
        );
    }
}

#[test]
fn unanswered_messages_are_summed_over_the_window() {
    let mut recorder = recorder(Membership::ByStart, true);
    for (now_ns, unanswered) in [(500, 100), (1_500, 4), (1_600, 10), (3_000, 1)] {
        recorder.begin_turn(now_ns, now_ns, unanswered, never);
    }
    assert_eq!(recorder.finish().unanswered_ns, 500 * 4 + 100 * 10 + 400);
}

#[test]
fn segments_are_handed_over_where_intervals_and_thirds_end() {
    let window = Window {
        from_ns: 0,
        until_ns: 3_000,
    };
    let cuts = Cuts::new(window, Some(Duration::from_nanos(1_500)));
    assert_eq!(cuts.segments(), 4);
    assert_eq!(
        (0..4)
            .map(|index| cuts.interval_of(index))
            .collect::<Vec<_>>(),
        [0, 0, 1, 1]
    );
    assert_eq!(
        (0..4).map(|index| cuts.third_of(index)).collect::<Vec<_>>(),
        [0, 1, 1, 2]
    );
    let mut recorder = Recorder::new(cuts, Membership::ByStart, Box::new(Segment::new(OPEN)));
    let mut full = Vec::new();
    for now_ns in [10, 990, 1_000, 2_600, 2_999, 9_000] {
        recorder.begin_turn(now_ns, now_ns, 0, |segment| {
            full.push(std::mem::replace(segment, Box::new(Segment::new(OPEN))));
        });
        recorder.answered(message(0, 0), now_ns, None);
    }
    full.push(recorder.finish());
    let seen: Vec<_> = full
        .iter()
        .map(|segment| (segment.index, segment.answered, segment.replies))
        .collect();
    assert_eq!(seen, [(0, 2, 2), (1, 1, 1), (2, 0, 0), (3, 3, 2)]);
}
