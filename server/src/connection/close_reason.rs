//! Why connections end.

use serde::Serialize;

/// Why a connection was closed. The order is the one of [`CloseReason::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum CloseReason {
    /// The peer sent its FIN, and everything owed was handed to the kernel.
    PeerClosed,
    /// The peer reset the connection (ECONNRESET, EPIPE).
    Reset,
    /// The connection's own time limit passed (ETIMEDOUT, or an idle timeout).
    TimedOut,
    /// One connection too many: accepted and closed at once.
    OverLimit,
    /// The server stopped; all was flushed, and the peer's EOF was seen.
    Drained,
    /// The server stopped, and the drain time passed before the peer had read all or closed.
    DrainExpired,
    /// Any other error of this one connection.
    Error,
}

impl CloseReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [CloseReason; 7] = [
        CloseReason::PeerClosed,
        CloseReason::Reset,
        CloseReason::TimedOut,
        CloseReason::OverLimit,
        CloseReason::Drained,
        CloseReason::DrainExpired,
        CloseReason::Error,
    ];

    /// The reason's number, below `ALL.len()`.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name that `--stats` shows.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::PeerClosed => "peer_closed",
            CloseReason::Reset => "reset",
            CloseReason::TimedOut => "timed_out",
            CloseReason::OverLimit => "over_limit",
            CloseReason::Drained => "drained",
            CloseReason::DrainExpired => "drain_expired",
            CloseReason::Error => "error",
        }
    }

    /// The same for an error that went through std, or through a runtime's time limit.
    pub fn from_io(error: &std::io::Error) -> CloseReason {
        match rustix::io::Errno::from_io_error(error) {
            Some(errno) => CloseReason::from_errno(errno),
            None if error.kind() == std::io::ErrorKind::TimedOut => CloseReason::TimedOut,
            None => CloseReason::Error,
        }
    }

    /// Sorts the error of a receive, a send or a shutdown on a connected socket. A reset shows as ECONNRESET first
    /// and as EPIPE (or ENOTCONN) to every call after it.
    pub fn from_errno(errno: rustix::io::Errno) -> CloseReason {
        use rustix::io::Errno;
        match errno {
            Errno::CONNRESET | Errno::PIPE | Errno::NOTCONN => CloseReason::Reset,
            Errno::TIMEDOUT => CloseReason::TimedOut,
            _ => CloseReason::Error,
        }
    }
}
