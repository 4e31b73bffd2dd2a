//! Whole comparisons in the made-up world of the slices' tests: their answers, their files, their ends.

use std::{fs, rc::Rc};

use clap::Parser;

use echometer_loadgen::verdict::Status as Judged;
use echometer_report::{
    file::metric::Metric,
    folder::{ResultFolder, json},
};

use super::*;
use crate::{
    cli::{Cli, Command},
    measure::world::{GOOD, Server, World},
    place::placement::Placement,
};

mod open_loop;

/// A comparison in the made-up world, with its files in a folder that goes away.
struct Trial {
    settings: CompareSettings,
    world: World,
    _root: tempfile::TempDir,
    folder: ResultFolder,
    record: Record,
}

impl Trial {
    fn of(flags: &str, servers: &[Server]) -> Self {
        let words = format!("echometer compare {flags} --seed 1 --quiet");
        let words = shell_words::split(&words).expect("a test's line");
        let Command::Compare(flags) = Cli::try_parse_from(words).expect("valid").command else {
            panic!("it is compare")
        };
        let settings = flags.settings().expect("valid");
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = ResultFolder::named(&root.path().join("out"), FILE_NAME).expect("it is free");
        let cpu = |cpu: u32| [cpu].into_iter().collect();
        let placement = Placement {
            server: cpu(0),
            client: cpu(1),
        };
        let load = settings.load.clone();
        let machine = Facts {
            cpu_model: Some("Made-up 3000".to_owned()),
            cpus_online: "0-1".parse().ok(),
            hypervisor: Some("none".to_owned()),
            kernel: Some("6.18.1".to_owned()),
            ..Facts::default()
        };
        let record = Record::new(
            &settings,
            &placement,
            load,
            machine,
            folder.clone(),
            "echometer compare ...",
        );
        Self {
            settings,
            world: World::of(servers),
            _root: root,
            folder,
            record,
        }
    }

    fn run(&mut self) -> anyhow::Result<()> {
        self.run_until(&|| false)
    }

    fn run_until(&mut self, stop: &dyn Fn() -> bool) -> anyhow::Result<()> {
        let (mut client, mut arms) = (self.world.clone(), self.world.clone());
        let outcome = run_blocks(
            &self.settings,
            &mut self.record,
            &mut client,
            &mut arms,
            stop,
        );
        assert!(
            self.world.is_tidy(),
            "a server or a connection was left behind"
        );
        outcome
    }

    fn finish(self) -> Finished<Comparison> {
        let saved = fs::read_to_string(self.folder.join(FILE_NAME)).expect("it was saved");
        let comparison: Comparison = serde_json::from_str(&saved).expect("it is read back");
        assert!(
            json(&self.record.comparison) == saved,
            "the last state is what was saved"
        );
        let report = self.folder.join(REPORT_NAME);
        let text = fs::read_to_string(&report).expect("it was saved");
        assert!(text.ends_with(".\n") && text == self.record.text, "{text}");
        Finished {
            file: comparison,
            text,
            report,
            unsaved: None,
        }
    }
}

/// With a floor, as a real comparison has one.
fn with_floor(mut trial: Trial) -> Trial {
    let pairs = floor::pairs_for(&trial.settings.load).expect("it fits");
    trial
        .record
        .set_floor(crate::judge::multiples::planned(0, &pairs, Vec::new()));
    trial
}

fn faster(share: f64) -> Server {
    Server {
        message_ns: (GOOD.message_ns as f64 * share) as u64,
        ..GOOD
    }
}

#[test]
fn eight_blocks_end_in_an_answer_and_its_files() {
    let mut trial = Trial::of("epoll uring", &[GOOD, faster(0.88)]);
    trial.run().expect("all goes well");
    let blocks = trial.folder.join("blocks");
    for block in 1..=8 {
        for file in ["epoll.hlog", "uring.hlog", "slices.csv"] {
            assert!(
                blocks.join(format!("{block:03}-{file}")).is_file(),
                "{block} {file}"
            );
        }
    }
    let rows = fs::read_to_string(blocks.join("001-slices.csv"))
        .expect("it is there")
        .lines()
        .count();
    assert_eq!(
        rows,
        1 + 2 * 60,
        "a head and 3 s of 50 ms slices for each arm"
    );
    assert!(
        trial
            .world
            .state
            .borrow()
            .starts
            .iter()
            .all(|&starts| starts == 8),
        "afresh in each block"
    );

    let finished = trial.finish();
    assert_eq!(exit_code(&finished.file, true), 0);
    let comparison = &finished.file;
    assert_eq!(comparison.schema, "echometer.compare/1");
    assert_eq!(comparison.seed, 1);
    let primary = comparison
        .metrics
        .iter()
        .find(|metric| metric.primary)
        .expect("there is one");
    assert_eq!((primary.verdict, primary.blocks_used), (Verdict::Better, 8));
    assert!(
        primary
            .ratio
            .is_some_and(|ratio| (ratio - 0.88).abs() < 1e-6)
    );
    assert!(
        comparison
            .sentence
            .contains("uring needs 12.0 % less server CPU per message than epoll")
    );
    let commands: Vec<&str> = comparison
        .commands
        .iter()
        .map(|entry| entry.of.as_str())
        .collect();
    assert_eq!(commands, ["echometer", "epoll", "uring"]);
    assert!(comparison.arms[1].ready_line.is_some());
}

#[test]
fn each_server_is_told_as_a_multiple_of_the_floor() {
    let mut trial = with_floor(Trial::of("epoll uring", &[GOOD, faster(0.88)]));
    trial.run().expect("all goes well");
    let csv = fs::read_to_string(trial.folder.join("blocks/001-slices.csv")).expect("it is there");
    assert_eq!(
        csv.lines()
            .filter(|line| line.contains(",(floor),"))
            .count(),
        60
    );
    let comparison = trial.finish().file;
    assert!(
        comparison.blocks[0]
            .order
            .iter()
            .any(|name| name == "(floor)")
    );
    let floor = comparison.floor.expect("it was planned");
    // 8 us, of which two syscalls are a quarter.
    let ns = floor.cpu_ns_per_message.expect("it was measured");
    assert!((ns - 7_750.0).abs() < 5.0, "{ns}");
    let multiples: Vec<(&str, f64)> = floor
        .multiples
        .iter()
        .map(|multiple| (multiple.arm.as_str(), multiple.ratio.expect("it is local")))
        .collect();
    for ((name, multiple), expected) in multiples.into_iter().zip([10.0 / 7.75, 8.8 / 7.75]) {
        assert!((multiple - expected).abs() < 1e-3, "{name}: {multiple}");
    }
    assert!(
        floor
            .multiples
            .iter()
            .all(|multiple| multiple.ci_low.is_some())
    );
}

#[test]
fn a_withheld_floor_takes_no_turn_and_says_why() {
    let mut trial = Trial::of("epoll uring --blocks 6", &[GOOD, GOOD]);
    trial
        .record
        .set_floor(FloorEntry::withheld(Some("it was a test".to_owned())));
    trial.run().expect("all goes well");
    assert_eq!(trial.world.state.borrow().floor_slices, 0);
    let comparison = trial.finish().file;
    assert!(
        echometer_report::text::compare::text(&comparison).contains("- no floor: it was a test\n")
    );
    assert_eq!(comparison.floor.expect("it is said").multiples, []);
}

#[test]
fn the_same_server_twice_is_the_same() {
    let mut trial = Trial::of("epoll epoll", &[GOOD, GOOD]);
    trial.run().expect("all goes well");
    let finished = trial.finish();
    assert!(
        finished
            .file
            .metrics
            .iter()
            .all(|metric| metric.verdict == Verdict::Same)
    );
}

#[test]
fn a_server_that_dies_once_costs_one_block() {
    let mortal = Server {
        dies_at: Some(100),
        ..faster(0.88)
    };
    let mut trial = Trial::of("epoll uring", &[GOOD, mortal]);
    trial.run().expect("it goes on");
    let finished = trial.finish();
    let invalid: Vec<_> = finished
        .file
        .blocks
        .iter()
        .filter(|block| !block.valid)
        .collect();
    assert_eq!(invalid.len(), 1);
    assert_eq!(
        (invalid[0].index, &invalid[0].reasons[..]),
        (2, &["uring was killed by signal 9".to_owned()][..])
    );
    assert_eq!(
        (finished.file.blocks.len(), exit_code(&finished.file, false)),
        (8, 0)
    );
}

#[test]
fn a_server_that_does_not_start_is_told_at_once_and_later_is_a_finding() {
    let unwilling = Server {
        refuses_start: Some(0),
        ..GOOD
    };
    let mut trial = Trial::of("epoll 'a=false --x'", &[GOOD, unwilling]);
    let error = trial
        .run()
        .expect_err("there is nothing to compare")
        .to_string();
    assert_eq!(error, "arm 'a' (false --x) exited with status 1");

    let unwilling = Server {
        refuses_start: Some(4),
        ..GOOD
    };
    let mut trial = Trial::of("epoll uring", &[GOOD, unwilling]);
    trial.run().expect("it goes on");
    let finished = trial.finish();
    assert_eq!(
        finished.file.blocks[4].reasons,
        ["uring exited with status 1"]
    );
    assert_eq!(exit_code(&finished.file, false), 0, "seven are enough");
}

#[test]
fn wrong_bytes_end_the_comparison() {
    let wrong = Server {
        corrupts_at: Some(70),
        ..GOOD
    };
    let mut trial = Trial::of("epoll uring --verify", &[GOOD, wrong]);
    let error = trial.run().expect_err("it is no echo").to_string();
    assert_eq!(
        error,
        "arm 'uring' (uring) sent back something else than it got: byte 7"
    );
}

#[test]
fn it_ends_where_six_valid_blocks_are_out_of_reach() {
    let restless = Server {
        restless: 0.5,
        ..GOOD
    };
    let mut trial = Trial::of("epoll uring", &[GOOD, restless]);
    trial.run().expect("it is a finding");
    let finished = trial.finish();
    assert_eq!(
        (finished.file.blocks.len(), exit_code(&finished.file, true)),
        (3, 3)
    );
    assert!(
        finished
            .file
            .verdict
            .warnings
            .iter()
            .any(|warning| warning.contains("out of reach"))
    );
    assert!(
        finished.file.sentence.contains("can't be said"),
        "{}",
        finished.file.sentence
    );
    let primary = finished
        .file
        .metrics
        .iter()
        .find(|metric| metric.primary)
        .expect("there is one");
    assert_eq!((primary.ratio, primary.verdict), (None, Verdict::Undecided));
}

#[test]
fn fewer_blocks_than_six_give_estimates_only() {
    let mut trial = Trial::of("epoll uring --blocks 4", &[GOOD, faster(0.5)]);
    trial.run().expect("all goes well");
    let finished = trial.finish();
    assert_eq!(
        (finished.file.blocks.len(), exit_code(&finished.file, true)),
        (4, 3)
    );
    let primary = finished
        .file
        .metrics
        .iter()
        .find(|metric| metric.primary)
        .expect("there is one");
    assert_eq!(
        (primary.ci_low, primary.p, primary.verdict),
        (None, None, Verdict::Undecided)
    );
    assert!(primary.ratio.is_some());
    assert!(
        finished.file.sentence.contains("needs 6 blocks"),
        "{}",
        finished.file.sentence
    );
}

#[test]
fn a_request_to_stop_keeps_what_is_whole() {
    let mut trial = Trial::of("epoll uring", &[GOOD, faster(0.88)]);
    let seen = Rc::clone(&trial.world.state);
    // Each block has two warm-ups and 120 slices: this is in the midst of the seventh.
    trial
        .run_until(&|| 800 <= seen.borrow().driven.len())
        .expect("it is no failure");
    let finished = trial.finish();
    assert!(finished.file.cut_short);
    assert_eq!(finished.file.blocks.len(), 7);
    assert_eq!(finished.file.blocks[6].reasons, ["cut short"]);
    assert_eq!(exit_code(&finished.file, true), 0, "six are whole");
    assert!(finished.file.sentence.starts_with("Cut short. "));
}

#[test]
fn undecided_is_a_failure_only_where_a_decision_was_asked_for() {
    let mut trial = Trial::of("epoll uring", &[GOOD, GOOD]);
    trial.run().expect("all goes well");
    let mut finished = trial.finish();
    let primary = finished
        .file
        .metrics
        .iter_mut()
        .find(|metric| metric.primary)
        .expect("there is one");
    primary.verdict = Verdict::Undecided;
    assert_eq!(
        (
            exit_code(&finished.file, false),
            exit_code(&finished.file, true)
        ),
        (0, 4)
    );
    finished.file.verdict.status = Status::Invalid;
    assert_eq!(
        exit_code(&finished.file, true),
        3,
        "invalid goes before undecided"
    );
}

fn primary_of(finished: &Finished<Comparison>) -> &echometer_report::file::compare::MetricResult {
    let mut metrics = finished.file.metrics.iter();
    metrics.find(|metric| metric.primary).expect("there is one")
}

#[test]
fn servers_that_never_sleep_are_compared_by_runs_and_told_so() {
    let spinning = Server {
        restless: 1.0,
        ..GOOD
    };
    let mut trial = Trial::of("epoll 'busy=uring:--wait spin'", &[GOOD, spinning]);
    trial.run().expect("it goes");
    let finished = trial.finish();
    assert_eq!(exit_code(&finished.file, true), 0, "nobody rests in runs");
    let warnings = finished.file.verdict.warnings.join("\n");
    assert!(warnings.contains("busy never sleeps"), "{warnings}");
    assert_eq!(primary_of(&finished).name, Metric::ServerCpuPerMessage);
}

/// The report as a user sees it. Where it is changed on purpose, the text beside it is changed too.
#[test]
fn the_report_of_a_whole_comparison() {
    let uneven = |share: f64| Server {
        scatter: 0.03,
        ..faster(share)
    };
    let dying = Server {
        dies_at: Some(150),
        ..uneven(0.88)
    };
    let restless = Server {
        restless: 0.004,
        ..uneven(0.99)
    };
    let mut trial = with_floor(Trial::of(
        "epoll uring 'a-name-of-many-letters=./server {port}'",
        &[uneven(1.0), dying, restless],
    ));
    trial.run().expect("it goes on");
    let text = echometer_report::text::compare::text(&trial.finish().file);
    assert!(
        text.lines()
            .all(|line| line.chars().count() <= echometer_report::text::columns::COLUMNS)
    );
    assert_eq!(
        text,
        include_str!("../../tests/golden/compare.txt"),
        "\n{text}"
    );
}
