//! Accepts: a few at a time, each followed by another.

use io_uring::{opcode, squeue};
use rustix::io::Errno;

use super::Ring;
use super::completions::{opened, outcome};
use super::operations::{Target, with_ioprio};
use crate::event::Event;
use crate::features::Feature;
use crate::slot::Slot;
use crate::token::Op;

impl Ring {
    /// Connections that an accept takes at most between two submits, unless it is a multishot one.
    pub const ACCEPTS: u8 = 16;

    /// Arms the accept on a listener, for connection after connection. New connections take slots of the kernel's choice
    /// (direct) or ours. No more than [`Ring::ACCEPTS`] come with one submit: with [`Feature::MultishotAccept`] all that wait
    /// in the queue come at once, however many they are, and everybody else waits meanwhile.
    ///
    /// # Panics
    /// When something is armed on the slot already, and when the slot is not open.
    pub fn accept(&mut self, listener: Slot) {
        self.arm(listener, Op::Accept);
        if self.features.has(Feature::MultishotAccept) {
            self.push_accept(listener, true, 0);
            return;
        }
        self.slots.state(listener).accepts_go_on = true;
        // The kernel wakes one of them for each connection.
        for _ in 0..Ring::ACCEPTS {
            self.push_accept(listener, false, self.accept_flags);
        }
    }

    /// Arms the accept for one connection only: for when there is no room for as many as may be waiting.
    ///
    /// # Panics
    /// When something is armed on the slot already, and when the slot is not open.
    pub fn accept_one(&mut self, listener: Slot) {
        self.arm(listener, Op::Accept);
        self.push_accept(listener, false, 0);
    }

    /// Accepts one connection if one waits, else says `EAGAIN`: it is over when the submit returns. `EINVAL` where the
    /// kernel can't (before 6.10).
    ///
    /// # Panics
    /// When something is armed on the slot already, and when the slot is not open.
    pub fn accept_now(&mut self, listener: Slot) {
        /// `IORING_ACCEPT_DONTWAIT`
        const DONTWAIT: u16 = 1 << 1;
        self.arm(listener, Op::Accept);
        self.push_accept(listener, false, DONTWAIT);
    }

    pub(super) fn push_accept(&mut self, listener: Slot, multishot: bool, flags: u16) {
        self.accepts += 1;
        self.slots.state(listener).accepts += 1;
        let mut entry = self.accept_entry(listener, multishot);
        if flags != 0 {
            entry = with_ioprio(entry, flags);
        }
        self.push(entry, Op::Accept, listener);
    }

    fn accept_entry(&mut self, listener: Slot, multishot: bool) -> squeue::Entry {
        let direct = self.features.has(Feature::Direct);
        // A direct descriptor has no close-on-exec flag: it is in no process' table.
        let flags = if direct { 0 } else { libc::SOCK_CLOEXEC };
        match (self.target(listener), multishot) {
            (Target::Direct(fixed), true) => opcode::AcceptMulti::new(fixed)
                .allocate_file_index(true)
                .flags(flags)
                .build(),
            (Target::Direct(fixed), false) => {
                opcode::Accept::new(fixed, std::ptr::null_mut(), std::ptr::null_mut())
                    .file_index(Some(io_uring::types::DestinationSlot::auto_target()))
                    .flags(flags)
                    .build()
            }
            (Target::Plain(fd), true) => opcode::AcceptMulti::new(fd).flags(flags).build(),
            (Target::Plain(fd), false) => {
                opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
                    .flags(flags)
                    .build()
            }
        }
    }

    /// Connection after connection, by accepts for one each: one that brought a connection is followed by the next, and one
    /// that failed ends them all.
    pub(super) fn settle_accept(&mut self, listener: Slot, result: i32, more: bool) -> Event {
        let state = self.slots.state(listener);
        if state.accepts_go_on && !state.cancelling {
            if 0 <= result {
                self.push_accept(listener, false, self.accept_flags);
            } else {
                self.cancel_armed(listener);
            }
        }
        let more = more || 0 < self.slots.state(listener).accepts;
        Event::Accept {
            listener,
            result: self.accepted(result),
            more,
        }
    }

    /// A cancel is done. It misses an accept that looked first, found somebody, and was about to take them: that one may
    /// have found nobody after all, and waits now as if it had not been cancelled.
    pub(super) fn cancel_accepts_again(&mut self, listener: Slot) {
        let state = self.slots.state(listener);
        if state.cancelling && state.armed == Some(Op::Accept) && 0 < state.accepts {
            self.push_cancel_of(listener, Op::Accept);
        }
    }

    pub(super) fn accepted(&mut self, result: i32) -> Result<Slot, Errno> {
        if self.features.has(Feature::Direct) {
            return Ok(self.slots.occupy(outcome(result)?, None));
        }
        let file = opened(result)?;
        self.slots.take(Some(file)).ok_or(Errno::NFILE)
    }
}
