//! The epoll engine: edge-triggered readiness, recv(2) and send(2).
//!
//! A wait gives the ready connections; the harvest reads each of them dry. A read that doesn't fill the buffer has
//! taken all there was (epoll(7), question 9), so the usual message costs one recv and no EAGAIN.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    net::{RecvFlags, SendFlags, connect, recv, send, sockopt},
};

use echometer_host::{
    receive_buffer::ReceiveBuffer,
    sockets::{end_by_reset, is_connected_to_itself},
};
use echometer_ring::{recv_stamped, stamp_receives, tcp_retransmits};

use super::{Closing, Engine, Sending, Sink, Then};
use crate::{dial::Dialing, failure::Failure};

/// Room for what one recv brings. 64 KiB is where larger buffers stop paying on loopback.
const RECEIVE_BYTES: usize = 64 << 10;

/// How many ready connections one wait may bring: enough to spread its cost, few enough that the last is not kept
/// waiting by the first.
const EVENTS: usize = 256;

/// All connections of one worker to one server.
pub(crate) struct Epoll {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    region: Arc<[u8]>,
    events: Vec<epoll::Event>,
    buffer: ReceiveBuffer,
    /// The kernel tells when it received what is read.
    stamped: bool,
    sent_bytes: u64,
}

struct Connection {
    /// `None` once closed.
    socket: Option<OwnedFd>,
    /// What is left of the send in flight: the socket was full.
    pending: Range<usize>,
    connecting: bool,
    /// Once connected, it is to be seen whether there is anybody else at the other end.
    may_meet_itself: bool,
}

impl Epoll {
    /// Takes connected, non-blocking sockets, the first connections of `count`; the others are to be dialed.
    /// With `stamped` the kernel tells when it received what is read.
    pub(crate) fn new(
        sockets: Vec<OwnedFd>,
        count: u32,
        region: Arc<[u8]>,
        stamped: bool,
    ) -> io::Result<Epoll> {
        let mut engine = Epoll {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::with_capacity(count as usize),
            region,
            events: Vec::with_capacity(EVENTS),
            buffer: ReceiveBuffer::new(RECEIVE_BYTES),
            stamped,
            sent_bytes: 0,
        };
        engine
            .connections
            .extend(sockets.into_iter().map(Some).map(Connection::new));
        engine
            .connections
            .resize_with(count as usize, || Connection::new(None));
        for index in 0..engine.connections.len() {
            if let (true, Some(socket)) = (stamped, &engine.connections[index].socket) {
                stamp_receives(socket.as_fd())?;
            }
            engine.watch(index)?;
        }
        Ok(engine)
    }

    fn watch(&self, index: usize) -> Result<(), Errno> {
        let Some(socket) = &self.connections[index].socket else {
            return Ok(());
        };
        // Edge-triggered interest in writing costs nothing: the kernel wakes a writer only after a full socket, and
        // once after a connect.
        let interest = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        epoll::add(
            &self.epoll,
            socket,
            epoll::EventData::new_u64(index as u64),
            interest,
        )
    }

    fn wait_for(&mut self, limit: Duration) -> io::Result<()> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&limit)) {
            // A signal: whoever needs to know looks at its flag.
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Connection {
    fn new(socket: Option<OwnedFd>) -> Connection {
        Connection {
            socket,
            pending: 0..0,
            connecting: false,
            may_meet_itself: false,
        }
    }

    fn close(&mut self) {
        *self = Connection::new(None);
    }

    /// What became of the connect.
    fn connected(&self) -> Result<(), Failure> {
        let socket = self.socket.as_ref().ok_or(Failure::ConnectOther)?;
        match sockopt::socket_error(socket) {
            Ok(Ok(())) if self.may_meet_itself && is_connected_to_itself(socket) => {
                end_by_reset(socket);
                Err(Failure::ConnectedToItself)
            }
            Ok(Ok(())) => Ok(()),
            Ok(Err(errno)) | Err(errno) => Err(Failure::from_connect_errno(errno)),
        }
    }

    /// Sends what is pending until it is gone or the socket is full.
    fn push(&mut self, region: &[u8], sent_bytes: &mut u64) -> Sending {
        let Some(socket) = &self.socket else {
            return Sending::Failed(Failure::Other);
        };
        while !self.pending.is_empty() {
            match send(socket, &region[self.pending.clone()], SendFlags::NOSIGNAL) {
                Ok(bytes) => {
                    self.pending.start += bytes;
                    *sent_bytes += bytes as u64;
                }
                Err(Errno::AGAIN) => return Sending::Blocked,
                Err(Errno::INTR) => {}
                Err(errno) => return Sending::Failed(Failure::from_errno(errno)),
            }
        }
        Sending::Complete
    }
}

impl Engine for Epoll {
    #[inline]
    fn send(&mut self, connection: usize, range: Range<usize>) -> Sending {
        let connection = &mut self.connections[connection];
        debug_assert!(
            connection.pending.is_empty(),
            "one send in flight per connection"
        );
        connection.pending = range;
        connection.push(&self.region, &mut self.sent_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn wait(&mut self, limit: Duration) -> io::Result<()> {
        self.wait_for(limit)
    }

    fn poll(&mut self) -> io::Result<()> {
        self.wait_for(Duration::ZERO)
    }

    fn harvest(&mut self, sink: &mut impl Sink) -> bool {
        let any = !self.events.is_empty();
        for event in &self.events {
            let index = event.data.u64() as usize;
            let connection = &mut self.connections[index];
            let flags = event.flags;
            if connection.connecting {
                connection.connecting = false;
                if let Err(failure) = connection.connected() {
                    connection.close();
                    sink.not_connected(index, failure);
                    continue;
                }
                let socket = connection.socket.as_ref();
                sink.connected(index, || {
                    socket.map_or(0, |socket| tcp_retransmits(socket.as_fd()).unwrap_or(0))
                });
            }
            if !connection.pending.is_empty() && flags.contains(epoll::EventFlags::OUT) {
                match connection.push(&self.region, &mut self.sent_bytes) {
                    Sending::Complete => sink.sent(index),
                    Sending::InFlight | Sending::Blocked => {}
                    Sending::Failed(failure) => {
                        connection.close();
                        sink.failed(index, failure);
                        continue;
                    }
                }
            }
            let ending = flags.intersects(
                epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR,
            );
            if !flags.contains(epoll::EventFlags::IN) && !ending {
                continue;
            }
            // At a failure the socket is dropped: that closes it and takes it out of the set.
            while let Some(socket) = &connection.socket {
                let received = if self.stamped {
                    recv_stamped(socket.as_fd(), &mut self.buffer[..])
                } else {
                    recv(socket, &mut self.buffer[..], RecvFlags::empty())
                        .map(|(bytes, _)| (bytes, None))
                };
                let failure = match received {
                    Ok((0, _)) => {
                        connection.close();
                        sink.ended(index);
                        break;
                    }
                    Ok((bytes, stamp)) => {
                        match sink.received(index, &self.buffer[..bytes], stamp) {
                            Ok(Then::Stop) => break,
                            Ok(Then::Receive) if bytes < RECEIVE_BYTES && !ending => break,
                            Ok(Then::Receive) => continue,
                            Err(failure) => failure,
                        }
                    }
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => continue,
                    Err(errno) => Failure::from_errno(errno),
                };
                connection.close();
                sink.failed(index, failure);
            }
        }
        self.events.clear();
        any
    }

    fn dial(&mut self, connection: usize, dialing: &mut Dialing) -> Result<(), Failure> {
        let socket = dialing.socket(true)?;
        if self.stamped {
            stamp_receives(socket.as_fd()).map_err(|_| Failure::ConnectOther)?;
        }
        self.connections[connection] = Connection::new(Some(socket));
        Ok(())
    }

    fn connect(&mut self, connection: usize, dialing: &Dialing) -> Result<(), Failure> {
        let of = &mut self.connections[connection];
        let socket = of.socket.as_ref().ok_or(Failure::ConnectOther)?;
        let begun = match connect(socket, dialing.address()) {
            // Interrupted, it goes on by itself (connect(2)).
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {
                of.connecting = true;
                of.may_meet_itself = dialing.may_meet_itself();
                // What has happened meanwhile is an event at once.
                self.watch(connection)
            }
            Err(errno) => Err(errno),
        };
        begun.map_err(|errno| {
            self.connections[connection].close();
            Failure::from_connect_errno(errno)
        })
    }

    fn close(&mut self, connection: usize, how: Closing) {
        let connection = &mut self.connections[connection];
        if let (Closing::Reset, Some(socket)) = (how, &connection.socket) {
            // Should that fail, it ends with a FIN.
            let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
        connection.close();
    }

    fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }
}
