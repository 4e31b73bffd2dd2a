//! Who is let in, and when: a machine without a ring. It counts the places of one worker, and says how the next accept is to
//! be armed, if at all.
//!
//! A full table of direct descriptors drops connections, where a listen queue keeps them. So accepting ends before the table
//! is full; and where fewer places are vacant than connections may be waiting, they are accepted one by one, because an
//! accept that goes on by itself takes all that wait.

use std::time::Instant;

use crate::engine::accept_failures::ACCEPT_REST;

/// The places of one worker.
pub(super) struct Admission {
    accepting: Accepting,
    open: usize,
    /// Connections whose close is on its way: they have their place until the ring says that it is done.
    closing: usize,
    places: usize,
    /// Vacant places below which connections are accepted one by one.
    room: usize,
}

/// Whether connections are taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    Yes,
    /// At a limit: until a connection's close is done, or until then.
    Resting(Instant),
    /// The server stops, or has stopped.
    Ended,
}

/// How an accept is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arm {
    /// For connection after connection.
    Many,
    /// For one connection.
    One,
}

/// What follows for the armed accept from a connection that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It goes on.
    GoOn,
    /// It is to end: from here on one by one.
    OneByOne,
    /// It is to end, and accepting to [rest](Admission::rest): no place is left.
    Full,
}

impl Admission {
    /// `places` connections at most; one by one where fewer than `room` are vacant.
    pub(super) fn new(places: usize, room: usize) -> Admission {
        Admission {
            accepting: Accepting::Yes,
            open: 0,
            closing: 0,
            places,
            room,
        }
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Whether one more could be taken in.
    pub(super) fn has_place(&self) -> bool {
        self.open + self.closing < self.places
    }

    /// Whether one more could be taken in once the closes that are on their way are done.
    pub(super) fn will_have_place(&self) -> bool {
        self.open < self.places
    }

    /// How the next accept is to be armed; `None` while nobody is let in.
    pub(super) fn arm(&self) -> Option<Arm> {
        match self.accepting {
            Accepting::Yes if self.has_room() => Some(Arm::Many),
            Accepting::Yes => Some(Arm::One),
            Accepting::Resting(_) | Accepting::Ended => None,
        }
    }

    /// Whether as many could be taken in as may be waiting.
    fn has_room(&self) -> bool {
        self.open + self.closing + self.room <= self.places
    }

    /// A connection came, and stays.
    pub(super) fn came(&mut self) -> After {
        self.open += 1;
        if !self.has_place() {
            After::Full
        } else if !self.has_room() {
            After::OneByOne
        } else {
            After::GoOn
        }
    }

    /// A connection came that is over the limit of the process: it is being closed.
    pub(super) fn turned_away(&mut self) {
        self.closing += 1;
    }

    /// A connection is being closed.
    pub(super) fn leaves(&mut self) {
        self.open -= 1;
        self.closing += 1;
    }

    /// A close is done. Whether accepting begins again with that.
    pub(super) fn left(&mut self) -> bool {
        // The listener's own close was never counted, and nobody is let in after it.
        self.closing = self.closing.saturating_sub(1);
        let begins = matches!(self.accepting, Accepting::Resting(_)) && self.has_place();
        if begins {
            self.accepting = Accepting::Yes;
        }
        begins
    }

    /// Accepting rests: a limit was met, ours or one that we can't count.
    pub(super) fn rest(&mut self, now: Instant) {
        if self.accepting == Accepting::Yes {
            self.accepting = Accepting::Resting(now + ACCEPT_REST);
        }
    }

    /// When to look again, if accepting rests.
    #[inline]
    pub(super) fn alarm(&self) -> Option<Instant> {
        match self.accepting {
            Accepting::Resting(until) => Some(until),
            Accepting::Yes | Accepting::Ended => None,
        }
    }

    /// Looks whether the rest is over. Whether accepting begins again.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        if self.alarm().is_none_or(|until| now < until) {
            return false;
        }
        let begins = self.has_place();
        self.accepting = match begins {
            true => Accepting::Yes,
            // At our own limit there is nothing to look for: the close of a connection ends that rest.
            false => Accepting::Resting(now + ACCEPT_REST),
        };
        begins
    }

    /// Nobody is let in any more, but for those that are in the listen queue already.
    pub(super) fn end(&mut self) {
        self.accepting = Accepting::Ended;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.accepting == Accepting::Ended
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_by_one_where_more_may_wait_than_there_are_places() {
        let mut admission = Admission::new(5, 3);
        assert_eq!(admission.arm(), Some(Arm::Many));
        assert_eq!(admission.came(), After::GoOn);
        assert_eq!(admission.came(), After::GoOn);
        assert_eq!(admission.came(), After::OneByOne);
        assert_eq!(admission.arm(), Some(Arm::One));
    }

    #[test]
    fn a_full_worker_rests_until_a_close_is_done_and_not_only_asked_for() {
        let now = Instant::now();
        let mut admission = Admission::new(1, 1);
        assert_eq!(admission.came(), After::Full);
        admission.rest(now);
        assert_eq!(admission.arm(), None);
        admission.leaves();
        assert_eq!(admission.arm(), None);
        assert!(
            !admission.look(now + ACCEPT_REST),
            "its place is still taken"
        );
        assert!(admission.left());
        assert_eq!(admission.arm(), Some(Arm::Many));
    }

    #[test]
    fn at_a_limit_of_the_system_it_looks_again_after_a_rest() {
        let now = Instant::now();
        let mut admission = Admission::new(9, 1);
        admission.rest(now);
        assert_eq!(admission.alarm(), Some(now + ACCEPT_REST));
        assert!(!admission.look(now + ACCEPT_REST / 2));
        assert!(admission.look(now + ACCEPT_REST));
        assert_eq!(
            (admission.alarm(), admission.arm()),
            (None, Some(Arm::Many))
        );
    }

    #[test]
    fn nobody_is_let_in_after_the_end() {
        let now = Instant::now();
        let mut admission = Admission::new(9, 1);
        admission.rest(now);
        admission.end();
        assert!(!admission.left() && !admission.look(now + 2 * ACCEPT_REST));
        admission.rest(now);
        assert!(admission.has_ended() && admission.arm().is_none());
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Comes,
        TurnedAway,
        Leaves,
        Left,
        Limit,
        Later(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Comes),
            1 => Just(Step::TurnedAway),
            3 => Just(Step::Leaves),
            3 => Just(Step::Left),
            1 => Just(Step::Limit),
            2 => any::<u16>().prop_map(Step::Later),
        ]
    }

    proptest! {
        /// No more than there are places, as long as the kernel brings no more than was armed for; and it never rests for
        /// ever while places are vacant.
        #[test]
        fn places_are_kept_and_never_forgotten(
            places in 1..20usize,
            room in 1..10usize,
            steps in proptest::collection::vec(step(), 0..200),
        ) {
            let mut now = Instant::now();
            let mut admission = Admission::new(places, room);
            let (mut open, mut closing) = (0, 0);
            for step in steps {
                match step {
                    Step::Comes if admission.arm().is_some() => {
                        open += 1;
                        let after = admission.came();
                        prop_assert_eq!(after == After::Full, open + closing == places);
                        if after == After::Full {
                            admission.rest(now);
                        }
                    }
                    // Over the limit of the process, in a place of its own all the same.
                    Step::TurnedAway if admission.arm().is_some() => {
                        closing += 1;
                        admission.turned_away();
                        if open + closing == places {
                            admission.rest(now);
                        }
                    }
                    Step::Leaves if 0 < open => {
                        (open, closing) = (open - 1, closing + 1);
                        admission.leaves();
                    }
                    Step::Left if 0 < closing => {
                        closing -= 1;
                        admission.left();
                    }
                    Step::Limit => admission.rest(now),
                    Step::Later(ms) => {
                        now += Duration::from_millis(u64::from(ms));
                        admission.look(now);
                    }
                    _ => {}
                }
                prop_assert!(open + closing <= places);
                prop_assert_eq!(admission.open(), open);
                prop_assert_eq!(admission.has_place(), open + closing < places);
                prop_assert!(admission.arm().is_some() || admission.alarm().is_some());
            }
            now += ACCEPT_REST;
            prop_assert_eq!(admission.arm().is_some() || admission.look(now), open + closing < places);
        }
    }
}
