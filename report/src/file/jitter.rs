//! `jitter.json`: what disturbs which cpu, as plain data.

use serde::{Deserialize, Serialize};

use echometer_host::{fitness::Finding, machine::Facts};

/// What the file says of its form.
pub const SCHEMA: &str = "echometer.jitter/1";

/// The name of the file in its folder.
pub const FILE_NAME: &str = "jitter.json";

/// What a look at the cpus has shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JitterFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Whether it was stopped early; what was seen until then is in it.
    pub cut_short: bool,
    /// How it is measured, in words.
    pub method: String,
    /// What to know when reading it.
    pub caveats: Vec<String>,
    /// The answer for people.
    pub sentence: String,
    /// The command line.
    pub command: String,
    /// Where it was measured.
    pub machine: Facts,
    /// Whether that machine is fit to measure on.
    pub doctor: Vec<Finding>,
    /// How long each cpu was to be looked at, in ns.
    pub duration_ns: u64,
    /// What is shorter is no gap, in ns.
    pub gap_min_ns: u64,
    /// The rate for which latencies are told, messages per second.
    pub rate_per_s: f64,
    /// What a message costs a server at least (the floor, measured on the first cpu), in ns; `null` where it could not be
    /// measured.
    pub message_ns: Option<f64>,
    /// The share of the time in which a server of that cost works at that rate, at most 0.95.
    pub busy: f64,
    /// In the order in which they were looked at.
    pub cpus: Vec<CpuJitter>,
}

/// What disturbs one cpu.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CpuJitter {
    /// Which.
    pub cpu: u32,
    /// The cpu that was kept busy meanwhile, as a client does; `null` where there was none.
    pub beside: Option<u32>,
    /// How long it was looked at, in ns.
    pub span_ns: u64,
    /// How many gaps there were.
    pub gaps: u64,
    /// How many of them were beyond what is kept, and are in no other figure.
    pub left_out: u64,
    /// Their sum, in ns.
    pub gaps_ns: u64,
    /// The longest, in ns.
    pub longest_ns: u64,
    /// By length.
    pub buckets: Vec<Bucket>,
    /// The mean wait that the gaps give a message which is due at any time, in ns.
    pub mean_wait_ns: f64,
    /// The p99 that the gaps alone give at the rate, in ns; `null` where fewer than 1 % of the messages meet one.
    pub p99_ns: Option<f64>,
    /// The p99.9 that the gaps alone give at the rate, in ns; `null` where fewer than 0.1 % of the messages meet one.
    pub p999_ns: Option<f64>,
    /// Who ran there, the most first; the first twenty.
    pub tasks: Vec<TaskEntry>,
    /// Interrupts by the kernel's names, the most first.
    pub interrupts: Vec<Counted>,
    /// Soft interrupts by the kernel's names, the most first.
    pub softirqs: Vec<Counted>,
    /// What the hypervisor took, in ns, in steps of 10 ms; `null` where /proc/stat can't be read.
    pub steal_ns: Option<u64>,
}

/// Gaps of about the same length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// They are at least so long, in ns; and shorter than the next bucket's.
    pub from_ns: u64,
    /// How many.
    pub gaps: u64,
    /// Their sum, in ns.
    pub sum_ns: u64,
}

/// A task that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEntry {
    /// The kernel's name for it.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Its CPU time meanwhile, in ns.
    pub ran_ns: u64,
    /// Whether it came from another cpu: then it is unknown how much of that was here.
    pub moved: bool,
}

/// Something that was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// What.
    pub name: String,
    /// How often.
    pub count: u64,
}

/// Where buckets begin, in ns: 5 us, 10, 20, 50 and so on to 500 ms.
#[must_use]
pub fn buckets_of(gaps_ns: &[u64]) -> Vec<Bucket> {
    let bounds: Vec<u64> = std::iter::once(5_000)
        .chain((4..9).flat_map(|power| [1, 2, 5].map(|step| step * 10u64.pow(power))))
        .collect();
    let mut buckets: Vec<Bucket> = bounds
        .iter()
        .map(|&from_ns| Bucket {
            from_ns,
            gaps: 0,
            sum_ns: 0,
        })
        .collect();
    for &gap in gaps_ns {
        let after = bounds.partition_point(|&bound| bound <= gap);
        let bucket = &mut buckets[after.saturating_sub(1)];
        bucket.gaps += 1;
        bucket.sum_ns += gap;
    }
    let used = buckets.iter().rposition(|bucket| 0 < bucket.gaps);
    buckets.truncate(used.map_or(0, |last| last + 1));
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gap_is_in_one_bucket() {
        let buckets = buckets_of(&[5_000, 9_999, 10_000, 2_100_000, 700_000_000]);
        let filled: Vec<_> = buckets.iter().filter(|bucket| 0 < bucket.gaps).collect();
        let seen: Vec<_> = filled
            .iter()
            .map(|bucket| (bucket.from_ns, bucket.gaps))
            .collect();
        assert_eq!(
            seen,
            [(5_000, 2), (10_000, 1), (2_000_000, 1), (500_000_000, 1)]
        );
        assert_eq!(filled[0].sum_ns, 14_999);
        assert_eq!(buckets_of(&[]), []);
    }
}
