//! The slices design: one block of a comparison. Every arm is started afresh and warmed up, then the arms take turns
//! in short slices, in random order in each cycle, until each had its share. Slow drift and noisy neighbours hit all
//! arms alike, and what is left of them the median over the cycles takes away.
//!
//! In an open loop a slice is long enough for its quantile, each is of another length and begins after a pause of another
//! length, so that no period of a server or a timer locks to the cycle. It begins with a message to each connection and
//! a stretch of the schedule that is not recorded, and ends when all that was due in it is answered. Where a server's
//! latencies are too long for the longest slice, the comparison is told to go to whole runs.
//!
//! Nothing here knows sockets, processes or the clock: they come in as [`Client`] and [`Arms`], and the tests run
//! whole blocks against made-up ones in no time.

use std::time::Duration;

use echometer_host::units::show_ns;
use rand::{Rng, seq::SliceRandom};

use crate::measure::{
    block::{Abort, Block, End, Fault, Step, invalid},
    priority::{Began, RealTime},
    reading::Clocks,
    sides::{Arms, Client, OpenSlice, Stretch, Usage},
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

/// A slice of an open loop is so many times as long as the p99 of its slowest arm, so that few messages reach over its
/// ends.
const P99S_A_SLICE: u32 = 100;
/// But not longer than this: then the other arms would wait too long, and nothing would be interleaved.
pub(crate) const OPEN_SLICE_MAX: Duration = Duration::from_secs(2);
/// By so much of its length a slice of an open loop is longer or shorter than planned.
const LENGTH_SPREAD: f64 = 0.25;
/// The longest pause before a slice of an open loop.
pub(crate) const PAUSE_MAX: Duration = Duration::from_millis(100);
/// The schedule runs for so long before an open loop's slice is recorded.
pub(crate) const OPEN_RAMP: Duration = Duration::from_millis(50);
/// Each connection has had its first message of a slice by then, however many there are.
const GREETING_MAX: Duration = Duration::from_millis(100);

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
    /// Who runs at real-time priority, if anybody does: arms that are not fit for it are refused in the first block.
    pub real_time: Option<RealTime>,
    /// Messages are due at instants of their own, whatever the server does.
    pub open: Option<OpenSlices>,
}

/// What slices of an open loop are made by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct OpenSlices {
    /// Messages per second; above 0.
    pub rate_per_s: f64,
    /// So many messages a slice has, where that takes no longer than [`OPEN_SLICE_MAX`].
    pub messages: u64,
    /// Whether an arm whose latencies are too long for slices ends the block with [`Abort::TooSlow`]; else its slices are as
    /// long as they may be.
    pub gives_way: bool,
}

impl OpenSlice {
    /// A slice of about this length at a rate (above 0), begun by a message to each connection.
    pub(crate) fn about(
        length: Duration,
        rate_per_s: f64,
        connections: u64,
        random: &mut impl Rng,
    ) -> Self {
        let greeting = Duration::from_secs_f64(connections as f64 / rate_per_s).min(GREETING_MAX);
        let ramp = greeting + OPEN_RAMP;
        let spread = random.random_range(1.0 - LENGTH_SPREAD..=1.0 + LENGTH_SPREAD);
        Self {
            rate_per_s,
            greeting,
            ramp,
            stop: ramp + length.mul_f64(spread),
        }
    }
}

/// The pause before a slice of an open loop, of another length each time.
pub(crate) fn pause(random: &mut impl Rng) -> Duration {
    random.random_range(Duration::ZERO..=PAUSE_MAX)
}

/// What the warm-up shows of an arm.
struct Warmed {
    /// Messages per second; 0 where an open loop had none due.
    rate_per_s: f64,
    p99: Duration,
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
    run.block.ended(outcome)
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
        let mut warmed: Vec<(usize, Warmed)> = Vec::new();
        for &arm in &order {
            if self.asked_to_stop() {
                return Ok(());
            }
            (self.watch)(Step::Warm { arm });
            warmed.push((arm, self.warm(index, arm)?));
        }
        if index == 1 {
            for (arm, warmed) in &warmed {
                self.fits(*arm, warmed.p99, "in its warm-up")?;
            }
        }
        let length = slice_length(self.plan, &warmed);
        self.block.slice = length;
        let mut ramps = vec![Duration::ZERO; self.plan.arms];
        for (arm, warmed) in &warmed {
            let ramp = turns(self.plan.in_flight, TURNS_A_RAMP, warmed.rate_per_s);
            ramps[*arm] = ramp.min(length / 2);
        }

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
                let turn = match self.plan.open {
                    None => Turn::Closed {
                        ramp: ramps[arm],
                        length,
                    },
                    Some(open) => {
                        self.client.pause(pause(random));
                        Turn::Open(self.open_slice(&open, length, random))
                    }
                };
                self.slice(cycle, arm, turn)?;
            }
        }
        if index == 1 && self.plan.open.is_some() {
            for arm in 0..self.plan.arms {
                let p99_ns = self.block.arms[arm].latency.value_at_quantile(0.99);
                self.fits(arm, Duration::from_nanos(p99_ns), "in the first block")?;
            }
        }
        for (arm, before) in usage_before.into_iter().enumerate() {
            let after = self.arms.usage(arm);
            self.block.arms[arm].usage = after
                .zip(before)
                .map(|(after, before)| after.since(&before));
        }
        self.block.note_unusable();
        Ok(())
    }

    fn asked_to_stop(&mut self) -> bool {
        self.block.cut_short = (self.stop)();
        self.block.cut_short
    }

    /// Loads an arm for a while.
    fn warm(&mut self, index: usize, arm: usize) -> Result<Warmed, End> {
        let length = self.plan.warmup.max(self.plan.slice_min);
        let began = Began::now(self.arms, arm);
        let stretch = self.drive(arm, Duration::ZERO, length)?;
        if let Some(real_time) = self.plan.real_time.filter(|_| index == 1)
            && let Some(reason) = began.refusal(self.arms, arm, stretch.client_busiest, real_time)
        {
            return Err(End::Abort(Abort::NotStarted(Fault { arm, reason })));
        }
        if stretch.recorded == 0 && self.plan.open.is_none() {
            return Err(invalid(
                arm,
                format!("answered nothing in its warm-up of {length:?}"),
            ));
        }
        Ok(Warmed {
            rate_per_s: stretch.recorded as f64 * 1e9 / stretch.recorded_span_ns.max(1) as f64,
            p99: Duration::from_nanos(stretch.latency.value_at_quantile(0.99)),
        })
    }

    /// Whether an arm with this p99 can be measured in slices of an open loop. A closed loop's slices are as long as its
    /// arms need.
    fn fits(&self, arm: usize, p99: Duration, when: &str) -> Result<(), End> {
        let gives_way = self.plan.open.is_some_and(|open| open.gives_way);
        if !gives_way || p99 * P99S_A_SLICE <= OPEN_SLICE_MAX {
            return Ok(());
        }
        let reason = format!(
            "had a p99 of {} {when}: slices of at most {} s are too short for that",
            show_ns(p99.as_nanos() as u64),
            OPEN_SLICE_MAX.as_secs(),
        );
        Err(End::Abort(Abort::TooSlow(Fault { arm, reason })))
    }

    /// A slice of about this length.
    fn open_slice(&self, open: &OpenSlices, length: Duration, random: &mut impl Rng) -> OpenSlice {
        OpenSlice::about(length, open.rate_per_s, self.plan.in_flight, random)
    }

    fn slice(&mut self, cycle: u32, arm: usize, turn: Turn) -> Result<(), End> {
        let clocks = Clocks::read(self.arms, self.plan.arms);
        let stretch = match turn {
            Turn::Closed { ramp, length } => self.drive(arm, ramp, length)?,
            Turn::Open(slice) => {
                let outcome = self.client.open_slice(arm, &slice);
                clean(self.arms, arm, outcome)?
            }
        };
        let passed = clocks.passed(self.arms);
        for resting in (0..self.plan.arms).filter(|&other| other != arm) {
            self.block.arms[resting].rested(passed.cpu_ns[resting], passed.span_ns);
        }
        self.block.arms[arm].measured(cycle, &stretch, &passed, arm);
        Ok(())
    }

    /// The floor's turn: every arm rests.
    fn floor_slice(&mut self, cycle: u32, length: Duration) {
        if self.block.floor_fault.is_some() {
            return;
        }
        (self.watch)(Step::Floor);
        let clocks = Clocks::read(self.arms, self.plan.arms);
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
        let passed = clocks.passed(self.arms);
        for (arm, used) in self.block.arms.iter_mut().zip(passed.cpu_ns) {
            arm.rested(used, passed.span_ns);
        }
    }

    /// One stretch of load.
    fn drive(&mut self, arm: usize, ramp: Duration, length: Duration) -> Result<Stretch, End> {
        let outcome = self.client.drive(arm, ramp, length);
        clean(self.arms, arm, outcome)
    }
}

/// One slice of an arm.
#[derive(Clone, Copy)]
enum Turn {
    Closed { ramp: Duration, length: Duration },
    Open(OpenSlice),
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

/// The slice of a block. Closed loop: long enough for the slowest arm to answer every message in flight many times over.
/// Open loop: for the quantile that decides, and a multiple of the slowest arm's p99, within bounds.
fn slice_length(plan: &SlicePlan, warmed: &[(usize, Warmed)]) -> Duration {
    let warmed = warmed.iter().map(|(_, warmed)| warmed);
    let Some(open) = plan.open else {
        let rates = warmed.map(|warmed| warmed.rate_per_s);
        let slowest_per_s = rates.fold(f64::INFINITY, f64::min);
        return plan
            .slice_min
            .max(turns(plan.in_flight, TURNS_A_SLICE, slowest_per_s));
    };
    let p99 = warmed.map(|warmed| warmed.p99).max().unwrap_or_default();
    let messages_s = open.messages as f64 / open.rate_per_s;
    plan.slice_min.max(
        Duration::from_secs_f64(messages_s.min(OPEN_SLICE_MAX.as_secs_f64()))
            .max(p99 * P99S_A_SLICE)
            .min(OPEN_SLICE_MAX),
    )
}

/// The time that an arm of this rate needs to answer all messages in flight `count` times.
pub(crate) fn turns(in_flight: u64, count: f64, rate_per_s: f64) -> Duration {
    Duration::from_secs_f64(count * in_flight as f64 / rate_per_s)
}

#[cfg(test)]
mod open_tests;
#[cfg(test)]
mod tests;
