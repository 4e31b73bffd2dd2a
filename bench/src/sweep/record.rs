//! `sweep.json`: what was asked, every block and the answers; a sweep under way, analysed anew and saved after every
//! block.

use std::{collections::BTreeMap, time::Instant};

use anyhow::Context;

use echometer_host::{clock, fitness, machine::Facts};
use echometer_report::{
    file::{
        correction::Correction,
        entries::CommandEntry,
        sweep::{
            BlockEntry, CellEntry, FILE_NAME, KeyEntry, Movement, MovementEntry, PointEntry,
            SCHEMA, SweepDesign, SweepFile,
        },
        trust::Trust,
    },
    folder::ResultFolder,
    text::sweep as text,
};
use echometer_statistics::median;

use crate::{
    measure::{
        block_files,
        priority::priorities,
        sides::{Started, remarks},
    },
    place::placement::Placement,
    serve::arm::Arm,
    site::findings,
    sweep::{
        block::{GroupBlock, SweepBlock},
        contrasts::{Terms, figures_of},
        findings::{Findings, find},
        flags::SweepSettings,
        grid::Grid,
    },
};

/// A sweep under way.
#[derive(Debug)]
pub(crate) struct Record {
    /// As it will be saved.
    pub file: SweepFile,
    grid: Grid,
    terms: Terms,
    blocks: Vec<SweepBlock>,
    started: Vec<Option<Started>>,
    notes: Vec<String>,
    folder: ResultFolder,
    /// Its report, as it was saved last.
    pub text: String,
    begun: Instant,
}

impl Record {
    /// A sweep of which nothing was measured yet.
    #[must_use]
    pub(crate) fn new(
        settings: &SweepSettings,
        grid: &Grid,
        placement: &Placement,
        machine: Facts,
        folder: ResultFolder,
        command_line: &str,
    ) -> Self {
        let terms = Terms {
            primary: settings.primary,
            margin: settings.margin,
        };
        let keys = grid.axes.iter().map(|axis| KeyEntry {
            name: axis.key.name().to_owned(),
            levels: axis.levels.iter().map(|level| level.text.clone()).collect(),
        });
        let arms = settings.arms.iter().map(Arm::entry);
        let points = grid.points.iter().map(|point| PointEntry {
            levels: grid
                .axes
                .iter()
                .zip(&point.levels)
                .map(|(axis, level)| (axis.key.name().to_owned(), level.text.clone()))
                .collect(),
            label: point.label.clone(),
            layout: point
                .layout
                .as_ref()
                .map(crate::place::layouts::Layout::describe),
            metrics: Vec::new(),
            movement: BTreeMap::new(),
        });
        let file = SweepFile {
            schema: SCHEMA.to_owned(),
            started_at: clock::wall_time().to_string(),
            elapsed_ns: 0,
            cut_short: false,
            sentence: String::new(),
            verdict: Trust::nothing_yet(),
            keys: keys.collect(),
            arms: arms.collect(),
            design: SweepDesign {
                blocks: settings.blocks,
                slice_min_ns: settings.slice.as_nanos() as u64,
                primary: settings.primary,
                margin: settings.margin,
                load: settings.load.clone(),
                cpus: [placement.server.to_string(), placement.client.to_string()],
                priority: priorities(settings.machine.priority, &settings.load),
            },
            seed: settings.load.seed,
            doctor: findings(&settings.arms, placement, &machine),
            machine,
            commands: vec![CommandEntry::bench(command_line)],
            correction: Correction::StepDownMaxT,
            points: points.collect(),
            rankings: Vec::new(),
            blocks: Vec::new(),
        };
        Self {
            file,
            grid: grid.clone(),
            terms,
            blocks: Vec::new(),
            started: vec![None; grid.cells.len()],
            notes: settings.notes.clone(),
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
        self.blocks
            .iter()
            .all(|block| block.cells.iter().all(Option::is_none))
    }

    /// A block begins, counted from 1.
    pub(crate) fn begin_block(&mut self, index: usize, order: Vec<usize>) {
        self.blocks.push(SweepBlock {
            index,
            order,
            cells: vec![None; self.grid.cells.len()],
        });
    }

    /// Takes in what a group gave in the block that has begun, with its raw data.
    ///
    /// # Errors
    /// Its files can't be written.
    pub(crate) fn keep(&mut self, group: GroupBlock) -> anyhow::Result<()> {
        let block = self
            .blocks
            .last_mut()
            .expect("a group is measured in a block");
        let cells = &self.grid.groups[group.group].cells;
        let names: Vec<String> = cells
            .iter()
            .map(|&cell| self.grid.cells[cell].server.name.clone())
            .collect();
        let part = format!("group{:02}-slices", group.group + 1);
        for (&cell, data) in cells.iter().zip(group.cells) {
            if data.started.is_some() {
                self.started[cell].clone_from(&data.started);
                let name = std::slice::from_ref(&self.grid.cells[cell].server.name);
                for note in remarks(name, std::slice::from_ref(&data.started)) {
                    if !self.notes.contains(&note) {
                        self.notes.push(note);
                    }
                }
            }
            block.cells[cell] = Some(data);
        }
        // A run that gave nothing has no slices.
        if group.slices.arms.len() == names.len() {
            // Last: what can't be written down was measured all the same.
            block_files::write_part(&self.folder, block.index, &part, &group.slices, &names)
                .with_context(|| {
                    format!(
                        "cannot write block {} into {}",
                        block.index,
                        self.folder.path().display()
                    )
                })?;
        }
        Ok(())
    }

    /// A cell whose server did not start in the block that has begun: its group has no figures.
    pub(crate) fn keep_failure(&mut self, group: usize, cell: usize, reason: &str) {
        let reason = format!("{} {reason}", self.grid.cells[cell].server.name);
        let block = self
            .blocks
            .last_mut()
            .expect("a group is measured in a block");
        for &cell in &self.grid.groups[group].cells {
            block.cells[cell] = Some(crate::sweep::block::CellBlock {
                raw: None,
                figures: None,
                censored_from_ns: None,
                reasons: vec![reason.clone()],
                remarks: Vec::new(),
                movement: None,
                started: None,
            });
        }
    }

    /// Whether the last block lacks a cell.
    #[must_use]
    pub(crate) fn last_is_partial(&self) -> bool {
        self.blocks
            .last()
            .is_some_and(|block| block.cells.iter().any(Option::is_none))
    }

    /// Why cells of the last block don't count, if any.
    #[must_use]
    pub(crate) fn last_fault(&self) -> Option<String> {
        let mut reasons: Vec<String> = self
            .blocks
            .last()?
            .cells
            .iter()
            .flatten()
            .flat_map(|cell| cell.reasons.clone())
            .collect();
        reasons.dedup();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// The first cell's and the last cell's primary metric so far, for the progress.
    #[must_use]
    pub(crate) fn estimate(&self) -> Option<String> {
        text::estimate(&self.file)
    }

    /// Draws the conclusions from what is there and writes them down.
    ///
    /// # Errors
    /// The files can't be written.
    pub(crate) fn save(&mut self) -> anyhow::Result<()> {
        let Findings {
            cells,
            rankings,
            mut verdict,
        } = find(self.terms, &self.grid, &self.blocks);
        verdict.warnings.extend(self.notes.iter().cloned());
        verdict.object(fitness::objections(&self.file.doctor));
        self.file.verdict = verdict;
        self.file.rankings = rankings;
        for (number, metrics) in cells.into_iter().enumerate() {
            let cell = &self.grid.cells[number];
            let point = &mut self.file.points[cell.point];
            if cell.arm == 0 {
                point.metrics.clear();
            }
            point.metrics.extend(metrics);
            let movement = movement(&self.blocks, number);
            point
                .movement
                .insert(self.grid.arms[cell.arm].clone(), movement);
        }
        self.file.blocks = self.blocks.iter().map(|block| self.entry(block)).collect();
        self.write_commands();
        self.file.elapsed_ns = self.begun.elapsed().as_nanos() as u64;
        self.file.sentence = text::sentence(&self.file);
        self.text = text::text(&self.file);
        self.folder.save(&self.text, FILE_NAME, &self.file)
    }

    fn entry(&self, block: &SweepBlock) -> BlockEntry {
        let name = |cell: usize| self.grid.cells[cell].server.name.clone();
        let order = block
            .order
            .iter()
            .flat_map(|&group| self.grid.groups[group].cells.iter().map(|&cell| name(cell)))
            .collect();
        let cells = block.cells.iter().enumerate().filter_map(|(cell, data)| {
            let data = data.as_ref()?;
            let entry = CellEntry {
                valid: data.reasons.is_empty() && data.figures.is_some(),
                reasons: data.reasons.clone(),
                remarks: data.remarks.clone(),
                figures: data.figures.clone(),
                movement: data.movement,
            };
            Some((name(cell), entry))
        });
        BlockEntry {
            index: block.index,
            order,
            cells: cells.collect(),
        }
    }

    fn write_commands(&mut self) {
        let cells = self.grid.cells.iter().zip(&self.started);
        let started = || {
            let known = cells.clone();
            known.filter_map(|(cell, started)| Some((cell, started.as_ref()?)))
        };
        CommandEntry::list_servers(
            &mut self.file.commands,
            started()
                .filter_map(|(cell, started)| Some((&cell.server.name, started.command.as_ref()?))),
        );
        for (cell, started) in started() {
            if cell.point == 0 {
                self.file.arms[cell.arm]
                    .ready_line
                    .clone_from(&started.ready_line);
            }
        }
    }
}

/// Medians over the blocks in which the cell counts.
fn movement(blocks: &[SweepBlock], cell: usize) -> MovementEntry {
    let of = |part: &dyn Fn(&Movement) -> Option<f64>| {
        let found: Vec<f64> = figures_of(blocks, cell)
            .filter_map(|(data, _)| part(data.movement.as_ref()?))
            .collect();
        median(&found)
    };
    let seconds = |movement: &Movement| movement.span_ns.max(1) as f64 / 1e9;
    let delays: Vec<f64> = figures_of(blocks, cell)
        .map(|(_, figures)| figures.client_run_delay)
        .collect();
    MovementEntry {
        server_migrations_per_s: of(&|movement| {
            Some(movement.server_migrations? as f64 / seconds(movement))
        }),
        client_migrations_per_s: of(&|movement| {
            Some(movement.client_migrations? as f64 / seconds(movement))
        }),
        server_run_delay: of(&|movement| {
            Some(movement.server_run_delay_ns? as f64 / movement.span_ns.max(1) as f64)
        }),
        client_run_delay: median(&delays),
    }
}
