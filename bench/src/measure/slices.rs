//! The slices design: one block of a comparison. Every arm is started afresh and warmed up, then the arms take turns
//! in short slices, in random order in each cycle, until each had its share. Slow drift and noisy neighbours hit all
//! arms alike, and what is left of them the median over the cycles takes away.
//!
//! Nothing here knows sockets, processes or the clock: they come in as [`Client`] and [`Arms`], and the tests run
//! whole blocks against made-up ones in no time.

use std::time::Duration;

use rand::{Rng, seq::SliceRandom};

use crate::measure::{
    block::{Abort, Block, End, Fault, Slice, Step, invalid},
    reading::used,
    sides::{Arms, Client, Stretch, Usage},
};

/// The fewest cycles of a block, where slices had to be so long that the measured time holds fewer.
const CYCLES_MIN: u32 = 3;
/// A slice is at least as long as this many turns of every message in flight.
const TURNS_A_SLICE: f64 = 20.0;
/// Replies to this many turns of the messages in flight are the ramp, and not recorded.
pub(crate) const TURNS_A_RAMP: f64 = 2.0;
/// The floor's slice or run is this much shorter than a server's: it needs no ramp and has no queue.
pub(crate) const FLOOR_SHARE: u32 = 5;
/// But not shorter than this, where `--slice` is not.
const FLOOR_SLICE_MIN: Duration = Duration::from_millis(10);

/// How a block is to be run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SlicePlan {
    /// At least 1.
    pub arms: usize,
    /// Messages that may be in flight at once, over all connections; at least 1.
    pub in_flight: u64,
    /// The shortest slice; above 0.
    pub slice_min: Duration,
    /// The time that each arm is measured in a block; above 0.
    pub measured: Duration,
    /// The time that each arm is warmed up; at least `slice_min` is taken.
    pub warmup: Duration,
    /// Whether the floor takes its turn, too.
    pub floor: bool,
}

/// Runs one block. Whatever happens, every server is stopped and every connection closed on return.
///
/// `stop` is asked after every slice; `watch` is told what comes next.
///
/// # Errors
/// See [`Abort`]. (An arm that fails later on makes the block invalid instead.)
pub(crate) fn run_block(
    index: usize,
    plan: &SlicePlan,
    random: &mut impl Rng,
    client: &mut impl Client,
    arms: &mut impl Arms,
    stop: &dyn Fn() -> bool,
    watch: &mut dyn FnMut(Step),
) -> Result<Block, Abort> {
    let mut run = Run {
        plan,
        client,
        arms,
        stop,
        watch,
        block: Block::new(plan.arms),
    };
    let outcome = run.play(index, random);
    for arm in 0..plan.arms {
        run.client.close(arm);
        run.arms.stop(arm);
    }
    match outcome {
        Ok(()) => Ok(run.block),
        Err(End::Abort(abort)) => Err(abort),
        Err(End::Invalid(fault)) => {
            run.block.faults.push(fault);
            Ok(run.block)
        }
    }
}

struct Run<'a, C, A> {
    plan: &'a SlicePlan,
    client: &'a mut C,
    arms: &'a mut A,
    stop: &'a dyn Fn() -> bool,
    watch: &'a mut dyn FnMut(Step),
    block: Block,
}

impl<C: Client, A: Arms> Run<'_, C, A> {
    fn play(&mut self, index: usize, random: &mut impl Rng) -> Result<(), End> {
        let mut order: Vec<usize> = (0..self.plan.arms).collect();
        order.shuffle(random);
        for &arm in &order {
            (self.watch)(Step::Start { arm });
            start_afresh(self.client, self.arms, index, arm)
                .map_err(|reason| End::Abort(Abort::NotStarted(Fault { arm, reason })))?;
        }
        let mut rates = vec![0.0; self.plan.arms];
        for &arm in &order {
            if self.asked_to_stop() {
                return Ok(());
            }
            (self.watch)(Step::Warm { arm });
            rates[arm] = self.warm(arm)?;
        }
        let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let length = slice_length(self.plan, slowest);
        self.block.slice = length;
        let ramps: Vec<Duration> = rates
            .iter()
            .map(|&rate| turns(self.plan.in_flight, TURNS_A_RAMP, rate).min(length / 2))
            .collect();

        let cycles = (self.plan.measured.as_secs_f64() / length.as_secs_f64()).ceil() as u32;
        let cycles = cycles.max(CYCLES_MIN);
        if self.plan.floor {
            order.push(self.plan.arms);
        }
        let total = cycles * order.len() as u32;
        let usage_before: Vec<Option<Usage>> = (0..self.plan.arms)
            .map(|arm| self.arms.usage(arm))
            .collect();
        for cycle in 0..cycles {
            order.shuffle(random);
            for &arm in &order {
                if self.asked_to_stop() {
                    return Ok(());
                }
                if arm == self.plan.arms {
                    self.floor_slice(cycle, length);
                    continue;
                }
                (self.watch)(Step::Slice {
                    arm,
                    done: self.block.order.len() as u32,
                    total,
                });
                self.block.order.push(arm);
                self.slice(cycle, arm, ramps[arm], length)?;
            }
        }
        for (arm, before) in usage_before.into_iter().enumerate() {
            let after = self.arms.usage(arm);
            self.block.arms[arm].usage = after
                .zip(before)
                .map(|(after, before)| after.since(&before));
        }
        let unusable = self
            .block
            .arms
            .iter()
            .enumerate()
            .flat_map(|(arm, figures)| {
                figures
                    .unusable()
                    .into_iter()
                    .map(move |reason| Fault { arm, reason })
            });
        self.block.faults.extend(unusable.collect::<Vec<_>>());
        Ok(())
    }

    fn asked_to_stop(&mut self) -> bool {
        self.block.cut_short = (self.stop)();
        self.block.cut_short
    }

    /// Loads an arm for a while and returns its rate, in messages per second.
    fn warm(&mut self, arm: usize) -> Result<f64, End> {
        let length = self.plan.warmup.max(self.plan.slice_min);
        let stretch = self.drive(arm, Duration::ZERO, length)?;
        if stretch.recorded == 0 {
            return Err(invalid(
                arm,
                format!("answered nothing in its warm-up of {length:?}"),
            ));
        }
        Ok(stretch.recorded as f64 * 1e9 / stretch.recorded_span_ns.max(1) as f64)
    }

    fn slice(
        &mut self,
        cycle: u32,
        arm: usize,
        ramp: Duration,
        length: Duration,
    ) -> Result<(), End> {
        let cpu_before = self.cpu_ns();
        let cpus_before = self.arms.server_cpus();
        let start_ns = self.arms.now_ns();
        let stretch = self.drive(arm, ramp, length)?;
        let span_ns = self.arms.now_ns().saturating_sub(start_ns);
        let cpus_after = self.arms.server_cpus();
        let used = self.cpu_ns_since(&cpu_before);

        for resting in (0..self.plan.arms).filter(|&other| other != arm) {
            self.block.arms[resting].rested(used[resting], span_ns);
        }
        let measured = &mut self.block.arms[arm];
        measured.add(&stretch.latency);
        measured.slices.push(Slice {
            span_ns,
            server_cpu_ns: used[arm],
            server_cpus: cpus_after.since(&cpus_before),
            ..Slice::of(cycle, &stretch)
        });
        Ok(())
    }

    /// The floor's turn: every arm rests.
    fn floor_slice(&mut self, cycle: u32, length: Duration) {
        if self.block.floor_fault.is_some() {
            return;
        }
        (self.watch)(Step::Floor);
        let cpu_before = self.cpu_ns();
        let start_ns = self.arms.now_ns();
        let length = (length / FLOOR_SHARE)
            .max(FLOOR_SLICE_MIN)
            .min(self.plan.slice_min);
        match self.client.floor(length) {
            Ok(slice) => {
                self.block.order.push(self.plan.arms);
                self.block.floor.push((cycle, slice));
            }
            Err(reason) => self.block.floor_fault = Some(reason),
        }
        let span_ns = self.arms.now_ns().saturating_sub(start_ns);
        let used = self.cpu_ns_since(&cpu_before);
        for (arm, used) in self.block.arms.iter_mut().zip(used) {
            arm.rested(used, span_ns);
        }
    }

    /// The CPU clocks of all arms.
    fn cpu_ns(&mut self) -> Vec<Option<u64>> {
        (0..self.plan.arms)
            .map(|arm| self.arms.cpu_ns(arm))
            .collect()
    }

    /// What all arms used since `before`.
    fn cpu_ns_since(&mut self, before: &[Option<u64>]) -> Vec<Option<u64>> {
        let now = self.cpu_ns();
        now.into_iter()
            .zip(before)
            .map(|(now, before)| used(now, *before))
            .collect()
    }

    /// One stretch of load.
    fn drive(&mut self, arm: usize, ramp: Duration, length: Duration) -> Result<Stretch, End> {
        let outcome = self.client.drive(arm, ramp, length);
        clean(self.arms, arm, outcome)
    }
}

/// Starts the server of an arm and opens its connections.
pub(crate) fn start_afresh(
    client: &mut impl Client,
    arms: &mut impl Arms,
    index: usize,
    arm: usize,
) -> Result<(), String> {
    let address = arms.start(index, arm)?;
    client
        .open(arm, address)
        .map_err(|reason| match arms.ended_after(arm, false) {
            Some(ended) => format!("{ended} ({reason})"),
            None => reason,
        })
}

/// Anything but a clean stretch ends the block, for what follows could not be compared.
pub(crate) fn clean(
    arms: &mut impl Arms,
    arm: usize,
    outcome: Result<Stretch, String>,
) -> Result<Stretch, End> {
    let unspoilt = outcome
        .as_ref()
        .is_ok_and(|stretch| stretch.faults.is_empty());
    if let Some(ended) = arms.ended_after(arm, unspoilt) {
        return Err(invalid(arm, ended));
    }
    let stretch = outcome.map_err(|reason| invalid(arm, reason))?;
    if let Some(wrong) = stretch.wrong {
        let reason = format!("sent back something else than it got: {wrong}");
        return Err(End::Abort(Abort::WrongBytes(Fault { arm, reason })));
    }
    if stretch.faults.is_empty() {
        return Ok(stretch);
    }
    let kinds: Vec<String> = stretch
        .faults
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    Err(invalid(
        arm,
        format!("lost or spoilt messages: {}", kinds.join(", ")),
    ))
}

/// The slice of a block: long enough for the slowest arm to answer every message in flight many times over.
fn slice_length(plan: &SlicePlan, slowest_per_s: f64) -> Duration {
    plan.slice_min
        .max(turns(plan.in_flight, TURNS_A_SLICE, slowest_per_s))
}

/// The time that an arm of this rate needs to answer all messages in flight `count` times.
pub(crate) fn turns(in_flight: u64, count: f64, rate_per_s: f64) -> Duration {
    Duration::from_secs_f64(count * in_flight as f64 / rate_per_s)
}

#[cfg(test)]
mod tests;
