//! Receives that take turns: who has much to bring is received from one after the other, each into the same buffer,
//! whose bytes are still in the cache when they are sent on. Pure: the ring asks who is next, and does it.

use std::collections::VecDeque;

use crate::slots::Slot;

/// Receives in a row from one connection, before another has its turn.
const ROW_MAX: u32 = 16;

/// A connection of a slot: the slot and its generation.
pub(crate) type Who = (Slot, u32);

/// Those that wait for their turn.
#[derive(Default)]
pub(crate) struct Turns {
    waiting: VecDeque<Who>,
    /// Somebody's turn is under way.
    taken: bool,
    /// Who had the last one, and how many in a row.
    last: Option<Who>,
    row: u32,
    /// Bytes that it brought.
    last_bytes: u32,
    /// Receives that were cancelled while they waited: their last event is still to come.
    cancelled: Vec<Who>,
}

impl Turns {
    /// Whether nobody waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// There is something to receive.
    pub(crate) fn join(&mut self, who: Who) {
        self.waiting.push_back(who);
    }

    /// Who has just received knows that there is more, and goes on, unless it did so for long enough.
    pub(crate) fn go_on(&mut self, who: Who) {
        if self.last == Some(who) && self.row < ROW_MAX {
            self.waiting.push_front(who);
        } else {
            self.waiting.push_back(who);
        }
    }

    /// Who is next, unless a turn is under way. It may have left meanwhile: then the caller asks again.
    pub(crate) fn next(&mut self) -> Option<Who> {
        if self.taken {
            return None;
        }
        self.waiting.pop_front()
    }

    /// `who` receives.
    pub(crate) fn take(&mut self, who: Who) {
        self.taken = true;
        self.row = if self.last == Some(who) {
            self.row + 1
        } else {
            1
        };
        self.last = Some(who);
    }

    /// The receive is over, and brought so many bytes.
    #[inline]
    pub(crate) fn end(&mut self, bytes: u32) {
        self.taken = false;
        self.last_bytes = bytes;
    }

    /// Bytes that the last turn brought.
    #[inline]
    pub(crate) fn last_bytes(&self) -> u32 {
        self.last_bytes
    }

    /// The wait of `who` was cancelled.
    pub(crate) fn cancel(&mut self, who: Who) {
        self.cancelled.push(who);
    }

    /// One whose wait was cancelled. It may have left meanwhile.
    #[inline]
    pub(crate) fn next_cancelled(&mut self) -> Option<Who> {
        self.cancelled.pop()
    }

    /// Whether there are such.
    #[inline]
    pub(crate) fn any_cancelled(&self) -> bool {
        !self.cancelled.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Who = (Slot(1), 7);
    const B: Who = (Slot(2), 7);

    #[test]
    fn one_at_a_time_and_in_order() {
        let mut turns = Turns::default();
        turns.join(A);
        turns.join(B);
        assert_eq!(turns.next(), Some(A));
        turns.take(A);
        assert_eq!(turns.next(), None);
        turns.end(1);
        assert_eq!(turns.next(), Some(B));
    }

    #[test]
    fn who_has_more_goes_on_but_not_for_ever() {
        let mut turns = Turns::default();
        turns.join(A);
        turns.join(B);
        let mut row = 0;
        loop {
            let who = turns.next().expect("both have much");
            turns.take(who);
            turns.end(1);
            turns.go_on(who);
            if who == B {
                break;
            }
            row += 1;
        }
        assert_eq!(row, ROW_MAX);
    }

    #[test]
    fn the_next_connection_of_a_slot_begins_its_own_row() {
        let mut turns = Turns::default();
        turns.take(A);
        turns.end(1);
        turns.join(B);
        turns.go_on((A.0, A.1 + 1));
        assert_eq!(turns.next(), Some(B));
    }
}
