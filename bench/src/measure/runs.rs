//! The runs design: one block of a comparison by whole runs. Every arm has its runs, each on a server started afresh,
//! all in random order; only one server is alive at a time. For open loops, because slices empty the queues at each
//! turn and hide the tails, and for servers that never sleep and could not rest while another is measured.
//!
//! As in [`crate::measure::slices`], nothing here knows sockets, processes or the clock. A block has the same form, too: a run
//! stands where a slice does, and its number where the cycle does.

use std::time::Duration;

use rand::{Rng, seq::SliceRandom};

use crate::measure::{
    block::{Abort, Block, End, Fault, Slice, Step},
    priority::{Began, RealTime},
    reading::Reading,
    sides::{Arms, Client, Usage, WholeRun},
    slices::{FLOOR_SHARE, TURNS_A_RAMP, clean, start_afresh, turns},
};

/// How many runs each arm has in a block.
pub(crate) const RUNS_AN_ARM: u32 = 2;
/// And at most this long: it has no tail to wait for.
const FLOOR_MAX: Duration = Duration::from_millis(500);
/// No more than this share of a run is left out as its ramp.
const RAMP_SHARE: u32 = 4;

/// How a block is to be run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunsPlan {
    /// At least 1.
    pub arms: usize,
    /// Messages that may be in flight at once when a run starts; at least 1.
    pub in_flight: u64,
    /// Length of a run without its warm-up; above 0.
    pub measured: Duration,
    /// Load on the fresh server before that; above 0.
    pub warmup: Duration,
    /// Whether the floor is measured, too.
    pub floor: bool,
    /// Who runs at real-time priority, if anybody does: arms that are not fit for it are refused in the first block.
    pub real_time: Option<RealTime>,
}

/// Runs one block. Whatever happens, every server is stopped and every connection closed on return.
///
/// `stop` is asked before and after every run; `watch` is told what comes next.
///
/// # Errors
/// See [`Abort`]. (An arm that fails later on makes the block invalid instead.)
pub(crate) fn run_block(
    index: usize,
    plan: &RunsPlan,
    random: &mut impl Rng,
    client: &mut impl Client,
    arms: &mut impl Arms,
    stop: &dyn Fn() -> bool,
    watch: &mut dyn FnMut(Step),
) -> Result<Block, Abort> {
    let mut turns = Turns {
        plan,
        client,
        arms,
        stop,
        watch,
        block: Block::new(plan.arms),
    };
    let outcome = turns.play(index, random);
    turns.block.ended(outcome)
}

struct Turns<'a, C, A> {
    plan: &'a RunsPlan,
    client: &'a mut C,
    arms: &'a mut A,
    stop: &'a dyn Fn() -> bool,
    watch: &'a mut dyn FnMut(Step),
    block: Block,
}

impl<C: Client, A: Arms> Turns<'_, C, A> {
    fn play(&mut self, index: usize, random: &mut impl Rng) -> Result<(), End> {
        self.block.slice = self.plan.measured;
        for arm in &mut self.block.arms {
            // Nobody rests here: a server lives only while it is measured.
            arm.resting_cpu_ns = None;
        }
        let takers = self.plan.arms + usize::from(self.plan.floor);
        let mut order: Vec<usize> = (0..takers)
            .flat_map(|arm| (0..RUNS_AN_ARM).map(move |_| arm))
            .collect();
        order.shuffle(random);
        let total = order.len() as u32;
        for (done, arm) in (0..).zip(order) {
            if self.asked_to_stop() {
                return Ok(());
            }
            self.block.order.push(arm);
            if arm == self.plan.arms {
                self.floor();
                continue;
            }
            let outcome = self.run(index, arm, (done, total));
            self.client.close(arm);
            self.arms.stop(arm);
            outcome?;
            if self.block.cut_short {
                return Ok(());
            }
        }
        self.block.note_unusable();
        Ok(())
    }

    /// One run of one arm, from the start of its server on.
    fn run(&mut self, index: usize, arm: usize, (done, total): (u32, u32)) -> Result<(), End> {
        (self.watch)(Step::Start { arm });
        start_afresh(self.client, self.arms, index, arm)
            .map_err(|reason| End::Abort(Abort::NotStarted(Fault { arm, reason })))?;
        (self.watch)(Step::Warm { arm });
        let began = Began::now(self.arms, arm);
        let warmed = self.client.drive(arm, Duration::ZERO, self.plan.warmup);
        let warmed = clean(self.arms, arm, warmed)?;
        if let Some(real_time) = self.plan.real_time.filter(|_| index == 1)
            && let Some(reason) = began.refusal(self.arms, arm, warmed.client_busiest, real_time)
        {
            return Err(End::Abort(Abort::NotStarted(Fault { arm, reason })));
        }
        if self.asked_to_stop() {
            return Ok(());
        }
        // At a low rate nothing may be due in the warm-up.
        let longest = self.plan.measured / RAMP_SHARE;
        let ramp = match warmed.recorded {
            0 => longest,
            recorded => {
                let rate = recorded as f64 * 1e9 / warmed.recorded_span_ns.max(1) as f64;
                turns(self.plan.in_flight, TURNS_A_RAMP, rate).min(longest)
            }
        };
        (self.watch)(Step::Slice { arm, done, total });
        let before = Reading::take(self.arms, arm);
        let outcome = self.client.run(arm, ramp, ramp + self.plan.measured);
        let side = before.until(&Reading::take(self.arms, arm));
        let (outcome, judged) = match outcome {
            Ok(run) => (Ok(run.stretch), Some(run.judged)),
            Err(reason) => (Err(reason), None),
        };
        let stretch = clean(self.arms, arm, outcome)?;
        // A run that was ended early is no run.
        if self.asked_to_stop() {
            return Ok(());
        }
        let figures = &mut self.block.arms[arm];
        let number = figures.slices.len() as u32;
        figures.slices.push(Slice {
            span_ns: side.span_ns,
            server_cpu_ns: side.cpu_ns,
            server_cpus: side.cpus,
            ..Slice::of(number, &stretch)
        });
        figures.add(&stretch);
        // A sum over runs of which one is unknown would pass for the whole.
        let earlier = match number {
            0 => Some(0),
            _ => figures.usage.map(|usage| usage.context_switches),
        };
        figures.usage = side.usage.zip(earlier).map(|(usage, earlier)| Usage {
            context_switches: earlier + usage.context_switches,
            ..usage
        });
        let run = judged.map(|judged| WholeRun {
            stretch,
            judged,
            cut_short: false,
        });
        figures.runs.extend(run);
        Ok(())
    }

    fn floor(&mut self) {
        if self.block.floor_fault.is_some() {
            return;
        }
        (self.watch)(Step::Floor);
        let length = (self.plan.measured / FLOOR_SHARE).min(FLOOR_MAX);
        match self.client.floor(length) {
            Ok(slice) => {
                let number = self.block.floor.len() as u32;
                self.block.floor.push((number, slice));
            }
            Err(reason) => self.block.floor_fault = Some(reason),
        }
    }

    fn asked_to_stop(&mut self) -> bool {
        self.block.cut_short |= (self.stop)();
        self.block.cut_short
    }
}

#[cfg(test)]
mod tests;
