//! One harvest: what the engine found, settled message by message.

use crate::{
    connect_times::RETRANSMIT_NS_MIN,
    drive::{Connections, stretch::Stretch},
    engine::{Sink, Then},
    failure::Failure,
};

/// One harvest, as the engine sees it.
pub(super) struct Harvest<'a, 'b> {
    pub(super) connections: &'a mut Connections,
    pub(super) stretch: &'a mut Stretch<'b>,
    /// Messages that were answered in it.
    pub(super) replies: u64,
}

impl Harvest<'_, '_> {
    /// Compares what came with what is owed, where that was asked for.
    #[inline]
    fn verify(&mut self, connection: usize, bytes: &[u8]) -> Result<(), Failure> {
        let Connections {
            flow,
            payload,
            first_connection,
            verified_bytes,
            ..
        } = &mut *self.connections;
        let Some(offset) = verified_bytes.get_mut(connection) else {
            return Ok(());
        };
        // What is not owed is a surplus, whatever it says.
        let owed = flow.stream_sent(connection) - *offset;
        let bytes = &bytes[..bytes.len().min(owed as usize)];
        if let Err(difference) = payload.verify(*first_connection + connection, *offset, bytes) {
            self.stretch.mismatch.get_or_insert(difference);
            return Err(Failure::Mismatch);
        }
        *offset += bytes.len() as u64;
        Ok(())
    }

    /// A life may be over. What is to become of the connection then.
    #[inline]
    fn look_at_life(&mut self, connection: usize) -> Then {
        let Connections { flow, lives, .. } = &mut *self.connections;
        match lives {
            Some(lives) if flow.is_spent(connection) => {
                if lives.spent(connection) {
                    Then::Receive
                } else {
                    Then::Stop
                }
            }
            _ => Then::Receive,
        }
    }
}

impl Sink for Harvest<'_, '_> {
    #[inline]
    fn received(
        &mut self,
        connection: usize,
        bytes: &[u8],
        stamp_ns: Option<u64>,
    ) -> Result<Then, Failure> {
        self.connections.received_bytes += bytes.len() as u64;
        self.verify(connection, bytes)?;
        let Connections {
            flow,
            lives,
            thinking,
            ..
        } = &mut *self.connections;
        let now_ns = self.stretch.now_ns;
        let lag_ns = match (stamp_ns, &self.stretch.kernel_time) {
            (Some(stamp_ns), Some(time)) => Some(time.lag_ns(stamp_ns, now_ns)),
            _ => None,
        };
        let recorder = &mut self.stretch.recorder;
        let mut answers = 0;
        let received = flow.received(connection, bytes.len(), now_ns, |message| {
            answers += 1;
            recorder.answered(message, now_ns, lag_ns);
        });
        self.replies += answers;
        received.map_err(|_surplus| Failure::Surplus)?;
        if self.stretch.answers_make_messages() {
            let think_ns = self.stretch.job.think_ns;
            for _ in 0..answers {
                if think_ns == 0 {
                    flow.due(connection as u32, now_ns);
                } else {
                    thinking.push_back((now_ns + think_ns, connection as u32));
                }
            }
        }
        if let Some(lives) = lives
            && answers != 0
            && let Some(begun_ns) = lives.first_echo(connection)
        {
            self.stretch.recorder.first_echo(begun_ns, now_ns);
        }
        Ok(self.look_at_life(connection))
    }

    #[inline]
    fn sent(&mut self, connection: usize) {
        self.connections.flow.sent(connection, self.stretch.now_ns);
        self.look_at_life(connection);
    }

    fn ended(&mut self, connection: usize) {
        let Connections { flow, lives, .. } = &mut *self.connections;
        match lives {
            Some(lives) if flow.owes_nothing(connection) => {
                lives.ended(connection, self.stretch.now_ns);
                flow.interrupt(connection, |_, _| {});
            }
            _ => self.failed(connection, Failure::ClosedByPeer),
        }
    }

    fn failed(&mut self, connection: usize, failure: Failure) {
        let now_ns = self.stretch.now_ns;
        self.connections
            .fail(self.stretch, connection, failure, now_ns);
    }

    fn connected(&mut self, connection: usize, syn_retransmits: impl FnOnce() -> u32) {
        let Connections {
            flow,
            lives,
            verified_bytes,
            ..
        } = &mut *self.connections;
        let Some(lives) = lives else {
            return;
        };
        let now_ns = self.stretch.now_ns;
        let begun_ns = lives.connected(connection);
        let again = if now_ns.saturating_sub(begun_ns) < RETRANSMIT_NS_MIN {
            0
        } else {
            syn_retransmits()
        };
        self.stretch.recorder.connected(begun_ns, now_ns, again);
        flow.opened(connection, lives.plan().messages, now_ns);
        if let Some(offset) = verified_bytes.get_mut(connection) {
            // What a failed life still owed will not come.
            *offset = flow.stream_sent(connection);
        }
    }

    fn not_connected(&mut self, connection: usize, failure: Failure) {
        let now_ns = self.stretch.now_ns;
        self.connections
            .fail_to_connect(self.stretch, connection, failure, now_ns);
    }
}
