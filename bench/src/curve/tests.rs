//! Whole curves against made-up servers of known capacity.

use std::cell::Cell as Flag;

use proptest::prelude::*;

use echometer_host::{cpus::CpuList, machine::Facts};
use echometer_loadgen::Plan;
use echometer_report::folder::ResultFolder;

use super::*;
use crate::{
    flags::{MachineSettings, OutputSettings},
    measure::world::{GOOD, Server, World},
    place::placement::Placement,
    serve::arm::parse_arms,
};

/// 100,000/s, and a wait of 100 us / (1 - load).
const QUEUES: Server = Server {
    latency_ns: 100_000,
    queues: true,
    ..GOOD
};

fn settings(arms: &[&str], rates: &[f64]) -> CurveSettings {
    CurveSettings {
        arms: parse_arms(arms).expect("arms"),
        rates: rates.to_vec(),
        slos: vec!["p99<1ms".parse().expect("an objective")],
        blocks: 6,
        cycles: 4,
        margin: 0.02,
        load: Plan {
            connections: 50,
            ..flags::load_defaults(false)
        },
        machine: MachineSettings::default(),
        output: OutputSettings {
            quiet: true,
            ..OutputSettings::default()
        },
    }
}

fn measured(
    settings: &CurveSettings,
    world: &World,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<CurveFile> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let list = |text: &str| text.parse::<CpuList>().expect("a test's list");
    let placement = Placement {
        server: list("0"),
        client: list("1"),
    };
    let result = ResultFolder::named(folder.path(), FILE_NAME).expect("it is free");
    let mut record = Record::new(
        settings,
        &placement,
        settings.load.clone(),
        Facts::default(),
        result,
        "echometer curve",
    );
    let outcome = run(
        settings,
        &mut record,
        &mut world.clone(),
        &mut world.clone(),
        stop,
    );
    assert!(world.is_tidy(), "a server runs on");
    outcome?;
    let text = echometer_report::text::curve::text(&record.file);
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    let saved = std::fs::read_to_string(folder.path().join(FILE_NAME)).expect("it is there");
    let saved: CurveFile = serde_json::from_str(&saved).expect("it is JSON");
    assert_eq!(saved.sentence, record.file.sentence);
    for cell in saved.blocks.iter().flat_map(|block| &block.cells) {
        assert!(folder.path().join(&cell.figures.hlog).is_file());
    }
    Ok(record.file)
}

#[test]
fn the_rates_follow_from_the_smallest_capacity_and_the_slower_arm_is_told() {
    let slower = Server {
        message_ns: 12_000,
        latency_ns: 130_000,
        ..QUEUES
    };
    let world = World::of(&[QUEUES, slower]);
    let file = measured(&settings(&["epoll", "uring"], &[]), &world, &|| false).expect("all start");
    let found: Vec<f64> = file.capacities.iter().map(|one| one.rate_per_s).collect();
    assert!((88_000.0..=90_100.0).contains(&found[0]), "{found:?}");
    assert!((71_000.0..=72_600.0).contains(&found[1]), "{found:?}");
    let shares: Vec<f64> = file.points.iter().filter_map(|point| point.share).collect();
    assert_eq!(shares[..5], SHARES);
    assert_eq!(
        (shares.len(), file.points[5].own.as_deref()),
        (7, Some("uring"))
    );
    assert_eq!(file.points[6].own.as_deref(), Some("epoll"));
    assert_eq!(file.verdict.status, Status::Valid, "{:?}", file.verdict);
    // 100 us / (1 - 0.36) against 130 us / (1 - 0.43).
    let half = file.points[2]
        .metric("uring", echometer_report::file::metric::Metric::LatencyP99)
        .expect("it is there");
    assert_eq!(half.verdict, Some(echometer_statistics::Verdict::Worse));
    assert!(
        half.ratio
            .is_some_and(|ratio| (1.35..1.55).contains(&ratio)),
        "{half:?}"
    );
    let knee = |arm: usize| file.knee[arm].rate_per_s.expect("there is one");
    // Twice the least is at 54 % of the capacity, which is just below the next rate.
    assert!((35_000.0..=37_000.0).contains(&knee(0)) && (knee(1) - knee(0)).abs() < 1.0);
    assert!(
        file.sentence.contains("the knee of epoll is at") && file.sentence.contains("worse at 5"),
        "{}",
        file.sentence
    );
}

#[test]
fn given_rates_are_taken_and_an_overloaded_one_is_not_compared() {
    let slower = Server {
        message_ns: 20_000,
        ..QUEUES
    };
    let world = World::of(&[QUEUES, slower]);
    let file = measured(
        &settings(&["epoll", "uring"], &[10_000.0, 60_000.0]),
        &world,
        &|| false,
    )
    .expect("all start");
    assert!(file.capacities.is_empty() && file.points.len() == 2);
    assert_eq!(
        file.points[1].overloaded.keys().collect::<Vec<_>>(),
        ["uring"]
    );
    assert!(
        file.points[1]
            .metrics
            .iter()
            .all(|metric| metric.ratio.is_none())
    );
    assert!(
        file.points[0]
            .metrics
            .iter()
            .any(|metric| metric.ratio.is_some())
    );
}

#[test]
fn a_stop_keeps_whole_blocks_and_a_server_that_never_starts_is_told() {
    let asked = Flag::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        40 < asked.get()
    };
    let world = World::of(&[QUEUES]);
    let file = measured(&settings(&["uring"], &[10_000.0, 50_000.0]), &world, &stop)
        .expect("nothing fails");
    assert!(file.cut_short && !file.blocks.is_empty() && file.blocks.len() < 6);
    let never = World::of(&[Server {
        refuses_start: Some(0),
        ..QUEUES
    }]);
    let error = measured(&settings(&["uring"], &[]), &never, &|| false).expect_err("it can't");
    assert!(
        error.to_string().contains("arm 'uring' (uring) exited"),
        "{error}"
    );
}

#[test]
fn the_time_is_told_before_it_starts_and_three_arms_take_less_than_five_minutes() {
    let words = plan_words(&settings(&["epoll", "uring", "tokio"], &[]));
    let seconds: u64 = words
        .rsplit("about ")
        .next()
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .expect("a number");
    assert!((200..300).contains(&seconds), "{words}");
    assert!(!plan_words(&settings(&["epoll"], &[1e4])).contains("capacities"));
}

proptest! {
    #[test]
    fn rates_ascend_and_lie_where_they_should(
        capacities in proptest::collection::vec(100.0..1e6_f64, 1..5),
    ) {
        let rates = rates_of(&capacities);
        let smallest = capacities.iter().copied().fold(f64::INFINITY, f64::min);
        prop_assert!(rates.windows(2).all(|two| two[0].per_s <= two[1].per_s));
        for rate in &rates {
            let share = rate.share.expect("a capacity was found");
            prop_assert!((rate.per_s / smallest / share - 1.0).abs() < 0.06);
            prop_assert_eq!(rate.own.is_some(), 1.0 <= share);
        }
        prop_assert_eq!(rates.len(), SHARES.len() + capacities.len());
    }
}
