//! How bytes move: one engine per file. An engine carries runs of the payload to the kernel and received bytes back; it
//! knows neither messages nor schedules nor times.
//!
//! The loop above ([`crate::drive`]) is generic over the engine, so that no call between them is indirect.

pub(crate) mod epoll;
pub(crate) mod uring;

use std::{io, ops::Range, time::Duration};

use crate::{dial::Dialing, failure::Failure};

/// What became of a send that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// Gone to the kernel whole.
    Complete,
    /// Handed over, and perhaps gone already; [`Sink::sent`] will tell.
    InFlight,
    /// The socket is full; [`Sink::sent`] will tell when the rest has gone.
    Blocked,
    /// The connection failed.
    Failed(Failure),
}

/// The connections of one worker to one server, numbered from 0.
pub(crate) trait Engine {
    /// Sends a range of the payload region. At most one send may be in flight on a connection.
    fn send(&mut self, connection: usize, range: Range<usize>) -> Sending;

    /// Passes what was sent on to the kernel, without waiting.
    fn flush(&mut self) -> io::Result<()>;

    /// Passes on what was sent, and waits until there is something to harvest; at most `limit`.
    fn wait(&mut self, limit: Duration) -> io::Result<()>;

    /// Passes on what was sent and looks, without waiting, for something to harvest.
    fn poll(&mut self) -> io::Result<()>;

    /// Tells `sink` of everything that the last wait or poll found. Whether there was anything.
    fn harvest(&mut self, sink: &mut impl Sink) -> bool;

    /// Makes the socket of a connection that is closed. [`Engine::connect`] comes next.
    fn dial(&mut self, connection: usize, dialing: &mut Dialing) -> Result<(), Failure>;

    /// Begins to connect; a later harvest will tell how that went.
    fn connect(&mut self, connection: usize, dialing: &Dialing) -> Result<(), Failure>;

    /// Closes a connection; nothing more is told of it.
    fn close(&mut self, connection: usize, how: Closing);

    /// Bytes that the kernel took from us so far, over all connections.
    fn sent_bytes(&self) -> u64;
}

/// Who hears of what happened to the connections.
pub(crate) trait Sink {
    /// Bytes came in; where the kernel was asked, with the time at which it received the last of them (`CLOCK_REALTIME`,
    /// ns). A failure says that the connection is to be closed.
    fn received(
        &mut self,
        connection: usize,
        bytes: &[u8],
        stamp_ns: Option<u64>,
    ) -> Result<Then, Failure>;

    /// The send in flight has gone whole.
    fn sent(&mut self, connection: usize);

    /// The peer closed the connection, and the engine too.
    fn ended(&mut self, connection: usize);

    /// The connection failed; the engine has closed it.
    fn failed(&mut self, connection: usize, failure: Failure);

    /// The connection is made. `syn_retransmits` asks the kernel how often it had to try.
    fn connected(&mut self, connection: usize, syn_retransmits: impl FnOnce() -> u32);

    /// It could not be made; the engine has closed it.
    fn not_connected(&mut self, connection: usize, failure: Failure);
}

/// Whether more is to be received on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Receive,
    /// Nothing more is owed, and the connection is about to be closed.
    Stop,
}

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    Fin,
    /// Without the farewell: the peer sees a reset, and neither side remembers the connection.
    Reset,
}
