//! The calibration server's truths, with bounds that a loaded machine keeps too: that a delay is never shorter than it
//! says is exact, how much longer it is depends on who else runs.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use echometer_host::clock::now_ns;
use echometer_server::delay::Delay;

use crate::support::{
    Pattern, Process, close, connect, connect_to, echo, finish, read_to_eof, serve, slow,
    slow_text, until,
};

pub(crate) fn a_fixed_delay_is_that_long(engine: &str) {
    let delay = Duration::from_millis(20);
    let server = serve(engine, |config| {
        config.delay = "fixed:20ms".parse().expect("valid");
    });
    let mut stream = connect(&server);
    let mut times: Vec<Duration> = (0..15)
        .map(|_| {
            let began = Instant::now();
            echo(&mut stream, b"later");
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(delay <= times[0], "{:?} is too early", times[0]);
    assert!(
        times[7] < delay + slow(delay),
        "half take longer than {:?}",
        times[7]
    );
    close(&mut stream);
    finish(server);
}

pub(crate) fn a_fixed_delay_keeps_the_order(engine: &str) {
    keeps_the_order(engine, "fixed:3ms");
}

/// Each piece draws its own time, and yet none overtakes another of its connection.
pub(crate) fn an_exponential_delay_keeps_the_order(engine: &str) {
    keeps_the_order(engine, "exp:1ms");
}

fn keeps_the_order(engine: &str, delay: &str) {
    let server = serve(engine, |config| {
        config.delay = delay.parse().expect("valid");
    });
    let streams: Vec<_> = (0..4).map(|_| connect(&server)).collect();
    thread::scope(|scope| {
        for (seed, stream) in streams.iter().enumerate() {
            scope.spawn(move || {
                let mut pattern = Pattern::new(seed as u64);
                for piece in 0..400 {
                    (&*stream)
                        .write_all(&pattern.next(1 + piece * 11 % 4000))
                        .expect("sent");
                }
                stream.shutdown(Shutdown::Write).expect("connected");
            });
            scope.spawn(move || read_to_eof(stream, &mut Pattern::new(seed as u64)));
        }
    });
    let stats = finish(server);
    let sent: u64 = (0..400).map(|piece| 1 + piece * 11 % 4000).sum::<u64>() * 4;
    assert_eq!((stats.total.bytes_in, stats.total.bytes_out), (sent, sent));
}

pub(crate) fn a_freeze_stops_all_echoing(engine: &str) {
    let [freeze, period] = [100, 300].map(|ms| slow_text(Duration::from_millis(ms)));
    let text = format!("freeze:{freeze}/{period}");
    let delay: Delay = text.parse().expect("valid");
    let server = serve(engine, |config| {
        config.delay = delay;
        config.workers = vec![None; 2];
    });
    let mut streams: Vec<_> = (0..8).map(|_| connect(&server)).collect();
    let mut proven = 0;
    for _ in 0..3 {
        until("the next freeze", || delay.frozen_until(now_ns()).is_some());
        let mut thawed_ns = u64::MAX;
        for stream in &mut streams {
            // The last ones may be sent after the thaw, on a machine that was busy elsewhere: those prove nothing.
            thawed_ns = thawed_ns.min(delay.frozen_until(now_ns()).unwrap_or(0));
            stream.write_all(b"frozen?").expect("sent");
        }
        for stream in &mut streams {
            stream.read_exact(&mut [0; 7]).expect("echoed");
            assert!(thawed_ns <= now_ns(), "an echo before the thaw");
        }
        proven += u32::from(0 < thawed_ns);
    }
    assert!(
        0 < proven,
        "no freeze was long enough to send eight messages in"
    );
    for mut stream in streams {
        close(&mut stream);
    }
    finish(server);
}

/// Pieces that came one by one and are due at once all go, though nothing else happens on the server.
pub(crate) fn what_a_freeze_held_back_all_comes(engine: &str) {
    let delay: Delay = "freeze:200ms/500ms".parse().expect("valid");
    let server = serve(engine, |config| config.delay = delay);
    let mut stream = connect(&server);
    let mut pattern = Pattern::new(7);
    let mut sent = 0;
    for _ in 0..3 {
        until("the next freeze", || delay.frozen_until(now_ns()).is_some());
        let pieces: Vec<_> = (0..12).map(|_| pattern.next(100)).collect();
        for piece in &pieces {
            stream.write_all(piece).expect("sent");
            sent += piece.len() as u64;
            until("the piece is there", || {
                server.stats().total.bytes_in == sent
            });
        }
        for piece in pieces {
            let mut back = vec![0; piece.len()];
            stream.read_exact(&mut back).expect("echoed");
            assert_eq!(back, piece);
        }
    }
    close(&mut stream);
    finish(server);
}

pub(crate) fn busy_burns_cpu(engine: &str) {
    let server = Process::start(engine, &["--threads", "1", "--delay", "busy:2ms"]);
    let mut stream = connect_to(server.address);
    let before = server.cpu_time();
    let began = Instant::now();
    for _ in 0..100 {
        echo(&mut stream, b"work");
    }
    assert!(Duration::from_millis(200) <= began.elapsed());
    // It spins on the wall clock, so what others take of the cpu is missing; three tests may share it.
    let used = server.cpu_time() - before;
    assert!(
        Duration::from_millis(50) <= used,
        "100 messages of 2 ms used {used:?}"
    );
}
