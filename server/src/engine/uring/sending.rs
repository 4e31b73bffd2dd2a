//! How received bytes leave again: at once and together where they can, behind a slow reader's others where they can't, and
//! late where a `--delay` says so.

use std::time::{Duration, Instant};

use echometer_host::clock;
use echometer_ring::{Buffer, Errno, Feature, Gather, Payload, Slot};

use super::Server;
use super::waiting::Waiting;
use crate::connection::{CloseReason, Receive};

/// How long a connection rests whose socket has room and takes nothing: the kernel is short of memory then.
const ROOM_REST: Duration = Duration::from_millis(10);

/// Memory that a piece takes which a `--delay` keeps back, beside its bytes: its place in the queue, which may be twice as
/// large as it is full, and the allocator's part of a block.
const DELAYED_BYTES: u32 = 128;

impl Server<'_> {
    /// The pieces in a row are complete.
    pub(super) fn end_run(&mut self, slot: Slot) {
        let mut run = std::mem::take(&mut self.run);
        let mut pieces = run.drain(..);
        if self.peers[slot.index()].waiting.is_empty() && !self.ring.is_sending(slot) {
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
            self.wait(slot, Payload::Buffer(buffer));
        }
        // That send may be a silent one, whose end nobody would hear of in a sleep.
        self.hurry |= self.ring.is_sending(slot);
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
            Ok(_) | Err(Errno::AGAIN) => {
                let bytes = result.unwrap_or(0);
                let room_was_said = self.peers[slot.index()].after_room;
                self.sent(slot, bytes);
                self.stall(slot, rest, bytes == 0 && room_was_said);
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
        let peer = &mut self.peers[slot.index()];
        peer.connection.sent(bytes);
        if peer.is_marked {
            self.sent_marked(slot, bytes);
        } else {
            self.worker.counters.bytes_out.add(bytes as u64);
        }
    }

    /// As [`Server::sent`], after a poll for room, or without a copy.
    fn sent_marked(&mut self, slot: Slot, bytes: usize) {
        let peer = &mut self.peers[slot.index()];
        peer.is_marked = false;
        peer.after_room = false;
        if self.ring.features().has(Feature::SendZc) {
            // The bytes were counted when the socket took them.
            self.end_stall(slot);
        } else {
            self.worker.counters.bytes_out.add(bytes as u64);
        }
    }

    /// Without a copy: the socket took the bytes. They are owed on, because their memory is ours until the peer has them.
    pub(super) fn handle_taken(&mut self, slot: Slot, bytes: usize) {
        if let Some(idle) = &mut self.idle {
            idle.active(slot.index());
        }
        self.worker.counters.bytes_out.add(bytes as u64);
    }

    /// A socket that was full has room.
    pub(super) fn handle_room(&mut self, slot: Slot) {
        let peer = &mut self.peers[slot.index()];
        peer.is_marked = true;
        peer.after_room = true;
        self.send_next(slot);
        self.settle(slot);
    }

    #[inline]
    pub(super) fn send_now(&mut self, slot: Slot, payload: Payload) {
        if self.peers[slot.index()].connection.receive() != Receive::Echo {
            self.hurry = true;
        }
        let payload = if self.ring.features().has(Feature::SendZc) {
            // It may keep its buffer for as long as the peer doesn't read, whatever the socket takes.
            self.keep_for_send(slot, payload)
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

    /// The socket is full: the rest waits for room, and with it the pieces behind it. No send waits in the kernel: it would say
    /// nothing of what it has sent until all is sent, and would become a thread of the kernel's in the end.
    fn stall(&mut self, slot: Slot, rest: Payload, in_spite_of_room: bool) {
        self.worker.counters.send_stalls.add(1);
        let mut first = Waiting::default();
        match rest {
            Payload::Gather(mut gather) => {
                while let Some(piece) = gather.pop() {
                    self.keep(&mut first, piece);
                }
                self.ring.take_back(Payload::Gather(gather));
            }
            piece => self.keep(&mut first, piece),
        }
        let waiting = &mut self.peers[slot.index()].waiting;
        first.append(waiting);
        *waiting = first;
        if in_spite_of_room {
            // The kernel is short of memory, and asking without a break doesn't bring it.
            self.resting.push_back((Instant::now() + ROOM_REST, slot));
        } else {
            self.ring.await_room(slot);
        }
    }

    /// Asks for room again on connections whose rest is over.
    pub(super) fn end_rests(&mut self) {
        let now = Instant::now();
        while let Some((until, slot)) = self.resting.front().copied()
            && until <= now
        {
            self.resting.pop_front();
            if self.is_current(slot) {
                self.ring.await_room(slot);
            }
        }
    }

    /// A piece that can't be sent yet.
    fn wait(&mut self, slot: Slot, piece: Payload) {
        let mut waiting = std::mem::take(&mut self.peers[slot.index()].waiting);
        self.keep(&mut waiting, piece);
        self.peers[slot.index()].waiting = waiting;
    }

    /// Bytes that can't be sent now stay in their buffer, unless half of the pool is kept that way already: then they are
    /// copied to the heap, where `owed_max` bounds them for each connection.
    fn keep(&mut self, waiting: &mut Waiting, piece: Payload) {
        match piece {
            Payload::Buffer(buffer) if buffer.is_empty() => self.ring.release(buffer),
            Payload::Buffer(buffer) if !self.may_keep(&buffer) => {
                waiting.copy(self.ring.bytes(&buffer));
                self.ring.release(buffer);
            }
            piece => waiting.push(piece),
        }
    }

    /// What a send is to have that keeps its bytes for as long as the peer likes: a buffer is counted until it is over.
    fn keep_for_send(&mut self, slot: Slot, payload: Payload) -> Payload {
        let mark = self.holding.mark();
        let payload = match payload {
            Payload::Buffer(buffer) => self.keep_or_copy(buffer),
            other => other,
        };
        let peer = &mut self.peers[slot.index()];
        peer.is_marked = true;
        peer.kept_by_send = self.holding.since(mark);
        payload
    }

    /// The send that kept its bytes is over, or its connection is.
    pub(super) fn end_stall(&mut self, slot: Slot) {
        let share = std::mem::take(&mut self.peers[slot.index()].kept_by_send);
        self.holding.end(share);
    }

    fn keep_or_copy(&mut self, buffer: Buffer) -> Payload {
        if self.may_keep(&buffer) {
            return Payload::Buffer(buffer);
        }
        let bytes = self.ring.bytes(&buffer).into();
        self.ring.release(buffer);
        Payload::Heap { bytes, start: 0 }
    }

    fn may_keep(&mut self, buffer: &Buffer) -> bool {
        let large = self.ring.is_large(buffer);
        // Those that zero-copy sends of closed connections hold are nobody's here.
        let lingering = self.ring.buffers_lingering(buffer);
        let pool = self.ring.buffers_like(buffer);
        self.holding.keep(large, lingering, pool)
    }

    // ---- a known slowness

    pub(super) fn delay(&mut self, slot: Slot, buffer: Buffer) {
        let received_at = clock::now_ns();
        let busy_until = received_at + self.config.delay.busy_ns();
        // A stop doesn't wait for delays.
        while clock::now_ns() < busy_until && !self.worker.stop.requested() {}
        let payload = self.keep_or_copy(buffer);
        let peer = &mut self.peers[slot.index()];
        peer.connection.hold(DELAYED_BYTES);
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
            peer.connection.let_go(DELAYED_BYTES);
            let waits_for_room = !peer.waiting.is_empty();
            peer.waiting.push(payload);
            if self.ring.is_sending(slot) {
                // That send may be a silent one, whose end nobody would hear of in a sleep.
                self.hurry = true;
            } else if !waits_for_room {
                self.send_next(slot);
            }
        }
    }
}
