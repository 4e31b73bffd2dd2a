//! One worker's figures from one stretch of time: histograms and sums that add up.

use hdrhistogram::Histogram;

use crate::{
    connect_times::ConnectTimes,
    plan::{Load, Plan},
    summary::{VALUE_NS_MAX, histogram},
};

/// One worker's figures from one stretch of time. A reply is counted in the segment in which it was harvested; what
/// comes after the window goes to the last.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its place among the segments of the window, from 0.
    pub index: usize,
    /// Due (open loop) or written (closed loop) to reply, ns. Censored messages are in it too.
    pub latency: Histogram<u64>,
    /// What only an open loop has.
    pub open: Option<OpenLoop>,
    /// How long replies had waited for the client when it harvested them, ns: from the kernel's receive time of what ended
    /// the reply. Where the kernel was asked for its times; a reply without one is not in it.
    pub recv_lag: Option<Histogram<u64>>,
    /// Connections made in this segment, where connections are made at all while load is driven.
    pub connects: Option<Box<ConnectTimes>>,
    /// Of the window's messages: written in this segment.
    pub sent: u64,
    /// Of the window's messages: answered in this segment.
    pub answered: u64,
    /// All replies harvested in this segment and inside the window, to whatever message.
    pub replies: u64,
    /// Of the window's messages: lost in this segment.
    pub lost: u64,
    /// Of the window's messages: given up as still in flight.
    pub outstanding: u64,
    /// Of the window's messages: due and never written.
    pub unsent: u64,
    /// Values above [`VALUE_NS_MAX`].
    pub clipped: u64,
    /// The least time that a censored message had waited: a quantile of `latency` that reaches it is known to be at
    /// least what it shows, and no more.
    pub censored_from_ns: Option<u64>,
    /// Integral of the number of unanswered messages over this segment's time inside the window: message-ns.
    pub unanswered_ns: u128,
    /// Stretches without any reply between harvests, ns. Closed loop only, where they show coordinated omission.
    pub gaps: Histogram<u64>,
}

/// The parts of the latency, message by message: latency = queue + send lag + service. A closed loop has none of them:
/// it sends when it can, and so its service time is its latency.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenLoop {
    /// Written to reply, ns. Censored messages that were written are in it too.
    pub service: Histogram<u64>,
    /// Waiting for room on the connection, ns.
    pub queue: Histogram<u64>,
    /// The client's own lateness in sending, ns.
    pub send_lag: Histogram<u64>,
    /// Written to reply, less what the reply may have waited for the client, ns: up to the last look at the sockets that did
    /// not find it, or up to the kernel's receive time where the kernel was asked for it. The true service time lies
    /// between this and `service`.
    pub service_least: Histogram<u64>,
    /// As the latency's `censored_from_ns`, for `service`.
    pub service_censored_from_ns: Option<u64>,
}

impl Default for OpenLoop {
    fn default() -> OpenLoop {
        OpenLoop {
            service: histogram(),
            queue: histogram(),
            send_lag: histogram(),
            service_least: histogram(),
            service_censored_from_ns: None,
        }
    }
}

impl OpenLoop {
    /// Adds another's figures to these.
    pub fn add(&mut self, other: &OpenLoop) {
        self.service_censored_from_ns = least(
            self.service_censored_from_ns,
            other.service_censored_from_ns,
        );
        for (mine, theirs) in [
            (&mut self.service, &other.service),
            (&mut self.queue, &other.queue),
            (&mut self.send_lag, &other.send_lag),
            (&mut self.service_least, &other.service_least),
        ] {
            mine.add(theirs).expect("all are of one shape");
        }
    }
}

/// What a segment has besides what all have. The default is a closed loop's on connections that stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The parts of the latency, which only an open loop has.
    pub open: bool,
    /// Connects, where connections are made while load is driven.
    pub dials: bool,
    /// How long replies waited for the client, where the kernel tells when they came.
    pub stamped: bool,
}

impl Shape {
    /// For a plan's load; with `dials` connections are made while it is driven (which a storm does, whatever its plan).
    pub fn of(plan: &Plan, dials: bool) -> Shape {
        Shape {
            open: plan.load != Load::Closed,
            dials,
            stamped: plan.is_stamped(),
        }
    }
}

impl Segment {
    /// An empty segment.
    pub fn new(shape: Shape) -> Segment {
        Segment {
            index: 0,
            latency: histogram(),
            open: shape.open.then(OpenLoop::default),
            recv_lag: shape.stamped.then(histogram),
            connects: shape.dials.then(Box::default),
            sent: 0,
            answered: 0,
            replies: 0,
            lost: 0,
            outstanding: 0,
            unsent: 0,
            clipped: 0,
            censored_from_ns: None,
            unanswered_ns: 0,
            gaps: Histogram::new_with_bounds(1, VALUE_NS_MAX, 2)
                .expect("1 ns to 60 s in 2 digits is a shape that HdrHistogram has"),
        }
    }

    /// Empties it for its next use. Only what was used is touched.
    pub fn clear(&mut self) {
        let of_open = self.open.iter_mut().flat_map(|open| {
            open.service_censored_from_ns = None;
            [
                &mut open.service,
                &mut open.queue,
                &mut open.send_lag,
                &mut open.service_least,
            ]
        });
        for histogram in [&mut self.latency, &mut self.gaps]
            .into_iter()
            .chain(of_open)
            .chain(&mut self.recv_lag)
        {
            if !histogram.is_empty() {
                histogram.reset();
            }
        }
        if let Some(connects) = &mut self.connects {
            connects.clear();
        }
        self.index = 0;
        for count in [
            &mut self.sent,
            &mut self.answered,
            &mut self.replies,
            &mut self.lost,
            &mut self.outstanding,
            &mut self.unsent,
            &mut self.clipped,
        ] {
            *count = 0;
        }
        self.censored_from_ns = None;
        self.unanswered_ns = 0;
    }

    /// Adds another's figures to these.
    pub fn add(&mut self, other: &Segment) {
        if let (Some(mine), Some(theirs)) = (&mut self.open, &other.open) {
            mine.add(theirs);
        }
        let of_both = [
            (&mut self.latency, &other.latency),
            (&mut self.gaps, &other.gaps),
        ];
        let of_stamped = self.recv_lag.iter_mut().zip(&other.recv_lag);
        for (mine, theirs) in of_both.into_iter().chain(of_stamped) {
            mine.add(theirs).expect("segments are all of one shape");
        }
        if let (Some(mine), Some(theirs)) = (&mut self.connects, &other.connects) {
            mine.add(theirs);
        }
        self.sent += other.sent;
        self.answered += other.answered;
        self.replies += other.replies;
        self.lost += other.lost;
        self.outstanding += other.outstanding;
        self.unsent += other.unsent;
        self.clipped += other.clipped;
        self.censored_from_ns = least(self.censored_from_ns, other.censored_from_ns);
        self.unanswered_ns += other.unanswered_ns;
    }

    /// Written to reply, and from where on its quantiles are lower bounds. In closed loop that is the latency.
    pub fn service(&self) -> (&Histogram<u64>, Option<u64>) {
        match &self.open {
            Some(open) => (&open.service, open.service_censored_from_ns),
            None => (&self.latency, self.censored_from_ns),
        }
    }
}

pub(crate) fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Records a value, clipped to what a histogram holds, and counts it where it is.
#[inline]
pub(crate) fn record(histogram: &mut Histogram<u64>, value_ns: u64, clipped: &mut u64) {
    if VALUE_NS_MAX < value_ns {
        *clipped += 1;
    }
    histogram.saturating_record(value_ns.min(VALUE_NS_MAX));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn adding_segments_loses_nothing(values in prop::collection::vec((0u64..90_000_000_000, 0usize..3), 1..200)) {
            let mut parts = [(); 3].map(|()| Segment::new(Shape::default()));
            let mut whole = Segment::new(Shape::default());
            for (value, part) in values {
                for segment in [&mut parts[part], &mut whole] {
                    record(&mut segment.latency, value, &mut segment.clipped);
                    segment.censored_from_ns = least(segment.censored_from_ns, Some(value));
                }
            }
            let mut sum = Segment::new(Shape::default());
            parts.iter().for_each(|part| sum.add(part));
            prop_assert_eq!(&sum.latency, &whole.latency);
            prop_assert_eq!((sum.clipped, sum.censored_from_ns), (whole.clipped, whole.censored_from_ns));
            sum.clear();
            prop_assert!(sum.latency.is_empty() && sum.clipped == 0);
        }
    }
}
