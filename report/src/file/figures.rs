//! What an arm did in a block: the figures that comparisons and sweeps keep.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use echometer_loadgen::{file::Summary, verdict::Status};

use crate::file::{
    floor::FloorFigures,
    metric::{COMPARED_ABOVE_MIN, Metric},
};

/// One block, as it stands in `compare.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockFigures {
    /// Counted from 1, as its files are.
    pub index: usize,
    /// Arms in the order of their slices; `(floor)` where it had its turn.
    pub order: Vec<String>,
    /// Whether it is part of the comparison.
    pub valid: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// How long a slice (or a run) was, in ns.
    pub slice_ns: u64,
    /// By the arm's name. Arms that never had a slice are absent.
    pub arms: BTreeMap<String, ArmFigures>,
    /// By the arm's name and the metric: arm / baseline in this block. Absent where it can't be had.
    pub ratios: BTreeMap<String, BTreeMap<Metric, f64>>,
    /// The same of latencies without the client's own lateness ([`OpenFigures::least_ns`]). Only of open loops, and absent in
    /// files of older versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ratios_least: BTreeMap<String, BTreeMap<Metric, f64>>,
    /// What an echo cost the kernel in this block; `null` where that was not measured.
    #[serde(default)]
    pub floor: Option<FloorFigures>,
}

/// What one arm did in one block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmFigures {
    /// Replies between the ramps and the stops, over the time between these.
    pub rate_per_s: f64,
    /// CPU time of the server and its descendants over the whole slices, per message. `null` where it can't be read.
    pub server_cpu_ns_per_message: Option<f64>,
    /// CPU time of the client's threads over the whole slices, per message. `null` without a message.
    pub client_cpu_ns_per_message: Option<f64>,
    /// Of the server, over the measured part.
    pub context_switches: Option<u64>,
    /// Of the server, at the end.
    pub rss_bytes: Option<u64>,
    /// The file with its histogram, relative to `compare.json`.
    pub hlog: String,
    /// All messages answered in its slices.
    pub messages: u64,
    /// Replies between the ramps and the stops: those that the histogram holds.
    pub recorded: u64,
    /// How many slices it had.
    pub slices: usize,
    /// Latency from the write (closed loop) or the due time (open loop) to the reply, in ns.
    pub latency_ns: Summary,
    /// The latency's parts; `null` in closed loop, and in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<OpenFigures>,
    /// The share of its slices in which the server computed, 0..1 per cpu that it may use.
    pub server_busy: Option<f64>,
    /// The share of its slices in which the client's busiest thread had work, 0..1.
    pub client_busy: f64,
    /// What the servers' cpus did in its slices, as the kernel accounts for it.
    pub server_cpus: CpuShares,
    /// The share of the others' slices in which the server computed.
    pub resting_cpu: Option<f64>,
    /// The share of its slices in which the client's threads were ready to run and had no cpu.
    pub client_run_delay: f64,
    /// Rate in the last third of its slices over that in the first.
    pub rate_drift: Option<f64>,
    /// One by one, in the runs design; else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunFigures>,
}

/// What one whole run gave: a sample of the statistics in the runs design.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFigures {
    /// Replies in the run's window, per second.
    pub rate_per_s: f64,
    /// Messages due in the window, per second; `null` in closed loop.
    pub offered_per_s: Option<f64>,
    /// As for the block.
    pub server_cpu_ns_per_message: Option<f64>,
    /// As for the block.
    pub client_cpu_ns_per_message: Option<f64>,
    /// Of the messages that were due or written in the window; those without an answer are in it as lower bounds.
    pub latency_ns: Summary,
    /// The latency's parts; `null` in closed loop, and in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<OpenFigures>,
    /// What the load generator says of the run. Only `errors` makes its block invalid.
    pub status: Status,
    /// Why.
    pub reasons: Vec<String>,
}

/// The parts of an open loop's latency, and whether its server kept up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenFigures {
    /// Written to reply.
    pub service_ns: Summary,
    /// The same, less what replies may have waited for the client.
    pub service_least_ns: Summary,
    /// Waiting for room on the connection.
    pub queue_ns: Summary,
    /// The client's own lateness in sending.
    pub send_lag_ns: Summary,
    /// In how many slices the server did not keep up with what was due; 0 for a whole run, which says it by its status.
    pub overloaded_slices: usize,
    /// Why, in the first of them.
    pub overload: Option<String>,
}

impl OpenFigures {
    /// What is left of `latency`, the whole of which these are the parts, without the client's own lateness, ns: the wait for
    /// room and the time from the write to the last look that did not find the reply. `None` for what is no latency, and
    /// where too few samples lie above the quantile.
    #[must_use]
    pub fn least_ns(&self, latency: &Summary, metric: Metric) -> Option<u64> {
        let of = |summary: &Summary| metric.of(summary);
        let least = of(&self.queue_ns)? + of(&self.service_least_ns)?;
        // It is compared by its logarithm.
        Some(least.min(of(latency)?).max(1))
    }
}

/// Shares of the time of a set of cpus, 0..1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CpuShares {
    /// Anything but idle.
    #[serde(deserialize_with = "null_is_nan")]
    pub busy: f64,
    /// In soft interrupts, where the kernel receives what loopback sends.
    #[serde(deserialize_with = "null_is_nan")]
    pub softirq: f64,
    /// Taken by the hypervisor.
    #[serde(deserialize_with = "null_is_nan")]
    pub steal: f64,
}

/// JSON has no NaN: the share of no cpu at all (every server runs elsewhere) is written as `null`.
fn null_is_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

impl ArmFigures {
    /// The figure in which `metric` is told, in the metric's unit; `None` where it can't be had.
    #[must_use]
    pub fn value(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::ServerCpuPerMessage => self.server_cpu_ns_per_message,
            Metric::Rate => Some(self.rate_per_s),
            Metric::ClientCpuPerMessage => self.client_cpu_ns_per_message,
            latency => latency.of(&self.latency_ns).map(|ns| ns as f64),
        }
    }

    /// The least that a latency can have been, in ns ([`OpenFigures::least_ns`]); `None` in closed loop.
    #[must_use]
    pub fn least(&self, metric: Metric) -> Option<f64> {
        let least_ns = self.open.as_ref()?.least_ns(&self.latency_ns, metric);
        least_ns.map(|ns| ns as f64)
    }
}

impl RunFigures {
    /// The figure with which `metric` is compared; `None` where it can't be: too few samples lie above a quantile, or
    /// messages without an answer make it a lower bound.
    #[must_use]
    pub fn value(&self, metric: Metric) -> Option<f64> {
        let latency = |quantile: Option<u64>| {
            let above = metric.samples_above(self.latency_ns.count)?;
            let value = quantile.filter(|&value| !self.latency_ns.is_lower_bound(value))?;
            (COMPARED_ABOVE_MIN <= above).then_some(value as f64)
        };
        let value = match metric {
            Metric::ServerCpuPerMessage => self.server_cpu_ns_per_message,
            Metric::Rate => Some(self.rate_per_s),
            Metric::ClientCpuPerMessage => self.client_cpu_ns_per_message,
            quantile => latency(quantile.of(&self.latency_ns)),
        };
        // A number that has a logarithm: not what comes of dividing by or into nothing.
        value.filter(|value| 0.0 < *value && value.is_finite())
    }

    /// The least that a latency can have been, in ns ([`OpenFigures::least_ns`]), where it can be compared; `None` in
    /// closed loop.
    #[must_use]
    pub fn least(&self, metric: Metric) -> Option<f64> {
        self.value(metric)?;
        let least_ns = self.open.as_ref()?.least_ns(&self.latency_ns, metric);
        least_ns.map(|ns| ns as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_no_cpu_are_read_back() {
        let unknown = CpuShares {
            busy: f64::NAN,
            softirq: f64::NAN,
            steal: f64::NAN,
        };
        let text = serde_json::to_string(&unknown).expect("plain data");
        let read: CpuShares = serde_json::from_str(&text).expect("it is read back");
        assert!(read.busy.is_nan() && read.softirq.is_nan() && read.steal.is_nan());
    }
}
