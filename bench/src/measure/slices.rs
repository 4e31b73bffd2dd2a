//! The slices design: one block of a comparison. Every arm is started afresh and warmed up, then the arms take turns
//! in short slices, in random order in each cycle, until each had its share. Slow drift and noisy neighbours hit all
//! arms alike, and what is left of them the median over the cycles takes away.
//!
//! Nothing here knows sockets, processes or the clock: they come in as [`Client`] and [`Arms`], and the tests run
//! whole blocks against made-up ones in no time.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use hdrhistogram::Histogram;
use rand::{Rng, seq::SliceRandom};

use echometer_loadgen::verdict::Verdict;

use crate::floor::FloorSlice;

/// The share of its resting time that an arm may spend computing while another is measured.
pub const RESTING_MAX: f64 = 0.01;
/// The fewest recorded replies an arm must have in a block: with fewer not even its median could be compared.
pub const RECORDED_MIN: u64 = 200;
/// The fewest cycles of a block, where slices had to be so long that the measured time holds fewer.
const CYCLES_MIN: u32 = 3;
/// A slice is at least as long as this many turns of every message in flight.
const TURNS_A_SLICE: f64 = 20.0;
/// Replies to this many turns of the messages in flight are the ramp, and not recorded.
pub(crate) const TURNS_A_RAMP: f64 = 2.0;
/// The floor's slice is this much shorter than a server's: it needs no ramp and has no queue.
const FLOOR_SHARE: u32 = 5;
/// But not shorter than this, where `--slice` is not.
const FLOOR_SLICE_MIN: Duration = Duration::from_millis(10);

/// A dying server's connections break a moment before its end can be seen.
const DEATH_PATIENCE: Duration = Duration::from_millis(200);

/// Makes load. Arms are numbers here, in the order of the command line.
pub trait Client {
    /// Opens the connections of an arm and keeps them.
    ///
    /// # Errors
    /// A sentence that says why not.
    fn open(&mut self, arm: usize, address: SocketAddr) -> Result<(), String>;

    /// One stretch of load on the connections of an arm; on return nothing is in flight.
    ///
    /// It starts with as many writes as may be in flight. Replies within `ramp` of the start are not recorded, nor
    /// those after `length`, when nothing new is sent.
    ///
    /// # Errors
    /// A sentence that says why there are no figures at all; lost messages are in [`Stretch::faults`] instead.
    fn drive(&mut self, arm: usize, ramp: Duration, length: Duration) -> Result<Stretch, String>;

    /// One whole run on the connections of an arm: as [`Client::drive`], but what belongs to it goes by when messages
    /// were due or written and not by when they were answered, and it is judged like a run of the load generator.
    ///
    /// # Errors
    /// As [`Client::drive`]. An open loop that its server did not keep up with is no fault, but judged so.
    fn run(&mut self, arm: usize, ramp: Duration, length: Duration) -> Result<WholeRun, String>;

    /// Closes the connections of an arm, if there are any.
    fn close(&mut self, arm: usize);

    /// One slice of the load that needs no server: what an echo costs the kernel. Asked for only where the plan has a
    /// floor.
    ///
    /// # Errors
    /// A sentence that says why there is none.
    fn floor(&mut self, length: Duration) -> Result<FloorSlice, String>;
}

/// Starts, watches and stops what serves; and tells the time.
pub trait Arms {
    /// Starts the server of an arm afresh, waits until it echoes and says where it listens.
    ///
    /// # Errors
    /// A sentence that says what it did instead.
    fn start(&mut self, block: usize, arm: usize) -> Result<SocketAddr, String>;

    /// `None` while the server lives, else a sentence that says how it ended. Waits up to `patience` for the end of a
    /// server whose connections have just been seen to break.
    fn ended(&mut self, arm: usize, patience: Duration) -> Option<String>;

    /// CPU time that the server and its descendants have used since they were started, in ns. `None` where it can't
    /// be read: a server on another machine.
    fn cpu_ns(&mut self, arm: usize) -> Option<u64>;

    /// Context switches and memory, where they can be read.
    fn usage(&mut self, arm: usize) -> Option<Usage>;

    /// How busy the cpus that the servers run on have been since boot.
    fn server_cpus(&mut self) -> CpuTimes;

    /// Stops the server of an arm, if it runs.
    fn stop(&mut self, arm: usize);

    /// How the server of an arm was started last; `None` if it never was.
    fn started(&self, arm: usize) -> Option<Started>;

    /// A clock that never goes back, in ns.
    fn now_ns(&mut self) -> u64;
}

/// What one stretch of load gave.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// Latency of the recorded messages, in ns.
    pub latency: Histogram<u64>,
    /// Replies between ramp and stop.
    pub recorded: u64,
    /// The time between these two instants, in ns.
    pub recorded_span_ns: u64,
    /// All messages answered, those of the ramp and of the drain too.
    pub messages: u64,
    /// What went wrong, counted by kind; messages lost and unanswered are kinds too. Empty when all is well.
    pub faults: BTreeMap<String, u64>,
    /// The first byte that came back wrong, where bytes are compared: connection, offset, expected and got.
    pub wrong: Option<String>,
    /// CPU time of the client's worker threads, in ns.
    pub client_cpu_ns: u64,
    /// The share of the time in which the client's busiest thread had work, 0..1.
    pub client_busiest: f64,
    /// What disturbed the client without making the figures wrong: shares of the stretch, 0..1.
    pub client_run_delay: f64,
}

/// What one whole run gave.
#[derive(Debug, Clone)]
pub struct WholeRun {
    /// Its figures.
    pub stretch: Stretch,
    /// What is known only of a whole run.
    pub judged: Judged,
}

/// How a whole run is to be taken.
#[derive(Debug, Clone)]
pub struct Judged {
    /// What the load generator would say of it.
    pub verdict: Verdict,
    /// Messages due a second; `None` in closed loop.
    pub offered_per_s: Option<f64>,
    /// From where on the latencies are lower bounds, because messages had no answer, in ns.
    pub censored_from_ns: Option<u64>,
}

/// How a server was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The command line; `None` for a server that was running already.
    pub command: Option<String>,
    /// What it said when it was ready; foreign servers say nothing that we know of.
    pub ready_line: Option<String>,
}

/// Of a server process and its descendants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Voluntary and involuntary together, since the start.
    pub context_switches: u64,
    /// Resident memory now, in bytes.
    pub rss_bytes: u64,
}

/// Times of a set of cpus added up, in ns since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTimes {
    /// Everything but idle and waiting for I/O.
    pub busy_ns: u64,
    /// The part of it in soft interrupts.
    pub softirq_ns: u64,
    /// The part that the hypervisor took.
    pub steal_ns: u64,
}

/// How a block is to be run.
#[derive(Debug, Clone, PartialEq)]
pub struct SlicePlan {
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

/// What happens next; for whoever shows progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A server is started.
    Start {
        /// Which.
        arm: usize,
    },
    /// An arm is warmed up.
    Warm {
        /// Which.
        arm: usize,
    },
    /// An arm has its slice.
    Slice {
        /// Which.
        arm: usize,
        /// How many slices of all arms this block has had.
        done: u32,
        /// How many it will have.
        total: u32,
    },
    /// The floor has its slice.
    Floor,
}

/// One block: every slice of every arm.
#[derive(Debug, Clone)]
pub struct Block {
    /// Why its figures can't be used; empty for a valid block.
    pub faults: Vec<Fault>,
    /// Whether a request to stop ended it.
    pub cut_short: bool,
    /// Arms in the order of their slices; a number beyond the last arm's is the floor.
    pub order: Vec<usize>,
    /// How long a slice was; zero where it did not come to that.
    pub slice: Duration,
    /// In the order of the command line.
    pub arms: Vec<ArmBlock>,
    /// The floor's slices, each with its cycle; none where the plan has none.
    pub floor: Vec<(u32, FloorSlice)>,
    /// Why the floor's slices ended early. That takes nothing from the arms.
    pub floor_fault: Option<String>,
}

/// One arm's part of a block.
#[derive(Debug, Clone)]
pub struct ArmBlock {
    /// One a cycle; in the runs design one a run.
    pub slices: Vec<Slice>,
    /// The runs themselves; none in the slices design.
    pub runs: Vec<WholeRun>,
    /// Latency over all slices, in ns.
    pub latency: Histogram<u64>,
    /// CPU time used while others were measured, in ns; `None` where it can't be read.
    pub resting_cpu_ns: Option<u64>,
    /// How long others were measured, in ns.
    pub resting_span_ns: u64,
    /// Context switches over the measured part and memory at its end.
    pub usage: Option<Usage>,
}

/// One slice of one arm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slice {
    /// Counted from 0.
    pub cycle: u32,
    /// Replies between ramp and stop.
    pub recorded: u64,
    /// The time between these, in ns.
    pub recorded_span_ns: u64,
    /// All messages of the slice.
    pub messages: u64,
    /// The whole slice with ramp and drain, in ns.
    pub span_ns: u64,
    /// CPU time of the server over the whole slice, in ns; `None` where it can't be read.
    pub server_cpu_ns: Option<u64>,
    /// CPU time of the client over the whole slice, in ns.
    pub client_cpu_ns: u64,
    /// As in [`Stretch`].
    pub client_busiest: f64,
    /// As in [`Stretch`].
    pub client_run_delay: f64,
    /// What the servers' cpus did in this slice.
    pub server_cpus: CpuTimes,
}

/// What an arm did that makes a block useless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which.
    pub arm: usize,
    /// A sentence without its subject: "exited with status 1".
    pub reason: String,
}

/// What ends more than a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Abort {
    /// An arm could not be started, or took no connections.
    NotStarted(Fault),
    /// An arm sent back something else than it got.
    WrongBytes(Fault),
}

/// Runs one block. Whatever happens, every server is stopped and every connection closed on return.
///
/// `stop` is asked after every slice; `watch` is told what comes next.
///
/// # Errors
/// See [`Abort`]. (An arm that fails later on makes the block invalid instead.)
pub fn run_block(
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

/// Why a block ends before its time.
pub(crate) enum End {
    Abort(Abort),
    Invalid(Fault),
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
            self.block.arms[arm].usage = after.zip(before).map(|(after, before)| Usage {
                context_switches: after
                    .context_switches
                    .saturating_sub(before.context_switches),
                rss_bytes: after.rss_bytes,
            });
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

    /// Loads an arm for a while and returns its rate, in messages a second.
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
            .map(|(now, before)| Some(now?.saturating_sub((*before)?)))
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
        .map_err(|reason| match arms.ended(arm, DEATH_PATIENCE) {
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
    let patience = if unspoilt {
        Duration::ZERO
    } else {
        DEATH_PATIENCE
    };
    if let Some(ended) = arms.ended(arm, patience) {
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

pub(crate) fn invalid(arm: usize, reason: String) -> End {
    End::Invalid(Fault { arm, reason })
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

impl CpuTimes {
    /// What passed between two readings.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            busy_ns: self.busy_ns.saturating_sub(before.busy_ns),
            softirq_ns: self.softirq_ns.saturating_sub(before.softirq_ns),
            steal_ns: self.steal_ns.saturating_sub(before.steal_ns),
        }
    }
}

impl Slice {
    /// The client's side of it; the server's is left at nothing.
    pub(crate) fn of(cycle: u32, stretch: &Stretch) -> Self {
        Self {
            cycle,
            recorded: stretch.recorded,
            recorded_span_ns: stretch.recorded_span_ns,
            messages: stretch.messages,
            span_ns: 0,
            server_cpu_ns: None,
            client_cpu_ns: stretch.client_cpu_ns,
            client_busiest: stretch.client_busiest,
            client_run_delay: stretch.client_run_delay,
            server_cpus: CpuTimes::default(),
        }
    }
}

impl Block {
    pub(crate) fn new(arms: usize) -> Self {
        let arms = (0..arms).map(|_| ArmBlock::new()).collect();
        Self {
            faults: Vec::new(),
            cut_short: false,
            order: Vec::new(),
            slice: Duration::ZERO,
            arms,
            floor: Vec::new(),
            floor_fault: None,
        }
    }
}

impl ArmBlock {
    fn new() -> Self {
        Self {
            slices: Vec::new(),
            runs: Vec::new(),
            // It grows as needed, so that adding to it can't fail.
            latency: Histogram::new(3).expect("three significant digits are allowed"),
            resting_cpu_ns: Some(0),
            resting_span_ns: 0,
            usage: None,
        }
    }

    /// Latencies of one more stretch. All histograms here have the same bounds and digits, so nothing can fall outside.
    pub(crate) fn add(&mut self, latency: &Histogram<u64>) {
        self.latency
            .add(latency)
            .expect("histograms of one kind can be added");
    }

    /// Others were measured for `span_ns`, and meanwhile it used `cpu_ns`, if that can be read.
    fn rested(&mut self, cpu_ns: Option<u64>, span_ns: u64) {
        self.resting_cpu_ns = self
            .resting_cpu_ns
            .zip(cpu_ns)
            .map(|(sum, used)| sum + used);
        self.resting_span_ns += span_ns;
    }

    /// The share of its resting time that it spent computing; `None` where that can't be read.
    #[must_use]
    pub fn resting_share(&self) -> Option<f64> {
        Some(self.resting_cpu_ns? as f64 / self.resting_span_ns.max(1) as f64)
    }

    /// Why the arm's part of a finished block can't be compared, if so.
    pub(crate) fn unusable(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let recorded: u64 = self.slices.iter().map(|slice| slice.recorded).sum();
        let silent = self
            .slices
            .iter()
            .filter(|slice| slice.recorded == 0)
            .count();
        if recorded < RECORDED_MIN || self.slices.len() < 2 * silent {
            reasons.push(format!(
                "too few messages: {recorded} recorded, {silent} of {} slices without any (raise -d or --slice)",
                self.slices.len(),
            ));
        }
        if let Some(share) = self.resting_share().filter(|&share| RESTING_MAX < share) {
            reasons.push(format!(
                "used {:.1} % of a cpu while it rested and others were measured (at most {:.0} %): it can't be \
                 compared in slices (`compare --design runs` can)",
                share * 100.0,
                RESTING_MAX * 100.0,
            ));
        }
        reasons
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;
