//! `echometer trace` as its users run it: real sockets, and the text that they read, held against what it should look
//! like with times, ports and descriptors replaced.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use serde_json::Value;

/// Runs `echometer trace`, and gives its exit code, stdout and stderr.
fn trace(words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_echometer"))
        .arg("trace")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("the bench starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(!stderr.contains("panicked"), "{stderr}");
    (output.status.code(), stdout, stderr)
}

/// The steps of a trace that ran to its end, as JSON.
fn steps(words: &[&str]) -> Vec<Value> {
    let words = [words, &["--json"]].concat();
    let (code, stdout, stderr) = trace(&words);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let trace: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(trace["schema"], "echometer.trace/1");
    assert_eq!(trace["complete"], true);
    trace["steps"].as_array().expect("steps").clone()
}

/// The text with what differs from run to run replaced, and one blank between words.
fn normalised(text: &str) -> String {
    let number = |word: &str| word.parse::<f64>().is_ok();
    let mut lines = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut said: Vec<String> = Vec::new();
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            let unit = words.peek().is_some_and(|next| {
                ["ns", "us", "ms", "s"].contains(&next.trim_end_matches(['.', ',']))
            });
            let after_name = said
                .last()
                .is_some_and(|last| last == "fd" || last == "limit");
            // Other programs' connections may be dropped in the same second.
            let machine_wide =
                word.starts_with('+') && said.last().is_some_and(|last| last == "machine");
            let before_name = words.peek().is_some_and(|next| **next == "effective");
            if number(word) && unit {
                words.next();
                said.push("TIME".to_owned());
            } else if word.starts_with("127.0.0.1:") {
                said.push("ADDRESS".to_owned());
            } else if machine_wide || number(word) && (after_name || before_name) {
                said.push("N".to_owned());
            } else {
                said.push((*word).to_owned());
            }
        }
        lines.push(said.join(" "));
    }
    lines.join("\n") + "\n"
}

/// Compares with `tests/golden/<name>`; `ECHOMETER_BLESS=1` writes it.
fn reads_like(words: &[&str], name: &str) {
    let (code, stdout, stderr) = trace(words);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(
        stdout.lines().all(|line| line.chars().count() <= 80),
        "{stdout}"
    );
    let normalised = normalised(&stdout);
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("ECHOMETER_BLESS").is_some() {
        fs::write(&path, &normalised).expect("it can be written");
    }
    let golden =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        normalised,
        golden,
        "{} (ECHOMETER_BLESS=1 writes it anew)",
        path.display()
    );
}

/// An echo server that knows nothing of us, for one connection.
fn foreign(behave: impl FnOnce(std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            behave(stream);
        }
    });
    address
}

fn echo(mut stream: std::net::TcpStream) {
    let mut bytes = [0; 64];
    while let Ok(n) = stream.read(&mut bytes) {
        if n == 0 || stream.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
}

/// Kernels before 6.11 do two of the steps by calls, and the text says so.
fn all_steps_are_operations() -> bool {
    steps(&["uring"])
        .iter()
        .any(|step| step["operation"] == "IORING_OP_BIND")
}

#[test]
fn uring_is_shown_from_both_sides() {
    if all_steps_are_operations() {
        reads_like(&["uring"], "trace-uring.txt");
    }
    let steps = steps(&["uring"]);
    let operations = steps.iter().filter(|step| {
        step["operation"]
            .as_str()
            .is_some_and(|text| text.starts_with("IORING_OP_"))
    });
    assert!(14 <= operations.count(), "{steps:?}");
}

#[test]
fn epoll_is_shown_from_both_sides_and_explained() {
    reads_like(&["epoll"], "trace-epoll.txt");
    reads_like(&["epoll", "--explain"], "trace-epoll-explained.txt");
}

#[test]
fn of_a_foreign_server_the_client_s_side_is_shown() {
    let address = foreign(echo).to_string();
    reads_like(&[&address], "trace-foreign.txt");
}

#[test]
fn steps_follow_each_other_in_time() {
    let steps = steps(&["epoll"]);
    let at = |step: &Value| step["at_ns"].as_u64().expect("a time");
    let took = |step: &Value| step["took_ns"].as_u64().expect("a time");
    assert_eq!(at(&steps[0]), 0);
    for pair in steps.windows(2) {
        assert!(at(&pair[0]) + took(&pair[0]) <= at(&pair[1]), "{pair:?}");
    }
}

#[test]
fn who_is_no_echo_server_is_told_apart() {
    let address = foreign(|mut stream| {
        let _ = stream.write_all(b"220 welcome\r\n");
        let _ = stream.read(&mut [0; 64]);
    });
    let (code, stdout, _) = trace(&[&address.to_string()]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("no echo server"), "{stdout}");

    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = nobody.local_addr().expect("bound").to_string();
    drop(nobody);
    let (code, stdout, _) = trace(&[&address]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("ECONNREFUSED"), "{stdout}");
}

#[test]
fn the_demonstrations_read_like_this() {
    for demo in ["port-in-use", "backlog-full", "peer-reset", "half-close"] {
        reads_like(&["--demo", demo], &format!("trace-{demo}.txt"));
    }
}

#[test]
fn the_demonstrations_really_happen() {
    for engine in ["epoll", "uring"] {
        let errors = |demo: &str| -> Vec<(String, String)> {
            steps(&[engine, "--demo", demo])
                .iter()
                .filter_map(|step| {
                    let text = |name: &str| step[name].as_str().map(str::to_owned);
                    Some((text("kind")?, text("error")?))
                })
                .collect()
        };
        let pair = |kind: &str, error: &str| (kind.to_owned(), error.to_owned());
        assert_eq!(errors("port-in-use"), [pair("bind", "EADDRINUSE")]);
        assert_eq!(
            errors("peer-reset"),
            [pair("receive", "ECONNRESET"), pair("echo", "EPIPE")]
        );
        assert_eq!(errors("half-close"), []);
        assert_eq!(errors("backlog-full"), [pair("connect", "no answer")]);
    }
}

#[test]
fn a_dropped_syn_is_sent_again_by_the_kernel() {
    let steps = steps(&["--demo", "backlog-full"]);
    let late = steps
        .iter()
        .find(|step| step["kind"] == "connect" && step["operation"] == "poll")
        .expect("the third connect");
    // The first repetition comes after a second (RFC 6298), a fifth of which was waited before.
    let took_ms = late["took_ns"].as_u64().expect("a time") / 1_000_000;
    assert!((500..4_000).contains(&took_ms), "{late}");
}
