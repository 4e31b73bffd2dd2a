//! Connections that come and go: every one is counted, timed and closed as asked, and the server sees the same number.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use echometer_loadgen::{
    Failure, Fleet, Phase, Plan,
    plan::{Arrivals, Close, Engine, Load, Wait},
    storm::{self, StormPlan},
};

use crate::{
    for_each_engine,
    support::{
        Server, drive, listener_with_backlog, output, peer, plan, run_of, slice_of, target_of,
    },
};

for_each_engine! {
    fn every_connection_carries_its_messages_and_no_more;
    fn an_open_loop_waits_for_its_connections;
    fn sessions_that_churn_take_turns;
    fn a_reset_leaves_nothing_behind;
    fn the_server_may_close_first;
    fn a_server_that_was_to_close_and_does_not_is_a_failure;
    fn dials_are_paced;
    fn sources_are_taken_in_turn;
    fn a_failing_connection_is_made_anew;
    fn a_server_that_goes_is_asked_again_and_the_run_ends;
    fn a_storm_echoes_once_each;
    fn a_full_backlog_shows_as_a_retransmission;
    fn a_storm_on_nobody_is_counted;
    fn a_unix_socket_churns_too;
}

fn churn(engine: Engine, messages: u32) -> Plan {
    Plan {
        requests_per_connection: messages,
        verify: true,
        ..plan(engine)
    }
}

fn every_connection_carries_its_messages_and_no_more(engine: Engine) {
    for (messages, pipeline, message_size) in
        [(1, 1, 64), (3, 1, 64), (10, 4, 1_000), (2, 8, 70_000)]
    {
        let server = Server::start("none");
        let plan = Plan {
            pipeline,
            message_size,
            ..churn(engine, messages)
        };
        let tally = drive(&plan, &server.target(), &run_of(20, 200));
        assert_eq!((tally.errors.total(), tally.mismatch), (0, None));
        assert_eq!((tally.lost, tally.outstanding), (0, 0));
        assert_eq!(tally.sent, tally.messages);
        let connects = tally.connects.as_ref().expect("connections are made");
        assert!(8 < tally.life_opened, "{}", tally.life_opened);
        assert!(tally.sent <= tally.life_opened * u64::from(messages));
        assert!((tally.life_opened - 8) * u64::from(messages) <= tally.sent);
        assert_eq!(tally.life_reopened, 0);
        assert!(connects.connect_ns.len() <= tally.life_opened);
        assert!(connects.first_echo_ns.len() <= connects.connect_ns.len());
        assert!(!connects.first_echo_ns.is_empty());
        // An echo takes longer than the connect that comes before it.
        assert!(connects.connect_ns.min() < connects.first_echo_ns.min());
        let stats = server.finish();
        assert_eq!(stats.total.bytes_in, tally.life_sent_bytes);
        assert_eq!(stats.total.bytes_out, tally.life_received_bytes);
        // One more, that looked whether the server is there.
        assert_eq!(stats.total.accepted, tally.life_opened + 1);
    }
}

fn an_open_loop_waits_for_its_connections(engine: Engine) {
    let server = Server::start("none");
    let load = Load::Open {
        rate_per_s: 2_000.0,
        arrivals: Arrivals::Uniform,
    };
    let plan = Plan {
        load,
        pipeline: 1_024,
        wait: Wait::Block,
        ..churn(engine, 5)
    };
    let tally = drive(&plan, &server.target(), &run_of(100, 500));
    assert_eq!(
        (tally.sent, tally.window.sent, tally.errors.total()),
        (1_000, 800, 0)
    );
    assert_eq!(
        tally.window.answered, 800,
        "what is due is sent, on one life or the next"
    );
    assert!(
        (192..=216).contains(&tally.life_opened),
        "{}",
        tally.life_opened
    );
    let open = tally.open.expect("an open loop");
    let parts = open.queue.mean() + open.send_lag.mean() + open.service.mean();
    assert!((tally.latency.mean() / parts - 1.0).abs() < 0.01);
    assert_eq!(server.finish().total.bytes_in, tally.life_sent_bytes);
}

fn sessions_that_churn_take_turns(engine: Engine) {
    let servers = [Server::start("none"), Server::start("none")];
    for messages in [1, 4] {
        let mut fleet = Fleet::start(&churn(engine, messages)).unwrap();
        let sessions = servers
            .each_ref()
            .map(|server| fleet.open(&server.target()).unwrap());
        let (mut recorded, mut made) = (0, 0);
        for turn in 0..12 {
            let tally = fleet.drive(sessions[turn % 2], &slice_of(2, 15)).unwrap();
            assert_eq!(
                (tally.errors.total(), tally.lost, tally.outstanding),
                (0, 0, 0)
            );
            assert_eq!(tally.life_sent_bytes, tally.life_received_bytes);
            recorded += tally.recorded;
            made += tally.connects.unwrap().connect_ns.len();
        }
        assert!(0 < recorded && 0 < made);
    }
}

fn a_reset_leaves_nothing_behind(engine: Engine) {
    let server = Server::start("none");
    let plan = Plan {
        close: Close::Rst,
        ..churn(engine, 1)
    };
    let tally = drive(&plan, &server.target(), &run_of(0, 100));
    assert_eq!((tally.errors.total(), tally.lost), (0, 0));
    let stats = server.finish();
    // Each of ours was closed by a reset, but for the one that only looked.
    let resets = stats.total.closed.get("reset").copied().unwrap_or(0);
    assert!(
        resets + 9 >= tally.life_opened && 9 < resets,
        "{:?}",
        stats.total.closed
    );
}

fn the_server_may_close_first(engine: Engine) {
    // It answers two messages and closes.
    let address = peer(|mut stream| {
        let mut buffer = [0; 64];
        for _ in 0..2 {
            if stream.read_exact(&mut buffer).is_err() || stream.write_all(&buffer).is_err() {
                return;
            }
        }
    });
    let plan = Plan {
        close: Close::Server,
        ..churn(engine, 2)
    };
    let tally = drive(&plan, &target_of(address), &run_of(0, 150));
    assert_eq!(
        (tally.errors.total(), tally.lost, tally.outstanding),
        (0, 0, 0)
    );
    assert!(8 < tally.life_opened && tally.sent <= 2 * tally.life_opened);
}

fn dials_are_paced(engine: Engine) {
    let server = Server::start("none");
    let plan = Plan {
        connect_rate_per_s: 400.0,
        workers: vec![None, None],
        ..churn(engine, 1)
    };
    let tally = drive(&plan, &server.target(), &run_of(0, 500));
    // 200 in half a second; fewer where the machine was away.
    assert!(
        (20..=202).contains(&tally.life_opened),
        "{}",
        tally.life_opened
    );
    assert_eq!(tally.errors.total(), 0);
}

fn sources_are_taken_in_turn(engine: Engine) {
    let seen: Arc<Mutex<Vec<IpAddr>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let address = peer(move |mut stream| {
        noted.lock().unwrap().push(stream.peer_addr().unwrap().ip());
        let mut buffer = [0; 64];
        while stream.read_exact(&mut buffer).is_ok() && stream.write_all(&buffer).is_ok() {}
    });
    let plan = Plan {
        sources: Some("127.0.0.7-127.0.0.9".parse().unwrap()),
        connections: 2,
        ..churn(engine, 1)
    };
    let tally = drive(&plan, &target_of(address), &run_of(0, 100));
    assert_eq!(tally.errors.total(), 0);
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    seen.dedup();
    let expected: Vec<IpAddr> = (7..10)
        .map(|last| IpAddr::from([127, 0, 0, last]))
        .collect();
    assert_eq!(seen, expected);
}

fn a_failing_connection_is_made_anew(engine: Engine) {
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&accepted);
    let address = peer(move |mut stream| {
        // Closed after ten messages, in the midst of the load.
        counted.fetch_add(1, Ordering::Relaxed);
        let mut buffer = [0; 64];
        for _ in 0..10 {
            if stream.read_exact(&mut buffer).is_err() || stream.write_all(&buffer).is_err() {
                return;
            }
        }
    });
    for load in [
        Load::Closed,
        Load::Open {
            rate_per_s: 1_000.0,
            arrivals: Arrivals::Uniform,
        },
    ] {
        let plan = Plan {
            connections: 3,
            reconnect: true,
            verify: true,
            load,
            ..plan(engine)
        };
        let tally = drive(&plan, &target_of(address), &run_of(0, 300));
        assert_eq!(
            tally.mismatch, None,
            "a new life goes on where the stream is"
        );
        assert_eq!(tally.sent, tally.messages + tally.lost + tally.outstanding);
        assert!(3 < tally.errors.total() && 30 < tally.messages, "{tally:?}");
        assert_eq!(tally.life_opened, 3 + tally.life_reopened);
        assert!(tally.life_reopened <= tally.errors.total());
        assert!(tally.errors.total() <= tally.life_reopened + 3);
        assert!(!tally.stopped_early);
        assert_eq!(
            tally.latency.len(),
            tally.window.answered + tally.window.censored()
        );
    }
    assert!(6 < accepted.load(Ordering::Relaxed));
}

fn a_server_that_goes_is_asked_again_and_the_run_ends(engine: Engine) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = std::thread::spawn(move || {
        // One look, one connection with one message; then nobody listens any more.
        for messages in [0, 1] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 64];
            for _ in 0..messages {
                stream.read_exact(&mut buffer).unwrap();
                stream.write_all(&buffer).unwrap();
            }
        }
    });
    let plan = Plan {
        connections: 1,
        ..churn(engine, 1)
    };
    let begun = Instant::now();
    let tally = drive(&plan, &target_of(address), &run_of(0, 450));
    serve.join().unwrap();
    assert_eq!(tally.messages, 1);
    // Asked again each 100 ms.
    let refused = tally.errors.of(Failure::ConnectRefused) + tally.errors.of(Failure::Reset);
    assert!((1..=6).contains(&refused), "{:?}", tally.errors);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

fn storm_plan(engine: Engine, connects: u32) -> StormPlan {
    StormPlan {
        client: Plan {
            connections: connects,
            ..plan(engine)
        },
        time_limit: Duration::from_secs(10),
    }
}

fn a_storm_echoes_once_each(engine: Engine) {
    for connect_rate_per_s in [0.0, 1_000.0] {
        let server = Server::start("none");
        let mut plan = storm_plan(engine, 200);
        plan.client.connect_rate_per_s = connect_rate_per_s;
        let storm = storm::run(&plan, &server.target(), None).unwrap();
        assert_eq!(
            (storm.connects, storm.connected, storm.echoed),
            (200, 200, 200)
        );
        assert_eq!((storm.failures.total(), storm.unanswered()), (0, 0));
        assert_eq!(
            (storm.connect_ns.len(), storm.first_echo_ns.len()),
            (200, 200)
        );
        assert_eq!(storm.syn_retransmits, [200, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!storm::met_a_full_queue(&storm));
        if connect_rate_per_s != 0.0 {
            assert!(Duration::from_millis(199) <= storm.took, "{:?}", storm.took);
        }
        let stats = server.finish();
        assert_eq!(
            (stats.total.accepted, stats.total.bytes_in),
            (200, 200 * 64)
        );
    }
}

/// A listener with room for two, that is emptied only when a third has had to wait.
fn a_full_backlog_shows_as_a_retransmission(engine: Engine) {
    let socket = listener_with_backlog(1);
    let address: SocketAddr = socket.local_addr().unwrap();
    let serve = std::thread::spawn(move || {
        // The first connects are seen at once; the others were dropped by then, and come back after a second.
        std::thread::sleep(Duration::from_millis(300));
        for _ in 0..6 {
            let (mut stream, _) = socket.accept().unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while stream.read_exact(&mut buffer).is_ok() && stream.write_all(&buffer).is_ok() {}
            });
        }
    });
    let storm = storm::run(&storm_plan(engine, 6), &target_of(address), None).unwrap();
    serve.join().unwrap();
    assert_eq!(
        (storm.connected, storm.echoed, storm.failures.total()),
        (6, 6, 0)
    );
    let again: u64 = storm.syn_retransmits[1..].iter().sum();
    assert!(
        1 <= again && storm.syn_retransmits[0] + again == 6,
        "{storm:?}"
    );
    assert!(storm::met_a_full_queue(&storm));
    // The first step of the kernel's schedule is a second.
    let first = storm.by_syn_retransmits.iter().flatten().next().unwrap();
    assert!(990_000_000 < first.min(), "{}", first.min());
    assert!(Duration::from_secs(1) <= storm.took);
}

fn a_storm_on_nobody_is_counted(engine: Engine) {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let storm = storm::run(&storm_plan(engine, 50), &target_of(address), None).unwrap();
    assert_eq!(
        (storm.connected, storm.echoed, storm.failed_connects()),
        (0, 0, 50)
    );
    assert_eq!(storm.failures.of(Failure::ConnectRefused), 50);
    assert!(storm.connect_ns.is_empty() && storm.took < Duration::from_secs(5));
    // Connects that nobody answers end with their time.
    let full = listener_with_backlog(0);
    let mut plan = storm_plan(engine, 8);
    plan.time_limit = Duration::from_millis(300);
    let begun = Instant::now();
    let storm = storm::run(&plan, &target_of(full.local_addr().unwrap()), None).unwrap();
    assert_eq!(
        storm.failed_connects(),
        storm.failures.of(Failure::ConnectTimedOut)
    );
    assert!(
        5 <= storm.failed_connects() && storm.echoed == 0,
        "{storm:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
}

fn a_unix_socket_churns_too(engine: Engine) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo").display().to_string();
    let server = Server::start_on(&format!("unix:{path}"), "none");
    let tally = drive(&churn(engine, 2), &server.target(), &run_of(0, 100));
    assert_eq!(
        (tally.errors.total(), tally.lost, tally.outstanding),
        (0, 0, 0)
    );
    assert!(8 < tally.life_opened);
    assert_eq!(server.finish().total.bytes_in, tally.life_sent_bytes);
}

#[test]
fn the_program_shows_churn() {
    let server = Server::start("none");
    let (code, stdout, stderr) = output(&[
        &server.name(),
        "-c",
        "10",
        "--requests-per-connection",
        "1",
        "-d",
        "300ms",
        "-w",
        "50ms",
        "--json",
    ]);
    assert!(matches!(code, Some(0 | 3)), "{code:?} {stderr}");
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let end = &json["end"];
    let opened = end["connections_opened"].as_u64().unwrap();
    let sent = end["life"]["sent"].as_u64().unwrap();
    // One message each; those that were being made when the load ended had none to carry.
    assert!(
        (sent..=sent + 10).contains(&opened),
        "{opened}, {sent} sent"
    );
    assert_eq!(end["client"]["sources"], "127.0.0.2-127.0.0.65");
    assert!(0 < end["connect_ns"]["count"].as_u64().unwrap());
    assert!(end["first_echo_ns"]["p50"].as_u64() > end["connect_ns"]["p50"].as_u64());
    assert_eq!(json["plan"]["close"], "fin");
}

/// A source that is no address of this machine gives the error that ports which have run out give, and takes no network
/// of its own to show.
#[test]
fn an_address_that_can_t_be_had_is_a_kind_of_its_own() {
    let server = Server::start("none");
    for engine in [Engine::Epoll, Engine::Uring] {
        let mut plan = storm_plan(engine, 3);
        plan.client.sources = Some("192.0.2.1".parse().unwrap());
        let storm = storm::run(&plan, &server.target(), None).unwrap();
        assert_eq!(storm.failures.of(Failure::NoLocalPort), 3);
    }
}

fn a_server_that_was_to_close_and_does_not_is_a_failure(engine: Engine) {
    let server = Server::start("none");
    let plan = Plan {
        close: Close::Server,
        ..churn(engine, 2)
    };
    let phase = Phase {
        greeting: Duration::ZERO,
        give_up_after: Duration::from_millis(200),
        ..run_of(0, 100)
    };
    let begun = Instant::now();
    let tally = drive(&plan, &server.target(), &phase);
    assert!(begun.elapsed() < Duration::from_secs(10), "nothing hangs");
    assert_eq!((tally.sent, tally.messages), (16, 16));
    assert_eq!(tally.errors.of(Failure::NotClosed), 8);
    assert_eq!(tally.errors.total(), 8);
}
