//! Bulk receives are serialised: one connection at a time, each into the same large buffer, whose bytes are still in the
//! cache when they are sent on. Pure: the ring asks which connection is next, and receives.

use std::collections::VecDeque;

use crate::slot::Slot;

/// Receives in a row from one connection, before another is received from.
const ROW_MAX: u32 = 16;

/// Connections whose socket has bytes for a bulk receive, in their order.
#[derive(Default)]
pub(crate) struct BulkQueue {
    waiting: VecDeque<Slot>,
    /// A bulk receive is in flight.
    busy: bool,
    /// The connection of the last one, and how many it had in a row.
    last: Option<Slot>,
    row: u32,
    /// Bytes that it brought.
    last_bytes: u32,
    /// Receives that were cancelled while they waited: their last event is still to come.
    cancelled: Vec<Slot>,
}

impl BulkQueue {
    /// Whether nobody waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The socket has bytes.
    pub(crate) fn join(&mut self, slot: Slot) {
        self.waiting.push_back(slot);
    }

    /// The connection that has just been received from has more, and goes on, unless it had [`ROW_MAX`] in a row.
    pub(crate) fn go_on(&mut self, slot: Slot) {
        if self.last == Some(slot) && self.row < ROW_MAX {
            self.waiting.push_front(slot);
        } else {
            self.waiting.push_back(slot);
        }
    }

    /// Which is next, unless a bulk receive is in flight. It may be closed by now: then the caller asks again.
    pub(crate) fn next(&mut self) -> Option<Slot> {
        if self.busy {
            return None;
        }
        self.waiting.pop_front()
    }

    /// `slot` is received from.
    pub(crate) fn begin(&mut self, slot: Slot) {
        self.busy = true;
        self.row = if self.last == Some(slot) {
            self.row + 1
        } else {
            1
        };
        self.last = Some(slot);
    }

    /// The receive is over, and brought so many bytes.
    #[inline]
    pub(crate) fn end(&mut self, bytes: u32) {
        self.busy = false;
        self.last_bytes = bytes;
    }

    /// Bytes that the last one brought.
    #[inline]
    pub(crate) fn last_bytes(&self) -> u32 {
        self.last_bytes
    }

    /// `slot` was cancelled while it waited.
    pub(crate) fn cancel(&mut self, slot: Slot) {
        self.cancelled.push(slot);
    }

    /// One that was cancelled while it waited. It may be closed by now.
    #[inline]
    pub(crate) fn next_cancelled(&mut self) -> Option<Slot> {
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
    use std::num::NonZeroU32;

    use super::*;

    fn slot(number: u32, generation: u32) -> Slot {
        let generation = NonZeroU32::new(generation).expect("not 0");
        Slot::new(0, number, generation)
    }

    #[test]
    fn one_at_a_time_and_in_order() {
        let (a, b) = (slot(1, 7), slot(2, 7));
        let mut queue = BulkQueue::default();
        queue.join(a);
        queue.join(b);
        assert_eq!(queue.next(), Some(a));
        queue.begin(a);
        assert_eq!(queue.next(), None);
        queue.end(1);
        assert_eq!(queue.next(), Some(b));
    }

    #[test]
    fn who_has_more_goes_on_but_not_for_ever() {
        let (a, b) = (slot(1, 7), slot(2, 7));
        let mut queue = BulkQueue::default();
        queue.join(a);
        queue.join(b);
        let mut row = 0;
        loop {
            let next = queue.next().expect("both have more");
            queue.begin(next);
            queue.end(1);
            queue.go_on(next);
            if next == b {
                break;
            }
            row += 1;
        }
        assert_eq!(row, ROW_MAX);
    }

    #[test]
    fn the_next_connection_of_a_slot_begins_its_own_row() {
        let (a, b) = (slot(1, 7), slot(2, 7));
        let mut queue = BulkQueue::default();
        queue.begin(a);
        queue.end(1);
        queue.join(b);
        queue.go_on(slot(1, 8));
        assert_eq!(queue.next(), Some(b));
    }
}
