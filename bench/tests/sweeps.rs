//! `echometer sweep`, `curve`, `find-rate` and `storm` as their users run them: real processes, real sockets, real files. Their
//! figures mean nothing here; that they are there, whole and true to their files does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take before a test gives it up.
const LIMIT: Duration = Duration::from_secs(90);

/// Our server, next to the bench: asked for here, because cargo builds it only where the whole workspace is tested.
static SERVER: LazyLock<PathBuf> = LazyLock::new(|| {
    let bench = Path::new(env!("CARGO_BIN_EXE_echometer"));
    let folder = bench.parent().expect("a binary lies in a folder");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "test",
        Some(profile) => profile,
    };
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "echometer-server"])
        .args(["--bin", "echometer-server", "--profile", profile])
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

fn bench(folder: &Path, line: &str) -> Command {
    assert!(SERVER.is_file(), "{} was just built", SERVER.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_echometer"));
    command
        .current_dir(folder)
        .args(shell_words::split(line).expect("a test's line"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let allowed = echometer_host::cpus::allowed().expect("a mask");
    if allowed.len() < 2 {
        // Its figures would mean nothing, but this is no test of figures.
        let only = allowed.to_string();
        command.args(["--server-cpus", &only, "--client-cpus", &only]);
    }
    command
}

fn run(folder: &Path, line: &str) -> Output {
    wait(bench(folder, line).spawn().expect("the bench starts"))
}

/// Waits for the end of a process, with the limit.
fn wait(child: Child) -> Output {
    let pid = Pid::from_child(&child);
    let waiter = thread::spawn(move || child.wait_with_output().expect("it can be waited for"));
    let deadline = Instant::now() + LIMIT;
    while !waiter.is_finished() {
        if deadline < Instant::now() {
            let _ = kill_process(pid, Signal::KILL);
            panic!("not within {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    waiter.join().expect("waiting does not panic")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", text(bytes)))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

/// A busy machine may spoil blocks; then the file must say why.
fn valid_or_explained(output: &Output, file: &Value) {
    match output.status.code() {
        Some(0) => assert_eq!(file["verdict"]["status"], "valid"),
        Some(3) => assert_ne!(file["verdict"]["reasons"][0], Value::Null),
        code => panic!("{code:?}: {}", text(&output.stderr)),
    }
}

fn narrow(report: &Path) {
    let report = fs::read_to_string(report).expect("it was saved");
    assert!(
        report.lines().all(|line| line.chars().count() <= 80),
        "{report}"
    );
}

#[test]
fn two_arms_are_swept_over_a_load_and_the_job_repeats_it() {
    let folder = folder();
    let line = "sweep --over connections=1,4 epoll uring -d 100ms -w 20ms --slice 20ms --blocks 6 --seed 7 --json \
                --out one";
    let output = run(folder.path(), line);
    let file = parsed(&output.stdout);
    valid_or_explained(&output, &file);
    assert_eq!(file["schema"], "echometer.sweep/1");
    let points = list(&file["points"]);
    let labels: Vec<&Value> = points.iter().map(|point| &point["label"]).collect();
    assert_eq!(labels, ["connections=1", "connections=4"]);
    for point in points {
        assert_eq!(
            list(&point["metrics"]).len(),
            2 * 7,
            "one per arm and metric"
        );
    }
    for block in list(&file["blocks"]) {
        let cells = block["cells"].as_object().expect("by name");
        let names: Vec<&String> = cells.keys().collect();
        assert_eq!(names, ["01-epoll", "01-uring", "02-epoll", "02-uring"]);
        for cell in cells.values().filter(|cell| cell["valid"] == true) {
            let hlog = cell["figures"]["hlog"].as_str().expect("a path");
            assert!(folder.path().join("one").join(hlog).is_file(), "{hlog}");
        }
    }
    let commands = list(&file["commands"]);
    assert!(
        commands.iter().any(|entry| entry["of"] == "02-uring"),
        "{commands:?}"
    );
    narrow(&folder.path().join("one/report.txt"));
    assert!(text(&output.stderr).contains("block 6/6"));

    // The job asks for the same, and another folder and fewer blocks can be asked for beside it.
    let again = run(
        folder.path(),
        "sweep one/job.toml --blocks 1 --out two --json --quiet",
    );
    assert_eq!(again.status.code(), Some(3), "{}", text(&again.stderr));
    let again = parsed(&again.stdout);
    for field in ["seed", "keys", "arms"] {
        let bare = |value: &Value| match field {
            "arms" => list(value).iter().map(|arm| arm["spec"].clone()).collect(),
            _ => value.clone(),
        };
        assert_eq!(bare(&again[field]), bare(&file[field]), "{field}");
    }
    assert_eq!(again["design"]["load"], file["design"]["load"]);
}

#[test]
fn layouts_of_this_machine_are_ranked() {
    if echometer_host::cpus::allowed().expect("a mask").len() < 2 {
        return; // There is one layout, and the command says so.
    }
    let folder = folder();
    let line = "sweep --over pinning=auto epoll -c 4 -d 60ms -w 20ms --slice 20ms --blocks 6 --quiet --out result --json";
    let output = run(folder.path(), line);
    let file = parsed(&output.stdout);
    valid_or_explained(&output, &file);
    let labels: Vec<&str> = list(&file["points"])
        .iter()
        .filter_map(|point| point["label"].as_str())
        .collect();
    assert_eq!(labels[..2], ["pinning=unpinned", "pinning=same-cpu"]);
    assert!(3 <= labels.len(), "{labels:?}");
    let order = list(&file["rankings"][0]["order"]);
    assert_eq!(order.len(), labels.len());
    for point in list(&file["points"]) {
        let movement = &point["movement"]["epoll"];
        assert!(movement["server_run_delay"].is_f64(), "{movement}");
    }
    narrow(&folder.path().join("result/report.txt"));
}

#[test]
fn a_dry_run_does_nothing_and_says_what_it_would_do() {
    let folder = folder();
    let line = "sweep --over backlog=16,128 --over rate=1k,2k uring --dry-run --seed 3";
    let output = run(folder.path(), line);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for words in [
        "--backlog 128",
        "-R 2000",
        "It would take about",
        "4 cells in 4 groups",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let left = fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 0, "nothing is written");
}

#[test]
fn a_level_that_the_server_refuses_is_named() {
    let folder = folder();
    let output = run(
        folder.path(),
        "sweep --over wait=block,sideways uring -d 50ms -q",
    );
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("arm 'uring' at wait=sideways") && said.contains("exited with status 2"),
        "{said}"
    );
    let wrong = run(folder.path(), "sweep --over colour=red uring");
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn the_first_signal_ends_a_sweep_with_its_files_written() {
    let folder = folder();
    let line =
        "sweep --over connections=1,2 epoll -d 100ms -w 20ms --blocks 200 --out result --json";
    let child = bench(folder.path(), line)
        .spawn()
        .expect("the bench starts");
    let pid = Pid::from_child(&child);
    let path = folder.path().join("result/sweep.json");
    let deadline = Instant::now() + LIMIT;
    while !path.is_file() {
        assert!(Instant::now() < deadline, "no block is saved");
        thread::sleep(Duration::from_millis(5));
    }
    kill_process(pid, Signal::INT).expect("it runs");
    let output = wait(child);
    let file = parsed(&output.stdout);
    assert_eq!(file["cut_short"], true);
    assert!((1..200).contains(&list(&file["blocks"]).len()));
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{:?}",
        output.status
    );
    assert_eq!(parsed(&fs::read(path).expect("it was saved")), file);
}

#[test]
fn a_rate_is_found_below_the_highest_asked_for() {
    let folder = folder();
    let line = "find-rate --slo 'p50<10s' --lowest 1k --highest 1100 --blocks 6 -c 4 -d 250ms -w 20ms --json --out \
                result epoll";
    let output = run(folder.path(), line);
    let file = parsed(&output.stdout);
    valid_or_explained(&output, &file);
    assert_eq!(file["schema"], "echometer.find-rate/1");
    assert_eq!(list(&file["blocks"]).len(), 6);
    for run in list(&file["runs"]) {
        let rate = run["rate_per_s"].as_f64().expect("a rate");
        assert!((1_000.0..=1_100.0).contains(&rate), "{rate}");
    }
    // Ten seconds are held by any server that answers; a machine that is too busy to make the load says so.
    if output.status.code() == Some(0) {
        let found = file["rate_per_s"].as_f64();
        assert!(
            found.is_none_or(|rate| (1_000.0..=1_100.0).contains(&rate)),
            "{found:?}"
        );
    }
    assert!(folder.path().join("result/curve.csv").is_file());
    narrow(&folder.path().join("result/report.txt"));

    let hopeless = run(
        folder.path(),
        "find-rate --slo 'p50<1ns' --lowest 1k --blocks 6 -c 2 -d 250ms -w 20ms --json --out none epoll",
    );
    let file = parsed(&hopeless.stdout);
    assert_eq!(file["rate_per_s"], Value::Null);
    assert!(
        file["sentence"]
            .as_str()
            .is_some_and(|text| text.contains("even at the lowest rate")),
        "{}",
        file["sentence"]
    );
}

#[test]
fn a_curve_measures_every_arm_at_every_rate_in_every_block() {
    let folder = folder();
    let line = "curve --rates 20k,10k --blocks 2 -c 4 -d 40ms -w 5ms --quick --json --out result epoll uring";
    let output = run(folder.path(), line);
    let file = parsed(&output.stdout);
    assert_eq!(file["schema"], "echometer.curve/1");
    // Two blocks are too few for an interval.
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("2 blocks of"), "the plan: {said}");
    for block in list(&file["blocks"]) {
        let cells = list(&block["cells"]);
        if block["valid"] == true {
            assert_eq!(cells.len(), 4, "{block}");
        }
        for cell in cells {
            let hlog = cell["figures"]["hlog"].as_str().expect("a path");
            assert!(folder.path().join("result").join(hlog).is_file(), "{hlog}");
        }
    }
    let rates: Vec<f64> = list(&file["points"])
        .iter()
        .filter_map(|point| point["rate_per_s"].as_f64())
        .collect();
    assert_eq!(rates, [10_000.0, 20_000.0]);
    assert_eq!(list(&file["knee"]).len(), 2);
    narrow(&folder.path().join("result/report.txt"));
}

#[test]
fn a_storm_loses_at_a_small_backlog_and_says_what_to_set() {
    let folder = folder();
    let output = run(
        folder.path(),
        "storm --connects 300 --over backlog=1,4096 --blocks 1 --json --out result epoll",
    );
    let file = parsed(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(file["schema"], "echometer.storm/1");
    let levels = list(&file["levels"]);
    assert_eq!(levels.len(), 2);
    for level in levels {
        assert_eq!(
            (&level["arm"], &level["connects"]),
            (&"epoll".into(), &300.into())
        );
        let limit = level["effective_backlog"]
            .as_u64()
            .expect("sock_diag answers");
        assert!(limit <= 4_096);
        for part in ["connect_ns", "first_echo_ns"] {
            assert!(level[part]["p50"].is_u64(), "{part}: {level}");
        }
    }
    // 300 at once against a queue of two: many must wait a second.
    let small = &levels[0];
    assert_eq!(
        (&small["effective_backlog"], &small["lost_none"]),
        (&1.into(), &false.into())
    );
    let resent = small["syn_retransmits"].as_object().expect("by number");
    assert!(!resent.is_empty(), "{small}");
    assert!(
        small["connect_ns"]["max"]
            .as_u64()
            .is_some_and(|ns| 1_000_000_000 <= ns),
        "{small}"
    );
    assert_eq!(file["syn_steps_ns"][0], 1_000_000_000_u64);
    narrow(&folder.path().join("result/report.txt"));
}
