//! The io_uring engine: one multishot receive per connection into the ring's pool, silent sends straight from the
//! payload region, one call into the kernel per turn.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use echometer_host::sockets::{end_by_reset, is_connected_to_itself};
use echometer_ring::{
    Config, Errno, Event, Feature, Features, Payload, Ring, SetupError, Slot, stamp_receives,
    tcp_retransmits,
};
use rustix::net::sockopt;

use super::{Closing, Engine, Sending, Sink, Then};
use crate::{dial::Dialing, failure::Failure};

/// All connections of one worker to one server. It belongs to the thread that made it.
pub(crate) struct Uring {
    ring: Ring,
    /// Of each connection; `None` while it is closed.
    slots: Vec<Option<Slot>>,
    /// The connection in a slot, by the slot's index.
    connections: Vec<u32>,
    /// Receives that ended because the pool was empty. They are armed again, in their order, when the harvest has
    /// given all buffers back: doing so at once would fail at once.
    starved: Vec<Slot>,
    /// Whether a slot's close was asked for, by its index.
    closed: Vec<bool>,
    /// Closes that the ring has not confirmed.
    closing: usize,
    /// The kernel tells when it received what comes.
    stamped: bool,
    /// Of a dialed connection it is to be seen whether there is anybody else at its other end.
    may_meet_itself: bool,
    sent_bytes: u64,
}

/// How long the end of a session waits until the kernel has closed its connections.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// The ring for `connections` that may have `flight_bytes` under way each, `message_size * pipeline`. Where connections
/// are made while load is driven (`dials`) they are `life_bytes` long. With `stamped` each piece that is received has the
/// kernel's time in front of it.
pub(crate) fn config(
    connections: u32,
    flight_bytes: u64,
    dials: Option<u64>,
    stamped: bool,
    region: Arc<[u8]>,
) -> Config {
    // A reply fits a buffer, and a bundle that takes all free buffers ends its multishot receive (6.18), which then has
    // to be armed again for each reply: 17 % more CPU per message.
    let features = Features::default().without(Feature::Bundle);
    Config {
        entries: 256,
        cq_entries: connections
            .saturating_mul(4)
            .next_power_of_two()
            .clamp(512, 16_384),
        // While a closed connection's slot is being vacated, its successor has another.
        slots: if dials.is_some() {
            connections.saturating_mul(2).saturating_add(64)
        } else {
            connections
        },
        buffers: connections.saturating_mul(2).clamp(64, 4_096) as u16,
        // As large as the replies that can come at once, within reason: smaller buffers cut them in pieces, larger
        // ones spread few bytes over many pages.
        buffer_size: flight_bytes.next_power_of_two().clamp(256, 64 << 10) as u32
            + if stamped { Ring::STAMP_BYTES } else { 0 },
        shared: region,
        // A socket is made by socket(2) and asked for its TCP_INFO, so that it has a plain descriptor anyway; and to put
        // it into the table of direct ones would be one more call.
        features: if dials.is_some() {
            features.without(Feature::Direct)
        } else {
            features
        },
        // A receive that ends by itself with the life's last byte need not be cancelled before the close. Else there is
        // in effect no bound: nobody here has to be stopped from sending us what we asked for. (The kernel reckons with
        // it as a signed number.)
        recv_bytes_max: dials.map_or(i32::MAX as u32, |life_bytes| {
            life_bytes.clamp(1, i32::MAX as u64) as u32
        }),
        ..Config::default()
    }
}

impl Uring {
    /// Takes connected sockets, the first connections of `count`; the others are to be dialed. The ring keeps the files.
    /// With `stamped`, which the configuration was made for too, the kernel tells when it received what comes.
    ///
    /// # Errors
    /// No ring could be made, or it has no slot in it for a socket.
    pub(crate) fn new(
        sockets: Vec<OwnedFd>,
        count: u32,
        config: &Config,
        stamped: bool,
    ) -> Result<Uring, SetupError> {
        let ring = Ring::new(config)?;
        let mut engine = Uring {
            ring,
            slots: vec![None; count as usize],
            connections: vec![u32::MAX; config.slots as usize],
            starved: Vec::new(),
            closed: vec![false; config.slots as usize],
            closing: 0,
            stamped,
            may_meet_itself: false,
            sent_bytes: 0,
        };
        for (index, socket) in sockets.into_iter().enumerate() {
            let slot = engine
                .take_in(index, socket)
                .map_err(|source| SetupError::Other {
                    step: "installing a connection",
                    source,
                })?;
            engine.recv(slot);
        }
        let failed = |source| SetupError::Other {
            step: "arming the receives",
            source,
        };
        engine.ring.submit().map_err(failed)?;
        Ok(engine)
    }

    fn take_in(&mut self, connection: usize, socket: OwnedFd) -> io::Result<Slot> {
        if self.stamped {
            stamp_receives(socket.as_fd())?;
        }
        let slot = self.ring.adopt(socket)?;
        self.connections[slot.index()] = connection as u32;
        self.closed[slot.index()] = false;
        self.slots[connection] = Some(slot);
        Ok(slot)
    }

    #[inline]
    fn recv(&mut self, slot: Slot) {
        if self.stamped {
            self.ring.recv_stamped(slot);
        } else {
            self.ring.recv(slot);
        }
    }

    #[inline]
    fn connection_of(&self, slot: Slot) -> usize {
        self.connections[slot.index()] as usize
    }

    fn settle_connect(&mut self, slot: Slot, result: Result<(), Errno>, sink: &mut impl Sink) {
        let connection = self.connection_of(slot);
        match result {
            Ok(()) if self.has_met_itself(slot) => {
                self.close_slot(slot);
                sink.not_connected(connection, Failure::ConnectedToItself);
            }
            Ok(()) => {
                self.recv(slot);
                let ring = &mut self.ring;
                sink.connected(connection, || {
                    ring.file(slot)
                        .map_or(0, |socket| tcp_retransmits(socket).unwrap_or(0))
                });
            }
            Err(errno) => {
                self.close_slot(slot);
                sink.not_connected(connection, Failure::from_connect_errno(errno));
            }
        }
    }

    fn has_met_itself(&mut self, slot: Slot) -> bool {
        let Some(socket) = self.ring.file(slot).filter(|_| self.may_meet_itself) else {
            return false;
        };
        let itself = is_connected_to_itself(socket);
        if itself {
            end_by_reset(socket);
        }
        itself
    }

    /// The peer has ended its stream.
    fn end(&mut self, slot: Slot, sink: &mut impl Sink) {
        self.close_slot(slot);
        sink.ended(self.connection_of(slot));
    }

    #[cold]
    fn fail(&mut self, slot: Slot, failure: Failure, sink: &mut impl Sink) {
        self.close_slot(slot);
        sink.failed(self.connection_of(slot), failure);
    }

    fn close_slot(&mut self, slot: Slot) {
        if std::mem::replace(&mut self.closed[slot.index()], true) {
            return;
        }
        self.slots[self.connections[slot.index()] as usize] = None;
        self.starved.retain(|starved| *starved != slot);
        self.ring.close(slot);
        self.closing += 1;
    }
}

/// The connections are closed, one after the other, before the ring goes: a ring that simply ends gives up its files at
/// a time of the kernel's choosing, and the server would hear of it late.
impl Drop for Uring {
    fn drop(&mut self) {
        for index in 0..self.slots.len() {
            if let Some(slot) = self.slots[index] {
                self.close_slot(slot);
            }
        }
        let deadline = Instant::now() + CLOSE_LIMIT;
        while self.closing != 0 && Instant::now() < deadline {
            if self.ring.submit_and_wait(Some(CLOSE_LIMIT)).is_err() {
                return;
            }
            while let Some(event) = self.ring.next_event() {
                match event {
                    Event::Close { .. } => self.closing -= 1,
                    Event::Recv {
                        result: Ok(Some(buffer)),
                        ..
                    } => self.ring.release(buffer),
                    _ => {}
                }
            }
        }
    }
}

impl Engine for Uring {
    #[inline]
    fn send(&mut self, connection: usize, range: Range<usize>) -> Sending {
        // What goes out whole at once, as nearly all does, says nothing and so wakes nobody: with one connection that
        // saves every second call into the kernel.
        let Some(slot) = self.slots[connection] else {
            debug_assert!(false, "a send on a closed connection");
            return Sending::Failed(Failure::Other);
        };
        self.ring.send_now(slot, Payload::Shared(range));
        Sending::InFlight
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        self.ring.submit()
    }

    #[inline]
    fn wait(&mut self, limit: Duration) -> io::Result<()> {
        self.ring.submit_and_wait(Some(limit))
    }

    #[inline]
    fn poll(&mut self) -> io::Result<()> {
        self.ring.submit_if_due()
    }

    #[inline]
    fn harvest(&mut self, sink: &mut impl Sink) -> bool {
        let mut any = false;
        while let Some(event) = self.ring.next_event() {
            any = true;
            match event {
                Event::Recv {
                    slot,
                    result: Ok(Some(buffer)),
                    more,
                } => {
                    let connection = self.connection_of(slot);
                    let (stamp, bytes) = if self.stamped {
                        self.ring.stamped_bytes(&buffer)
                    } else {
                        (None, self.ring.bytes(&buffer))
                    };
                    if bytes.is_empty() {
                        self.ring.release(buffer);
                        self.end(slot, sink);
                        continue;
                    }
                    let verdict = sink.received(connection, bytes, stamp);
                    self.ring.release(buffer);
                    match verdict {
                        Err(failure) => self.fail(slot, failure, sink),
                        Ok(Then::Receive) if !more => self.recv(slot),
                        Ok(_) => {}
                    }
                }
                Event::Recv {
                    slot,
                    result: Ok(None),
                    ..
                } => self.end(slot, sink),
                Event::Recv {
                    slot,
                    result: Err(Errno::NOBUFS),
                    ..
                } => self.starved.push(slot),
                Event::Recv {
                    slot,
                    result: Err(errno),
                    ..
                } => self.fail(slot, Failure::from_errno(errno), sink),
                Event::Sent { slot, bytes } => {
                    self.sent_bytes += bytes as u64;
                    sink.sent(self.connection_of(slot));
                }
                // The socket is full. The rest waits in the kernel, which keeps its order.
                Event::Unsent {
                    slot,
                    result: result @ (Ok(_) | Err(Errno::AGAIN)),
                    rest,
                } => {
                    self.sent_bytes += result.unwrap_or(0) as u64;
                    self.ring.send(slot, rest);
                }
                Event::Unsent {
                    slot,
                    result: Err(errno),
                    ..
                } => self.fail(slot, Failure::from_errno(errno), sink),
                Event::Connect { slot, result } => self.settle_connect(slot, result, sink),
                Event::Accept { .. }
                | Event::Shutdown { .. }
                | Event::Poll { .. }
                | Event::Taken { .. }
                | Event::Room { .. }
                | Event::File { .. } => {}
                Event::Close { .. } => self.closing -= 1,
            }
        }
        let mut starved = std::mem::take(&mut self.starved);
        starved.drain(..).for_each(|slot| self.recv(slot));
        self.starved = starved;
        any
    }

    fn dial(&mut self, connection: usize, dialing: &mut Dialing) -> Result<(), Failure> {
        // A ring waits on a blocking socket; on a non-blocking one it would give up at once.
        let socket = dialing.socket(false)?;
        match self.take_in(connection, socket) {
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::NoDescriptor),
        }
    }

    fn connect(&mut self, connection: usize, dialing: &Dialing) -> Result<(), Failure> {
        let slot = self.slots[connection].ok_or(Failure::ConnectOther)?;
        self.may_meet_itself = dialing.may_meet_itself();
        self.ring.connect(slot, dialing.address());
        Ok(())
    }

    fn close(&mut self, connection: usize, how: Closing) {
        let Some(slot) = self.slots[connection] else {
            return;
        };
        if let (Closing::Reset, Some(socket)) = (how, self.ring.file(slot)) {
            // Should that fail, it ends with a FIN.
            let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
        self.close_slot(slot);
    }

    fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }
}
