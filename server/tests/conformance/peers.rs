//! Nothing that one peer does costs another its bytes, memory without bound, or a spinning thread.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use echometer_server::config::OWED_MAX_DEFAULT;
use echometer_server::running::Running;
use socket2::SockRef;

use crate::support::{
    Pattern, Process, base_engine, close, connect, connect_to, echo, finish, read_to_eof, reset,
    serve, slow, stuff, uninterrupted, until,
};

pub(crate) fn a_slow_reader_is_bounded_and_harms_nobody(engine: &str) {
    let buffer_size = 16 * 1024;
    let server = serve(engine, |config| config.buffer_size = Some(buffer_size));
    let slow = connect(&server);
    let mut pattern = Pattern::new(1);
    let written = stuff(&slow, &mut pattern);
    let taken_in = server.stats().total.bytes_in;

    let mut neighbour = connect(&server);
    for _ in 0..1000 {
        echo(&mut neighbour, b"is anybody there?");
    }
    let total = server.stats().total;
    assert_eq!(
        total.bytes_in - 17 * 1000,
        taken_in,
        "the slow reader's bytes are taken in without end"
    );
    assert!(
        taken_in < written,
        "a full peer is not received from: the rest waits in its own socket"
    );
    let owed = total.bytes_in - total.bytes_out;
    assert!(
        owed <= u64::from(OWED_MAX_DEFAULT + buffer_size),
        "{owed} bytes are kept for one connection"
    );
    if crate::exception(engine, crate::STALLS_ARE_COUNTED).is_none() {
        assert!(0 < total.send_stalls);
    }

    slow.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(
        read_to_eof(&slow, &mut Pattern::new(1)),
        written,
        "all comes, late as it is read"
    );
    close(&mut neighbour);
    finish(server);
}

/// More slow readers than there are buffers: what waits for them must not be all that there is to receive into.
pub(crate) fn slow_readers_leave_buffers_for_others(engine: &str) {
    let server = serve(engine, |config| {
        config.buffer_size = Some(PIECE as u32);
        config.buffers = Some(16);
    });
    let slow: Vec<TcpStream> = (0..24).map(|_| connect(&server)).collect();
    let mut neighbour = connect(&server);
    let mut ask = || {
        for _ in 0..100 {
            echo(&mut neighbour, b"is there room for me?");
        }
    };
    let pieces = fill_windows(&server, &slow);
    ask();
    // And as much as there is room for, behind it.
    let written: Vec<u64> = thread::scope(|scope| {
        let stuffing: Vec<_> = slow
            .iter()
            .zip(0..)
            .map(|(stream, seed)| {
                scope.spawn(move || {
                    let mut pattern = Pattern::new(seed);
                    pattern.skip(pieces * PIECE);
                    (pieces * PIECE) as u64 + stuff(stream, &mut pattern)
                })
            })
            .collect();
        stuffing
            .into_iter()
            .map(|stuffed| stuffed.join().expect("it is taken in, up to a point"))
            .collect()
    });
    ask();
    // What is read late is what was sent: no buffer was filled again while it waited.
    for ((stream, written), seed) in slow.iter().zip(written).zip(0..) {
        stream.shutdown(Shutdown::Write).expect("connected");
        assert_eq!(read_to_eof(stream, &mut Pattern::new(seed)), written);
    }
    close(&mut neighbour);
    let stats = finish(server);
    assert_eq!(stats.total.bytes_in, stats.total.bytes_out);
}

/// The same when the slow readers' connections are closed, and they still don't read what was sent to them.
pub(crate) fn slow_readers_that_were_cut_off_leave_buffers_for_others(engine: &str) {
    let server = serve(engine, |config| {
        config.buffer_size = Some(PIECE as u32);
        config.buffers = Some(16);
        config.idle_timeout = Some(slow(Duration::from_millis(700)));
    });
    let mut cut_off = Vec::new();
    for wave in 1..=3 {
        let slow: Vec<TcpStream> = (0..24).map(|_| connect(&server)).collect();
        fill_windows(&server, &slow);
        until("all of them to be closed", || {
            server.stats().total.closed["timed_out"] == 24 * wave
        });
        cut_off.extend(slow);
        let mut neighbour = connect(&server);
        for _ in 0..100 {
            echo(&mut neighbour, b"is there room for me?");
        }
        close(&mut neighbour);
    }
    finish(server);
}

const PIECE: usize = 4 * 1024;

/// Sends to all, who don't read, piece by piece: so each has one piece on its way and none behind it. What is sent without
/// a copy is on its way until the peer's window has room for it, long before a socket is full. Gives the pieces sent to each.
fn fill_windows(server: &Running, streams: &[TcpStream]) -> usize {
    let sent_before = server.stats().total.bytes_out;
    for pieces in 1..=64 {
        for (mut stream, seed) in streams.iter().zip(0..) {
            let mut pattern = Pattern::new(seed);
            pattern.skip((pieces - 1) * PIECE);
            stream.write_all(&pattern.next(PIECE)).expect("sent");
        }
        let sent_all = sent_before + (streams.len() * pieces * PIECE) as u64;
        let (mut sent, mut moved) = (0, Instant::now());
        while sent < sent_all {
            let now = server.stats().total.bytes_out;
            if sent < now {
                (sent, moved) = (now, Instant::now());
            } else if slow(Duration::from_millis(300)) <= moved.elapsed() {
                return pieces;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
    64
}

/// Connections that are all active, and few buffers: who finds none waits for its turn, and is no failure.
pub(crate) fn more_active_connections_than_buffers_are_all_served(engine: &str) {
    let server = serve(engine, |config| {
        config.buffer_size = Some(64);
        config.buffers = Some(4);
    });
    let mut streams: Vec<TcpStream> = (0..40).map(|_| connect(&server)).collect();
    let rounds = 5;
    for round in 0..rounds {
        for (mut stream, seed) in streams.iter().zip(0..) {
            let message = Pattern::new(seed * rounds + round).next(1_000);
            stream.write_all(&message).expect("sent");
        }
        for (mut stream, seed) in streams.iter().zip(0..) {
            let mut back = [0; 1_000];
            stream.read_exact(&mut back).expect("echoed");
            assert!(back[..] == Pattern::new(seed * rounds + round).next(1_000));
        }
    }
    streams.iter_mut().for_each(close);
    let stats = finish(server);
    assert_eq!(stats.total.closed["peer_closed"], 40);
    if base_engine(engine) == "uring" {
        assert!(0 < stats.total.recv_parks, "four were enough for forty");
    }
}

/// Connections that always have more to send than there are buffers: whoever has waited longest for one is first, or
/// some would wait for ever.
pub(crate) fn firehoses_take_turns_at_a_small_pool(engine: &str) {
    let server = serve(engine, |config| {
        config.buffer_size = Some(1024);
        config.buffers = Some(2);
    });
    let streams: Vec<TcpStream> = (0..6).map(|_| connect(&server)).collect();
    let echoed: Vec<AtomicU64> = streams.iter().map(|_| AtomicU64::new(0)).collect();
    let enough = AtomicBool::new(false);
    let all_flow = thread::scope(|scope| {
        for ((stream, echoed), seed) in streams.iter().zip(&echoed).zip(0..) {
            let enough = &enough;
            scope.spawn(move || {
                let mut pattern = Pattern::new(seed);
                while !enough.load(Ordering::Relaxed) {
                    (&*stream)
                        .write_all(&pattern.next(64 * 1024))
                        .expect("sent");
                }
                stream.shutdown(Shutdown::Write).expect("connected");
            });
            scope.spawn(move || {
                let mut pattern = Pattern::new(seed);
                let mut piece = vec![0; 64 * 1024];
                loop {
                    let n = uninterrupted(|| (&*stream).read(&mut piece)).expect("no reset");
                    if n == 0 {
                        break;
                    }
                    assert!(pattern.next(n) == piece[..n], "wrong bytes");
                    echoed.fetch_add(n as u64, Ordering::Relaxed);
                }
            });
        }
        let deadline = Instant::now() + slow(Duration::from_secs(10));
        let flows = |bytes: &AtomicU64| 256 * 1024 <= bytes.load(Ordering::Relaxed);
        while !echoed.iter().all(flows) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let all_flow = echoed.iter().all(flows);
        enough.store(true, Ordering::Relaxed);
        all_flow
    });
    assert!(all_flow, "{echoed:?} bytes came back by then");
    finish(server);
}

pub(crate) fn a_half_close_with_megabytes_pending_loses_nothing(engine: &str) {
    let server = serve(engine, |_| {});
    let stream = connect(&server);
    let written = stuff(&stream, &mut Pattern::new(5));
    assert!(1 << 20 < written, "megabytes are pending: {written}");
    stream.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(read_to_eof(&stream, &mut Pattern::new(5)), written);
    let stats = finish(server);
    assert_eq!(
        (stats.total.bytes_in, stats.total.bytes_out),
        (written, written)
    );
}

pub(crate) fn a_reset_ends_only_its_own_connection(engine: &str) {
    let server = serve(engine, |_| {});
    let mut neighbour = connect(&server);
    for _ in 0..20 {
        let mut victim = connect(&server);
        echo(&mut victim, b"so far so good");
        reset(victim);
        echo(&mut neighbour, b"still here");
    }
    until("all resets to be counted", || {
        server.stats().total.closed["reset"] == 20
    });
    assert_eq!(server.stats().total.open, 1);
    close(&mut neighbour);
    finish(server);
}

pub(crate) fn a_reset_of_a_slow_reader_is_noticed(engine: &str) {
    let server = serve(engine, |_| {});
    let slow = connect(&server);
    stuff(&slow, &mut Pattern::new(1));
    reset(slow);
    until("the reset to be counted", || {
        server.stats().total.closed["reset"] == 1
    });
    finish(server);
}

pub(crate) fn a_firehose_leaves_turns_for_others(engine: &str) {
    let server = serve(engine, |_| {});
    let firehose = connect(&server);
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut pattern = Pattern::new(9);
            while !enough.load(Ordering::Relaxed) {
                (&firehose).write_all(&pattern.next(1 << 20)).expect("sent");
            }
            firehose.shutdown(Shutdown::Write).expect("connected");
        });
        scope.spawn(|| read_to_eof(&firehose, &mut Pattern::new(9)));
        until("the firehose to flow", || {
            1 << 20 < server.stats().total.bytes_in
        });
        let mut neighbour = connect(&server);
        for _ in 0..200 {
            echo(&mut neighbour, b"my turn?");
        }
        enough.store(true, Ordering::Relaxed);
        close(&mut neighbour);
    });
    finish(server);
}

pub(crate) fn urgent_data_does_not_hold_up_what_follows(engine: &str) {
    let server = serve(engine, |_| {});
    let mut stream = connect(&server);
    echo(&mut stream, b"before");
    // A receive stops at the mark of urgent data (tcp(7)), and what follows has come with the same edge.
    SockRef::from(&stream).send_out_of_band(b"!").expect("sent");
    stream.write_all(b"after").expect("sent");
    let mut back = [0; 5];
    stream
        .read_exact(&mut back)
        .expect("echoed, without the urgent byte, which is no part of the stream");
    assert_eq!(&back, b"after");
    close(&mut stream);
    finish(server);
}

pub(crate) fn connections_that_come_and_go_are_counted(engine: &str) {
    let server = serve(engine, |_| {});
    for _ in 0..300 {
        let mut stream = connect(&server);
        echo(&mut stream, b"once");
        close(&mut stream);
    }
    let stats = finish(server);
    assert_eq!(
        (stats.total.accepted, stats.total.closed["peer_closed"]),
        (300, 300)
    );
}

/// Idle, stuck and half-open connections cost no CPU. One measurement for all of them, since it takes a while.
pub(crate) fn who_waits_does_not_spin(engine: &str) {
    let server = Process::start(engine, &["--threads", "1"]);
    let mut idle = connect_to(server.address);
    echo(&mut idle, b"and now nothing");
    let slow = connect_to(server.address);
    stuff(&slow, &mut Pattern::new(1));
    let half_open = connect_to(server.address);
    stuff(&half_open, &mut Pattern::new(2));
    half_open.shutdown(Shutdown::Write).expect("connected");

    let (before, began) = (server.cpu_time(), Instant::now());
    thread::sleep(Duration::from_millis(500));
    let (used, passed) = (server.cpu_time() - before, began.elapsed());
    assert!(
        used < passed / 4,
        "{used:?} of CPU in {passed:?} for connections that all wait"
    );
}
