//! One block as data: every slice or run of every arm, and why they can't be used, if so.

use std::time::Duration;

use hdrhistogram::Histogram;

use echometer_host::units::counted;
use echometer_loadgen::OpenLoop;

use crate::measure::{
    floor::FloorSlice,
    reading::{Passed, ServerSide},
    sides::{CpuTimes, Stretch, Usage, WholeRun},
};

/// What happens next; for whoever shows progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
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
pub(crate) struct Block {
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
pub(crate) struct ArmBlock {
    /// One per cycle; in the runs design one per run.
    pub slices: Vec<Slice>,
    /// The runs themselves; none in the slices design.
    pub runs: Vec<WholeRun>,
    /// Latency over all slices, in ns.
    pub latency: Histogram<u64>,
    /// Its parts over all slices; only an open loop has them.
    pub open: Option<OpenLoop>,
    /// Why the server did not keep up in the first slice in which it did not.
    pub overload: Option<String>,
    /// CPU time used while others were measured, in ns; `None` where it can't be read.
    pub resting_cpu_ns: Option<u64>,
    /// How long others were measured, in ns.
    pub resting_span_ns: u64,
    /// Context switches over the measured part and memory at its end.
    pub usage: Option<Usage>,
}

/// One slice of one arm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slice {
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
    /// As in [`Stretch`].
    pub client_cpu_ns: Option<u64>,
    /// As in [`Stretch`].
    pub client_busiest: f64,
    /// As in [`Stretch`].
    pub client_run_delay: f64,
    /// What the servers' cpus did in this slice.
    pub server_cpus: CpuTimes,
    /// Open loop: the server did not keep up with what was due.
    pub overloaded: bool,
}

/// What an arm did that makes a block useless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Which.
    pub arm: usize,
    /// A sentence without its subject: "exited with status 1".
    pub reason: String,
}

/// What ends more than a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Abort {
    /// An arm could not be started, took no connections, or is not fit for its priority.
    NotStarted(Fault),
    /// An arm sent back something else than it got.
    WrongBytes(Fault),
    /// An arm is too slow for slices of an open loop: whole runs are needed.
    TooSlow(Fault),
}

/// Why a block ends before its time.
pub(crate) enum End {
    Abort(Abort),
    Invalid(Fault),
}

/// The share of its resting time that an arm may spend computing while another is measured.
pub(crate) const RESTING_MAX: f64 = 0.01;

/// The fewest recorded replies an arm must have in a block: with fewer not even its median could be compared.
pub(crate) const RECORDED_MIN: u64 = 200;

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
            overloaded: !stretch.overload.is_empty(),
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

    /// The block as it came out.
    ///
    /// # Errors
    /// What ends more than a block.
    pub(crate) fn ended(mut self, outcome: Result<(), End>) -> Result<Self, Abort> {
        match outcome {
            Ok(()) => Ok(self),
            Err(End::Abort(abort)) => Err(abort),
            Err(End::Invalid(fault)) => {
                self.faults.push(fault);
                Ok(self)
            }
        }
    }

    /// All slices are done: notes what of them can't be compared.
    pub(crate) fn note_unusable(&mut self) {
        for (arm, figures) in self.arms.iter().enumerate() {
            let reasons = figures.unusable().into_iter();
            self.faults
                .extend(reasons.map(|reason| Fault { arm, reason }));
        }
    }
}

impl ArmBlock {
    /// A whole run as an arm with one slice, so that its figures are those of every other design.
    #[must_use]
    pub(crate) fn of_run(run: WholeRun, server: &ServerSide) -> Self {
        Self {
            slices: vec![Slice {
                span_ns: server.span_ns,
                server_cpu_ns: server.cpu_ns,
                server_cpus: server.cpus,
                ..Slice::of(0, &run.stretch)
            }],
            runs: Vec::new(),
            latency: run.stretch.latency,
            open: run.stretch.open,
            overload: None,
            resting_cpu_ns: None,
            resting_span_ns: 0,
            usage: server.usage,
        }
    }

    fn new() -> Self {
        Self {
            slices: Vec::new(),
            runs: Vec::new(),
            // It grows as needed, so that adding to it can't fail.
            latency: Histogram::new(3).expect("three significant digits are allowed"),
            open: None,
            overload: None,
            resting_cpu_ns: Some(0),
            resting_span_ns: 0,
            usage: None,
        }
    }

    /// The latencies of one more stretch, and whether its server kept up. All histograms here have the same bounds and
    /// digits, so nothing can fall outside.
    pub(crate) fn add(&mut self, stretch: &Stretch) {
        self.latency
            .add(&stretch.latency)
            .expect("histograms of one kind can be added");
        if let Some(open) = &stretch.open {
            self.open.get_or_insert_default().add(open);
        }
        if self.overload.is_none() {
            self.overload = stretch.overload.first().cloned();
        }
    }

    /// It had a slice of that cycle.
    pub(crate) fn measured(&mut self, cycle: u32, stretch: &Stretch, passed: &Passed, arm: usize) {
        self.add(stretch);
        self.slices.push(Slice {
            span_ns: passed.span_ns,
            server_cpu_ns: passed.cpu_ns[arm],
            server_cpus: passed.cpus,
            ..Slice::of(cycle, stretch)
        });
    }

    /// Others were measured for `span_ns`, and meanwhile it used `cpu_ns`, if that can be read.
    pub(crate) fn rested(&mut self, cpu_ns: Option<u64>, span_ns: u64) {
        self.resting_cpu_ns = self
            .resting_cpu_ns
            .zip(cpu_ns)
            .map(|(sum, used)| sum + used);
        self.resting_span_ns += span_ns;
    }

    /// The share of its resting time that it spent computing; `None` where that can't be read.
    #[must_use]
    pub(crate) fn resting_share(&self) -> Option<f64> {
        // Without a rest nobody has seen it rest.
        let span_ns = Some(self.resting_span_ns).filter(|&span_ns| span_ns != 0)?;
        Some(self.resting_cpu_ns? as f64 / span_ns as f64)
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
                "too few messages: {recorded} recorded, {silent} of {} without any (raise -d or --slice)",
                counted(self.slices.len() as u64, "slice"),
            ));
        }
        if let Some(restless) = self.restless() {
            reasons.push(format!(
                "{restless}: it can't be compared in slices (`compare --design runs` can)"
            ));
        }
        reasons
    }

    /// Says that it computed more than it may while others were measured.
    pub(crate) fn restless(&self) -> Option<String> {
        let share = self.resting_share().filter(|&share| RESTING_MAX < share)?;
        Some(format!(
            "used {:.1} % of a cpu while it rested and others were measured (at most {:.0} %)",
            share * 100.0,
            RESTING_MAX * 100.0,
        ))
    }
}

pub(crate) fn invalid(arm: usize, reason: String) -> End {
    End::Invalid(Fault { arm, reason })
}
