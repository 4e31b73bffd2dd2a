//! `echometer storm`: the backlog laboratory. Many connects at once (or at a rate), each followed by one echo, against
//! a fresh server for each backlog; what the kernel dropped meanwhile is read from its counters and its accept queue.
//!
//! The levels come in random order in each block, and the result is saved after every block. What makes the load, what
//! serves and what watches the kernel stand behind traits, so that the course of a storm is tested without any.

pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod flags;
pub(crate) mod kernel;
pub(crate) mod record;
pub(crate) mod watch;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::bail;
use hdrhistogram::Histogram;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

use echometer_host::{fitness, signals::Stop};
use echometer_report::{
    file::storm::{FILE_NAME, Losses, StormFile},
    folder::REPORT_NAME,
};

use crate::{
    measure::sides::Arms,
    screen::{progress::Progress, stdout::Finished},
    serve::{arm::Arm, servers::Servers},
    site::{self, Site},
    storm::{
        flags::StormSettings,
        record::Record,
        watch::{QueueSeen, Watch},
    },
};

/// Makes one storm: all connects, each followed by one echo.
pub(crate) trait StormLoad {
    /// Storms a server until every connection has its echo or has failed. Nothing stays open.
    ///
    /// # Errors
    /// There are no figures at all. A connect that fails is counted instead.
    fn storm(&mut self, address: SocketAddr) -> Result<StormTally, StormError>;
}

/// Why a storm gave no figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StormError {
    /// A request to stop ended it.
    Stopped,
    /// Something else: a sentence without its subject.
    Failed(String),
}

/// What became of one storm's connects, or of several storms' together.
#[derive(Debug, Clone)]
pub(crate) struct StormTally {
    /// Connects that were begun.
    pub connects: u64,
    /// Those that failed, or had no echo, by kind.
    pub failed: BTreeMap<String, u64>,
    /// From before connect(2) until the connection was there, ns. Of those that came about.
    pub connect: Histogram<u64>,
    /// From before connect(2) until the echo was there, ns. Of those that had one.
    pub first_echo: Histogram<u64>,
    /// How many connections needed so many SYNs to be sent again: 1, 2, 3...; those that needed none are left out.
    pub syn_retransmits: BTreeMap<u32, u64>,
}

/// One server to be stormed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StormLevel {
    /// The arm's name, as typed.
    pub arm: String,
    /// The backlog that it is asked for; `None` for a server that has one already.
    pub backlog: Option<u32>,
    /// The server with that backlog; its name is unique among the levels, and fit for a file.
    pub server: Arm,
}

/// What one storm on one level gave.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// The client's side.
    pub tally: StormTally,
    /// What the kernel counted; `None` where the server is another machine's, or the counters can't be read.
    pub losses: Option<Losses>,
    /// What was seen of the accept queue; `None` where it can't be read.
    pub queue: Option<QueueSeen>,
}

/// Storms every level. `command_line` is kept in the file.
///
/// A request on `stop` ends it after the storm under way; what is whole is kept.
///
/// # Errors
/// A server can't be started, a cpu can't be had, a file can't be written.
pub(crate) fn storm(
    settings: &StormSettings,
    command_line: &str,
    stop: &Stop,
) -> anyhow::Result<Finished<StormFile>> {
    let servers: Vec<Arm> = settings
        .levels
        .iter()
        .map(|level| level.server.clone())
        .collect();
    let site = Site::prepare(&settings.machine, &servers)?;
    let load = site.load(&settings.load, u64::from(settings.load.connections))?;
    let mut client = client::LoadgenStorm::new(load.clone(), stop.clone());
    let folder = site.folder(&settings.output, &settings.machine, "storm", FILE_NAME)?;
    let mut record = Record::new(
        settings,
        &site.placement,
        load,
        site.machine,
        kernel::read(),
        folder.clone(),
        command_line,
    );
    let mut servers = Servers::new(site.launcher, servers, folder.clone());
    let outcome = run_blocks(
        settings,
        &mut record,
        &mut client,
        &mut servers,
        &mut watch::KernelWatch::default(),
        &|| stop.requested(),
    );
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

/// The exit code: 0, or 3 where a level has no figures or the machine was not fit for it.
#[must_use]
pub(crate) fn exit_code(file: &StormFile) -> u8 {
    let whole = file.faults.is_empty() && file.levels.iter().all(|level| 0 < level.connects);
    match whole && fitness::objections(&file.doctor).is_empty() {
        true => 0,
        false => 3,
    }
}

fn run_blocks(
    settings: &StormSettings,
    record: &mut Record,
    load: &mut impl StormLoad,
    servers: &mut impl Arms,
    watch: &mut impl Watch,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<()> {
    let names = settings
        .levels
        .iter()
        .map(|level| level.server.name.clone())
        .collect();
    // A storm takes a moment, or seconds where SYNs are lost: the first block will tell.
    let guess = Duration::from_secs(1) * settings.levels.len() as u32;
    let mut progress = Progress::new(names, settings.blocks, guess, settings.output.quiet);
    let mut random = StdRng::seed_from_u64(settings.load.seed);
    let mut order: Vec<usize> = (0..settings.levels.len()).collect();
    'blocks: for index in 1..=settings.blocks {
        progress.begin_block(index);
        order.shuffle(&mut random);
        let mut fault = None;
        for &level in &order {
            if stop() {
                record.file.cut_short = true;
                record.save()?;
                break 'blocks;
            }
            progress.show_step(&settings.levels[level].server.name);
            match round(index, level, load, servers, watch) {
                Ok(round) => record.keep(index, level, &round)?,
                Err(RoundError::NotStarted(reason)) if record.is_empty() => {
                    progress.finish();
                    let arm = &settings.levels[level].server;
                    bail!("arm '{}' ({}) {reason}", arm.name, arm.spec);
                }
                Err(RoundError::Stopped) => {
                    record.file.cut_short = true;
                    record.save()?;
                    break 'blocks;
                }
                Err(RoundError::NotStarted(reason) | RoundError::Spoilt(reason)) => {
                    let text = format!("{} {reason}", settings.levels[level].server.name);
                    record.fault(index, &text);
                    fault = Some(text);
                }
            }
            record.note_server(level, servers.started(level));
        }
        record.file.blocks_done = index;
        record.save()?;
        progress.end_block(fault.as_deref(), None);
    }
    progress.finish();
    Ok(())
}

/// Why a level has no figures in a block. Each is a sentence without its subject.
#[derive(Debug)]
enum RoundError {
    NotStarted(String),
    Spoilt(String),
    Stopped,
}

/// One storm on a fresh server. Whatever happens, the server is stopped on return.
fn round(
    block: usize,
    level: usize,
    load: &mut impl StormLoad,
    servers: &mut impl Arms,
    watch: &mut impl Watch,
) -> Result<Round, RoundError> {
    let outcome = stormed(block, level, load, servers, watch);
    servers.stop(level);
    outcome
}

fn stormed(
    block: usize,
    level: usize,
    load: &mut impl StormLoad,
    servers: &mut impl Arms,
    watch: &mut impl Watch,
) -> Result<Round, RoundError> {
    let address = servers
        .start(block, level)
        .map_err(RoundError::NotStarted)?;
    // Our kernel's counters say nothing of another machine's queues.
    let watched = address.ip().is_loopback();
    if watched {
        watch.begin(address.port());
    }
    let outcome = load.storm(address);
    let (losses, queue) = if watched { watch.end() } else { (None, None) };
    let went_well = match &outcome {
        Ok(tally) => tally.failed.is_empty(),
        Err(StormError::Stopped) => true,
        Err(StormError::Failed(_)) => false,
    };
    if let Some(ended) = servers.ended_after(level, went_well) {
        return Err(RoundError::Spoilt(ended));
    }
    let tally = outcome.map_err(|error| match error {
        StormError::Stopped => RoundError::Stopped,
        StormError::Failed(reason) => RoundError::Spoilt(reason),
    })?;
    Ok(Round {
        tally,
        losses,
        queue,
    })
}

impl StormTally {
    /// Nothing yet.
    #[must_use]
    pub(crate) fn empty() -> Self {
        let histogram = || Histogram::new(3).expect("three significant digits are allowed");
        Self {
            connects: 0,
            failed: BTreeMap::new(),
            connect: histogram(),
            first_echo: histogram(),
            syn_retransmits: BTreeMap::new(),
        }
    }

    /// Takes in another storm's figures.
    pub(crate) fn add(&mut self, other: &StormTally) {
        self.connects += other.connects;
        for (kind, count) in &other.failed {
            *self.failed.entry(kind.clone()).or_default() += count;
        }
        for (times, count) in &other.syn_retransmits {
            *self.syn_retransmits.entry(*times).or_default() += count;
        }
        // They grow as needed, so that adding can't fail.
        self.connect
            .add(&other.connect)
            .expect("histograms that grow can be added");
        self.first_echo
            .add(&other.first_echo)
            .expect("histograms that grow can be added");
    }

    /// Connects that failed.
    #[must_use]
    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

#[cfg(test)]
mod tests;
