//! What the server's side shows at an instant, and what passed between two.

use crate::measure::sides::{Arms, CpuTimes, Usage};

/// What is read of a server and of the servers' cpus where nothing is in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    cpu_ns: Option<u64>,
    usage: Option<Usage>,
    cpus: CpuTimes,
    now_ns: u64,
}

/// What passed between two readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerSide {
    /// How long that was, ns.
    pub span_ns: u64,
    /// CPU time of the server, ns; `None` where it can't be read.
    pub cpu_ns: Option<u64>,
    /// What the servers' cpus did.
    pub cpus: CpuTimes,
    /// Context switches meanwhile, memory at the end.
    pub usage: Option<Usage>,
}

impl Reading {
    /// Reads what there is to read of an arm.
    pub(crate) fn take(arms: &mut impl Arms, arm: usize) -> Self {
        Self {
            cpu_ns: arms.cpu_ns(arm),
            usage: arms.usage(arm),
            cpus: arms.server_cpus(),
            now_ns: arms.now_ns(),
        }
    }

    /// What passed until `later`.
    #[must_use]
    pub(crate) fn until(&self, later: &Self) -> ServerSide {
        ServerSide {
            span_ns: later.now_ns.saturating_sub(self.now_ns),
            cpu_ns: used(later.cpu_ns, self.cpu_ns),
            cpus: later.cpus.since(&self.cpus),
            usage: later
                .usage
                .zip(self.usage)
                .map(|(later, earlier)| later.since(&earlier)),
        }
    }
}

/// The clocks of all arms and of their cpus at an instant.
#[derive(Debug, Clone)]
pub(crate) struct Clocks {
    cpu_ns: Vec<Option<u64>>,
    cpus: CpuTimes,
    now_ns: u64,
}

/// What passed on them since.
#[derive(Debug, Clone)]
pub(crate) struct Passed {
    /// How long that was, ns.
    pub span_ns: u64,
    /// CPU time of each arm, ns; `None` where it can't be read.
    pub cpu_ns: Vec<Option<u64>>,
    /// What the servers' cpus did.
    pub cpus: CpuTimes,
}

impl Clocks {
    /// Reads those of so many arms, outside of the span that begins here.
    pub(crate) fn read(arms: &mut impl Arms, count: usize) -> Self {
        Self {
            cpu_ns: cpu_ns(arms, count),
            cpus: arms.server_cpus(),
            now_ns: arms.now_ns(),
        }
    }

    /// What passed until now.
    pub(crate) fn passed(self, arms: &mut impl Arms) -> Passed {
        let span_ns = arms.now_ns().saturating_sub(self.now_ns);
        let cpus = arms.server_cpus().since(&self.cpus);
        let now = cpu_ns(arms, self.cpu_ns.len()).into_iter();
        Passed {
            span_ns,
            cpu_ns: now
                .zip(self.cpu_ns)
                .map(|(now, before)| used(now, before))
                .collect(),
            cpus,
        }
    }
}

fn cpu_ns(arms: &mut impl Arms, count: usize) -> Vec<Option<u64>> {
    (0..count).map(|arm| arms.cpu_ns(arm)).collect()
}

/// How far a counter went; `None` where either end is unknown.
#[must_use]
fn used(now: Option<u64>, before: Option<u64>) -> Option<u64> {
    Some(now?.saturating_sub(before?))
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

impl Usage {
    /// Context switches since an earlier reading, and memory as it is now.
    #[must_use]
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            context_switches: self
                .context_switches
                .saturating_sub(before.context_switches),
            rss_bytes: self.rss_bytes,
        }
    }
}
