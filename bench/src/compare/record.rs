//! A comparison under way: what is known so far, analysed anew and saved after every block, so that nothing that
//! happens later can lose it.

use std::time::Instant;

use anyhow::Context;

use echometer_host::{clock, counters::IrqTimeAccounting, fitness, machine::Facts};
use echometer_loadgen::plan::{Load, Plan};
use echometer_report::{
    file::{
        compare::{Comparison, DesignEntry, FILE_NAME, SCHEMA},
        correction::Correction,
        design::Design,
        entries::CommandEntry,
        floor::FloorEntry,
        quiet::QuietEntry,
        trust::Trust,
    },
    folder::{ResultFolder, hlog_name},
    text::{compare as report, sentence::sentence},
};
use echometer_statistics::{ALPHA, blocks_min};

use crate::{
    compare::{
        analysis::{Terms, analyse},
        flags::CompareSettings,
    },
    judge::{
        figures::{block_figures, failed_block},
        multiples::answered,
    },
    measure::{
        block::Block,
        block_files,
        priority::{RealTime, priorities},
        sides::{Started, remarks},
    },
    place::placement::Placement,
    serve::arm::Arm,
    site::findings,
};

/// What is known so far.
#[derive(Debug)]
pub(crate) struct Record {
    /// As it will be saved.
    pub comparison: Comparison,
    /// The arms' names, the baseline first.
    pub names: Vec<String>,
    terms: Terms,
    server_cpus: usize,
    /// What to know besides what the figures say.
    notes: Vec<String>,
    folder: ResultFolder,
    /// Its report, as it was saved last.
    pub text: String,
    begun: Instant,
}

impl Record {
    /// A comparison of which nothing was measured yet. `load` is the settings' with its workers placed.
    #[must_use]
    pub(crate) fn new(
        settings: &CompareSettings,
        placement: &Placement,
        load: Plan,
        machine: Facts,
        folder: ResultFolder,
        command_line: &str,
    ) -> Self {
        let names: Vec<String> = settings.arms.iter().map(|arm| arm.name.clone()).collect();
        let terms = Terms {
            arms: names.clone(),
            primary: settings.primary,
            margin: settings.margin,
            design: settings.design,
            open: load.load != Load::Closed,
        };
        let arms = settings.arms.iter().map(Arm::entry);
        let comparison = Comparison {
            schema: SCHEMA.to_owned(),
            started_at: clock::wall_time().to_string(),
            elapsed_ns: 0,
            cut_short: false,
            sentence: String::new(),
            verdict: Trust::nothing_yet(),
            arms: arms.collect(),
            design: DesignEntry {
                kind: settings.design,
                blocks: settings.blocks,
                slice_min_ns: match settings.design {
                    Design::Slices => settings.slice.as_nanos() as u64,
                    Design::Runs => load.duration.as_nanos() as u64,
                },
                primary: settings.primary,
                margin: settings.margin,
                server_cpus: placement.server_cpus(),
                client_cpus: placement.client.clone(),
                quiet: None,
                priority: priorities(settings.machine.priority, &load),
                load,
            },
            seed: settings.load.seed,
            doctor: findings(&settings.arms, placement, &machine),
            machine,
            commands: vec![CommandEntry::bench(command_line)],
            blocks: Vec::new(),
            correction: Correction::StepDownMaxT,
            metrics: Vec::new(),
            floor: None,
        };
        let notes = notes(settings, placement, &comparison.machine);
        Self {
            comparison,
            names,
            terms,
            server_cpus: placement.server.len(),
            notes,
            folder,
            text: String::new(),
            begun: Instant::now(),
        }
    }

    /// Something to know that the figures don't say.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// What a look at the cpus showed before, where there was one.
    pub(crate) fn set_quiet(&mut self, quiet: Option<QuietEntry>) {
        self.notes
            .extend(quiet.iter().filter_map(|quiet| quiet.moved.clone()));
        self.comparison.design.quiet = quiet;
    }

    /// The floor as planned, or why there is none.
    pub(crate) fn set_floor(&mut self, floor: FloorEntry) {
        self.comparison.floor = Some(floor);
    }

    /// Whether a floor is to be measured.
    #[must_use]
    pub(crate) fn has_floor(&self) -> bool {
        let floor = self.comparison.floor.as_ref();
        floor.is_some_and(|floor| floor.withheld.is_none())
    }

    /// Who runs at real-time priority, if anybody does.
    #[must_use]
    pub(crate) fn real_time(&self) -> Option<RealTime> {
        RealTime::of(self.comparison.design.priority, self.server_cpus)
    }

    /// Whether nothing was measured yet.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.comparison.blocks.is_empty()
    }

    /// Takes in a block (counted from 1) with its raw data.
    ///
    /// # Errors
    /// Its files can't be written.
    pub(crate) fn keep(&mut self, index: usize, block: &Block) -> anyhow::Result<()> {
        self.comparison.cut_short |= block.cut_short;
        if let (Some(floor), Some(fault)) = (&mut self.comparison.floor, &block.floor_fault) {
            floor.notes.push(format!("in block {index} {fault}"));
        }
        let hlogs: Vec<String> = self
            .names
            .iter()
            .map(|name| hlog_name(index, name))
            .collect();
        self.comparison.blocks.push(block_figures(
            index,
            block,
            &self.names,
            &hlogs,
            self.server_cpus,
        ));
        // Last: what can't be written down was measured all the same.
        block_files::write(&self.folder, index, block, &self.names).with_context(|| {
            format!(
                "cannot write block {index} into {}",
                self.folder.path().display()
            )
        })
    }

    /// Takes in a block that came to nothing.
    pub(crate) fn keep_failure(&mut self, index: usize, arm: usize, reason: &str) {
        let reason = format!("{} {reason}", self.names[arm]);
        self.comparison.blocks.push(failed_block(index, reason));
    }

    /// How the arms' servers were started, in the arms' order.
    pub(crate) fn note_servers(&mut self, started: &[Option<Started>]) {
        for note in remarks(&self.names, started) {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        for (arm, started) in self.comparison.arms.iter_mut().zip(started) {
            if let Some(started) = started {
                arm.ready_line.clone_from(&started.ready_line);
            }
        }
        let servers = self.names.iter().zip(started);
        CommandEntry::list_servers(
            &mut self.comparison.commands,
            servers.filter_map(|(name, started)| Some((name, started.as_ref()?.command.as_ref()?))),
        );
    }

    /// Draws the conclusions from what is there and writes them down.
    ///
    /// # Errors
    /// The files can't be written.
    pub(crate) fn save(&mut self) -> anyhow::Result<()> {
        let analysis = analyse(&self.terms, &self.comparison.blocks);
        self.comparison.metrics = analysis.metrics;
        self.comparison.verdict = analysis.verdict;
        self.comparison
            .verdict
            .object(fitness::objections(&self.comparison.doctor));
        self.comparison
            .verdict
            .warnings
            .extend(self.notes.iter().cloned());
        self.comparison.floor = self
            .comparison
            .floor
            .take()
            .map(|floor| answered(floor, &self.names, &self.comparison.blocks));
        self.comparison.elapsed_ns = self.begun.elapsed().as_nanos() as u64;
        self.comparison.sentence = sentence(&self.comparison);
        self.text = report::text(&self.comparison);
        self.folder.save(&self.text, FILE_NAME, &self.comparison)
    }

    /// Why the last block does not count, if so.
    #[must_use]
    pub(crate) fn last_fault(&self) -> Option<String> {
        let block = self.comparison.blocks.last()?;
        (!block.valid).then(|| block.reasons.join("; "))
    }

    /// The primary metric so far, in a few words for the progress: `uring x0.881`.
    #[must_use]
    pub(crate) fn estimate(&self) -> Option<String> {
        let primary = self
            .comparison
            .metrics
            .iter()
            .filter(|metric| metric.primary);
        let ratios: Vec<String> = primary
            .filter_map(|metric| {
                let interval = match (metric.ci_low, metric.ci_high) {
                    (Some(low), Some(high)) => format!(" ({low:.3}-{high:.3})"),
                    _ => String::new(),
                };
                Some(format!("{} x{:.3}{interval}", metric.arm, metric.ratio?))
            })
            .collect();
        let label = self.terms.primary.label();
        (!ratios.is_empty()).then(|| format!("{label}: {}", ratios.join(", ")))
    }

    /// Whether so many blocks are invalid that six valid ones are out of reach, where they once were not.
    #[must_use]
    pub(crate) fn is_hopeless(&self) -> bool {
        let (planned, needed) = (self.comparison.design.blocks, blocks_min(ALPHA));
        let invalid = self
            .comparison
            .blocks
            .iter()
            .filter(|block| !block.valid)
            .count();
        needed <= planned && planned - invalid.min(planned) < needed
    }
}

/// What to know of a comparison before it has begun.
fn notes(settings: &CompareSettings, placement: &Placement, machine: &Facts) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(settings.design_note.clone());
    notes.extend(settings.primary_note.clone());
    let shared = placement.server.intersection(&placement.client);
    if !shared.is_empty() {
        notes.push(format!(
            "server and client share cpu {shared}: each waits for the other, and rates say little"
        ));
    }
    let local = settings.arms.iter().any(|arm| arm.spec.is_local());
    if local && machine.irq_time_accounting == Some(IrqTimeAccounting::On) {
        notes.push(
            "this kernel accounts for interrupts apart (irq time accounting): the soft interrupts inside a server's \
             sends are not in its CPU per message, but in the column 'cpu softirq'"
                .to_owned(),
        );
    }
    notes
}
