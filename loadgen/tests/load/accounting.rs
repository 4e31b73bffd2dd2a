//! Every message is accounted for, whatever the load: the client's counts agree among themselves and with the server's.

use std::time::{Duration, Instant};

use echometer_host::signals::Stop;
use echometer_loadgen::{
    Fleet, Phase, Plan, Tally,
    plan::{Arrivals, Engine, Load, Wait},
};

use crate::{
    for_each_engine,
    support::{Server, drive, plan, run_of, slice_of},
};

for_each_engine! {
    fn closed_loop_counts_agree_with_the_server;
    fn open_loop_sends_what_is_due;
    fn pipelined_and_large_messages_come_back_whole;
    fn sessions_take_turns;
    fn spinning_and_several_workers;
    fn intervals_add_up;
    fn a_stop_amid_slow_answers_ends_the_series_there;
    fn a_rate_that_nobody_can_deliver_is_counted_and_ends_in_time;
}

fn agree(tally: &Tally) {
    assert_eq!(tally.sent, tally.messages + tally.lost + tally.outstanding);
    let window = tally.window;
    assert_eq!(
        window.sent,
        window.answered + window.lost + window.outstanding
    );
    assert_eq!(tally.latency.len(), window.answered + window.censored());
    assert_eq!((tally.errors.total(), tally.mismatch), (0, None));
}

fn closed_loop_counts_agree_with_the_server(engine: Engine) {
    let server = Server::start("none");
    let tally = drive(&plan(engine), &server.target(), &run_of(20, 200));
    agree(&tally);
    assert!(
        0 < tally.recorded && tally.recorded < tally.messages,
        "the warm-up is not recorded"
    );
    assert_eq!(
        (tally.lost, tally.outstanding, tally.window.unsent),
        (0, 0, 0)
    );
    assert_eq!(tally.life_sent_bytes, tally.sent * 64);
    assert_eq!(tally.service().0, &tally.latency);
    assert!(
        tally.open.is_none(),
        "nothing queues or lags in closed loop"
    );
    let cpu_ns = tally
        .client_cpu_ns
        .expect("a worker that blocks has nothing to take off");
    assert!(0 < cpu_ns && 0.0 < tally.busiest_thread);
    let stats = server.finish();
    assert_eq!(stats.total.bytes_in, tally.life_sent_bytes);
    assert_eq!(stats.total.bytes_out, tally.life_received_bytes);
}

fn open_loop_sends_what_is_due(engine: Engine) {
    for arrivals in [Arrivals::Uniform, Arrivals::Poisson] {
        let server = Server::start("none");
        let load = Load::Open {
            rate_per_s: 5_000.0,
            arrivals,
        };
        let plan = Plan {
            load,
            pipeline: 1_024,
            ..plan(engine)
        };
        let tally = drive(&plan, &server.target(), &run_of(100, 500));
        agree(&tally);
        // Uniform: one each 200 us from 0 on, 2,000 of them due in [100, 500) ms.
        match arrivals {
            Arrivals::Uniform => assert_eq!((tally.sent, tally.window.sent), (2_500, 2_000)),
            Arrivals::Poisson => assert!(
                (1_800..2_200).contains(&tally.window.sent),
                "{}",
                tally.window.sent
            ),
        }
        assert_eq!(tally.window.answered, tally.window.sent);
        let open = tally.open.as_ref().expect("an open loop");
        assert_eq!(open.queue.len(), tally.window.sent);
        // Latency = queue + send lag + service, message by message, so also on average (three digits each).
        let parts = open.queue.mean() + open.send_lag.mean() + open.service.mean();
        assert!(
            (tally.latency.mean() / parts - 1.0).abs() < 0.01,
            "{} of {parts}",
            tally.latency.mean()
        );
        assert_eq!(server.finish().total.bytes_in, tally.life_sent_bytes);
    }
}

fn a_rate_that_nobody_can_deliver_is_counted_and_ends_in_time(engine: Engine) {
    let server = Server::start("none");
    let plan = Plan {
        load: Load::Open {
            rate_per_s: 1e9,
            arrivals: Arrivals::Uniform,
        },
        ..plan(engine)
    };
    let phase = Phase {
        greeting: Duration::ZERO,
        give_up_after: Duration::from_millis(50),
        ..run_of(0, 1_000)
    };
    let begun = Instant::now();
    let tally = drive(&plan, &server.target(), &phase);
    // Going through them one by one takes minutes here.
    assert!(begun.elapsed() < Duration::from_secs(60));
    agree(&tally);
    let window = tally.window;
    assert_eq!(window.sent + window.unsent, 1_000_000_000);
    assert!(window.answered < window.unsent);
}

fn pipelined_and_large_messages_come_back_whole(engine: Engine) {
    for (message_size, pipeline) in [(1, 1_000), (64, 16), (4_093, 3), (100_000, 7), (3 << 20, 2)] {
        let server = Server::start("none");
        let plan = Plan {
            connections: 3,
            message_size,
            pipeline,
            verify: true,
            ..plan(engine)
        };
        let tally = drive(&plan, &server.target(), &run_of(0, 100));
        agree(&tally);
        assert!(
            0 < tally.messages && tally.outstanding == 0,
            "{message_size} x {pipeline}"
        );
        assert_eq!(
            tally.life_received_bytes,
            tally.messages * u64::from(message_size)
        );
        assert_eq!(server.finish().total.bytes_in, tally.life_sent_bytes);
    }
}

fn sessions_take_turns(engine: Engine) {
    let servers = [Server::start("none"), Server::start("none")];
    let mut fleet = Fleet::start(&Plan {
        verify: true,
        ..plan(engine)
    })
    .unwrap();
    let sessions = servers
        .each_ref()
        .map(|server| fleet.open(&server.target()).unwrap());
    let (mut sent, mut recorded, mut messages) = ([0, 0], 0, 0);
    for turn in 0..20 {
        let arm = turn % 2;
        let tally = fleet.drive(sessions[arm], &slice_of(2, 15)).unwrap();
        agree_of_a_slice(&tally);
        recorded += tally.recorded;
        messages += tally.messages;
        sent[arm] = tally.life_sent_bytes;
        assert_eq!(
            tally.life_sent_bytes, tally.life_received_bytes,
            "a slice ends drained"
        );
    }
    // Over all of them, because a starved machine may leave a single slice without one or the other.
    assert!(
        0 < recorded && recorded < messages,
        "ramp and drain are left out"
    );
    assert_eq!(fleet.connect_ns(sessions[0]).unwrap().len(), 8);
    sessions
        .into_iter()
        .for_each(|session| fleet.close(session));
    assert!(
        fleet.drive(sessions[0], &slice_of(1, 2)).is_err(),
        "a closed session can't be driven"
    );
    for (server, sent) in servers.into_iter().zip(sent) {
        assert_eq!(server.finish().total.bytes_in, sent);
    }
}

fn agree_of_a_slice(tally: &Tally) {
    assert_eq!(tally.sent, tally.messages + tally.lost + tally.outstanding);
    assert_eq!(
        (tally.recorded, tally.recorded),
        (tally.replies, tally.latency.len())
    );
    assert_eq!(
        tally.recorded_span_ns,
        Duration::from_millis(13).as_nanos() as u64
    );
}

fn spinning_and_several_workers(engine: Engine) {
    let server = Server::start("none");
    let load = Load::Open {
        rate_per_s: 2_000.0,
        arrivals: Arrivals::Uniform,
    };
    let plan = Plan {
        load,
        pipeline: 16,
        wait: Wait::Spin,
        workers: vec![None, None],
        connections: 5,
        ..plan(engine)
    };
    let tally = drive(&plan, &server.target(), &run_of(50, 250));
    agree(&tally);
    assert_eq!(
        (tally.sent, tally.window.sent, tally.outstanding),
        (500, 400, 0)
    );
    assert!(tally.busiest_thread < 1.0, "empty turns are not work");
    assert_eq!(server.finish().total.bytes_in, tally.life_sent_bytes);
}

fn intervals_add_up(engine: Engine) {
    let server = Server::start("none");
    let plan = Plan {
        workers: vec![None, None],
        ..plan(engine)
    };
    let mut fleet = Fleet::start(&plan).unwrap();
    let session = fleet.open(&server.target()).unwrap();
    let (mut next, mut latency, mut counts) =
        (0, echometer_loadgen::recorder::histogram(), (0, 0, 0));
    let tally = fleet
        .drive_watched(session, &run_of(20, 240), &mut |interval| {
            assert_eq!(interval.index, next);
            next += 1;
            latency.add(&interval.segment.latency).unwrap();
            let segment = interval.segment;
            counts = (
                counts.0 + segment.sent,
                counts.1 + segment.answered,
                counts.2 + segment.replies,
            );
        })
        .unwrap();
    assert_eq!(next, 5, "220 ms in intervals of 50 ms");
    assert_eq!(latency, tally.latency);
    assert_eq!(
        counts,
        (tally.window.sent, tally.window.answered, tally.replies)
    );
    let thirds = tally.thirds.expect("a run of intervals has thirds");
    assert_eq!(
        thirds.iter().map(|third| third.answered).sum::<u64>(),
        tally.window.answered
    );
    // Closed loop: as many messages under way as connections, less what is being handled.
    assert!(
        thirds.iter().all(|third| third.unanswered_mean < 8.01),
        "{thirds:?}"
    );
}

fn a_stop_amid_slow_answers_ends_the_series_there(engine: Engine) {
    let server = Server::start("fixed:300ms");
    let plan = Plan {
        workers: vec![None, None],
        ..plan(engine)
    };
    let mut fleet = Fleet::start(&plan).unwrap();
    let stop = Stop::new().unwrap();
    fleet.stop_on(stop.clone());
    let session = fleet.open(&server.target()).unwrap();
    let (mut windows, mut latency, mut counts) =
        (Vec::new(), echometer_loadgen::recorder::histogram(), (0, 0));
    // The answers to what is under way when the load stops come some intervals later.
    let tally = fleet
        .drive_watched(session, &run_of(0, 20_000), &mut |interval| {
            let segment = interval.segment;
            if 0 < segment.answered {
                stop.request();
            }
            windows.push(interval.window);
            latency.add(&segment.latency).unwrap();
            counts = (counts.0 + segment.sent, counts.1 + segment.answered);
        })
        .unwrap();
    agree(&tally);
    assert!(tally.stopped_early && tally.outstanding == 0);
    assert!(
        windows
            .iter()
            .all(|window| window.from_ns <= window.until_ns)
    );
    assert!(
        windows
            .windows(2)
            .all(|pair| pair[0].until_ns == pair[1].from_ns)
    );
    let (first, last) = (windows[0], windows[windows.len() - 1]);
    assert_eq!(last.until_ns - first.from_ns, tally.recorded_span_ns);
    assert_eq!(latency, tally.latency);
    assert_eq!(counts, (tally.window.sent, tally.window.answered));
}
