//! What came of driving servers into corners: promises that are not those of every engine, or of no engine at all.

use std::io::{BufRead as _, BufReader, IoSlice, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use echometer_host::address::Address;
use echometer_host::units::show_duration;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;

use crate::support::{
    Pattern, Process, connect, connect_to, echo, finish, limit, serve, slow, until,
};

#[test]
fn a_stop_waits_for_no_delay() {
    for engine in ["epoll", "uring"] {
        let server = serve(engine, |config| {
            config.delay = "fixed:60s".parse().expect("valid");
            config.drain_timeout = Duration::from_secs(10);
        });
        let mut stream = connect(&server);
        stream.write_all(b"owed").expect("sent");
        until("it to be taken in", || server.stats().total.bytes_in == 4);
        server.stop();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("EOF, and no reset");
        assert_eq!(back, b"owed", "{engine}");
        drop(stream);
        assert_eq!(finish(server).total.closed["drained"], 1);
    }
}

#[test]
fn a_stop_ends_what_is_burnt() {
    const CONNECTIONS: usize = 30;
    for engine in ["epoll", "uring"] {
        let server = serve(engine, |config| {
            config.delay = "busy:1s".parse().expect("valid");
        });
        let streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(&server)).collect();
        for mut stream in &streams {
            stream.write_all(b"?").expect("sent");
        }
        until("it to be busy", || 0 < server.stats().total.bytes_in);
        drop(streams);
        let began = Instant::now();
        finish(server);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(15), "{engine}: {took:?} of 30 s");
    }
}

/// A server that was held up finds its timers run out and bytes waiting, both at once.
#[test]
fn who_has_sent_is_not_idle() {
    let idle = slow(Duration::from_secs(3));
    for engine in ["epoll", "tokio", "tokio-uring", "blocking"] {
        let flags = ["--threads", "1", "--idle-timeout", &show_duration(idle)];
        let server = Process::start(engine, &flags);
        let mut streams: Vec<TcpStream> = (0..40).map(|_| connect_to(server.address)).collect();
        for stream in &mut streams {
            echo(stream, b"hello");
        }
        server.halt();
        for stream in &mut streams {
            stream.write_all(b"still here").expect("sent");
        }
        thread::sleep(idle);
        server.signal(Signal::CONT);
        for stream in &mut streams {
            let mut back = [0; 10];
            stream
                .read_exact(&mut back)
                .unwrap_or_else(|error| panic!("{engine}: {error}"));
            assert_eq!(&back, b"still here");
        }
    }
}

/// A receive stops at descriptors that a peer of a unix socket sent along: what lies behind them must not be forgotten.
#[test]
fn descriptors_do_not_hold_up_what_follows() {
    let folder = tempfile::tempdir().expect("a folder");
    for engine in ["epoll", "uring"] {
        let path = folder.path().join(engine);
        let server = serve(engine, |config| {
            config.listen = Address::unix(&path).expect("short");
            config.delay = "busy:300ms".parse().expect("valid");
        });
        let mut first = UnixStream::connect(&path).expect("it listens");
        let mut stream = UnixStream::connect(&path).expect("it listens");
        stream
            .set_read_timeout(Some(limit()))
            .expect("a valid time");
        first.write_all(b"this keeps it busy").expect("sent");
        until("it to be busy", || 0 < server.stats().total.bytes_in);

        let passed = [stream.as_fd()];
        let mut space =
            [const { std::mem::MaybeUninit::uninit() }; rustix::cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        assert!(along.push(SendAncillaryMessage::ScmRights(&passed)));
        let bytes = [IoSlice::new(b"with it,")];
        if sendmsg(&stream, &bytes, &mut along, SendFlags::empty()) == Err(Errno::PERM) {
            // The server takes none, since 6.16.
            (&stream).write_all(b"with it,").expect("sent");
        }
        (&stream).write_all(b" behind it").expect("sent");
        let mut back = [0; 18];
        stream
            .read_exact(&mut back)
            .unwrap_or_else(|error| panic!("{engine}: {error}"));
        assert_eq!(&back, b"with it, behind it");
        drop((first, stream));
        finish(server);
    }
}

/// Nor one that meets a limit and has something to say of it.
#[test]
fn a_log_that_nobody_reads_harms_no_server() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 40 && exec \"$@\"", "sh"]);
    command.arg(env!("CARGO_BIN_EXE_echometer-server"));
    command.args(["--engine", "epoll", "--threads", "1", "--listen"]);
    let mut child = command
        .arg("127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(writer)
        .spawn()
        .expect("the binary is built");
    let mut ready_line = String::new();
    let stdout = child.stdout.as_mut().expect("piped");
    let read = BufReader::new(stdout).read_line(&mut ready_line);
    let address = ready_line.split(' ').nth(2).map(str::parse);
    let served = address.map(|address| {
        let address = address.expect("an address");
        let mut streams: Vec<TcpStream> = (0..60).map(|_| connect_to(address)).collect();
        echo(&mut streams[0], &Pattern::new(1).next(1000));
        drop(streams.split_off(1));
        // Whoever waited is let in by now, so the limit was met.
        echo(&mut connect_to(address), b"and others");
    });
    let _ = child.kill();
    let status = child.wait().expect("our child");
    assert!(read.is_ok() && served.is_some(), "it ended: {status}");
}

#[test]
fn a_cause_is_named_once_and_with_its_cure() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let binary = env!("CARGO_BIN_EXE_echometer-server");
    let run = |shell: &str, flags: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{shell} exec \"$@\""), "sh", binary]);
        let output = command
            .args(["--listen", "127.0.0.1:0", "--engine", "epoll"])
            .args(flags)
            .output()
            .expect("the binary is built");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    let metrics = run("", &["--metrics", &address]);
    assert_eq!(metrics.matches("os error 98").count(), 1, "{metrics}");
    assert!(metrics.contains("\nhint: "), "{metrics}");
    // One has no descriptor for its listeners, the other one for its epoll sets.
    for threads in ["100", "25"] {
        let text = run("ulimit -n 40 &&", &["--threads", threads]);
        assert_eq!(text.matches("os error 24").count(), 1, "{text}");
        assert!(text.contains("ulimit -n"), "{text}");
    }
}
