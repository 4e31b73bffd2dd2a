//! The counters for Prometheus: what is served can be parsed, is true, and comes while the workers work.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::sandbox::confined;
use crate::support::{
    Process, base_engine, close, connect, echo, finish, serve, uninterrupted, until,
};

pub(crate) fn the_metrics_can_be_read_while_a_load_runs(engine: &str) {
    let server = serve(engine, |config| {
        config.workers = vec![None; 2];
        config.backlog = 64;
        config.metrics = Some(([127, 0, 0, 1], 0).into());
    });
    let address = server.metrics_address().expect("asked for");
    let mut streams: Vec<TcpStream> = (0..8).map(|_| connect(&server)).collect();
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        for stream in &mut streams {
            let enough = &enough;
            scope.spawn(move || {
                while !enough.load(Ordering::Relaxed) {
                    echo(stream, &[7; 64]);
                }
            });
        }
        let first = scrape(address);
        until("the load to show", || {
            let now = scrape(address);
            sum(&first, "echometer_bytes_in_total") + 64_000 < sum(&now, "echometer_bytes_in_total")
        });
        enough.store(true, Ordering::Relaxed);
    });

    let samples = scrape(address);
    let total = server.stats().total;
    assert_eq!(
        sum(&samples, "echometer_connections_accepted_total"),
        total.accepted
    );
    assert_eq!(sum(&samples, "echometer_connections_open"), 8);
    assert_eq!(sum(&samples, "echometer_bytes_in_total"), total.bytes_in);
    // The ring learns of the success of silent sends with its next system call: the last ones may not be counted yet.
    let sent = sum(&samples, "echometer_bytes_out_total");
    assert!(0 < sent && sent <= total.bytes_in);
    for name in [
        "enters",
        "cqes",
        "recv_parks",
        "cq_overflows",
        "send_stalls",
    ] {
        for worker in ["0", "1"] {
            let key = format!("echometer_{name}_total{{worker=\"{worker}\"}}");
            assert!(samples.contains_key(&key), "{key} is not in {samples:?}");
        }
    }
    let reset = "echometer_connections_closed_total{worker=\"0\",reason=\"reset\"}";
    assert_eq!(samples.get(reset), Some(&0));
    let limit = "echometer_accept_errors_total{worker=\"1\",kind=\"process_limit\"}";
    assert_eq!(samples.get(limit), Some(&0));
    assert_eq!(sum(&samples, "echometer_listen_queue_limit"), 2 * 64);
    assert_eq!(sum(&samples, "echometer_listen_queue_depth"), 0);
    assert!(samples.contains_key("echometer_kernel_listen_overflows_total"));
    assert!(samples.contains_key("echometer_kernel_listen_drops_total"));
    let info = format!(
        "echometer_server_info{{engine=\"{}\"}}",
        base_engine(engine)
    );
    assert_eq!(samples.get(&info), Some(&1));

    for stream in &mut streams {
        close(stream);
    }
    until("the ends to show", || {
        let samples = scrape(address);
        sum(&samples, "echometer_connections_open") == 0
            && sum(&samples, "echometer_connections_closed_total") == 8
            && sum(&samples, "echometer_bytes_out_total") == total.bytes_in
    });
    finish(server);
}

#[test]
fn a_taken_metrics_address_is_an_error_with_a_cure() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_echometer-server"))
        .args(["--listen", "127.0.0.1:0", "--metrics", &address])
        .output()
        .expect("the binary is built");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.starts_with(&format!(
            "error: cannot serve metrics on {address}: Address"
        )),
        "{stderr}"
    );
    assert!(stderr.contains("hint: "), "{stderr}");
}

#[test]
fn the_log_says_where_the_metrics_are() {
    let server = Process::start("epoll", &["--metrics", "127.0.0.1:0"]);
    server.signal(rustix::process::Signal::TERM);
    let (_, stderr) = server.wait();
    assert!(stderr.contains("metrics: http://127.0.0.1:"), "{stderr}");
}

/// Without `sock_diag` nobody knows how many wait: that is not 0.
#[test]
fn what_is_not_known_of_the_queue_is_absent() {
    let netlink = seccompiler::SeccompCondition::new(
        0,
        seccompiler::SeccompCmpArgLen::Dword,
        seccompiler::SeccompCmpOp::Eq,
        libc::AF_NETLINK as u64,
    );
    let rule = netlink.and_then(|condition| seccompiler::SeccompRule::new(vec![condition]));
    let denial = (
        libc::SYS_socket,
        libc::EPROTONOSUPPORT,
        vec![rule.expect("a rule")],
    );
    confined([denial], || {
        let server = serve("epoll", |config| {
            config.metrics = Some(([127, 0, 0, 1], 0).into());
        });
        let samples = scrape(server.metrics_address().expect("asked for"));
        assert!(samples.contains_key("echometer_connections_open{worker=\"0\"}"));
        let queue = samples.keys().find(|key| key.contains("listen_queue"));
        assert_eq!(queue, None);
        finish(server);
    });
}

/// One scrape, as samples by name and labels. Anything that is not as OpenMetrics has it fails.
fn scrape(address: SocketAddr) -> BTreeMap<String, u64> {
    let mut stream = TcpStream::connect(address).expect("metrics are served");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    uninterrupted(|| stream.read_to_string(&mut answer)).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an empty line");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let body = body.strip_suffix("# EOF\n").expect("the end is marked");

    let mut samples = BTreeMap::new();
    let mut described = String::new();
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            let keyword = words.next().expect("a word");
            assert!(["HELP", "TYPE"].contains(&keyword), "{line}");
            described = words.next().expect("a name").to_owned();
            continue;
        }
        let (key, value) = line.rsplit_once(' ').expect("a value");
        assert!(
            key.starts_with("echometer_") && key.starts_with(&described),
            "{line} stands under {described}"
        );
        let value = value.parse().expect("a whole number");
        assert!(
            samples.insert(key.to_owned(), value).is_none(),
            "{key} stands twice"
        );
    }
    samples
}

/// The sum of a metric over its labels.
fn sum(samples: &BTreeMap<String, u64>, name: &str) -> u64 {
    let of_name = samples
        .iter()
        .filter(|(key, _)| key.split('{').next() == Some(name));
    of_name.map(|(_, value)| value).sum()
}
