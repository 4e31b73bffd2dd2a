//! Whole sweeps against a made-up world: no process, no socket, no clock.

use std::{collections::BTreeMap, net::SocketAddr};

use hdrhistogram::Histogram;

use echometer_host::{cpus::CpuList, machine::Facts};
use echometer_loadgen::{
    plan::Load,
    verdict::{self, Verdict},
};
use echometer_report::{
    file::{
        metric::Metric,
        sweep::{Conclusion, Movement},
    },
    folder::ResultFolder,
};

use super::*;
use crate::{
    levels::{Change, parse_axes},
    measure::{
        open_run::OpenLoad,
        sides::{Judged, Stretch, WholeRun},
        world::{GOOD, Server, World},
    },
    serve::arm::parse_arms,
    sweep::{flags::SweepSettings, grid::Group, stage::Moves},
};

/// Servers whose cost per message depends on the backlog that they were given, and on nothing else; two of a hundred
/// connections cost twice what they cost with one.
struct MadeUp {
    groups: Vec<Vec<u64>>,
    next: usize,
    /// The server of this cell dies in its first slice.
    dies: Option<String>,
    /// The server of this cell does not start from this block on.
    refuses: Option<(String, usize)>,
    load: FakeLoad,
    worlds: Vec<World>,
}

struct FakeLoad;

impl OpenLoad for FakeLoad {
    fn run(&mut self, _address: SocketAddr, load: &Plan) -> Result<WholeRun, String> {
        let Load::Open { rate_per_s, .. } = load.load else {
            return Err("is no open loop".to_owned());
        };
        let seconds = load.duration.as_secs_f64();
        let answered = (rate_per_s * seconds) as u64;
        let mut latency = Histogram::new(3).expect("digits");
        // The higher the rate, the longer it takes.
        latency
            .record_n(rate_per_s as u64, answered)
            .expect("it grows");
        let status = match 100_000.0 < rate_per_s {
            true => verdict::Status::Overloaded,
            false => verdict::Status::Valid,
        };
        Ok(WholeRun {
            stretch: Stretch {
                latency,
                open: None,
                overload: Vec::new(),
                recorded: answered,
                recorded_span_ns: load.duration.as_nanos() as u64,
                messages: answered,
                faults: BTreeMap::new(),
                wrong: None,
                client_cpu_ns: Some(1_000 * answered),
                client_busiest: 0.5,
                client_run_delay: 0.0,
            },
            judged: Judged {
                verdict: Verdict {
                    status,
                    reasons: Vec::new(),
                    warnings: Vec::new(),
                },

                offered_per_s: Some(rate_per_s),
                censored_from_ns: None,
            },
            cut_short: false,
        })
    }
}

impl Moves for World {
    fn movement(&self, arm: usize) -> Option<Movement> {
        Some(Movement {
            span_ns: 1_000_000_000,
            server_migrations: Some(arm as u64),
            client_migrations: None,
            server_run_delay_ns: Some(1_000_000),
        })
    }
}

impl Stage for MadeUp {
    type Client = World;
    type Servers = World;
    type Load = FakeLoad;

    fn client(&mut self, _group: &Group) -> Result<World, String> {
        Ok(self.worlds.last().expect("servers come first").clone())
    }

    fn servers(&mut self, placement: &Placement, servers: Vec<Arm>) -> World {
        self.groups.push(Vec::new());
        self.next += 1;
        let world: Vec<Server> = servers
            .iter()
            .map(|arm| {
                let text = arm.spec.to_string();
                let backlog = text
                    .split("--backlog ")
                    .nth(1)
                    .and_then(|backlog| backlog.parse().ok())
                    .unwrap_or(1_u64);
                let shared =
                    u64::from(!placement.server.intersection(&placement.client).is_empty());
                Server {
                    message_ns: 10_000 * backlog * (1 + shared),
                    scatter: 0.004,
                    dies_at: (self.dies.as_deref() == Some(&arm.name)).then_some(1),
                    refuses_start: match &self.refuses {
                        Some((name, from)) if *name == arm.name && *from <= self.next => Some(0),
                        _ => None,
                    },
                    ..GOOD
                }
            })
            .collect();
        let world = World::of(&world);
        self.worlds.push(world.clone());
        world
    }

    fn load(&mut self) -> &mut FakeLoad {
        &mut self.load
    }
}

fn made_up() -> MadeUp {
    MadeUp {
        groups: Vec::new(),
        next: 0,
        dies: None,
        refuses: None,
        load: FakeLoad,
        worlds: Vec::new(),
    }
}

fn list(text: &str) -> CpuList {
    text.parse().expect("a test's list")
}

fn settings(over: &[&str], arms: &[&str], folder: &tempfile::TempDir) -> SweepSettings {
    let open = over.iter().any(|over| over.starts_with("rate"));
    SweepSettings {
        arms: parse_arms(arms).expect("test arms"),
        axes: parse_axes(over).expect("test axes"),
        dry_run: false,
        load: Plan {
            duration: Duration::from_millis(500),
            warmup: Duration::from_millis(50),
            ..Plan::default()
        },
        blocks: 8,
        slice: Duration::from_millis(50),
        margin: 0.02,
        primary: match open {
            true => Metric::LatencyP50,
            false => Metric::ServerCpuPerMessage,
        },
        decide: false,
        notes: Vec::new(),
        machine: crate::flags::MachineSettings::default(),
        output: crate::flags::OutputSettings {
            out: Some(folder.path().to_owned()),
            json: false,
            quiet: true,
        },
    }
}

fn swept(
    settings: &SweepSettings,
    stage: &mut MadeUp,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<SweepFile> {
    let placement = Placement {
        server: list("0"),
        client: list("1"),
    };
    let base = Base {
        arms: settings.arms.clone(),
        load: settings.load.clone(),
        placement: placement.clone(),
        layouts: Vec::new(),
    };
    let grid = Grid::plan(&settings.axes, &base).map_err(|text| anyhow!(text))?;
    let out = settings.output.out.clone().expect("tests have a folder");
    let folder = ResultFolder::named(&out, echometer_report::file::sweep::FILE_NAME)?;
    let mut record = Record::new(
        settings,
        &grid,
        &placement,
        Facts::default(),
        folder,
        "echometer sweep",
    );
    run_blocks(settings, &grid, &mut record, stage, stop)?;
    assert!(stage.worlds.iter().all(World::is_tidy), "something runs on");
    Ok(record.file)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn fits(file: &SweepFile) {
    let text = echometer_report::text::sweep::text(file);
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
}

#[test]
fn the_best_level_is_found_and_everything_is_saved() {
    let folder = folder();
    let settings = settings(&["backlog=2,1,3"], &["uring"], &folder);
    let file = swept(&settings, &mut made_up(), &|| false).expect("nothing fails");
    assert_eq!(file.verdict.status, Status::Valid, "{:?}", file.verdict);
    let [ranking] = file.rankings.as_slice() else {
        panic!("one arm, one ranking")
    };
    assert_eq!(ranking.conclusion, Conclusion::Best);
    assert_eq!(ranking.order, ["backlog=1", "backlog=2", "backlog=3"]);
    assert!(
        file.sentence.contains("take backlog=1 for uring"),
        "{}",
        file.sentence
    );
    fits(&file);
    assert_eq!(file.blocks.len(), 8);
    assert!(file.blocks.iter().all(|block| block.cells.len() == 3));
    let saved = std::fs::read_to_string(folder.path().join("sweep.json")).expect("it is there");
    let again: SweepFile = serde_json::from_str(&saved).expect("it is JSON");
    assert_eq!(
        (again.sentence, again.rankings.len(), again.blocks.len()),
        (file.sentence.clone(), 1, 8)
    );
    for name in [
        "blocks/001-01-uring.hlog",
        "blocks/008-group01-slices.csv",
        "report.txt",
    ] {
        assert!(folder.path().join(name).is_file(), "{name}");
    }
    let movement = file.points[2].movement["uring"];
    assert_eq!(movement.server_migrations_per_s, Some(2.0));
    assert_eq!(movement.server_run_delay, Some(0.001));
}

#[test]
fn levels_of_the_load_are_groups_in_random_order() {
    let folder = folder();
    let settings = settings(&["connections=1,2,3,4"], &["epoll", "mine=uring"], &folder);
    let file = swept(&settings, &mut made_up(), &|| false).expect("nothing fails");
    let orders: Vec<&Vec<String>> = file.blocks.iter().map(|block| &block.order).collect();
    assert!(orders.iter().any(|order| *order != orders[0]), "{orders:?}");
    assert!(orders.iter().all(|order| order.len() == 8));
    let same = &file.points[1]
        .metrics
        .iter()
        .find(|metric| metric.primary && metric.arm == "mine");
    let contrast = same
        .expect("one per arm")
        .against_arm
        .as_ref()
        .expect("a baseline");
    assert_eq!(contrast.verdict, echometer_statistics::Verdict::Same);
    assert!(
        file.sentence
            .contains("mine within about 2 % at connections=1"),
        "{}",
        file.sentence
    );
    fits(&file);
}

#[test]
fn open_loops_are_whole_runs() {
    let folder = folder();
    let settings = settings(&["rate=10k,20k,200k"], &["uring"], &folder);
    let file = swept(&settings, &mut made_up(), &|| false).expect("nothing fails");
    assert_eq!(file.verdict.status, Status::Valid, "{:?}", file.verdict);
    let value = |point: usize| {
        let metric = file.points[point]
            .metrics
            .iter()
            .find(|metric| metric.primary);
        metric.expect("one per point").value.expect("eight blocks")
    };
    assert!((value(1) / value(0) - 2.0).abs() < 0.01);
    let warnings = file.verdict.warnings.join("\n");
    assert!(
        warnings.contains("uring at rate=200k was overloaded in 8 of 8 runs"),
        "{warnings}"
    );
    assert!(file.sentence.contains("at rate=200k"), "{}", file.sentence);
    fits(&file);
}

#[test]
fn a_primary_metric_without_any_verdict_is_exit_3_as_in_a_comparison() {
    let exit_code = |primary| {
        let folder = folder();
        let settings = SweepSettings {
            primary,
            ..settings(&["rate=10k,20k"], &["uring"], &folder)
        };
        let file = swept(&settings, &mut made_up(), &|| false).expect("nothing fails");
        fits(&file);
        (
            crate::sweep::exit_code(&file, false),
            crate::sweep::exit_code(&file, true),
        )
    };
    assert_eq!(exit_code(Metric::LatencyP50), (0, 0));
    assert_eq!(
        exit_code(Metric::Rate),
        (3, 3),
        "-R sets the rate; invalid goes before undecided"
    );
}

#[test]
fn a_server_that_dies_spoils_its_own_group_only() {
    let folder = folder();
    let settings = settings(&["connections=1,2"], &["uring"], &folder);
    let mut stage = MadeUp {
        dies: Some("02-uring".to_owned()),
        ..made_up()
    };
    let file = swept(&settings, &mut stage, &|| false).expect("it goes on");
    assert_eq!(file.verdict.status, Status::Invalid);
    let reasons = &file.blocks[0].cells["02-uring"].reasons;
    assert!(reasons[0].contains("was killed by signal 9"), "{reasons:?}");
    assert!(
        file.blocks
            .iter()
            .all(|block| block.cells["01-uring"].valid)
    );
    fits(&file);
}

#[test]
fn a_server_that_never_starts_is_told_at_once_and_one_that_stops_starting_is_a_finding() {
    let folder_1 = folder();
    let mut stage = MadeUp {
        refuses: Some(("02-uring".to_owned(), 0)),
        ..made_up()
    };
    let error = swept(
        &settings(&["connections=1,2"], &["uring"], &folder_1),
        &mut stage,
        &|| false,
    )
    .expect_err("it does not start");
    assert!(
        error.to_string().contains("arm 'uring' at connections=2"),
        "{error}"
    );

    let folder_2 = folder();
    let mut stage = MadeUp {
        refuses: Some(("02-uring".to_owned(), 5)),
        ..made_up()
    };
    let file = swept(
        &settings(&["connections=1,2"], &["uring"], &folder_2),
        &mut stage,
        &|| false,
    )
    .expect("it goes on");
    assert!(
        file.blocks
            .iter()
            .any(|block| !block.cells["02-uring"].valid)
    );
}

#[test]
fn a_stop_keeps_what_is_whole() {
    let folder = folder();
    let settings = settings(&["connections=1,2"], &["uring"], &folder);
    let asked = std::cell::Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        90 < asked.get()
    };
    let file = swept(&settings, &mut made_up(), &stop).expect("nothing fails");
    assert!(file.cut_short);
    assert!((1..8).contains(&file.blocks.len()));
    assert!(
        file.sentence.starts_with("Cut short. "),
        "{}",
        file.sentence
    );
    assert!(file.blocks[0].cells.values().all(|cell| cell.valid));
}

#[test]
fn what_would_be_done_is_shown_with_its_time() {
    let folder = folder();
    let settings = settings(
        &["backlog=16,128", "connections=1,1000"],
        &["uring", "mine=./srv {port} {backlog} {cpus}"],
        &folder,
    );
    assert!(matches!(
        settings.axes[0].levels[0].change,
        Change::ServerFlag { .. }
    ));
    let base = Base {
        arms: settings.arms.clone(),
        load: settings.load.clone(),
        placement: Placement {
            server: list("0"),
            client: list("1"),
        },
        layouts: Vec::new(),
    };
    let grid = Grid::plan(&settings.axes, &base).expect("it can be planned");
    let launcher = Launcher {
        server_binary: "/somewhere/echometer-server".into(),
        server_cpus: list("0"),
        priority: Default::default(),
        guard: None,
        ready_timeout: Duration::from_secs(10),
    };
    let shown = dry_run(&settings, &grid, &launcher);
    for expected in [
        "8 blocks; each measures 8 cells in 2 groups",
        "backlog=128 connections=1000: echometer-server --listen 127.0.0.1:0 --engine uring --cpus 0 --backlog 128",
        "./srv {port} 16 0",
        "-c 1000 -s 64B -d 500ms -w 50ms --pipeline 1",
        "--cpus 1",
        "It would take about 41s.",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
}
