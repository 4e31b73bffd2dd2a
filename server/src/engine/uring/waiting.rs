//! Owed bytes behind the send in flight, the oldest first: one pointer while there are none, because nearly every
//! connection has none at nearly every moment, and a server holds one of these for each.

use std::collections::VecDeque;

use echometer_ring::Payload;

/// Pieces in the order in which they are to be sent. On the heap only while it holds any.
#[derive(Default)]
#[allow(
    clippy::box_collection,
    reason = "8 bytes while empty, where a deque alone takes 32"
)]
pub(super) struct Waiting(Option<Box<VecDeque<Payload>>>);

impl Waiting {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |pieces| pieces.len())
    }

    pub(super) fn push(&mut self, piece: Payload) {
        self.0.get_or_insert_default().push_back(piece);
    }

    pub(super) fn pop(&mut self) -> Option<Payload> {
        let pieces = self.0.as_mut()?;
        let first = pieces.pop_front();
        if pieces.is_empty() {
            self.0 = None;
        }
        first
    }
}
