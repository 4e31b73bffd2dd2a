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
    /// A send ended: how many bytes of the payload went out. Of a `send`, fewer than all only when the connection failed
    /// meanwhile, which the next send then says; of a `send_now`, as many as there was room for.
    Send {
        /// The connection.
        slot: Slot,
        /// Bytes sent.
        result: Result<usize, Errno>,
        /// The payload, whole, as it was given.
        payload: Payload,
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

/// Bytes for a send. The ring keeps them until the kernel is done with them.
#[derive(Debug)]
pub enum Payload {
    /// Received bytes, sent on from where they are: nothing is copied in user space.
    Buffer(Buffer),
    /// Bytes on the heap, from `start` on.
    Heap {
        /// The bytes.
        bytes: Vec<u8>,
        /// How many at the front are not to be sent.
        start: usize,
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
            Payload::Heap { bytes, start } => bytes.len().saturating_sub(*start),
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
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "advance past the payload's end");
        match self {
            Payload::Buffer(buffer) => buffer.advance(count),
            Payload::Heap { start, .. } => *start += count,
            Payload::Shared(range) => range.start += count,
            Payload::Gather(gather) => gather.advance(count),
        }
    }
}
