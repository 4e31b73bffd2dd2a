//! A server starts where another has just been, and says what is true where it can't.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use echometer_ring::{Config as RingConfig, Ring};
use rustix::process::Signal;

use crate::process::run;
use crate::support::{Process, base_engine, connect_to, echo, until};

/// How long a start waits for an address that nobody to be seen holds.
const PATIENCE: Duration = Duration::from_secs(2);

/// A supervisor's restart works, after a stop and after a kill. A stop leaves nothing to be waited for; after a kill it is
/// the kernel that is waited for.
pub(crate) fn the_next_server_finds_the_address_free(engine: &str) {
    for listen in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        for (signal, threads) in [(Signal::KILL, "1"), (Signal::TERM, "2")] {
            let mut server = Process::start(engine, &["--listen", listen, "--threads", threads]);
            let address = server.address.to_string();
            for _ in 0..4 {
                let mut client = connect_to(local(server.address));
                echo(&mut client, b"hello");
                drop(client);
                server.signal(signal);
                let (_, stderr) = server.wait();
                assert!(
                    signal == Signal::KILL || !stderr.contains("is taken"),
                    "{stderr}"
                );
                server = Process::start(engine, &["--listen", &address, "--threads", threads]);
            }
            if signal == Signal::TERM {
                server.signal(signal);
                let (_, stderr) = server.wait();
                assert!(!stderr.contains("is taken"), "{stderr}");
            }
        }
    }
    if crate::exception(engine, "a_unix_path_is_served").is_some() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("echo.sock");
    let listen = format!("unix:{}", path.display());
    for signal in [Signal::KILL, Signal::TERM, Signal::KILL, Signal::KILL] {
        let server = Process::start(engine, &["--listen", &listen, "--threads", "2"]);
        assert!(
            server.ready_line.starts_with("listening on unix:"),
            "{}",
            server.ready_line
        );
        server.signal(signal);
        server.wait();
    }
}

fn local(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true => (std::net::Ipv6Addr::LOCALHOST, address.port()).into(),
        false => address,
    }
}

/// A living server's listener may be in a ring only: it is waited for, and the hint says what is known.
#[test]
fn a_listener_without_a_descriptor_is_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("echo.sock");
    for engine in ["uring", "epoll"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let ring = only_in_a_ring(listener);
        refused_after_a_while(engine, &address);
        drop(ring);
        until("the ring to let go of it", || {
            TcpListener::bind(&address).is_ok()
        });
        Process::start(engine, &["--listen", &address]);
    }
    // Of a unix socket the kernel knows who began to listen, and that is this process.
    let listener = UnixListener::bind(&path).expect("a new path");
    let _ring = only_in_a_ring(listener);
    let output = run(&[
        "--engine",
        "epoll",
        "--listen",
        &format!("unix:{}", path.display()),
    ]);
    let stderr = String::from_utf8(output.stderr).expect("text");
    let hint = format!("hint: process {} (", std::process::id());
    assert!(stderr.contains(&hint), "{stderr}");
}

/// A server elsewhere whose processes can't be seen from here: the same.
#[test]
fn a_listener_of_another_pid_namespace_is_waited_for() {
    let owner = Process::start("epoll", &[]);
    let address = owner.address.to_string();
    let unshare = [
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
    ];
    let allowed = Command::new("unshare").args(unshare).arg("true").output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        println!("this machine lets no pid namespace be made");
        return;
    }
    let began = Instant::now();
    let output = Command::new("unshare")
        .args(unshare)
        .arg(env!("CARGO_BIN_EXE_echometer-server"))
        .args(["--engine", "epoll", "--listen", &address])
        .output()
        .expect("unshare runs");
    assert_waited(&address, began, &output);
}

fn only_in_a_ring(listener: impl AsFd) -> Ring {
    let mut ring = Ring::new(&RingConfig::default()).expect("a ring");
    let slot = ring.install(listener.as_fd()).expect("a place");
    ring.accept(slot);
    ring.submit().expect("armed");
    ring
}

fn refused_after_a_while(engine: &str, address: &str) {
    let began = Instant::now();
    let output = run(&["--engine", base_engine(engine), "--listen", address]);
    assert_waited(address, began, &output);
}

fn assert_waited(address: &str, began: Instant, output: &std::process::Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(PATIENCE <= began.elapsed(), "{stderr}");
    let note = format!("note: {address} is taken, waiting up to 2s for it: no process that can");
    assert!(stderr.starts_with(&note), "{stderr}");
    assert_eq!(stderr.matches("note: ").count(), 1, "said once: {stderr}");
    assert!(
        stderr.contains("hint: no process that can be seen from here holds the listener"),
        "{stderr}"
    );
}
