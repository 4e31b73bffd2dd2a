//! `echometer find-rate`: the highest rate at which an objective such as `p99<200us` holds, with its interval.
//!
//! Each block searches anew on a fresh server ([`crate::search::rungs`]), the first from a low rate on, the others from what
//! the one before has found. A rate is tried by short runs until two say the same, so that one stall decides nothing. The
//! median of the blocks is the answer, their range its interval. Every run is a point of the curve of latency against
//! throughput.

pub(crate) mod command;
pub(crate) mod flags;
pub(crate) mod middle;
pub(crate) mod record;
pub(crate) mod trial;

use anyhow::bail;

use echometer_host::{signals::Stop, units::show_rate};
use echometer_loadgen::{
    Plan,
    plan::{Arrivals, Load},
    verdict,
};
use echometer_report::{
    file::{
        find_rate::{FILE_NAME, FindRateFile},
        trust::Status,
    },
    folder::REPORT_NAME,
};

use crate::{
    find_rate::{
        flags::FindRateSettings,
        record::Record,
        trial::{Trial, judge},
    },
    measure::{
        open_run::{Loadgen, OpenLoad},
        sides::{Arms, WholeRun},
    },
    screen::{progress::Progress, stdout::Finished},
    search::rungs::Search,
    serve::{arm::Arm, servers::Servers},
    site::{self, Site, placed_quietly},
};

/// So many runs that say the same decide a rate.
const VOTES: u32 = 2;
/// The first block begins here.
const FIRST: f64 = 10e3;
/// Runs of a block, for the first guess of the time left.
const RUNS_GUESS: u32 = 20;

/// One run at one rate, as it was judged in the end.
#[derive(Debug, Clone)]
pub(crate) struct Tried {
    /// The rate that was asked for, a second.
    pub rate_per_s: f64,
    /// Counted from 1.
    pub attempt: u32,
    /// The run.
    pub run: WholeRun,
    /// What it says.
    pub trial: Trial,
}

/// Why a block ends before its time.
#[derive(Debug)]
enum End {
    /// A request to stop.
    Stopped,
    /// A sentence without its subject.
    Failed(String),
    /// It was measured, and its file can't be written.
    Unsaved(anyhow::Error),
}

/// Searches. `command_line` is kept in the file.
///
/// A request on `stop` ends it after the run under way; whole blocks count.
///
/// # Errors
/// The server can't be started, a cpu can't be had, a file can't be written.
pub(crate) fn find_rate(
    settings: &FindRateSettings,
    command_line: &str,
    stop: &Stop,
) -> anyhow::Result<Finished<FindRateFile>> {
    let arms = std::slice::from_ref(&settings.arm);
    let (placement, quiet) = placed_quietly(&settings.machine, arms, &settings.load)?;
    let site = Site::at(placement, settings.machine.priority, arms)?;
    let load = site.load(&settings.load, u64::from(settings.load.connections))?;
    let folder = site.folder(&settings.output, &settings.machine, "find-rate", FILE_NAME)?;
    let mut record = Record::new(
        settings,
        &site.placement,
        load,
        site.machine,
        folder.clone(),
        command_line,
    );
    record.set_quiet(quiet);
    let mut servers = Servers::new(site.launcher, arms.to_vec(), folder.clone());
    let mut loadgen = Loadgen {
        stop: stop.clone(),
        priority: settings.machine.priority,
    };
    let outcome = run_blocks(settings, &mut record, &mut servers, &mut loadgen, &|| {
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

/// The exit code: 0, also where even the lowest rate fails; 3 where it is not valid.
#[must_use]
pub(crate) fn exit_code(file: &FindRateFile) -> u8 {
    match file.verdict.status {
        Status::Valid => 0,
        Status::Invalid => 3,
    }
}

/// All blocks; saved after each.
fn run_blocks(
    settings: &FindRateSettings,
    record: &mut Record,
    servers: &mut impl Arms,
    load: &mut impl OpenLoad,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<()> {
    let guess = (settings.load.duration + settings.load.warmup) * RUNS_GUESS;
    let names = vec![settings.arm.name.clone()];
    let mut progress = Progress::new(names, settings.blocks, guess, settings.output.quiet);
    let mut trials = Trials {
        settings,
        record,
        servers,
        load,
        stop,
    };
    let mut first = FIRST;
    for index in 1..=settings.blocks {
        progress.begin_block(index);
        let outcome = trials.block(index, first, &progress);
        let fault = match outcome {
            Ok(found) => {
                first = found.rate_per_s.unwrap_or(first);
                trials.record.keep_block(index, Ok(found));
                None
            }
            Err(End::Stopped) => {
                trials.record.file.cut_short = true;
                trials.record.save()?;
                break;
            }
            Err(End::Unsaved(error)) => {
                progress.finish();
                return Err(error);
            }
            // What does not even start once is told at once.
            Err(End::Failed(reason)) if trials.record.is_empty() => {
                progress.finish();
                let Arm { name, spec } = &settings.arm;
                bail!("arm '{name}' ({spec}) {reason}");
            }
            Err(End::Failed(reason)) => {
                let reason = format!("{} {reason}", settings.arm.name);
                trials.record.keep_block(index, Err(reason.clone()));
                Some(reason)
            }
        };
        trials.record.save()?;
        progress.end_block(fault.as_deref(), trials.record.estimate().as_deref());
    }
    progress.finish();
    Ok(())
}

struct Trials<'a, S, L> {
    settings: &'a FindRateSettings,
    record: &'a mut Record,
    servers: &'a mut S,
    load: &'a mut L,
    stop: &'a dyn Fn() -> bool,
}

/// What a block has found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Found {
    /// The highest rate that held; `None` where even the lowest failed.
    pub rate_per_s: Option<f64>,
    /// Whether the rate above failed only because the client could not make it.
    pub client_bound: bool,
    /// Whether every rate held up to the highest.
    pub at_the_top: bool,
    /// How many answers rest on runs that were invalid each time.
    pub doubtful: u32,
}

impl<S: Arms, L: OpenLoad> Trials<'_, S, L> {
    /// One search, from the rate `first` on.
    fn block(&mut self, index: usize, first: f64, progress: &Progress) -> Result<Found, End> {
        let FindRateSettings {
            lowest, highest, ..
        } = *self.settings;
        let mut search = Search::new(lowest, highest, first, VOTES);
        let mut doubtful = 0;
        self.on_a_fresh_server(index, &mut |trials, address| {
            while let Some(rate) = search.next() {
                let believed = trials.settle(index, rate, &mut search, address, progress)?;
                doubtful += u32::from(!believed);
            }
            Ok(())
        })?;
        Ok(Found {
            rate_per_s: search.found(),
            client_bound: search.client_bound(),
            at_the_top: search.at_the_top(),
            doubtful,
        })
    }

    /// Starts the server, does `work` on it and stops it, whatever happens.
    fn on_a_fresh_server(
        &mut self,
        block: usize,
        work: &mut dyn FnMut(&mut Self, std::net::SocketAddr) -> Result<(), End>,
    ) -> Result<(), End> {
        if (self.stop)() {
            return Err(End::Stopped);
        }
        let outcome = match self.servers.start(block, 0) {
            Ok(address) => {
                self.record.server(self.servers.started(0));
                work(self, address)
            }
            Err(reason) => Err(End::Failed(reason)),
        };
        self.servers.stop(0);
        // It may have left something behind.
        self.record.server(self.servers.started(0));
        outcome
    }

    /// Runs a rate until the search has decided on it; says whether any of the runs can be believed.
    fn settle(
        &mut self,
        block: usize,
        rate_per_s: f64,
        search: &mut Search,
        address: std::net::SocketAddr,
        progress: &Progress,
    ) -> Result<bool, End> {
        let mut believed = false;
        let mut attempt = 0;
        while search.next() == Some(rate_per_s) {
            attempt += 1;
            if (self.stop)() {
                return Err(End::Stopped);
            }
            let again = if attempt == 1 { "" } else { ", again" };
            progress.show_step(&format!("{}/s{again}", show_rate(rate_per_s)));
            let load = self.load_at(rate_per_s);
            let outcome = self.load.run(address, &load);
            let whole = |run: &WholeRun| run.judged.verdict.status != verdict::Status::Errors;
            let went_well = outcome.as_ref().is_ok_and(whole);
            if let Some(ended) = self.servers.ended_after(0, went_well) {
                return Err(End::Failed(ended));
            }
            let run = outcome.map_err(End::Failed)?;
            if run.cut_short {
                return Err(End::Stopped);
            }
            let trial = judge(&self.settings.slos, &run);
            search.vote(trial.vote());
            believed |= !matches!(trial, Trial::Invalid { .. });
            let tried = Tried {
                rate_per_s,
                attempt,
                run,
                trial,
            };
            self.record.keep_run(block, &tried).map_err(End::Unsaved)?;
        }
        Ok(believed)
    }

    fn load_at(&self, rate_per_s: f64) -> Plan {
        let base = &self.record.file.design.load;
        let arrivals = match base.load {
            Load::Open { arrivals, .. } => arrivals,
            Load::Closed => Arrivals::Poisson,
        };
        Plan {
            load: Load::Open {
                rate_per_s,
                arrivals,
            },
            duration: self
                .settings
                .slos
                .iter()
                .map(|slo| slo.run_length(rate_per_s, base.duration))
                .fold(base.duration, std::time::Duration::max),
            ..base.clone()
        }
    }
}

#[cfg(test)]
mod tests;
