//! A result of each kind: a real run, the comparison that lies in `results/`, and those that take minutes to make from
//! files that are made up.

use std::{
    ffi::OsStr,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use hdrhistogram::Histogram;

use echometer_host::signals::Stop;
use echometer_loadgen::{Plan, Target, plan::Load, recorder, run};
use echometer_report::saved::hlog::{Encoded, Interval, Log};

/// A saved result, and what its page must have.
pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) charts: usize,
    pub(crate) ratios: usize,
    pub(crate) has_verdict: bool,
}

/// One of each kind, made below `folder`.
pub(crate) fn all(folder: &Path) -> Vec<Fixture> {
    let fixture = |name, path, charts, ratios, has_verdict| Fixture {
        name,
        path,
        charts,
        ratios,
        has_verdict,
    };
    vec![
        fixture("compare", compare(), 3, 7, true),
        fixture("runs", runs(), 3, 5, true),
        fixture("run", run_of(folder), 4, 0, true),
        fixture("sweep", made_up(folder, "sweep.json"), 5, 7, true),
        fixture("curve", made_up(folder, "curve.json"), 1, 0, true),
        fixture("find-rate", made_up(folder, "find-rate.json"), 1, 0, true),
        fixture("storm", storm(folder), 3, 0, false),
        fixture("floor", made_up(folder, "floor.json"), 1, 0, false),
        fixture("selftest", made_up(folder, "selftest.json"), 1, 4, true),
        fixture("log", log(folder), 2, 0, false),
    ]
}

/// Runs `echometer report` and gives what it said.
pub(crate) fn report<T: AsRef<OsStr>>(arguments: &[T]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_echometer"))
        .arg("report")
        .args(arguments)
        .output()
        .expect("the bench starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("it is text")
}

/// A comparison of this repository's own results.
pub(crate) fn compare() -> PathBuf {
    saved("compare")
}

/// A comparison by whole runs, on a busy machine: it is not valid, and says why.
pub(crate) fn runs() -> PathBuf {
    saved("runs")
}

/// What lies in `report/tests/saved`.
pub(crate) fn saved(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../report/tests/saved")
        .join(name)
}

/// A run of the load generator against an echo server in this process.
fn run_of(folder: &Path) -> PathBuf {
    let plan = Plan {
        connections: 4,
        load: Load::Open {
            rate_per_s: 2_000.0,
            arrivals: echometer_loadgen::plan::Arrivals::Poisson,
        },
        pipeline: 64,
        duration: Duration::from_millis(1_500),
        warmup: Duration::from_millis(100),
        interval: Duration::from_millis(250),
        ..Plan::default()
    };
    run_with(&plan, folder)
}

/// A run of this plan.
pub(crate) fn run_with(plan: &Plan, folder: &Path) -> PathBuf {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut bytes = [0; 4_096];
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let out = folder.join("run");
    let target = Target::resolve(&address).expect("it is an address");
    run::run(
        plan,
        &target,
        Some(&out),
        &Stop::new().expect("a request to stop"),
        &mut |_| {},
    )
    .expect("it runs");
    out
}

/// A result file from `report/tests/saved` in a folder of its own.
pub(crate) fn made_up(folder: &Path, file: &str) -> PathBuf {
    let from = saved(file);
    let into = folder.join(file.trim_end_matches(".json"));
    fs::create_dir_all(&into).expect("it can be made");
    fs::copy(&from, into.join(file)).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    into
}

/// A storm with its histograms: at backlog 16 a third of the connects lost their SYN.
pub(crate) fn storm(folder: &Path) -> PathBuf {
    let path = made_up(folder, "storm.json");
    fs::create_dir_all(path.join("blocks")).expect("it can be made");
    for (level, late) in [("uring-16", 382), ("uring-4096", 0)] {
        let fast = (0..1_000 - late).map(|index| 60_000 + index * 900);
        let times: Vec<u64> = fast
            .chain((0..late).map(|index| 1_030_000_000 + index * 10_000))
            .collect();
        let log = Log::of(vec![
            interval("connect", 0, &times),
            interval("first_echo", 0, &times),
        ]);
        let name = format!("blocks/001-{level}.hlog");
        log.write(&path.join(name)).expect("it is writable");
    }
    path
}

/// A log without a run, as `merge` makes it.
pub(crate) fn log(folder: &Path) -> PathBuf {
    let values = |offset: u64| -> Vec<u64> {
        (0..2_000)
            .map(|index| 20_000 + offset + index * index % 90_000)
            .collect()
    };
    let log = Log::of(
        (0..5)
            .map(|second| interval("latency", second, &values(second * 1_000)))
            .collect(),
    );
    let path = folder.join("merged.hlog");
    log.write(&path).expect("it is writable");
    path
}

fn interval(tag: &str, start_s: u64, values: &[u64]) -> Interval {
    let mut histogram: Histogram<u64> = recorder::histogram();
    for value in values {
        histogram.record(*value).expect("it fits");
    }
    Interval {
        tag: tag.to_owned(),
        start: Duration::from_secs(1_700_000_000 + start_s),
        length: Duration::from_secs(1),
        histogram: Encoded::of(&histogram).expect("few values"),
    }
}
