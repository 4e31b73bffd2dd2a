//! At which priority do both sides run, and may they? The kernel has rules of its own for real-time threads, and an arm that
//! meets them has the rules' latencies instead of its own: so the warm-up is looked at, and the arm refused.

use std::collections::BTreeMap;

use echometer_host::priority::Priority;
use echometer_loadgen::{Plan, plan::Wait};
use echometer_report::file::priorities::Priorities;

use crate::measure::sides::Arms;

/// Beyond this share of a cpu the kernel gives others theirs in lumps of 50 ms: its fair server, and throttling before.
const BUSY_MAX: f64 = 0.8;
/// A thread with less than this share of the time is not busy: it takes nobody's turn.
const BUSY_MIN: f64 = 0.05;

/// How far the client's threads are raised where servers are raised so far. Threads that spin stay as they are: others
/// could run on their cpu only when the kernel makes room, in lumps of 50 ms.
#[must_use]
pub(crate) fn client_priority(servers: Priority, load: &Plan) -> Priority {
    match load.wait {
        Wait::Block => servers,
        Wait::Spin => Priority::None,
    }
}

/// At which priority both sides run under this load.
#[must_use]
pub(crate) fn priorities(servers: Priority, load: &Plan) -> Priorities {
    Priorities {
        servers,
        client: client_priority(servers, load),
    }
}

/// Who runs at real-time priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RealTime {
    /// How many cpus the servers have; at least 1.
    pub server_cpus: usize,
    /// Whether the client's threads do, too.
    pub client: bool,
}

impl RealTime {
    /// Who does, of servers on so many cpus and their client; `None` where nobody does.
    #[must_use]
    pub(crate) fn of(priorities: Priorities, server_cpus: usize) -> Option<Self> {
        (priorities.servers == Priority::Rt).then(|| Self {
            server_cpus: server_cpus.max(1),
            client: priorities.client == Priority::Rt,
        })
    }
}

/// What an arm's threads had used when a stretch of load began.
#[derive(Debug)]
pub(crate) struct Began {
    threads: BTreeMap<u32, u64>,
    at_ns: u64,
}

impl Began {
    /// Now, for the server of an arm.
    pub(crate) fn now(arms: &mut impl Arms, arm: usize) -> Self {
        Self {
            threads: arms.thread_cpu_ns(arm),
            at_ns: arms.now_ns(),
        }
    }

    /// Why the arm can't be measured at real-time priority, as a clause whose subject is the arm; `None` where it can.
    /// `client_busiest` is the share of the stretch in which the client's busiest thread had work.
    pub(crate) fn refusal(
        &self,
        arms: &mut impl Arms,
        arm: usize,
        client_busiest: f64,
        real_time: RealTime,
    ) -> Option<String> {
        let span_ns = arms.now_ns().saturating_sub(self.at_ns).max(1);
        let now = arms.thread_cpu_ns(arm);
        let shares = now
            .iter()
            .map(|(thread, ran_ns)| {
                let before = self.threads.get(thread).copied().unwrap_or(0);
                ran_ns.saturating_sub(before) as f64 / span_ns as f64
            })
            .collect();
        unfit(shares, client_busiest, real_time)
    }
}

/// The same for threads that used these shares of a cpu.
fn unfit(shares: Vec<f64>, client_busiest: f64, real_time: RealTime) -> Option<String> {
    let busy = shares.into_iter().filter(|share| BUSY_MIN <= *share);
    let mut shares: Vec<f64> = busy.collect();
    shares.sort_by(f64::total_cmp);
    let cpus = real_time.server_cpus;
    if cpus < shares.len() {
        return Some(format!(
            "has {} busy threads on {cpus} cpu{}: at SCHED_RR threads of one cpu take turns of 100 ms; give it one \
             thread per cpu, or leave --priority rt away",
            shares.len(),
            if cpus == 1 { "" } else { "s" },
        ));
    }
    let rule = format!(
        "at SCHED_RR the kernel gives others their share of a cpu in lumps of 50 ms where more than {:.0} % of it are \
         used; lower the rate (-R), or leave --priority rt away",
        BUSY_MAX * 100.0,
    );
    let busiest = shares.last().copied().unwrap_or(0.0);
    if BUSY_MAX < busiest {
        return Some(format!(
            "kept its cpu {:.0} % busy in its warm-up: {rule}",
            busiest.min(1.0) * 100.0
        ));
    }
    if real_time.client && BUSY_MAX < client_busiest {
        return Some(format!(
            "kept its client {:.0} % busy in its warm-up: {rule}",
            client_busiest.min(1.0) * 100.0
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_busy_thread_per_cpu_up_to_four_fifths() {
        let alone = RealTime {
            server_cpus: 1,
            client: false,
        };
        let why = |shares: &[f64], client, real_time| unfit(shares.to_vec(), client, real_time);
        assert_eq!(why(&[0.79, 0.01, 0.02], 1.0, alone), None);
        assert_eq!(why(&[], 1.0, alone), None);
        let busy = why(&[0.02, 0.93], 0.1, alone).expect("too busy");
        assert!(
            busy.starts_with("kept its cpu 93 % busy") && busy.contains("(-R)"),
            "{busy}"
        );
        let many = why(&[0.2, 0.3, 0.2], 0.1, alone).expect("too many");
        assert!(many.starts_with("has 3 busy threads on 1 cpu: "), "{many}");
        let wide = RealTime {
            server_cpus: 3,
            client: true,
        };
        assert_eq!(why(&[0.2, 0.3, 0.2], 0.8, wide), None);
        let client = why(&[0.2, 0.3, 0.2], 0.95, wide).expect("the client is too busy");
        assert!(client.starts_with("kept its client 95 % busy"), "{client}");
    }

    #[test]
    fn a_client_that_spins_stays_as_it_is() {
        let load = |wait| Plan {
            wait,
            ..Plan::default()
        };
        let both = priorities(Priority::Rt, &load(Wait::Block));
        assert_eq!(
            RealTime::of(both, 2),
            Some(RealTime {
                server_cpus: 2,
                client: true
            })
        );
        let one = priorities(Priority::Rt, &load(Wait::Spin));
        assert_eq!(one.client, Priority::None);
        assert_eq!(
            RealTime::of(one, 1),
            Some(RealTime {
                server_cpus: 1,
                client: false
            })
        );
        assert_eq!(
            RealTime::of(priorities(Priority::Nice, &load(Wait::Block)), 1),
            None
        );
    }
}
