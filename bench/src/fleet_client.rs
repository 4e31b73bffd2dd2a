//! The load generator's fleet, as the slices see it: one session an arm, all on the same worker threads, one of them
//! driven at a time.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use echometer_loadgen::{Fleet, Membership, Phase, SessionId, Target, run::GIVE_UP_AFTER};

use crate::{
    floor::{Floor, FloorSlice},
    slices::{Client, Stretch},
};

/// The client side of a comparison.
pub struct FleetClient {
    fleet: Fleet,
    sessions: Vec<Option<SessionId>>,
    floor: Option<Floor>,
}

impl FleetClient {
    /// A client for `arms` arms, connected to none.
    #[must_use]
    pub fn new(fleet: Fleet, arms: usize) -> Self {
        Self {
            fleet,
            sessions: vec![None; arms],
            floor: None,
        }
    }

    /// The same with a floor to be measured beside the arms.
    #[must_use]
    pub fn with_floor(self, floor: Option<Floor>) -> Self {
        Self { floor, ..self }
    }
}

impl Client for FleetClient {
    fn open(&mut self, arm: usize, address: SocketAddr) -> Result<(), String> {
        let session = self
            .fleet
            .open(&Target::from(address))
            .map_err(|error| format!("took no connections: {error}"))?;
        self.sessions[arm] = Some(session);
        Ok(())
    }

    fn drive(&mut self, arm: usize, ramp: Duration, length: Duration) -> Result<Stretch, String> {
        let session = self.sessions[arm].ok_or("has no connections")?;
        let phase = Phase {
            record_after: ramp,
            stop_after: length,
            give_up_after: GIVE_UP_AFTER,
            membership: Membership::ByReply,
            intervals: None,
        };
        let tally = self
            .fleet
            .drive(session, &phase)
            .map_err(|error| format!("could not be loaded: {error}"))?;
        let mut faults: BTreeMap<String, u64> = tally
            .errors
            .iter()
            .map(|(kind, count)| (format!("connection failures ({kind})"), count))
            .collect();
        let unanswered = tally.lost + tally.outstanding;
        if 0 < unanswered {
            faults.insert("messages without an answer".to_owned(), unanswered);
        }
        Ok(Stretch {
            latency: tally.latency,
            recorded: tally.recorded,
            recorded_span_ns: tally.recorded_span_ns,
            messages: tally.messages,
            faults,
            wrong: tally.mismatch.map(|difference| difference.to_string()),
            client_cpu_ns: tally.client_cpu_ns,
            client_busiest: tally.busiest_thread,
            client_run_delay: tally.run_delay_ns as f64 / tally.recorded_span_ns.max(1) as f64,
        })
    }

    fn floor(&mut self, length: Duration) -> Result<FloorSlice, String> {
        let floor = self.floor.as_mut().ok_or("no floor was set up")?;
        floor.slice(length)
    }

    fn close(&mut self, arm: usize) {
        if let Some(session) = self.sessions[arm].take() {
            self.fleet.close(session);
        }
    }
}
