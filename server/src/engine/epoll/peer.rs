//! One connection's socket and what the kernel last said about it, and the turn that it is given: send what is
//! pending, then receive and echo until the socket is empty, full, or has had its share.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use echometer_host::address::Address;
use echometer_host::clock::now_ns;
use echometer_host::receive_buffer::ReceiveBuffer;
use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, Shutdown, recv, recvmsg, send, shutdown,
};

use super::slab::Token;
use crate::config::Config;
use crate::connection::{CloseReason, Connection, Fate, Receive};
use crate::counters::Counters;
use crate::delay::{Delay, DelayQueue, Releases};
use crate::engine::Worker;
use crate::idle::Look;

/// Receives in one turn. A connection that never stops sending waits for the others after this many.
const RECEIVES_PER_TURN: u32 = 16;

/// Memory that a piece takes which a `--delay` keeps back, beside its bytes: its place in the queue, which may be twice as
/// large as it is full.
const DELAYED_BYTES: u32 = 64;

/// A connection and its socket: 40 bytes, and nothing on the heap while nothing is pending.
pub(super) struct Peer {
    socket: OwnedFd,
    connection: Connection,
    /// What was received and not yet sent: the socket was full, or its time has not come.
    pending: Option<Box<Pending>>,
    /// The socket may hold something to receive: an edge came, and no receive has found it empty since.
    readable: bool,
    /// The socket may take more.
    writable: bool,
    /// A short read does not mean an empty socket: an EOF, an error or urgent data is behind it.
    more_behind: bool,
    /// EPOLLOUT was asked for.
    watched_writable: bool,
    /// In the queue for another turn, which is then the only one that may be given.
    queued: bool,
    is_unix: bool,
}

/// What all turns of a worker use.
pub(super) struct Shared<'a> {
    pub(super) buffer: ReceiveBuffer,
    pub(super) delay: Delay,
    /// Bytes that may be sent later, by connection.
    pub(super) delayed: DelayQueue<(Token, usize)>,
    releases: Releases,
    worker: &'a Worker,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// For the next edge.
    Waits,
    /// For the next edge; and the socket is full.
    Full,
    /// There is more to do after everyone else.
    Again,
    /// The connection is to be closed.
    Close(CloseReason),
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Before this, all is sent.
    start: usize,
    /// Before this, all may be sent.
    released: usize,
    /// When the last of it may be sent, if a delay holds it back: nothing after it may be sent earlier.
    due_ns: u64,
}

impl Peer {
    pub(super) fn new(socket: OwnedFd, config: &Config) -> Peer {
        // Without a delay, a byte owed means a full socket: receiving more could only fill memory.
        let owed_max = if config.delay.holds_back() {
            config.owed_max
        } else {
            1
        };
        Peer {
            socket,
            connection: Connection::new(owed_max),
            pending: None,
            readable: false,
            writable: true,
            more_behind: false,
            watched_writable: false,
            queued: false,
            is_unix: matches!(config.listen, Address::Unix(_)),
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Remembers what an event says.
    #[inline]
    pub(super) fn note(&mut self, flags: EventFlags) {
        const ENDED: EventFlags = EventFlags::HUP.union(EventFlags::ERR);
        const BEHIND: EventFlags = ENDED.union(EventFlags::RDHUP).union(EventFlags::PRI);
        self.readable |= flags.intersects(BEHIND.union(EventFlags::IN));
        self.more_behind |= flags.intersects(BEHIND);
        self.writable |= flags.intersects(ENDED.union(EventFlags::OUT));
    }

    /// Whether EPOLLOUT is still to be asked for; the answer is yes once.
    pub(super) fn wants_writable_watch(&mut self) -> bool {
        !std::mem::replace(&mut self.watched_writable, true)
    }

    /// Does what can be done now.
    #[inline]
    pub(super) fn turn(&mut self, token: Token, shared: &mut Shared<'_>) -> Turn {
        if self.queued {
            return Turn::Waits;
        }
        if self.pending.is_some() {
            self.flush(shared);
        }
        if self.connection.shutdown_due() {
            self.shut(shared);
        }
        let mut receives = 0;
        while self.readable && self.connection.receive() != Receive::Pause {
            if receives == RECEIVES_PER_TURN {
                self.queued = true;
                return Turn::Again;
            }
            receives += 1;
            self.receive(token, shared);
        }
        match self.connection.close_due() {
            Some(reason) => Turn::Close(reason),
            None if self.writable => Turn::Waits,
            None => Turn::Full,
        }
    }

    /// The turn that was put off.
    pub(super) fn turn_again(&mut self, token: Token, shared: &mut Shared<'_>) -> Turn {
        self.queued = false;
        self.turn(token, shared)
    }

    /// The server is stopping. Readiness needs no receive to be waited for: what was not received is not taken in.
    pub(super) fn stop(&mut self, token: Token, shared: &mut Shared<'_>) -> Turn {
        self.connection.stop();
        self.connection.receive_ended();
        // A stop doesn't wait for delays.
        if let Some(pending) = &mut self.pending {
            pending.released = pending.bytes.len();
        }
        // What is to be dropped while lingering may have come already, and its edge with it.
        self.readable = true;
        self.turn(token, shared)
    }

    /// What the kernel has for this connection that no event has told yet: bytes to take in, room for what is pending, its
    /// end, or a peer that reads slowly. Asked of one that seems idle, because its worker may have been held up meanwhile.
    pub(super) fn look(&self, counters: &Counters) -> Look {
        if let Some(pending) = &self.pending
            && now_ns() < pending.due_ns
        {
            // What is owed is kept back by us.
            return Look::Moves;
        }
        counters.enters.add(2);
        let reads = self.connection.receive() != Receive::Pause;
        Look::at(&self.socket, reads, !self.writable)
    }

    /// Closes the connection: with a reset where its peer is owed bytes, because an end in order would say that all was
    /// echoed. (A unix socket knows no reset.)
    pub(super) fn close(self, reason: CloseReason, counters: &Counters) {
        if 0 < self.connection.owed() && reason != CloseReason::Reset {
            counters.enters.add(1);
            // Where it fails, the connection is gone already.
            let _ = set_socket_linger(&self.socket, Some(Duration::ZERO));
        }
    }

    /// Lets `bytes` more of what was put off be sent.
    pub(super) fn release(&mut self, bytes: usize, token: Token, shared: &mut Shared<'_>) -> Turn {
        if let Some(pending) = &mut self.pending {
            pending.released += bytes;
            self.connection.let_go(DELAYED_BYTES);
        }
        self.turn(token, shared)
    }

    #[inline]
    fn receive(&mut self, token: Token, shared: &mut Shared<'_>) {
        let counters = &*shared.worker.counters;
        counters.enters.add(1);
        match self.receive_into(&mut shared.buffer) {
            Ok(0) => {
                self.readable = false;
                self.connection.peer_closed();
            }
            Ok(n) => {
                // A stream socket gives all that it has: less than asked means that it is empty (epoll(7)).
                if n < shared.buffer.len() && !self.more_behind {
                    self.readable = false;
                }
                match self.connection.received(n) {
                    Fate::Echo => {
                        counters.bytes_in.add(n as u64);
                        self.echo(n, token, shared);
                    }
                    Fate::Drop => counters.bytes_dropped.add(n as u64),
                }
            }
            Err(Errno::AGAIN) => self.readable = false,
            Err(Errno::INTR) => {}
            Err(errno) => self.connection.failed(CloseReason::from_errno(errno)),
        }
    }

    #[inline]
    fn receive_into(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        if !self.is_unix {
            return recv(&self.socket, buffer, RecvFlags::empty()).map(|(_, n)| n);
        }
        let mut pieces = [IoSliceMut::new(buffer)];
        let mut nothing_else = RecvAncillaryBuffer::default();
        let received = recvmsg(
            &self.socket,
            &mut pieces,
            &mut nothing_else,
            RecvFlags::empty(),
        )?;
        // Descriptors came along, and were dropped: at those a receive stops short, whatever lies behind (unix(7)).
        self.more_behind |= received.flags.contains(ReturnFlags::CTRUNC);
        Ok(received.bytes)
    }

    /// Sends the first `n` bytes of the buffer back, now or when their time comes; what the socket doesn't take
    /// is kept.
    #[inline]
    fn echo(&mut self, n: usize, token: Token, shared: &mut Shared<'_>) {
        if !shared.delay.is_none() {
            if shared.delay.holds_back() {
                return self.put_off(n, token, shared);
            }
            shared.slow_down();
        }
        let sent = self.send(&shared.buffer[..n], &shared.worker.counters);
        if sent < n && self.connection.close_due().is_none() {
            self.keep(&shared.buffer[sent..n], n - sent);
        }
    }

    /// Keeps the first `n` bytes of the buffer until their time comes.
    fn put_off(&mut self, n: usize, token: Token, shared: &mut Shared<'_>) {
        let previous_ns = self.pending.as_ref().map_or(0, |pending| pending.due_ns);
        let due_ns = shared.releases.due_ns(now_ns(), previous_ns);
        shared.delayed.push(due_ns, (token, n));
        self.connection.hold(DELAYED_BYTES);
        self.keep(&shared.buffer[..n], 0).due_ns = due_ns;
    }

    /// Adds to what is pending; the first `released` of `bytes` may be sent as soon as the socket takes them.
    #[cold]
    fn keep(&mut self, bytes: &[u8], released: usize) -> &mut Pending {
        let pending = self.pending.get_or_insert_default();
        pending.bytes.extend_from_slice(bytes);
        pending.released += released;
        pending
    }

    /// Sends of what is pending what may be sent, and frees it when all is sent.
    #[cold]
    fn flush(&mut self, shared: &mut Shared<'_>) {
        if let Delay::Freeze { .. } = shared.delay {
            shared.slow_down();
        }
        let Some(mut pending) = self.pending.take() else {
            return;
        };
        while self.writable
            && pending.start < pending.released
            && self.connection.close_due().is_none()
        {
            let ready = pending.start..pending.released;
            pending.start += self.send(&pending.bytes[ready], &shared.worker.counters);
        }
        if pending.start < pending.bytes.len() {
            pending.forget_sent();
            self.pending = Some(pending);
        }
    }

    /// One send. Returns what the socket took, and notes when that was not all.
    #[inline]
    fn send(&mut self, bytes: &[u8], counters: &Counters) -> usize {
        loop {
            counters.enters.add(1);
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(n) => {
                    self.connection.sent(n);
                    counters.bytes_out.add(n as u64);
                    if n < bytes.len() {
                        self.writable = false;
                        counters.send_stalls.add(1);
                    }
                    return n;
                }
                Err(Errno::AGAIN) => {
                    self.writable = false;
                    counters.send_stalls.add(1);
                    return 0;
                }
                Err(Errno::INTR) => {}
                Err(errno) => {
                    self.connection.failed(CloseReason::from_errno(errno));
                    return 0;
                }
            }
        }
    }

    fn shut(&mut self, shared: &Shared<'_>) {
        shared.worker.counters.enters.add(1);
        match shutdown(&self.socket, Shutdown::Write) {
            Ok(()) => self.connection.shutdown_issued(),
            Err(errno) => self.connection.failed(CloseReason::from_errno(errno)),
        }
    }
}

impl Pending {
    /// Gives back the room of what is sent, once that is the larger part: so each byte is moved about once.
    fn forget_sent(&mut self) {
        if self.bytes.len() / 2 < self.start {
            self.bytes.drain(..self.start);
            self.released -= self.start;
            self.start = 0;
            self.bytes.shrink_to(self.bytes.len() * 2);
        }
    }
}

impl<'a> Shared<'a> {
    pub(super) fn new(delay: Delay, buffer_size: usize, worker: &'a Worker) -> Shared<'a> {
        let buffer = ReceiveBuffer::new(buffer_size);
        Shared {
            buffer,
            delay,
            delayed: DelayQueue::new(),
            releases: Releases::new(delay, worker.index as u64),
            worker,
        }
    }

    /// Burns, or stands still, as the delay says. The whole worker stands still in a freeze, as a server does that
    /// is stopped, collects garbage or is paged out. A stop of the server ends it.
    #[cold]
    fn slow_down(&self) {
        let burnt_ns = now_ns() + self.delay.busy_ns();
        while now_ns() < burnt_ns && !self.worker.stop.requested() {
            std::hint::spin_loop();
        }
        loop {
            let now = now_ns();
            let Some(end_ns) = self.delay.frozen_until(now) else {
                return;
            };
            if self.worker.stop.requested() {
                return;
            }
            let rest_ns = end_ns - now;
            let rest = Timespec {
                tv_sec: (rest_ns / 1_000_000_000) as i64,
                tv_nsec: (rest_ns % 1_000_000_000) as i64,
            };
            let stop = PollFd::from_borrowed_fd(self.worker.stop.fd(), PollFlags::IN);
            self.worker.counters.enters.add(1);
            // EINTR and an early return alike lead back to the question above.
            let _ = poll(&mut [stop], Some(&rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Option<Peer>>() <= 40);
    }

    #[test]
    fn what_is_sent_is_forgotten() {
        let mut pending = Pending {
            bytes: (0..100).collect(),
            start: 60,
            released: 80,
            due_ns: 0,
        };
        pending.forget_sent();
        assert_eq!((pending.start, pending.released), (0, 20));
        assert_eq!(pending.bytes, (60..100).collect::<Vec<u8>>());
        pending.start = 10;
        pending.forget_sent();
        assert_eq!(pending.start, 10, "a small part is not worth the move");
    }
}
