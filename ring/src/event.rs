//! What the ring tells its user: one typed event a completion. And what its user gives it to send.

use std::ops::Range;

use crate::buffers::Buffer;
use crate::gather::Gather;
use crate::slots::Slot;

pub use rustix::io::Errno;

/// One completion, settled: buffers and payloads are back in the user's hands.
#[derive(Debug)]
pub enum Event {
    /// A connection was accepted (its slot), or the accept failed. Without `more` the accept has ended: arm it again.
    Accept {
        /// The listener's slot.
        listener: Slot,
        /// The new connection's slot. `EMFILE` and `ENFILE`: no descriptor or no slot was left.
        result: Result<Slot, Errno>,
        /// Whether the accept is still armed.
        more: bool,
    },
    /// Bytes arrived, or the peer ended its stream (`None`), or the receive failed. `ENOBUFS` is no fault of the
    /// connection: the pool was empty; arm again when buffers are back. Without `more` the receive has ended, even when
    /// it brought bytes.
    Recv {
        /// The connection.
        slot: Slot,
        /// The bytes.
        result: Result<Option<Buffer>, Errno>,
        /// Whether the receive is still armed.
        more: bool,
    },
    /// A send is over, and all of its payload went out: its buffers are back in the pool already.
    Sent {
        /// The connection.
        slot: Slot,
        /// Bytes sent, which is what the payload had.
        bytes: usize,
    },
    /// A send is over, and not all of its payload went out. After a `send` the connection has failed, which the next send
    /// says if this one doesn't; after a `send_now` the socket was full (fewer bytes than there were, or `EAGAIN`).
    Unsent {
        /// The connection.
        slot: Slot,
        /// Bytes sent, fewer than all.
        result: Result<usize, Errno>,
        /// What is left: send it, or give it back with `Ring::take_back`.
        rest: Payload,
    },
    /// A connect ended.
    Connect {
        /// The socket.
        slot: Slot,
        /// Why it failed, if it did.
        result: Result<(), Errno>,
    },
    /// A shutdown ended.
    Shutdown {
        /// The connection.
        slot: Slot,
        /// `ENOTCONN` after a reset.
        result: Result<(), Errno>,
    },
    /// The file is readable.
    Poll {
        /// The file's slot.
        slot: Slot,
    },
    /// A close that was asked for is done: nothing of the connection is in flight, and its slot may be someone else's
    /// already.
    Close {
        /// The slot that was closed.
        slot: Slot,
    },
}

/// Bytes for a send, less than 4 GiB. The ring keeps them until the kernel is done with them.
#[derive(Debug)]
pub enum Payload {
    /// Received bytes, sent on from where they are: nothing is copied in user space.
    Buffer(Buffer),
    /// Bytes on the heap, from `start` on.
    Heap {
        /// The bytes.
        bytes: Box<[u8]>,
        /// How many at the front are not to be sent.
        start: u32,
    },
    /// A piece of the configuration's `shared` bytes, which nobody writes to.
    Shared(Range<usize>),
    /// Several of these, to go out as one.
    Gather(Box<Gather>),
}

impl Payload {
    /// Bytes to send.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Payload::Buffer(buffer) => buffer.len(),
            Payload::Heap { bytes, start } => bytes.len().saturating_sub(*start as usize),
            Payload::Shared(range) => range.len(),
            Payload::Gather(gather) => gather.len(),
        }
    }

    /// Whether nothing is left to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the first `count` bytes, which were sent.
    ///
    /// # Panics
    /// When there are fewer.
    pub(crate) fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "advance past the payload's end");
        match self {
            Payload::Buffer(buffer) => buffer.advance(count),
            Payload::Heap { start, .. } => *start += count as u32,
            Payload::Shared(range) => range.start += count,
            Payload::Gather(gather) => gather.advance(count),
        }
    }
}
