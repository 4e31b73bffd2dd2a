//! Peers that are slow, servers that stood still, and what is given up: who moves is served, however slowly.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use echometer_server::config::OWED_MAX_DEFAULT;
use echometer_server::running::Running;
use rustix::process::Signal;
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::{
    Pattern, Process, anonymous_bytes, close, connect_to, echo, finish, limit, patient, serve,
    slow, slow_text, uninterrupted, until,
};

/// A client that takes little at a time: its window is small.
fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_recv_buffer_size(4 * 1024).expect("a small one");
    socket.connect(&address.into()).expect("the server listens");
    patient(TcpStream::from(socket))
}

fn address(server: &Running) -> SocketAddr {
    match server.address() {
        echometer_host::address::Address::Tcp(address) => *address,
        other => panic!("not TCP: {other}"),
    }
}

/// Who reads without a break is not idle, though no send of the server's may end meanwhile; and what the peer has, was counted.
pub(crate) fn a_steady_slow_reader_is_not_idle(engine: &str) {
    const BYTES: usize = 300_000;
    const AT_ONCE: usize = 2_000;
    let mut sizes = vec![Some(16 * 1024)];
    if crate::exception(engine, crate::LARGE_SOCKETS_ARE_SEEN_TO_MOVE).is_none() {
        sizes.push(None);
    }
    for sndbuf in sizes {
        let server = serve(engine, |config| {
            config.idle_timeout = Some(slow(Duration::from_millis(400)));
            config.sndbuf = sndbuf;
        });
        let stream = connect_narrow(address(&server));
        thread::scope(|scope| {
            scope.spawn(|| {
                (&stream)
                    .write_all(&Pattern::new(3).next(BYTES))
                    .expect("it is taken in");
                stream.shutdown(Shutdown::Write).expect("connected");
            });
            let mut pattern = Pattern::new(3);
            let mut read = 0;
            let mut piece = [0; AT_ONCE];
            loop {
                thread::sleep(slow(Duration::from_millis(20)));
                let n = uninterrupted(|| (&stream).read(&mut piece)).expect("no reset");
                if n == 0 {
                    break;
                }
                assert!(pattern.next(n) == piece[..n], "wrong bytes after {read}");
                read += n;
                // The other workers' copy of the counters is read while they are written.
                until("what has come to be counted", || {
                    read as u64 <= server.stats().total.bytes_out
                });
            }
            assert_eq!(read, BYTES, "cut off, with sndbuf {sndbuf:?}");
        });
        finish(server);
    }
}

/// An end in order says that this was the whole echo.
pub(crate) fn what_is_given_up_ends_in_a_reset(engine: &str) {
    const BYTES: usize = 400_000;
    for drains in [false, true] {
        let server = serve(engine, |config| {
            config.sndbuf = Some(16 * 1024);
            if drains {
                config.drain_timeout = slow(Duration::from_millis(300));
            } else {
                config.idle_timeout = Some(slow(Duration::from_millis(300)));
            }
        });
        let mut stream = connect_narrow(address(&server));
        // Not all of it may be taken in.
        stream
            .set_write_timeout(Some(slow(Duration::from_millis(200))))
            .expect("a valid time");
        let _ = stream.write_all(&Pattern::new(4).next(BYTES));
        if drains {
            until("some of it to be taken in", || {
                0 < server.stats().total.bytes_in
            });
            server.stop();
            let (stats, result) = server.wait();
            result.expect("no worker failed");
            assert_eq!(stats.total.closed["drain_expired"], 1);
        } else {
            until("it to be closed", || {
                server.stats().total.closed["timed_out"] == 1
            });
            finish(server);
        }
        let mut got = 0;
        let mut piece = [0; 64 * 1024];
        let end = loop {
            match uninterrupted(|| stream.read(&mut piece)) {
                Ok(0) => break None,
                Ok(n) => got += n,
                Err(error) => break Some(error.kind()),
            }
        };
        assert!(got < BYTES, "nothing was given up");
        assert_eq!(
            end,
            Some(ErrorKind::ConnectionReset),
            "after {got} bytes, drains: {drains}"
        );
    }
}

/// A wait for a slow peer takes no thread of the kernel's.
pub(crate) fn slow_readers_become_no_threads(engine: &str) {
    let server = Process::start(engine, &["--threads", "1", "--sndbuf", "1"]);
    let mut clients: Vec<TcpStream> = (0..6).map(|_| connect_narrow(server.address)).collect();
    let seen = thread::scope(|scope| {
        let readers: Vec<_> = clients
            .iter_mut()
            .map(|stream| {
                scope.spawn(move || {
                    let writer = stream.try_clone().expect("a copy");
                    let writing = thread::spawn(move || {
                        let _ = (&writer).write_all(&[7; 400_000]);
                        let _ = writer.shutdown(Shutdown::Write);
                    });
                    let mut piece = [0; 1_000];
                    while 0 < uninterrupted(|| stream.read(&mut piece)).expect("no reset") {
                        thread::sleep(Duration::from_millis(2));
                    }
                    writing.join().expect("it ends");
                })
            })
            .collect();
        let mut seen = 0;
        while !readers.iter().all(thread::ScopedJoinHandle::is_finished) {
            seen = seen.max(kernel_threads(&server));
            thread::sleep(Duration::from_millis(5));
        }
        seen
    });
    assert_eq!(seen, 0, "threads of the kernel's for six slow readers");
}

/// Threads that work for a ring of the process (`iou-wrk-`).
fn kernel_threads(server: &Process) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.id())).expect("it runs");
    tasks
        .flatten()
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm"))
                .is_ok_and(|name| name.starts_with("iou-wrk"))
        })
        .count()
}

/// A process that stood still for longer than the idle time (stopped, frozen, starved) has heard of nobody, and everybody may
/// have sent something.
pub(crate) fn a_stall_makes_nobody_idle(engine: &str) {
    let idle = slow(Duration::from_millis(500));
    let server = Process::start(
        engine,
        &[
            "--threads",
            "1",
            "--idle-timeout",
            &slow_text(Duration::from_millis(500)),
            "--buffers",
            "2",
            "--buffer-size",
            "1KiB",
        ],
    );
    let mut streams: Vec<TcpStream> = (0..30).map(|_| connect_to(server.address)).collect();
    for stream in &mut streams {
        echo(stream, b"before");
    }
    for round in 0..3 {
        server.halt();
        for stream in &mut streams {
            stream.write_all(b"meanwhile").expect("the kernel takes it");
        }
        thread::sleep(2 * idle);
        server.signal(Signal::CONT);
        for (index, stream) in streams.iter_mut().enumerate() {
            let mut back = [0; 9];
            stream
                .read_exact(&mut back)
                .unwrap_or_else(|error| panic!("round {round}, connection {index}: {error}"));
            assert_eq!(&back, b"meanwhile");
        }
    }
}

/// However many wait to be accepted, who is connected gets an answer meanwhile.
pub(crate) fn a_long_listen_queue_holds_nobody_up(engine: &str) {
    const WAITING: usize = 600;
    let busy = slow(Duration::from_millis(500));
    let server = serve(engine, |config| {
        config.workers = vec![None];
        config.delay = echometer_server::delay::Delay::Busy {
            burn_ns: busy.as_nanos() as u64,
        };
    });
    let mut first = connect_to(address(&server));
    let mut second = connect_to(address(&server));
    until("both to be accepted", || server.stats().total.accepted == 2);
    let accepted = || server.stats().total.accepted as usize;
    let deadline = Instant::now() + limit();
    let meanwhile = loop {
        assert!(
            Instant::now() < deadline,
            "{WAITING} connects take too long"
        );
        let before = accepted();
        // While it is busy with the first, the queue fills, and the second's message comes. Then it is busy with that one.
        first.write_all(b"1").expect("sent");
        let began = Instant::now();
        thread::sleep(busy / 10);
        let waiting: Vec<TcpStream> = (0..WAITING).map(|_| connect_to(address(&server))).collect();
        second.write_all(b"2").expect("sent");
        let in_time = began.elapsed() < busy * 8 / 10;
        thread::sleep((busy * 3 / 2).saturating_sub(began.elapsed()));
        let meanwhile = accepted() - before;
        let in_time = in_time && began.elapsed() < busy * 17 / 10;
        for stream in [&mut first, &mut second] {
            stream.read_exact(&mut [0; 1]).expect("echoed");
        }
        drop(waiting);
        until("they to be gone", || server.stats().total.open == 2);
        if in_time {
            break meanwhile;
        }
    };
    assert!(
        meanwhile < WAITING / 2,
        "{meanwhile} of {WAITING} were accepted before the answer to one that was there"
    );
    close(&mut first);
    close(&mut second);
    finish(server);
}

/// What is owed is bounded in memory, and not only in bytes: small pieces cost no more than large ones.
pub(crate) fn small_pieces_take_no_more_memory(engine: &str) {
    // Many peers with little each.
    let flags = ["--threads", "1", "--sndbuf", "16KiB"];
    trickle(engine, &flags, 64, 4 * PIECES);
}

/// The same for those that are kept back.
pub(crate) fn small_pieces_that_are_kept_back_take_no_more_memory(engine: &str) {
    // Few peers with more than may be owed.
    let flags = ["--threads", "1", "--delay", "fixed:30s"];
    trickle(engine, &flags, 8, 8 * u64::from(OWED_MAX_DEFAULT));
}

/// Pieces of one byte.
const PIECES: u64 = 320_000;

fn trickle(engine: &str, flags: &[&str], peers: u64, promised: u64) {
    let server = Process::start(engine, flags);
    let peers: Vec<TcpStream> = (0..peers).map(|_| connect_narrow(server.address)).collect();
    // The sockets are full, and the pools were touched.
    for mut stream in &peers {
        stream
            .set_write_timeout(Some(Duration::from_millis(20)))
            .expect("a valid time");
        let _ = stream.write_all(&[1; 60_000]);
    }
    thread::sleep(slow(Duration::from_millis(300)));
    let before = anonymous_bytes(&server);
    for stream in &peers {
        stream.set_nonblocking(true).expect("a socket");
    }
    let mut written = 0;
    let began = Instant::now();
    for round in 0..PIECES / peers.len() as u64 {
        for mut stream in &peers {
            // Where the server does not read, they stay in the sockets.
            written += stream.write(&[1]).unwrap_or(0) as u64;
        }
        // So slowly that the server receives them one by one.
        let pace = Duration::from_micros(6) * peers.len() as u32;
        while began.elapsed() < pace * round as u32 {
            std::hint::spin_loop();
        }
    }
    thread::sleep(slow(Duration::from_millis(300)));
    let grown = anonymous_bytes(&server).saturating_sub(before);
    println!("{engine}: {grown} bytes for {written} in small pieces");
    // A page of each pool buffer may be touched only now.
    assert!(
        grown <= promised + (1 << 20),
        "{grown} bytes for {written} in small pieces"
    );
}
