//! `echometer find-rate`: the highest rate at which an objective such as `p99<200us` holds, with its interval.
//!
//! A first look doubles the rate until it fails; then each block bisects the ladder of rates anew, on a fresh server.
//! The median of the blocks is the answer, their range its interval. Every run is a point of the curve of latency
//! against throughput.

pub(crate) mod bisection;
pub(crate) mod command;
pub(crate) mod flags;
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
        slo::Slo,
        trust::Status,
    },
    folder::REPORT_NAME,
};

use crate::{
    find_rate::{
        bisection::{Bisection, Climb, ladder},
        flags::FindRateSettings,
        record::Record,
        trial::{Trial, judge},
    },
    measure::{
        open_run::{Loadgen, OpenLoad},
        sides::{Arms, WholeRun},
    },
    screen::{progress::Progress, stdout::Finished},
    serve::{arm::Arm, servers::Servers},
    site::{self, Site, placed_quietly},
};

/// An invalid run is repeated so many times at most.
pub(crate) const REPEATS_MAX: u32 = 2;
/// Trials of a block, for the first guess of the time left.
const TRIALS_GUESS: u32 = 9;

/// One run at one rate, as it was judged in the end.
#[derive(Debug, Clone)]
pub(crate) struct Tried {
    /// The rate that was asked for, a second.
    pub rate_per_s: f64,
    /// Counted from 1; more where earlier ones were invalid.
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

/// The first look, then all blocks; saved after each.
fn run_blocks(
    settings: &FindRateSettings,
    record: &mut Record,
    servers: &mut impl Arms,
    load: &mut impl OpenLoad,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<()> {
    let guess = (settings.load.duration + settings.load.warmup) * TRIALS_GUESS;
    let names = vec![settings.arm.name.clone()];
    let mut progress = Progress::new(names, settings.blocks + 1, guess, settings.output.quiet);
    let mut search = Search {
        settings,
        record,
        servers,
        load,
        stop,
    };
    progress.begin_block(1);
    let climbed = search.climb(&progress);
    let top = match climbed {
        Ok(top) => top,
        Err(End::Stopped) => {
            progress.finish();
            search.record.file.cut_short = true;
            return search.record.save();
        }
        Err(End::Unsaved(error)) => {
            progress.finish();
            return Err(error);
        }
        Err(End::Failed(reason)) => {
            progress.finish();
            let Arm { name, spec } = &settings.arm;
            bail!("arm '{name}' ({spec}) {reason}");
        }
    };
    search.record.started();
    search.record.save()?;
    progress.end_block(None, None);
    let rates = ladder(settings.lowest, top);
    for index in 1..=settings.blocks {
        progress.begin_block(index + 1);
        let outcome = search.block(index, &rates, &progress);
        let fault = match outcome {
            Ok(found) => {
                search.record.keep_block(index, Ok(found));
                None
            }
            Err(End::Stopped) => {
                search.record.file.cut_short = true;
                search.record.save()?;
                break;
            }
            Err(End::Unsaved(error)) => {
                progress.finish();
                return Err(error);
            }
            Err(End::Failed(reason)) => {
                let reason = format!("{} {reason}", settings.arm.name);
                search.record.keep_block(index, Err(reason.clone()));
                Some(reason)
            }
        };
        search.record.save()?;
        progress.end_block(fault.as_deref(), search.record.estimate().as_deref());
    }
    progress.finish();
    Ok(())
}

struct Search<'a, S, L> {
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
    /// Whether every rate of the ladder held.
    pub at_the_top: bool,
    /// How many answers rest on runs that stayed invalid after all repeats.
    pub doubtful: u32,
}

impl<S: Arms, L: OpenLoad> Search<'_, S, L> {
    /// The first look; gives the top of the ladder.
    fn climb(&mut self, progress: &Progress) -> Result<f64, End> {
        let mut climb = Climb::new(self.settings.lowest, self.settings.highest);
        self.on_a_fresh_server(0, &mut |search, address| {
            while let Some(rate) = climb.next() {
                let (holds, _) = search.settle(0, rate, address, progress)?;
                climb.tried(holds);
            }
            Ok(())
        })?;
        Ok(climb.top())
    }

    /// One bisection of the ladder.
    fn block(&mut self, index: usize, rates: &[f64], progress: &Progress) -> Result<Found, End> {
        let mut bisection = Bisection::new(rates.len());
        let mut doubtful = 0;
        // The rung at which the client gave up lowest.
        let mut client_bound_at = None;
        self.on_a_fresh_server(index, &mut |search, address| {
            while let Some(rung) = bisection.next() {
                let (holds, last) = search.settle(index, rates[rung], address, progress)?;
                if let Trial::Invalid { client_bound, .. } = last {
                    doubtful += 1;
                    if client_bound {
                        client_bound_at = Some(rung);
                    }
                }
                bisection.tried(holds);
            }
            Ok(())
        })?;
        let found = bisection.found();
        let above = found.map_or(0, |found| found + 1);
        Ok(Found {
            rate_per_s: found.map(|rung| rates[rung]),
            client_bound: client_bound_at == Some(above),
            at_the_top: above == rates.len(),
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

    /// Runs a rate until a run of it is valid, or was repeated often enough; says whether it holds, and how the last
    /// run was judged.
    fn settle(
        &mut self,
        block: usize,
        rate_per_s: f64,
        address: std::net::SocketAddr,
        progress: &Progress,
    ) -> Result<(bool, Trial), End> {
        let slo: &Slo = &self.settings.slo;
        let mut attempt = 0;
        loop {
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
            let trial = judge(slo, &run);
            let tried = Tried {
                rate_per_s,
                attempt,
                run,
                trial: trial.clone(),
            };
            self.record.keep_run(block, &tried).map_err(End::Unsaved)?;
            match trial {
                Trial::Holds => return Ok((true, trial)),
                Trial::Fails => return Ok((false, trial)),
                Trial::Invalid {
                    holds,
                    client_bound,
                    ..
                } if REPEATS_MAX < attempt => {
                    // Noise makes latency worse and not better, so that what holds in spite of it holds; what the
                    // client could not even send says nothing, and is not claimed.
                    return Ok((holds && !client_bound, trial));
                }
                Trial::Invalid { .. } => {}
            }
        }
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
            duration: self.settings.slo.run_length(rate_per_s, base.duration),
            ..base.clone()
        }
    }
}

#[cfg(test)]
mod tests;
