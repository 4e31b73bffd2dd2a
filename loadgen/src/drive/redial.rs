//! Connections that are made and closed while load is driven.

use std::io;

use crate::{
    drive::{Session, stretch::Stretch},
    engine::{Closing, Engine},
    failure::Failure,
    plan::Close,
};

/// Connects are stamped and handed over in batches of this many: one costs the kernel ten times what a send does.
pub(super) const DIAL_BATCH: usize = 8;

impl<E: Engine> Session<E> {
    /// Begins the connects that are due, a batch of them at most, and ends those that have had their time. Whether there
    /// was any of either.
    pub(super) fn dial(&mut self, stretch: &mut Stretch<'_>) -> io::Result<bool> {
        if self.connections.lives.is_none() {
            return Ok(false);
        }
        let now_ns = stretch.elapsed_ns();
        let mut any = false;
        while let Some(connection) = self.expired(now_ns) {
            any = true;
            self.engine.close(connection, Closing::Fin);
            let failure = Failure::ConnectTimedOut;
            self.connections
                .fail_to_connect(stretch, connection, failure, now_ns);
        }
        self.batch.clear();
        while self.batch.len() < DIAL_BATCH
            && let Some(connection) = self.next_to_dial(stretch.loading, now_ns)
        {
            any = true;
            match self.engine.dial(connection as usize, &mut self.dialing) {
                Ok(()) => self.batch.push(connection),
                Err(failure) => {
                    let connection = connection as usize;
                    self.connections
                        .fail_to_connect(stretch, connection, failure, now_ns);
                }
            }
        }
        for connection in self.batch.drain(..) {
            let begun_ns = stretch.elapsed_ns();
            if let Some(lives) = &mut self.connections.lives {
                lives.begun(connection, begun_ns);
            }
            let connection = connection as usize;
            if let Err(failure) = self.engine.connect(connection, &self.dialing) {
                self.connections
                    .fail_to_connect(stretch, connection, failure, begun_ns);
            }
        }
        if any {
            self.engine.flush()?;
        }
        Ok(any)
    }

    fn expired(&mut self, now_ns: u64) -> Option<usize> {
        let lives = self.connections.lives.as_mut()?;
        lives.expired(now_ns).map(|connection| connection as usize)
    }

    /// After the load connections are made only for messages that still wait.
    fn next_to_dial(&mut self, loading: bool, now_ns: u64) -> Option<u32> {
        let flow = &self.connections.flow;
        let lives = self.connections.lives.as_mut()?;
        lives.next(now_ns, |connection| loading || flow.has_queued(connection))
    }

    /// Closes the connections whose life is over.
    #[inline]
    pub(super) fn hang_up(&mut self, now_ns: u64) {
        let Some(lives) = &mut self.connections.lives else {
            return;
        };
        let how = match lives.plan().close {
            Close::Rst => Closing::Reset,
            Close::Fin | Close::Server => Closing::Fin,
        };
        while let Some(connection) = lives.take_spent(now_ns) {
            self.engine.close(connection as usize, how);
        }
    }
}
