//! What becomes of each message: due, queued, written, answered, or lost. A state machine without sockets and clocks:
//! times come in as arguments, bytes as counts.
//!
//! A connection is a byte stream. Its messages are answered in the order in which they were written; a reply may come
//! in pieces, or many at once. At most `pipeline` messages are in flight, the others wait in order, and at most one
//! send is in flight (a second could overtake the rest of the first).
//!
//! A connection may live more than once: a life ends after a number of messages ([`Flow::is_spent`]) or by a failure
//! ([`Flow::interrupt`]), and what is due meanwhile waits for the next one ([`Flow::opened`]).
//!
//! The accounting is exact at any moment: sent = answered + lost + in flight, and due = sent + queued + unsent.

use std::collections::VecDeque;

use self::{
    arena::{Arena, NONE},
    connection::Connection,
};
use crate::sizes::Sizes;

mod arena;
mod connection;

pub(crate) use self::{arena::Message, connection::NO_END};

/// All connections of one worker. Connections are indices from 0.
///
/// Instants are ns since the start of the stretch.
#[derive(Debug)]
pub(crate) struct Flow {
    sizes: Sizes,
    /// The plan's index of our connection 0: sizes go by the plan's.
    first_connection: u32,
    pipeline: u32,
    origin: Origin,
    connections: Vec<Connection>,
    /// Live connections, in no order: what remains to choose from when some are lost.
    alive: Vec<u32>,
    messages: Arena,
    /// Connections that may write, each at most once ([`Connection::listed`]).
    writable: VecDeque<u32>,
    /// Counts the harvests; see [`Flow::sent`].
    turn: u32,
    counts: Counts,
    in_flight: u64,
    queued: u64,
}

/// From when on a message's latency counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From its due time: open loop.
    Due,
    /// From the write: closed loop. The due time is set to that instant when the message is written.
    Write,
}

/// What became of the messages so far. `sent = answered + lost + in flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages handed to the engine for writing.
    pub sent: u64,
    /// Messages whose reply has come to the last byte.
    pub answered: u64,
    /// Messages in flight on a connection that failed.
    pub lost: u64,
    /// Messages that were due and never written: their connection failed before, or the run ended.
    pub unsent: u64,
}

/// A message that is being written now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// When it was due; in closed loop when it was written.
    pub due_ns: u64,
    /// How long it waited for room on its connection.
    pub queue_ns: u64,
    /// How long it was late for no other reason than the client: written minus the later of (due, connection free).
    pub send_lag_ns: u64,
}

/// One send: a run of messages that are contiguous in the connection's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The connection to write to.
    pub connection: usize,
    /// Where the run begins in the connection's stream, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: usize,
}

/// More came back than was sent: the peer is no echo server, or a broken one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Surplus;

impl Flow {
    /// `connections` of them (1 or more), the first being the plan's `first_connection`, for messages of these `sizes`
    /// with up to `pipeline` in flight each.
    pub(crate) fn new(
        connections: u32,
        first_connection: u32,
        sizes: Sizes,
        pipeline: u32,
        origin: Origin,
    ) -> Flow {
        Flow {
            sizes,
            first_connection,
            pipeline,
            origin,
            connections: (0..connections).map(Connection::new).collect(),
            alive: (0..connections).collect(),
            messages: Arena::with_capacity(connections as usize * pipeline.min(8) as usize),
            writable: VecDeque::with_capacity(connections as usize),
            turn: 0,
            counts: Counts::default(),
            in_flight: 0,
            queued: 0,
        }
    }

    /// Makes room for `messages` that wait or are in flight, so that up to there none costs an allocation (beyond it
    /// they do; there are never more than [`MESSAGES_MAX`]).
    pub(crate) fn reserve(&mut self, messages: u64) {
        // The lesser of the two fits a usize.
        self.messages.reserve(messages.min(MESSAGES_MAX) as usize);
    }

    /// Takes note of a message that is due on `connection`. Should that one be lost, another takes its place; with
    /// none left the message counts as unsent, and this says false.
    #[inline]
    pub(crate) fn due(&mut self, connection: u32, at_ns: u64) -> bool {
        let index = if !self.connections[connection as usize].lost {
            connection
        } else if let Some(survivors) = std::num::NonZeroUsize::new(self.alive.len()) {
            self.alive[connection as usize % survivors]
        } else {
            self.counts.unsent += 1;
            return false;
        };
        let connection = &mut self.connections[index as usize];
        let size = self
            .sizes
            .of(self.first_connection + index, connection.number);
        connection.number += 1;
        let message = Message {
            due_ns: at_ns,
            written_ns: 0,
        };
        let message = self.messages.insert(message, size);
        if connection.tail == NONE {
            connection.head = message;
        } else {
            self.messages.link(connection.tail, message);
        }
        connection.tail = message;
        if connection.unwritten == NONE {
            connection.unwritten = message;
        }
        connection.queued += 1;
        self.queued += 1;
        if connection.wants_to_write(self.pipeline) {
            connection.listed = true;
            self.writable.push_back(index);
        }
        true
    }

    /// Whether another message can be taken in, or so many wait that the rest had better stay in the schedule.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight + self.queued < MESSAGES_MAX
    }

    /// Whether [`Flow::next_run`] has something to write.
    #[inline]
    pub(crate) fn has_writable(&self) -> bool {
        !self.writable.is_empty()
    }

    /// The next run of messages to be written, at most `bytes_max` bytes of them or one message, stamped with `now_ns`: a clock read
    /// just before the batch of writes goes to the kernel. `on_written` hears of each message.
    #[inline]
    pub(crate) fn next_run(
        &mut self,
        bytes_max: usize,
        now_ns: u64,
        mut on_written: impl FnMut(Written),
    ) -> Option<Run> {
        loop {
            let index = self.writable.pop_front()? as usize;
            let connection = &mut self.connections[index];
            connection.listed = false;
            if !connection.wants_to_write(self.pipeline) {
                continue;
            }
            let room = connection.queued.min(self.pipeline - connection.in_flight);
            // The lesser of a 32-bit number and a larger one fits 32 bits.
            let room = u64::from(room).min(connection.life_left) as u32;
            let (mut count, mut bytes) = (0, 0);
            while count < room {
                let slot = self.messages.at(connection.unwritten);
                let size = slot.size as usize;
                if bytes_max < bytes + size && count != 0 {
                    break;
                }
                bytes += size;
                count += 1;
                slot.message.written_ns = now_ns;
                if self.origin == Origin::Write {
                    slot.message.due_ns = now_ns;
                }
                let due_ns = slot.message.due_ns;
                let ready_ns = due_ns.max(connection.free_at_ns);
                on_written(Written {
                    due_ns,
                    queue_ns: ready_ns - due_ns,
                    send_lag_ns: now_ns.saturating_sub(ready_ns),
                });
                connection.unwritten = slot.next;
            }
            connection.queued -= count;
            connection.in_flight += count;
            connection.life_left -= u64::from(count);
            connection.sending = true;
            connection.written_turn = self.turn;
            self.queued -= u64::from(count);
            self.in_flight += u64::from(count);
            self.counts.sent += u64::from(count);
            let offset = connection.stream_sent;
            connection.stream_sent += bytes as u64;
            return Some(Run {
                connection: index,
                offset,
                bytes,
            });
        }
    }

    /// `connection` is open (again), as of `now_ns`, for the next `life` messages ([`NO_END`]: for all). What was due
    /// before waited for that: it counts as queue, not as send lag.
    pub(crate) fn opened(&mut self, connection: usize, life: u64, now_ns: u64) {
        let flow = &mut self.connections[connection];
        debug_assert!(
            !flow.lost && flow.in_flight == 0 && !flow.sending,
            "a new life begins with nothing in flight"
        );
        flow.life_left = life;
        flow.free_at_ns = now_ns;
        flow.reply_bytes = 0;
        if flow.wants_to_write(self.pipeline) {
            flow.listed = true;
            self.writable.push_back(connection as u32);
        }
    }

    /// Whether all messages of this life were written, have gone to the kernel and are answered: time to close.
    #[inline]
    pub(crate) fn is_spent(&self, connection: usize) -> bool {
        let flow = &self.connections[connection];
        flow.life_left == 0 && flow.in_flight == 0 && !flow.sending
    }

    /// As [`Flow::is_spent`], whether or not it is known yet that the last message has gone: its answer has come.
    pub(crate) fn owes_nothing(&self, connection: usize) -> bool {
        let flow = &self.connections[connection];
        flow.life_left == 0 && flow.in_flight == 0
    }

    /// The life of `connection` has ended: what was in flight is lost, what waits goes on waiting for the next life.
    /// `on_end` hears of each message that is lost.
    pub(crate) fn interrupt(&mut self, connection: usize, on_end: impl FnMut(End, Message)) {
        self.end_messages(connection, on_end, Counting::Lost, Queued::Stay);
    }

    /// As [`Flow::interrupt`], but nobody failed: the waiting ended. Gives how many were outstanding.
    pub(crate) fn interrupt_waiting(
        &mut self,
        connection: usize,
        on_end: impl FnMut(End, Message),
    ) -> u64 {
        let outstanding = u64::from(self.connections[connection].in_flight);
        self.end_messages(connection, on_end, Counting::Outstanding, Queued::End);
        outstanding
    }

    /// Takes back what waits on `connection`, as if it had never been due: the end of a closed loop's load.
    pub(crate) fn withdraw(&mut self, connection: usize) {
        let flow = &mut self.connections[connection];
        let (kept, mut next) = (flow.in_flight, flow.head);
        flow.tail = NONE;
        for _ in 0..kept {
            flow.tail = next;
            next = self.messages.at(next).next;
        }
        while next != NONE {
            next = self.messages.remove(next).1;
        }
        if flow.tail == NONE {
            flow.head = NONE;
        } else {
            self.messages.link(flow.tail, NONE);
        }
        flow.unwritten = NONE;
        self.queued -= u64::from(flow.queued);
        flow.queued = 0;
    }

    /// Whether messages wait on `connection`.
    pub(crate) fn has_queued(&self, connection: usize) -> bool {
        self.connections[connection].queued != 0
    }

    /// Where the next message of `connection` will begin in its stream.
    pub(crate) fn stream_sent(&self, connection: usize) -> u64 {
        self.connections[connection].stream_sent
    }

    /// Tells that a new harvest of events begins.
    #[inline]
    pub(crate) fn begin_turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    /// The send in flight on `connection` has gone to the kernel whole.
    ///
    /// If that is learnt in the harvest right after the write, it was so from the start, and the connection counts as
    /// free since then. If it took longer, the socket was full: messages that were due meanwhile waited for the
    /// connection (queue) and not for us (send lag).
    #[inline]
    pub(crate) fn sent(&mut self, connection: usize, now_ns: u64) {
        let flow = &mut self.connections[connection];
        flow.sending = false;
        if 1 < self.turn.wrapping_sub(flow.written_turn) {
            flow.free_at_ns = now_ns;
        }
        if flow.wants_to_write(self.pipeline) {
            flow.listed = true;
            self.writable.push_back(connection as u32);
        }
    }

    /// The send in flight on `connection` did not go at once: its socket is full.
    pub(crate) fn blocked(&mut self, connection: usize) {
        // As if written long ago, so that its end counts as the end of a wait even in the very next harvest.
        self.connections[connection].written_turn = self.turn.wrapping_sub(1);
    }

    /// `bytes` have come back on `connection`, harvested at `now_ns`. `on_answer` hears of each message that is
    /// answered by them.
    ///
    /// # Errors
    /// [`Surplus`] if fewer bytes were owed; what was owed counts as answered. The connection should be failed.
    #[inline]
    pub(crate) fn received(
        &mut self,
        connection: usize,
        bytes: usize,
        now_ns: u64,
        mut on_answer: impl FnMut(Message),
    ) -> Result<(), Surplus> {
        let flow = &mut self.connections[connection];
        let was_full = flow.in_flight == self.pipeline;
        let mut left = bytes;
        while flow.in_flight != 0 {
            let missing = (self.messages.at(flow.head).size - flow.reply_bytes) as usize;
            if left < missing {
                break;
            }
            left -= missing;
            flow.reply_bytes = 0;
            flow.in_flight -= 1;
            self.in_flight -= 1;
            self.counts.answered += 1;
            let (message, next) = self.messages.remove(flow.head);
            flow.head = next;
            if next == NONE {
                flow.tail = NONE;
            }
            on_answer(message);
        }
        if left != 0 {
            if flow.in_flight == 0 {
                return Err(Surplus);
            }
            flow.reply_bytes += left as u32;
        }
        if was_full && flow.in_flight < self.pipeline {
            flow.free_at_ns = now_ns;
            if flow.wants_to_write(self.pipeline) {
                flow.listed = true;
                self.writable.push_back(connection as u32);
            }
        }
        Ok(())
    }

    /// `connection` has failed: what was in flight is lost, what waited will never be sent. `on_end` hears of each
    /// message; a second failure of the same connection does nothing.
    pub(crate) fn lose(&mut self, connection: usize, on_end: impl FnMut(End, Message)) {
        if self.connections[connection].lost {
            return;
        }
        self.strike_off(connection);
        self.end_messages(connection, on_end, Counting::Lost, Queued::End);
    }

    /// Gives up waiting on `connection`: what is still in flight is outstanding (and stays so in the counts, as sent
    /// and neither answered nor lost), what waited is unsent. The connection can't be used any more.
    ///
    /// Gives how many were outstanding.
    pub(crate) fn abandon(&mut self, connection: usize, on_end: impl FnMut(End, Message)) -> u64 {
        let outstanding = u64::from(self.connections[connection].in_flight);
        if !self.connections[connection].lost {
            self.strike_off(connection);
        }
        self.end_messages(connection, on_end, Counting::Outstanding, Queued::End);
        outstanding
    }

    /// Starts a new stretch: counts and instants begin anew, streams go on where they were.
    ///
    /// # Panics
    /// In debug builds, if messages are still under way.
    pub(crate) fn begin_stretch(&mut self) {
        debug_assert_eq!(
            (self.in_flight, self.queued),
            (0, 0),
            "the last stretch was drained or abandoned"
        );
        self.counts = Counts::default();
        for connection in &mut self.connections {
            connection.free_at_ns = 0;
        }
    }

    /// Messages of the schedule that were never taken in count as unsent.
    pub(crate) fn never_due(&mut self, count: u64) {
        self.counts.unsent += count;
    }

    /// How many connections there are, lost ones included.
    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// What became of the messages of this stretch.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Messages that are due or written and have no answer yet.
    #[inline]
    pub(crate) fn unanswered(&self) -> u64 {
        self.in_flight + self.queued
    }

    /// Whether `connection` can be used.
    pub(crate) fn is_alive(&self, connection: usize) -> bool {
        !self.connections[connection].lost
    }

    /// `connection` is not open yet: what is due waits for [`Flow::opened`].
    pub(crate) fn begin_closed(&mut self, connection: usize) {
        self.connections[connection].life_left = 0;
    }

    /// How many connections can be used.
    #[inline]
    pub(crate) fn alive(&self) -> usize {
        self.alive.len()
    }

    /// Whether messages of `connection` are under way.
    pub(crate) fn is_idle(&self, connection: usize) -> bool {
        self.connections[connection].head == NONE
    }

    /// Takes a live connection from the list of the living, whose last takes its place.
    fn strike_off(&mut self, connection: usize) {
        let place = self.connections[connection].alive_at as usize;
        self.connections[connection].lost = true;
        self.alive.swap_remove(place);
        if let Some(moved) = self.alive.get(place) {
            self.connections[*moved as usize].alive_at = place as u32;
        }
    }

    fn end_messages(
        &mut self,
        index: usize,
        mut on_end: impl FnMut(End, Message),
        counting: Counting,
        queued: Queued,
    ) {
        let connection = &mut self.connections[index];
        let in_flight = u64::from(connection.in_flight);
        while connection.head != NONE {
            let end = match (connection.in_flight, queued) {
                (0, Queued::Stay) => break,
                (0, Queued::End) => End::Unsent,
                _ => {
                    connection.in_flight -= 1;
                    End::Written
                }
            };
            let (message, next) = self.messages.remove(connection.head);
            connection.head = next;
            on_end(end, message);
        }
        connection.sending = false;
        connection.life_left = 0;
        connection.reply_bytes = 0;
        self.in_flight -= in_flight;
        if counting == Counting::Lost {
            self.counts.lost += in_flight;
        }
        if connection.head == NONE {
            connection.tail = NONE;
            connection.unwritten = NONE;
            let unsent = u64::from(std::mem::take(&mut connection.queued));
            self.queued -= unsent;
            self.counts.unsent += unsent;
        }
    }
}

/// What becomes of the messages that wait when a life ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queued {
    /// They wait for the next life.
    Stay,
    /// There is none: they are unsent.
    End,
}

/// How far a message had come when its connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was written, and its answer never came.
    Written,
    /// It was due and never written.
    Unsent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Counting {
    Lost,
    Outstanding,
}

/// A worker holds at most this many messages (24 bytes each: the size fills what was padding). Beyond them due messages
/// stay in the schedule, which remembers their due times for nothing: so a hopeless overload neither grows memory nor
/// distorts a figure.
pub(crate) const MESSAGES_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests;
