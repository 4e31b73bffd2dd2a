//! Servers, plans and phases for the tests.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use echometer_host::{address::Address, signals::Stop};
use echometer_loadgen::{Fleet, Membership, Phase, Plan, Target, plan::Engine};
use echometer_server::{
    config::{Config, EngineChoice},
    delay::Delay,
    running::{Running, start},
    stats::Stats,
};

/// Our own server, on a port of its own.
pub(crate) struct Server(Running);

impl Server {
    pub(crate) fn start(delay: &str) -> Server {
        Server::start_on("127.0.0.1:0", delay)
    }

    pub(crate) fn start_on(address: &str, delay: &str) -> Server {
        let config = Config {
            listen: address.parse().expect("an address"),
            // Which engine serves is of no matter here; the client's are what is tested.
            engine: EngineChoice::Named("epoll".to_owned()),
            delay: delay.parse::<Delay>().expect("a delay"),
            ..Config::default()
        };
        Server(start(config, &Stop::new().expect("a pipe")).expect("the server starts"))
    }

    pub(crate) fn target(&self) -> Target {
        Target::from(self.0.address().clone())
    }

    pub(crate) fn name(&self) -> String {
        self.0.address().to_string()
    }

    /// Stops it and gives what it counted.
    pub(crate) fn finish(self) -> Stats {
        self.0.stop();
        let (stats, result) = self.0.wait();
        result.expect("no worker failed");
        stats
    }
}

/// A peer that does to each connection what the test says, each on a thread of its own.
pub(crate) fn peer(behave: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let behave = behave.clone();
            thread::spawn(move || behave(stream));
        }
    });
    address
}

/// A listener with room for `backlog` and one more, which nobody accepts unless the test does.
pub(crate) fn listener_with_backlog(backlog: i32) -> TcpListener {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&socket, backlog).unwrap();
    TcpListener::from(socket)
}

pub(crate) fn target_of(address: SocketAddr) -> Target {
    Target::from(Address::Tcp(address))
}

/// A small plan for one engine.
pub(crate) fn plan(engine: Engine) -> Plan {
    Plan {
        connections: 8,
        engine,
        seed: 7,
        ..Plan::default()
    }
}

/// A stretch that counts messages by their start.
pub(crate) fn run_of(record_after_ms: u64, stop_after_ms: u64) -> Phase {
    Phase {
        greeting: Duration::ZERO,
        record_after: Duration::from_millis(record_after_ms),
        stop_after: Duration::from_millis(stop_after_ms),
        give_up_after: Duration::from_secs(20),
        membership: Membership::ByStart,
        intervals: Some(Duration::from_millis(50)),
    }
}

/// A stretch that counts replies.
pub(crate) fn slice_of(record_after_ms: u64, stop_after_ms: u64) -> Phase {
    Phase {
        greeting: Duration::ZERO,
        membership: Membership::ByReply,
        intervals: None,
        ..run_of(record_after_ms, stop_after_ms)
    }
}

/// Opens, drives one stretch, and closes.
pub(crate) fn drive(plan: &Plan, target: &Target, phase: &Phase) -> echometer_loadgen::Tally {
    let mut fleet = Fleet::start(plan).expect("a fleet");
    let session = fleet.open(target).expect("the peer listens");
    fleet.drive(session, phase).expect("a tally")
}

/// The real program.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echometer-loadgen"));
    command
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end, which is never by a panic.
pub(crate) fn output(words: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command(words).output().expect("the program runs");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(!stderr.contains("panicked"), "{stderr}");
    (status.code(), stdout.into_owned(), stderr.into_owned())
}

/// The report without the line breaks that keep it within 80 columns.
pub(crate) fn unwrapped(report: &str) -> String {
    report.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs the test `name` (with its module's path) again in a network namespace of its own, after `setup` in a shell there;
/// `true` within it. The namespace has its loopback up, and root's rights over its sysctls and mounts. A machine that
/// lets none be made fails the test, unless it says that it knows (`ECHOMETER_NO_NAMESPACES`).
pub(crate) fn in_a_namespace(name: &str, setup: &str) -> bool {
    const INSIDE: &str = "ECHOMETER_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        return true;
    }
    if std::env::var_os("ECHOMETER_NO_NAMESPACES").is_some() {
        println!("skipped: ECHOMETER_NO_NAMESPACES is set");
        return false;
    }
    let program = std::env::current_exe().expect("this very program");
    let script =
        format!("set -e; ip link set lo up; {setup}; exec \"$0\" --exact \"$1\" --nocapture");
    let output = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--net",
            "--mount",
            "sh",
            "-c",
            &script,
        ])
        .arg(program)
        .arg(name)
        .env(INSIDE, name)
        .output()
        .expect("unshare (util-linux) is there");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "in a namespace: {stdout}{stderr}"
    );
    false
}
