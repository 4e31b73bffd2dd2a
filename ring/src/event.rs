//! What the ring tells its user: one typed event a completion.

use std::os::fd::OwnedFd;

use crate::buffers::Buffer;
use crate::payload::Payload;
use crate::slot::Slot;

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
    /// A zero-copy send brought so many bytes into the socket, and its buffer is still the kernel's. Its end comes later, as
    /// `Sent` or `Unsent`, and counts them once more.
    Taken {
        /// The connection.
        slot: Slot,
        /// Bytes that the socket took.
        bytes: usize,
    },
    /// A socket that was full has room again, or it has failed, which the next send says: see `Ring::await_room`.
    Room {
        /// The connection.
        slot: Slot,
    },
    /// A plain descriptor of a direct one: see `Ring::open_file`.
    File {
        /// The file's slot.
        slot: Slot,
        /// The descriptor, which is the caller's. `EMFILE`: none was left.
        result: Result<OwnedFd, Errno>,
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
