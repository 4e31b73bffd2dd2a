//! `storm.json`: what was asked, what each level of the backlog gave, and the answer. Saved after every block.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use echometer_host::{clock, cpus::CpuList, fitness::Finding, machine::Facts};
use echometer_loadgen::{
    Plan,
    file::Summary,
    histogram_log::{self, Line},
};

use crate::{
    doctor,
    measure::slices::Started,
    place::placement::Placement,
    report::{
        file::compare::CommandEntry,
        folder::{ResultFolder, hlog_name},
        text::storm as text,
    },
    serve::arm::Spec,
    storm::{
        Round, StormTally,
        flags::StormSettings,
        kernel::Sysctls,
        watch::{Losses, QueueSeen},
    },
};

/// What the file says of its form.
pub const SCHEMA: &str = "echometer.storm/1";
/// The name of the file in its folder.
pub const FILE_NAME: &str = "storm.json";

/// A storm, finished or under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StormFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Whether it was stopped before its last block.
    pub cut_short: bool,
    /// The answer for people.
    pub sentence: String,
    /// Connects of one storm; with `connect_rate_per_s` null all at once.
    pub connects: u32,
    /// Connects a second, where they were not all made at once.
    pub connect_rate_per_s: Option<f64>,
    /// Bytes of the one message that follows each connect.
    pub message_size: u32,
    /// How often each level was to be stormed.
    pub blocks: usize,
    /// How many blocks are whole.
    pub blocks_done: usize,
    /// Repeats the order of the levels.
    pub seed: u64,
    /// Where the servers ran; `null` where none of them was ours.
    pub server_cpus: Option<CpuList>,
    /// Where the client ran, one thread a cpu.
    pub client_cpus: CpuList,
    /// The load.
    pub load: Plan,
    /// The kernel's settings that matter.
    pub sysctls: Sysctls,
    /// When a lost SYN is sent again, ns after the first.
    pub syn_steps_ns: Vec<u64>,
    /// Where it was measured.
    pub machine: Facts,
    /// Whether that machine was fit for it, the gravest finding first; empty in files of older versions.
    #[serde(default)]
    pub doctor: Vec<Finding>,
    /// What was run: the bench itself, then each level's server as it was started last.
    pub commands: Vec<CommandEntry>,
    /// One entry a level, in the order of the command line.
    pub levels: Vec<LevelEntry>,
    /// Storms that gave no figures, and why.
    pub faults: Vec<String>,
}

/// One level: all its storms together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LevelEntry {
    /// The arm's name, as typed.
    pub arm: String,
    /// What serves, as it can be typed again.
    pub spec: String,
    /// What was asked for; `null` for a server that was running already.
    pub backlog: Option<u32>,
    /// What it came to after `somaxconn`: what the kernel says of the listener. `null` where it can't be asked.
    pub effective_backlog: Option<u32>,
    /// How many storms it has had.
    pub storms: usize,
    /// Connects of all its storms.
    pub connects: u64,
    /// Those that failed or had no echo.
    pub failed: u64,
    /// The same by kind.
    pub errors: BTreeMap<String, u64>,
    /// From before connect(2) until the connection was there.
    pub connect_ns: Summary,
    /// From before connect(2) until the echo was there.
    pub first_echo_ns: Summary,
    /// How many connections needed 1, 2, 3... SYNs to be sent again.
    pub syn_retransmits: BTreeMap<u32, u64>,
    /// The kernel's counter, over its storms; `null` where it can't be read.
    pub listen_overflows: Option<u64>,
    /// The kernel's counter, over its storms.
    pub listen_drops: Option<u64>,
    /// All of the kernel's counters that were read.
    pub counters: Option<Losses>,
    /// The longest accept queue that was seen; it was sampled, so that a longer one may have been missed.
    pub queue_max: Option<u32>,
    /// How often the queue was looked at.
    pub queue_samples: u64,
    /// Whether no storm lost anything: no connect failed or needed a second SYN, no first echo came as late as a lost
    /// last ACK makes it, no queue overflowed. `null` before the first storm.
    pub lost_none: Option<bool>,
}

/// A storm under way.
#[derive(Debug)]
pub struct Record {
    /// As it will be saved.
    pub file: StormFile,
    tallies: Vec<StormTally>,
    queues: Vec<Option<QueueSeen>>,
    losses: Vec<Option<Losses>>,
    started: Vec<Option<Started>>,
    names: Vec<String>,
    folder: ResultFolder,
}

impl Record {
    /// A storm of which nothing was measured yet. `load` is the settings' with its workers placed.
    #[must_use]
    pub fn new(
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
            doctor: doctor::findings(
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
        }
    }

    /// Whether nothing was measured yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.file.faults.is_empty() && self.file.levels.iter().all(|level| level.storms == 0)
    }

    /// Takes in a storm of the block `index` (from 1), with its raw data.
    ///
    /// # Errors
    /// Its file can't be written.
    pub fn keep(&mut self, index: usize, level: usize, round: &Round) -> anyhow::Result<()> {
        let name = hlog_name(index, &self.names[level]);
        histograms(&round.tally)
            .and_then(|bytes| self.folder.write(&name, &bytes))
            .with_context(|| format!("cannot write {}", self.folder.join(&name).display()))?;
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
        entry.lost_none = Some(text::lost_none(entry));
        Ok(())
    }

    /// A storm that gave no figures.
    pub fn fault(&mut self, index: usize, reason: &str) {
        self.file.faults.push(format!("block {index}: {reason}"));
    }

    /// How a level's server was started.
    pub fn started(&mut self, level: usize, started: Option<Started>) {
        self.started[level] = started;
        let servers = self.names.iter().zip(&self.started);
        CommandEntry::list_servers(
            &mut self.file.commands,
            servers.filter_map(|(name, started)| Some((name, started.as_ref()?))),
        );
    }

    /// Draws the conclusion from what is there and writes it down.
    ///
    /// # Errors
    /// The files can't be written.
    pub fn save(&mut self) -> anyhow::Result<()> {
        self.file.sentence = text::sentence(&self.file);
        self.folder
            .save(&text::text(&self.file), FILE_NAME, &self.file)
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
