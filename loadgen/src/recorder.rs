//! What happened in a stretch of load is recorded here, message by message.
//!
//! A worker has one recorder and shares it with nobody. The window is cut where an interval or a third of it ends;
//! at a cut the worker hands the full segment to the collecting thread and goes on with an empty one, so that adding
//! up never happens on a thread that is being timed.

use crate::{
    cuts::{Cuts, Membership, Window},
    flow::{Message, Written},
    segment::{Segment, least, record},
    summary::VALUE_NS_MAX,
};

pub use crate::summary::histogram;

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
    /// When the sockets were looked at last.
    looked_ns: u64,
    /// How long the replies that are being harvested may have waited for the worker: it was busy with other things.
    unseen_ns: u64,
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
            looked_ns: 0,
            unseen_ns: 0,
        }
    }

    /// Tells that a harvest begins, stamped with `now_ns`, and that `unanswered` messages were under way until now. Since
    /// `waited_from_ns` the worker did nothing but wait for it; one that never waits looks at `now_ns` itself.
    /// Segments that ended before are given to `hand_over`, which puts an empty one in their place.
    #[inline]
    pub fn begin_turn(
        &mut self,
        now_ns: u64,
        waited_from_ns: u64,
        unanswered: u64,
        mut hand_over: impl FnMut(&mut Box<Segment>),
    ) {
        self.unseen_ns = waited_from_ns.saturating_sub(self.looked_ns);
        self.looked_ns = now_ns;
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
            let service_ns = now_ns.saturating_sub(message.written_ns);
            record(&mut open.service, service_ns, &mut segment.clipped);
            let waited_ns = recv_lag_ns.unwrap_or(self.unseen_ns);
            let least_ns = service_ns.saturating_sub(waited_ns);
            open.service_least
                .saturating_record(least_ns.min(VALUE_NS_MAX));
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
            open.service_least
                .saturating_record(waited_ns.min(VALUE_NS_MAX));
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

    /// End of the span, from `due_ns` on, in which unsent messages are recorded alike: on the same side of the window's
    /// bounds, in the same bucket of the histogram. So a thousand million of them take some 30,000 steps, one per
    /// bucket.
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

#[cfg(test)]
mod tests;
