//! Connections whose receive found no buffer, in the order in which they get the next ones.
//!
//! One connection may take all buffers that come back at once. So who was woken and got nothing keeps its place in front:
//! behind the others, it would meet the same neighbour in every round, and get nothing again.

use std::collections::VecDeque;

use echometer_ring::Slot;

use super::Server;

/// The queue. A slot in it may be stale by now: who takes one out sees to that.
#[derive(Debug, Default)]
pub(super) struct Parking {
    queue: VecDeque<Slot>,
    /// Woken in the last turn, and still without a buffer: before all others, the longest waiting first.
    unlucky: VecDeque<Slot>,
}

impl Parking {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.unlucky.is_empty()
    }

    /// A connection found no buffer. `woken`: it has been woken from here, and got nothing.
    pub(super) fn park(&mut self, slot: Slot, woken: bool) {
        if woken {
            self.unlucky.push_back(slot);
        } else {
            self.queue.push_back(slot);
        }
    }

    /// Who is to have the next buffer.
    pub(super) fn pop(&mut self) -> Option<Slot> {
        self.unlucky.pop_front().or_else(|| self.queue.pop_front())
    }
}

impl Server<'_> {
    /// As many receives as there are buffers are armed again, in the order in which they were parked. It doesn't matter
    /// who gave the buffers back.
    pub(super) fn wake_parked(&mut self) {
        let mut free = self.ring.buffers_free();
        while 0 < free
            && let Some(slot) = self.parking.pop()
        {
            if !self.is_current(slot) || !self.peers[slot.index()].parked {
                continue;
            }
            let peer = &mut self.peers[slot.index()];
            peer.parked = false;
            peer.woken = true;
            self.settle(slot);
            free -= usize::from(self.ring.is_armed(slot));
            // Those that are armed now may have nothing to receive, and then nothing would be heard of the buffers that
            // they leave to the next.
            self.hurry |= !self.parking.is_empty();
        }
    }
}
