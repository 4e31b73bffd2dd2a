//! Where a server can be reached, how many may wait there, and with which options.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use echometer_host::address::Address;
use echometer_host::signals::Stop;
use echometer_host::sockets::{ConnectOptions, connect_start, listen_queues};
use echometer_server::config::{Config, EngineChoice};
use echometer_server::running::{StartError, start};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;
use socket2::SockRef;

use crate::support::{Process, base_engine, close, connect_to, echo, finish, limit, serve, until};

pub(crate) fn a_unix_path_is_served(engine: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("echo.sock");
    // A server that died leaves its path behind.
    drop(UnixListener::bind(&path).expect("a new path"));
    let address = Address::unix(&path).expect("a short path");

    let server = serve(engine, |config| {
        config.listen = address.clone();
        config.workers = vec![None; 2];
    });
    let line = server.ready_line().to_string();
    assert!(
        line.starts_with(&format!("listening on {address} ")),
        "{line}"
    );
    let mut streams: Vec<UnixStream> = (0..10)
        .map(|_| {
            let stream = UnixStream::connect(&path).expect("the server listens");
            stream
                .set_read_timeout(Some(limit()))
                .expect("a valid time");
            stream
        })
        .collect();
    for stream in &mut streams {
        stream.write_all(b"over a path").expect("sent");
    }
    for stream in &mut streams {
        let mut back = [0; 11];
        stream.read_exact(&mut back).expect("echoed");
        assert_eq!(&back, b"over a path");
    }

    // A path in use is not taken, and its owner is none the worse for the attempt.
    let second = Config {
        listen: address,
        engine: EngineChoice::Named(base_engine(engine).into()),
        ..Config::default()
    };
    match start(second, &Stop::new().expect("a pipe")) {
        Err(StartError::Listen(error)) if error.is_in_use() => {}
        other => panic!("a path in use was taken: {other:?}"),
    }
    UnixStream::connect(&path).expect("the first still listens");

    for stream in &mut streams {
        stream.shutdown(Shutdown::Write).expect("connected");
        assert_eq!(stream.read(&mut [0; 1]).expect("EOF, and no reset"), 0);
    }
    until("all to be closed", || server.stats().total.open == 0);
    assert_eq!(finish(server).total.bytes_in, 110);
}

/// Who may connect is who may write to the path, and that is said.
pub(crate) fn the_mode_of_a_unix_path_is_by_the_umask(engine: &str) {
    for (umask, mode) in [("077", 0o700), ("007", 0o770), ("0", 0o777)] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("echo.sock");
        let listen = format!("unix:{}", path.display());
        let script = format!("umask {umask} && exec \"$@\"");
        let flags = ["--listen", &listen, "--threads", "1"];
        let server = Process::start_by(engine, &script, &flags);
        let metadata = std::fs::metadata(&path).expect("it is bound");
        assert_eq!(metadata.permissions().mode() & 0o777, mode);
        server.signal(Signal::TERM);
        let (status, stderr) = server.wait();
        assert!(status.success(), "{stderr}");
        assert!(stderr.contains(&format!("mode {mode:04o}")), "{stderr}");
    }
}

/// Who receives a message that brings descriptors closes them, and the close of a socket may take as long as its owner likes.
pub(crate) fn a_passed_descriptor_holds_nobody_up(engine: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("echo.sock");
    let server = serve(engine, |config| {
        config.listen = Address::unix(&path).expect("a short path");
        config.workers = vec![None];
    });
    let (socket, _other) = UnixStream::pair().expect("a pair");
    if echometer_ring::refuse_descriptors(socket.as_fd()).is_err() {
        let limits = server.limits();
        assert!(limits.contains("Linux 6.16"), "{limits}");
        println!("this kernel can't refuse descriptors");
        finish(server);
        return;
    }
    let mut neighbour = UnixStream::connect(&path).expect("the server listens");
    neighbour.write_all(b"here").expect("sent");
    neighbour.read_exact(&mut [0; 4]).expect("echoed");

    // Its close waits for six seconds, because the other end does not read what was sent.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let lingering = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let (_unread, _) = listener.accept().expect("connected");
    let linger = Duration::from_secs(6);
    SockRef::from(&lingering)
        .set_linger(Some(linger))
        .expect("a socket");
    lingering.set_nonblocking(true).expect("a socket");
    while (&lingering).write(&[0; 64 * 1024]).is_ok() {}

    let passing = UnixStream::connect(&path).expect("the server listens");
    let descriptors = [lingering.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let bytes = [IoSlice::new(b"take this")];
    // Since 6.16 it is refused here.
    let _ = sendmsg(&passing, &bytes, &mut control, SendFlags::empty());
    drop(lingering);
    let began = Instant::now();
    for _ in 0..20 {
        neighbour.write_all(b"still there?").expect("sent");
        neighbour.read_exact(&mut [0; 12]).expect("echoed");
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = began.elapsed();
    assert!(took < linger / 2, "a worker stood still: {took:?}");
    drop((neighbour, passing));
    until("both to be closed", || server.stats().total.open == 0);
    finish(server);
}

pub(crate) fn v4_reaches_a_v6_address_by_choice(engine: &str) {
    for dual_stack in [false, true] {
        let server = serve(engine, |config| {
            config.listen = Address::Tcp((Ipv6Addr::UNSPECIFIED, 0).into());
            config.dual_stack = dual_stack;
            config.workers = vec![None; 2];
        });
        let port = server.address().port().expect("a TCP address");
        let mut v6 = connect_to((Ipv6Addr::LOCALHOST, port).into());
        echo(&mut v6, b"over v6");
        close(&mut v6);
        if dual_stack {
            let mut v4 = connect_to((Ipv4Addr::LOCALHOST, port).into());
            echo(&mut v4, b"over v4");
            close(&mut v4);
        } else {
            let v4: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
            TcpStream::connect(v4).expect_err("v6 alone was asked for");
        }
        finish(server);
    }
}

pub(crate) fn the_backlog_is_what_the_ready_line_says(engine: &str) {
    let said = |server: &Process| -> u32 {
        let word = server
            .ready_line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("effective_backlog="));
        word.expect("it is said").parse().expect("a number")
    };
    // More than any machine allows: the kernel cuts it.
    let server = Process::start(engine, &["--threads", "2", "--backlog", "2000000000"]);
    let queues = listen_queues(server.address.port()).expect("the kernel tells");
    assert_eq!(queues.len(), 2);
    assert!(
        queues.iter().all(|queue| queue.limit == said(&server)),
        "{queues:?}"
    );
    drop(server);

    let server = Process::start(engine, &["--threads", "1", "--backlog", "4"]);
    assert_eq!(said(&server), 4);
    // A process that is halted accepts nobody: the queue fills, with one more than its limit, and the rest try again
    // a second later.
    server.halt();
    let address = Address::Tcp(server.address);
    let options = ConnectOptions::default();
    let _clients: Vec<_> = (0..8)
        .map(|_| connect_start(&address, &options).expect("a descriptor"))
        .collect();
    let waiting = || {
        let queues = listen_queues(server.address.port()).expect("the kernel tells");
        queues.iter().map(|queue| queue.waiting).sum::<u32>()
    };
    until("the queue to fill", || waiting() == 5);
    server.signal(Signal::CONT);
    until("the queue to be taken in", || waiting() == 0);
    echo(&mut connect_to(server.address), b"and the next are served");
}

pub(crate) fn socket_options_are_set_and_read_back(engine: &str) {
    let server = serve(engine, |config| {
        config.nodelay = false;
        config.sndbuf = Some(65_536);
        config.rcvbuf = Some(32_768);
    });
    let limits = server.limits();
    // socket(7): the kernel doubles what is asked.
    for words in [
        "nodelay off",
        "sndbuf 131072 B (asked 65536 B)",
        "rcvbuf 65536 B (asked 32768 B)",
    ] {
        assert!(limits.contains(words), "`{words}` is not in: {limits}");
    }
    finish(server);
    let server = serve(engine, |_| {});
    assert!(
        server.limits().contains("nodelay on"),
        "{}",
        server.limits()
    );
    finish(server);
}
