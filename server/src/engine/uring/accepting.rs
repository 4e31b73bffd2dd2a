//! Connections come: what an accept brings, and how the next one is armed.

use std::time::Instant;

use echometer_ring::{Errno, Slot};

use super::admission::{After, Arm};
use super::{Peer, Server, sizing};
use crate::connection::{CloseReason, Connection};
use crate::counters::AcceptError;
use crate::engine::ServeError;
use crate::engine::accept_failures::Next;

impl Server<'_> {
    pub(super) fn handle_accept(
        &mut self,
        result: Result<Slot, Errno>,
        more: bool,
    ) -> Result<(), ServeError> {
        let emptied = self.emptying && !matches!(result, Ok(_) | Err(Errno::CONNABORTED));
        match result {
            Ok(slot) => {
                self.accept_failures.succeeded();
                self.welcome(slot);
            }
            Err(Errno::AGAIN | Errno::INVAL) if emptied => {}
            // Our own cancel: at a limit, or at the stop. Or a signal, which ends nothing else.
            Err(Errno::CANCELED | Errno::INTR) => {}
            Err(errno) => {
                if self.accept_failures.failed(errno, self.worker)? == Next::Rest {
                    self.admission.rest(Instant::now());
                }
            }
        }
        if more {
            return Ok(());
        }
        if !self.admission.has_ended() {
            self.arm_accept();
        } else if emptied {
            self.close_listener();
        } else {
            self.end_accepting();
        }
        Ok(())
    }

    pub(super) fn welcome(&mut self, slot: Slot) {
        self.worker.counters.accepted.add(1);
        let limit = self.config.connections_max.map_or(u64::MAX, u64::from);
        if limit < self.worker.connections_open() {
            self.worker.counters.close(CloseReason::OverLimit);
            self.admission.turned_away();
            self.ring.close(slot);
            return;
        }
        while self.peers.len() <= slot.index() {
            self.peers.push(Peer::vacant());
        }
        self.peers[slot.index()].welcome(
            slot,
            Connection::new(sizing::owed_pause(self.config.owed_max)),
        );
        if let Some(idle) = &mut self.idle {
            idle.opened(slot.index());
        }
        let after = self.admission.came();
        if self.admission.has_ended() {
            self.peers[slot.index()].connection.stop();
            self.settle_stopped(slot);
            return;
        }
        match after {
            After::GoOn => {}
            After::OneByOne => self.cancel_accept(),
            After::Full => {
                // The next ones wait in the listen queue.
                self.worker.counters.accept_error(AcceptError::ProcessLimit);
                self.admission.rest(Instant::now());
                self.cancel_accept();
            }
        }
        self.settle(slot);
    }

    pub(super) fn handle_close(&mut self) {
        if self.admission.left() {
            self.arm_accept();
        }
    }

    /// Arms the accept unless it is armed: its cancel may be on its way, and its last event then comes back here.
    pub(super) fn arm_accept(&mut self) {
        if let Some((listener, _)) = self.listener
            && !self.ring.is_armed(listener)
        {
            match self.admission.arm() {
                Some(Arm::Many) => self.ring.accept(listener),
                Some(Arm::One) => self.ring.accept_one(listener),
                None => {}
            }
        }
    }

    pub(super) fn cancel_accept(&mut self) {
        if let Some((listener, _)) = self.listener {
            self.ring.cancel(listener);
        }
    }
}
