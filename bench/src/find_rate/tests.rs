//! Whole searches against a made-up server of known capacity.

use std::{cell::Cell, collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use echometer_host::{cpus::CpuList, machine::Facts};
use echometer_loadgen::{
    OpenLoop,
    verdict::{Status, Verdict},
};
use echometer_report::folder::ResultFolder;

use super::*;
use crate::{
    flags::{MachineSettings, OutputSettings},
    measure::{
        sides::{Judged, Stretch, WholeRun},
        world::{GOOD, Server, World},
    },
    place::placement::Placement,
    serve::arm::parse_arms,
};

/// A server whose p99 passes the limit at a rate, and which falls behind at twice that.
struct MadeUp {
    capacity: f64,
    /// The client can't make more.
    client_max: f64,
    /// So many runs of each hundred are noisy.
    noisy_of_100: usize,
    runs: usize,
    /// The connections break in this run.
    breaks_at: Option<usize>,
}

const SOUND: MadeUp = MadeUp {
    capacity: 50_000.0,
    client_max: 1e9,
    noisy_of_100: 0,
    runs: 0,
    breaks_at: None,
};

impl OpenLoad for MadeUp {
    fn run(&mut self, _address: std::net::SocketAddr, load: &Plan) -> Result<WholeRun, String> {
        let rate = load.rate_per_s().ok_or("is no open loop")?;
        self.runs += 1;
        if self.breaks_at == Some(self.runs) {
            return Err("could not be loaded: connection reset".to_owned());
        }
        let count = (rate * load.duration.as_secs_f64()) as u64;
        let mut latency = Histogram::new(3).expect("digits");
        // 199 us at the capacity.
        let value = (199_000.0 * rate / self.capacity) as u64;
        // A client that can't make the rate is late, more and more.
        let late = if self.client_max < rate {
            1_000_000_000
        } else {
            0
        };
        latency.record_n(value + late, count).expect("it grows");
        let mut open = OpenLoop::default();
        open.queue.record_n(0, count).expect("in range");
        open.service_least.record_n(value, count).expect("in range");
        let status = if self.client_max < rate {
            Status::ClientBound
        } else if 2.0 * self.capacity < rate {
            Status::Overloaded
        } else if self.runs * 37 % 100 < self.noisy_of_100 {
            Status::Noisy
        } else {
            Status::Valid
        };
        Ok(WholeRun {
            stretch: Stretch {
                latency,
                open: Some(open),
                overload: Vec::new(),
                recorded: count,
                recorded_span_ns: load.duration.as_nanos() as u64,
                messages: count,
                faults: BTreeMap::new(),
                wrong: None,
                client_cpu_ns: None,
                client_busiest: 0.5,
                client_run_delay: 0.0,
            },
            judged: Judged {
                verdict: Verdict {
                    status,
                    reasons: Vec::new(),
                    warnings: Vec::new(),
                },

                offered_per_s: Some(rate),
                censored_from_ns: None,
            },
            cut_short: false,
        })
    }
}

fn list(text: &str) -> CpuList {
    text.parse().expect("a test's list")
}

fn searched(
    load: &mut MadeUp,
    world: &World,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<FindRateFile> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = FindRateSettings {
        arm: parse_arms(&["uring"]).expect("an arm").remove(0),
        slos: vec!["p99<200us".parse().expect("an objective")],
        lowest: 1_000.0,
        highest: 20e6,
        blocks: 6,
        load: Plan {
            connections: 50,
            duration: Duration::from_secs(1),
            ..Plan::default()
        },
        machine: MachineSettings::default(),
        output: OutputSettings {
            quiet: true,
            ..OutputSettings::default()
        },
    };
    let placement = Placement {
        server: list("0"),
        client: list("1"),
    };
    let result = ResultFolder::named(folder.path(), FILE_NAME).expect("it is free");
    let mut record = Record::new(
        &settings,
        &placement,
        settings.load.clone(),
        Facts::default(),
        result,
        "echometer find-rate",
    );
    let outcome = run_blocks(&settings, &mut record, &mut world.clone(), load, stop);
    assert!(world.is_tidy(), "a server runs on");
    outcome?;
    let text = echometer_report::text::find_rate::text(&record.file);
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    let saved = std::fs::read_to_string(folder.path().join(FILE_NAME)).expect("it is there");
    let saved: FindRateFile = serde_json::from_str(&saved).expect("it is JSON");
    assert_eq!(
        (&saved.sentence, saved.runs.len()),
        (&record.file.sentence, record.file.runs.len())
    );
    for run in &saved.runs {
        assert!(folder.path().join(&run.hlog).is_file(), "{}", run.hlog);
    }
    let curve = std::fs::read_to_string(folder.path().join("curve.csv")).expect("it is there");
    assert_eq!(curve.lines().count(), saved.curve.len() + 1);
    Ok(record.file)
}

fn world() -> World {
    World::of(&[GOOD])
}

#[test]
fn the_edge_is_found_to_two_percent() {
    let mut load = MadeUp { ..SOUND };
    let file = searched(&mut load, &world(), &|| false).expect("nothing fails");
    let rate = file.rate_per_s.expect("it holds");
    assert!((49_000.0..50_500.0).contains(&rate), "{rate}");
    assert_eq!(
        file.verdict.status,
        echometer_report::file::trust::Status::Valid
    );
    assert_eq!(file.confidence, Some(1.0 - 2.0 / 64.0));
    let (low, high) = file.ci_low.zip(file.ci_high).expect("six blocks");
    assert!(
        low <= rate && rate <= high && high <= low * 1.02,
        "{low} {high}"
    );
    assert!(file.runs.len() < 6 * 20 + 10, "{} runs", file.runs.len());
    assert!(
        file.sentence.contains("uring holds p99<200us up to")
            && file.sentence.contains("96.9 % sure"),
        "{}",
        file.sentence
    );
    assert!(
        file.curve
            .windows(2)
            .all(|pair| pair[0].rate_per_s < pair[1].rate_per_s)
    );
}

#[test]
fn one_noisy_run_in_ten_decides_nothing() {
    let mut load = MadeUp {
        noisy_of_100: 10,
        ..SOUND
    };
    let file = searched(&mut load, &world(), &|| false).expect("nothing fails");
    let rate = file.rate_per_s.expect("it holds");
    assert!((49_000.0..50_500.0).contains(&rate), "{rate}");
    assert!(file.verdict.warnings.is_empty(), "{:?}", file.verdict);
}

#[test]
fn a_server_that_fails_at_the_lowest_rate_has_none() {
    let mut load = MadeUp {
        capacity: 500.0,
        ..SOUND
    };
    let file = searched(&mut load, &world(), &|| false).expect("nothing fails");
    assert_eq!((file.rate_per_s, file.ci_low), (None, None));
    assert_eq!(
        file.verdict.status,
        echometer_report::file::trust::Status::Valid,
        "that is an answer"
    );
    assert!(
        file.sentence
            .contains("even at the lowest rate tried, 1,000/s"),
        "{}",
        file.sentence
    );
}

#[test]
fn noise_is_told_and_does_not_keep_a_rate_from_being_found() {
    let mut load = MadeUp {
        noisy_of_100: 100,
        ..SOUND
    };
    let file = searched(&mut load, &world(), &|| false).expect("nothing fails");
    assert!(file.runs.iter().all(|run| run.attempt <= 6));
    assert!(
        file.runs
            .iter()
            .filter(|run| run.status == Status::Noisy)
            .all(|run| run.holds.is_none())
    );
    let rate = file.rate_per_s.expect("it holds in spite of it");
    assert!((49_000.0..50_500.0).contains(&rate), "{rate}");
    assert!(
        file.verdict.warnings[0].contains("stayed invalid each time"),
        "{:?}",
        file.verdict
    );
}

#[test]
fn what_the_client_can_t_make_is_not_held_against_the_server() {
    let mut load = MadeUp {
        client_max: 20_000.0,
        ..SOUND
    };
    let file = searched(&mut load, &world(), &|| false).expect("nothing fails");
    let rate = file.rate_per_s.expect("it holds below");
    assert!((19_600.0..=20_000.0).contains(&rate), "{rate}");
    assert_eq!(
        file.verdict.status,
        echometer_report::file::trust::Status::Invalid
    );
    assert!(
        file.sentence.contains("up to at least") && file.sentence.contains("client-bound"),
        "{}",
        file.sentence
    );
}

#[test]
fn a_server_that_fails_costs_its_block_and_one_that_never_starts_is_told_at_once() {
    let mut load = MadeUp {
        breaks_at: Some(40),
        ..SOUND
    };
    let file = searched(&mut load, &world(), &|| false).expect("it goes on");
    assert_eq!(file.blocks.iter().filter(|block| !block.valid).count(), 1);
    assert_eq!(
        file.verdict.status,
        echometer_report::file::trust::Status::Invalid,
        "five are too few"
    );
    let never = World::of(&[Server {
        refuses_start: Some(0),
        ..GOOD
    }]);
    let error =
        searched(&mut MadeUp { ..SOUND }, &never, &|| false).expect_err("it does not start");
    assert!(
        error
            .to_string()
            .contains("arm 'uring' (uring) exited with status 1"),
        "{error}"
    );
}

#[test]
fn a_stop_keeps_the_blocks_that_are_whole() {
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        30 < asked.get()
    };
    let file = searched(&mut MadeUp { ..SOUND }, &world(), &stop).expect("nothing fails");
    assert!(file.cut_short && (1..6).contains(&file.blocks.len()));
    assert!(file.sentence.contains("too few"), "{}", file.sentence);
}
