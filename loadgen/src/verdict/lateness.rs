//! How much of a latency is the client's own lateness? In an open loop a message may be written late, and a reply may
//! wait until the client looks; both count in the latency, and neither is the server's. So the truth lies between two
//! ends: the latency, from the due time to the harvest, and what is left of it without the client: the wait for room on
//! the connection, and the time from the write until the last look that did not find the reply.
//!
//! Quantiles are taken of each part for itself. That of a sum is at most the sum of the parts' only nearly, so the lower
//! end is never said to be above the upper one.

use echometer_host::units::show_ns;
use hdrhistogram::Histogram;

use crate::{segment::OpenLoop, summary::quantile};

/// The share of a latency's quantile from which on the client's lateness makes it worthless: 15 %.
pub const LATENESS_MAX: f64 = 0.15;

/// The two ends between which a quantile of the latency lies, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateness {
    /// From when messages were due.
    pub latency_ns: u64,
    /// From when they were written (and the wait for room before that).
    pub from_write_ns: u64,
    /// The same, up to the last look that did not find the reply.
    pub least_ns: u64,
}

impl Lateness {
    /// At a `quantile` (below 1); `None` where too few samples lie above it.
    pub fn at(quantile_: f64, latency: &Histogram<u64>, open: &OpenLoop) -> Option<Lateness> {
        let of = |histogram| quantile(histogram, quantile_);
        let (latency_ns, queue_ns) = (of(latency)?, of(&open.queue)?);
        let from_write_ns = (queue_ns + of(&open.service)?).min(latency_ns);
        let least_ns = (queue_ns + of(&open.service_least)?).min(from_write_ns);
        Some(Lateness {
            latency_ns,
            from_write_ns,
            least_ns,
        })
    }

    /// What sending late adds, as a share of the latency.
    pub fn send_share(&self) -> f64 {
        self.share(self.latency_ns - self.from_write_ns)
    }

    /// What looking late may add, as a share of the latency.
    pub fn receive_share(&self) -> f64 {
        self.share(self.from_write_ns - self.least_ns)
    }

    fn share(&self, part_ns: u64) -> f64 {
        part_ns as f64 / self.latency_ns.max(1) as f64
    }

    /// Why the quantile called `name` can't be believed; empty if it can.
    pub fn objections(&self, name: &str) -> Vec<String> {
        let mut reasons = Vec::new();
        let cure = "give it a core of its own (--cpus), add --threads, or lower -R";
        if LATENESS_MAX < self.send_share() {
            reasons.push(format!(
                "the client sent late: {name} is {} from when messages were due, and {} from when they were written: {cure}",
                show_ns(self.latency_ns),
                show_ns(self.from_write_ns),
            ));
        }
        if LATENESS_MAX < self.receive_share() {
            reasons.push(format!(
                "the client looked late for replies: {name} from the write is {}, or as little as {} without that: {cure}",
                show_ns(self.from_write_ns),
                show_ns(self.least_ns),
            ));
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{Segment, Shape};

    fn parts(values: [u64; 4]) -> (Histogram<u64>, OpenLoop) {
        let Segment {
            mut latency, open, ..
        } = Segment::new(Shape {
            open: true,
            ..Shape::default()
        });
        let mut open = open.expect("it is an open loop's");
        for (histogram, value) in [
            (&mut latency, values[0]),
            (&mut open.queue, values[1]),
            (&mut open.service, values[2]),
            (&mut open.service_least, values[3]),
        ] {
            histogram.record_n(value, 2_000).expect("in range");
        }
        (latency, open)
    }

    fn at(values: [u64; 4]) -> Lateness {
        let (latency, open) = parts(values);
        Lateness::at(0.99, &latency, &open).expect("2,000 samples")
    }

    #[test]
    fn each_side_is_told_from_the_other() {
        let late = at([100_000, 0, 80_000, 79_000]);
        assert!((late.send_share() - 0.2).abs() < 0.002, "{late:?}");
        assert!(late.receive_share() < 0.02);
        assert_eq!(late.objections("p99").len(), 1);
        assert!(late.objections("p99")[0].contains("sent late"));
        let late = at([100_000, 0, 99_000, 80_000]);
        assert!(late.objections("p99")[0].contains("looked late"));
        // The wait for room is the server's doing.
        assert_eq!(
            at([100_000, 60_000, 40_000, 39_000]).objections("p99"),
            [""; 0]
        );
    }

    #[test]
    fn the_ends_never_cross() {
        // Quantiles of parts may add up to more than that of the whole.
        let late = at([100_000, 60_000, 90_000, 85_000]);
        assert_eq!((late.send_share(), late.receive_share()), (0.0, 0.0));
    }

    #[test]
    fn too_few_samples_say_nothing() {
        let (mut latency, open) = parts([1, 1, 1, 1]);
        latency.reset();
        assert_eq!(Lateness::at(0.99, &latency, &open), None);
    }
}
