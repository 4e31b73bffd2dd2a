//! What the flow knows of one connection.

use super::arena::NONE;

/// A life without end: of a connection that is not closed after a number of messages.
pub(crate) const NO_END: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Connection {
    /// The oldest message without an answer, and the newest; [`NONE`] where there is none.
    pub(super) head: u32,
    pub(super) tail: u32,
    /// The oldest message that is not written yet.
    pub(super) unwritten: u32,
    pub(super) in_flight: u32,
    pub(super) queued: u32,
    /// Bytes of the head's reply that are here already.
    pub(super) reply_bytes: u32,
    /// The turn in which the send in flight was written.
    pub(super) written_turn: u32,
    /// Its place in [`Flow::alive`], while it is alive.
    pub(super) alive_at: u32,
    pub(super) sending: bool,
    pub(super) listed: bool,
    pub(super) lost: bool,
    /// How many more messages may be written in this life; 0 while the connection is not open.
    pub(super) life_left: u64,
    /// Since when there is room: the last time that the end of a wait (full pipeline, full socket) was seen.
    pub(super) free_at_ns: u64,
    pub(super) stream_sent: u64,
    /// Messages that were due so far, over all stretches.
    pub(super) number: u64,
}

impl Connection {
    pub(super) fn new(alive_at: u32) -> Connection {
        Connection {
            head: NONE,
            tail: NONE,
            unwritten: NONE,
            in_flight: 0,
            queued: 0,
            reply_bytes: 0,
            written_turn: 0,
            alive_at,
            sending: false,
            listed: false,
            lost: false,
            life_left: NO_END,
            free_at_ns: 0,
            stream_sent: 0,
            number: 0,
        }
    }

    /// Whether there is something to write, room for it, and the connection is not on the list yet.
    #[inline]
    pub(super) fn wants_to_write(&self, pipeline: u32) -> bool {
        self.queued != 0
            && !self.sending
            && !self.listed
            && self.in_flight < pipeline
            && self.life_left != 0
    }
}
