//! How received bytes leave again: at once and together where they can, behind a slow reader's others where they can't, and
//! late where a `--delay` says so.

use echometer_host::clock;
use echometer_ring::{Buffer, Errno, Feature, Gather, Payload, Slot};

use super::Server;
use crate::connection::{CloseReason, Receive};

impl Server<'_> {
    /// The pieces in a row are complete.
    pub(super) fn end_run(&mut self, slot: Slot) {
        let mut run = std::mem::take(&mut self.run);
        let mut pieces = run.drain(..);
        if !self.ring.is_sending(slot) {
            let payload = if self.ring.features().has(Feature::Gather) {
                let mut gather = self.ring.gather();
                for buffer in pieces.by_ref().take(Gather::PIECES_MAX) {
                    gather.push(Payload::Buffer(buffer));
                }
                Payload::Gather(gather)
            } else {
                Payload::Buffer(pieces.next().expect("a run has pieces"))
            };
            self.send_now(slot, payload);
        }
        for buffer in pieces {
            let piece = self.keep(buffer);
            self.peers[slot.index()].waiting.push(piece);
            self.hurry = true;
        }
        self.run = run;
    }

    #[inline]
    pub(super) fn handle_sent(&mut self, slot: Slot, bytes: usize) {
        self.sent(slot, bytes);
        self.send_next(slot);
        self.settle(slot);
    }

    /// The socket was full, or the connection has failed.
    pub(super) fn handle_unsent(
        &mut self,
        slot: Slot,
        result: Result<usize, Errno>,
        rest: Payload,
    ) {
        match result {
            Ok(bytes) => {
                self.sent(slot, bytes);
                self.stall(slot, rest);
            }
            Err(Errno::AGAIN) => {
                self.sent(slot, 0);
                self.stall(slot, rest);
            }
            Err(errno) => {
                self.end_stall(slot);
                let peer = &mut self.peers[slot.index()];
                peer.connection.failed(CloseReason::from_errno(errno));
                self.ring.take_back(rest);
            }
        }
        self.settle(slot);
    }

    #[inline]
    pub(super) fn sent(&mut self, slot: Slot, bytes: usize) {
        if let Some(idle) = &mut self.idle {
            idle.active(slot.index());
        }
        if !self.peers[slot.index()].stalled_on.is_none() {
            self.end_stall(slot);
        }
        self.peers[slot.index()].connection.sent(bytes);
        self.worker.counters.bytes_out.add(bytes as u64);
    }

    #[inline]
    pub(super) fn send_now(&mut self, slot: Slot, payload: Payload) {
        if self.peers[slot.index()].connection.receive() != Receive::Echo {
            self.hurry = true;
        }
        let payload = if self.ring.features().has(Feature::SendZc) {
            // It may keep its buffer for as long as the peer doesn't read, whatever the socket takes.
            self.keep_all(slot, payload)
        } else {
            payload
        };
        self.ring.send_now(slot, payload);
    }

    /// Sends what waits, if anything does: as much of it as one request takes.
    #[inline]
    pub(super) fn send_next(&mut self, slot: Slot) {
        if !self.peers[slot.index()].waiting.is_empty() {
            self.send_waiting(slot);
        }
    }

    pub(super) fn send_waiting(&mut self, slot: Slot) {
        let waiting = &mut self.peers[slot.index()].waiting;
        let payload = if waiting.len() == 1 || !self.ring.features().has(Feature::Gather) {
            let Some(payload) = waiting.pop() else {
                return;
            };
            if let Payload::Buffer(buffer) = &payload {
                self.holding.give_up(self.ring.is_large(buffer));
            }
            payload
        } else {
            let mut gather = self.ring.gather();
            while gather.pieces() < Gather::PIECES_MAX
                && let Some(piece) = waiting.pop()
            {
                if let Payload::Buffer(buffer) = &piece {
                    self.holding.give_up(self.ring.is_large(buffer));
                }
                gather.push(piece);
            }
            Payload::Gather(gather)
        };
        if !waiting.is_empty() {
            self.hurry = true;
        }
        self.send_now(slot, payload);
    }

    /// The socket is full: the rest is sent by a request that waits for the peer.
    pub(super) fn stall(&mut self, slot: Slot, payload: Payload) {
        self.worker.counters.send_stalls.add(1);
        let payload = self.keep_all(slot, payload);
        self.ring.send(slot, payload);
    }

    /// What a send is to have that waits for the peer: the buffers that it keeps are counted until it is over.
    pub(super) fn keep_all(&mut self, slot: Slot, payload: Payload) -> Payload {
        let mark = self.holding.mark();
        let payload = match payload {
            Payload::Buffer(buffer) => self.keep(buffer),
            Payload::Gather(mut gather) => {
                let mut kept = self.ring.gather();
                while let Some(piece) = gather.pop() {
                    match piece {
                        Payload::Buffer(buffer) if buffer.is_empty() => self.ring.release(buffer),
                        Payload::Buffer(buffer) => kept.push(self.keep(buffer)),
                        piece if piece.is_empty() => {}
                        piece => kept.push(piece),
                    }
                }
                self.ring.take_back(Payload::Gather(gather));
                Payload::Gather(kept)
            }
            other => other,
        };
        self.peers[slot.index()].stalled_on = self.holding.since(mark);
        payload
    }

    /// The send that waited for the peer is over, or its connection is.
    pub(super) fn end_stall(&mut self, slot: Slot) {
        let share = std::mem::take(&mut self.peers[slot.index()].stalled_on);
        self.holding.end(share);
    }

    /// Bytes that can't be sent now stay in their buffer, unless half of the pool is kept that way already: then they
    /// move to the heap, where `owed_max` bounds them for each connection.
    pub(super) fn keep(&mut self, buffer: Buffer) -> Payload {
        let large = self.ring.is_large(&buffer);
        // Those that zero-copy sends of closed connections hold are nobody's here.
        let lingering = self.ring.buffers_lingering(&buffer);
        let pool = self.ring.buffers_like(&buffer);
        if self.holding.keep(large, lingering, pool) {
            return Payload::Buffer(buffer);
        }
        let bytes = self.ring.bytes(&buffer).into();
        self.ring.release(buffer);
        Payload::Heap { bytes, start: 0 }
    }

    // ---- a known slowness

    pub(super) fn delay(&mut self, slot: Slot, buffer: Buffer) {
        let received_at = clock::now_ns();
        let busy_until = received_at + self.config.delay.busy_ns();
        // A stop doesn't wait for delays.
        while clock::now_ns() < busy_until && !self.worker.stop.requested() {}
        let payload = self.keep(buffer);
        let peer = &mut self.peers[slot.index()];
        peer.due_ns = self.releases.due_ns(received_at, peer.due_ns);
        self.delayed.push(peer.due_ns, (slot, payload));
    }

    pub(super) fn release_delayed(&mut self) {
        // A stop doesn't wait for delays: what is owed is sent.
        let stopping = self.drain_deadline.is_some();
        let now = if stopping { u64::MAX } else { clock::now_ns() };
        if !stopping && self.config.delay.frozen_until(now).is_some() {
            return;
        }
        while let Some((slot, payload)) = self.delayed.pop_due(now) {
            if !self.is_current(slot) {
                self.drop_kept(payload);
                continue;
            }
            let peer = &mut self.peers[slot.index()];
            peer.waiting.push(payload);
            if self.ring.is_sending(slot) {
                // That send may be a silent one, whose end nobody would hear of in a sleep.
                self.hurry = true;
            } else {
                self.send_next(slot);
            }
        }
    }
}
