//! `echometer compare`: place both sides, run the blocks, save after each, say what was learnt.

pub(crate) mod analysis;
pub(crate) mod command;
pub(crate) mod flags;
pub(crate) mod record;

use std::time::Duration;

use anyhow::bail;
use rand::{SeedableRng, rngs::StdRng};

use echometer_host::{
    counters::IrqTimeAccounting, machine::Facts, priority::raised, signals::Stop,
};
use echometer_loadgen::{Fleet, Plan, plan::Load};
use echometer_report::{
    file::{
        compare::{Comparison, FILE_NAME},
        design::Design,
        floor::FloorEntry,
        metric::Metric,
        quiet::QuietEntry,
        trust::Status,
    },
    folder::REPORT_NAME,
};
use echometer_statistics::Verdict;

use crate::{
    compare::{flags::CompareSettings, record::Record},
    judge::multiples::planned,
    measure::{
        block::{Abort, Block, Fault, Step},
        fleet_client::FleetClient,
        floor::{self, Floor},
        priority::{RealTime, client_priority},
        runs::{self, RUNS_AN_ARM, RunsPlan},
        sides::{Arms, Client},
        slices::{self, OpenSlices, SlicePlan},
    },
    place::placement::Placement,
    screen::{progress::Progress, stdout::Finished},
    serve::servers::Servers,
    site::{self, START_AND_STOP, Site, place_for, placed_quietly},
};

/// A server that was just started gets some load before it is measured, whatever was asked.
const WARMUP_MIN: Duration = Duration::from_millis(20);

/// Slices of an open loop turned out too short for an arm; why, as a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct GivesWay(String);

/// Carries out a comparison. `command_line` is kept in its file.
///
/// A request on `stop` ends it after the slice; what is whole is analysed. Where slices of an open loop turn out too short
/// for an arm, it begins anew by whole runs.
///
/// # Errors
/// An arm can't be started or connected to, a byte came back wrong under `--verify`, a cpu can't be had, a file can't
/// be written.
pub(crate) fn compare(
    settings: &CompareSettings,
    command_line: &str,
    stop: &Stop,
) -> anyhow::Result<Finished<Comparison>> {
    let arms = &settings.arms;
    // Taken once: whatever becomes of it, it holds for the whole comparison.
    let placed = match settings.load.load {
        Load::Closed => (place_for(&settings.machine, arms)?, None),
        Load::Open { .. } => placed_quietly(&settings.machine, arms, &settings.load)?,
    };
    let error = match by_design(settings, &placed, command_line, stop) {
        Err(error) => error,
        finished => return finished,
    };
    let GivesWay(reason) = error.downcast::<GivesWay>()?;
    let note = format!("{reason}: whole runs instead of slices");
    if !settings.output.quiet {
        eprintln!("{note}");
    }
    let Some(by_runs) = settings.by_runs(note) else {
        bail!("{reason}: --design runs can measure that");
    };
    by_design(&by_runs, &placed, command_line, stop)
}

/// Carries out a comparison by the design of its settings.
fn by_design(
    settings: &CompareSettings,
    (placement, quiet): &(Placement, Option<QuietEntry>),
    command_line: &str,
    stop: &Stop,
) -> anyhow::Result<Finished<Comparison>> {
    let site = Site::at(placement.clone(), settings.machine.priority, &settings.arms)?;
    let connections = u64::from(settings.load.connections) * settings.arms.len() as u64;
    let load = site.load(&settings.load, connections)?;
    let priority = client_priority(settings.machine.priority, &load);
    let mut fleet = raised(priority, || Fleet::start(&load))??;
    if settings.design == Design::Runs {
        // A slice is over soon; a run may take minutes.
        fleet.stop_on(stop.clone());
    }

    let folder = site.folder(&settings.output, &settings.machine, "compare", FILE_NAME)?;
    let Site {
        placement,
        launcher,
        machine,
    } = site;
    let floor = settings
        .floor
        .then(|| floor_beside(settings, &load, &placement, &machine));
    let mut record = Record::new(
        settings,
        &placement,
        load,
        machine,
        folder.clone(),
        command_line,
    );
    record.set_quiet(quiet.clone());
    let floor = floor.and_then(|(entry, floor)| {
        record.set_floor(entry);
        floor
    });
    if let Some(why) = fleet.fallback() {
        record.note(format!("the client uses epoll: {why}"));
    }
    let mut servers = Servers::new(launcher, settings.arms.clone(), folder.clone());
    let mut client = FleetClient::new(fleet, settings.arms.len()).with_floor(floor);
    let outcome = run_blocks(settings, &mut record, &mut client, &mut servers, &|| {
        stop.requested()
    });
    let unsaved = site::finish(outcome, record.is_empty(), &folder, || {
        servers.discard_logs();
    })?;
    if unsaved.is_some() {
        // What is shown is to hold the last block too; that it can't be saved is known.
        let _ = record.save();
    }
    Ok(Finished {
        file: record.comparison,
        text: record.text,
        report: folder.join(REPORT_NAME),
        unsaved,
    })
}

/// The floor that fits this comparison, and how it will stand in the file; or why there is none.
fn floor_beside(
    settings: &CompareSettings,
    load: &Plan,
    placement: &Placement,
    machine: &Facts,
) -> (FloorEntry, Option<Floor>) {
    let withheld = |reason| (FloorEntry::withheld(Some(reason)), None);
    let Some(cpu) = placement.server.first() else {
        return withheld("no server runs here: their CPU is unknown".to_owned());
    };
    if machine.irq_time_accounting == Some(IrqTimeAccounting::On) {
        return withheld(
            "this kernel accounts for interrupts apart (irq time accounting), so that most of TCP's work would be \
             missing from it"
                .to_owned(),
        );
    }
    let pairs = match floor::pairs_for(load) {
        Ok(pairs) => pairs,
        Err(reason) => return withheld(reason),
    };
    let sockets = u64::from(load.connections) * settings.arms.len() as u64 + 256;
    match Floor::start(cpu, &pairs, sockets) {
        Ok(floor) => {
            let notes = floor::caveats(load);
            (planned(cpu, &pairs, notes), Some(floor))
        }
        Err(error) => withheld(error.to_string()),
    }
}

/// The exit code: 0, 3 where it is not valid, 4 where it should have decided (`decide`) and did not.
#[must_use]
pub(crate) fn exit_code(comparison: &Comparison, decide: bool) -> u8 {
    let mut primary = comparison.metrics.iter().filter(|metric| metric.primary);
    match comparison.verdict.status {
        Status::Invalid => 3,
        Status::Valid if decide && primary.any(|metric| metric.verdict == Verdict::Undecided) => 4,
        Status::Valid => 0,
    }
}

/// Runs all blocks, and saves after each.
fn run_blocks(
    settings: &CompareSettings,
    record: &mut Record,
    client: &mut impl Client,
    arms: &mut impl Arms,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<()> {
    let floor = record.has_floor();
    let plan = BlockPlan::of(settings, floor, record.real_time());
    let mut progress = Progress::new(
        record.names.clone(),
        settings.blocks,
        block_time(settings, floor),
        settings.output.quiet,
    );
    let mut random = StdRng::seed_from_u64(settings.load.seed);
    for index in 1..=settings.blocks {
        progress.begin_block(index);
        let outcome = plan.run(index, &mut random, client, arms, stop, &mut |step| {
            progress.step(step);
        });
        match outcome {
            Ok(block) => record.keep(index, &block)?,
            // What fails later is a finding; what does not even start once, or is no echo, is told at once.
            Err(Abort::TooSlow(Fault { arm, reason })) => {
                progress.finish();
                let name = &settings.arms[arm].name;
                bail!(GivesWay(format!("{name} {reason}")));
            }
            Err(Abort::NotStarted(Fault { arm, reason })) if 1 < index => {
                record.keep_failure(index, arm, &reason);
            }
            Err(
                Abort::NotStarted(Fault { arm, reason }) | Abort::WrongBytes(Fault { arm, reason }),
            ) => {
                progress.finish();
                let arm = &settings.arms[arm];
                bail!("arm '{}' ({}) {reason}", arm.name, arm.spec);
            }
        }
        let started: Vec<_> = (0..settings.arms.len())
            .map(|arm| arms.started(arm))
            .collect();
        record.note_servers(&started);
        let last = index == settings.blocks;
        let stopped = stop();
        record.comparison.cut_short |= stopped && !last;
        let hopeless = record.is_hopeless();
        if hopeless && !last {
            record.note(format!(
                "ended after block {index}: six valid blocks were out of reach"
            ));
        }
        record.save()?;
        progress.end_block(record.last_fault().as_deref(), record.estimate().as_deref());
        if stopped || hopeless {
            break;
        }
    }
    progress.finish();
    Ok(())
}

/// How the blocks of a comparison are to be run.
enum BlockPlan {
    Slices(SlicePlan),
    Runs(RunsPlan),
}

impl BlockPlan {
    fn of(settings: &CompareSettings, floor: bool, real_time: Option<RealTime>) -> Self {
        let load = &settings.load;
        let in_flight = match load.load {
            Load::Closed => u64::from(load.connections) * u64::from(load.pipeline),
            // An open loop begins with nothing in flight; each connection counts for one.
            Load::Open { .. } => u64::from(load.connections),
        };
        let (arms, measured, warmup) = (settings.arms.len(), load.duration, load.warmup);
        match settings.design {
            Design::Slices => Self::Slices(SlicePlan {
                arms,
                in_flight,
                slice_min: settings.slice,
                measured,
                warmup,
                floor,
                real_time,
                open: load.rate_per_s().map(|rate_per_s| OpenSlices {
                    rate_per_s,
                    messages: slice_messages(settings.primary),
                    gives_way: settings.instead.is_some(),
                }),
            }),
            Design::Runs => Self::Runs(RunsPlan {
                arms,
                in_flight,
                measured,
                warmup: warmup.max(WARMUP_MIN),
                floor,
                real_time,
            }),
        }
    }

    fn run(
        &self,
        index: usize,
        random: &mut StdRng,
        client: &mut impl Client,
        arms: &mut impl Arms,
        stop: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(Step),
    ) -> Result<Block, Abort> {
        match self {
            Self::Slices(plan) => slices::run_block(index, plan, random, client, arms, stop, watch),
            Self::Runs(plan) => runs::run_block(index, plan, random, client, arms, stop, watch),
        }
    }
}

/// So many messages has a slice of an open loop, so that its quantile says something: 20,000 for p99.
fn slice_messages(primary: Metric) -> u64 {
    const ABOVE: f64 = 200.0;
    let quantile = primary.quantile().unwrap_or(0.99);
    (ABOVE / (1.0 - quantile)).round() as u64
}

/// What a block will take, by the plan.
fn block_time(settings: &CompareSettings, floor: bool) -> Duration {
    let (measured, arms) = (settings.load.duration, settings.arms.len() as u32);
    let runs = match settings.design {
        Design::Slices => 1,
        Design::Runs => RUNS_AN_ARM,
    };
    let floor_time = if floor { measured / 5 } else { Duration::ZERO };
    ((measured + settings.load.warmup + START_AND_STOP) * arms + floor_time) * runs
}

#[cfg(test)]
mod tests;
