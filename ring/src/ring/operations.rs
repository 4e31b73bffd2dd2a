//! Operations in: what is asked of the kernel, written into the submission queue with all that it points to kept.

use std::os::fd::{AsRawFd, IntoRawFd};

use io_uring::types::{CancelBuilder, Fd, Fixed};
use io_uring::{opcode, squeue};
use rustix::event::PollFlags;
use rustix::net::SocketAddrAny;

use super::Ring;
use crate::features::Feature;
use crate::payload::{Gather, Payload};
use crate::pools::Group;
use crate::slot::Slot;
use crate::slots::{Readiness, Stage};
use crate::token::{Op, Token};

/// Bytes of which two pieces, the one that is sent and the one that comes, stay in a core's cache beside what else is there.
const TWO_FIT: u32 = 64 * 1024;

impl Ring {
    /// Arms the receive on a connection: for piece after piece where the kernel can (6.0), else for one. Connections that
    /// send more at a time than a small buffer holds get bulk receives: one connection after the other, into a large
    /// buffer, one piece an arming.
    ///
    /// # Panics
    /// When something is armed on the slot already, and when the slot is not open.
    #[inline]
    pub fn recv(&mut self, slot: Slot) {
        self.arm(slot, Op::Recv);
        // Large buffers and bundles are detours for what fits one small buffer (a bundle takes 1 % of a 64 B message's
        // CPU): so the first receive is a plain one, and each next is what the last ones' pieces ask for.
        let state = self.slots.state(slot);
        let bulk = 0 < state.bulk_left;
        state.bulk_left = state.bulk_left.saturating_sub(1);
        let has_more = std::mem::replace(&mut state.stage, Stage::None) == Stage::More;
        if !bulk && state.readiness == Readiness::InFlight {
            state.readiness = Readiness::Ending;
            self.push_cancel_of(slot, Op::Readiness);
        }
        if !bulk || !self.pools.large_is_free() {
            self.push_recv(slot, bulk && self.features.has(Feature::Bundle));
        } else if has_more {
            self.join_bulk(slot, true);
        } else {
            self.await_bulk(slot);
        }
    }

    /// Receives from the small buffers, piece after piece where the kernel can.
    #[inline]
    fn push_recv(&mut self, slot: Slot, bundle: bool) {
        let multishot = self.features.has(Feature::MultishotRecv);
        // Whatever it leaves in the socket, the readiness poll won't say so again.
        self.slots.state(slot).readable = true;
        let group = Group::Small as u16;
        let limit = self.recv_bytes_max;
        let entry = match (self.target(slot), bundle) {
            _ if !multishot => self.recv_entry(slot, Group::Small, self.pools.small().size(), 0),
            (Target::Direct(fixed), true) => {
                limited(opcode::RecvMultiBundle::new(fixed, group).build(), limit)
            }
            (Target::Plain(fd), true) => {
                limited(opcode::RecvMultiBundle::new(fd, group).build(), limit)
            }
            (Target::Direct(fixed), false) => {
                limited(opcode::RecvMulti::new(fixed, group).build(), limit)
            }
            (Target::Plain(fd), false) => limited(opcode::RecvMulti::new(fd, group).build(), limit),
        };
        self.push(entry, Op::Recv, slot);
    }

    /// One receive into a buffer of the group.
    fn recv_entry(&mut self, slot: Slot, group: Group, size: u32, flags: i32) -> squeue::Entry {
        let recv = match self.target(slot) {
            Target::Direct(fixed) => opcode::Recv::new(fixed, std::ptr::null_mut(), size),
            Target::Plain(fd) => opcode::Recv::new(fd, std::ptr::null_mut(), size),
        };
        recv.buf_group(group as u16)
            .flags(flags)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT)
    }

    /// As [`Ring::recv`], from the small buffers and without a bound, for piece after piece: and each piece comes with the
    /// time at which the kernel received it ([`Ring::stamped_bytes`]), if the socket was told to stamp
    /// ([`stamp_receives`](crate::stamp_receives)). The end of the stream is a piece without bytes, after which the
    /// receive has ended. A ring with [`Feature::Restrictions`] answers `EACCES`: a server needs no such receive.
    ///
    /// # Panics
    /// When something is armed on the slot already, when the slot is not open, and without [`Feature::MultishotRecv`].
    #[inline]
    pub fn recv_stamped(&mut self, slot: Slot) {
        assert!(
            self.features.has(Feature::MultishotRecv),
            "a receive with times is a multishot one"
        );
        self.arm(slot, Op::Recv);
        let group = Group::Small as u16;
        let request: *const libc::msghdr = &raw const *self.stamped_request;
        let entry = match self.target(slot) {
            Target::Direct(fixed) => opcode::RecvMsgMulti::new(fixed, request, group).build(),
            Target::Plain(fd) => opcode::RecvMsgMulti::new(fd, request, group).build(),
        };
        self.push(entry, Op::Recv, slot);
    }

    /// Begins a bulk receive.
    ///
    /// Receives that wait in the kernel are all carried out at once when their bytes are there, up to twenty per call:
    /// each then pushes the others' bytes out of the cache before they are sent on, and the peers, who get no reply
    /// meanwhile, have nothing to do. So these wait for readiness only, and [`Ring::begin_bulk`] receives from one
    /// after the other.
    pub(super) fn await_bulk(&mut self, slot: Slot) {
        let state = self.slots.state(slot);
        if state.readable {
            self.join_bulk(slot, false);
            return;
        }
        state.stage = Stage::Polled;
        if state.readiness != Readiness::None {
            return;
        }
        state.readiness = Readiness::InFlight;
        let entry = self.poll_entry(slot, PollFlags::IN, true);
        self.push(entry, Op::Readiness, slot);
    }

    /// The socket has bytes: the connection waits for the others before it.
    pub(super) fn join_bulk(&mut self, slot: Slot, goes_on: bool) {
        self.slots.state(slot).stage = Stage::Queued;
        if goes_on {
            self.bulk.go_on(slot);
        } else {
            self.bulk.join(slot);
        }
    }

    /// Whether a bulk receive would begin, but for sends whose success the next submit tells: their buffer is the one
    /// that is in cache, and it is free then. Where the last piece was small, a second buffer beside it does no harm, and
    /// the receive goes into the same submit as the send.
    #[inline]
    pub(super) fn bulk_is_near(&self) -> bool {
        !self.bulk.is_empty() && !self.unconfirmed.is_empty() && TWO_FIT < self.bulk.last_bytes()
    }

    /// Begins the next bulk receive, unless one is in flight, or [`Ring::bulk_is_near`].
    pub(super) fn begin_bulk(&mut self) {
        if self.bulk_is_near() {
            return;
        }
        while let Some(slot) = self.bulk.next() {
            let large_is_free = self.pools.large_is_free();
            let Some(state) = self.slots.find(slot) else {
                continue;
            };
            if state.stage != Stage::Queued {
                continue;
            }
            if !large_is_free {
                state.stage = Stage::None;
                self.push_recv(slot, self.features.has(Feature::Bundle));
                continue;
            }
            state.stage = Stage::Receiving;
            // What came by now, this receive finds.
            state.readable = false;
            self.bulk.begin(slot);
            self.pools.of(Group::Large).offer_one();
            let size = self.recv_bytes_bulk;
            let entry = self.recv_entry(slot, Group::Large, size, libc::MSG_DONTWAIT);
            self.push(entry, Op::BulkRecv, slot);
        }
    }

    /// Whether an accept, a receive or a poll is armed on the slot.
    #[inline]
    pub fn is_armed(&mut self, slot: Slot) -> bool {
        let state = self.slots.find(slot);
        state.is_some_and(|state| state.armed.is_some())
    }

    /// Sends a payload, all of it (`MSG_WAITALL`), however long the peer takes to make room, and without a signal to the
    /// process where the peer is gone.
    ///
    /// # Panics
    /// When a send is in flight on the slot, when the slot is not open, when the payload is empty, and when it is not this
    /// ring's.
    #[inline]
    pub fn send(&mut self, slot: Slot, payload: Payload) {
        self.push_send(slot, payload, 0);
    }

    /// Sends as much of a payload as the socket takes at once: the event then says how much, or `EAGAIN`. Nothing waits
    /// in the kernel, so a buffer that is sent this way is back after the next submit, whatever the peer does.
    ///
    /// # Panics
    /// As [`Ring::send`].
    #[inline]
    pub fn send_now(&mut self, slot: Slot, payload: Payload) {
        self.push_send(slot, payload, libc::MSG_DONTWAIT);
    }

    #[inline]
    fn push_send(&mut self, slot: Slot, mut payload: Payload, flags: i32) {
        assert!(!payload.is_empty(), "an empty send");
        assert!(
            self.slots.open(slot).sending.is_none(),
            "two sends in flight on one socket corrupt its stream"
        );
        let flags = flags | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let target = self.target(slot);
        let entry = if let Payload::Gather(gather) = &mut payload {
            let header = self.lay_out(gather);
            let flags = flags as u32;
            match target {
                Target::Direct(fixed) => opcode::SendMsg::new(fixed, header).flags(flags).build(),
                Target::Plain(fd) => opcode::SendMsg::new(fd, header).flags(flags).build(),
            }
        } else {
            let (start, len) = self.piece(&payload);
            // A length that doesn't fit 32 bits goes out in part, as a short send, and the caller sends the rest.
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            let zero_copy = self.features.has(Feature::SendZc);
            match (target, zero_copy) {
                (Target::Direct(fixed), false) => {
                    opcode::Send::new(fixed, start, len).flags(flags).build()
                }
                (Target::Plain(fd), false) => {
                    opcode::Send::new(fd, start, len).flags(flags).build()
                }
                (Target::Direct(fixed), true) => {
                    opcode::SendZc::new(fixed, start, len).flags(flags).build()
                }
                (Target::Plain(fd), true) => {
                    opcode::SendZc::new(fd, start, len).flags(flags).build()
                }
            }
        };
        // Only a send that can't wait is known to have ended when the submit returns.
        let skip = self.features.has(Feature::SkipSuccess) && flags & libc::MSG_DONTWAIT != 0;
        let state = self.slots.state(slot);
        state.sending = Some(payload);
        if skip {
            self.ticket = self.ticket.checked_add(1).unwrap_or(1);
            state.ticket = self.ticket;
            self.unconfirmed.push_back((slot, self.ticket));
            self.push(entry.flags(squeue::Flags::SKIP_SUCCESS), Op::Send, slot);
        } else {
            state.ticket = 0;
            self.push(entry, Op::Send, slot);
        }
    }

    /// Where a piece is, and how long.
    #[inline]
    fn piece(&self, payload: &Payload) -> (*const u8, usize) {
        match payload {
            Payload::Buffer(buffer) => (self.pools.home(buffer).address(buffer), buffer.len()),
            Payload::Heap { bytes, start } => {
                let left = &bytes[*start as usize..];
                (left.as_ptr(), left.len())
            }
            Payload::Shared(range) => (self.shared[range.clone()].as_ptr(), range.len()),
            Payload::Gather(_) => unreachable!("a gather holds no gather: `push` sees to it"),
        }
    }

    /// Writes down for the kernel where the pieces are. The header stays valid as long as the gather is kept, which is
    /// until the send's completion: it is boxed, and its vector isn't touched meanwhile.
    fn lay_out(&self, gather: &mut Gather) -> *const libc::msghdr {
        let mut vectors = std::mem::take(&mut gather.vectors);
        vectors.clear();
        vectors.extend(
            gather
                .iter()
                .filter(|piece| !piece.is_empty())
                .map(|piece| {
                    let (start, len) = self.piece(piece);
                    libc::iovec {
                        iov_base: start.cast_mut().cast(),
                        iov_len: len,
                    }
                }),
        );
        gather.header.msg_iov = vectors.as_mut_ptr();
        gather.header.msg_iovlen = vectors.len() as _;
        gather.vectors = vectors;
        &raw const gather.header
    }

    /// Sends that say nothing when they succeed and whose success is not known yet.
    #[inline]
    pub fn sends_unconfirmed(&self) -> usize {
        self.unconfirmed.len()
    }

    /// Whether a send is in flight on the slot.
    #[inline]
    pub fn is_sending(&mut self, slot: Slot) -> bool {
        let state = self.slots.find(slot);
        state.is_some_and(|state| state.sending.is_some())
    }

    /// Connects a socket that was installed.
    ///
    /// # Panics
    /// When a connect is in flight on the slot already, and when the slot is not open.
    pub fn connect(&mut self, slot: Slot, address: &SocketAddrAny) {
        let state = self.slots.open(slot);
        assert!(!state.connecting, "two connects in flight on one socket");
        state.connecting = true;
        // Boxed, so that the vector may grow without moving what a queued request points to.
        let address = Box::new(address.clone());
        let start = address.as_ptr().cast::<libc::sockaddr>();
        let len = address.addr_len();
        self.addresses.push(address);
        let entry = match self.target(slot) {
            Target::Direct(fixed) => opcode::Connect::new(fixed, start, len).build(),
            Target::Plain(fd) => opcode::Connect::new(fd, start, len).build(),
        };
        self.push(entry, Op::Connect, slot);
    }

    /// Ends our side of the stream: the peer reads to the end of what was sent, then sees EOF.
    ///
    /// # Panics
    /// When a shutdown is in flight on the slot already, and when the slot is not open.
    pub fn shutdown_write(&mut self, slot: Slot) {
        let state = self.slots.open(slot);
        assert!(!state.shutting, "two shutdowns in flight on one socket");
        state.shutting = true;
        let entry = match self.target(slot) {
            Target::Direct(fixed) => opcode::Shutdown::new(fixed, libc::SHUT_WR).build(),
            Target::Plain(fd) => opcode::Shutdown::new(fd, libc::SHUT_WR).build(),
        };
        self.push(entry, Op::Shutdown, slot);
    }

    /// Waits for the file to become readable, once.
    ///
    /// # Panics
    /// When something is armed on the slot already, and when the slot is not open.
    pub fn poll(&mut self, slot: Slot) {
        self.arm(slot, Op::Poll);
        let entry = self.poll_entry(slot, PollFlags::IN, false);
        self.push(entry, Op::Poll, slot);
    }

    /// Waits until a socket that was full has room for a good part of what it holds, or has failed: once. So no send has to
    /// wait in the kernel, which says nothing of what it has sent until all is sent, and which takes a thread for each that
    /// was woken often.
    ///
    /// # Panics
    /// When that is awaited already, and when the slot is not open.
    pub fn await_room(&mut self, slot: Slot) {
        let state = self.slots.open(slot);
        assert!(!state.room, "room is awaited twice on one slot");
        state.room = true;
        let entry = self.poll_entry(slot, PollFlags::OUT, false);
        self.push(entry, Op::Room, slot);
    }

    /// Whether room is awaited on the slot.
    pub fn awaits_room(&mut self, slot: Slot) -> bool {
        let state = self.slots.find(slot);
        state.is_some_and(|state| state.room)
    }

    /// Asks for a plain descriptor of the file behind a direct one: for what is no operation of a ring (6.8). Plain ones are
    /// had by [`Ring::file`].
    ///
    /// # Panics
    /// When that is asked for already, when the file has a plain descriptor, and when the slot is not open.
    pub fn open_file(&mut self, slot: Slot) {
        let state = self.slots.open(slot);
        assert!(!state.opening, "a descriptor is asked for twice");
        assert!(state.file.is_none(), "the slot has a plain descriptor");
        state.opening = true;
        let entry = opcode::FixedFdInstall::new(Fixed(slot.number()), 0).build();
        self.push(entry, Op::File, slot);
    }

    fn poll_entry(&mut self, slot: Slot, events: PollFlags, multishot: bool) -> squeue::Entry {
        let events = u32::from(events.bits());
        let poll = match self.target(slot) {
            Target::Direct(fixed) => opcode::PollAdd::new(fixed, events),
            Target::Plain(fd) => opcode::PollAdd::new(fd, events),
        };
        poll.multi(multishot).build()
    }

    /// Ends the armed accept, receive or poll of a slot. Its last event still comes: `ECANCELED`, or what it had just
    /// then. Without effect where none is armed, and on a slot that is not open.
    pub fn cancel(&mut self, slot: Slot) {
        if self.slots.find(slot).is_some() {
            self.cancel_armed(slot);
        }
    }

    pub(super) fn cancel_armed(&mut self, slot: Slot) {
        let state = self.slots.state(slot);
        if let Some(op) = state.armed
            && !state.cancelling
        {
            state.cancelling = true;
            match state.stage {
                // Nothing of it is in flight but the readiness poll, which may stay.
                Stage::Polled | Stage::Queued => {
                    state.stage = Stage::None;
                    self.bulk.cancel(slot);
                }
                Stage::Receiving => self.push_cancel_of(slot, Op::BulkRecv),
                _ => self.push_cancel_of(slot, op),
            }
        }
    }

    #[inline]
    pub(super) fn arm(&mut self, slot: Slot, op: Op) {
        let state = self.slots.open(slot);
        assert!(state.armed.is_none(), "armed twice on one slot");
        state.armed = Some(op);
    }

    #[inline]
    pub(super) fn target(&mut self, slot: Slot) -> Target {
        if self.features.has(Feature::Direct) {
            return Target::Direct(Fixed(slot.number()));
        }
        let file = self.slots.state(slot).file.as_ref();
        Target::Plain(Fd(file.map_or(-1, AsRawFd::as_raw_fd)))
    }

    pub(super) fn push_cancel_of(&mut self, slot: Slot, op: Op) {
        let target = Token::new(op, slot).pack();
        // All of that name: accepts have the same.
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(target).all()).build();
        self.push(entry, Op::Cancel, slot);
    }

    /// Tells the kernel to close the file. The generation moves on now: the kernel may give the slot to a new
    /// connection before the completion of this close is read.
    pub(super) fn push_close(&mut self, slot: Slot) {
        let state = self.slots.state(slot);
        debug_assert!(state.may_close(), "a close under something in flight");
        if let Some(payload) = state.sending.take() {
            // Only a notification is awaited: it comes as a stranger's, and finds the payload here.
            let name = Token::new(Op::Send, slot).pack();
            self.lingering.push((name, payload));
        }
        let file = self.slots.state(slot).file.take();
        let entry = match file {
            Some(file) => opcode::Close::new(Fd(file.into_raw_fd())).build(),
            None => opcode::Close::new(Fixed(slot.number())).build(),
        };
        let entry = entry.user_data(Token::new(Op::Close, slot).pack());
        self.slots.vacate(slot);
        self.push_raw(&entry);
    }
}

/// Bounds what a multishot receive takes until it is armed again, in bytes (6.17, `optlen`); 0 is no bound. Without it
/// one connection whose socket is full of data takes all buffers of the pool at once: bundles fill as many as there are
/// bytes for.
fn limited(mut entry: squeue::Entry, bytes: u32) -> squeue::Entry {
    /// Where `struct io_uring_sqe` of the kernel's ABI has its `optlen`.
    const OPTLEN: usize = 44;
    const { assert!(size_of::<squeue::Entry>() == 64) };
    // SAFETY: an entry is `repr(C)` and nothing but the kernel's 64-byte `io_uring_sqe`, in which 4 bytes at 44, aligned,
    // are a plain integer.
    unsafe {
        (&raw mut entry)
            .cast::<u8>()
            .add(OPTLEN)
            .cast::<u32>()
            .write(bytes);
    }
    entry
}

/// Sets what an accept and a receive take as flags of their own, in the field that files take a priority in.
pub(super) fn with_ioprio(mut entry: squeue::Entry, flags: u16) -> squeue::Entry {
    /// Where `struct io_uring_sqe` of the kernel's ABI has its `ioprio`.
    const IOPRIO: usize = 2;
    // SAFETY: as in `limited`, for 2 bytes at 2.
    unsafe {
        (&raw mut entry)
            .cast::<u8>()
            .add(IOPRIO)
            .cast::<u16>()
            .write(flags);
    }
    entry
}

#[derive(Clone, Copy)]
pub(super) enum Target {
    Direct(Fixed),
    Plain(Fd),
}
