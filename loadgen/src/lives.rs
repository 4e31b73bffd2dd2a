//! Connections that live more than once: who is to be connected when, and who is to be closed. A state machine without
//! sockets and clocks; instants are ns since the start of the stretch.
//!
//! A connection is closed, waits its turn to be dialed, is being connected, is open, or waits for the peer to close it.
//! Dials are paced (`--connect-rate`), those after a failed connect wait a little, and each has a limit of time.

use std::collections::VecDeque;

use crate::plan::Close;

/// The lives of all connections of a worker.
#[derive(Debug)]
pub(crate) struct Lives {
    plan: LifePlan,
    /// Time between two dials of this worker, ns; 0 for as fast as can be.
    gap_ns: f64,
    /// When the next dial may be, by the pace.
    paced_ns: f64,
    states: Vec<State>,
    /// When the dial of the connection's present life began; [`UNKNOWN`] of one that was dialed in an earlier stretch.
    begun_ns: Vec<u64>,
    /// The same, until the first answer has come.
    echo_from_ns: Vec<u64>,
    waiting: VecDeque<u32>,
    /// After a failed connect: not before this instant. Ascending, because the delay is always the same.
    later: VecDeque<(u64, u32)>,
    /// In the order of their beginning; those that are no longer under way are skipped.
    under_way: VecDeque<(u64, u32)>,
    under_way_count: usize,
    /// How many the peer is to close.
    ending_count: usize,
    /// Lives that have ended as they should, and whose connections are to be closed.
    spent: Vec<u32>,
    opened: u64,
    reopened: u64,
    /// Connections whose last life ended by a failure.
    failed: Vec<bool>,
}

/// What the life of a connection is to be like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LifePlan {
    /// Messages in it, or [`crate::flow::NO_END`].
    pub(crate) messages: u64,
    /// Who ends it.
    pub(crate) close: Close,
    /// Whether a connection that failed is dialed again.
    pub(crate) again: bool,
    /// Dials per second, of this worker; 0 for as fast as can be.
    pub(crate) dial_rate_per_s: f64,
    /// How long a connect may take.
    pub(crate) time_limit_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// In `waiting` or in `later`.
    Waiting,
    UnderWay,
    Open,
    /// The life is over, and we are to close: it is in `spent`.
    Spent,
    /// The life is over, and the peer is to close.
    Ending,
    /// It will not be dialed again.
    Gone,
}

/// How long after a failed connect the next is tried: a server that is gone is asked a few times per second.
const RETRY_AFTER_NS: u64 = 100_000_000;

/// No instant of this stretch.
const UNKNOWN: u64 = u64::MAX;

impl Lives {
    /// `connections` of them, all closed.
    pub(crate) fn new(connections: u32, plan: LifePlan) -> Lives {
        let count = connections as usize;
        let gap_ns = if plan.dial_rate_per_s == 0.0 {
            0.0
        } else {
            1e9 / plan.dial_rate_per_s
        };
        Lives {
            plan,
            gap_ns,
            paced_ns: 0.0,
            states: vec![State::Closed; count],
            begun_ns: vec![UNKNOWN; count],
            echo_from_ns: vec![UNKNOWN; count],
            waiting: VecDeque::with_capacity(count),
            later: VecDeque::with_capacity(count),
            under_way: VecDeque::with_capacity(count),
            under_way_count: 0,
            ending_count: 0,
            spent: Vec::with_capacity(count),
            opened: 0,
            reopened: 0,
            failed: vec![false; count],
        }
    }

    pub(crate) fn plan(&self) -> LifePlan {
        self.plan
    }

    /// Connections that were made, and how many of them again after a failure, since the beginning.
    pub(crate) fn opened(&self) -> (u64, u64) {
        (self.opened, self.reopened)
    }

    /// All are open already: they were connected by other means.
    pub(crate) fn all_open(&mut self) {
        self.opened += self.states.len() as u64;
        self.states.fill(State::Open);
    }

    /// Whether `connection` is open.
    pub(crate) fn is_open(&self, connection: usize) -> bool {
        self.states[connection] == State::Open
    }

    /// A stretch begins: whoever is closed is to be dialed. Paced, the first of worker `index` comes after that share of
    /// the gap, so that all workers' dials together are evenly spread.
    pub(crate) fn begin_stretch(&mut self, index: u32, workers: u32) {
        debug_assert_eq!(self.under_way_count, 0, "the last stretch was ended");
        self.paced_ns = self.gap_ns * f64::from(index) / f64::from(workers);
        self.begun_ns.fill(UNKNOWN);
        self.echo_from_ns.fill(UNKNOWN);
        self.under_way.clear();
        self.later.clear();
        self.waiting.clear();
        for connection in 0..self.states.len() {
            if matches!(self.states[connection], State::Closed | State::Waiting) {
                self.states[connection] = State::Waiting;
                self.waiting.push_back(connection as u32);
            }
        }
    }

    /// The next connection to be dialed now, if the pace allows; `wanted` says of one whether it is still wanted, and
    /// one that isn't stays closed.
    pub(crate) fn next(&mut self, now_ns: u64, wanted: impl Fn(usize) -> bool) -> Option<u32> {
        while let Some((at_ns, connection)) = self.later.front().copied()
            && at_ns <= now_ns
        {
            self.later.pop_front();
            self.wait(connection, now_ns);
        }
        if 0.0 < self.gap_ns && (now_ns as f64) < self.paced_ns {
            return None;
        }
        while let Some(connection) = self.waiting.pop_front() {
            if wanted(connection as usize) {
                self.paced_ns += self.gap_ns;
                return Some(connection);
            }
            self.states[connection as usize] = State::Closed;
        }
        None
    }

    /// Forgets the dials of connections that are not `wanted`.
    pub(crate) fn drop_waiting(&mut self, wanted: impl Fn(usize) -> bool) {
        let states = &mut self.states;
        let mut keep = |connection: u32| {
            let keep = wanted(connection as usize);
            if !keep {
                states[connection as usize] = State::Closed;
            }
            keep
        };
        self.waiting.retain(|connection| keep(*connection));
        self.later.retain(|(_, connection)| keep(*connection));
    }

    /// When there is something to do next: a dial, or the end of one's time.
    pub(crate) fn next_at_ns(&self) -> u64 {
        let dial_ns = if self.waiting.is_empty() {
            u64::MAX
        } else {
            self.paced_ns as u64
        };
        let later_ns = self.later.front().map_or(u64::MAX, |(at_ns, _)| *at_ns);
        let expiry_ns = self.under_way.front().map_or(u64::MAX, |(begun_ns, _)| {
            begun_ns.saturating_add(self.plan.time_limit_ns)
        });
        dial_ns.min(later_ns).min(expiry_ns)
    }

    /// Whether dials wait or are under way, or the peer is still to close a connection.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.under_way_count != 0
            || self.ending_count != 0
            || !self.waiting.is_empty()
            || !self.later.is_empty()
    }

    /// The dial of `connection` begins.
    pub(crate) fn begun(&mut self, connection: u32, now_ns: u64) {
        debug_assert_eq!(self.states[connection as usize], State::Waiting);
        self.states[connection as usize] = State::UnderWay;
        self.begun_ns[connection as usize] = now_ns;
        self.under_way.push_back((now_ns, connection));
        self.under_way_count += 1;
    }

    /// `connection` is there. Gives when its dial began.
    pub(crate) fn connected(&mut self, connection: usize) -> u64 {
        debug_assert_eq!(self.states[connection], State::UnderWay);
        self.states[connection] = State::Open;
        self.end_dial();
        self.opened += 1;
        self.reopened += u64::from(std::mem::take(&mut self.failed[connection]));
        let begun_ns = self.begun_ns[connection];
        self.echo_from_ns[connection] = begun_ns;
        begun_ns
    }

    /// `connection` could not be made, at `now_ns`. Whether it will be tried again.
    pub(crate) fn not_connected(&mut self, connection: usize, now_ns: u64) -> bool {
        if self.states[connection] == State::UnderWay {
            self.end_dial();
        }
        if !self.plan.again {
            self.states[connection] = State::Gone;
            return false;
        }
        self.states[connection] = State::Waiting;
        self.failed[connection] = true;
        self.later
            .push_back((now_ns + RETRY_AFTER_NS, connection as u32));
        true
    }

    /// A connect that has had its time, if there is one.
    pub(crate) fn expired(&mut self, now_ns: u64) -> Option<u32> {
        while let Some((begun_ns, connection)) = self.under_way.front().copied() {
            let index = connection as usize;
            if self.states[index] == State::UnderWay && self.begun_ns[index] == begun_ns {
                let expired = begun_ns.saturating_add(self.plan.time_limit_ns) <= now_ns;
                return expired.then_some(connection);
            }
            self.under_way.pop_front();
        }
        None
    }

    /// An answer came on `connection`: gives when the connect began, of the first answer in a life.
    #[inline]
    pub(crate) fn first_echo(&mut self, connection: usize) -> Option<u64> {
        let from_ns = std::mem::replace(&mut self.echo_from_ns[connection], UNKNOWN);
        (from_ns != UNKNOWN).then_some(from_ns)
    }

    /// All messages of the life are answered. Whether the engine is to go on receiving: the peer is to close.
    pub(crate) fn spent(&mut self, connection: usize) -> bool {
        if self.states[connection] == State::Open {
            self.states[connection] = match self.plan.close {
                Close::Server => {
                    self.ending_count += 1;
                    State::Ending
                }
                Close::Fin | Close::Rst => {
                    self.spent.push(connection as u32);
                    State::Spent
                }
            };
        }
        self.states[connection] == State::Ending
    }

    /// The next connection that we are to close, and that is to be dialed again then.
    pub(crate) fn take_spent(&mut self, now_ns: u64) -> Option<u32> {
        while let Some(connection) = self.spent.pop() {
            if self.states[connection as usize] == State::Spent {
                self.wait(connection, now_ns);
                return Some(connection);
            }
        }
        None
    }

    /// The peer closed `connection` and owed nothing any more: it may be dialed again.
    pub(crate) fn ended(&mut self, connection: usize, now_ns: u64) {
        self.end_ending(connection);
        self.wait(connection as u32, now_ns);
    }

    /// `connection` failed while it was open. Whether it will be dialed again.
    pub(crate) fn failed(&mut self, connection: usize, now_ns: u64) -> bool {
        self.end_ending(connection);
        self.failed[connection] = true;
        self.echo_from_ns[connection] = UNKNOWN;
        if self.plan.again {
            self.wait(connection as u32, now_ns);
        } else {
            self.states[connection] = State::Gone;
        }
        self.plan.again
    }

    /// The end of a stretch: `connection` was closed because the waiting ended.
    pub(crate) fn abandoned(&mut self, connection: usize) {
        self.end_ending(connection);
        if self.states[connection] == State::UnderWay {
            self.end_dial();
        }
        if self.states[connection] != State::Gone {
            self.states[connection] = State::Closed;
        }
    }

    /// Connections whose connect is under way, or whose close by the peer is waited for: of no use to a later stretch.
    pub(crate) fn unfinished(&self, connection: usize) -> Option<Unfinished> {
        match self.states[connection] {
            State::UnderWay => Some(Unfinished::Connect),
            State::Ending => Some(Unfinished::Close),
            _ => None,
        }
    }

    fn wait(&mut self, connection: u32, now_ns: u64) {
        // A pace is no claim to what was not used of it.
        if self.waiting.is_empty() {
            self.paced_ns = self.paced_ns.max(now_ns as f64);
        }
        self.states[connection as usize] = State::Waiting;
        self.waiting.push_back(connection);
    }

    fn end_dial(&mut self) {
        self.under_way_count -= 1;
    }

    /// The peer need not close `connection` any more.
    fn end_ending(&mut self, connection: usize) {
        self.ending_count -= usize::from(self.states[connection] == State::Ending);
    }
}

/// What a connection had not come to the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfinished {
    Connect,
    Close,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: LifePlan = LifePlan {
        messages: 1,
        close: Close::Fin,
        again: true,
        dial_rate_per_s: 0.0,
        time_limit_ns: 1_000,
    };

    fn dialed(lives: &mut Lives, now_ns: u64) -> Vec<u32> {
        let mut dialed = Vec::new();
        while let Some(connection) = lives.next(now_ns, |_| true) {
            lives.begun(connection, now_ns);
            dialed.push(connection);
        }
        dialed
    }

    #[test]
    fn a_life_from_dial_to_dial() {
        let mut lives = Lives::new(2, LIFE);
        lives.begin_stretch(0, 1);
        assert_eq!(dialed(&mut lives, 5), [0, 1]);
        assert_eq!((lives.connected(1), lives.first_echo(1)), (5, Some(5)));
        assert_eq!(lives.first_echo(1), None, "only the first");
        assert!(!lives.spent(1), "we close");
        assert!(!lives.spent(1));
        assert_eq!(
            (lives.take_spent(9), lives.take_spent(9)),
            (Some(1), None),
            "told twice, closed once"
        );
        assert_eq!(dialed(&mut lives, 10), [1]);
        assert_eq!((lives.opened(), lives.is_unsettled()), ((1, 0), true));
    }

    #[test]
    fn a_pace_is_kept_and_not_caught_up_with_after_a_pause() {
        let plan = LifePlan {
            dial_rate_per_s: 1e7,
            ..LIFE
        };
        let mut lives = Lives::new(4, plan);
        lives.begin_stretch(0, 1);
        assert_eq!(dialed(&mut lives, 0), [0]);
        assert_eq!(lives.next_at_ns(), 100);
        assert_eq!(dialed(&mut lives, 99), [0; 0]);
        // Late, the worker catches up.
        assert_eq!(dialed(&mut lives, 250), [1, 2]);
        assert_eq!(dialed(&mut lives, 300), [3]);
        for connection in 0..2 {
            lives.connected(connection);
            lives.ended(connection, 9_000);
        }
        assert_eq!(dialed(&mut lives, 9_000), [0], "no burst after the pause");
        assert_eq!(dialed(&mut lives, 9_100), [1]);
    }

    #[test]
    fn a_failed_connect_is_tried_again_later_and_counted() {
        let mut lives = Lives::new(1, LIFE);
        lives.begin_stretch(0, 1);
        dialed(&mut lives, 0);
        assert!(lives.not_connected(0, 50));
        assert_eq!(dialed(&mut lives, 51), [0; 0]);
        assert_eq!(lives.expired(51), None);
        assert_eq!(lives.next_at_ns(), 50 + RETRY_AFTER_NS);
        assert_eq!(dialed(&mut lives, 50 + RETRY_AFTER_NS), [0]);
        lives.connected(0);
        assert_eq!(lives.opened(), (1, 1));
        // Where there is no second try, it is gone for good.
        let mut lives = Lives::new(
            1,
            LifePlan {
                again: false,
                ..LIFE
            },
        );
        lives.begin_stretch(0, 1);
        dialed(&mut lives, 0);
        assert!(!lives.not_connected(0, 50));
        lives.begin_stretch(0, 1);
        assert!(!lives.is_unsettled());
    }

    #[test]
    fn a_connect_has_its_time_and_no_more() {
        let mut lives = Lives::new(3, LIFE);
        lives.begin_stretch(0, 1);
        for (connection, now_ns) in [(0, 10), (1, 20), (2, 30)] {
            assert_eq!(lives.next(now_ns, |_| true), Some(connection));
            lives.begun(connection, now_ns);
        }
        lives.connected(0);
        assert_eq!(lives.expired(1_019), None);
        assert_eq!(lives.expired(1_020), Some(1));
        lives.not_connected(1, 1_020);
        assert_eq!(lives.expired(1_029), None);
        assert_eq!(lives.expired(1_030), Some(2));
    }

    #[test]
    fn the_peer_closes_where_that_was_asked_for() {
        let mut lives = Lives::new(
            1,
            LifePlan {
                close: Close::Server,
                ..LIFE
            },
        );
        lives.begin_stretch(0, 1);
        dialed(&mut lives, 0);
        lives.connected(0);
        assert!(lives.spent(0));
        assert_eq!(lives.take_spent(1), None, "the peer is to close");
        assert_eq!(lives.unfinished(0), Some(Unfinished::Close));
        assert!(lives.is_unsettled());
        lives.ended(0, 2);
        assert_eq!(dialed(&mut lives, 3), [0]);
    }

    #[test]
    fn who_is_not_wanted_stays_closed_until_the_next_stretch() {
        let mut lives = Lives::new(3, LIFE);
        lives.begin_stretch(0, 1);
        assert_eq!(lives.next(0, |connection| connection == 1), Some(1));
        lives.begun(1, 0);
        lives.drop_waiting(|_| false);
        assert_eq!(lives.next(0, |_| true), None);
        lives.abandoned(1);
        lives.begin_stretch(0, 1);
        assert_eq!(dialed(&mut lives, 0), [0, 1, 2]);
    }
}
