//! Events out: a turn hands over what was asked for, then settles completion by completion.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::cqueue;
use rustix::io::Errno;

use super::{Ring, close_resets, is_for_the_moment};
use crate::buffers::Buffer;
use crate::event::Event;
use crate::pools::Group;
use crate::slot::Slot;
use crate::slots::{Life, Readiness, Stage};
use crate::token::{Op, Token};

/// How many receives are bulk receives once a connection sent more than a small buffer holds. The ends of its messages are
/// short, so that one short receive says nothing.
const BULK_RECEIVES: u8 = 8;

impl Ring {
    /// Hands over what was asked for, and doesn't wait.
    ///
    /// # Errors
    /// What `io_uring_enter` said, interruptions and time-outs left out: the ring is not usable then.
    #[inline]
    pub fn submit(&mut self) -> io::Result<()> {
        self.enter(0, None)
    }

    /// As [`Ring::submit`], without a call into the kernel where there is nothing to hand over and nothing to fetch: for
    /// a loop that spins.
    ///
    /// # Errors
    /// As [`Ring::submit`].
    #[inline]
    pub fn submit_if_due(&mut self) -> io::Result<()> {
        self.faces.completions.sync();
        self.faces.submissions.sync();
        let due = !self.faces.submissions.is_empty()
            || !self.faces.completions.is_empty()
            || self.faces.submissions.taskrun()
            || self.faces.submissions.cq_overflow()
            || !self.deferred.is_empty()
            || !self.completions_left.is_empty()
            || !self.bulk.is_empty()
            || self.bulk.any_cancelled()
            || 0 < self.confirmable;
        if due {
            return self.enter(0, None);
        }
        std::hint::spin_loop();
        Ok(())
    }

    /// Hands over what was asked for and waits for an event, or for `limit` at most.
    ///
    /// # Errors
    /// As [`Ring::submit`]. That the time is up is not an error.
    #[inline]
    pub fn submit_and_wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        // Events that are here already are reason enough not to wait.
        self.faces.completions.sync();
        let nothing = self.faces.completions.is_empty()
            && self.deferred.is_empty()
            && self.completions_left.is_empty()
            && self.send_completions.is_empty()
            && !self.bulk.any_cancelled()
            && !self.bulk_is_near();
        self.enter(usize::from(nothing), limit)
    }

    /// The next event of those that the last submit brought. They are to be drained before the next wait.
    ///
    /// Ends of sends come first: whoever gets bytes of a connection then knows that the send before them is over, though
    /// its peer may have answered within the same submit.
    #[inline]
    pub fn next_event(&mut self) -> Option<Event> {
        if let Some(buffer) = self.bundle.buffers.pop_front() {
            return Some(Event::Recv {
                slot: self.bundle.slot,
                result: Ok(Some(buffer)),
                more: self.bundle.more || !self.bundle.buffers.is_empty(),
            });
        }
        while let Some(entry) = self.send_completions.pop_front() {
            if let Some(event) = self.settle(&entry) {
                return Some(event);
            }
        }
        while 0 < self.confirmable {
            if let Some(event) = self.confirm() {
                return Some(event);
            }
        }
        while let Some(entry) = self.completions_left.pop_front() {
            if let Some(event) = self.settle(&entry) {
                return Some(event);
            }
        }
        while let Some(slot) = self.bulk.next_cancelled() {
            if let Some(state) = self.slots.find(slot) {
                return Some(state.receive_failed(slot, Errno::CANCELED));
            }
        }
        None
    }

    /// Whether the next event is of bytes of this connection too: they can be sent together.
    #[inline]
    pub fn another_piece_follows(&mut self, slot: Slot) -> bool {
        if !self.bundle.buffers.is_empty() && self.bundle.slot == slot {
            return true;
        }
        let next = Token::new(Op::Recv, slot).pack();
        self.completions_left
            .front()
            .is_some_and(|entry| entry.user_data() == next && 0 < entry.result())
    }

    /// One silent send that was handed over and has not failed has succeeded: failures and short sends write a completion
    /// before the submit returns, and all those were settled by now.
    #[inline]
    fn confirm(&mut self) -> Option<Event> {
        self.confirmable -= 1;
        let (slot, ticket) = self.unconfirmed.pop_front()?;
        let state = self.slots.state(slot);
        // It said something after all, and was settled then.
        if state.ticket != ticket {
            return None;
        }
        state.ticket = 0;
        state.in_flight -= 1;
        self.in_flight -= 1;
        let payload = state.sending.take();
        let payload = payload.expect("an unconfirmed send has its payload");
        let bytes = payload.len();
        let closing = state.life == Life::Closing;
        let may_close = state.may_close();
        self.take_back(payload);
        if closing {
            if may_close {
                self.push_close(slot);
            }
            return None;
        }
        Some(Event::Sent { slot, bytes })
    }

    /// Takes the buffers of a receive out of the kernel's hands: the first is returned, and where the bytes fill more
    /// than one the others wait for their events. They are all taken now, because the order of the ring says which they
    /// are, and what is given back from now on changes it.
    #[inline]
    fn lease(&mut self, slot: Slot, group: Group, id: u16, len: u32, more: bool) -> Option<Buffer> {
        let pool = self.pools.of(group);
        let size = pool.size();
        if len <= size {
            return pool.lease(id, len);
        }
        self.bundle.slot = slot;
        self.bundle.more = more;
        let (mut next, mut left) = (id, len);
        while 0 < left {
            let piece = left.min(size);
            left -= piece;
            let buffer = pool.lease(next, piece)?;
            self.bundle.buffers.push_back(buffer);
            next = pool.after(next);
        }
        self.bundle.buffers.pop_front()
    }

    pub(super) fn enter(&mut self, want: usize, limit: Option<Duration>) -> io::Result<()> {
        if !self.bulk.is_empty() {
            self.begin_bulk();
        }
        let seen = self.counts.cqes;
        let entered = self.hand_over(want, limit);
        if self.faces.submissions.is_empty() {
            self.addresses.clear();
            self.confirmable = self.unconfirmed.len();
        }
        self.take_completions();
        if self.faces.submissions.cq_overflow() {
            self.counts.cq_overflows += 1;
            // What overflowed may be the failure of a silent send, which has to be known before the others of its kind
            // are taken to have succeeded: there is room now, so that it can be fetched.
            self.counts.enters += 1;
            let _ = self.faces.submitter.submit_and_wait(0);
            self.take_completions();
            if self.faces.submissions.cq_overflow() {
                self.confirmable = 0;
            }
        }
        let Err(error) = entered else {
            self.refused = 0;
            return Ok(());
        };
        match Errno::from_io_error(&error) {
            Some(Errno::TIME | Errno::INTR) => Ok(()),
            Some(errno) if is_for_the_moment(errno) => {
                self.rest(errno, seen < self.counts.cqes);
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Takes all completions off the queue, so that the kernel has room for more, and those of sends apart from the others.
    #[inline]
    fn take_completions(&mut self) {
        if !self.deferred.is_empty() {
            self.take_deferred();
        }
        self.faces.completions.sync();
        while let Some(entry) = self.faces.completions.next() {
            self.sort(entry);
        }
        self.faces.completions.sync();
    }

    /// Those that came while the user was busy with others.
    #[cold]
    fn take_deferred(&mut self) {
        for entry in std::mem::take(&mut self.deferred) {
            self.sort(entry);
        }
    }

    #[inline]
    fn sort(&mut self, entry: cqueue::Entry) {
        self.counts.cqes += 1;
        if entry.user_data() >> Token::OP_SHIFT == Op::Send as u64 {
            self.send_completions.push_back(entry);
        } else {
            self.completions_left.push_back(entry);
        }
    }

    /// Turns a completion into an event, or swallows it: a stranger's, a cancel's, a closing connection's.
    #[inline]
    fn settle(&mut self, entry: &cqueue::Entry) -> Option<Event> {
        let Some(token) = Token::unpack(entry.user_data()) else {
            debug_assert!(false, "a completion that nobody asked for");
            return None;
        };
        let flags = entry.flags();
        let more = cqueue::more(flags);
        let result = entry.result();
        if !more {
            self.in_flight -= 1;
        }
        if token.op == Op::Accept && !more {
            self.accepts -= 1;
        }
        let group = match token.op {
            Op::BulkRecv => Group::Large,
            _ => Group::Small,
        };
        let (slot, state) = self.slots.at(token.number)?;
        if slot.generation().get() != token.generation {
            return self.settle_stale(token, group, entry);
        }
        let cancelling = state.cancelling;
        if !more {
            state.in_flight -= 1;
            match token.op {
                Op::Recv | Op::Poll => {
                    state.armed = None;
                    state.cancelling = false;
                }
                Op::Accept => {
                    state.accepts -= 1;
                    let goes_on = state.accepts_go_on && !cancelling && 0 <= result;
                    if state.accepts == 0 && !(goes_on && state.life == Life::Open) {
                        state.armed = None;
                        state.cancelling = false;
                        state.accepts_go_on = false;
                    }
                }
                Op::BulkRecv => {
                    state.armed = None;
                    state.cancelling = false;
                    self.bulk.end(result.max(0) as u32);
                }
                Op::Connect => state.connecting = false,
                Op::Shutdown => state.shutting = false,
                Op::Room => state.room = false,
                Op::File => state.opening = false,
                _ => {}
            }
        }
        let mut result = result;
        if token.op == Op::Send {
            if more {
                // Zero-copy: it was sent, or failed, and the buffer is still the kernel's until the notification.
                state.outcome = result;
                state.notifying = true;
                self.notifications += 1;
                if state.life == Life::Open {
                    let bytes = usize::try_from(result).unwrap_or(0);
                    return (0 < bytes).then_some(Event::Taken { slot, bytes });
                }
                if state.life == Life::Closing && state.may_close() {
                    self.push_close(slot);
                }
                return None;
            }
            if cqueue::notif(flags) {
                result = state.outcome;
                state.notifying = false;
                self.notifications -= 1;
            }
        }
        if state.life == Life::Closing {
            let sent = if token.op == Op::Send {
                state.ticket = 0;
                state.sending.take()
            } else {
                None
            };
            let may_close = state.may_close();
            if token.op == Op::File
                && let Ok(file) = opened(result)
                && state.resetting
            {
                close_resets(&file);
            }
            self.discard_received(group, result, flags);
            if let Some(payload) = sent {
                self.take_back(payload);
            }
            if token.op == Op::Accept
                && let Ok(accepted) = self.accepted(result)
            {
                // Taken in before the accept heard of its end: nobody else would close it.
                self.close(accepted);
            }
            if may_close {
                self.push_close(slot);
            }
            return None;
        }
        match token.op {
            Op::Readiness => {
                if !more {
                    state.readiness = Readiness::None;
                }
                let result = outcome(result);
                state.readable |= result.is_ok();
                if state.stage != Stage::Polled {
                    return None;
                }
                match result {
                    // Or its end was asked for, and then it was wanted again.
                    Ok(_) | Err(Errno::CANCELED) => {
                        self.await_bulk(slot);
                        None
                    }
                    Err(errno) => Some(state.receive_failed(slot, errno)),
                }
            }
            Op::BulkRecv => {
                state.stage = Stage::None;
                if cqueue::sock_nonempty(flags) {
                    state.stage = Stage::More;
                } else if 0 < result {
                    let short = (result as u32) < self.recv_bytes_bulk;
                    state.readable |= !(short && self.short_is_empty);
                }
                if outcome(result) == Err(Errno::AGAIN) {
                    // The socket was empty after all. The buffer comes back with this completion on some kernels (6.1),
                    // and stays with the kernel on others.
                    if cancelling {
                        self.discard_received(group, result, flags);
                        let state = self.slots.state(slot);
                        return Some(state.receive_failed(slot, Errno::CANCELED));
                    }
                    state.armed = Some(Op::Recv);
                    self.discard_received(group, result, flags);
                    self.await_bulk(slot);
                    return None;
                }
                let result = self.received(slot, group, result, flags, more);
                Some(Event::Recv { slot, result, more })
            }
            Op::Recv => {
                let result = self.received(slot, group, result, flags, more);
                let more = more || !self.bundle.buffers.is_empty();
                Some(Event::Recv { slot, result, more })
            }
            Op::Send => {
                state.ticket = 0;
                let payload = state.sending.take();
                let mut payload = payload.expect("a send's payload is kept until its completion");
                let result = outcome(result).map(|sent| sent as usize);
                if result == Ok(payload.len()) {
                    self.take_back(payload);
                    let bytes = result.unwrap_or(0);
                    return Some(Event::Sent { slot, bytes });
                }
                payload.advance(result.unwrap_or(0));
                Some(Event::Unsent {
                    slot,
                    result,
                    rest: payload,
                })
            }
            Op::Accept => Some(self.settle_accept(slot, result, more)),
            Op::Room => Some(Event::Room { slot }),
            Op::File => Some(Event::File {
                slot,
                result: opened(result),
            }),
            Op::Connect => Some(Event::Connect {
                slot,
                result: outcome(result).map(|_| ()),
            }),
            Op::Shutdown => Some(Event::Shutdown {
                slot,
                result: outcome(result).map(|_| ()),
            }),
            Op::Poll => (0 <= result).then_some(Event::Poll { slot }),
            // A close carries the generation that it ended, so it is never met here.
            Op::Cancel => {
                self.cancel_accepts_again(slot);
                None
            }
            Op::Close => None,
        }
    }

    /// A completion of a file that is gone by now: of its close, or of a zero-copy send's notification.
    fn settle_stale(&mut self, token: Token, group: Group, entry: &cqueue::Entry) -> Option<Event> {
        self.discard_received(group, entry.result(), entry.flags());
        match token.op {
            Op::Close => {
                let slot = self.slots.former(token.number, token.generation)?;
                self.slots.closed(slot);
                Some(Event::Close { slot })
            }
            Op::Send => {
                self.end_lingering(entry.user_data());
                None
            }
            _ => None,
        }
    }

    #[inline]
    fn received(
        &mut self,
        slot: Slot,
        group: Group,
        result: i32,
        flags: u32,
        more: bool,
    ) -> Result<Option<Buffer>, Errno> {
        match (outcome(result), cqueue::buffer_select(flags)) {
            (Ok(0), None) => Ok(None),
            (Ok(len), Some(id)) if 0 < len => {
                let buffer = self.lease(slot, group, id, len, more);
                if self.pools.small().size() <= len {
                    self.expect_bulk(slot, group, len, flags);
                }
                debug_assert!(buffer.is_some(), "bytes in a buffer that the pool hasn't");
                buffer.map(Some).ok_or(Errno::IO)
            }
            (Ok(0), Some(_)) => {
                self.discard_received(group, result, flags);
                Ok(None)
            }
            (Ok(_), _) => {
                debug_assert!(false, "bytes that came in no buffer");
                Err(Errno::IO)
            }
            (Err(errno), _) => {
                self.discard_received(group, result, flags);
                if errno == Errno::NOBUFS {
                    // Those in use ran out: open more of the pool, for the receive that is armed next.
                    if group == Group::Large {
                        self.slots.state(slot).bulk_left = BULK_RECEIVES;
                    }
                    self.pools.of(group).open();
                }
                Err(errno)
            }
        }
    }

    /// A piece filled a small buffer, or more: if there is more where it came from, or it was more than that, the next
    /// receives are bulk receives. One that picks from the small buffers and goes on by itself is ended for that.
    #[cold]
    fn expect_bulk(&mut self, slot: Slot, group: Group, len: u32, flags: u32) {
        let more_waits = cqueue::sock_nonempty(flags);
        if len <= self.pools.small().size() && !(more_waits && group == Group::Small) {
            return;
        }
        self.slots.state(slot).bulk_left = BULK_RECEIVES;
        let armed = cqueue::more(flags);
        if armed && group == Group::Small && self.pools.large_is_free() {
            self.cancel_armed(slot);
        }
    }

    /// Puts the buffers of a completion that nobody wants back into the pool: whatever becomes of the event, they must
    /// come back.
    fn discard_received(&mut self, group: Group, result: i32, flags: u32) {
        let Some(id) = cqueue::buffer_select(flags) else {
            return;
        };
        // Events of a bundle come before the next completion is looked at.
        debug_assert!(self.bundle.buffers.is_empty(), "a bundle is left");
        let nowhere = self.slots.nowhere();
        if let Some(buffer) = self.lease(nowhere, group, id, result.max(0) as u32, false) {
            self.pools.release(buffer);
        }
        self.discard_bundle();
    }

    pub(super) fn discard_bundle(&mut self) {
        while let Some(buffer) = self.bundle.buffers.pop_front() {
            self.pools.release(buffer);
        }
    }

    /// The notification of a zero-copy send whose file was closed meanwhile.
    #[cold]
    fn end_lingering(&mut self, user_data: u64) {
        let found = self.lingering.iter().position(|(of, _)| *of == user_data);
        debug_assert!(found.is_some(), "a send that nobody waits for");
        if let Some(index) = found {
            self.notifications -= 1;
            let (_, payload) = self.lingering.swap_remove(index);
            self.take_back(payload);
        }
    }
}

/// The descriptor that the kernel made for us.
pub(super) fn opened(result: i32) -> Result<OwnedFd, Errno> {
    let number = outcome(result)?;
    // SAFETY: the kernel made this descriptor for this operation and told nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number as RawFd) })
}

#[inline]
pub(super) fn outcome(result: i32) -> Result<u32, Errno> {
    if 0 <= result {
        Ok(result as u32)
    } else {
        Err(Errno::from_raw_os_error(-result))
    }
}
