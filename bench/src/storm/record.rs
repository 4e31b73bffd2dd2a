//! `storm.json`: what was asked, what each level of the backlog gave, and the answer. Saved after every block.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, SystemTime},
};

use anyhow::Context;

use echometer_host::{clock, machine::Facts};
use echometer_loadgen::{
    Plan,
    file::Summary,
    histogram_log::{self, Line},
};
use echometer_report::{
    file::{
        entries::CommandEntry,
        storm::{FILE_NAME, LevelEntry, Losses, SCHEMA, StormFile, lost_none},
        sysctls::Sysctls,
    },
    folder::{ResultFolder, hlog_name},
    text::storm as text,
};

use crate::{
    measure::sides::Started,
    place::placement::Placement,
    serve::arm::Spec,
    site::findings,
    storm::{Round, StormTally, flags::StormSettings, watch::QueueSeen},
};

/// A storm under way.
#[derive(Debug)]
pub(crate) struct Record {
    /// As it will be saved.
    pub file: StormFile,
    tallies: Vec<StormTally>,
    queues: Vec<Option<QueueSeen>>,
    losses: Vec<Option<Losses>>,
    started: Vec<Option<Started>>,
    names: Vec<String>,
    folder: ResultFolder,
    /// Its report, as it was saved last.
    pub text: String,
}

impl Record {
    /// A storm of which nothing was measured yet. `load` is the settings' with its workers placed.
    #[must_use]
    pub(crate) fn new(
        settings: &StormSettings,
        placement: &Placement,
        load: Plan,
        machine: Facts,
        sysctls: Sysctls,
        folder: ResultFolder,
        command_line: &str,
    ) -> Self {
        let levels: Vec<LevelEntry> = settings
            .levels
            .iter()
            .map(|level| LevelEntry {
                arm: level.arm.clone(),
                spec: level.server.spec.to_string(),
                backlog: level.backlog,
                // A queue that can't be looked at is as long as the kernel's rule makes it.
                effective_backlog: match &level.server.spec {
                    Spec::Remote { .. } => None,
                    _ => level
                        .backlog
                        .zip(sysctls.somaxconn)
                        .map(|(asked, most)| asked.min(most)),
                },
                storms: 0,
                connects: 0,
                failed: 0,
                errors: BTreeMap::new(),
                connect_ns: Summary::default(),
                first_echo_ns: Summary::default(),
                syn_retransmits: BTreeMap::new(),
                listen_overflows: None,
                listen_drops: None,
                counters: None,
                queue_max: None,
                queue_samples: 0,
                lost_none: None,
            })
            .collect();
        let count = levels.len();
        let steps = sysctls.syn_steps();
        let file = StormFile {
            schema: SCHEMA.to_owned(),
            started_at: clock::wall_time().to_string(),
            cut_short: false,
            sentence: String::new(),
            connects: load.connections,
            connect_rate_per_s: Some(load.connect_rate_per_s).filter(|rate| *rate != 0.0),
            message_size: load.message_size,
            blocks: settings.blocks,
            blocks_done: 0,
            seed: load.seed,
            server_cpus: placement.server_cpus(),
            client_cpus: placement.client.clone(),
            load,
            syn_steps_ns: steps.iter().map(|step| step.as_nanos() as u64).collect(),
            sysctls,
            doctor: findings(
                settings.levels.iter().map(|level| &level.server),
                placement,
                &machine,
            ),
            machine,
            commands: vec![CommandEntry::bench(command_line)],
            levels,
            faults: Vec::new(),
        };
        Self {
            file,
            tallies: vec![StormTally::empty(); count],
            queues: vec![None; count],
            losses: vec![None; count],
            started: vec![None; count],
            names: settings
                .levels
                .iter()
                .map(|level| level.server.name.clone())
                .collect(),
            folder,
            text: String::new(),
        }
    }

    /// Whether nothing was measured yet.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.file.faults.is_empty() && self.file.levels.iter().all(|level| level.storms == 0)
    }

    /// Takes in a storm of the block `index` (from 1), with its raw data.
    ///
    /// # Errors
    /// Its file can't be written.
    pub(crate) fn keep(&mut self, index: usize, level: usize, round: &Round) -> anyhow::Result<()> {
        self.tallies[level].add(&round.tally);
        // A sum over storms of which one is unknown would pass for the whole.
        let first = self.file.levels[level].storms == 0;
        self.losses[level] = match (first, self.losses[level], round.losses) {
            (true, _, losses) => losses,
            (false, Some(sum), Some(losses)) => Some(sum.plus(losses)),
            (false, ..) => None,
        };
        self.queues[level] = match (self.queues[level], round.queue) {
            (Some(seen), Some(queue)) => Some(seen.plus(queue)),
            (seen, queue) => seen.or(queue),
        };
        self.file.levels[level].storms += 1;
        let tally = &self.tallies[level];
        let (losses, queue) = (self.losses[level], self.queues[level]);
        let entry = &mut self.file.levels[level];
        entry.connects = tally.connects;
        entry.failed = tally.failures();
        entry.errors.clone_from(&tally.failed);
        entry.connect_ns = Summary::of(&tally.connect, None);
        entry.first_echo_ns = Summary::of(&tally.first_echo, None);
        entry.syn_retransmits.clone_from(&tally.syn_retransmits);
        entry.counters = losses;
        entry.listen_overflows = losses.and_then(|losses| losses.listen_overflows);
        entry.listen_drops = losses.and_then(|losses| losses.listen_drops);
        entry.effective_backlog = queue.map(|queue| queue.limit).or(entry.effective_backlog);
        entry.queue_max = queue.map(|queue| queue.waiting_max);
        entry.queue_samples = queue.map_or(0, |queue| queue.samples);
        entry.lost_none = Some(lost_none(entry));
        // Last: what can't be written down was measured all the same.
        let name = hlog_name(index, &self.names[level]);
        histograms(&round.tally)
            .and_then(|bytes| self.folder.write(&name, &bytes))
            .with_context(|| format!("cannot write {}", self.folder.join(&name).display()))
    }

    /// A storm that gave no figures.
    pub(crate) fn fault(&mut self, index: usize, reason: &str) {
        self.file.faults.push(format!("block {index}: {reason}"));
    }

    /// How a level's server was started.
    pub(crate) fn note_server(&mut self, level: usize, started: Option<Started>) {
        self.started[level] = started;
        let servers = self.names.iter().zip(&self.started);
        CommandEntry::list_servers(
            &mut self.file.commands,
            servers.filter_map(|(name, started)| Some((name, started.as_ref()?.command.as_ref()?))),
        );
    }

    /// Draws the conclusion from what is there and writes it down.
    ///
    /// # Errors
    /// The files can't be written.
    pub(crate) fn save(&mut self) -> anyhow::Result<()> {
        self.file.sentence = text::sentence(&self.file);
        self.text = text::text(&self.file);
        self.folder.save(&self.text, FILE_NAME, &self.file)
    }
}

/// Two lines: the connects and the first echoes, tagged as in the load generator's logs.
fn histograms(tally: &StormTally) -> io::Result<Vec<u8>> {
    let line = |tag, histogram| Line {
        tag,
        histogram,
        start: Duration::ZERO,
        length: Duration::from_nanos(tally.first_echo.max()),
    };
    let lines = [
        line("connect", &tally.connect),
        line("first_echo", &tally.first_echo),
    ];
    histogram_log::whole(SystemTime::now(), lines)
}
