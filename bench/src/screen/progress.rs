//! Progress on stderr: one line that is redrawn on a terminal (block, arm, time left, the estimate so far), one line
//! per block elsewhere, nothing where it is not wanted. It is drawn between slices, never during one.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use echometer_host::output::is_plain_terminal;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::measure::block::Step;

/// How progress is told.
#[derive(Debug)]
pub(crate) struct Progress {
    arms: Vec<String>,
    blocks: usize,
    /// What a block takes by the plan; once one is done, by experience.
    block_time: Duration,
    begun: Instant,
    block: usize,
    block_begun: Instant,
    estimate: String,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Line(ProgressBar),
    Plain,
    Silent,
}

impl Progress {
    /// Progress of a comparison of `blocks` blocks, each of which should take `block_time`.
    #[must_use]
    pub(crate) fn new(arms: Vec<String>, blocks: usize, block_time: Duration, quiet: bool) -> Self {
        let form = match (quiet, io::stderr().is_terminal() && !is_plain_terminal()) {
            (true, _) => Form::Silent,
            (false, false) => Form::Plain,
            (false, true) => {
                let bar = ProgressBar::with_draw_target(
                    Some(blocks as u64),
                    ProgressDrawTarget::stderr(),
                );
                let style = ProgressStyle::with_template("{bar:16} {wide_msg}")
                    .expect("the template is a constant and well-formed");
                bar.set_style(style);
                Form::Line(bar)
            }
        };
        let now = Instant::now();
        let estimate = String::new();
        Self {
            arms,
            blocks,
            block_time,
            begun: now,
            block: 0,
            block_begun: now,
            estimate,
            form,
        }
    }

    /// A block begins; counted from 1.
    pub(crate) fn begin_block(&mut self, block: usize) {
        self.block = block;
        self.block_begun = Instant::now();
    }

    /// What comes next within the block.
    pub(crate) fn step(&self, step: Step) {
        match step {
            Step::Start { arm } => self.show_step(&format!("starting {}", self.arms[arm])),
            Step::Warm { arm } => self.show_step(&format!("warming up {}", self.arms[arm])),
            Step::Slice { arm, .. } => self.show_step(&self.arms[arm]),
            Step::Floor => self.show_step("floor"),
        }
    }

    /// What is done now within the block.
    pub(crate) fn show_step(&self, doing: &str) {
        let Form::Line(bar) = &self.form else { return };
        bar.set_position(self.block as u64 - 1);
        let left = self.time_left().as_secs() + 1;
        bar.set_message(format!(
            "block {}/{} {doing}, {left} s left{}",
            self.block, self.blocks, self.estimate
        ));
    }

    /// A block is done. `fault` is why it does not count, if so; `estimate` is what can be said so far, or nothing.
    pub(crate) fn end_block(&mut self, fault: Option<&str>, estimate: Option<&str>) {
        let done = self.block as u32;
        self.block_time = self.begun.elapsed() / done.max(1);
        self.estimate = estimate
            .map(|estimate| format!(", so far {estimate}"))
            .unwrap_or_default();
        if let (Form::Line(bar), Some(fault)) = (&self.form, fault) {
            bar.println(format!("block {} does not count: {fault}", self.block));
        }
        if let Form::Plain = self.form {
            let outcome = fault.map_or("done".to_owned(), |fault| {
                format!("does not count: {fault}")
            });
            // Progress that nobody can read is no reason to stop.
            let left = self.block_time * self.blocks.saturating_sub(self.block) as u32;
            let _ = writeln!(
                io::stderr(),
                "block {}/{} {outcome}, {} s left{}",
                self.block,
                self.blocks,
                left.as_secs(),
                self.estimate
            );
        }
    }

    /// Takes the line away.
    pub(crate) fn finish(&self) {
        if let Form::Line(bar) = &self.form {
            bar.finish_and_clear();
        }
    }

    fn time_left(&self) -> Duration {
        let blocks_left = self.blocks.saturating_sub(self.block) as u32;
        self.block_time * blocks_left + self.block_time.saturating_sub(self.block_begun.elapsed())
    }
}
