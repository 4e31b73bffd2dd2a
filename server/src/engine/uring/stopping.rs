//! The stop: first the listen queue is emptied and the listener closed, then each connection ends as
//! [`Connection`] says.

use std::time::Instant;

use echometer_ring::{Errno, Feature, Slot};

use super::Server;
use crate::connection::Connection;
use crate::counters::AcceptError;

impl Server<'_> {
    /// The listener goes first, so that no connection is left in its queue; then each connection is ended as
    /// [`Connection`] says.
    pub(super) fn begin_stop(&mut self) {
        if self.drain_deadline.is_some() {
            return;
        }
        self.drain_deadline = Some(Instant::now() + self.config.drain_timeout);
        // From here on the drain time rules: a client may take all of it to read what it is owed.
        self.idle = None;
        let was_armed = self.admission.arm().is_some();
        self.admission.end();
        let armed = match self.listener {
            Some((listener, _)) => self.ring.is_armed(listener),
            None => false,
        };
        debug_assert!(armed || !was_armed);
        if armed {
            self.cancel_accept();
        } else {
            self.end_accepting();
        }
        self.for_each_open(Connection::stop);
    }

    /// The accept's last event is here: takes what the queue still holds, then closes the listener. Closed with a queue,
    /// it would reset those clients.
    pub(super) fn end_accepting(&mut self) {
        let Some((slot, _)) = self.listener else {
            return;
        };
        if self.ring.features().has(Feature::Restrictions) {
            // No file can be put into this ring any more, but it can still accept.
            if self.admission.will_have_place() {
                self.emptying = true;
                self.ring.accept_now(slot);
            } else {
                self.close_listener();
            }
            return;
        }
        let Some((slot, listener)) = self.listener.take() else {
            return;
        };
        while self.admission.will_have_place() {
            let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
            match rustix::net::accept_with(&listener, flags) {
                // Not copied: where descriptors have run out, there was one for this client and none for the copy.
                Ok(file) => match self.ring.adopt(file) {
                    Ok(slot) => self.welcome(slot),
                    // All slots are taken, or their closes are not done yet: this one sees its connection end.
                    Err(_) => {
                        let errors = &self.worker.counters;
                        errors.accept_error(AcceptError::ProcessLimit);
                    }
                },
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.ring.close(slot);
        listener.end();
    }

    pub(super) fn close_listener(&mut self) {
        if let Some((slot, listener)) = self.listener.take() {
            self.ring.close(slot);
            listener.end();
        }
    }

    pub(super) fn for_each_open(&mut self, tell: impl Fn(&mut Connection)) {
        for index in 0..self.peers.len() {
            if let Some(slot) = self.peers[index].slot {
                tell(&mut self.peers[index].connection);
                self.settle_stopped(slot);
            }
        }
    }

    /// As `settle`, for a connection that was told of the stop: where no receive is armed, none has to end first.
    pub(super) fn settle_stopped(&mut self, slot: Slot) {
        if !self.ring.is_armed(slot) {
            self.peers[slot.index()].connection.receive_ended();
        }
        self.settle(slot);
    }
}
