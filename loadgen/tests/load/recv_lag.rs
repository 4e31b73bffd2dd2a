//! With the kernel's receive times, how long replies waited for the client is a figure of its own.

use std::{
    fs,
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use echometer_host::address::Address;
use echometer_loadgen::{
    Plan,
    file::RunFile,
    plan::{Arrivals, Engine, Load, Timestamps},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    for_each_engine,
    support::{Server, command, drive, peer, plan, run_of, target_of},
};

for_each_engine! {
    fn every_reply_has_one_and_none_is_longer_than_its_latency;
    fn fresh_connections_are_stamped_too;
    fn a_peer_that_hangs_up_is_seen;
    fn a_client_that_stood_still_shows_it;
}

fn stamped(engine: Engine) -> Plan {
    Plan {
        timestamps: Timestamps::Kernel,
        verify: true,
        ..plan(engine)
    }
}

fn every_reply_has_one_and_none_is_longer_than_its_latency(engine: Engine) {
    let open = Load::Open {
        rate_per_s: 5_000.0,
        arrivals: Arrivals::Poisson,
    };
    for (load, message_size, pipeline) in [
        (Load::Closed, 64, 1),
        (Load::Closed, 300, 4),
        (Load::Closed, 100_000, 1),
        (open, 64, 1_024),
    ] {
        let server = Server::start("none");
        let plan = Plan {
            load,
            message_size,
            pipeline,
            ..stamped(engine)
        };
        let tally = drive(&plan, &server.target(), &run_of(50, 300));
        assert_eq!((tally.errors.total(), tally.mismatch), (0, None));
        let lags = tally.recv_lag.as_ref().expect("the kernel was asked");
        assert_eq!(lags.len(), tally.window.answered, "{load:?} {message_size}");
        assert!(
            lags.max() <= tally.latency.max(),
            "{load:?} {message_size}: {} of {}",
            lags.max(),
            tally.latency.max()
        );
        let unstamped = Plan {
            timestamps: Timestamps::Client,
            ..plan
        };
        let tally = drive(&unstamped, &server.target(), &run_of(0, 50));
        assert!(tally.recv_lag.is_none());
    }
}

fn fresh_connections_are_stamped_too(engine: Engine) {
    let server = Server::start("none");
    let plan = Plan {
        requests_per_connection: 3,
        ..stamped(engine)
    };
    let tally = drive(&plan, &server.target(), &run_of(50, 300));
    assert_eq!((tally.errors.total(), tally.mismatch), (0, None));
    assert!(8 < tally.life_opened, "{}", tally.life_opened);
    let lags = tally.recv_lag.as_ref().expect("the kernel was asked");
    assert_eq!(lags.len(), tally.window.answered);
}

fn a_peer_that_hangs_up_is_seen(engine: Engine) {
    let address = peer(|mut stream| {
        let mut buffer = [0; 64];
        for _ in 0..10 {
            if stream.read_exact(&mut buffer).is_err() || stream.write_all(&buffer).is_err() {
                return;
            }
        }
    });
    let tally = drive(&stamped(engine), &target_of(address), &run_of(0, 300));
    assert_eq!(tally.messages, 80);
    assert_eq!((tally.errors.total(), tally.connections_alive), (8, 0));
}

/// Two dozen replies are on their way when the client is stopped for a while; they wait for it that long. What the server
/// takes for each is none of it.
fn a_client_that_stood_still_shows_it(engine: Engine) {
    const SERVED_IN: Duration = Duration::from_millis(25);
    const STOOD_STILL: Duration = Duration::from_millis(150);
    let count = Arc::new(AtomicU64::new(0));
    let (under_way, is_under_way) = std::sync::mpsc::channel();
    let address = peer(move |mut stream| {
        let (mut replies, count) = (stream.try_clone().unwrap(), Arc::clone(&count));
        let under_way = under_way.clone();
        let (sender, receiver) = std::sync::mpsc::channel::<(Instant, [u8; 64])>();
        thread::spawn(move || {
            for (due, message) in receiver {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if replies.write_all(&message).is_err() {
                    return;
                }
            }
        });
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() {
            if count.fetch_add(1, Relaxed) == 200 {
                let _ = under_way.send(());
            }
            if sender.send((Instant::now() + SERVED_IN, message)).is_err() {
                return;
            }
        }
    });
    let out = tempfile::tempdir().unwrap();
    let name = match engine {
        Engine::Epoll => "epoll",
        _ => "uring",
    };
    let mut client = command(&[
        &Address::Tcp(address).to_string(),
        "-c4",
        "-R1k",
        "-w0s",
        "-d2s",
        "--timestamps=kernel",
        "--engine",
        name,
        "--out",
        out.path().to_str().unwrap(),
    ])
    .spawn()
    .unwrap();
    is_under_way
        .recv_timeout(Duration::from_secs(20))
        .expect("200 messages within 20 s");
    let pid = Pid::from_child(&client);
    kill_process(pid, Signal::STOP).unwrap();
    thread::sleep(STOOD_STILL);
    kill_process(pid, Signal::CONT).unwrap();
    client.wait().unwrap();
    let run = RunFile::read(&out.path().join("run.json")).unwrap();
    let lag = run.end.recv_lag_ns;
    let at_least = (STOOD_STILL - SERVED_IN).as_nanos() as u64 - 20_000_000;
    assert!(lag.max.is_some_and(|max| at_least <= max), "{lag:?}");
    assert!(
        lag.p50
            .is_some_and(|p50| p50 < SERVED_IN.as_nanos() as u64 / 2),
        "{lag:?}"
    );
    let log = fs::read_to_string(out.path().join("run.hlog")).unwrap();
    assert!(log.contains("Tag=recv_lag,"), "{log}");
}
