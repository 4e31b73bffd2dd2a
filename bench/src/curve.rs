//! `echometer curve`: latency and CPU per message against rate, for all arms in one interleaved experiment.
//!
//! First each arm's capacity is searched for: the highest rate with which it keeps up
//! and an objective holds (p99<1ms, say), while the client still has time, by slices ([`crate::search`]). (Without the last two
//! there is no capacity: what is late is sent in batches, and an echo of a thousand messages costs little more than one's.) The rates
//! are shares of the smallest capacity, so that all arms are compared where all keep up, and each arm's own capacity, where it
//! alone is measured. Then come the blocks ([`block`]): all arms are started afresh and warmed up at each of their rates; in
//! each of some cycles every (arm, rate) has one slice of an open loop, in random order. A block's figure is a quantile of its
//! merged slices. Over the blocks stand a Hodges-Lehmann estimate with its signed-rank interval, for each arm and rate, and the
//! same of the ratios to the baseline at the same rate; their verdicts are corrected for all questions ([`analysis`]). An arm
//! that did not keep up in most slices of most blocks is shown as overloaded, and not compared. The knee is the highest rate up
//! to which an arm's p99 is at most twice that at its lowest rate (where it is known).

pub(crate) mod analysis;
pub(crate) mod block;
pub(crate) mod command;
pub(crate) mod flags;
pub(crate) mod record;

use std::time::Duration;

use anyhow::bail;
use rand::{SeedableRng, rngs::StdRng};

use echometer_host::{
    signals::Stop,
    units::{counted, show_rate},
};
use echometer_loadgen::Fleet;
use echometer_report::{
    file::{
        curve::{Capacity, CurveFile, FILE_NAME},
        trust::Status,
    },
    folder::REPORT_NAME,
};

use crate::{
    curve::{
        analysis::Rate,
        block::{Cell, CurvePlan, run_block},
        flags::CurveSettings,
        record::Record,
    },
    measure::{
        block::{Abort, End, Fault},
        fleet_client::FleetClient,
        sides::{Arms, Client},
        slices::{OPEN_SLICE_MAX, start_afresh},
    },
    screen::{progress::Progress, stdout::Finished},
    search::{
        by_slices::{SearchPlan, carry_out},
        rungs::Search,
    },
    serve::servers::Servers,
    site::{self, START_AND_STOP, Site},
};

/// The rates, as shares of the smallest capacity.
const SHARES: [f64; 5] = [0.10, 0.25, 0.50, 0.75, 0.90];
/// A search begins here, and goes up or down.
const FIRST: f64 = 10e3;
/// And goes no lower than this,
const LOWEST: f64 = 100.0;
/// nor higher: no server on one machine gets there.
const HIGHEST: f64 = 20e6;
/// So many equal votes decide whether an arm keeps up with a rate.
const VOTES: u32 = 3;
/// What a search takes, for the plan that is printed.
const SEARCH_TIME: Duration = Duration::from_secs(10);
/// A slow rate is measured for longer, so that its p99 can be compared: 10,000 messages, and some more because slices are of
/// random length.
const MESSAGES_MIN: f64 = 13_000.0;

/// Measures. `command_line` is kept in the file.
///
/// A request on `stop` ends it after the slice; whole blocks count.
///
/// # Errors
/// An arm can't be started, or keeps up with no rate; a cpu can't be had, a file can't be written.
pub(crate) fn curve(
    settings: &CurveSettings,
    command_line: &str,
    stop: &Stop,
) -> anyhow::Result<Finished<CurveFile>> {
    let site = Site::prepare(&settings.machine, &settings.arms)?;
    let connections = u64::from(settings.load.connections) * settings.arms.len() as u64;
    let load = site.load(&settings.load, connections)?;
    let fleet = Fleet::start(&load)?;
    let folder = site.folder(&settings.output, &settings.machine, "curve", FILE_NAME)?;
    let mut record = Record::new(
        settings,
        &site.placement,
        load,
        site.machine,
        folder.clone(),
        command_line,
    );
    if let Some(why) = fleet.fallback() {
        record.note(format!("the client uses epoll: {why}"));
    }
    let mut servers = Servers::new(site.launcher, settings.arms.clone(), folder.clone());
    let mut client = FleetClient::new(fleet, settings.arms.len());
    let outcome = run(settings, &mut record, &mut client, &mut servers, &|| {
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
        file: record.file,
        text: record.text,
        report: folder.join(REPORT_NAME),
        unsaved,
    })
}

/// The exit code: 0, or 3 where it is not valid.
#[must_use]
pub(crate) fn exit_code(file: &CurveFile) -> u8 {
    match file.verdict.status {
        Status::Valid => 0,
        Status::Invalid => 3,
    }
}

/// The capacities, then all blocks; saved after each.
fn run(
    settings: &CurveSettings,
    record: &mut Record,
    client: &mut impl Client,
    arms: &mut impl Arms,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(settings.load.seed);
    if !settings.output.quiet {
        eprintln!("{}", plan_words(settings));
    }
    let mut rates: Vec<Rate> = settings.rates.iter().map(|&per_s| given(per_s)).collect();
    if rates.is_empty() {
        let mut found = Vec::new();
        for arm in 0..settings.arms.len() {
            let capacity = capacity_of(settings, arm, &mut random, client, arms, stop)?;
            let Some(capacity) = capacity else {
                record.file.cut_short = true;
                return record.save();
            };
            if !settings.output.quiet {
                let rate = show_rate(capacity.rate_per_s);
                eprintln!("capacity of {}: {rate}/s", capacity.arm);
            }
            found.push(capacity.rate_per_s);
            record.found(capacity);
        }
        rates = rates_of(&found);
    }
    let plan = plan(settings, &rates);
    if settings.rates.is_empty() && !settings.output.quiet {
        let block = plan.block_time() + START_AND_STOP * plan.arms as u32;
        let blocks = counted(settings.blocks as u64, "block");
        let total = block * settings.blocks as u32;
        eprintln!("{blocks} of {} s: {} s", block.as_secs(), total.as_secs());
    }
    record.set_rates(rates);
    run_blocks(settings, &plan, record, &mut random, client, arms, stop)
}

fn run_blocks(
    settings: &CurveSettings,
    plan: &CurvePlan,
    record: &mut Record,
    random: &mut StdRng,
    client: &mut impl Client,
    arms: &mut impl Arms,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<()> {
    let mut progress = Progress::new(
        record.names.clone(),
        settings.blocks,
        plan.block_time() + START_AND_STOP * plan.arms as u32,
        settings.output.quiet,
    );
    for index in 1..=settings.blocks {
        progress.begin_block(index);
        let outcome = run_block(index, plan, random, client, arms, stop, &mut |cell| {
            let name = &settings.arms[cell.arm].name;
            progress.show_step(&format!("{name} at {}/s", show_rate(cell.rate_per_s)));
        });
        match outcome {
            Ok(block) => record.keep(index, &plan.cells, &block)?,
            // What fails later is a finding; what does not even start once, or is no echo, is told at once.
            Err(Abort::NotStarted(Fault { arm, reason })) if 1 < index => {
                record.keep_failure(index, arm, &reason);
            }
            Err(abort) => {
                progress.finish();
                return failed(settings, abort);
            }
        }
        let started: Vec<_> = (0..settings.arms.len())
            .map(|arm| arms.started(arm))
            .collect();
        record.note_servers(&started);
        let stopped = stop();
        record.file.cut_short |= stopped && index != settings.blocks;
        record.save()?;
        progress.end_block(record.last_fault().as_deref(), None);
        if stopped {
            break;
        }
    }
    progress.finish();
    Ok(())
}

/// The highest rate with which an arm keeps up; `None` after a request to stop.
fn capacity_of(
    settings: &CurveSettings,
    arm: usize,
    random: &mut StdRng,
    client: &mut impl Client,
    arms: &mut impl Arms,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<Option<Capacity>> {
    let mut search = Search::new(LOWEST, HIGHEST, FIRST, VOTES);
    let plan = SearchPlan::of_capacity(&settings.slos, u64::from(settings.load.connections));
    let mut slices = 0;
    let outcome = start_afresh(client, arms, 0, arm)
        .map_err(|reason| End::Abort(Abort::NotStarted(Fault { arm, reason })))
        .and_then(|()| {
            let keep = &mut |_, _: &_, _| slices += 1;
            carry_out(&mut search, &plan, arm, random, client, arms, stop, keep)
        });
    client.close(arm);
    arms.stop(arm);
    match outcome {
        Ok(()) => {}
        Err(End::Abort(abort)) => return failed(settings, abort),
        Err(End::Invalid(Fault { arm, reason })) => {
            return failed(settings, Abort::NotStarted(Fault { arm, reason }));
        }
    }
    if search.next().is_some() {
        return Ok(None);
    }
    let name = &settings.arms[arm].name;
    let Some(rate_per_s) = search.found() else {
        let slos: Vec<String> = settings.slos.iter().map(ToString::to_string).collect();
        bail!(
            "arm '{name}' does not hold {} even at {}/s: name another objective with --slo, or rates with --rates",
            slos.join(" and "),
            show_rate(LOWEST)
        );
    };
    Ok(Some(Capacity {
        arm: name.clone(),
        rate_per_s,
        client_bound: search.client_bound(),
        slices,
    }))
}

/// What ends the command at once, with the arm's name.
fn failed<T>(settings: &CurveSettings, abort: Abort) -> anyhow::Result<T> {
    let (Abort::NotStarted(fault) | Abort::WrongBytes(fault) | Abort::TooSlow(fault)) = abort;
    let arm = &settings.arms[fault.arm];
    bail!("arm '{}' ({}) {}", arm.name, arm.spec, fault.reason);
}

fn given(per_s: f64) -> Rate {
    Rate {
        per_s,
        share: None,
        own: None,
    }
}

/// Shares of the smallest capacity for all arms, and each arm's own capacity.
fn rates_of(capacities: &[f64]) -> Vec<Rate> {
    let smallest = capacities.iter().copied().fold(f64::INFINITY, f64::min);
    let shared = SHARES.into_iter().map(|share| Rate {
        per_s: two_digits(smallest * share),
        share: Some(share),
        own: None,
    });
    let own = capacities.iter().enumerate().map(|(arm, &per_s)| Rate {
        per_s,
        share: Some(per_s / smallest),
        own: Some(arm),
    });
    let mut rates: Vec<Rate> = shared.chain(own).collect();
    rates.sort_by(|one, other| one.per_s.total_cmp(&other.per_s));
    rates
}

/// 87,654 becomes 88,000: rates that can be read, and typed again.
fn two_digits(rate: f64) -> f64 {
    let unit = 10_f64.powf(rate.log10().floor() - 1.0).max(1.0);
    ((rate / unit).round() * unit).max(1.0)
}

fn plan(settings: &CurveSettings, rates: &[Rate]) -> CurvePlan {
    let cells = (0..settings.arms.len()).flat_map(|arm| {
        let rates = rates.iter().enumerate();
        rates
            .filter(move |(_, rate)| rate.is_of(arm))
            .map(move |(point, rate)| Cell {
                arm,
                point,
                rate_per_s: rate.per_s,
                length: slice_length(settings, rate.per_s),
            })
    });
    CurvePlan {
        arms: settings.arms.len(),
        connections: u64::from(settings.load.connections),
        cells: cells.collect(),
        cycles: settings.cycles,
        warmup: settings.load.warmup.max(Duration::from_millis(1)),
    }
}

fn slice_length(settings: &CurveSettings, rate_per_s: f64) -> Duration {
    let needed = Duration::from_secs_f64((MESSAGES_MIN / rate_per_s).min(3_600.0));
    let (needed, asked) = (
        needed / settings.cycles,
        settings.load.duration / settings.cycles,
    );
    // Where it would take too long to see p99, p50 is seen all the same.
    let length = match needed <= OPEN_SLICE_MAX {
        true => asked.max(needed),
        false => asked,
    };
    length.max(Duration::from_millis(1))
}

/// What will be done, and how long it will take.
fn plan_words(settings: &CurveSettings) -> String {
    let arms = settings.arms.len() as u32;
    let search = match settings.rates.is_empty() {
        true => SEARCH_TIME * arms,
        false => Duration::ZERO,
    };
    // Rates that are still to be found are not slow, as far as anybody knows.
    let unknown = Rate {
        per_s: 1e6,
        share: None,
        own: None,
    };
    let rates = match settings.rates.is_empty() {
        true => vec![unknown; SHARES.len() + 1],
        false => settings.rates.iter().map(|&per_s| given(per_s)).collect(),
    };
    let block = plan(settings, &rates).block_time() + START_AND_STOP * arms;
    let total = search + block * settings.blocks as u32;
    let searched = match search.is_zero() {
        true => String::new(),
        false => format!("about {} s to find the capacities, then ", search.as_secs()),
    };
    format!(
        "{searched}{} of {} s: about {} s in all",
        counted(settings.blocks as u64, "block"),
        block.as_secs(),
        total.as_secs(),
    )
}

#[cfg(test)]
mod tests;
