//! One block of a sweep: every group of cells once, in random order. A closed loop is measured in slices, in which the
//! cells of a group take turns; an open loop in one whole run, with the load generator's verdict on it.

use std::time::Duration;

use rand::{Rng, seq::SliceRandom};

use echometer_host::priority::Priority;
use echometer_loadgen::{plan::Load, verdict};
use echometer_report::{
    file::{figures::ArmFigures, sweep::Movement},
    folder::hlog_name,
};

use crate::{
    judge::figures::{arm_figures, block_figures},
    measure::{
        block::{Abort, ArmBlock, Block, Fault, Step},
        open_run::OpenLoad,
        priority::{Began, RealTime, priorities},
        reading::Reading,
        sides::{Arms, Started, WholeRun},
        slices::{SlicePlan, run_block},
    },
    sweep::{
        grid::{Grid, Group},
        stage::{Moves, Stage},
    },
};

/// One block: what each cell gave; `None` where it was not measured.
#[derive(Debug, Clone)]
pub(crate) struct SweepBlock {
    /// Counted from 1.
    pub index: usize,
    /// Groups in the order in which they were measured.
    pub order: Vec<usize>,
    /// By the cell's number.
    pub cells: Vec<Option<CellBlock>>,
}

/// What one group gave in one block.
#[derive(Debug, Clone)]
pub(crate) struct GroupBlock {
    /// Which group.
    pub group: usize,
    /// In the order of the group's cells.
    pub cells: Vec<CellBlock>,
    /// Slices in their order, for the raw data.
    pub slices: Block,
    /// Whether a request to stop ended it.
    pub cut_short: bool,
}

/// What one cell gave in one block.
#[derive(Debug, Clone)]
pub(crate) struct CellBlock {
    /// Its slices and its histogram; `None` where it never had one.
    pub raw: Option<ArmBlock>,
    /// Its figures.
    pub figures: Option<ArmFigures>,
    /// Latencies from here on, ns, are lower bounds. `None` where every message had an answer.
    pub censored_from_ns: Option<u64>,
    /// Why they can't be used; empty where they can.
    pub reasons: Vec<String>,
    /// What to know of them all the same.
    pub remarks: Vec<String>,
    /// How it was moved about.
    pub movement: Option<Movement>,
    /// How its server was started.
    pub started: Option<Started>,
}

/// What stays the same from block to block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    /// What is measured.
    pub grid: &'a Grid,
    /// The shortest slice; above 0.
    pub slice: Duration,
    /// How far servers are raised, and a client that sleeps.
    pub priority: Priority,
}

impl Terms<'_> {
    /// Who runs at real-time priority in a group, if anybody does.
    fn real_time(&self, group: &Group) -> Option<RealTime> {
        let priorities = priorities(self.priority, &group.load);
        RealTime::of(priorities, group.placement.server.len())
    }
}

/// The order in which a block measures the groups.
pub(crate) fn order(grid: &Grid, random: &mut impl Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..grid.groups.len()).collect();
    order.shuffle(random);
    order
}

/// Measures one group. Every server is stopped on return. `watch` hears which cell is next.
///
/// # Errors
/// A server does not start or is no echo: the cell, and a sentence without its subject.
pub(crate) fn measure<S: Stage>(
    index: usize,
    group: usize,
    terms: Terms<'_>,
    stage: &mut S,
    random: &mut impl Rng,
    stop: &dyn Fn() -> bool,
    watch: &mut dyn FnMut(usize),
) -> Result<GroupBlock, (usize, String)> {
    let spec = &terms.grid.groups[group];
    let servers = spec
        .cells
        .iter()
        .map(|&cell| terms.grid.cells[cell].server.clone())
        .collect();
    let mut servers = stage.servers(&spec.placement, servers);
    let in_cell = |Fault { arm, reason }: Fault| (spec.cells[arm], reason);
    match spec.load.load {
        Load::Closed => {
            let mut client = stage
                .client(spec)
                .map_err(|reason| (spec.cells[0], format!("has no client: {reason}")))?;
            let plan = SlicePlan {
                arms: spec.cells.len(),
                in_flight: u64::from(spec.load.connections) * u64::from(spec.load.pipeline),
                slice_min: terms.slice,
                measured: spec.load.duration,
                warmup: spec.load.warmup,
                floor: false,
                real_time: terms.real_time(spec),
                open: None,
            };
            let block = run_block(
                index,
                &plan,
                random,
                &mut client,
                &mut servers,
                stop,
                &mut |step| match step {
                    Step::Start { arm } | Step::Warm { arm } | Step::Slice { arm, .. } => {
                        watch(spec.cells[arm]);
                    }
                    Step::Floor => {}
                },
            )
            .map_err(|abort| match abort {
                Abort::NotStarted(fault) | Abort::WrongBytes(fault) | Abort::TooSlow(fault) => {
                    in_cell(fault)
                }
            })?;
            Ok(of_slices(index, group, terms.grid, block, &servers))
        }
        Load::Open { .. } => {
            watch(spec.cells[0]);
            let real_time = terms.real_time(spec).filter(|_| index == 1);
            let cell = open_run(index, spec, real_time, &mut servers, stage.load());
            servers.stop(0);
            let (mut cell, cut_short) = cell.map_err(|reason| (spec.cells[0], reason))?;
            // It may have left something behind.
            cell.started = servers.started(0);
            let arms = cell.raw.iter().cloned().collect();
            Ok(GroupBlock {
                group,
                slices: Block {
                    faults: Vec::new(),
                    cut_short,
                    order: vec![0],
                    slice: spec.load.duration,
                    arms,
                    floor: Vec::new(),
                    floor_fault: None,
                },
                cells: vec![cell_named(cell, index, terms.grid, group)],
                cut_short,
            })
        }
    }
}

fn of_slices(
    index: usize,
    group: usize,
    grid: &Grid,
    block: Block,
    servers: &(impl Arms + Moves),
) -> GroupBlock {
    let spec = &grid.groups[group];
    let names: Vec<String> = spec
        .cells
        .iter()
        .map(|&cell| grid.cells[cell].server.name.clone())
        .collect();
    let hlogs: Vec<String> = names.iter().map(|name| hlog_name(index, name)).collect();
    let mut figures = block_figures(index, &block, &names, &hlogs, spec.server_width);
    let cells = names
        .iter()
        .enumerate()
        .map(|(arm, name)| CellBlock {
            raw: Some(block.arms[arm].clone()).filter(|arm| !arm.slices.is_empty()),
            figures: figures.arms.remove(name),
            // A slice that lost a message spoils the block.
            censored_from_ns: None,
            // Slices stand to each other: what spoils one cell's spoils the group's block.
            reasons: figures.reasons.clone(),
            remarks: Vec::new(),
            movement: servers.movement(arm),
            started: servers.started(arm),
        })
        .collect();
    GroupBlock {
        group,
        cells,
        cut_short: block.cut_short,
        slices: block,
    }
}

/// The one cell of an open loop: a whole run on a fresh server. Says whether a request to stop ended it.
fn open_run(
    index: usize,
    group: &Group,
    real_time: Option<RealTime>,
    servers: &mut (impl Arms + Moves),
    load: &mut impl OpenLoad,
) -> Result<(CellBlock, bool), String> {
    let address = servers.start(index, 0)?;
    let began = Began::now(servers, 0);
    let before = Reading::take(servers, 0);
    let outcome = load.run(address, &group.load);
    let side = before.until(&Reading::take(servers, 0));
    if let (Some(real_time), Ok(run)) = (real_time, &outcome) {
        let busiest = run.stretch.client_busiest;
        if let Some(refusal) = began.refusal(servers, 0, busiest, real_time) {
            return Err(refusal);
        }
    }
    let whole = |run: &WholeRun| run.judged.verdict.status != verdict::Status::Errors;
    let ended = servers.ended_after(0, outcome.as_ref().is_ok_and(whole));
    let (mut reasons, mut remarks) = (Vec::new(), Vec::new());
    let mut cut_short = false;
    let mut censored_from_ns = None;
    let raw = match outcome {
        Err(reason) => {
            reasons.push(reason);
            None
        }
        Ok(run) => {
            cut_short = run.cut_short;
            censored_from_ns = run.judged.censored_from_ns;
            // What the server does not hold is a finding, and so is the noise that all points share; figures that the
            // client makes, or that lack messages, are none.
            let verdict = &run.judged.verdict;
            match verdict.status {
                verdict::Status::Valid => {}
                verdict::Status::Errors | verdict::Status::ClientBound => {
                    reasons.extend(verdict.reasons.iter().cloned());
                }
                status => remarks.push(status.name().to_owned()),
            }
            Some(ArmBlock::of_run(run, &side))
        }
    };
    if cut_short {
        reasons.push("cut short".to_owned());
    }
    reasons.extend(ended);
    let cell = CellBlock {
        raw,
        figures: None,
        censored_from_ns,
        reasons,
        remarks,
        movement: servers.movement(0),
        started: servers.started(0),
    };
    Ok((cell, cut_short))
}

/// With its figures, which need its name.
fn cell_named(cell: CellBlock, index: usize, grid: &Grid, group: usize) -> CellBlock {
    let spec = &grid.groups[group];
    let name = &grid.cells[spec.cells[0]].server.name;
    let figures = cell.raw.as_ref().map(|raw| {
        let mut figures = arm_figures(raw, hlog_name(index, name), spec.server_width);
        figures.latency_ns.censored_from = cell.censored_from_ns;
        figures
    });
    let reasons = cell
        .reasons
        .into_iter()
        .map(|reason| format!("{name}: {reason}"))
        .collect();
    CellBlock {
        figures,
        reasons,
        ..cell
    }
}
