//! The load generator's fleet, as the slices see it: one session per arm, all on the same worker threads, one of them
//! driven at a time.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use echometer_loadgen::{
    Fleet, Membership, Phase, SessionId, Tally, Target,
    plan::Load,
    run::GIVE_UP_AFTER,
    verdict::{Evidence, Status, judge, overload},
};

use crate::measure::{
    floor::{Floor, FloorSlice},
    sides::{Client, Judged, OpenSlice, Stretch, WholeRun},
};

/// The client side of a comparison.
pub(crate) struct FleetClient {
    fleet: Fleet,
    sessions: Vec<Option<SessionId>>,
    floor: Option<Floor>,
    /// Messages are due at instants of their own.
    open_loop: bool,
}

impl FleetClient {
    /// A client for `arms` arms, connected to none.
    #[must_use]
    pub(crate) fn new(fleet: Fleet, arms: usize) -> Self {
        Self {
            open_loop: fleet.plan().load != Load::Closed,
            fleet,
            sessions: vec![None; arms],
            floor: None,
        }
    }

    /// The same with a floor to be measured beside the arms.
    #[must_use]
    pub(crate) fn with_floor(self, floor: Option<Floor>) -> Self {
        Self { floor, ..self }
    }
}

impl FleetClient {
    fn tally(&mut self, arm: usize, phase: &Phase) -> Result<Tally, String> {
        let session = self.sessions[arm].ok_or("has no connections")?;
        self.fleet
            .drive(session, phase)
            .map_err(|error| format!("could not be loaded: {error}"))
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
        let phase = Phase {
            greeting: Duration::ZERO,
            record_after: ramp,
            stop_after: length,
            give_up_after: GIVE_UP_AFTER,
            membership: Membership::ByReply,
            intervals: None,
        };
        let tally = self.tally(arm, &phase)?;
        let mut stretch = stretch(&tally);
        stretch.faults = faults(&tally, true);
        Ok(stretch)
    }

    fn run(&mut self, arm: usize, ramp: Duration, length: Duration) -> Result<WholeRun, String> {
        let phase = Phase {
            greeting: Duration::ZERO,
            record_after: ramp,
            stop_after: length,
            give_up_after: GIVE_UP_AFTER,
            membership: Membership::ByStart,
            // Asked for because of the thirds, by which a run is judged steady.
            intervals: Some(length),
        };
        let tally = self.tally(arm, &phase)?;
        let verdict = judge(&Evidence {
            tally: &tally,
            open: self.open_loop,
            // The servers' cpus are watched for it, and the arms take turns.
            steal_ratio: None,
            fallback: None,
        });
        let mut stretch = stretch(&tally);
        // What an overloaded server has left unanswered is no fault, where connections held.
        stretch.faults = faults(&tally, verdict.status == Status::Errors);
        let due = tally.window.sent + tally.window.unsent;
        Ok(WholeRun {
            stretch,
            judged: Judged {
                verdict,
                offered_per_s: self
                    .open_loop
                    .then(|| due as f64 * 1e9 / tally.recorded_span_ns.max(1) as f64),
                censored_from_ns: tally.window.censored_from_ns,
            },
            // The runs ask for themselves, before and after.
            cut_short: false,
        })
    }

    fn open_slice(&mut self, arm: usize, slice: &OpenSlice) -> Result<Stretch, String> {
        self.fleet.set_rate(slice.rate_per_s);
        let phase = Phase {
            greeting: slice.greeting,
            record_after: slice.ramp,
            stop_after: slice.stop,
            give_up_after: GIVE_UP_AFTER,
            membership: Membership::ByStart,
            // For the thirds, which show whether unanswered messages grow.
            intervals: Some(slice.stop),
        };
        let tally = self.tally(arm, &phase)?;
        let mut stretch = stretch(&tally);
        stretch.overload = overload(&tally);
        stretch.faults = faults(&tally, true);
        Ok(stretch)
    }

    fn pause(&mut self, length: Duration) {
        std::thread::sleep(length);
    }

    fn close(&mut self, arm: usize) {
        if let Some(session) = self.sessions[arm].take() {
            self.fleet.close(session);
        }
    }

    fn floor(&mut self, length: Duration) -> Result<FloorSlice, String> {
        let floor = self.floor.as_mut().ok_or("no floor was set up")?;
        floor.slice(length)
    }
}

/// The figures of a stretch, without its faults.
fn stretch(tally: &Tally) -> Stretch {
    Stretch {
        latency: tally.latency.clone(),
        open: tally.open.clone(),
        overload: Vec::new(),
        recorded: tally.replies,
        recorded_span_ns: tally.recorded_span_ns,
        messages: tally.messages,
        faults: BTreeMap::new(),
        wrong: tally.mismatch.map(|difference| difference.to_string()),
        client_cpu_ns: tally.client_cpu_ns,
        client_busiest: tally.busiest_thread,
        client_run_delay: tally.run_delay_ns as f64 / tally.recorded_span_ns.max(1) as f64,
    }
}

/// What went wrong, by kind; messages without an answer only where they are a fault.
fn faults(tally: &Tally, unanswered_too: bool) -> BTreeMap<String, u64> {
    let mut faults: BTreeMap<String, u64> = tally
        .errors
        .iter()
        .map(|(kind, count)| (format!("connection failures ({kind})"), count))
        .collect();
    let unanswered = tally.lost + if unanswered_too { tally.outstanding } else { 0 };
    if 0 < unanswered {
        faults.insert("messages without an answer".to_owned(), unanswered);
    }
    faults
}
