//! The io_uring engine: one multishot receive a connection into the ring's pool, silent sends straight from the payload
//! region, one call into the kernel a turn.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use echometer_ring::{Config, Errno, Event, Feature, Features, Payload, Ring, SetupError, Slot};

use super::{Engine, Sending, Sink};
use crate::failure::Failure;

/// All connections of one worker to one server. It belongs to the thread that made it.
pub(crate) struct Uring {
    ring: Ring,
    slots: Vec<Slot>,
    /// The connection in a slot, by the slot's index.
    connections: Vec<u32>,
    /// Receives that ended because the pool was empty. They are armed again, in their order, when the harvest has
    /// given all buffers back: doing so at once would fail at once.
    starved: Vec<Slot>,
    /// Whether a slot's close was asked for, by its index.
    closed: Vec<bool>,
    /// Closes that the ring has not confirmed.
    closing: usize,
    sent_bytes: u64,
}

/// How long the end of a session waits until the kernel has closed its connections.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Bytes that a connection may have under way at most: `message_size * pipeline`.
pub(crate) fn config(connections: u32, flight_bytes: u64, region: Arc<[u8]>) -> Config {
    Config {
        entries: 256,
        cq_entries: connections
            .saturating_mul(4)
            .next_power_of_two()
            .clamp(512, 16_384),
        slots: connections,
        buffers: connections.saturating_mul(2).clamp(64, 4_096) as u16,
        // As large as the replies that can come at once, within reason: smaller buffers cut them in pieces, larger
        // ones spread few bytes over many pages.
        buffer_size: flight_bytes.next_power_of_two().clamp(256, 64 << 10) as u32,
        shared: region,
        // A reply fits a buffer, and a bundle that takes all free buffers ends its multishot receive (6.18), which then has
        // to be armed again for each reply: 17 % more CPU a message.
        features: Features::default().without(Feature::Bundle),
        // In effect no bound: nobody here has to be stopped from sending us what we asked for. (The kernel reckons with
        // it as a signed number.)
        recv_bytes_max: i32::MAX as u32,
        ..Config::default()
    }
}

impl Uring {
    /// Takes connected sockets; the ring keeps them, the descriptors are closed.
    ///
    /// # Errors
    /// No ring to be had, or no slot in it for a socket.
    pub(crate) fn new(sockets: Vec<OwnedFd>, config: &Config) -> Result<Uring, SetupError> {
        let mut ring = Ring::new(config)?;
        let mut slots = Vec::with_capacity(sockets.len());
        let mut connections = vec![u32::MAX; config.slots as usize];
        let closed = vec![false; config.slots as usize];
        for (index, socket) in sockets.into_iter().enumerate() {
            let slot = ring
                .install(socket.as_fd())
                .map_err(|source| SetupError::Other {
                    step: "installing a connection",
                    source,
                })?;
            connections[slot.index()] = index as u32;
            ring.recv(slot);
            slots.push(slot);
        }
        let failed = |source| SetupError::Other {
            step: "arming the receives",
            source,
        };
        ring.submit().map_err(failed)?;
        Ok(Uring {
            ring,
            slots,
            connections,
            starved: Vec::new(),
            closed,
            closing: 0,
            sent_bytes: 0,
        })
    }

    #[inline]
    fn connection_of(&self, slot: Slot) -> usize {
        self.connections[slot.index()] as usize
    }

    #[cold]
    fn fail(&mut self, slot: Slot, failure: Failure, sink: &mut impl Sink) {
        self.close_slot(slot);
        sink.failed(self.connection_of(slot), failure);
    }

    #[cold]
    fn close_slot(&mut self, slot: Slot) {
        if std::mem::replace(&mut self.closed[slot.index()], true) {
            return;
        }
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
            self.close_slot(self.slots[index]);
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
        self.ring
            .send_now(self.slots[connection], Payload::Shared(range));
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
                    let verdict = sink.received(connection, self.ring.bytes(&buffer));
                    self.ring.release(buffer);
                    match verdict {
                        Err(failure) => self.fail(slot, failure, sink),
                        Ok(()) if !more => self.ring.recv(slot),
                        Ok(()) => {}
                    }
                }
                Event::Recv {
                    slot,
                    result: Ok(None),
                    ..
                } => self.fail(slot, Failure::ClosedByPeer, sink),
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
                Event::Send {
                    slot,
                    result: Ok(sent),
                    mut payload,
                } => {
                    self.sent_bytes += sent as u64;
                    payload.advance(sent);
                    if payload.is_empty() {
                        sink.sent(self.connection_of(slot));
                    } else {
                        self.ring.send(slot, payload);
                    }
                }
                // The socket is full. The rest waits in the kernel, which keeps its order.
                Event::Send {
                    slot,
                    result: Err(Errno::AGAIN),
                    payload,
                } => self.ring.send(slot, payload),
                Event::Send {
                    slot,
                    result: Err(errno),
                    ..
                } => self.fail(slot, Failure::from_errno(errno), sink),
                Event::Accept { .. }
                | Event::Connect { .. }
                | Event::Shutdown { .. }
                | Event::Poll { .. } => {}
                Event::Close { .. } => self.closing -= 1,
            }
        }
        for slot in self.starved.drain(..) {
            self.ring.recv(slot);
        }
        any
    }

    fn close(&mut self, connection: usize) {
        self.close_slot(self.slots[connection]);
    }

    fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }
}
