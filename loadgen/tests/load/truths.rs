//! Servers whose slowness is known: the instrument must show what is true, and say when it can't.

use std::time::Duration;

use echometer_loadgen::{
    Phase, Plan, Tally,
    plan::{Arrivals, Engine, Load},
    verdict::{Evidence, RunStatus, judge},
};

use crate::{
    for_each_engine,
    support::{Server, drive, plan, run_of},
};

for_each_engine! {
    fn a_freeze_shows_in_open_loop;
    fn a_freeze_in_closed_loop_is_warned_of;
    fn a_fixed_delay_is_seen;
    fn an_overload_is_called_one;
}

fn evidence(tally: &Tally, open: bool) -> Evidence<'_> {
    Evidence {
        tally,
        open,
        steal_ratio: Some(0.0),
        fallback: None,
    }
}

/// Frozen 200 ms in each 2 s: a tenth of all messages are due during a freeze and wait for its end, evenly spread over
/// 0 to 200 ms. So p95 is 100 ms, p99 180 ms, and the greatest 200 ms.
fn a_freeze_shows_in_open_loop(engine: Engine) {
    let server = Server::start("freeze:200ms/2s");
    let load = Load::Open {
        rate_per_s: 1_000.0,
        arrivals: Arrivals::Uniform,
    };
    let plan = Plan {
        load,
        connections: 10,
        pipeline: 1_024,
        ..plan(engine)
    };
    let phase = Phase {
        greeting: Duration::ZERO,
        intervals: Some(Duration::from_secs(1)),
        ..run_of(500, 10_500)
    };
    let tally = drive(&plan, &server.target(), &phase);
    assert_eq!(tally.window.answered, 10_000);
    let at = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1e6;
    let near = |shown: f64, truth: f64| (shown / truth - 1.0).abs() < 0.02;
    assert!(near(at(0.99), 180.0), "p99 {} ms", at(0.99));
    assert!(near(at(0.999), 198.0), "p99.9 {} ms", at(0.999));
    assert!(at(0.85) < 20.0, "p85 {} ms", at(0.85));
}

fn a_freeze_in_closed_loop_is_warned_of(engine: Engine) {
    // Frozen a fifth of the time, in pieces that a short run meets.
    let server = Server::start("freeze:40ms/200ms");
    let tally = drive(&plan(engine), &server.target(), &run_of(0, 1_000));
    let verdict = judge(&evidence(&tally, false));
    let warned = verdict
        .warnings
        .iter()
        .any(|warning| warning.starts_with("coordinated omission"));
    assert!(warned, "{:?}", verdict.warnings);
    // And a server that does not freeze is not accused: gaps of 10 x p99 don't add up to a hundredth there. (A machine
    // that is stolen from may freeze it for us; then p99 says so.)
    let server = Server::start("none");
    let tally = drive(&plan(engine), &server.target(), &run_of(0, 1_000));
    let gaps: f64 = tally
        .gaps
        .iter_recorded()
        .filter(|step| 10 * tally.latency.value_at_quantile(0.99) < step.value_iterated_to())
        .map(|step| step.value_iterated_to() as f64 * step.count_at_value() as f64)
        .sum();
    let warned = judge(&evidence(&tally, false))
        .warnings
        .iter()
        .any(|warning| warning.starts_with("coordinated omission"));
    assert_eq!(warned, 0.01 < gaps / tally.recorded_span_ns as f64);
}

fn a_fixed_delay_is_seen(engine: Engine) {
    let load = Load::Open {
        rate_per_s: 1_000.0,
        arrivals: Arrivals::Uniform,
    };
    let plan = Plan {
        load,
        connections: 10,
        pipeline: 1_024,
        ..plan(engine)
    };
    let p50_us = |delay| {
        let server = Server::start(delay);
        drive(&plan, &server.target(), &run_of(100, 1_100))
            .latency
            .value_at_quantile(0.5)
            / 1_000
    };
    // f is what the same load shows without delay; on a busy machine both scatter, so the bounds are wide.
    let (f, delayed) = (p50_us("none"), p50_us("fixed:10ms"));
    assert!(
        (10_000..11_000 + 2 * f).contains(&delayed),
        "{delayed} us, {f} us without delay"
    );
}

/// The two engines on one server whose delays are drawn from the same distribution: what they show is the server's.
#[test]
fn the_engines_agree() {
    const QUANTILES: [f64; 4] = [0.25, 0.5, 0.75, 0.9];
    let server = Server::start("exp:10ms");
    let quantiles_ms = |engine| {
        let plan = Plan {
            load: Load::Open {
                rate_per_s: 1_000.0,
                arrivals: Arrivals::Poisson,
            },
            // A connection has one message at a time on its way, nearly always, so that none waits for another's delay.
            connections: 200,
            pipeline: 1_024,
            ..plan(engine)
        };
        let tally = drive(&plan, &server.target(), &run_of(100, 2_100));
        QUANTILES.map(|quantile| tally.latency.value_at_quantile(quantile) as f64 / 1e6)
    };
    let (uring, epoll) = (quantiles_ms(Engine::Uring), quantiles_ms(Engine::Epoll));
    for (quantile, (uring, epoll)) in QUANTILES.iter().zip(uring.into_iter().zip(epoll)) {
        // Of 2,000 draws these quantiles scatter by 2 to 4 %; a busy machine adds to both, and not the same.
        let apart = (uring - epoll).abs();
        assert!(
            apart < 0.2 * uring.min(epoll) + 2.0,
            "p{}: {uring} ms and {epoll} ms",
            quantile * 100.0
        );
        let truth = -(1.0 - quantile).ln() * 10.0;
        assert!(
            0.8 * truth < uring.min(epoll),
            "below what the server makes: {truth} ms"
        );
    }
}

fn an_overload_is_called_one(engine: Engine) {
    // 500 us of work per message: 2,000/s at the very most, and twice as many are due.
    let server = Server::start("busy:500us");
    let load = Load::Open {
        rate_per_s: 4_000.0,
        arrivals: Arrivals::Poisson,
    };
    // One in flight: pieces of a stream that are read at once are worked on once.
    let plan = Plan {
        load,
        connections: 10,
        pipeline: 1,
        ..plan(engine)
    };
    let tally = drive(&plan, &server.target(), &run_of(100, 700));
    let rate = tally.replies as f64 / tally.recorded_span_ns as f64 * 1e9;
    assert!(rate < 2_100.0, "{rate}/s is more than the server can do");
    let verdict = judge(&evidence(&tally, true));
    assert!(verdict.status <= RunStatus::Overloaded, "{verdict:?}");
    assert!(
        verdict
            .reasons
            .iter()
            .any(|reason| reason.contains("grew") || reason.contains("were answered")),
        "{verdict:?}"
    );
    assert!(
        0 < tally
            .open
            .as_ref()
            .expect("an open loop")
            .queue
            .value_at_quantile(0.5),
        "what can't be sent waits in the queue"
    );
}
