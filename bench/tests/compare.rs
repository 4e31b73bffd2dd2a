//! `echometer compare` as its users run it: real processes, real sockets, real files.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use echometer_report::file::entries::ENGINES;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

#[path = "compare/leaving.rs"]
mod leaving;
#[path = "compare/noise.rs"]
mod noise;

/// How long anything may take before a test gives it up.
const LIMIT: Duration = Duration::from_secs(60);

/// So short that a comparison of six blocks takes about three seconds; its figures mean nothing.
const SHORT: &[&str] = &[
    "-c", "4", "-d", "120ms", "-w", "20ms", "--slice", "20ms", "--blocks", "6",
];

/// Our server, next to the bench. Cargo builds it for this test only where the whole workspace is tested, so it is asked
/// for here; where it is there and fresh that takes a moment.
static SERVER: LazyLock<PathBuf> = LazyLock::new(|| {
    let bench = Path::new(env!("CARGO_BIN_EXE_echometer"));
    let folder = bench.parent().expect("a binary lies in a folder");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "test",
        Some(profile) => profile,
    };
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--package",
            "echometer-server",
            "--bin",
            "echometer-server",
            "--profile",
            profile,
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg("--target-dir")
        .arg(
            folder
                .parent()
                .expect("a profile's folder lies in the target folder"),
        )
        .status()
        .expect("cargo runs");
    assert!(status.success(), "echometer-server can't be built");
    folder.join("echometer-server")
});

/// A bench that runs in a folder of its own.
fn bench(folder: &Path, arms: &[&str], flags: &[&str]) -> Command {
    assert!(SERVER.is_file(), "{} was just built", SERVER.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_echometer"));
    command
        .current_dir(folder)
        .arg("compare")
        .args(arms)
        .args(flags);
    let allowed = echometer_host::cpus::allowed().expect("a mask");
    if allowed.len() < 2 {
        // Its figures would mean nothing, but this is no test of figures.
        let only = allowed.to_string();
        command.args(["--server-cpus", &only, "--client-cpus", &only]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(mut command: Command) -> (Output, Duration) {
    let started = Instant::now();
    let child = command.spawn().expect("the bench starts");
    let output = wait(child);
    (output, started.elapsed())
}

/// Waits for the end of a process, with the limit.
fn wait(child: Child) -> Output {
    let pid = Pid::from_child(&child);
    let waiter = thread::spawn(move || child.wait_with_output().expect("it can be waited for"));
    until(
        "the bench ends",
        || waiter.is_finished().then_some(()),
        || {
            let _ = kill_process(pid, Signal::KILL);
        },
    );
    waiter.join().expect("waiting does not panic")
}

/// Waits until `seen` sees something, or fails after the limit, having done `otherwise`.
fn until<T>(what: &str, mut seen: impl FnMut() -> Option<T>, otherwise: impl FnOnce()) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = seen() {
            return found;
        }
        if deadline < Instant::now() {
            otherwise();
            panic!("not within {LIMIT:?}: {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", text(bytes)))
}

#[test]
fn a_command_that_is_no_server_is_named_within_seconds() {
    let folder = folder();
    let (output, took) = run(bench(folder.path(), &["a=false", "epoll"], &[]));
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("arm 'a' (false) exited with status 1"),
        "{said}"
    );
    assert!(!said.contains("panicked"), "{said}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(text(&output.stdout), "");
    let machine = fs::read_dir(folder.path().join("results"))
        .into_iter()
        .flatten()
        .flatten();
    let left = machine.flat_map(|date| fs::read_dir(date.path()).into_iter().flatten().flatten());
    let left: Vec<_> = left
        .flat_map(|machine| fs::read_dir(machine.path()).into_iter().flatten().flatten())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_was_typed_wrongly_exits_2_with_the_flag_and_the_cure() {
    let folder = folder();
    let wrong: [(&[&str], &[&str], &str); 5] = [
        (&["epoll"], &[], "one arm is no comparison"),
        (&["epoll", "uring"], &["-d", "3"], "unit is missing"),
        (&["epoll", "uring"], &["-c", "0"], "--connections"),
        (
            &["epoll", "uring"],
            &["--client-cpus", "none"],
            "--client-cpus",
        ),
        (&["a=epoll", "a=uring"], &[], "two arms are named 'a'"),
    ];
    for (arms, flags, expected) in wrong {
        let (output, _) = run(bench(folder.path(), arms, flags));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn open_loops_and_servers_that_never_sleep_are_compared_by_whole_runs() {
    let folder = folder();
    let flags = [
        "-c", "4", "-R", "2k", "-d", "60ms", "-w", "20ms", "--seed", "5", "--out", "here", "--json",
    ];
    let (output, _) = run(bench(
        folder.path(),
        &["epoll", "busy=epoll:--wait spin"],
        &flags,
    ));
    let said = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    let file = parsed(&output.stdout);
    assert_eq!(file["design"]["kind"], "runs");
    let warnings = file["verdict"]["warnings"].to_string();
    assert!(warnings.contains("busy never sleeps"), "{warnings}");
    let primary = file["metrics"].as_array().expect("a list").iter();
    let mut primary = primary.filter(|metric| metric["primary"] == true);
    assert_eq!(primary.next().expect("one")["name"], "latency_p99");
    let blocks = file["blocks"].as_array().expect("a list");
    match output.status.code() {
        Some(0) => assert_eq!(blocks.len(), 6, "{said}"),
        _ => assert!(!blocks.is_empty(), "{said}"),
    }
    for block in blocks.iter().filter(|block| block["valid"] == true) {
        for arm in ["epoll", "busy"] {
            let figures = &block["arms"][arm];
            let runs = figures["runs"].as_array().expect("a list");
            assert_eq!(runs.len(), 2, "{block}");
            for run in runs {
                let offered = run["offered_per_s"].as_f64().expect("an open loop has one");
                assert!((200.0..20_000.0).contains(&offered), "{run}");
            }
            let log = folder
                .path()
                .join("here")
                .join(figures["hlog"].as_str().expect("a path"));
            let log = fs::read_to_string(log).expect("it was saved");
            assert_eq!(
                log.lines()
                    .filter(|line| line.starts_with("Tag=latency"))
                    .count(),
                2
            );
        }
    }
}

#[test]
fn servers_of_ours_and_others_are_compared_and_the_files_are_whole() {
    let folder = folder();
    let mine = format!(
        "mine='{}' --listen 127.0.0.1:{{port}} --engine epoll --cpus {{cpus}}",
        SERVER.display()
    );
    let flags = [SHORT, &["--machine", "test", "--seed", "5", "--json"]].concat();
    let (output, _) = run(bench(folder.path(), &["epoll", &mine, "epoll"], &flags));
    let said = text(&output.stderr);
    let file = parsed(&output.stdout);
    match output.status.code() {
        Some(0) => assert_eq!(file["verdict"]["status"], "valid"),
        // A machine busy with other tests may spoil blocks; then it must say why.
        Some(3) => assert_ne!(file["verdict"]["reasons"][0], Value::Null, "{said}"),
        code => panic!("{code:?}: {said}"),
    }
    assert_eq!(
        (&file["schema"], &file["seed"]),
        (&Value::from("echometer.compare/1"), &Value::from(5))
    );
    assert_eq!(file["cut_short"], false);
    if file["floor"]["withheld"] == Value::Null && output.status.code() == Some(0) {
        let multiples = file["floor"]["multiples"].as_array().expect("a list");
        assert_eq!(multiples.len(), 3, "the baseline has one, too");
        for multiple in multiples {
            assert!(
                multiple["ci_low"].as_f64().is_some_and(|low| 0.0 < low),
                "{multiple}"
            );
        }
    }
    let names: Vec<&str> = ["epoll", "mine", "epoll-2"].to_vec();
    let arms: Vec<&Value> = file["arms"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|arm| &arm["name"])
        .collect();
    assert_eq!(arms, names);
    let ready = file["arms"][0]["ready_line"]
        .as_str()
        .expect("ours says when it is ready");
    assert!(ready.contains("engine=epoll"), "{ready}");
    assert_eq!(file["arms"][1]["ready_line"], Value::Null);
    let commands: Vec<&Value> = file["commands"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| &entry["of"])
        .collect();
    assert_eq!(commands, ["echometer", "epoll", "mine", "epoll-2"]);
    let mine = file["commands"][2]["command"]
        .as_str()
        .expect("a command line");
    assert!(
        !mine.contains('{') && mine.contains("--listen 127.0.0.1:"),
        "{mine}"
    );

    let results = folder.path().join("results");
    let date = fs::read_dir(&results)
        .expect("results")
        .next()
        .expect("a date")
        .expect("readable")
        .path();
    let result = date.join("test/compare-001");
    assert_eq!(
        parsed(&fs::read(result.join("compare.json")).expect("it was saved")),
        file
    );
    let report = fs::read_to_string(result.join("report.txt")).expect("it was saved");
    assert!(
        report.lines().all(|line| line.chars().count() <= 80),
        "{report}"
    );
    assert!(report.contains("server CPU/message *"), "{report}");

    for block in file["blocks"].as_array().expect("a list") {
        for name in &names {
            let arm = &block["arms"][name];
            for field in [
                "rate_per_s",
                "server_cpu_ns_per_message",
                "client_cpu_ns_per_message",
            ] {
                assert!(
                    arm[field].as_f64().is_some_and(|figure| 0.0 < figure),
                    "{name} {field}: {arm}"
                );
            }
            let (recorded, messages) = (arm["recorded"].as_u64(), arm["messages"].as_u64());
            assert!(recorded < messages, "ramp and drain are left out: {arm}");
            assert_eq!(arm["latency_ns"]["count"].as_u64(), recorded);
            let hlog = fs::read_to_string(result.join(arm["hlog"].as_str().expect("a path")))
                .expect("it is there");
            assert!(hlog.contains("Tag=latency,"), "{hlog}");
            let share = arm["server_busy"].as_f64().expect("it is local");
            assert!((0.0..1.1).contains(&share), "{share}");
        }
    }
    let metrics = file["metrics"].as_array().expect("a list");
    assert_eq!(metrics.len(), 2 * 7, "one entry per arm and metric");
    for metric in metrics {
        assert_eq!(metric["baseline"], "epoll");
        for field in [
            "ratio",
            "ci_low",
            "ci_high",
            "p",
            "p_adjusted",
            "arm_value",
            "baseline_value",
        ] {
            assert!(
                metric[field].is_null() || metric[field].is_f64(),
                "{field}: {metric}"
            );
        }
    }
    assert!(
        said.contains("block 6/6"),
        "progress goes to stderr: {said}"
    );
}

#[test]
fn a_server_that_dies_under_load_costs_its_blocks_and_is_named() {
    let folder = folder();
    let server = SERVER.display();
    let mortal = format!(
        "mortal=timeout -s KILL 1 '{server}' --listen 127.0.0.1:{{port}} --engine epoll --cpus {{cpus}}"
    );
    let flags = [
        "-c", "4", "-d", "20s", "-w", "20ms", "--blocks", "6", "--quiet", "--out", "result",
    ];
    let (output, took) = run(bench(folder.path(), &["epoll", &mortal], &flags));
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(took < Duration::from_secs(30), "{took:?}");
    let file = parsed(&fs::read(folder.path().join("result/compare.json")).expect("it was saved"));
    let reason = file["blocks"][0]["reasons"][0]
        .as_str()
        .expect("it says why");
    assert!(
        reason.starts_with("mortal ") && reason.contains("while it was measured"),
        "{reason}"
    );
    assert_eq!(
        (&file["blocks"][0]["valid"], &file["verdict"]["status"]),
        (&false.into(), &"invalid".into())
    );
    assert!(
        text(&output.stdout).contains("block 1 does not count: mortal"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn a_server_that_is_running_already_has_no_cpu_figure() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let far = format!("far=tcp:{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let folder = folder();
    let flags = [
        "-c", "4", "-d", "60ms", "-w", "20ms", "--slice", "20ms", "--blocks", "1", "--json",
        "--out", "result",
    ];
    let (output, _) = run(bench(folder.path(), &["epoll", &far], &flags));
    let file = parsed(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(3),
        "one block is no comparison: {}",
        text(&output.stderr)
    );
    let block = &file["blocks"][0];
    assert_eq!(block["valid"], true, "{block}");
    assert_eq!(
        block["arms"]["far"]["server_cpu_ns_per_message"],
        Value::Null
    );
    assert!(block["arms"]["epoll"]["server_cpu_ns_per_message"].is_f64());
    let primary: Vec<&Value> = file["metrics"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|metric| metric["primary"] == true)
        .collect();
    assert_eq!(primary.len(), 1);
    assert_eq!(
        (&primary[0]["name"], &primary[0]["ci_low"], &primary[0]["p"]),
        (&"latency_p50".into(), &Value::Null, &Value::Null)
    );

    let (again, _) = run(bench(folder.path(), &["epoll", &far], &flags));
    assert_eq!(
        again.status.code(),
        Some(1),
        "results are never overwritten"
    );
    assert!(
        text(&again.stderr).contains("--out"),
        "{}",
        text(&again.stderr)
    );
}

#[test]
fn the_first_signal_ends_it_after_the_slice_with_its_files_written() {
    let folder = folder();
    let flags = [
        "-c", "4", "-d", "200ms", "-w", "20ms", "--blocks", "200", "--out", "result", "--json",
    ];
    let child = bench(folder.path(), &["epoll", "epoll"], &flags)
        .spawn()
        .expect("the bench starts");
    let pid = Pid::from_child(&child);
    let path = folder.path().join("result/compare.json");
    until(
        "a block is saved",
        || path.is_file().then_some(()),
        || {
            let _ = kill_process(pid, Signal::KILL);
        },
    );
    kill_process(pid, Signal::INT).expect("it runs");
    let output = wait(child);
    let file = parsed(&output.stdout);
    assert_eq!(file["cut_short"], true);
    let blocks = file["blocks"].as_array().expect("a list").len();
    assert!((1..200).contains(&blocks));
    assert_eq!(parsed(&fs::read(path).expect("it was saved")), file);
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "as for what was measured: {:?}",
        output.status
    );
}

#[test]
fn a_bench_that_is_killed_takes_its_servers_with_it() {
    let folder = folder();
    let arm = "orphan=sh -c 'echo $$ > pid; mv pid started; exec sleep 600' {port}";
    let mut child = bench(folder.path(), &[arm, "epoll"], &[])
        .spawn()
        .expect("the bench starts");
    let started = folder.path().join("started");
    let server = until(
        "the server starts",
        || fs::read_to_string(&started).ok(),
        || (),
    );
    let server = server
        .trim()
        .parse()
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    test_kill_process(server).expect("it runs");
    child.kill().expect("it runs");
    child.wait().expect("it was ours");
    // Its parent is gone, so whoever adopts it reaps it; until then it is a zombie, which is dead enough.
    let state = || fs::read_to_string(format!("/proc/{}/stat", server.as_raw_nonzero())).ok();
    let gone = || {
        state().is_none_or(|stat| {
            stat.rsplit(')')
                .next()
                .is_some_and(|rest| rest.trim_start().starts_with('Z'))
        })
    };
    until(
        "the server is gone",
        || gone().then_some(()),
        || {
            let _ = kill_process(server, Signal::KILL);
        },
    );
}

/// Their names stand in two programs: the bench is built without the server.
#[test]
fn the_engines_that_an_arm_can_name_are_the_servers() {
    let output = Command::new(&*SERVER)
        .args(["--engine", "none-of-this-name"])
        .output()
        .expect("it was just built");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let (_, names) = stderr
        .split_once("there are ")
        .unwrap_or_else(|| panic!("it lists its engines: {stderr}"));
    let mut names: Vec<&str> = names.lines().next().unwrap_or("").split(", ").collect();
    let mut ours = ENGINES.to_vec();
    names.sort_unstable();
    ours.sort_unstable();
    assert_eq!(ours, names);
}
