//! The counters for Prometheus: `--metrics`. A thread of its own answers; workers are not asked, their counters are read.
//! Everything is counted by worker, and what the kernel knows about the listeners stands beside it.

mod http;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use echometer_host::counters::netstat;
use echometer_host::sockets::{Listener, listen_queues};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::counters::{Counters, Tally};

pub(crate) use self::http::Responder;

/// Serves the counters on `address` until the responder is dropped.
///
/// # Errors
/// The address cannot be had, or a thread cannot be started.
pub(crate) fn expose(
    address: SocketAddr,
    engine: &'static str,
    counters: Arc<[Arc<Counters>]>,
    listeners: &[Listener],
) -> std::io::Result<Responder> {
    let mut registry = Registry::with_prefix("echometer");
    registry.register_collector(Box::new(Readings {
        engine,
        counters,
        port: listeners[0].local_addr().port(),
        inodes: listeners
            .iter()
            .map(|listener| listener.inode().ok())
            .collect(),
    }));
    Responder::start(address, move || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)
            .expect("writing to a string cannot fail");
        text
    })
}

/// Reads everything anew for each scrape.
#[derive(Debug)]
struct Readings {
    engine: &'static str,
    counters: Arc<[Arc<Counters>]>,
    /// The port of the listeners; none on a unix path, whose queue the kernel does not tell.
    port: Option<u16>,
    /// The listeners by worker, as the kernel names them. No descriptor is held here: it would keep a queue open that
    /// its worker has closed.
    inodes: Vec<Option<u64>>,
}

/// A number of a worker: its name, its meaning, and where it is found.
type Number = (&'static str, &'static str, fn(&Tally) -> u64);

/// Counted up from 0 at the server's start.
const TOTALS: &[Number] = &[
    (
        "connections_accepted",
        "Connections accepted, those over the limit included",
        |tally| tally.accepted,
    ),
    ("bytes_in", "Bytes taken in for echoing", |tally| {
        tally.bytes_in
    }),
    ("bytes_out", "Bytes handed to the kernel", |tally| {
        tally.bytes_out
    }),
    (
        "bytes_dropped",
        "Bytes received and dropped at a stop or after a failure",
        |tally| tally.bytes_dropped,
    ),
    (
        "enters",
        "System calls of the worker's loop; 0 where a runtime makes them unseen",
        |tally| tally.enters,
    ),
    (
        "cqes",
        "Completions of io_uring; 0 for other engines",
        |tally| tally.cqes,
    ),
    (
        "recv_parks",
        "Receives that found no buffer (ENOBUFS)",
        |tally| tally.recv_parks,
    ),
    (
        "cq_overflows",
        "Completions that did not fit the queue at once",
        |tally| tally.cq_overflows,
    ),
    ("send_stalls", "Sends that found the socket full", |tally| {
        tally.send_stalls
    }),
];

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let info = [("engine", self.engine)];
        encoder
            .encode_descriptor("server", "What serves", None, MetricType::Info)?
            .encode_info(&info)?;

        // All numbers of a worker at one moment, or sums over them would not add up.
        let tallies: Vec<(String, Tally)> = self
            .counters
            .iter()
            .enumerate()
            .map(|(index, counters)| (index.to_string(), counters.tally()))
            .collect();
        for (name, help, number) in TOTALS {
            let mut metric = counter(&mut encoder, name, help)?;
            for (worker, tally) in &tallies {
                count(&mut metric, &[("worker", worker)], number(tally))?;
            }
        }
        let help = "Connections open now";
        let mut metric =
            encoder.encode_descriptor("connections_open", help, None, MetricType::Gauge)?;
        for (worker, tally) in &tallies {
            level(&mut metric, &[("worker", worker)], tally.open)?;
        }
        let mut metric = counter(
            &mut encoder,
            "connections_closed",
            "Connections closed, by reason",
        )?;
        for (worker, tally) in &tallies {
            for (reason, &n) in &tally.closed {
                count(&mut metric, &[("worker", worker), ("reason", reason)], n)?;
            }
        }
        let mut metric = counter(&mut encoder, "accept_errors", "Failed accepts, by kind")?;
        for (worker, tally) in &tallies {
            for (kind, &n) in &tally.accept_errors {
                count(&mut metric, &[("worker", worker), ("kind", kind)], n)?;
            }
        }
        self.encode_queues(&mut encoder)?;
        encode_kernel(&mut encoder)
    }
}

impl Readings {
    /// The listen queues; nothing where the kernel does not tell, which is not the same as zero.
    fn encode_queues(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(Ok(queues)) = self.port.map(listen_queues) else {
            return Ok(());
        };
        let mut rows = Vec::new();
        for (worker, inode) in self.inodes.iter().enumerate() {
            // A shared queue stands once, with the first worker, so that sums are right.
            let is_first = !self.inodes[..worker].contains(inode);
            let queue = queues.iter().find(|queue| Some(queue.inode) == *inode);
            if let (Some(queue), true) = (queue, is_first) {
                rows.push((worker.to_string(), queue));
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let help = "Connections that wait to be accepted";
        let mut metric =
            encoder.encode_descriptor("listen_queue_depth", help, None, MetricType::Gauge)?;
        for (worker, queue) in &rows {
            level(&mut metric, &[("worker", worker)], u64::from(queue.waiting))?;
        }
        let help = "How many may wait: the effective backlog";
        let mut metric =
            encoder.encode_descriptor("listen_queue_limit", help, None, MetricType::Gauge)?;
        for (worker, queue) in &rows {
            level(&mut metric, &[("worker", worker)], u64::from(queue.limit))?;
        }
        Ok(())
    }
}

/// What the kernel counts for all listeners of the network namespace, since it was made.
fn encode_kernel(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Ok(kernel) = netstat() else {
        return Ok(());
    };
    for (name, help, n) in [
        (
            "kernel_listen_overflows",
            "Connections turned away by a full queue, of any listener of this network namespace",
            kernel.listen_overflows(),
        ),
        (
            "kernel_listen_drops",
            "SYNs and last ACKs dropped, of any listener of this network namespace",
            kernel.listen_drops(),
        ),
    ] {
        if let Some(n) = n {
            let mut metric = counter(encoder, name, help)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&n, None)?;
        }
    }
    Ok(())
}

fn counter<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)
}

fn count(metric: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, n: u64) -> fmt::Result {
    metric
        .encode_family(labels)?
        .encode_counter::<NoLabelSet, _, u64>(&n, None)
}

fn level(metric: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, n: u64) -> fmt::Result {
    // OpenMetrics has signed gauges. None of these numbers gets near the sign.
    metric.encode_family(labels)?.encode_gauge(&(n as i64))
}
