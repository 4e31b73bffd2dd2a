use proptest::prelude::*;

use echometer_loadgen::{OpenLoop, histogram};

use super::*;
use crate::{
    judge::figures::arm_figures,
    measure::{
        block::{Block, Slice},
        sides::{CpuTimes, Stretch},
    },
};

/// What an arm does: its p99, how late the client is in that, how many messages, and whether it keeps up.
#[derive(Clone, Copy)]
struct Did {
    p99_ns: f64,
    late: f64,
    messages: u64,
    overloaded: bool,
}

const USUAL: Did = Did {
    p99_ns: 100_000.0,
    late: 0.0,
    messages: 20_000,
    overloaded: false,
};

fn cell(arm: &str, rate_per_s: f64, did: Did) -> CurveCell {
    let of = |ns: f64| {
        let mut histogram = histogram();
        histogram
            .record_n(ns.max(1.0) as u64, did.messages)
            .expect("in range");
        histogram
    };
    let mut open = OpenLoop::default();
    open.service_least = of(did.p99_ns * (1.0 - did.late));
    open.service = of(did.p99_ns * (1.0 - did.late));
    open.queue = of(0.0);
    open.send_lag = of(did.p99_ns * did.late);
    let overload = if did.overloaded {
        vec!["it grew".to_owned()]
    } else {
        Vec::new()
    };
    let stretch = Stretch {
        latency: of(did.p99_ns),
        open: Some(open),
        overload,
        recorded: did.messages,
        recorded_span_ns: 1_000_000_000,
        messages: did.messages,
        faults: BTreeMap::new(),
        wrong: None,
        client_cpu_ns: None,
        client_busiest: 0.5,
        client_run_delay: 0.0,
    };
    let mut block = Block::new(1);
    block.arms[0].add(&stretch);
    block.arms[0].slices.push(Slice {
        span_ns: 1_000_000_000,
        server_cpu_ns: Some(did.messages * 5_000),
        server_cpus: CpuTimes::default(),
        ..Slice::of(0, &stretch)
    });
    CurveCell {
        arm: arm.to_owned(),
        rate_per_s,
        figures: arm_figures(&block.arms[0], String::new(), 1),
    }
}

/// Blocks of two arms at some rates; `did` says what came of an arm at a rate in a block.
fn answered(rates: &[f64], did: impl Fn(usize, usize, usize) -> Did) -> Vec<CurvePoint> {
    let arms = ["epoll", "uring"].map(str::to_owned);
    let rate = |&per_s: &f64| Rate {
        per_s,
        share: None,
        own: None,
    };
    let terms = Terms {
        arms: arms.to_vec(),
        rates: rates.iter().map(rate).collect(),
        margin: 0.02,
    };
    let block = |index: usize| CurveBlock {
        index,
        valid: true,
        reasons: Vec::new(),
        cells: (0..2)
            .flat_map(|arm| (0..rates.len()).map(move |point| (arm, point)))
            .map(|(arm, point)| cell(&arms[arm], rates[point], did(arm, point, index)))
            .collect(),
    };
    points(&terms, &(1..=6).map(block).collect::<Vec<_>>())
}

/// A little up and down from block to block, apart for each arm.
fn scatter(arm: usize, block: usize) -> f64 {
    1.0 + 0.002 * ((block * 7 + arm * 3) % 5) as f64
}

fn p99<'a>(points: &'a [CurvePoint], place: usize, arm: &str) -> &'a CurveMetric {
    points[place]
        .metric(arm, Metric::LatencyP99)
        .expect("it is there")
}

#[test]
fn a_difference_is_found_at_the_rate_where_it_is() {
    let points = answered(&[1e4, 2e4], |arm, point, block| {
        let slower = if (arm, point) == (1, 1) { 1.5 } else { 1.0 };
        Did {
            p99_ns: 100_000.0 * slower * scatter(arm, block),
            ..USUAL
        }
    });
    let (same, worse) = (p99(&points, 0, "uring"), p99(&points, 1, "uring"));
    assert_eq!(
        (same.verdict, worse.verdict),
        (Some(Verdict::Same), Some(Verdict::Worse))
    );
    assert!(worse.ratio.is_some_and(|ratio| (ratio - 1.5).abs() < 0.02));
    assert_eq!(p99(&points, 1, "epoll").verdict, None, "it is the baseline");
    // 20,000 messages have 20 above p99.9.
    let rare = points[0]
        .metric("uring", Metric::LatencyP99_9)
        .expect("there");
    assert!(rare.value.is_none() && rare.verdict.is_none());
    assert!(
        rare.reason
            .as_ref()
            .is_some_and(|reason| reason.contains("fewer than 100"))
    );
}

#[test]
fn who_is_overloaded_is_shown_and_not_compared() {
    let points = answered(&[1e4, 2e4], |arm, point, block| Did {
        p99_ns: 100_000.0 * scatter(arm, block),
        // In four blocks of six.
        overloaded: (arm, point) == (0, 1) && block <= 4,
        ..USUAL
    });
    assert!(points[0].overloaded.is_empty());
    assert_eq!(points[1].overloaded.keys().collect::<Vec<_>>(), ["epoll"]);
    let beside = p99(&points, 1, "uring");
    assert!(beside.value.is_some() && beside.ratio.is_none() && beside.verdict.is_none());
}

#[test]
fn what_the_client_s_lateness_makes_is_no_verdict() {
    // Half of what uring seems to take is the client's.
    let points = answered(&[1e4], |arm, _, block| Did {
        p99_ns: 100_000.0 * [1.0, 1.3][arm] * scatter(arm, block),
        late: [0.0, 0.5][arm],
        ..USUAL
    });
    let metric = p99(&points, 0, "uring");
    assert_eq!(metric.verdict, Some(Verdict::Undecided));
    assert!(
        metric
            .reason
            .as_ref()
            .is_some_and(|reason| reason.contains("lateness"))
    );
}

#[test]
fn too_few_messages_in_one_block_leave_the_figure_out() {
    let points = answered(&[1e4], |_, _, block| Did {
        messages: if block == 3 { 9_000 } else { 20_000 },
        ..USUAL
    });
    assert_eq!(p99(&points, 0, "epoll").value, None);
    assert!(
        points[0]
            .metric("epoll", Metric::LatencyP50)
            .expect("there")
            .value
            .is_some()
    );
}

proptest! {
    #[test]
    fn the_knee_is_the_last_rate_before_twice_the_least(
        grows in proptest::collection::vec(0.8..1.6_f64, 1..7),
    ) {
        let rates: Vec<f64> = (1..=grows.len()).map(|step| step as f64 * 1e4).collect();
        let p99s: Vec<f64> = grows
            .iter()
            .scan(1e5, |p99, grows| { *p99 *= grows; Some(*p99) })
            .collect();
        let points = answered(&rates, |_, point, _| Did { p99_ns: p99s[point], ..USUAL });
        let knee = &knees(&["epoll".to_owned()], &points)[0];
        // Histograms know a value to a tenth of a percent.
        let over = p99s.iter().position(|p99| 2.004 * p99s[0] < *p99);
        let surely_below = p99s.iter().take_while(|p99| **p99 < 1.996 * p99s[0]).count();
        let place = rates.iter().position(|rate| Some(*rate) == knee.rate_per_s).expect("one");
        prop_assert!(surely_below <= place + 1);
        prop_assert!(over.is_none_or(|over| place < over));
        prop_assert_eq!(knee.at_highest, place + 1 == rates.len());
    }
}

#[test]
fn an_overloaded_rate_is_beyond_the_knee() {
    let points = answered(&[1e4, 2e4, 3e4], |arm, point, _| Did {
        overloaded: (arm, point) == (1, 1),
        ..USUAL
    });
    let knees = knees(&["epoll", "uring"].map(str::to_owned), &points);
    assert_eq!(
        (knees[0].rate_per_s, knees[0].at_highest),
        (Some(3e4), true)
    );
    assert_eq!(
        (knees[1].rate_per_s, knees[1].at_highest),
        (Some(1e4), false)
    );
}

#[test]
fn rates_too_slow_for_p99_come_before_the_knee_is_looked_for() {
    let points = answered(&[1e3, 1e4, 2e4], |_, point, _| Did {
        messages: if point == 0 { 5_000 } else { 20_000 },
        p99_ns: [1e5, 1e5, 3e5][point],
        ..USUAL
    });
    let knee = &knees(&["epoll".to_owned()], &points)[0];
    assert_eq!((knee.rate_per_s, knee.at_highest), (Some(1e4), false));
}
