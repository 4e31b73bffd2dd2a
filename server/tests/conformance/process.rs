//! The binary as its users see it: the ready line, the messages, the exit codes, the file.

use std::process::{Command, Output};

use crate::support::{Process, base_engine, close, connect_to, echo};

pub(crate) fn the_ready_line_says_what_runs(engine: &str) {
    let server = Process::start(engine, &["--cpus", "0", "--backlog", "16"]);
    let (head, features) = server
        .ready_line
        .trim_end()
        .split_once(" features=")
        .expect("the features come last");
    let address = server.address;
    assert_eq!(
        head,
        format!(
            "listening on {address} engine={} threads=1 cpus=0 backlog=16 effective_backlog=16",
            base_engine(engine)
        )
    );
    assert!(!features.is_empty() && !features.contains(' '));
    assert_ne!(address.port(), 0);

    let v6 = Process::start(engine, &["--listen", "[::1]:0", "--threads", "2"]);
    assert!(
        v6.ready_line.starts_with("listening on [::1]:"),
        "{}",
        v6.ready_line
    );
    assert!(
        v6.ready_line.contains(" threads=2 cpus=any "),
        "{}",
        v6.ready_line
    );
    echo(&mut connect_to(v6.address), b"hello");
}

pub(crate) fn a_taken_port_is_an_error_with_a_cure(engine: &str) {
    let owner = Process::start(engine, &[]);
    let address = owner.address.to_string();
    for args in [&["--threads", "1"][..], &["--threads", "2"]] {
        let output = run(&[
            &["--engine", base_engine(engine), "--listen", &address],
            args,
        ]
        .concat());
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1));
        let line =
            format!("error: cannot listen on {address}: Address already in use (os error 98)\n");
        assert!(stderr.starts_with(&line), "{stderr}");
        // The kernel keeps 15 bytes of a name.
        let hint = format!(
            "hint: process {} (echometer-serve) listens there",
            owner.id()
        );
        assert!(
            stderr.contains(&hint) && !stderr.contains("waiting"),
            "{stderr}"
        );
        assert!(output.stdout.is_empty());
    }
}

pub(crate) fn the_counters_are_written_at_exit(engine: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stats.json");
    let server = Process::start(
        engine,
        &["--threads", "2", "--stats", path.to_str().expect("text")],
    );
    let mut stream = connect_to(server.address);
    echo(&mut stream, &[7; 1000]);
    close(&mut stream);
    let stats = server.finish(&path);
    assert_eq!(
        (stats.schema.as_str(), stats.engine.as_str()),
        ("echometer.stats/1", base_engine(engine))
    );
    assert_eq!(
        (
            stats.total.accepted,
            stats.total.open,
            stats.total.closed["peer_closed"]
        ),
        (1, 0, 1)
    );
    assert_eq!(
        (
            stats.total.bytes_in,
            stats.total.bytes_out,
            stats.total.bytes_dropped
        ),
        (1000, 1000, 0)
    );
    assert_eq!(
        0 < stats.total.enters,
        crate::exception(engine, crate::ENTERS_ARE_COUNTED).is_none()
    );
    assert_eq!(
        stats
            .workers
            .iter()
            .map(|worker| worker.tally.accepted)
            .sum::<u64>(),
        1
    );
    assert!(!stats.features.is_empty());
}

#[test]
fn usage_errors_exit_2_and_name_the_flag() {
    for (args, words) in [
        (&["--listen", "localhost"][..], "--listen"),
        (&["--listen", "127.0.0.1:99999"], "99999"),
        (&["--engine", "nope"], "auto, "),
        (&["--drain-timeout", "5"], "unit"),
        (&["--delay", "fixed"], "--delay"),
        (&["--cpus", "0-"], "--cpus"),
        (&["--engine", "epoll", "--uring", "+bundle"], "--uring"),
        (&["--engine", "blocking", "--wait", "spin"], "--wait"),
        (
            &["--engine", "blocking", "--delay", "fixed:1ms"],
            "--engine uring or epoll",
        ),
        (&["--dual-stack"], "--listen [::]:7777"),
    ] {
        let output = run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
}

#[test]
fn a_cpu_that_is_not_there_exits_1() {
    let output = run(&["--listen", "127.0.0.1:0", "--cpus", "4000"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: cpu 4000 does not exist"));
}

#[test]
fn a_file_that_cannot_be_written_is_known_at_the_start() {
    let output = run(&[
        "--listen",
        "127.0.0.1:0",
        "--stats",
        "/nonexistent/stats.json",
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr.contains("/nonexistent/stats.json: No such file"),
        "{stderr}"
    );
}

/// Runs the binary to its end, for what should not start.
pub(crate) fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_echometer-server"))
        .args(args)
        .output()
        .expect("the binary is built")
}

/// As a user of the ring engine runs it; other engines have nothing to probe.
#[test]
fn probe_says_what_the_kernel_offers() {
    let text = run(&["probe"]);
    assert!(text.status.success(), "{text:?}");
    let text = String::from_utf8(text.stdout).expect("text");
    assert!(
        text.contains("multishot-recv") && !text.contains("FAULT"),
        "{text}"
    );
    let help = run(&["probe", "--help"]);
    let help = String::from_utf8(help.stdout).expect("text");
    assert!(
        help.contains("Examples:\n  echometer-server probe\n"),
        "{help}"
    );
    let json = run(&["probe", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["schema"], "echometer.probe/1");
    let checks = json["byte_checks"].as_array().expect("a list");
    assert!(!checks.is_empty() && checks.iter().all(|check| check["ok"] == true));
    assert_eq!(
        checks.iter().filter(|check| check["used"] == true).count(),
        1
    );
}

/// It agrees with the server: what it calls in use is what the ready line names, and one feature that fails its trial is
/// named with the reason, and is nothing to fail for.
#[test]
fn probe_says_what_the_server_does() {
    for failing in ["", "direct", "bundle,bind-listen", "multishot-recv"] {
        let with_failing = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_echometer-server"));
            command.env("ECHOMETER_FAILING_TRIALS", failing);
            command
        };
        let output = with_failing().args(["probe", "--json"]).output();
        let output = output.expect("the binary is built");
        assert!(output.status.success(), "{failing}: {output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let in_state = |state: &str| -> Vec<String> {
            let features = json["features"].as_array().expect("a list").iter();
            features
                .filter(|feature| feature["state"] == state)
                .map(|feature| feature["name"].as_str().expect("a name").to_owned())
                .collect()
        };
        let mut command = with_failing();
        command.args(["--engine", "uring"]);
        let server = Process::spawn(command, &["--threads", "1"]);
        let (_, used) = server
            .ready_line
            .trim_end()
            .split_once(" features=")
            .expect("the features come last");
        assert_eq!(in_state("in-use").join(","), used, "{failing}");
        let failed = in_state("failed-trial");
        for name in failing.split(',').filter(|name| !name.is_empty()) {
            assert!(failed.iter().any(|failed| failed == name), "{name}: {json}");
        }
    }
}

#[test]
fn what_was_asked_for_arrives_or_the_exit_says_so() {
    let shell = |script: &str| {
        let binary = env!("CARGO_BIN_EXE_echometer-server");
        Command::new("bash")
            .args(["-c", &format!("set -o pipefail; {script}"), "bash", binary])
            .output()
            .expect("bash runs")
    };
    for args in ["--help", "--version", "probe --help", "probe"] {
        let full = shell(&format!("\"$1\" {args} > /dev/full"));
        let stderr = String::from_utf8_lossy(&full.stderr);
        assert_eq!(full.status.code(), Some(1), "{args}: {stderr}");
        assert!(
            stderr.contains("No space left on device"),
            "{args}: {stderr}"
        );
        // Who reads no further has what he wants.
        let cut = shell(&format!("\"$1\" {args} | true"));
        let stderr = String::from_utf8_lossy(&cut.stderr);
        assert_eq!(cut.status.code(), Some(0), "{args}: {stderr}");
        assert!(stderr.is_empty(), "{args}: {stderr}");
        let limited = shell(&format!(
            "f=$(mktemp); (ulimit -f 0; \"$1\" {args} > $f); code=$?; rm $f; exit $code"
        ));
        let stderr = String::from_utf8_lossy(&limited.stderr);
        assert_eq!(limited.status.code(), Some(1), "{args}: {stderr}");
        assert!(
            stderr.contains("File too large") && stderr.contains("ulimit -f"),
            "{args}: {stderr}"
        );
    }
}

#[test]
fn a_ring_feature_that_does_not_exist_or_contradicts_is_a_usage_error() {
    for (switch, named) in [
        ("+warp", "multishot-accept"),
        ("+sqpoll", "-defer-taskrun"),
        ("+send-zc", "-skip-success"),
    ] {
        let output = run(&[
            "--engine",
            "uring",
            "--listen",
            "127.0.0.1:0",
            &format!("--uring={switch}"),
        ]);
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{switch}: {stderr}");
        assert!(stderr.contains(named), "{switch}: {stderr}");
    }
}
