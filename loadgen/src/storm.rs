//! A connection storm: many connects at once, or at a pace, each followed by one echo. What a listener does with its
//! queue shows here and nowhere else.

use std::time::Duration;

use hdrhistogram::Histogram;

use echometer_host::{signals::Stop, target::Target};

use crate::{
    connect_times::{ConnectTimes, SYN_RETRANSMITS_MAX},
    cuts::Membership,
    failure::{Failure, Failures},
    fleet::{DriveError, Fleet, FleetError, OpenError},
    plan::{Load, Plan, PlanError},
    tally::Phase,
};

/// What storm is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct StormPlan {
    /// How many connect, `-c`; the size of the one message, the worker threads, the engine, the sources and the socket
    /// options. `connect_rate_per_s` 0 is all at once, as fast as the client can. What is of load (`load`, `duration`,
    /// `warmup`, `pipeline`, `requests_per_connection`, `reconnect`) is of no matter here.
    pub client: Plan,
    /// How long a connect may take, and how long the echo may after the last connect. The steps at which the kernel
    /// sends a SYN again lie at seconds (`echometer_host::sockets::syn_schedule`): 10 s sees five of them.
    pub time_limit: Duration,
}

impl Default for StormPlan {
    /// 1,000 connects at once; 10 s.
    fn default() -> StormPlan {
        StormPlan {
            client: Plan {
                connections: 1_000,
                ..Plan::default()
            },
            time_limit: Duration::from_secs(10),
        }
    }
}

/// What came of a storm. `connects = connected + connects that failed`, and `connected = echoed + those whose echo did
/// not come`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Storm {
    /// How many tried to connect.
    pub connects: u64,
    /// How many got a connection.
    pub connected: u64,
    /// How many got their message back.
    pub echoed: u64,
    /// What failed, by kind: connects ([`Failure::is_of_connect`]) and connections that were reset or closed before
    /// their echo. One that merely had no answer in time is in neither this nor `echoed`.
    pub failures: Failures,
    /// From before connect(2), or the request for it, until the connection was seen to be there, ns; of those that got
    /// one.
    pub connect_ns: Histogram<u64>,
    /// From the same instant until the echo was there, ns; of those that got one. A handshake whose last ACK the server
    /// dropped shows here: connected fast, and answered late.
    pub first_echo_ns: Histogram<u64>,
    /// How many were connected at the n-th retransmission of their SYN (`TCP_INFO`): index 0 those that needed none, the
    /// last for that many and more.
    pub syn_retransmits: [u64; SYN_RETRANSMITS_MAX + 1],
    /// `connect_ns` split by it: at index n - 1 those with n retransmissions. `None` where there were none.
    pub by_syn_retransmits: [Option<Box<Histogram<u64>>>; SYN_RETRANSMITS_MAX],
    /// From the first connect to the last echo or failure.
    pub took: Duration,
    /// It was ended early on request: what was under way then counts as failed.
    pub stopped_early: bool,
}

impl Storm {
    /// Connects that came to nothing.
    pub fn failed_connects(&self) -> u64 {
        self.connects - self.connected
    }

    /// Connections that were made, whose echo never came.
    pub fn unanswered(&self) -> u64 {
        self.connected - self.echoed
    }
}

/// Why there was no storm. (A server that refuses or drops connections is no such reason: that is counted.)
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StormError {
    /// The plan can't be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The client can't start.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The client can't prepare its connections.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The client failed.
    #[error(transparent)]
    Drive(#[from] DriveError),
}

/// Makes one storm on the first of the target's addresses. All connections stay open until the last echo, or the end of
/// the time, and are closed then. Nothing is sent to the server before the storm. A request on `stop` ends it early.
///
/// # Errors
/// The client itself can't do it.
pub fn run(plan: &StormPlan, target: &Target, stop: Option<&Stop>) -> Result<Storm, StormError> {
    let client = Plan {
        load: Load::Closed,
        pipeline: 1,
        requests_per_connection: 0,
        reconnect: false,
        ..plan.client.clone()
    };
    client.validate()?;
    let mut fleet = Fleet::start_for_storm(&client, plan.time_limit)?;
    if let Some(stop) = stop {
        fleet.stop_on(stop.clone());
    }
    let session = fleet.open(target)?;
    let pace = client.connect_rate_per_s;
    let dialing = if pace == 0.0 {
        Duration::ZERO
    } else {
        Duration::from_secs_f64(f64::from(client.connections) / pace)
    };
    // The client needs its time too: at least 1,000 connects per second are expected of it.
    let client_limit =
        Duration::from_millis(u64::from(client.connections)) + Duration::from_secs(1);
    let limit = dialing + client_limit + 2 * plan.time_limit;
    let phase = Phase {
        greeting: Duration::ZERO,
        record_after: Duration::ZERO,
        stop_after: limit,
        give_up_after: limit,
        membership: Membership::ByStart,
        intervals: None,
    };
    let tally = fleet.drive(session, &phase)?;
    fleet.close(session);
    let ConnectTimes {
        connect_ns,
        first_echo_ns,
        by_syn_retransmits,
    } = tally.connects.unwrap_or_default();
    let mut syn_retransmits = [0; SYN_RETRANSMITS_MAX + 1];
    for (count, histogram) in syn_retransmits[1..].iter_mut().zip(&by_syn_retransmits) {
        *count = histogram.as_ref().map_or(0, |histogram| histogram.len());
    }
    syn_retransmits[0] = connect_ns.len() - syn_retransmits[1..].iter().sum::<u64>();
    Ok(Storm {
        connects: u64::from(client.connections),
        connected: tally.life_opened,
        echoed: tally.messages,
        failures: tally.errors,
        connect_ns,
        first_echo_ns,
        syn_retransmits,
        by_syn_retransmits,
        took: Duration::from_nanos(tally.recorded_span_ns),
        stopped_early: tally.stopped_early,
    })
}

/// Whether a storm met a full queue, as far as the client can see it: a connect failed for it, or a SYN was sent again.
pub fn met_a_full_queue(storm: &Storm) -> bool {
    storm.syn_retransmits[1..].iter().any(|count| *count != 0)
        || storm.failures.of(Failure::ConnectTimedOut) != 0
        || storm.failures.of(Failure::ListenQueueFull) != 0
}
