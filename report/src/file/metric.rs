//! What is compared: the metrics, their names in files, their units and which way they are good.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use echometer_loadgen::file::Summary;
use echometer_statistics::Good;

/// A figure in which two arms are compared. The order is that of tables and files.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Metric {
    /// CPU time of the server and its descendants, divided by the messages it answered.
    ServerCpuPerMessage,
    /// Messages answered per second.
    Rate,
    /// CPU time of the client, divided by the messages.
    ClientCpuPerMessage,
    /// Half of all messages were answered within this time.
    LatencyP50,
    /// Nine in ten.
    LatencyP90,
    /// 99 in 100.
    LatencyP99,
    /// 999 in 1,000.
    #[serde(rename = "latency_p99_9")]
    #[value(name = "latency_p99_9")]
    LatencyP99_9,
}

/// All metrics, in their order.
pub const METRICS: [Metric; 7] = [
    Metric::ServerCpuPerMessage,
    Metric::Rate,
    Metric::ClientCpuPerMessage,
    Metric::LatencyP50,
    Metric::LatencyP90,
    Metric::LatencyP99,
    Metric::LatencyP99_9,
];

/// A quantile is compared only where this many samples lie above it. (It is shown where ten do.)
pub const COMPARED_ABOVE_MIN: u64 = 100;

impl Metric {
    /// Its name in files and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ServerCpuPerMessage => "server_cpu_per_message",
            Self::Rate => "rate",
            Self::ClientCpuPerMessage => "client_cpu_per_message",
            Self::LatencyP50 => "latency_p50",
            Self::LatencyP90 => "latency_p90",
            Self::LatencyP99 => "latency_p99",
            Self::LatencyP99_9 => "latency_p99_9",
        }
    }

    /// Its name in a table.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ServerCpuPerMessage => "server CPU/message",
            Self::Rate => "rate",
            Self::ClientCpuPerMessage => "client CPU/message",
            Self::LatencyP50 => "latency p50",
            Self::LatencyP90 => "latency p90",
            Self::LatencyP99 => "latency p99",
            Self::LatencyP99_9 => "latency p99.9",
        }
    }

    /// Its unit in files.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Rate => "1/s",
            _ => "ns",
        }
    }

    /// Which way it is good.
    #[must_use]
    pub const fn good(self) -> Good {
        match self {
            Self::Rate => Good::Higher,
            _ => Good::Lower,
        }
    }

    /// For a latency: its quantile, 0..1.
    #[must_use]
    pub fn quantile(self) -> Option<f64> {
        Some(1.0 - f64::from(self.ten_thousandths_above()?) / 10_000.0)
    }

    /// For a latency: how many of `samples` lie above its quantile.
    #[must_use]
    pub fn samples_above(self, samples: u64) -> Option<u64> {
        // In whole numbers, for 1,000 x (1 - 0.9) is less than 100 in doubles.
        let samples = u128::from(samples) * u128::from(self.ten_thousandths_above()?) / 10_000;
        u64::try_from(samples).ok()
    }

    /// Whether this is a latency that `summary` only knows to be at least so high: messages without an answer reach it.
    #[must_use]
    pub fn is_lower_bound(self, summary: &Summary) -> bool {
        self.of(summary)
            .is_some_and(|value| summary.is_lower_bound(value))
    }

    /// Its quantile of a summary, for a latency.
    #[must_use]
    pub fn of(self, summary: &Summary) -> Option<u64> {
        match self {
            Self::LatencyP50 => summary.p50,
            Self::LatencyP90 => summary.p90,
            Self::LatencyP99 => summary.p99,
            Self::LatencyP99_9 => summary.p99_9,
            Self::ServerCpuPerMessage | Self::Rate | Self::ClientCpuPerMessage => None,
        }
    }

    const fn ten_thousandths_above(self) -> Option<u32> {
        match self {
            Self::LatencyP50 => Some(5_000),
            Self::LatencyP90 => Some(1_000),
            Self::LatencyP99 => Some(100),
            Self::LatencyP99_9 => Some(10),
            Self::ServerCpuPerMessage | Self::Rate | Self::ClientCpuPerMessage => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_everywhere() {
        for metric in METRICS {
            assert_eq!(serde_json::to_value(metric).expect("plain"), metric.name());
            assert_eq!(
                metric
                    .to_possible_value()
                    .expect("none is hidden")
                    .get_name(),
                metric.name()
            );
        }
        assert!(METRICS.is_sorted());
    }

    #[test]
    fn samples_above_are_counted_exactly() {
        assert_eq!(Metric::LatencyP90.samples_above(1_000), Some(100));
        assert_eq!(Metric::LatencyP99.samples_above(10_000), Some(100));
        assert_eq!(Metric::LatencyP99.samples_above(9_999), Some(99));
        assert_eq!(Metric::LatencyP99_9.samples_above(100_000), Some(100));
        assert_eq!(
            Metric::LatencyP50.samples_above(u64::MAX),
            Some(u64::MAX / 2)
        );
        assert_eq!(Metric::Rate.samples_above(1), None);
        assert_eq!(Metric::LatencyP99.quantile(), Some(0.99));
    }
}
