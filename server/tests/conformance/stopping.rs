//! A stop loses nothing that was taken in: flush, shut, let the peer read to its end, close.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use echometer_host::units::show_duration;
use rustix::process::Signal;

use crate::support::{
    Pattern, Process, close, connect, connect_to, echo, finish, limit, read_stats, read_to_eof,
    reset, serve, slow, stuff, uninterrupted, until,
};

pub(crate) fn a_stop_under_load_accounts_for_every_byte(engine: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stats.json");
    let drain_time = slow(Duration::from_secs(5));
    let server = Process::start(
        engine,
        &[
            "--threads",
            "2",
            "--drain-timeout",
            &show_duration(drain_time),
            "--stats",
            path.to_str().expect("text"),
        ],
    );
    let streams: Vec<TcpStream> = (0..12).map(|_| connect_to(server.address)).collect();

    let received: u64 = thread::scope(|scope| {
        let readers: Vec<_> = streams
            .iter()
            .enumerate()
            .map(|(seed, stream)| {
                // Small messages, large ones, and ones that outrun their reader.
                let size = [64, 4096, 256 * 1024][seed % 3];
                scope.spawn(move || write_until_shut(stream, seed as u64, size));
                scope.spawn(move || {
                    let received = read_to_eof(stream, &mut Pattern::new(seed as u64));
                    // The writer is told by its next write or, where that would wait for ever, by this.
                    stream
                        .shutdown(Shutdown::Write)
                        .or_else(gone)
                        .expect("connected");
                    received
                })
            })
            .collect();
        until("the load to flow", || {
            // Nothing of the server's own is readable from outside while it runs; its CPU time says that it works.
            Duration::from_millis(50) < server.cpu_time()
        });
        let began = Instant::now();
        server.signal(Signal::TERM);
        let (status, stderr) = server.wait();
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert!(
            began.elapsed() < drain_time,
            "longer than the drain time: {:?}",
            began.elapsed()
        );
        readers
            .into_iter()
            .map(|reader| reader.join().expect("a reader's checks hold"))
            .sum()
    });

    let stats = read_stats(&path);
    assert!(0 < received);
    assert_eq!(
        stats.total.bytes_in, received,
        "clients that read to EOF have got all that was taken in"
    );
    assert_eq!(stats.total.bytes_out, received);
    assert_eq!((stats.total.accepted, stats.total.open), (12, 0));
    assert_eq!(stats.total.closed["drain_expired"], 0);
}

pub(crate) fn a_stop_without_connections_is_immediate(engine: &str) {
    let server = Process::start(engine, &["--drain-timeout", "60s"]);
    server.signal(Signal::INT);
    let (status, stderr) = server.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

pub(crate) fn who_waits_in_the_queue_is_not_reset(engine: &str) {
    let (server, folder) = one_worker(engine, &[]);
    let mut first = connect_to(server.address);
    echo(&mut first, b"this one is being served");
    // The process stands still, so that connections and their bytes pile up, and wakes to find the stop there too.
    server.signal(Signal::STOP);
    let mut streams = queued(&server, 30);
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    streams.push(first);
    all_are_served(server, &folder, &streams, 24);
}

/// Where connections are accepted one by one, the queue is not empty when the last accept ends.
pub(crate) fn who_queues_while_the_server_is_busy_is_not_reset(engine: &str) {
    let (server, folder) = one_worker(engine, &["--accept", "shared", "--delay", "busy:200ms"]);
    let first = connect_to(server.address);
    (&first).write_all(b"this one keeps it busy").expect("sent");
    let mut streams = queued(&server, 10);
    server.signal(Signal::TERM);
    streams.push(first);
    all_are_served(server, &folder, &streams, 0);
}

fn one_worker(engine: &str, flags: &[&str]) -> (Process, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stats.json");
    let own = ["--threads", "1", "--stats", path.to_str().expect("text")];
    (Process::start(engine, &[&own, flags].concat()), folder)
}

/// Connections that nobody has accepted yet, each with its bytes behind it.
fn queued(server: &Process, count: usize) -> Vec<TcpStream> {
    let streams: Vec<TcpStream> = (0..count).map(|_| connect_to(server.address)).collect();
    for mut stream in &streams {
        stream.write_all(b"nobody has accepted me").expect("sent");
    }
    streams
}

/// Each is read to its end without a reset, and together they get what the server took in: `received` of it before.
fn all_are_served(
    server: Process,
    folder: &tempfile::TempDir,
    streams: &[TcpStream],
    mut received: u64,
) {
    for mut stream in streams {
        let mut back = Vec::new();
        let n = stream.read_to_end(&mut back).expect("EOF, and no reset");
        received += n as u64;
        stream
            .shutdown(Shutdown::Write)
            .or_else(gone)
            .expect("connected");
    }
    let (status, stderr) = server.wait();
    assert!(status.success(), "{stderr}");
    let stats = read_stats(&folder.path().join("stats.json"));
    assert_eq!(stats.total.accepted, streams.len() as u64);
    assert_eq!(stats.total.bytes_in, received);
}

pub(crate) fn a_peer_that_never_closes_is_cut_off_at_the_drain_time(engine: &str) {
    let drain_time = slow(Duration::from_millis(300));
    let server = serve(engine, |config| config.drain_timeout = drain_time);
    let mut idle = connect(&server);
    echo(&mut idle, b"hello");
    let stuck = connect(&server);
    stuff(&stuck, &mut Pattern::new(1));
    let mut leaves = connect(&server);
    echo(&mut leaves, b"hello");

    let began = Instant::now();
    server.stop();
    close(&mut leaves);
    let stats = finish(server);
    let took = began.elapsed();
    assert!(drain_time <= took && took < 10 * drain_time, "{took:?}");
    assert_eq!(stats.total.closed["drain_expired"], 2);
    assert_eq!(stats.total.closed["drained"], 1);
}

/// The idle time is for connections that nobody wants any more. A stop has a limit of its own, and until that a client may
/// take its time to read what it is owed.
pub(crate) fn a_slow_reader_has_the_whole_drain_time(engine: &str) {
    let idle = slow(Duration::from_millis(1_500));
    let server = serve(engine, |config| {
        config.idle_timeout = Some(idle);
        config.drain_timeout = limit();
    });
    let client = connect(&server);
    let (mut sent, mut expected) = (Pattern::new(3), Pattern::new(3));
    stuff(&client, &mut sent);
    server.stop();
    // What is waited for is that nothing happens.
    thread::sleep(2 * idle);
    let echoed = read_to_eof(&client, &mut expected);
    drop(client);
    let stats = finish(server);
    assert_eq!(stats.total.bytes_in, echoed);
    assert_eq!(stats.total.closed["drained"], 1);
}

/// All at once: slow readers, half-closed ones, a reset, a pool that is small, and the descriptor limit met.
pub(crate) fn a_stop_at_the_worst_moment_ends_in_order(engine: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stats.json");
    let drain_time = slow(Duration::from_secs(1));
    let server = Process::start_limited(
        engine,
        40,
        &[
            "--threads",
            "1",
            "--buffers",
            "8",
            "--buffer-size",
            "4KiB",
            "--drain-timeout",
            &show_duration(drain_time),
            "--stats",
            path.to_str().expect("text"),
        ],
    );
    let mut streams: Vec<TcpStream> = (0..9).map(|_| connect_to(server.address)).collect();
    thread::scope(|scope| {
        for (stream, seed) in streams.iter().zip(0..) {
            scope.spawn(move || stuff(stream, &mut Pattern::new(seed)));
        }
    });
    let victim = streams.pop().expect("nine");
    let readers = &streams[..4];
    for stream in &readers[..2] {
        stream.shutdown(Shutdown::Write).expect("connected");
    }
    // More than there are descriptors; those that are not let in are reset.
    let crowd: Vec<TcpStream> = (0..60).map(|_| connect_to(server.address)).collect();
    reset(victim);

    let began = Instant::now();
    server.signal(Signal::TERM);
    thread::scope(|scope| {
        for (stream, seed) in readers.iter().zip(0..) {
            scope.spawn(move || {
                assert!(0 < read_to_eof(stream, &mut Pattern::new(seed)));
                stream
                    .shutdown(Shutdown::Write)
                    .or_else(gone)
                    .expect("connected");
            });
        }
    });
    let (status, stderr) = server.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let took = began.elapsed();
    assert!(
        took < 3 * drain_time,
        "{took:?} for a drain of {drain_time:?}"
    );
    let stats = read_stats(&path);
    assert_eq!(stats.total.open, 0);
    assert_eq!(stats.total.closed["drained"], 4, "{:?}", stats.total.closed);
    drop(crowd);
}

pub(crate) fn a_second_signal_ends_at_once(engine: &str) {
    let server = Process::start(engine, &["--drain-timeout", "60s"]);
    let mut idle = connect_to(server.address);
    echo(&mut idle, b"I stay");
    server.signal(Signal::TERM);
    assert_eq!(
        uninterrupted(|| idle.read(&mut [0; 1])).expect("EOF"),
        0,
        "the stop has begun"
    );
    // Sooner it would count as the same signal.
    thread::sleep(3 * echometer_host::signals::SAME_SIGNAL);
    server.signal(Signal::TERM);
    let (status, _) = server.wait();
    assert_eq!(status.code(), Some(130));
}

pub(crate) fn signals_that_come_together_are_one(engine: &str) {
    let server = Process::start(engine, &["--drain-timeout", "60s"]);
    let mut client = connect_to(server.address);
    echo(&mut client, b"timeout(1) signals twice");
    server.signal(Signal::TERM);
    server.signal(Signal::TERM);
    close(&mut client);
    let (status, stderr) = server.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// Writes messages of `size` until the server's end is seen.
fn write_until_shut(mut stream: &TcpStream, seed: u64, size: usize) {
    let mut pattern = Pattern::new(seed);
    while stream.write_all(&pattern.next(size)).is_ok() {}
}

/// A peer that is gone already need not be told.
fn gone(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::NotConnected {
        Ok(())
    } else {
        Err(error)
    }
}
