use hdrhistogram::Histogram;

use echometer_host::cpus::CpuList;
use echometer_loadgen::Plan;
use echometer_report::file::{metric::Metric, sweep::Conclusion};

use super::*;
use crate::{
    judge::figures::arm_figures,
    levels::parse_axes,
    measure::{
        block::{ArmBlock, Slice},
        sides::CpuTimes,
    },
    place::{
        layouts::{Layout, LayoutKind},
        placement::Placement,
    },
    serve::arm::parse_arms,
    sweep::{block::CellBlock, grid::Base},
};

fn list(text: &str) -> CpuList {
    text.parse().expect("a test's list")
}

fn grid(over: &[&str], arms: &[&str]) -> Grid {
    let layout = |kind, client| Layout {
        kind,
        server: list("0"),
        client,
    };
    let base = Base {
        arms: parse_arms(arms).expect("test arms"),
        load: Plan::default(),
        placement: Placement {
            server: list("0"),
            client: list("1"),
        },
        layouts: vec![
            layout(LayoutKind::Unpinned, None),
            layout(LayoutKind::SameCpu, Some(0)),
            layout(LayoutKind::SameL3, Some(1)),
        ],
    };
    Grid::plan(&parse_axes(over).expect("test axes"), &base).expect("it can be planned")
}

/// A cell whose messages cost the server so much, with a latency of as much.
fn cell(message_ns: f64, grid: &Grid, number: usize) -> CellBlock {
    let messages = (1e8 / message_ns) as u64;
    let slice = Slice {
        cycle: 0,
        recorded: messages,
        recorded_span_ns: 100_000_000,
        messages,
        span_ns: 100_000_000,
        server_cpu_ns: Some((messages as f64 * message_ns) as u64),
        client_cpu_ns: Some(1_000),
        client_busiest: 0.5,
        client_run_delay: 0.0,
        server_cpus: CpuTimes::default(),
        overloaded: false,
    };
    let mut latency = Histogram::new(3).expect("digits");
    latency
        .record_n(message_ns as u64, messages)
        .expect("it grows");
    let raw = ArmBlock {
        slices: vec![slice],
        runs: Vec::new(),
        latency,
        open: None,
        overload: None,
        resting_cpu_ns: None,
        resting_span_ns: 0,
        usage: None,
    };
    let figures = arm_figures(&raw, String::new(), 1);
    assert!(number < grid.cells.len());
    CellBlock {
        raw: Some(raw),
        figures: Some(figures),
        censored_from_ns: None,
        reasons: Vec::new(),
        remarks: Vec::new(),
        movement: None,
        started: None,
    }
}

/// Blocks in which each cell costs what is given, give or take half a percent, the machine drifting under all.
fn blocks(grid: &Grid, count: usize, costs: &[f64]) -> Vec<SweepBlock> {
    (1..=count)
        .map(|index| {
            let drift = 1.0 + 0.05 * index as f64;
            let wave = |number: usize| 1.0 + 0.001 * ((index * 7 + number * 3) % 5) as f64;
            let cells = costs
                .iter()
                .enumerate()
                .map(|(number, cost)| Some(cell(cost * drift * wave(number), grid, number)));
            SweepBlock {
                index,
                order: Vec::new(),
                cells: cells.collect(),
            }
        })
        .collect()
}

const TERMS: Terms = Terms {
    primary: Metric::ServerCpuPerMessage,
    margin: 0.02,
};

fn primary(metrics: &[CellMetric]) -> &CellMetric {
    metrics
        .iter()
        .find(|metric| metric.primary)
        .expect("there is one")
}

#[test]
fn cells_stand_against_the_first_arm_and_against_the_first_point() {
    let grid = grid(&["connections=1,50"], &["epoll", "uring"]);
    // In the order of cells: epoll and uring at 1, epoll and uring at 50.
    let found = find(TERMS, &grid, &blocks(&grid, 8, &[20e3, 20e3, 10e3, 9e3]));
    assert_eq!(found.verdict.status, Status::Valid);
    let uring_at_50 = primary(&found.cells[3]);
    let arm = uring_at_50
        .against_arm
        .as_ref()
        .expect("it is not the first arm");
    assert_eq!((arm.of.as_str(), arm.baseline.as_str()), ("uring", "epoll"));
    assert!((arm.ratio.expect("blocks") - 0.9).abs() < 0.01, "{arm:?}");
    assert_eq!(arm.verdict, Verdict::Better);
    let point = uring_at_50
        .against_point
        .as_ref()
        .expect("it is not the first point");
    assert_eq!(point.baseline, "connections=1");
    assert!((point.ratio.expect("blocks") - 0.45).abs() < 0.01);
    let first = primary(&found.cells[0]);
    assert_eq!((&first.against_arm, &first.against_point), (&None, &None));
    let same = primary(&found.cells[1])
        .against_arm
        .as_ref()
        .expect("an arm");
    assert_eq!(same.verdict, Verdict::Same);
    assert!(found.rankings.is_empty(), "loads are not ranked");
    let value = uring_at_50.value.expect("blocks");
    let (low, high) = (
        uring_at_50.value_low.expect("8"),
        uring_at_50.value_high.expect("8"),
    );
    assert!(low < value && value < high);
}

#[test]
fn the_best_layout_is_found() {
    let grid = grid(&["pinning=auto"], &["uring"]);
    let found = find(TERMS, &grid, &blocks(&grid, 8, &[15e3, 30e3, 10e3]));
    let [ranking] = found.rankings.as_slice() else {
        panic!("one arm, one ranking")
    };
    assert_eq!(
        ranking.order,
        ["pinning=same-l3", "pinning=unpinned", "pinning=same-cpu"]
    );
    assert_eq!(
        (ranking.conclusion, ranking.best.len()),
        (Conclusion::Best, 1)
    );
    assert!(ranking.against_best.iter().all(|contrast| {
        contrast.baseline == "pinning=same-l3" && contrast.verdict == Verdict::Worse
    }));
}

#[test]
fn what_carries_no_verdict_is_not_ranked_either() {
    let grid = grid(&["backlog=16,128"], &["uring"]);
    let terms = Terms {
        primary: Metric::Rate,
        ..TERMS
    };
    let mut blocks = blocks(&grid, 8, &[10e3, 30e3]);
    let best = |blocks: &[SweepBlock]| find(terms, &grid, blocks).rankings[0].conclusion;
    assert_eq!(best(&blocks), Conclusion::Best);
    for cell in blocks
        .iter_mut()
        .flat_map(|block| &mut block.cells)
        .flatten()
    {
        let figures = cell.figures.as_mut().expect("measured");
        (figures.client_busy, figures.server_busy) = (1.0, Some(0.4));
    }
    let found = find(terms, &grid, &blocks);
    let ranking = &found.rankings[0];
    assert_eq!(ranking.conclusion, Conclusion::Undecided);
    let against = &ranking.against_best[0];
    assert_eq!(against.verdict, Verdict::Invalid);
    assert!(
        against
            .reason
            .as_ref()
            .is_some_and(|reason| reason.starts_with("client-bound")),
        "{against:?}"
    );
}

#[test]
fn of_an_unknown_server_nobody_says_that_it_is_idle() {
    let grid = grid(&["connections=1,50"], &["uring"]);
    let mut blocks = blocks(&grid, 8, &[10e3, 30e3]);
    for cell in blocks
        .iter_mut()
        .flat_map(|block| &mut block.cells)
        .flatten()
    {
        let figures = cell.figures.as_mut().expect("measured");
        (figures.server_busy, figures.server_cpu_ns_per_message) = (None, None);
    }
    let found = find(TERMS, &grid, &blocks);
    let rate = found.cells[1]
        .iter()
        .find(|metric| metric.name == Metric::Rate)
        .and_then(|metric| metric.against_point.as_ref())
        .expect("it is not the first point");
    let reason = rate.reason.as_deref().expect("it carries no verdict");
    assert_eq!(rate.verdict, Verdict::Invalid);
    assert!(
        reason.contains("CPU of uring at")
            && reason.contains("is unknown")
            && !reason.contains("0 %"),
        "{reason}"
    );
}

#[test]
fn a_sweep_whose_primary_metric_carries_no_verdict_is_not_valid() {
    let terms = Terms {
        primary: Metric::Rate,
        ..TERMS
    };
    for arms in [&["uring"][..], &["epoll", "uring"]] {
        let grid = grid(&["connections=1,50,100"], arms);
        let costs = vec![10e3; grid.cells.len()];
        let mut blocks = blocks(&grid, 8, &costs);
        assert_eq!(find(terms, &grid, &blocks).verdict.status, Status::Valid);
        // The client is the busier side, at the last point first and then at all of them.
        for point in [2, 1, 0] {
            for block in &mut blocks {
                for arm in 0..arms.len() {
                    let cell = block.cells[grid.cell(point, arm)].as_mut();
                    let figures = cell.and_then(|cell| cell.figures.as_mut());
                    let figures = figures.expect("measured");
                    (figures.client_busy, figures.server_busy) = (1.0, Some(0.4));
                }
            }
            let verdict = find(terms, &grid, &blocks).verdict;
            let judged_without = match arms.len() {
                // Against the first point: the second and the third.
                1 => point < 2,
                _ => point == 0,
            };
            if judged_without {
                assert_eq!(verdict.status, Status::Invalid, "{arms:?} {point}");
                assert!(
                    verdict.reasons.len() == 1
                        && verdict.reasons[0].starts_with(
                            "no verdict anywhere on rate, the primary metric: client-bound"
                        ),
                    "{verdict:?}"
                );
            } else {
                assert_eq!(verdict.status, Status::Valid, "{arms:?} {point}");
            }
        }
    }
}

#[test]
fn an_open_loop_judges_neither_its_rate_nor_what_has_no_answer() {
    let grid = grid(&["rate=1k,2k"], &["epoll", "uring"]);
    let mut blocks = blocks(&grid, 8, &[20e3, 18e3, 20e3, 18e3]);
    let of = |blocks: &[SweepBlock], metric: Metric| {
        let found = find(TERMS, &grid, blocks);
        // uring at 2k.
        let wanted = found.cells[3].iter().find(|entry| entry.name == metric);
        let against = wanted.and_then(|entry| entry.against_arm.clone());
        against.expect("it is not the first arm")
    };
    let rate = of(&blocks, Metric::Rate);
    assert_eq!(rate.verdict, Verdict::Invalid);
    assert_eq!(rate.reason.as_deref(), Some("open loop: -R sets the rate"));
    assert_eq!(of(&blocks, Metric::LatencyP90).verdict, Verdict::Better);
    let cell = blocks[5].cells[3].as_mut().expect("measured");
    cell.figures
        .as_mut()
        .expect("measured")
        .latency_ns
        .censored_from = Some(1_000);
    let latency = of(&blocks, Metric::LatencyP90);
    assert_eq!(latency.verdict, Verdict::Invalid);
    assert_eq!(
        latency.reason.as_deref(),
        Some(
            "latency p90 of uring at rate=2k is a lower bound in 1 of 8 runs: messages were left without an answer"
        )
    );
}

#[test]
fn layouts_that_can_t_be_told_apart_are_all_named() {
    let grid = grid(&["pinning=auto"], &["uring"]);
    let several = find(TERMS, &grid, &blocks(&grid, 8, &[10e3, 30e3, 10e3]));
    assert_eq!(several.rankings[0].conclusion, Conclusion::Several);
    assert_eq!(several.rankings[0].best.len(), 2);
    let same = find(TERMS, &grid, &blocks(&grid, 8, &[10e3, 10e3, 10e3]));
    assert_eq!(same.rankings[0].conclusion, Conclusion::Same);
    assert_eq!(same.rankings[0].best.len(), 3);
}

#[test]
fn too_few_blocks_decide_nothing_and_say_so() {
    let grid = grid(&["pinning=auto"], &["uring"]);
    let found = find(TERMS, &grid, &blocks(&grid, 5, &[10e3, 30e3, 20e3]));
    assert_eq!(found.verdict.status, Status::Invalid);
    assert!(
        found.verdict.reasons[0].contains("needs 6"),
        "{:?}",
        found.verdict
    );
    assert_eq!(found.rankings[0].conclusion, Conclusion::Undecided);
    let nothing = find(TERMS, &grid, &[]);
    assert!(nothing.rankings.is_empty());
}

#[test]
fn a_cell_that_failed_costs_the_others_nothing() {
    let grid = grid(&["connections=1,50"], &["uring"]);
    let mut blocks = blocks(&grid, 8, &[20e3, 10e3]);
    for block in &mut blocks {
        let failed = block.cells[1].as_mut().expect("measured");
        failed.reasons.push("02-uring died".to_owned());
    }
    let found = find(TERMS, &grid, &blocks);
    assert_eq!(primary(&found.cells[0]).blocks_used, 8);
    assert_eq!(primary(&found.cells[1]).value, None);
    assert_eq!(found.verdict.reasons.len(), 1);
}

#[test]
fn remarks_are_counted() {
    let grid = grid(&["rate=1k,2k"], &["uring"]);
    let mut blocks = blocks(&grid, 6, &[20e3, 10e3]);
    for block in &mut blocks[..2] {
        let cell = block.cells[1].as_mut().expect("measured");
        cell.remarks.push("overloaded".to_owned());
    }
    let warnings = find(TERMS, &grid, &blocks).verdict.warnings;
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("uring at rate=2k was overloaded in 2 of 6")),
        "{warnings:?}"
    );
}

#[test]
fn six_blocks_decide_however_many_cells_there_are() {
    let grid = grid(&["connections=1,2,3,4,5"], &["epoll", "uring"]);
    let costs: Vec<f64> = (0..grid.cells.len())
        .map(|number| if number % 2 == 0 { 20e3 } else { 15e3 })
        .collect();
    let found = find(TERMS, &grid, &blocks(&grid, 6, &costs));
    for cell in &found.cells {
        let uring = primary(cell).against_arm.as_ref();
        assert!(uring.is_none_or(|contrast| contrast.verdict == Verdict::Better));
    }
    assert_eq!(found.verdict.warnings, Vec::<String>::new());
}

#[test]
fn a_cell_that_does_not_count_in_a_block_keeps_its_questions_and_one_without_samples_does_not() {
    let grid = grid(&["connections=1,50"], &["epoll", "uring"]);
    let mut blocks = blocks(&grid, 8, &[20e3, 10e3, 20e3, 10e3]);
    let broken = blocks[2].cells[1].as_mut().expect("measured");
    broken.reasons.push("uring died".to_owned());
    let raw = |block: &mut SweepBlock, cell: usize| {
        let cell = block.cells[cell].as_mut().expect("measured");
        cell.raw.as_mut().expect("slices").latency.reset();
    };
    raw(&mut blocks[4], 3);
    let found = find(TERMS, &grid, &blocks);
    let p50 = |cell: usize| {
        let mut metrics = found.cells[cell].iter();
        let metric = metrics.find(|metric| metric.name == Metric::LatencyP50);
        let contrast = metric.and_then(|metric| metric.against_arm.clone());
        contrast.expect("it is not the first arm")
    };
    let (died, silent) = (p50(1), p50(3));
    assert_eq!((died.verdict, died.blocks_used), (Verdict::Better, 7));
    assert_eq!(
        (silent.verdict, silent.p_adjusted),
        (Verdict::Undecided, None)
    );
    assert_eq!(
        silent.reason.as_deref(),
        Some("too few samples above it in 1 of 8 blocks: raise -d")
    );
}
