//! At its limits a server serves whom it has, says so in its counters, and takes more when there is room again.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use echometer_host::units::show_duration;

use crate::support::{
    Process, close, connect, connect_to, echo, finish, limit, serve, slow, uninterrupted, until,
};

pub(crate) fn one_connection_too_many_is_closed_at_once(engine: &str) {
    let server = serve(engine, |config| config.connections_max = Some(2));
    let mut first = connect(&server);
    let mut second = connect(&server);
    echo(&mut first, b"one");
    echo(&mut second, b"two");
    let mut third = connect(&server);
    match uninterrupted(|| third.read(&mut [0; 1])) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("the third was to be closed, and not {other:?}"),
    }
    until("it to be counted", || {
        server.stats().total.closed["over_limit"] == 1
    });
    echo(&mut first, b"still one");
    close(&mut second);
    until("room for another", || server.stats().total.open == 1);
    let mut fourth = connect(&server);
    echo(&mut fourth, b"three");
    close(&mut first);
    close(&mut fourth);
    assert_eq!(finish(server).total.accepted, 4);
}

pub(crate) fn the_descriptor_limit_is_waited_out(engine: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stats.json");
    let server = Process::start_limited(
        engine,
        40,
        &["--threads", "1", "--stats", path.to_str().expect("text")],
    );
    let mut streams: Vec<TcpStream> = (0..60).map(|_| connect_to(server.address)).collect();
    for stream in &mut streams {
        stream.write_all(b"?").expect("the kernel takes it");
    }
    // Connections are accepted in order, so the first that is not answered is where the limit is.
    let served = streams
        .iter_mut()
        .map(|stream| answered(stream, slow(Duration::from_millis(500))))
        .take_while(|&answered| answered)
        .count();
    assert!(
        (20..60).contains(&served),
        "{served} of 60 served with 40 descriptors"
    );

    let (before, began) = (server.cpu_time(), Instant::now());
    thread::sleep(Duration::from_millis(500));
    let (used, passed) = (server.cpu_time() - before, began.elapsed());
    assert!(
        used < passed / 4,
        "{used:?} of CPU in {passed:?} at the descriptor limit"
    );
    for stream in &mut streams[..served] {
        echo(stream, b"those that are in are served");
    }

    // As many as leave are let in.
    let leaving = 15;
    for stream in streams.drain(..leaving) {
        drop(stream);
    }
    let waiting = &mut streams[served - leaving..][..leaving];
    for stream in waiting {
        assert!(
            answered(stream, limit()),
            "there was room again, and nobody was let in"
        );
    }
    drop(streams);
    let stats = server.finish(&path);
    let failed = stats.total.accept_errors.values().sum::<u64>();
    assert!(0 < failed, "a limit that was met is counted");
    // A retry every 100 ms and one for each connection that left, and not thousands.
    assert!(failed < 1000, "{failed} failed accepts");
}

/// At the limit, who is let in has a place: those that are being closed have theirs until the kernel has closed them.
pub(crate) fn nobody_is_let_in_where_there_is_no_place(engine: &str) {
    const ROUNDS: u64 = 25;
    let idle = slow(Duration::from_millis(20));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stats.json");
    let stats = path.to_str().expect("text");
    let server = Process::start_limited(
        engine,
        40,
        &[
            "--threads",
            "1",
            "--stats",
            stats,
            "--idle-timeout",
            &show_duration(idle),
            "--backlog",
            "128",
        ],
    );
    // All places are taken nearly always, and each is left when its connection is closed for being idle.
    thread::scope(|scope| {
        for _ in 0..60 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let began = Instant::now();
                    let mut stream = connect_to(server.address);
                    let written = stream.write_all(b"?");
                    if idle <= began.elapsed() {
                        // On a busy machine: it may have been closed for being idle before.
                        continue;
                    }
                    written.expect("sent in time");
                    let mut back = [0; 1];
                    stream.read_exact(&mut back).expect("an echo, and no reset");
                    let end = uninterrupted(|| stream.read(&mut back));
                    assert_eq!(end.expect("EOF, and no reset"), 0);
                }
            });
        }
    });
    let stats = server.finish(&path);
    assert_eq!(stats.total.accepted, 60 * ROUNDS);
    assert_eq!(stats.total.accept_errors["system_limit"], 0);
}

pub(crate) fn an_idle_connection_is_closed_and_a_busy_one_is_not(engine: &str) {
    let timeout = slow(Duration::from_millis(400));
    let server = serve(engine, |config| config.idle_timeout = Some(timeout));
    let mut busy = connect(&server);
    let mut idle = connect(&server);
    let quiet = connect(&server);
    echo(&mut idle, b"and now nothing");
    let began = Instant::now();
    thread::scope(|scope| {
        // Much more often than it must, since the machine may be busy elsewhere for a while.
        let talk = scope.spawn(|| {
            while began.elapsed() < 3 * timeout {
                echo(&mut busy, b"busy");
                thread::sleep(timeout / 40);
            }
        });
        for mut stream in [&idle, &quiet] {
            let end = uninterrupted(|| stream.read(&mut [0; 1])).expect("EOF, and no reset");
            assert_eq!(end, 0);
            let took = began.elapsed();
            // The quiet one came a little before the clock was read.
            assert!(timeout * 9 / 10 <= took, "closed after {took:?}");
        }
        talk.join().expect("who is busy is served");
    });
    let stats = server.stats();
    assert_eq!((stats.total.open, stats.total.closed["timed_out"]), (1, 2));
    close(&mut busy);
    finish(server);
}

/// Who neither reads nor closes holds memory and a descriptor: nothing moves, so that is idle.
pub(crate) fn a_stuck_peer_is_idle_too(engine: &str) {
    let server = serve(engine, |config| {
        config.idle_timeout = Some(slow(Duration::from_millis(700)));
    });
    let mut stuck = connect(&server);
    let error = loop {
        if let Err(error) = stuck.write_all(&[0; 64 * 1024]) {
            break error;
        }
    };
    // With bytes unread, a close is a reset.
    assert!(
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ),
        "{error}"
    );
    until("it to be closed", || {
        server.stats().total.closed["timed_out"] == 1
    });
    finish(server);
}

/// Whether the byte sent before comes back in time.
fn answered(stream: &mut TcpStream, time: Duration) -> bool {
    stream.set_read_timeout(Some(time)).expect("a valid time");
    let answer = uninterrupted(|| stream.read(&mut [0; 1]));
    stream
        .set_read_timeout(Some(limit()))
        .expect("a valid time");
    match answer {
        Ok(n) => n == 1,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("it may wait, but not be dropped: {error}"),
    }
}

/// What is enough for a start is enough while clients come, and a start that fails serves nobody first.
pub(crate) fn early_connections_take_nothing_from_the_start(engine: &str) {
    const THREADS: &str = "6";
    let flags = ["--threads", THREADS, "--drain-timeout", "60s"];
    // The least that the server starts with where nobody comes.
    let enough = (10..200)
        .find(|&nofile| Process::try_start_limited(engine, nofile, &flags).is_ok())
        .expect("a start with 200 descriptors");
    for nofile in [enough, enough - 1] {
        // Somebody is known to listen there soon.
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut clients = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    if clients.len() < 200 {
                        clients.extend(TcpStream::connect(address));
                    }
                }
            });
            let listen = address.to_string();
            let began = Instant::now();
            let started = Process::try_start_limited(
                engine,
                nofile,
                &[&flags[..], &["--listen", &listen]].concat(),
            );
            let took = began.elapsed();
            over.store(true, Ordering::Relaxed);
            match started {
                Ok(_) => assert_eq!(nofile, enough, "it started with less than is enough"),
                Err(stderr) => {
                    assert!(nofile < enough, "{nofile} descriptors are enough: {stderr}");
                    assert!(stderr.contains("ulimit -n"), "{stderr}");
                    assert!(took < Duration::from_secs(30), "it served first: {took:?}");
                }
            }
        });
    }
}
