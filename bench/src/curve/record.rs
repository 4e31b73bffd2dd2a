//! A curve under way: what is known so far, analysed anew and saved after every block.

use std::time::Instant;

use anyhow::Context;

use echometer_host::{clock, fitness, machine::Facts, units::show_rate};
use echometer_loadgen::Plan;
use echometer_report::{
    file::{
        correction::Correction,
        curve::{Capacity, CurveBlock, CurveCell, CurveDesign, CurveFile, FILE_NAME, SCHEMA},
        entries::CommandEntry,
        trust::{Status, Trust},
    },
    folder::{ResultFolder, hlog_name},
    text::curve as text,
};

use crate::{
    curve::{
        analysis::{Rate, Terms, knees, points},
        block::Cell,
        flags::CurveSettings,
    },
    judge::{figures::arm_figures, objections::too_few_blocks},
    measure::{
        block::Block,
        block_files,
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
    pub file: CurveFile,
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
    /// A curve of which nothing was measured yet. `load` is the settings' with its workers placed.
    #[must_use]
    pub(crate) fn new(
        settings: &CurveSettings,
        placement: &Placement,
        load: Plan,
        machine: Facts,
        folder: ResultFolder,
        command_line: &str,
    ) -> Self {
        let names: Vec<String> = settings.arms.iter().map(|arm| arm.name.clone()).collect();
        let file = CurveFile {
            schema: SCHEMA.to_owned(),
            started_at: clock::wall_time().to_string(),
            elapsed_ns: 0,
            cut_short: false,
            sentence: String::new(),
            verdict: Trust::nothing_yet(),
            arms: settings.arms.iter().map(Arm::entry).collect(),
            seed: load.seed,
            design: CurveDesign {
                blocks: settings.blocks,
                cycles: settings.cycles,
                slos: settings.slos.iter().map(ToString::to_string).collect(),
                margin: settings.margin,
                server_cpus: placement.server_cpus(),
                client_cpus: placement.client.clone(),
                load,
            },
            doctor: findings(&settings.arms, placement, &machine),
            machine,
            commands: vec![CommandEntry::bench(command_line)],
            capacities: Vec::new(),
            correction: Correction::StepDownMaxT,
            points: Vec::new(),
            knee: Vec::new(),
            blocks: Vec::new(),
        };
        let shared = placement.server.intersection(&placement.client);
        let notes = (!shared.is_empty()).then(|| {
            format!(
                "server and client share cpu {shared}: each waits for the other, and the curve says little"
            )
        });
        Self {
            file,
            terms: Terms {
                arms: names.clone(),
                rates: Vec::new(),
                margin: settings.margin,
            },
            names,
            server_cpus: placement.server.len(),
            notes: notes.into_iter().collect(),
            folder,
            text: String::new(),
            begun: Instant::now(),
        }
    }

    /// Something to know that the figures don't say.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Whether nothing was measured yet.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.file.blocks.is_empty()
    }

    /// What the search has found of an arm.
    pub(crate) fn found(&mut self, capacity: Capacity) {
        if capacity.client_bound {
            self.note(format!(
                "from {}/s on the client is the busier side for {}, which may do more: a client with more cpus \
                 (--client-cpus) would see more of its curve",
                show_rate(capacity.rate_per_s),
                capacity.arm,
            ));
        }
        self.file.capacities.push(capacity);
    }

    /// Which rates will be measured.
    pub(crate) fn set_rates(&mut self, rates: Vec<Rate>) {
        self.terms.rates = rates;
    }

    /// Takes in a block, with its raw data.
    ///
    /// # Errors
    /// Its files can't be written.
    pub(crate) fn keep(
        &mut self,
        index: usize,
        cells: &[Cell],
        block: &Block,
    ) -> anyhow::Result<()> {
        let mut reasons: Vec<String> = block
            .faults
            .iter()
            .map(|fault| format!("{} {}", self.names[fault.arm], fault.reason))
            .collect();
        if block.cut_short {
            reasons.push("cut short".to_owned());
        }
        let labels: Vec<String> = cells
            .iter()
            .map(|cell| format!("{}-{:.0}", self.names[cell.arm], cell.rate_per_s))
            .collect();
        let measured = cells.iter().zip(&block.arms).zip(&labels);
        let figures = measured
            .filter(|((_, arm), _)| !arm.slices.is_empty())
            .map(|((cell, arm), label)| CurveCell {
                arm: self.names[cell.arm].clone(),
                rate_per_s: cell.rate_per_s,
                figures: arm_figures(arm, hlog_name(index, label), self.server_cpus),
            })
            .collect();
        self.file.blocks.push(CurveBlock {
            index,
            valid: reasons.is_empty(),
            reasons,
            cells: figures,
        });
        // Last: what can't be written down was measured all the same.
        block_files::write(&self.folder, index, block, &labels).with_context(|| {
            format!(
                "cannot write block {index} into {}",
                self.folder.path().display()
            )
        })
    }

    /// Takes in a block that came to nothing.
    pub(crate) fn keep_failure(&mut self, index: usize, arm: usize, reason: &str) {
        self.file.blocks.push(CurveBlock {
            index,
            valid: false,
            reasons: vec![format!("{} {reason}", self.names[arm])],
            cells: Vec::new(),
        });
    }

    /// How the arms' servers were started, in the arms' order.
    pub(crate) fn note_servers(&mut self, started: &[Option<Started>]) {
        for note in remarks(&self.names, started) {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        for (arm, started) in self.file.arms.iter_mut().zip(started) {
            if let Some(started) = started {
                arm.ready_line.clone_from(&started.ready_line);
            }
        }
        let servers = self.names.iter().zip(started);
        CommandEntry::list_servers(
            &mut self.file.commands,
            servers.filter_map(|(name, started)| Some((name, started.as_ref()?.command.as_ref()?))),
        );
    }

    /// Draws the conclusions from what is there and writes them down.
    ///
    /// # Errors
    /// The files can't be written.
    pub(crate) fn save(&mut self) -> anyhow::Result<()> {
        self.file.points = points(&self.terms, &self.file.blocks);
        self.file.knee = knees(&self.names, &self.file.points);
        self.file.verdict = self.trust();
        self.file.elapsed_ns = self.begun.elapsed().as_nanos() as u64;
        self.file.sentence = text::sentence(&self.file);
        self.text = text::text(&self.file);
        self.folder.save(&self.text, FILE_NAME, &self.file)
    }

    fn trust(&self) -> Trust {
        let all = self.file.blocks.len();
        let valid = self.file.blocks.iter().filter(|block| block.valid).count();
        let mut trust = Trust {
            status: Status::Valid,
            reasons: Vec::new(),
            warnings: self.notes.clone(),
        };
        trust.object(too_few_blocks(valid, all).into_iter().collect());
        trust.object(fitness::objections(&self.file.doctor));
        trust
    }

    /// Why the last block does not count, if so.
    #[must_use]
    pub(crate) fn last_fault(&self) -> Option<String> {
        let block = self.file.blocks.last()?;
        (!block.valid).then(|| block.reasons.join("; "))
    }
}
