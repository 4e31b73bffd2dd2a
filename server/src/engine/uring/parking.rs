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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd as _;

    use echometer_ring::{Config, Features, Ring};

    use super::*;

    /// Six who always have more, and two buffers, of which the first that is woken takes both.
    #[test]
    fn nobody_is_passed_over_for_ever() {
        let config = Config {
            features: Features::NONE,
            ..Config::default()
        };
        let mut ring = Ring::new(&config).expect("a ring, for slots");
        let file = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let slots: Vec<Slot> = (0..6)
            .map(|_| ring.install(file.as_fd()).expect("a slot"))
            .collect();
        let mut parking = Parking::default();
        slots.iter().for_each(|slot| parking.park(*slot, false));
        let mut served = [0; 6];
        for _ in 0..60 {
            let (first, second) = (parking.pop(), parking.pop());
            let (first, second) = (first.expect("six wait"), second.expect("six wait"));
            let at = slots.iter().position(|slot| *slot == first);
            served[at.expect("one of them")] += 1;
            // It has received since it was woken, and finds no more; the other one found none at all.
            parking.park(first, false);
            parking.park(second, true);
        }
        assert_eq!(served, [10; 6]);
    }
}
