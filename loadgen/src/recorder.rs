//! What is remembered of a stretch of load: its histograms, cut into segments of time, and a few sums.
//!
//! A worker has one recorder and shares it with nobody. The window is cut where an interval or a third of it ends;
//! at a cut the worker hands the full segment to the collecting thread and goes on with an empty one, so that adding
//! up never happens on a thread that is being timed.

use std::{ops::Range, time::Duration};

use hdrhistogram::Histogram;

use crate::{
    connects::Connects,
    flow::{Message, Written},
    plan::{Load, Plan},
};

/// Values above this are clipped to it, and counted: 60 s in ns.
pub const VALUE_NS_MAX: u64 = 60_000_000_000;

/// An empty histogram as all of ours are: 1 ns to 60 s, 3 significant digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, VALUE_NS_MAX, 3)
        .expect("1 ns to 60 s in 3 digits is a shape that HdrHistogram has")
}

/// Which messages belong to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// Those due (open loop) or written (closed loop) within it, whenever their reply comes: a run.
    ByStart,
    /// Those whose reply is harvested within it: a slice.
    ByReply,
}

/// The window that is recorded, in ns since the start of the stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First instant inside.
    pub from_ns: u64,
    /// First instant after it.
    pub until_ns: u64,
}

impl Window {
    #[inline]
    fn contains(&self, at_ns: u64) -> bool {
        self.from_ns <= at_ns && at_ns < self.until_ns
    }

    /// Its length.
    pub fn length_ns(&self) -> u64 {
        self.until_ns - self.from_ns
    }

    /// The load stopped early, at `now_ns`: the window ends there, or at once where it has not begun.
    pub(crate) fn cut_short(&mut self, now_ns: u64) {
        self.until_ns = self.until_ns.min(now_ns.max(self.from_ns));
    }
}

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
    pub connects: Option<Box<Connects>>,
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
pub struct OpenLoop {
    /// Written to reply, ns. Censored messages that were written are in it too.
    pub service: Histogram<u64>,
    /// Waiting for room on the connection, ns.
    pub queue: Histogram<u64>,
    /// The client's own lateness, ns.
    pub send_lag: Histogram<u64>,
    /// As the latency's `censored_from_ns`, for `service`.
    pub service_censored_from_ns: Option<u64>,
}

impl OpenLoop {
    fn new() -> OpenLoop {
        OpenLoop {
            service: histogram(),
            queue: histogram(),
            send_lag: histogram(),
            service_censored_from_ns: None,
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
            open: shape.open.then(OpenLoop::new),
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
            [&mut open.service, &mut open.queue, &mut open.send_lag]
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
        let of_open = self
            .open
            .iter_mut()
            .zip(&other.open)
            .flat_map(|(mine, theirs)| {
                mine.service_censored_from_ns = least(
                    mine.service_censored_from_ns,
                    theirs.service_censored_from_ns,
                );
                [
                    (&mut mine.service, &theirs.service),
                    (&mut mine.queue, &theirs.queue),
                    (&mut mine.send_lag, &theirs.send_lag),
                ]
            });
        let of_both = [
            (&mut self.latency, &other.latency),
            (&mut self.gaps, &other.gaps),
        ];
        let of_stamped = self.recv_lag.iter_mut().zip(&other.recv_lag);
        for (mine, theirs) in of_both.into_iter().chain(of_open).chain(of_stamped) {
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

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Where a window is cut: at the end of each interval and of each third.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuts {
    window: Window,
    /// Ends of the segments, ascending; the last is the window's end.
    ends_ns: Vec<u64>,
    interval_ns: Option<u64>,
}

impl Cuts {
    /// Cuts for `window`; without `interval` there is one segment and no thirds.
    pub fn new(window: Window, interval: Option<Duration>) -> Cuts {
        let interval_ns = interval.map(|interval| (interval.as_nanos() as u64).max(1));
        let mut ends_ns = vec![window.until_ns];
        if let Some(interval_ns) = interval_ns {
            let thirds = (1..3).map(|third| window.from_ns + window.length_ns() * third / 3);
            let intervals = (1..).map(|count| window.from_ns + count * interval_ns);
            ends_ns.extend(thirds);
            ends_ns.extend(intervals.take_while(|end| *end < window.until_ns));
            ends_ns.sort_unstable();
            ends_ns.dedup();
        }
        Cuts {
            window,
            ends_ns,
            interval_ns,
        }
    }

    /// How many segments there are; at least 1.
    pub fn segments(&self) -> usize {
        self.ends_ns.len()
    }

    /// When segment `index` ends; `u64::MAX` for the last, which takes all that comes late.
    fn end_ns(&self, index: usize) -> u64 {
        if index + 1 < self.ends_ns.len() {
            self.ends_ns[index]
        } else {
            u64::MAX
        }
    }

    /// Which interval segment `index` belongs to, from 0.
    pub fn interval_of(&self, index: usize) -> usize {
        self.interval_ns.map_or(0, |interval_ns| {
            ((self.begin_ns(index) - self.window.from_ns) / interval_ns) as usize
        })
    }

    /// The segments that interval `index` is made of.
    pub fn segments_of(&self, index: usize) -> Range<usize> {
        let interval_ns = self.interval_ns.unwrap_or(self.window.length_ns()).max(1);
        // Those before that end by then, in order.
        let before = |interval: u64| {
            let begin_ns = self.window.from_ns + interval * interval_ns;
            self.ends_ns.partition_point(|end_ns| *end_ns <= begin_ns)
        };
        let index = index as u64;
        let first = if index == 0 { 0 } else { before(index) };
        first..before(index + 1)
    }

    /// Which third of the window segment `index` belongs to, 0 to 2.
    pub fn third_of(&self, index: usize) -> usize {
        let from_ns = self.begin_ns(index) - self.window.from_ns;
        // The comparison that made the cut, so that a segment never falls between two thirds.
        (1..3)
            .filter(|third| self.window.length_ns() * third / 3 <= from_ns)
            .count()
    }

    /// How many intervals there are, and the window of each.
    pub fn intervals(&self) -> impl Iterator<Item = Window> + '_ {
        let interval_ns = self.interval_ns.unwrap_or(self.window.length_ns()).max(1);
        let count = self.window.length_ns().div_ceil(interval_ns);
        (0..count).map(move |index| Window {
            from_ns: self.window.from_ns + index * interval_ns,
            until_ns: (self.window.from_ns + (index + 1) * interval_ns).min(self.window.until_ns),
        })
    }

    fn begin_ns(&self, index: usize) -> u64 {
        if index == 0 {
            self.window.from_ns
        } else {
            self.ends_ns[index - 1]
        }
    }
}

/// A worker's recorder. Instants are ns since the start of the stretch.
pub struct Recorder {
    segment: Box<Segment>,
    segment_end_ns: u64,
    cuts: Cuts,
    window: Window,
    membership: Membership,
    /// Whether replies that are being harvested now lie in the window.
    inside: bool,
    /// Until when `unanswered_ns` has been summed.
    summed_until_ns: u64,
    last_reply_ns: u64,
}

impl Recorder {
    /// A recorder for one stretch; `segment` is an empty one for the loop's kind, perhaps used before.
    pub fn new(cuts: Cuts, membership: Membership, segment: Box<Segment>) -> Recorder {
        let window = cuts.window;
        let segment_end_ns = cuts.end_ns(0);
        Recorder {
            segment,
            segment_end_ns,
            cuts,
            window,
            membership,
            inside: false,
            summed_until_ns: window.from_ns,
            last_reply_ns: 0,
        }
    }

    /// Tells that a harvest begins, stamped with `now_ns`, and that `unanswered` messages were under way until now.
    /// Segments that ended before are given to `hand_over`, which puts an empty one in their place.
    #[inline]
    pub fn begin_turn(
        &mut self,
        now_ns: u64,
        unanswered: u64,
        mut hand_over: impl FnMut(&mut Box<Segment>),
    ) {
        self.inside = self.window.contains(now_ns);
        while self.segment_end_ns <= now_ns {
            self.sum_unanswered(self.segment_end_ns, unanswered);
            let index = self.segment.index + 1;
            hand_over(&mut self.segment);
            self.segment.index = index;
            self.segment_end_ns = self.cuts.end_ns(index);
        }
        self.sum_unanswered(now_ns, unanswered);
    }

    /// A message of the plan is being written.
    #[inline]
    pub fn written(&mut self, message: Written) {
        if self.membership == Membership::ByStart && !self.window.contains(message.due_ns) {
            return;
        }
        let segment = &mut *self.segment;
        segment.sent += 1;
        if let Some(open) = &mut segment.open {
            record(&mut open.queue, message.queue_ns, &mut segment.clipped);
            record(
                &mut open.send_lag,
                message.send_lag_ns,
                &mut segment.clipped,
            );
        }
    }

    /// A message is answered; its reply was harvested at `now_ns`, the instant of the turn, and had waited for that for
    /// `recv_lag_ns`, where that is known.
    #[inline]
    pub fn answered(&mut self, message: Message, now_ns: u64, recv_lag_ns: Option<u64>) {
        self.segment.replies += u64::from(self.inside);
        if !self.is_member(message.due_ns) {
            return;
        }
        let segment = &mut *self.segment;
        segment.answered += 1;
        record(
            &mut segment.latency,
            now_ns.saturating_sub(message.due_ns),
            &mut segment.clipped,
        );
        if let Some(open) = &mut segment.open {
            record(
                &mut open.service,
                now_ns.saturating_sub(message.written_ns),
                &mut segment.clipped,
            );
        }
        if let (Some(lag_ns), Some(lags)) = (recv_lag_ns, &mut segment.recv_lag) {
            record(lags, lag_ns, &mut segment.clipped);
        }
    }

    /// A connection whose dial began at `begun_ns` is there, as of the turn's `now_ns`. It belongs to the window as a
    /// message does.
    pub fn connected(&mut self, begun_ns: u64, now_ns: u64, syn_retransmits: u32) {
        if self.is_member(begun_ns)
            && let Some(connects) = &mut self.segment.connects
        {
            connects.connected(now_ns.saturating_sub(begun_ns), syn_retransmits);
        }
    }

    /// The first answer on a connection whose dial began at `begun_ns`.
    pub fn first_echo(&mut self, begun_ns: u64, now_ns: u64) {
        if self.is_member(begun_ns)
            && let Some(connects) = &mut self.segment.connects
        {
            connects.first_echo(now_ns.saturating_sub(begun_ns));
        }
    }

    #[inline]
    fn is_member(&self, start_ns: u64) -> bool {
        match self.membership {
            Membership::ByStart => self.window.contains(start_ns),
            Membership::ByReply => self.inside,
        }
    }

    /// All replies of this harvest have been told. Closed loop: the time since the last harvest that had any was a
    /// gap without replies.
    #[inline]
    pub fn end_turn(&mut self, replies: u64, now_ns: u64) {
        if self.segment.open.is_some() || replies == 0 {
            return;
        }
        self.record_gap(now_ns);
        self.last_reply_ns = now_ns;
    }

    /// A message was written and its answer will never come (`outstanding` says that the connection still lives and
    /// we stopped waiting): it enters the latency at the time that it has waited until `now_ns`.
    pub fn unanswered(&mut self, message: Message, outstanding: bool, now_ns: u64) {
        if self.membership == Membership::ByStart && !self.window.contains(message.due_ns) {
            return;
        }
        if outstanding {
            self.segment.outstanding += 1;
        } else {
            self.segment.lost += 1;
        }
        self.censor(message.due_ns, now_ns, 1);
        let segment = &mut *self.segment;
        if let Some(open) = &mut segment.open {
            let waited_ns = now_ns.saturating_sub(message.written_ns);
            record(&mut open.service, waited_ns, &mut segment.clipped);
            open.service_censored_from_ns = least(open.service_censored_from_ns, Some(waited_ns));
        }
    }

    /// A message was due at `due_ns` and will never be written: it enters the latency as an unanswered one does.
    pub fn unsent(&mut self, due_ns: u64, now_ns: u64) {
        self.unsent_alike(due_ns, now_ns, 1);
    }

    /// As [`Recorder::unsent`] for `count` messages that are all due before [`Recorder::alike_until`].
    pub fn unsent_alike(&mut self, due_ns: u64, now_ns: u64, count: u64) {
        // In closed loop a message that was not written was not due either.
        if self.segment.open.is_none()
            || (self.membership == Membership::ByStart && !self.window.contains(due_ns))
        {
            return;
        }
        self.segment.unsent += count;
        self.censor(due_ns, now_ns, count);
    }

    /// Until when messages that were never written are told from one that was due at `due_ns` by nothing that is
    /// remembered: they lie on the same side of the window's bounds, and in the same bucket of the histogram. There are
    /// some 30,000 buckets, however many messages.
    pub fn alike_until(&self, due_ns: u64, now_ns: u64) -> u64 {
        let waited_ns = now_ns.saturating_sub(due_ns);
        let least_ns = match VALUE_NS_MAX < waited_ns {
            true => VALUE_NS_MAX + 1,
            false => self.segment.latency.lowest_equivalent(waited_ns),
        };
        let until_ns = now_ns.saturating_sub(least_ns).max(due_ns) + 1;
        let bounds = [self.window.from_ns, self.window.until_ns];
        let next_bound = bounds.into_iter().find(|bound| due_ns < *bound);
        until_ns.min(next_bound.unwrap_or(u64::MAX))
    }

    /// The load stopped early, at `now_ns`: the window ends here, and with it the last segment, which takes all that comes
    /// late.
    pub fn cut_short(&mut self, now_ns: u64) {
        self.window.cut_short(now_ns);
        self.segment_end_ns = u64::MAX;
    }

    /// The window as it was in the end.
    pub fn window(&self) -> Window {
        self.window
    }

    /// The end: gives the last segment, and the sum of the time after the last reply as a gap.
    pub fn finish(mut self) -> Box<Segment> {
        if self.segment.open.is_none() {
            self.record_gap(self.window.until_ns);
        }
        self.segment
    }

    /// The part of the time from the last reply until `now_ns` that lies in the window.
    #[inline]
    fn record_gap(&mut self, now_ns: u64) {
        let (from_ns, until_ns) = (
            self.last_reply_ns.max(self.window.from_ns),
            now_ns.min(self.window.until_ns),
        );
        if from_ns < until_ns {
            self.segment.gaps.saturating_record(until_ns - from_ns);
        }
    }

    fn censor(&mut self, due_ns: u64, now_ns: u64, count: u64) {
        let waited_ns = now_ns.saturating_sub(due_ns);
        if VALUE_NS_MAX < waited_ns {
            self.segment.clipped += count;
        }
        let latency = &mut self.segment.latency;
        latency.saturating_record_n(waited_ns.min(VALUE_NS_MAX), count);
        self.segment.censored_from_ns = least(self.segment.censored_from_ns, Some(waited_ns));
    }

    #[inline]
    fn sum_unanswered(&mut self, until_ns: u64, unanswered: u64) {
        let until_ns = until_ns.min(self.window.until_ns);
        if self.summed_until_ns < until_ns {
            self.segment.unanswered_ns +=
                u128::from(until_ns - self.summed_until_ns) * u128::from(unanswered);
            self.summed_until_ns = until_ns;
        }
    }
}

#[inline]
fn record(histogram: &mut Histogram<u64>, value_ns: u64, clipped: &mut u64) {
    if VALUE_NS_MAX < value_ns {
        *clipped += 1;
    }
    histogram.saturating_record(value_ns.min(VALUE_NS_MAX));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Window = Window {
        from_ns: 1_000,
        until_ns: 2_000,
    };

    const OPEN: Shape = Shape {
        open: true,
        dials: false,
        stamped: false,
    };

    fn recorder(membership: Membership, open: bool) -> Recorder {
        Recorder::new(
            Cuts::new(WINDOW, None),
            membership,
            Box::new(Segment::new(Shape {
                open,
                ..Shape::default()
            })),
        )
    }

    fn never(_: &mut Box<Segment>) {
        panic!("one segment has no cut");
    }

    fn message(due_ns: u64, written_ns: u64) -> Message {
        Message { due_ns, written_ns }
    }

    #[test]
    fn a_run_counts_what_was_due_in_the_window() {
        let mut recorder = recorder(Membership::ByStart, true);
        for (due_ns, reply_ns) in [(999, 1_500), (1_000, 1_100), (1_999, 5_000), (2_000, 5_000)] {
            recorder.begin_turn(reply_ns, 1, never);
            recorder.written(Written {
                due_ns,
                queue_ns: 3,
                send_lag_ns: 4,
            });
            recorder.answered(message(due_ns, due_ns + 7), reply_ns, None);
        }
        let segment = recorder.finish();
        assert_eq!((segment.sent, segment.answered, segment.replies), (2, 2, 2));
        assert_eq!((segment.latency.min(), segment.latency.max()), (100, 3_001));
        let open = segment.open.expect("an open loop");
        assert_eq!(open.service.min(), 93);
        assert_eq!((open.queue.max(), open.send_lag.max()), (3, 4));
    }

    #[test]
    fn a_slice_counts_what_was_answered_in_the_window() {
        let mut recorder = recorder(Membership::ByReply, false);
        for (written_ns, reply_ns) in [(500, 999), (900, 1_000), (1_500, 1_999), (1_500, 2_000)] {
            recorder.begin_turn(reply_ns, 1, never);
            recorder.answered(message(written_ns, written_ns), reply_ns, None);
        }
        let segment = recorder.finish();
        assert_eq!((segment.answered, segment.replies), (2, 2));
        assert_eq!((segment.latency.min(), segment.latency.max()), (100, 499));
        assert_eq!(segment.service().0, &segment.latency);
    }

    #[test]
    fn who_is_not_answered_is_censored_and_who_is_too_late_clipped() {
        let mut recorder = recorder(Membership::ByStart, true);
        recorder.begin_turn(1_500, 0, never);
        recorder.unanswered(message(1_100, 1_200), false, 1_500);
        recorder.unanswered(message(1_100, 1_100), true, VALUE_NS_MAX + 1_101);
        recorder.unsent(1_300, 1_500);
        recorder.unsent(500, 1_500);
        let segment = recorder.finish();
        assert_eq!(
            (
                segment.lost,
                segment.outstanding,
                segment.unsent,
                segment.clipped
            ),
            (1, 1, 1, 2)
        );
        assert_eq!(
            (segment.censored_from_ns, segment.service().1),
            (Some(200), Some(300))
        );
        assert_eq!(segment.latency.len(), 3);
    }

    #[test]
    fn messages_that_are_alike_are_recorded_as_one_by_one() {
        let window = Window {
            from_ns: 5_000_000,
            until_ns: 20_000_000,
        };
        // Soon after the last was due; and so late that the first are clipped.
        for now_ns in [20_000_100, VALUE_NS_MAX + 10_000_000] {
            let new = || {
                let segment = Box::new(Segment::new(OPEN));
                Recorder::new(Cuts::new(window, None), Membership::ByStart, segment)
            };
            let (mut each, mut alike) = (new(), new());
            for due_ns in (0..20_000_000).step_by(100) {
                each.unsent(due_ns, now_ns);
            }
            let (mut due_ns, mut steps) = (0, 0);
            while due_ns < 20_000_000 {
                let end_ns = alike.alike_until(due_ns, now_ns).min(20_000_000);
                assert!(due_ns < end_ns);
                let count = (due_ns..end_ns).filter(|at_ns| at_ns % 100 == 0).count() as u64;
                if count != 0 {
                    alike.unsent_alike(due_ns, now_ns, count);
                }
                (due_ns, steps) = (end_ns, steps + 1);
            }
            assert!(steps < 30_000, "{steps}");
            let (each, alike) = (each.finish(), alike.finish());
            assert_eq!((each.unsent, alike.unsent), (150_000, 150_000));
            assert_eq!(each.clipped, alike.clipped);
            assert_eq!(each.latency, alike.latency);
            let same = |segment: &Segment| {
                let from_ns = segment.censored_from_ns.expect("all are censored");
                segment.latency.lowest_equivalent(from_ns.min(VALUE_NS_MAX))
            };
            assert_eq!(same(&each), same(&alike));
        }
    }

    #[test]
    fn gaps_without_replies_are_cut_to_the_window() {
        let mut recorder = recorder(Membership::ByStart, false);
        for (reply_ns, replies) in [(900, 1), (1_300, 2), (1_400, 0), (1_500, 1), (5_000, 1)] {
            recorder.begin_turn(reply_ns, 0, never);
            recorder.end_turn(replies, reply_ns);
        }
        let gaps: Vec<u64> = recorder
            .finish()
            .gaps
            .iter_recorded()
            .flat_map(|step| vec![step.value_iterated_to(); step.count_at_value() as usize])
            .collect();
        // 1,000-1,300, 1,300-1,500, 1,500-2,000, each to two digits.
        assert_eq!(gaps.len(), 3);
        for (gap, expected) in gaps.into_iter().zip([200u64, 300, 500]) {
            assert!(
                gap.abs_diff(expected) <= expected / 100,
                "{gap} for {expected}"
            );
        }
    }

    #[test]
    fn unanswered_messages_are_summed_over_the_window() {
        let mut recorder = recorder(Membership::ByStart, true);
        for (now_ns, unanswered) in [(500, 100), (1_500, 4), (1_600, 10), (3_000, 1)] {
            recorder.begin_turn(now_ns, unanswered, never);
        }
        assert_eq!(recorder.finish().unanswered_ns, 500 * 4 + 100 * 10 + 400);
    }

    #[test]
    fn segments_are_handed_over_where_intervals_and_thirds_end() {
        let window = Window {
            from_ns: 0,
            until_ns: 3_000,
        };
        let cuts = Cuts::new(window, Some(Duration::from_nanos(1_500)));
        assert_eq!(cuts.segments(), 4);
        assert_eq!(
            (0..4)
                .map(|index| cuts.interval_of(index))
                .collect::<Vec<_>>(),
            [0, 0, 1, 1]
        );
        assert_eq!(
            (0..4).map(|index| cuts.third_of(index)).collect::<Vec<_>>(),
            [0, 1, 1, 2]
        );
        let mut recorder = Recorder::new(cuts, Membership::ByStart, Box::new(Segment::new(OPEN)));
        let mut full = Vec::new();
        for now_ns in [10, 990, 1_000, 2_600, 2_999, 9_000] {
            recorder.begin_turn(now_ns, 0, |segment| {
                full.push(std::mem::replace(segment, Box::new(Segment::new(OPEN))));
            });
            recorder.answered(message(0, 0), now_ns, None);
        }
        full.push(recorder.finish());
        let seen: Vec<_> = full
            .iter()
            .map(|segment| (segment.index, segment.answered, segment.replies))
            .collect();
        assert_eq!(seen, [(0, 2, 2), (1, 1, 1), (2, 0, 0), (3, 3, 2)]);
    }

    proptest! {
        #[test]
        fn cuts_cover_the_window(length in 1u64..100_000, interval in 1u64..50_000, from in 0u64..1_000) {
            let window = Window { from_ns: from, until_ns: from + length };
            let cuts = Cuts::new(window, Some(Duration::from_nanos(interval.max(length / 50))));
            let intervals: Vec<Window> = cuts.intervals().collect();
            prop_assert_eq!(intervals.iter().map(Window::length_ns).sum::<u64>(), length);
            let (mut thirds, mut counts) = ([0; 3], vec![0; intervals.len()]);
            for index in 0..cuts.segments() {
                counts[cuts.interval_of(index)] += 1;
                let of = intervals[cuts.interval_of(index)];
                let end_ns = cuts.ends_ns[index];
                prop_assert!(of.from_ns <= cuts.begin_ns(index) && end_ns <= of.until_ns);
                thirds[cuts.third_of(index)] += end_ns - cuts.begin_ns(index);
            }
            prop_assert!(thirds.iter().all(|third| third.abs_diff(length / 3) <= 1), "{:?} of {}", thirds, length);
            prop_assert_eq!((0..intervals.len()).map(|index| cuts.segments_of(index).len()).collect::<Vec<_>>(), counts);
        }

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
