//! One open-loop run on a server that listens already: the load generator's whole run with its verdict, as the sweep
//! and the search for a rate see it. Behind a trait, so that both are tested without load.

use std::{collections::BTreeMap, net::SocketAddr};

use echometer_host::{
    priority::{Priority, raised},
    signals::Stop,
};
use echometer_loadgen::{Plan, Target, run::run};

use crate::measure::{
    priority::client_priority,
    sides::{Judged, Stretch, WholeRun},
};

/// Makes open-loop load.
pub(crate) trait OpenLoad {
    /// One run of `load` on the server at `address`, with connections of its own, from warm-up to drain.
    ///
    /// # Errors
    /// A sentence without its subject (the server's arm) that says why there are no figures at all.
    fn run(&mut self, address: SocketAddr, load: &Plan) -> Result<WholeRun, String>;
}

/// The load generator.
#[derive(Debug, Clone)]
pub(crate) struct Loadgen {
    /// A request on it ends a run early.
    pub stop: Stop,
    /// How far servers are raised, and the client where it may be: see [`client_priority`].
    pub priority: Priority,
}

impl OpenLoad for Loadgen {
    fn run(&mut self, address: SocketAddr, load: &Plan) -> Result<WholeRun, String> {
        let priority = client_priority(self.priority, load);
        let target = Target::from(address);
        let run = raised(priority, || {
            run(load, &target, None, &self.stop, &mut |_| {})
        })
        .map_err(|error| format!("has no client: {error}"))?
        .map_err(|error| format!("could not be loaded: {error}"))?;
        if let Some(difference) = run.mismatch {
            return Err(format!(
                "sent back something else than it got: {difference}"
            ));
        }
        let end = run.file.end;
        let client_cpu_a_message = end.client.cpu_ns_per_message;
        Ok(WholeRun {
            stretch: Stretch {
                latency: run.latency,
                open: run.open,
                overload: Vec::new(),
                recorded: end.answered,
                recorded_span_ns: end.window_ns,
                messages: end.life.answered,
                // What is lost is in the verdict, and in the latencies.
                faults: BTreeMap::new(),
                wrong: None,
                client_cpu_ns: client_cpu_a_message
                    .map(|cpu_ns| (cpu_ns * end.life.answered as f64) as u64),
                client_busiest: end.client.busiest_thread,
                client_run_delay: end.client.run_delay_ns as f64 / end.window_ns.max(1) as f64,
            },
            judged: Judged {
                verdict: run.file.verdict,
                offered_per_s: end.offered_per_s,
                censored_from_ns: end.latency_ns.censored_from,
            },
            cut_short: run.file.cut_short,
        })
    }
}
