//! `--idle-timeout`: a connection on which no completion has come for so long is looked at before it is closed. Its bytes may
//! wait for us, because this process stood still or has no buffer; and its peer may read, slowly, what the socket holds.

use std::os::fd::OwnedFd;

use echometer_host::clock;
use echometer_ring::{Errno, Slot};

use super::Server;
use crate::connection::{CloseReason, Receive};
use crate::idle::{IdleWatch, Look};

/// Connections that are looked at in one turn: when a thousand are idle at once, the others don't wait for all of them.
const LOOKS_PER_TURN: usize = 32;

/// Connections that are being looked at.
#[derive(Default)]
pub(super) struct Looking {
    /// Descriptors that were asked for, and are here. They are looked at when all events of the turn were handled: one of them may be of bytes that are
    /// not in the socket any more.
    files: Vec<(Slot, OwnedFd)>,
    /// Idle, by what was seen; but a completion may have been written between the drain of the turn and the look, and then it
    /// is handled in the next one.
    suspects: Vec<(Slot, Look)>,
}

impl Server<'_> {
    /// Looks at connections that seem idle, and closes those that are.
    pub(super) fn end_idle(&mut self) {
        if self.idle.is_none() {
            return;
        }
        for (slot, look) in std::mem::take(&mut self.looking.suspects) {
            self.judge(slot, look);
        }
        for (slot, file) in std::mem::take(&mut self.looking.files) {
            self.look_at(slot, Some(&file));
        }
        for _ in 0..LOOKS_PER_TURN {
            let Some(index) = self.idle.as_mut().and_then(IdleWatch::pop_idle) else {
                return;
            };
            let Some(slot) = self.peers[index].slot else {
                continue;
            };
            // A copy would take a descriptor, of which there may be none left.
            if !self.look_at(slot, None) {
                self.ring.open_file(slot);
            }
        }
    }

    pub(super) fn handle_file(&mut self, slot: Slot, result: Result<OwnedFd, Errno>) {
        match result {
            Ok(file) => self.looking.files.push((slot, file)),
            Err(_) => self.judge(slot, Look::Unknown),
        }
    }

    /// Looks at what the kernel knows of a connection that no completion has told yet: by this descriptor, or the ring's own.
    /// Whether there is one.
    fn look_at(&mut self, slot: Slot, file: Option<&OwnedFd>) -> bool {
        if !self.is_current(slot) {
            return true;
        }
        let peer = &self.peers[slot.index()];
        let reads = peer.connection.receive() != Receive::Pause;
        let wants_room = self.ring.awaits_room(slot);
        let look = match (file, self.ring.file(slot)) {
            // What is owed is kept back by us.
            _ if clock::now_ns() < peer.due_ns => Look::Moves,
            (Some(file), _) => Look::at(file, reads, wants_room),
            (None, Some(file)) => Look::at(file, reads, wants_room),
            (None, None) => return false,
        };
        self.looking.suspects.push((slot, look));
        self.hurry = true;
        true
    }

    fn judge(&mut self, slot: Slot, look: Look) {
        if !self.is_current(slot) {
            return;
        }
        // In a stop the drain time rules.
        let idle = self.idle.as_mut();
        if idle.is_some_and(|idle| idle.is_idle(slot.index(), look)) {
            let connection = &mut self.peers[slot.index()].connection;
            connection.failed(CloseReason::TimedOut);
            self.settle(slot);
        }
    }
}
