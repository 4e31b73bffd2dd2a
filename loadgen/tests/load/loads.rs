//! What kinds of load there are beside the plain ones: mixed sizes, rates that change, connections that think.

use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use echometer_loadgen::{
    Plan,
    plan::{Arrivals, Engine, Load, Wait},
};

use crate::{
    for_each_engine,
    support::{Server, drive, peer, plan, run_of, target_of},
};

for_each_engine! {
    fn mixed_sizes_come_back_whole;
    fn a_ramp_sends_what_is_due;
    fn who_thinks_sends_less;
    fn a_seed_makes_the_same_load_again;
    fn nobody_takes_the_place_of_who_was_lost_while_it_thought;
    fn what_waits_when_a_closed_loop_ends_is_not_sent;
    fn every_kind_of_address_is_loaded;
}

fn every_kind_of_address_is_loaded(engine: Engine) {
    let folder = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}", folder.path().join("echo").display());
    for address in ["127.0.0.1:0", "[::1]:0", &unix] {
        let server = Server::start_on(address, "none");
        let plan = Plan {
            verify: true,
            ..plan(engine)
        };
        let tally = drive(&plan, &server.target(), &run_of(0, 50));
        assert_eq!(
            (tally.errors.total(), tally.mismatch),
            (0, None),
            "{address}"
        );
        assert_eq!((tally.sent, tally.lost), (tally.messages, 0), "{address}");
        assert_eq!(server.finish().total.bytes_in, tally.life_sent_bytes);
    }
}

fn mixed_sizes_come_back_whole(engine: Engine) {
    for (pipeline, messages_per_connection) in [(1, 0), (9, 0), (4, 3)] {
        let server = Server::start("none");
        let plan = Plan {
            connections: 3,
            message_size: 300_000,
            size_mix: Some("1:50%,64:30%,5000:19%,300000:1%".parse().unwrap()),
            pipeline,
            requests_per_connection: messages_per_connection,
            verify: true,
            ..plan(engine)
        };
        let tally = drive(&plan, &server.target(), &run_of(0, 150));
        assert_eq!((tally.errors.total(), tally.mismatch), (0, None));
        assert_eq!((tally.sent, tally.outstanding), (tally.messages, 0));
        assert_eq!(tally.life_sent_bytes, tally.life_received_bytes);
        assert_eq!(server.finish().total.bytes_in, tally.life_sent_bytes);
        // 3,970 bytes per message on average; a mix and not one size of it.
        let mean = tally.life_sent_bytes as f64 / tally.sent as f64;
        assert!(
            500 < tally.sent && (1_000.0..8_000.0).contains(&mean),
            "{mean}"
        );
    }
}

fn a_ramp_sends_what_is_due(engine: Engine) {
    let server = Server::start("none");
    let plan = Plan {
        load: Load::Open {
            rate_per_s: 1_000.0,
            arrivals: Arrivals::Uniform,
        },
        ramp_to_per_s: Some(5_000.0),
        pipeline: 1_024,
        wait: Wait::Block,
        ..plan(engine)
    };
    let tally = drive(&plan, &server.target(), &run_of(100, 500));
    // 100 in the warm-up at 1,000/s, then 3,000/s on average.
    let within = |count: u64, expected: u64| count.abs_diff(expected) <= 1;
    assert!(within(tally.sent, 1_300), "{}", tally.sent);
    assert!(within(tally.window.sent, 1_200), "{}", tally.window.sent);
    assert!(tally.ramped && tally.window.answered == tally.window.sent);
    let thirds = tally.thirds.unwrap().map(|third| third.answered);
    assert!(thirds[0] * 2 < thirds[2], "{thirds:?}");
}

fn who_thinks_sends_less(engine: Engine) {
    let server = Server::start("none");
    let plan = Plan {
        connections: 4,
        pipeline: 2,
        think: Duration::from_millis(20),
        ..plan(engine)
    };
    let tally = drive(&plan, &server.target(), &run_of(0, 400));
    assert_eq!((tally.errors.total(), tally.outstanding), (0, 0));
    // Eight at once each 20 ms, the first at once: 160, or fewer where the machine was away.
    assert!((24..=160).contains(&tally.sent), "{}", tally.sent);
    assert!(
        tally.latency.value_at_quantile(0.5) < 20_000_000,
        "the pause is no part of the latency"
    );
}

fn nobody_takes_the_place_of_who_was_lost_while_it_thought(engine: Engine) {
    // Of two connections the first has one answer and is closed.
    let accepted = Arc::new(AtomicUsize::new(0));
    let address = peer(move |mut stream| {
        let first = accepted.fetch_add(1, Ordering::Relaxed) == 0;
        let mut buffer = [0; 64];
        while stream.read_exact(&mut buffer).is_ok() && stream.write_all(&buffer).is_ok() {
            if first {
                return;
            }
        }
    });
    let plan = Plan {
        connections: 2,
        think: Duration::from_millis(50),
        ..plan(engine)
    };
    let tally = drive(&plan, &target_of(address), &run_of(0, 600));
    assert_eq!((tally.errors.total(), tally.connections_alive), (1, 1));
    // One of the first's, and one each 50 ms of the other's, the first at once.
    assert!((2..=13).contains(&tally.sent), "{}", tally.sent);
}

fn what_waits_when_a_closed_loop_ends_is_not_sent(engine: Engine) {
    const SIZE: usize = 64 << 10;
    // Slow enough that the most of a thousand messages wait for the socket all the time.
    let address = peer(|mut stream| {
        let mut buffer = vec![0; SIZE];
        while stream.read_exact(&mut buffer).is_ok() && stream.write_all(&buffer).is_ok() {
            thread::sleep(Duration::from_millis(2));
        }
    });
    let plan = Plan {
        connections: 1,
        pipeline: 1_000,
        message_size: SIZE as u32,
        sndbuf: Some(SIZE as u32),
        rcvbuf: Some(SIZE as u32),
        ..plan(engine)
    };
    let tally = drive(&plan, &target_of(address), &run_of(0, 200));
    assert_eq!((tally.errors.total(), tally.outstanding), (0, 0));
    assert!((1..700).contains(&tally.sent), "{}", tally.sent);
}

fn a_seed_makes_the_same_load_again(engine: Engine) {
    let server = Server::start("none");
    let load_of = |seed| {
        let plan = Plan {
            load: Load::Open {
                rate_per_s: 2_000.0,
                arrivals: Arrivals::Poisson,
            },
            size_mix: Some("64:50%,1000:50%".parse().unwrap()),
            message_size: 1_000,
            connections: 5,
            pipeline: 1_024,
            workers: vec![None; 3],
            seed,
            ..plan(engine)
        };
        let tally = drive(&plan, &server.target(), &run_of(100, 400));
        assert_eq!((tally.errors.total(), tally.outstanding), (0, 0));
        (tally.sent, tally.window.sent, tally.life_sent_bytes)
    };
    assert_eq!(load_of(42), load_of(42));
    assert_ne!(load_of(42), load_of(43));
}
