//! The two sides of a measurement: what makes load and what serves, as traits, and what they tell. A made-up world stands
//! behind them in tests.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use hdrhistogram::Histogram;

use echometer_loadgen::{OpenLoop, verdict::Verdict};

use crate::measure::floor::FloorSlice;

/// How long the end of a server is waited for whose connections have just broken.
const DEATH_PATIENCE: Duration = Duration::from_millis(200);

/// Makes load. Arms are numbers here, in the order of the command line.
pub(crate) trait Client {
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

    /// One slice of an open loop on the connections of an arm: first a greeting to each connection, then the schedule. What
    /// is due between `ramp` and `stop` is recorded until it is answered, and only then this returns.
    ///
    /// # Errors
    /// As [`Client::drive`].
    fn open_slice(&mut self, arm: usize, slice: &OpenSlice) -> Result<Stretch, String>;

    /// Lets time pass, with nothing in flight.
    fn pause(&mut self, length: Duration);

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
pub(crate) trait Arms {
    /// Starts the server of an arm afresh, waits until it echoes and says where it listens.
    ///
    /// # Errors
    /// A sentence that says what it did instead.
    fn start(&mut self, block: usize, arm: usize) -> Result<SocketAddr, String>;

    /// `None` while the server lives, else a sentence that says how it ended. Waits up to `patience` for the end of a
    /// server whose connections have just been seen to break.
    fn ended(&mut self, arm: usize, patience: Duration) -> Option<String>;

    /// As [`Arms::ended`] after load that went well or not: a dying server's connections break a moment before its end can
    /// be seen.
    fn ended_after(&mut self, arm: usize, went_well: bool) -> Option<String> {
        let patience = match went_well {
            true => Duration::ZERO,
            false => DEATH_PATIENCE,
        };
        self.ended(arm, patience)
    }

    /// CPU time that the server and its descendants have used since they were started, in ns. `None` where it can't
    /// be read: a server on another machine.
    fn cpu_ns(&mut self, arm: usize) -> Option<u64>;

    /// The same of each living thread, by its number; as if there were one, where they can't be told apart.
    fn thread_cpu_ns(&mut self, arm: usize) -> BTreeMap<u32, u64> {
        self.cpu_ns(arm).map(|ns| (0, ns)).into_iter().collect()
    }

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

/// The instants of one slice of an open loop, from its start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct OpenSlice {
    /// Messages due per second; above 0.
    pub rate_per_s: f64,
    /// Until then each connection has had one message.
    pub greeting: Duration,
    /// What is due from here on is recorded.
    pub ramp: Duration,
    /// Nothing is due from here on.
    pub stop: Duration,
}

/// What one stretch of load gave.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    /// Latency of the recorded messages, in ns.
    pub latency: Histogram<u64>,
    /// Its parts; only an open loop has them.
    pub open: Option<OpenLoop>,
    /// Open loop: why the server did not keep up; empty if it did, or where nobody looked.
    pub overload: Vec<String>,
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
    /// CPU time of the client's worker threads, in ns; `None` where it can't be told from their spinning.
    pub client_cpu_ns: Option<u64>,
    /// The share of the time in which the client's busiest thread had work, 0..1.
    pub client_busiest: f64,
    /// What disturbed the client without making the figures wrong: shares of the stretch, 0..1.
    pub client_run_delay: f64,
}

/// What one whole run gave.
#[derive(Debug, Clone)]
pub(crate) struct WholeRun {
    /// Its figures.
    pub stretch: Stretch,
    /// What is known only of a whole run.
    pub judged: Judged,
    /// Whether a request to stop ended it, where the one who made it knows.
    pub cut_short: bool,
}

impl WholeRun {
    /// Replies in the window, per second.
    pub(crate) fn rate_per_s(&self) -> f64 {
        let Stretch {
            recorded,
            recorded_span_ns,
            ..
        } = self.stretch;
        recorded as f64 * 1e9 / recorded_span_ns.max(1) as f64
    }
}

/// How a whole run is to be taken.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    /// What the load generator would say of it.
    pub verdict: Verdict,
    /// Messages due per second; `None` in closed loop.
    pub offered_per_s: Option<f64>,
    /// From where on the latencies are lower bounds, because messages had no answer, in ns.
    pub censored_from_ns: Option<u64>,
}

/// How a server was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    /// The command line; `None` for a server that was running already.
    pub command: Option<String>,
    /// What it said when it was ready; foreign servers say nothing that we know of.
    pub ready_line: Option<String>,
    /// What is to be known of it besides, each a clause whose subject is the arm: that its CPU time is unknown, that it
    /// was left behind.
    pub remarks: Vec<String>,
}

/// What is to be known of servers besides, in sentences: their names are the subjects.
pub(crate) fn remarks<'a>(
    names: &'a [String],
    started: &'a [Option<Started>],
) -> impl Iterator<Item = String> + 'a {
    names.iter().zip(started).flat_map(|(name, started)| {
        let remarks = started.iter().flat_map(|started| &started.remarks);
        remarks.map(move |remark| format!("{name} {remark}"))
    })
}

/// Of a server process and its descendants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Voluntary and involuntary together, since the start.
    pub context_switches: u64,
    /// Resident memory now, in bytes.
    pub rss_bytes: u64,
}

/// Times of a set of cpus added up, in ns since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CpuTimes {
    /// Everything but idle and waiting for I/O.
    pub busy_ns: u64,
    /// The part of it in soft interrupts.
    pub softirq_ns: u64,
    /// The part that the hypervisor took.
    pub steal_ns: u64,
}
