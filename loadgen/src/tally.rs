//! What one stretch of load was to be, and what came of it: the sums over all workers.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use crate::{
    connect_times::ConnectTimes,
    cuts::{Cuts, Membership, Window},
    drive::Outcome,
    failure::Failures,
    payload::Difference,
    plan::Plan,
    segment::{OpenLoop, Segment, Shape},
};

/// One stretch of load. Instants count from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Open loop: in this time, at the start, each connection gets one message, in turn and evenly apart; the schedule
    /// follows. Zero for none of that. The closed loop greets all by itself.
    pub greeting: Duration,
    /// From when on is recorded: warm-up or ramp before.
    pub record_after: Duration,
    /// When the load ends, and with it the window. Beyond `record_after`.
    pub stop_after: Duration,
    /// How long after that answers are waited for.
    pub give_up_after: Duration,
    /// Which messages belong to the window.
    pub membership: Membership,
    /// Cut the window into intervals of this length, and find what changed from its first third to its last. `None`
    /// for a short slice that wants neither.
    pub intervals: Option<Duration>,
}

impl Phase {
    /// The window, in ns since the start.
    pub(crate) fn window(&self) -> Window {
        let from_ns = u64::try_from(self.record_after.as_nanos()).unwrap_or(u64::MAX / 4);
        let until_ns = u64::try_from(self.stop_after.as_nanos()).unwrap_or(u64::MAX / 2);
        Window {
            from_ns,
            until_ns: until_ns.max(from_ns + 1),
        }
    }
}

/// What came of a stretch, over all workers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tally {
    /// Due (open loop) or written (closed loop) to reply, ns; messages of the window, censored ones included.
    pub latency: Histogram<u64>,
    /// The parts of the latency; `None` in closed loop, which has none.
    pub open: Option<OpenLoop>,
    /// How long replies had waited for the client when it harvested them, ns, where the kernel was asked for its times.
    pub recv_lag: Option<Histogram<u64>>,
    /// The rate changed over the window: what differs from its first third to its last is no unsteadiness.
    pub ramped: bool,
    /// Closed loop: how long a connection waited after an answer, ns.
    pub think_ns: u64,
    /// Connections made in the window, where connections are made while load is driven (`--requests-per-connection`,
    /// `--reconnect`, a storm).
    pub connects: Option<ConnectTimes>,
    /// Connections made since the session was opened, the first ones included.
    pub life_opened: u64,
    /// How many of them took the place of one that failed.
    pub life_reopened: u64,
    /// Replies in the latency histogram, that is messages of the window that were answered.
    pub recorded: u64,
    /// Length of the window, ns: shorter than asked for if the load stopped early.
    pub recorded_span_ns: u64,
    /// Replies that were harvested inside the window, to whatever message: over `recorded_span_ns` that is the rate.
    /// With [`Membership::ByReply`] the same as `recorded`.
    pub replies: u64,
    /// Everything answered in the stretch, ramp and drain included.
    pub messages: u64,
    /// Everything sent in the stretch: `sent = messages + lost + outstanding`.
    pub sent: u64,
    /// Sent on connections that then failed.
    pub lost: u64,
    /// Sent and not answered when the waiting ended.
    pub outstanding: u64,
    /// The same counts for the messages of the window ([`Membership::ByStart`]).
    pub window: WindowCounts,
    /// Connections that failed, by kind.
    pub errors: Failures,
    /// The first byte that came back wrong, if bytes were compared.
    pub mismatch: Option<Difference>,
    /// Connections that still live.
    pub connections_alive: u64,
    /// CPU time of all client threads over the whole stretch, empty spins left out. `None` where others had the cpu of
    /// a thread that spins so often that its work can't be told from its spins.
    pub client_cpu_ns: Option<u64>,
    /// Share of the window in which the busiest client thread had work, 0 to 1.
    pub busiest_thread: f64,
    /// Time in the window that a client thread was ready to run while its cpu was another's: of the thread that
    /// waited most.
    pub run_delay_ns: u64,
    /// Closed loop: times between harvests without any reply, inside the window; all workers'.
    pub gaps: Histogram<u64>,
    /// How many workers `gaps` is the sum of.
    pub workers: usize,
    /// The window's thirds, where [`Phase::intervals`] asked for them and the load did not stop early.
    pub thirds: Option<[Third; 3]>,
    /// The load stopped before its time: on request, or because no connection was left.
    pub stopped_early: bool,
    /// Bytes that the kernel took from this session since it was opened. Of a send that was in flight when its
    /// connection failed, what had gone by then is not known and not in it.
    pub life_sent_bytes: u64,
    /// Bytes received since the session was opened.
    pub life_received_bytes: u64,
}

impl Tally {
    /// Written to reply, and from where on its quantiles are lower bounds. In closed loop that is the latency.
    pub fn service(&self) -> (&Histogram<u64>, Option<u64>) {
        match &self.open {
            Some(open) => (&open.service, open.service_censored_from_ns),
            None => (&self.latency, self.window.censored_from_ns),
        }
    }
}

/// The messages that were due (open loop) or written (closed loop) inside the window: `sent = answered + lost +
/// outstanding`, and what was due is `sent + unsent`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowCounts {
    /// Written, then or later.
    pub sent: u64,
    /// Answered, then or later.
    pub answered: u64,
    /// Sent on connections that then failed.
    pub lost: u64,
    /// Sent and not answered when the waiting ended.
    pub outstanding: u64,
    /// Due and never sent. Open loop only.
    pub unsent: u64,
    /// Values over 60 s, which the histograms hold as 60 s.
    pub clipped: u64,
    /// The least time that a message without an answer had waited: quantiles of `latency` from here on are lower bounds.
    pub censored_from_ns: Option<u64>,
}

impl WindowCounts {
    /// Messages that entered the histogram at the time that they had waited in vain.
    pub fn censored(&self) -> u64 {
        self.lost + self.outstanding + self.unsent
    }
}

/// One third of the window.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Third {
    /// Replies recorded in it.
    pub answered: u64,
    /// Median latency, ns.
    pub latency_p50_ns: u64,
    /// Median wait for room, ns.
    pub queue_p50_ns: u64,
    /// How many messages were due or written and not answered, on average.
    pub unanswered_mean: f64,
}

/// One interval of the window, complete, over all workers.
#[derive(Clone, Copy, Debug)]
pub struct Interval<'a> {
    /// From 0.
    pub index: usize,
    /// Where it lies, in ns since the start of the stretch.
    pub window: Window,
    /// Its figures.
    pub segment: &'a Segment,
}

/// Adds up what the workers hand over, and tells of each interval as soon as all have passed it.
pub(crate) struct Collector {
    cuts: Cuts,
    shape: Shape,
    workers: usize,
    total: Box<Segment>,
    thirds: Option<[Box<Segment>; 3]>,
    /// Intervals under way: their sums, and how many segments are still to come.
    intervals: BTreeMap<usize, (Box<Segment>, usize)>,
    /// Of each worker that is done: its last segment. Who lost all its connections has no later ones.
    last_segments: Vec<usize>,
    told: usize,
    ramped: bool,
    think_ns: u64,
}

impl Collector {
    /// For a plan's load; with `dials` connections are made while it is driven.
    pub(crate) fn new(cuts: Cuts, plan: &Plan, dials: bool) -> Collector {
        let shape = Shape::of(plan, dials);
        let empty = || Box::new(Segment::new(shape));
        let thirds = (1 < cuts.segments()).then(|| [(); 3].map(|()| empty()));
        Collector {
            cuts,
            shape,
            workers: plan.workers.len(),
            total: empty(),
            thirds,
            intervals: BTreeMap::new(),
            last_segments: Vec::new(),
            told: 0,
            ramped: plan.ramp_to_per_s.is_some(),
            think_ns: u64::try_from(plan.think.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// Takes in a segment that was full.
    pub(crate) fn add(&mut self, segment: &Segment) {
        self.total.add(segment);
        let Some(thirds) = &mut self.thirds else {
            return;
        };
        thirds[self.cuts.third_of(segment.index)].add(segment);
        let interval = self.cuts.interval_of(segment.index);
        let (sum, missing) = self.intervals.entry(interval).or_insert_with(|| {
            (
                Box::new(Segment::new(self.shape)),
                self.cuts.segments_of(interval).len() * self.workers,
            )
        });
        sum.add(segment);
        *missing -= 1;
    }

    /// Takes in the last segment of a worker that is done.
    pub(crate) fn end(&mut self, last: &Segment) {
        self.add(last);
        self.last_segments.push(last.index);
    }

    /// How many segments of an interval the workers that are done don't have.
    fn never_to_come(&self, interval: usize) -> usize {
        let segments = self.cuts.segments_of(interval);
        let of_worker = |last: &usize| segments.end.saturating_sub(segments.start.max(last + 1));
        self.last_segments.iter().map(of_worker).sum()
    }

    /// Tells `watch` of the intervals that are complete, in order, each once.
    pub(crate) fn tell(&mut self, watch: &mut dyn FnMut(Interval<'_>)) {
        while let Some((index, (_, missing))) = self.intervals.first_key_value()
            && *index == self.told
            && *missing == self.never_to_come(*index)
            && let Some((index, (segment, _))) = self.intervals.pop_first()
        {
            self.tell_one(index, &segment, None, watch);
        }
    }

    fn tell_one(
        &mut self,
        index: usize,
        segment: &Segment,
        until_ns: Option<u64>,
        watch: &mut dyn FnMut(Interval<'_>),
    ) {
        let mut window = self
            .cuts
            .intervals()
            .nth(index)
            .expect("segments lie in intervals of the same cuts");
        window.until_ns = window.until_ns.min(until_ns.unwrap_or(u64::MAX));
        watch(Interval {
            index,
            window,
            segment,
        });
        self.told = index + 1;
    }

    /// All workers are done: tells of the intervals that are left, and gives the sum.
    pub(crate) fn finish(
        mut self,
        outcomes: &[Box<Outcome>],
        watch: &mut dyn FnMut(Interval<'_>),
    ) -> Tally {
        // Workers that stop early do so within a turn of each other; the longest window is the stretch's.
        let window = outcomes
            .iter()
            .map(|outcome| outcome.window)
            .max_by_key(|window| window.until_ns);
        let window = window.expect("a fleet has at least one worker");
        while let Some((index, (segment, _))) = self.intervals.pop_first() {
            self.tell_one(index, &segment, Some(window.until_ns), watch);
        }
        let stopped_early = outcomes.iter().any(|outcome| outcome.stopped_early);
        let thirds = self.thirds.take().filter(|_| !stopped_early);
        let third_ns = window.length_ns() as f64 / 3.0;
        let thirds = thirds.map(|thirds| {
            thirds.map(|third| Third {
                answered: third.answered,
                latency_p50_ns: third.latency.value_at_quantile(0.5),
                queue_p50_ns: third
                    .open
                    .as_ref()
                    .map_or(0, |open| open.queue.value_at_quantile(0.5)),
                unanswered_mean: third.unanswered_ns as f64 / third_ns,
            })
        });
        let total = *self.total;
        let mut errors = Failures::default();
        outcomes
            .iter()
            .for_each(|outcome| errors.add(&outcome.failures));
        let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(|outcome| of(outcome)).sum::<u64>();
        Tally {
            latency: total.latency,
            open: total.open,
            recv_lag: total.recv_lag,
            ramped: self.ramped,
            think_ns: self.think_ns,
            connects: total.connects.map(|connects| *connects),
            life_opened: sum(|outcome| outcome.opened),
            life_reopened: sum(|outcome| outcome.reopened),
            recorded: total.answered,
            recorded_span_ns: window.length_ns(),
            replies: total.replies,
            messages: sum(|outcome| outcome.counts.answered),
            sent: sum(|outcome| outcome.counts.sent),
            lost: sum(|outcome| outcome.counts.lost),
            outstanding: sum(|outcome| outcome.outstanding),
            window: WindowCounts {
                sent: total.sent,
                answered: total.answered,
                lost: total.lost,
                outstanding: total.outstanding,
                unsent: total.unsent,
                clipped: total.clipped,
                censored_from_ns: total.censored_from_ns,
            },
            errors,
            mismatch: outcomes.iter().find_map(|outcome| outcome.mismatch),
            connections_alive: sum(|outcome| outcome.alive as u64),
            client_cpu_ns: outcomes.iter().map(|outcome| outcome.usage.cpu_ns).sum(),
            busiest_thread: outcomes
                .iter()
                .map(|outcome| outcome.usage.busy)
                .fold(0.0, f64::max),
            run_delay_ns: outcomes
                .iter()
                .map(|outcome| outcome.usage.run_delay_ns)
                .max()
                .unwrap_or(0),
            gaps: total.gaps,
            workers: self.workers,
            thirds,
            stopped_early,
            life_sent_bytes: sum(|outcome| outcome.sent_bytes),
            life_received_bytes: sum(|outcome| outcome.received_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_is_done_early_holds_no_interval_up() {
        let window = Window {
            from_ns: 0,
            until_ns: 4_000,
        };
        // Each interval's segments: 0, 1 and 2, 3 and 4, 5 (the thirds end amid the second and the third).
        let cuts = Cuts::new(window, Some(Duration::from_nanos(1_000)));
        assert_eq!(cuts.segments(), 6);
        let plan = Plan {
            workers: vec![None, None],
            ..Plan::default()
        };
        let mut collector = Collector::new(cuts, &plan, false);
        let segment = |index| Segment {
            index,
            answered: 1,
            ..Segment::new(Shape::default())
        };
        let told = |collector: &mut Collector| {
            let mut told = Vec::new();
            collector.tell(&mut |interval| told.push((interval.index, interval.segment.answered)));
            told
        };
        // One worker is done amid the second interval; the other goes on.
        collector.add(&segment(0));
        collector.add(&segment(0));
        assert_eq!(told(&mut collector), [(0, 2)]);
        collector.add(&segment(1));
        assert_eq!(told(&mut collector), []);
        collector.end(&segment(1));
        assert_eq!(told(&mut collector), [], "the other is amid it too");
        collector.add(&segment(2));
        assert_eq!(told(&mut collector), [(1, 3)]);
        collector.add(&segment(3));
        assert_eq!(told(&mut collector), []);
        collector.add(&segment(4));
        assert_eq!(told(&mut collector), [(2, 2)]);
    }
}
