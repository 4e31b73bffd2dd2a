//! Noise: a planted disturber is named, and servers are raised above it.

use std::{
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use echometer_host::{pinning::pin_current_thread, priority};

use super::*;

/// The name of the disturber's thread.
const PLANTED: &str = "planted";
/// It runs for so long in every [`PERIOD`].
const BUSY: Duration = Duration::from_millis(2);
const PERIOD: Duration = Duration::from_millis(100);

/// One short block of an open loop: the rate comes first.
const OPEN_BLOCK: [&str; 12] = [
    "-R",
    "2k",
    "-c",
    "4",
    "-d",
    "250ms",
    "-w",
    "50ms",
    "--blocks",
    "1",
    "--quiet",
    "--no-floor",
];

/// A task that runs 2 ms of every 100 ms on one cpu, until it is dropped.
struct Disturber {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Disturber {
    fn on(cpu: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let disturb = move || {
            pin_current_thread(cpu).expect("the cpu is ours");
            while !told.load(Ordering::Relaxed) {
                let began = Instant::now();
                while began.elapsed() < BUSY {
                    spin_loop();
                }
                thread::sleep(PERIOD - BUSY);
            }
        };
        let thread = thread::Builder::new()
            .name(PLANTED.to_owned())
            .spawn(disturb);
        Self {
            over,
            thread: Some(thread.expect("a thread")),
        }
    }
}

impl Drop for Disturber {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a loop does not panic");
        }
    }
}

fn jitter(folder: &Path, flags: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_echometer"))
        .current_dir(folder)
        .args(["jitter", "--json", "--out", "looked"])
        .args(flags)
        .output()
        .expect("the bench runs");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn jitter_names_a_planted_disturber_and_what_it_makes_of_the_tail() {
    let folder = tempfile::tempdir().expect("a folder");
    let cpus: Vec<u32> = echometer_host::cpus::allowed()
        .expect("a mask")
        .iter()
        .take(2)
        .collect();
    let _disturber = Disturber::on(cpus[0]);
    let list = cpus
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(",");
    let file = jitter(folder.path(), &["--cpus", &list, "-d", "2s", "-R", "20k"]);
    let disturbed = &file["cpus"][0];
    let planted = disturbed["tasks"].as_array().expect("tasks").iter();
    let planted: Vec<&Value> = planted.filter(|task| task["name"] == PLANTED).collect();
    let ran_ns = planted[0]["ran_ns"].as_u64().expect("a time");
    // 2 % of 2 s; less where its own waits stretch its period.
    assert!((10_000_000..60_000_000).contains(&ran_ns), "{planted:?}");
    // A thousandth of the messages waits for a good part of 2 ms; other tests may add to it.
    let p999_ns = disturbed["p999_ns"].as_f64().expect("there is one");
    assert!(1_000_000.0 < p999_ns, "{disturbed}");
    assert!(
        file["sentence"]
            .as_str()
            .expect("text")
            .contains("p99.9 of"),
        "{file}"
    );
    for other in file["cpus"].as_array().expect("cpus").iter().skip(1) {
        let named = other["tasks"].as_array().expect("tasks").iter();
        assert_eq!(named.filter(|task| task["name"] == PLANTED).count(), 0);
    }
    // The page has its picture.
    let report = Command::new(env!("CARGO_BIN_EXE_echometer"))
        .current_dir(folder.path())
        .args(["report", "looked", "-o", "page.html"])
        .output()
        .expect("the bench runs");
    assert_eq!(report.status.code(), Some(0), "{}", said(&report));
    let page = fs::read_to_string(folder.path().join("page.html")).expect("a page");
    assert!(
        page.contains("Gaps by length") && page.contains(PLANTED),
        "{}",
        page.len()
    );
}

/// Whether this process may raise threads so far.
fn may(level: priority::Priority) -> bool {
    priority::raised(level, || ()).is_ok()
}

#[test]
fn raised_servers_are_said_and_recorded() {
    for level in [priority::Priority::Nice, priority::Priority::Rt] {
        let folder = tempfile::tempdir().expect("a folder");
        let word = level.word();
        let flags = [
            &OPEN_BLOCK[..],
            &["--priority", word, "--out", "out", "--json"],
        ]
        .concat();
        let output = bench(folder.path(), &["epoll", "uring"], &flags)
            .output()
            .expect("it runs");
        if !may(level) {
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
            assert!(said(&output).contains("CAP_SYS_NICE"), "{}", said(&output));
            continue;
        }
        // One block has no interval.
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        let file: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        // A client that spins stays as it is.
        assert_eq!(file["design"]["priority"]["servers"], word);
        assert_eq!(file["design"]["priority"]["client"], "none");
        let words = format!("servers at {}", level.kernel_name().expect("it is raised"));
        assert!(
            file["sentence"].as_str().expect("text").contains(&words),
            "{file}"
        );
        let report = fs::read_to_string(folder.path().join("out/report.txt")).expect("a report");
        assert!(
            report
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .contains(&words),
            "{report}"
        );
    }
}

#[test]
fn what_is_not_fit_for_real_time_is_refused_with_the_reason() {
    if !may(priority::Priority::Rt) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    // A closed loop keeps its server always busy.
    let flags = [
        "-c",
        "50",
        "-d",
        "200ms",
        "-w",
        "200ms",
        "--blocks",
        "1",
        "--quiet",
        "--priority",
        "rt",
    ];
    let output = bench(folder.path(), &["epoll", "uring"], &flags)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("busy in its warm-up") && said(&output).contains("lumps of 50 ms"),
        "{}",
        said(&output)
    );
}

#[test]
fn the_server_goes_where_the_disturber_is_not() {
    let allowed = echometer_host::cpus::allowed().expect("a mask");
    if allowed.len() < 2 {
        return;
    }
    let flags = [&OPEN_BLOCK[..], &["--json"]].concat();
    let server_cpu = |run: usize, flags: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        let output = bench(folder.path(), &["epoll", "uring"], flags)
            .output()
            .expect("it runs");
        assert_eq!(
            output.status.code(),
            Some(3),
            "run {run}: {}",
            said(&output)
        );
        let file: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (
            file["design"]["server_cpus"]
                .as_str()
                .expect("a list")
                .to_owned(),
            file,
        )
    };
    // In closed loop the topology decides, and nobody looks.
    let (usual, file) = server_cpu(0, &flags[2..]);
    assert_eq!(file["design"]["quiet"], Value::Null);
    let cpu: u32 = usual.parse().expect("one cpu");
    let _disturber = Disturber::on(cpu);
    // Other tests disturb, too: where the other cpu happens to be noisy in a look, the next look finds it quiet.
    let moved = (1..=5).any(|run| {
        let (chosen, file) = server_cpu(run, &flags);
        let quiet = &file["design"]["quiet"];
        let reason = quiet["moved"].as_str();
        assert_eq!(reason.is_some(), chosen != usual, "{quiet}");
        let disturbed = &quiet["cpus"][0];
        assert_eq!(disturbed["cpu"], cpu);
        assert!(
            1_000.0 < disturbed["mean_wait_ns"].as_f64().expect("a time"),
            "{quiet}"
        );
        let said = file["verdict"]["warnings"].to_string();
        assert_eq!(said.contains("and not on cpu"), chosen != usual, "{said}");
        chosen != usual
    });
    assert!(moved, "the server stayed on cpu {cpu}, five times");
}
