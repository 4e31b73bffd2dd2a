//! `echometer sweep`: one or two keys over their levels, with one arm or more, in randomised complete blocks.
//!
//! [`grid`] plans the cells, [`block`] measures each of them once a block on a [`stage`], [`findings`] draws the
//! conclusions of [`contrasts`] and a [`ranking`], the [`record`] is saved after every block, and a [`job`] repeats it.

pub(crate) mod block;
pub(crate) mod command;
mod contrasts;
pub(crate) mod findings;
pub(crate) mod flags;
pub(crate) mod grid;
pub(crate) mod job;
mod ranking;
pub(crate) mod record;
pub(crate) mod stage;

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, anyhow, bail, ensure};
use rand::{SeedableRng, rngs::StdRng};

use echometer_host::{
    cpus::{self, CpuList},
    signals::Stop,
    topology::Topology,
    units::{counted, show_duration, show_size},
};
use echometer_loadgen::{
    Plan,
    plan::{Load, Wait},
};
use echometer_report::{
    file::{
        sweep::{FILE_NAME, JOB_NAME, SweepFile},
        trust::Status,
    },
    folder::REPORT_NAME,
};
use echometer_statistics::Verdict;

use crate::{
    invocation::Invocation,
    levels::Key,
    place::{
        layouts::{Layout, layouts},
        placement::{Placement, place},
    },
    screen::{progress::Progress, stdout::Finished},
    serve::{
        arm::{Arm, Spec},
        launcher::Launcher,
    },
    site::{self, START_AND_STOP, Site},
    sweep::{
        block::Terms,
        flags::SweepSettings,
        grid::{Base, Grid},
        record::Record,
        stage::{Machine, Stage},
    },
};

/// What became of the wish for a sweep.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was only shown what would be done.
    Shown(String),
    /// It was carried out, valid or not.
    Finished(Box<Finished<SweepFile>>),
}

/// Carries out a sweep, or shows what it would do. The command line is kept in its file, and its words in its job.
///
/// A request on `stop` ends it after the slice; what is whole is analysed.
///
/// # Errors
/// What was asked is not available on this machine, a server can't be started, a file can't be written.
pub(crate) fn sweep(
    settings: &SweepSettings,
    how: &Invocation,
    stop: &Stop,
) -> anyhow::Result<Outcome> {
    let (grid, placement) = planned(settings)?;
    let servers: Vec<Arm> = grid.cells.iter().map(|cell| cell.server.clone()).collect();
    let site = Site::at(placement, settings.machine.priority, &servers)?;
    if settings.dry_run {
        return Ok(Outcome::Shown(dry_run(settings, &grid, &site.launcher)));
    }
    site::raise_descriptors(grid.connections_max())?;
    let folder = site.folder(&settings.output, &settings.machine, "sweep", FILE_NAME)?;
    let mut record = Record::new(
        settings,
        &grid,
        &site.placement,
        site.machine,
        folder.clone(),
        &how.command_line,
    );
    note_shared_cpus(&grid, &mut record);
    let job = job::write(how, settings.load.seed)?;
    folder
        .write(JOB_NAME, job.as_bytes())
        .with_context(|| format!("cannot write {}", folder.join(JOB_NAME).display()))?;
    let mut stage = Machine::new(site.launcher, folder.clone(), stop.clone());
    let outcome = run_blocks(settings, &grid, &mut record, &mut stage, &|| {
        stop.requested()
    });
    let unsaved = site::finish(outcome, record.is_empty(), &folder, || {
        folder.discard(JOB_NAME);
    })?;
    if unsaved.is_some() {
        // What is shown is to hold the last block too; that it can't be saved is known.
        let _ = record.save();
    }
    Ok(Outcome::Finished(Box::new(Finished {
        file: record.file,
        text: record.text,
        report: folder.join(REPORT_NAME),
        unsaved,
    })))
}

/// The exit code: 0, 3 where it is not valid, 4 where it should have decided (`decide`) and did not.
#[must_use]
pub(crate) fn exit_code(file: &SweepFile, decide: bool) -> u8 {
    let mut primary = file
        .points
        .iter()
        .flat_map(|point| &point.metrics)
        .filter(|metric| metric.primary)
        .filter_map(|metric| metric.judged(file.arms.len()));
    match file.verdict.status {
        Status::Invalid => 3,
        // What carries no verdict is not decided either.
        Status::Valid
            if decide
                && primary.any(|contrast| {
                    matches!(contrast.verdict, Verdict::Undecided | Verdict::Invalid)
                }) =>
        {
            4
        }
        Status::Valid => 0,
    }
}

/// The cells, and where both sides run unless a level says otherwise.
fn planned(settings: &SweepSettings) -> anyhow::Result<(Grid, Placement)> {
    let allowed = cpus::allowed().context("cannot read this process's cpu mask")?;
    let pinning = settings.axes.iter().any(|axis| axis.key == Key::Pinning);
    let found: Vec<Layout> = match pinning {
        true => layouts(&Topology::read_or(&allowed), &allowed)?,
        false => Vec::new(),
    };
    let local = settings.arms.iter().any(|arm| arm.spec.is_local());
    let placement = place(
        settings.machine.server_cpus.as_ref(),
        settings.machine.client_cpus.as_ref(),
        local,
    )?;
    let base = Base {
        arms: settings.arms.clone(),
        load: settings.load.clone(),
        placement: placement.clone(),
        layouts: found,
    };
    let grid = Grid::plan(&settings.axes, &base).map_err(|text| anyhow!(text))?;
    for group in &grid.groups {
        let outside = group.placement.server.difference(&allowed);
        ensure!(
            outside.is_empty(),
            "--over cpus: cpu {outside} is offline or outside this process's mask; it may use {allowed}"
        );
    }
    Ok((grid, placement))
}

/// Runs all blocks, and saves after each.
fn run_blocks<S: Stage>(
    settings: &SweepSettings,
    grid: &Grid,
    record: &mut Record,
    stage: &mut S,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<()> {
    let names = grid
        .cells
        .iter()
        .map(|cell| cell.server.name.clone())
        .collect();
    let mut progress = Progress::new(
        names,
        settings.blocks,
        grid.block_time(START_AND_STOP),
        settings.output.quiet,
    );
    let mut random = StdRng::seed_from_u64(settings.load.seed);
    let terms = Terms {
        grid,
        slice: settings.slice,
        priority: settings.machine.priority,
    };
    for index in 1..=settings.blocks {
        progress.begin_block(index);
        let order = block::order(grid, &mut random);
        record.begin_block(index, order.clone());
        let mut stopped = false;
        for group in order {
            if stop() {
                stopped = true;
                break;
            }
            let watch = &mut |cell: usize| {
                let cell = &grid.cells[cell];
                let (point, arm) = (&grid.points[cell.point].label, &grid.arms[cell.arm]);
                progress.show_step(&format!("{arm} {point}"));
            };
            match block::measure(index, group, terms, stage, &mut random, stop, watch) {
                Ok(measured) => {
                    stopped |= measured.cut_short;
                    record.keep(measured)?;
                }
                // What fails later is a finding; what does not even start once is told at once.
                Err((cell, reason)) if index == 1 => {
                    progress.finish();
                    let cell = &grid.cells[cell];
                    bail!(
                        "arm '{}' at {} ({}) {reason}",
                        grid.arms[cell.arm],
                        grid.points[cell.point].label,
                        cell.server.spec,
                    );
                }
                Err((cell, reason)) => record.keep_failure(group, cell, &reason),
            }
        }
        stopped |= stop();
        record.file.cut_short |= stopped && (index < settings.blocks || record.last_is_partial());
        record.save()?;
        progress.end_block(record.last_fault().as_deref(), record.estimate().as_deref());
        if stopped {
            break;
        }
    }
    progress.finish();
    Ok(())
}

/// Both sides on one cpu wait for each other; where that is not what is varied, it should be known.
fn note_shared_cpus(grid: &Grid, record: &mut Record) {
    let shared: CpuList = grid
        .groups
        .iter()
        .filter(|group| group.load.workers.iter().all(Option::is_some))
        .flat_map(|group| {
            let shared = group.placement.server.intersection(&group.placement.client);
            shared.iter().collect::<Vec<_>>()
        })
        .collect();
    let pinning = grid.points.iter().any(|point| point.layout.is_some());
    if !shared.is_empty() && !pinning {
        record.note(format!(
            "server and client share cpu {shared} at some points: each waits for the other, and rates say little"
        ));
    }
}

/// Every command, and the time that they take.
fn dry_run(settings: &SweepSettings, grid: &Grid, launcher: &Launcher) -> String {
    let mut text = String::new();
    let (cells, groups) = (grid.cells.len(), grid.groups.len());
    let total = grid.block_time(START_AND_STOP) * settings.blocks as u32;
    let _ = writeln!(
        text,
        "{}; each measures {} in {}, groups in random order (seed {}):",
        counted(settings.blocks as u64, "block"),
        counted(cells as u64, "cell"),
        counted(groups as u64, "group"),
        settings.load.seed,
    );
    for (index, group) in grid.groups.iter().enumerate() {
        let design = match group.load.load {
            Load::Closed if 1 < group.cells.len() => "in turns, in slices",
            Load::Closed => "in slices",
            Load::Open { .. } => "one run",
        };
        let _ = writeln!(text, "\ngroup {}, {design}:", index + 1);
        let launcher = Launcher {
            server_cpus: group.placement.server.clone(),
            ..launcher.clone()
        };
        for &cell in &group.cells {
            let cell = &grid.cells[cell];
            let command = match &cell.server.spec {
                Spec::Engine { engine, flags } => {
                    let mut words = launcher.engine_command(engine, flags);
                    // Where this machine keeps its binaries is no part of the plan.
                    words[0] = "echometer-server".to_owned();
                    shell_words::join(words)
                }
                Spec::Command { words } => {
                    shell_words::join(words).replace("{cpus}", &group.placement.server.to_string())
                }
                Spec::Remote { .. } => format!("({} is running already)", cell.server.spec),
            };
            let _ = writeln!(text, "  {}: {command}", grid.points[cell.point].label);
        }
        let _ = writeln!(text, "  load: {}", load_command(&group.load));
    }
    let seconds = Duration::from_secs(total.as_secs().max(1));
    let _ = writeln!(text, "\nIt would take about {}.", show_duration(seconds));
    text
}

/// The load as the load generator would be asked for it alone.
fn load_command(load: &Plan) -> String {
    let mut text = format!(
        "echometer-loadgen 127.0.0.1:PORT -c {} -s {} -d {} -w {} --pipeline {} --seed {}",
        load.connections,
        show_size(u64::from(load.message_size)).replace(' ', ""),
        show_duration(load.duration),
        show_duration(load.warmup),
        load.pipeline,
        load.seed,
    );
    if let Some(rate) = load.rate_per_s() {
        let _ = write!(text, " -R {rate}");
    }
    let wait = match load.wait {
        Wait::Spin => "spin",
        Wait::Block => "block",
    };
    let _ = write!(text, " --wait {wait}");
    let cpus: Option<CpuList> = load.workers.iter().copied().collect();
    match cpus {
        Some(cpus) => {
            let _ = write!(text, " --cpus {cpus}");
        }
        None => {
            let _ = write!(text, " --threads {}", load.workers.len());
        }
    }
    text
}

#[cfg(test)]
mod tests;
