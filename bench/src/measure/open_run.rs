//! One open-loop run on a server that listens already: the load generator's whole run with its verdict, as the sweep
//! and the search for a rate see it. Behind a trait, so that both are tested without load.

use std::net::SocketAddr;

use hdrhistogram::Histogram;

use echometer_host::signals::Stop;
use echometer_loadgen::{Plan, Target, run::run, verdict::Verdict};

use crate::measure::{
    block::{ArmBlock, Slice},
    reading::ServerSide,
};

/// Makes open-loop load.
pub(crate) trait OpenLoad {
    /// One run of `load` on the server at `address`, with connections of its own, from warm-up to drain.
    ///
    /// # Errors
    /// A sentence without its subject (the server's arm) that says why there are no figures at all.
    fn run(&mut self, address: SocketAddr, load: &Plan) -> Result<OpenRun, String>;
}

/// What one run gave.
#[derive(Debug, Clone)]
pub(crate) struct OpenRun {
    /// Whether it can be believed; what is wrong with it.
    pub verdict: Verdict,
    /// Latency from the due time, ns; unanswered messages are in it at the time that they had waited.
    pub latency: Histogram<u64>,
    /// Latencies from here on, ns, are lower bounds: of messages without an answer. `None` where all had one.
    pub censored_from_ns: Option<u64>,
    /// Messages really due, a second.
    pub offered_per_s: f64,
    /// Replies in the window, a second.
    pub rate_per_s: f64,
    /// Messages answered in the window.
    pub answered: u64,
    /// The window's length, ns.
    pub window_ns: u64,
    /// All messages answered, warm-up and drain included.
    pub messages: u64,
    /// CPU time of the client a message, ns.
    pub client_cpu_ns_per_message: Option<f64>,
    /// The share of the window in which the client's busiest thread had work, 0..1.
    pub client_busiest: f64,
    /// The share of the window in which it waited for its cpu.
    pub client_run_delay: f64,
    /// Whether a request to stop ended it.
    pub cut_short: bool,
}

/// The load generator.
#[derive(Debug, Clone)]
pub(crate) struct Loadgen {
    /// A request on it ends a run early.
    pub stop: Stop,
}

impl OpenLoad for Loadgen {
    fn run(&mut self, address: SocketAddr, load: &Plan) -> Result<OpenRun, String> {
        let run = run(load, &Target::from(address), None, &self.stop, &mut |_| {})
            .map_err(|error| format!("could not be loaded: {error}"))?;
        if let Some(difference) = run.mismatch {
            return Err(format!(
                "sent back something else than it got: {difference}"
            ));
        }
        let end = run.file.end;
        Ok(OpenRun {
            verdict: run.file.verdict,
            latency: run.latency,
            censored_from_ns: end.latency_ns.censored_from,
            offered_per_s: end.offered_per_s.unwrap_or_default(),
            rate_per_s: end.rate_per_s,
            answered: end.answered,
            window_ns: end.window_ns,
            messages: end.life.answered,
            client_cpu_ns_per_message: end.client.cpu_ns_per_message,
            client_busiest: end.client.busiest_thread,
            client_run_delay: end.client.run_delay_ns as f64 / end.window_ns.max(1) as f64,
            cut_short: run.file.cut_short,
        })
    }
}

impl OpenRun {
    /// As a block of one slice, so that its figures are those of every other design.
    #[must_use]
    pub(crate) fn into_block(self, server: &ServerSide) -> ArmBlock {
        let client_cpu = self.client_cpu_ns_per_message.unwrap_or_default() * self.messages as f64;
        ArmBlock {
            slices: vec![Slice {
                cycle: 0,
                recorded: self.answered,
                recorded_span_ns: self.window_ns,
                messages: self.messages,
                span_ns: server.span_ns,
                server_cpu_ns: server.cpu_ns,
                client_cpu_ns: client_cpu as u64,
                client_busiest: self.client_busiest,
                client_run_delay: self.client_run_delay,
                server_cpus: server.cpus,
            }],
            runs: Vec::new(),
            latency: self.latency,
            resting_cpu_ns: None,
            resting_span_ns: 0,
            usage: server.usage,
        }
    }
}
