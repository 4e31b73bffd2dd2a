//! The program as its user meets it: exit codes, messages, files.

use std::{fs, io::Read, path::Path, time::Duration};

use echometer_loadgen::file::RunFile;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Server, command, output, peer, unwrapped};

#[test]
fn json_has_what_was_promised() {
    let server = Server::start("none");
    let (code, stdout, stderr) = output(&[
        &server.name(),
        "-c",
        "5",
        "-s",
        "64",
        "-d",
        "400ms",
        "-w",
        "50ms",
        "--json",
    ]);
    // A short run on a shared machine may be unsteady or noisy; it must never be anything worse.
    assert!(matches!(code, Some(0 | 3)), "{code:?} {stderr}");
    let json: serde_json::Value = serde_json::from_str(&stdout).expect("JSON and nothing else");
    assert_eq!(json["schema"], "echometer.run/1");
    for field in [
        "plan",
        "machine",
        "server",
        "intervals",
        "end",
        "verdict",
        "cut_short",
    ] {
        assert!(!json[field].is_null(), "{field}");
    }
    let end = &json["end"];
    for field in [
        "messages",
        "sent",
        "answered",
        "lost",
        "outstanding",
        "censored",
        "clipped",
        "connections_opened",
        "reconnects",
    ] {
        assert!(end[field].is_u64(), "{field}");
    }
    for histogram in [
        "latency_ns",
        "service_ns",
        "queue_ns",
        "send_lag_ns",
        "connect_ns",
    ] {
        for figure in [
            "count", "min", "mean", "p50", "p90", "p99", "p99_9", "p99_99", "max",
        ] {
            assert!(end[histogram].get(figure).is_some(), "{histogram}.{figure}");
        }
    }
    for figure in [
        "cpu_ns_per_message",
        "busiest_thread",
        "run_delay_ns",
        "steal_ratio",
    ] {
        assert!(end["client"].get(figure).is_some(), "client.{figure}");
    }
    let number = |field: &str| end[field].as_u64().unwrap();
    assert_eq!(
        number("sent"),
        number("answered") + number("lost") + number("outstanding")
    );
    assert_eq!(number("messages"), number("answered"));
    assert_eq!(
        (number("connections_opened"), &json["cut_short"]),
        (5, &serde_json::Value::Bool(false))
    );
    assert!(
        end["connect_ns"]["p50"].is_null(),
        "5 samples have no median that can be told"
    );
    assert_eq!(
        end["life"]["sent_bytes"].as_u64(),
        Some(server.finish().total.bytes_in)
    );
}

#[test]
fn usage_errors_name_flag_cause_and_cure() {
    for (flags, named) in [
        (&["-c", "0"][..], "--connections"),
        (&["-s", "0"], "--size"),
        (&["-R", "0"], "--rate"),
        (&["-d", "0s"], "--duration"),
        (&["-d", "10"], "unit is missing"),
        (&["--engine", "nope"], "epoll"),
        (&["--threads", "9", "-c", "8"], "--threads"),
        (&["--cpus", "0", "--threads", "2"], "--threads"),
    ] {
        let (code, stdout, stderr) = output(&[&["127.0.0.1:1"], flags].concat());
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{flags:?}");
        assert!(stderr.contains(named), "{flags:?}: {stderr}");
    }
    // What a unix socket has not is refused, and not ignored; what it has is not (nobody is there: exit 1).
    for (flags, refused) in [
        (&["--timestamps", "kernel"][..], true),
        (&["--source", "127.0.0.2-127.0.0.9"], true),
        (&["--nagle"], true),
        (&["--rcvbuf", "64KiB"], true),
        (&["--requests-per-connection", "1", "--close", "rst"], true),
        (&["--requests-per-connection", "1", "--close", "fin"], false),
        (&["--sndbuf", "64KiB"], false),
        (&["--connect-rate", "10"], false),
    ] {
        let (code, _, stderr) = output(&[&["unix:/nowhere/echo"], flags].concat());
        let flag = flags[flags.len().saturating_sub(2)];
        match refused {
            true => assert!(
                code == Some(2) && stderr.contains(flag) && stderr.contains("HOST:PORT"),
                "{flags:?}: {stderr}"
            ),
            false => assert_eq!(code, Some(1), "{flags:?}: {stderr}"),
        }
    }
    for address in ["127.0.0.1", "127.0.0.1:0", "unix:"] {
        let (code, _, stderr) = output(&[address]);
        assert_eq!(code, Some(2), "{address}: {stderr}");
    }
}

#[test]
fn nobody_there_is_one_line_and_exit_1() {
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let (code, stdout, stderr) = output(&[&address, "-d", "1s"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.starts_with("error: cannot connect to ") && stderr.contains(&address),
        "{stderr}"
    );
}

#[test]
fn a_cpu_that_is_not_there_is_exit_1() {
    let (code, _, stderr) = output(&["127.0.0.1:1", "--cpus", "8000"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("8000") && stderr.lines().count() == 1,
        "{stderr}"
    );
}

#[test]
fn files_hold_the_run() {
    let server = Server::start("none");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("a/b");
    let words = [
        &server.name(),
        "-R",
        "2k",
        "-d",
        "600ms",
        "-w",
        "100ms",
        "--interval",
        "200ms",
        "--wait",
        "block",
        "--out",
    ];
    let (code, stdout, stderr) =
        output(&[&words[..], &[out.to_str().unwrap(), "--latency"]].concat());
    assert!(matches!(code, Some(0 | 3)), "{code:?} {stderr}");
    assert!(
        stdout.contains("verdict: ") && stdout.contains("#[Mean "),
        "{stdout}"
    );
    assert!(
        stdout
            .lines()
            .all(|line| line.chars().count() <= 80 || line.contains("run.json")),
        "{stdout}"
    );

    let run = RunFile::read(&out.join("run.json")).unwrap();
    assert_eq!(run.intervals.len(), 3);
    assert_eq!(
        run.intervals.iter().map(|row| row.answered).sum::<u64>(),
        run.end.answered
    );
    assert!(
        run.intervals
            .windows(2)
            .all(|pair| pair[0].end_ns == pair[1].start_ns)
    );
    assert_eq!(run.intervals[2].end_ns, 600_000_000);

    let log = fs::read(out.join("run.hlog")).unwrap();
    let mut lines = std::collections::BTreeMap::new();
    for entry in IntervalLogIterator::new(&log) {
        if let LogEntry::Interval(interval) = entry.expect("a well-formed log") {
            *lines
                .entry(
                    interval
                        .tag()
                        .expect("every line has a tag")
                        .as_str()
                        .to_owned(),
                )
                .or_insert(0) += 1;
        }
    }
    let lines: Vec<_> = lines
        .iter()
        .map(|(tag, count)| (tag.as_str(), *count))
        .collect();
    assert_eq!(lines, [("connect", 1), ("latency", 3), ("service", 3)]);

    let spectrum = fs::read_to_string(out.join("run.hgrm")).unwrap();
    let total = run.end.latency_ns.count;
    assert!(
        spectrum.contains(&format!("Total count    = {total:>12}]")),
        "{spectrum}"
    );
}

#[test]
fn a_server_that_dies_ends_the_run_with_files() {
    let address = peer(|mut stream| {
        let mut buffer = [0; 64];
        for _ in 0..200 {
            if stream.read_exact(&mut buffer).is_err()
                || std::io::Write::write_all(&mut stream, &buffer).is_err()
            {
                return;
            }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let (code, stdout, _) = output(&[
        &address.to_string(),
        "-c",
        "3",
        "-d",
        "20s",
        "-w",
        "0s",
        "--out",
        out,
    ]);
    assert_eq!(code, Some(3), "{stdout}");
    assert!(
        unwrapped(&stdout).contains("did the server die?"),
        "{stdout}"
    );
    let run = RunFile::read(&folder.path().join("run.json")).unwrap();
    assert_eq!(
        (run.verdict.status.name(), run.cut_short),
        ("errors", false)
    );
    assert_eq!(run.end.errors.values().sum::<u64>(), 3);
    assert_eq!(run.end.life.answered, 600);
    assert_eq!(run.end.life.sent, 600 + run.end.life.lost);
}

#[test]
fn a_killed_server_ends_a_run_that_reconnects_on_time_and_with_files() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    for flags in [&["--reconnect"][..], &["--requests-per-connection", "1"]] {
        let server = Server::start("none");
        let name = server.name();
        let words = [
            "-c",
            "3",
            "-d",
            "700ms",
            "-w",
            "0s",
            "--interval",
            "50ms",
            "--out",
            out,
        ];
        let words: Vec<&str> = [name.as_str()]
            .into_iter()
            .chain(words)
            .chain(flags.iter().copied())
            .collect();
        let _ = fs::remove_file(folder.path().join("run.hlog"));
        let child = command(&words).spawn().unwrap();
        wait_for_interval(folder.path());
        let begun = std::time::Instant::now();
        server.finish();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(3), "{flags:?}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{flags:?}");
        let stdout = String::from_utf8(ended.stdout).unwrap();
        assert!(
            unwrapped(&stdout).contains("did the server die"),
            "{stdout}"
        );
        let run = RunFile::read(&folder.path().join("run.json")).unwrap();
        assert_eq!(run.verdict.status.name(), "errors");
        assert!(
            0 < run.end.errors["connect_refused"],
            "{:?}",
            run.end.errors
        );
        assert!(0 < run.end.answered && !run.cut_short);
    }
}

#[test]
fn a_signal_ends_the_run_early_and_keeps_it() {
    let server = Server::start("none");
    let folder = tempfile::tempdir().unwrap();
    let of_earlier = ["run.json", "run.hgrm"].map(|name| folder.path().join(name));
    of_earlier
        .iter()
        .for_each(|path| fs::write(path, "of an earlier run").unwrap());
    let out = folder.path().to_str().unwrap();
    let words = [
        &server.name(),
        "-c",
        "3",
        "-d",
        "60s",
        "-w",
        "0s",
        "--interval",
        "50ms",
        "--json",
        "--out",
        out,
    ];
    let mut child = command(&words).spawn().unwrap();
    wait_for_interval(folder.path());
    assert!(
        of_earlier.iter().all(|path| !path.exists()),
        "beside the new log they would pass for this run's"
    );
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let mut stdout = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut stdout)
        .unwrap();
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(0 | 3)), "{code:?}");
    let run: RunFile = serde_json::from_str(&stdout).unwrap();
    assert!(run.cut_short && run.end.window_ns < 60_000_000_000);
    assert!(0 < run.end.answered && run.end.lost + run.end.outstanding == 0);
    assert_eq!(RunFile::read(&folder.path().join("run.json")).unwrap(), run);
}

#[test]
fn connects_of_a_run_that_reconnects_are_all_told() {
    // Twenty messages per connection.
    let address = peer(|mut stream| {
        let mut buffer = [0; 64];
        for _ in 0..20 {
            if stream.read_exact(&mut buffer).is_err()
                || std::io::Write::write_all(&mut stream, &buffer).is_err()
            {
                return;
            }
        }
    });
    let address = address.to_string();
    let flags = ["--reconnect", "-c", "2", "-d", "300ms", "-w", "0s"];
    let (_, stdout, stderr) = output(&[&[&address, "--json"], &flags[..]].concat());
    let run: RunFile = serde_json::from_str(&stdout).expect(&stderr);
    let end = run.end;
    let opened = end.connections_opened;
    assert!(10 <= opened && end.reconnects == opened - 2, "{opened}");
    // A connect that began as the window ended is not of it.
    assert!((opened - 2..=opened).contains(&end.connect_ns.count));
    assert!(0 < end.first_echo_ns.count && end.first_echo_ns.count <= end.reconnects);
}

#[test]
fn a_file_that_fails_loses_no_figures() {
    let server = Server::start("none");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let name = server.name();
    // After the run has begun, something stands where the run file is to be written.
    let (log, taken) = (folder.path().to_owned(), folder.path().join("run.json"));
    let in_the_way = std::thread::spawn(move || {
        while growing_log(&log).is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::fs::create_dir(taken).unwrap();
    });
    let flags = ["-c", "2", "-d", "500ms", "-w", "0s"];
    let (code, stdout, stderr) = output(&[&[&name, "--out", out], &flags[..]].concat());
    in_the_way.join().unwrap();
    assert_eq!(code, Some(1));
    assert!(stderr.contains("run.json: Is a directory"), "{stderr}");
    assert!(
        stdout.contains("round trip") && stdout.contains("verdict:"),
        "{stdout}"
    );
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(!stdout.contains("written:") && left == 3, "{left} files");
}

#[test]
fn a_signal_in_the_warm_up_leaves_files_and_no_valid_run() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let (warm, warming) = std::sync::mpsc::channel();
    let address = peer(move |mut stream| {
        let mut buffer = [0; 64];
        while stream.read_exact(&mut buffer).is_ok()
            && std::io::Write::write_all(&mut stream, &buffer).is_ok()
        {
            let _ = warm.send(());
        }
    });
    let address = address.to_string();
    let words = [&address, "-c", "2", "-d", "60s", "-w", "60s", "--out", out];
    let child = command(&words).spawn().unwrap();
    warming
        .recv_timeout(Duration::from_secs(20))
        .expect("the warm-up begins");
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(3));
    let run = RunFile::read(&folder.path().join("run.json")).unwrap();
    assert!(run.cut_short && run.end.sent == 0 && 0 < run.end.life.answered);
    assert_eq!(run.verdict.status.name(), "errors");
    assert!(
        run.verdict.reasons[0].contains("was stopped"),
        "{:?}",
        run.verdict
    );
}

#[test]
fn a_signal_while_connecting_is_heard() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // The second connection would come after 1,000 s.
    let child = command(&[&address, "-c", "2", "--connect-rate", "0.001"])
        .spawn()
        .unwrap();
    let _first = listener.accept().unwrap();
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert!(
        stderr.starts_with("error: stopped") && stderr.lines().count() == 1,
        "{stderr}"
    );
}

#[test]
fn a_wrong_byte_is_exit_1_and_shown() {
    let address = peer(|mut stream| {
        let mut buffer = [0; 64];
        while stream.read_exact(&mut buffer).is_ok() {
            buffer[0] ^= 0xff;
            if std::io::Write::write_all(&mut stream, &buffer).is_err() {
                return;
            }
        }
    });
    let (code, stdout, _) = output(&[
        &address.to_string(),
        "-c",
        "2",
        "-d",
        "2s",
        "-w",
        "0s",
        "--verify",
        "--quiet",
    ]);
    assert_eq!(code, Some(1), "{stdout}");
    let said = unwrapped(&stdout);
    assert!(
        said.contains("not what was sent: connection") && said.contains("expected 0x"),
        "{stdout}"
    );
}

/// Waits until an interval stands in the log: from then on there is something to keep.
fn wait_for_interval(out: &Path) {
    let begun = std::time::Instant::now();
    let has_one = || {
        let log = fs::read_to_string(growing_log(out)?);
        log.ok().filter(|text| text.contains("Tag=latency"))
    };
    while has_one().is_none() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "no interval in the log"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The log of a run that goes on: it has its own name when it is whole.
fn growing_log(out: &Path) -> Option<std::path::PathBuf> {
    let mut names = fs::read_dir(out).ok()?.flatten().map(|entry| entry.path());
    names.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("run.hlog.") && name.ends_with(".tmp")
    })
}
