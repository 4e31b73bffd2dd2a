//! The io_uring engine: accept, receive, send and close are completions, and a turn of the loop is submit, wait, drain,
//! act. Received bytes are sent on from the buffer that they arrived in.
//!
//! What a connection owes is [`Connection`]'s business; who is let in is `Admission`'s, who may keep how many buffers
//! `Holding`'s; what is memory-safe is the ring's. Here is what is left: which operation comes next.

mod accepting;
mod admission;
mod holding;
mod looking;
mod parking;
mod sending;
pub(crate) mod sizing;
mod stopping;
mod waiting;

use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use self::admission::Admission;
use self::holding::{Holding, Share};
use self::looking::Looking;
use self::parking::Parking;
use self::waiting::Waiting;
use echometer_host::clock;
use echometer_host::sockets::{self, ListenError, ListenOptions, Listener};
use echometer_host::threads;
use echometer_ring::{Buffer, Errno, Event, Feature, Payload, Ring, Slot};

use crate::config::{Accept, Config};
use crate::connection::{CloseReason, Connection, Fate, Receive};
use crate::delay::{DelayQueue, Releases, WAKE_LEAD_NS};
use crate::engine::accept_failures::AcceptFailures;
use crate::engine::{ServeError, Unavailable, Worker};
use crate::idle::IdleWatch;
use crate::log;
use crate::wait::Patience;

/// Whether this kernel lets a ring be made, and whether `--uring` names features that exist.
pub fn available(config: &Config) -> Result<(), Unavailable> {
    let config = sizing::ring_config(config)?;
    echometer_ring::try_out(&config)
        .map(drop)
        .map_err(|error| Unavailable::from(&error))
}

/// Makes the listeners by io_uring operations where the kernel has them and `bind-listen` is on, else by system calls.
pub fn listen(config: &Config, options: &ListenOptions) -> Result<Vec<Listener>, ListenError> {
    let count = config.workers.len();
    let by_ring = || {
        let wanted = sizing::features(&config.uring).is_ok_and(|set| set.has(Feature::BindListen));
        if !wanted || !echometer_ring::can_listen() {
            return sockets::listen(&config.listen, count, options);
        }
        sockets::listen_by(&config.listen, count, options, &|address, backlog, set| {
            echometer_ring::listen(&address.into(), backlog, set)
        })
    };
    // On a thread of its own: when a ring ends, the kernel interrupts the thread that used it, some time later, and a
    // blocking call that the caller is in by then would fail with EINTR.
    std::thread::scope(|scope| {
        match threads::spawn_scoped(scope, "uring-listen", by_ring).map(ScopedJoinHandle::join) {
            Ok(Ok(listeners)) => listeners,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // The workers will say what is lacking.
            Err(_) => sockets::listen(&config.listen, count, options),
        }
    })
}

/// Serves with io_uring: see [`Serve`](crate::engine::Serve).
pub fn serve(listener: Listener, config: &Config, worker: &Worker) -> Result<(), ServeError> {
    let mut server = Server::new(listener, config, worker)?;
    if !worker.ready(server.features()) {
        return Ok(());
    }
    server.begin()?;
    worker.accepts();
    while !server.is_done() {
        server.turn()?;
    }
    Ok(())
}

struct Server<'a> {
    ring: Ring,
    /// By slot. The listener's and the stop request's places are never open.
    peers: Vec<Peer>,
    /// Pieces that one connection gets in a row, to be sent as one when the last is here.
    run: Vec<Buffer>,
    /// Something waits for a send whose success is known only when the submit returns: the next submit may not sleep.
    hurry: bool,
    /// Connections whose receive found no buffer.
    parking: Parking,
    /// Connections whose socket took nothing though it has room, and until when they rest.
    resting: VecDeque<(Instant, Slot)>,
    /// Pieces that a `--delay` keeps back.
    delayed: DelayQueue<(Slot, Payload)>,
    /// Until when.
    releases: Releases,
    /// Buffers that wait in a queue or for a slow reader.
    holding: Holding,
    admission: Admission,
    accept_failures: AcceptFailures,
    /// The listen queue is being emptied by accepts that don't wait, for a stop.
    emptying: bool,
    listener: Option<(Slot, Listener)>,
    /// Where the ring keeps the stop request.
    stop: Slot,
    drain_deadline: Option<Instant>,
    patience: Patience,
    idle: Option<IdleWatch>,
    looking: Looking,
    /// Submits that the kernel refused for the moment, as told of.
    refusals: u64,
    refusal_log: log::Seldom,
    config: &'a Config,
    worker: &'a Worker,
}

/// One connection, as this engine keeps it: one cache line.
#[repr(align(64))]
struct Peer {
    connection: Connection,
    /// Owed bytes behind the send in flight, the oldest first.
    waiting: Waiting,
    /// Where the ring keeps it, while it is open. The slot tells it from the connections that had this place before: what
    /// waits for one of them must not reach the next.
    slot: Option<Slot>,
    parked: bool,
    /// It was parked, and has got no buffer since.
    woken: bool,
    /// It sends without a copy, or after a poll for room.
    is_marked: bool,
    after_room: bool,
    /// When the last piece that a `--delay` keeps back may go: none after it goes earlier.
    due_ns: u64,
    /// Buffers that a send without a copy keeps until the peer has its bytes: they are counted in `holding`.
    kept_by_send: Share,
}

const _: () = assert!(size_of::<Peer>() == 64);

impl<'a> Server<'a> {
    fn new(
        listener: Listener,
        config: &'a Config,
        worker: &'a Worker,
    ) -> Result<Server<'a>, ServeError> {
        let ring_config = sizing::ring_config(config)?;
        let connections_max = sizing::connections_max(&ring_config);
        // On a queue that is shared, a multishot accept of one ring would take every connection.
        let accept_room = match config.accept {
            Accept::ReusePort => sizing::accept_room(&ring_config, listener.backlog_effective()),
            Accept::Shared => usize::MAX / 2,
        };
        let mut ring = Ring::new(&ring_config).map_err(|error| Unavailable::from(&error))?;
        let listening = ring
            .install(listener.as_fd())
            .map_err(ServeError::system("cannot hand the listener to the ring"))?;
        let stop = ring
            .install(worker.stop.fd())
            .map_err(ServeError::system("cannot watch for the stop request"))?;
        Ok(Server {
            ring,
            // As many as there may ever be: what is not used is only an address range, and the table never moves.
            peers: Vec::with_capacity(ring_config.slots as usize),
            run: Vec::new(),
            hurry: false,
            parking: Parking::default(),
            resting: VecDeque::new(),
            delayed: DelayQueue::new(),
            releases: Releases::new(config.delay, worker.index as u64),
            holding: Holding::default(),
            admission: Admission::new(connections_max, accept_room),
            accept_failures: AcceptFailures::default(),
            emptying: false,
            listener: Some((listening, listener)),
            stop,
            drain_deadline: None,
            patience: Patience::new(config.wait),
            idle: config.idle_timeout.map(IdleWatch::new),
            looking: Looking::default(),
            refusals: 0,
            refusal_log: log::Seldom::default(),
            config,
            worker,
        })
    }

    /// Arms what was set up.
    fn begin(&mut self) -> Result<(), ServeError> {
        self.arm_accept();
        self.ring.poll(self.stop);
        let submitted = self.ring.submit();
        submitted.map_err(ServeError::system("cannot start accepting"))
    }

    fn features(&self) -> Vec<String> {
        let features = self.ring.features();
        let mut names: Vec<String> = features.iter().map(|f| f.name().to_owned()).collect();
        if names.is_empty() {
            names.push("none".to_owned());
        }
        names
    }

    /// Submit, wait, drain, act.
    #[inline]
    fn turn(&mut self) -> Result<(), ServeError> {
        let entered = if std::mem::take(&mut self.hurry) || self.buffers_are_awaited() {
            self.ring.submit()
        } else if self.patience.may_sleep(clock::now_ns) {
            match self.wait_limit() {
                // So near that a sleep would be too long.
                Some(Duration::ZERO) => self.ring.submit_if_due(),
                limit => self.ring.submit_and_wait(limit),
            }
        } else {
            self.ring.submit_if_due()
        };
        entered.map_err(ServeError::system("cannot wait for completions"))?;
        if let Some(idle) = &mut self.idle {
            idle.begin_turn(clock::now_ns());
        }
        let mut found = false;
        while let Some(event) = self.ring.next_event() {
            found = true;
            self.handle(event)?;
        }
        self.patience.found(found);
        self.end_turn();
        Ok(())
    }

    /// Whether receives wait for buffers that silent sends have. The success of those is known when a submit returns:
    /// had it slept, the receives would sleep too.
    #[inline]
    fn buffers_are_awaited(&self) -> bool {
        !self.parking.is_empty() && 0 < self.ring.sends_unconfirmed()
    }

    #[inline]
    fn handle(&mut self, event: Event) -> Result<(), ServeError> {
        match event {
            Event::Recv { slot, result, more } => self.handle_recv(slot, result, more),
            Event::Sent { slot, bytes } => self.handle_sent(slot, bytes),
            Event::Unsent { slot, result, rest } => self.handle_unsent(slot, result, rest),
            Event::Taken { slot, bytes } => self.handle_taken(slot, bytes),
            Event::Room { slot } => self.handle_room(slot),
            Event::File { slot, result } => self.handle_file(slot, result),
            Event::Accept { result, more, .. } => self.handle_accept(result, more)?,
            Event::Shutdown { slot, result } => {
                if let Err(errno) = result {
                    self.fail(slot, errno);
                }
            }
            Event::Close { .. } => self.handle_close(),
            Event::Poll { .. } => self.begin_stop(),
            Event::Connect { .. } => unreachable!("a server connects to nobody"),
        }
        Ok(())
    }

    // ---- bytes come and go

    #[inline]
    fn handle_recv(&mut self, slot: Slot, result: Result<Option<Buffer>, Errno>, more: bool) {
        if let Some(idle) = &mut self.idle {
            idle.active(slot.index());
        }
        let peer = &mut self.peers[slot.index()];
        match result {
            Ok(Some(buffer)) => {
                peer.woken = false;
                match peer.connection.received(buffer.len()) {
                    Fate::Echo => {
                        self.worker.counters.bytes_in.add(buffer.len() as u64);
                        self.echo(slot, buffer);
                    }
                    Fate::Drop => {
                        self.worker.counters.bytes_dropped.add(buffer.len() as u64);
                        self.ring.release(buffer);
                    }
                }
            }
            Ok(None) => peer.connection.peer_closed(),
            Err(Errno::NOBUFS) => {
                peer.parked = true;
                self.parking.park(slot, std::mem::take(&mut peer.woken));
                self.worker.counters.recv_parks.add(1);
            }
            // Ours: the connection owes too much, or the server stops.
            Err(Errno::CANCELED) => {}
            Err(errno) => peer.connection.failed(CloseReason::from_errno(errno)),
        }
        let connection = &mut self.peers[slot.index()].connection;
        if more && connection.receive() == Receive::Echo {
            return;
        }
        if !more {
            connection.receive_ended();
        }
        self.settle(slot);
    }

    /// Sends a received piece on: as one with those that come right behind it on the same connection, if any do.
    #[inline]
    fn echo(&mut self, slot: Slot, buffer: Buffer) {
        if !self.config.delay.is_none() {
            self.delay(slot, buffer);
            return;
        }
        let follows = self.ring.another_piece_follows(slot);
        let first = self.run.is_empty() && self.peers[slot.index()].waiting.is_empty();
        if !follows && first && !self.ring.is_sending(slot) {
            self.send_now(slot, Payload::Buffer(buffer));
            return;
        }
        self.run.push(buffer);
        if !follows {
            self.end_run(slot);
        }
    }

    // ---- connections go

    fn fail(&mut self, slot: Slot, errno: Errno) {
        let reason = CloseReason::from_errno(errno);
        self.peers[slot.index()].connection.failed(reason);
        self.settle(slot);
    }

    /// Does what the connection wants now, after any event but the plain echo.
    fn settle(&mut self, slot: Slot) {
        let peer = &mut self.peers[slot.index()];
        if let Some(reason) = peer.connection.close_due() {
            self.close(slot, reason);
            return;
        }
        if peer.connection.shutdown_due() {
            peer.connection.shutdown_issued();
            self.ring.shutdown_write(slot);
        }
        let receive = peer.connection.receive();
        // What comes next for this connection hangs on its send: the wait may not be longer than that.
        if receive != Receive::Echo && self.ring.is_sending(slot) {
            self.hurry = true;
        }
        let peer = &mut self.peers[slot.index()];
        if receive == Receive::Pause {
            self.ring.cancel(slot);
        } else if !peer.parked && !self.ring.is_armed(slot) {
            if peer.woken || self.parking.is_empty() {
                self.ring.recv(slot);
            } else {
                // Behind those that wait already: a buffer that comes back is theirs.
                peer.parked = true;
                self.parking.park(slot, false);
            }
        }
    }

    fn close(&mut self, slot: Slot, reason: CloseReason) {
        self.worker.counters.close(reason);
        self.admission.leaves();
        if let Some(idle) = &mut self.idle {
            idle.closed(slot.index());
        }
        self.end_stall(slot);
        // Not empty only where the ring gave the pieces up that were to follow.
        for buffer in self.run.drain(..) {
            self.ring.release(buffer);
        }
        let peer = &mut self.peers[slot.index()];
        peer.slot = None;
        peer.parked = false;
        peer.woken = false;
        peer.is_marked = false;
        peer.after_room = false;
        // An end in order would say that all was echoed. After a reset the peer knows.
        let owes = 0 < peer.connection.owed() && reason != CloseReason::Reset;
        let mut waiting = std::mem::take(&mut peer.waiting);
        while let Some(payload) = waiting.pop() {
            self.drop_kept(payload);
        }
        if owes {
            self.ring.reset(slot);
        } else {
            self.ring.close(slot);
        }
    }

    fn drop_kept(&mut self, payload: Payload) {
        if let Payload::Buffer(buffer) = payload {
            self.holding.give_up(self.ring.is_large(&buffer));
            self.ring.release(buffer);
        }
    }

    // ---- turns

    fn end_turn(&mut self) {
        if !self.delayed.is_empty() {
            self.release_delayed();
        }
        if !self.parking.is_empty() {
            self.wake_parked();
        }
        if !self.resting.is_empty() {
            self.end_rests();
        }
        if self.admission.alarm().is_some() && self.admission.look(Instant::now()) {
            self.arm_accept();
        }
        if self
            .drain_deadline
            .is_some_and(|deadline| deadline <= Instant::now())
        {
            self.for_each_open(Connection::drain_expired);
        }
        self.end_idle();
        let counts = self.ring.counts();
        if counts.refusals != self.refusals {
            self.refusals = counts.refusals;
            self.tell_of_refusals();
        }
        let counters = &self.worker.counters;
        counters.enters.set(counts.enters);
        counters.cqes.set(counts.cqes);
        counters.cq_overflows.set(counts.cq_overflows);
    }

    /// The kernel refuses to submit for the moment, and the ring rests between its attempts.
    #[cold]
    fn tell_of_refusals(&mut self) {
        if let Some(errno) = self.ring.last_refusal() {
            let errno = std::io::Error::from(errno);
            let (index, refusals) = (self.worker.index, self.refusals);
            self.refusal_log.line(format_args!(
                "note: the kernel refused to take worker {index}'s requests for the moment, {refusals} times so far: {errno}; \
                 they are tried again after a rest"
            ));
        }
    }

    fn is_current(&self, slot: Slot) -> bool {
        self.peers[slot.index()].slot == Some(slot)
    }

    /// How long the wait may be: until the next thing that no completion announces.
    #[inline]
    fn wait_limit(&self) -> Option<Duration> {
        let mut limit = None;
        if let Some(due) = self.delayed.next_due() {
            let now = clock::now_ns();
            let due = self.config.delay.frozen_until(now).unwrap_or(due).max(due);
            limit = Some(Duration::from_nanos(due.saturating_sub(now + WAKE_LEAD_NS)));
        }
        if let Some(check) = self.idle.as_ref().and_then(IdleWatch::next_check_ns) {
            let wait = Duration::from_nanos(check.saturating_sub(clock::now_ns()));
            limit = Some(limit.map_or(wait, |limit: Duration| limit.min(wait)));
        }
        let rest = self.resting.front().map(|(until, _)| *until);
        let alarms = [self.drain_deadline, self.admission.alarm(), rest];
        for alarm in alarms.into_iter().flatten() {
            let wait = alarm.saturating_duration_since(Instant::now());
            limit = Some(limit.map_or(wait, |limit: Duration| limit.min(wait)));
        }
        limit
    }

    fn is_done(&self) -> bool {
        self.admission.has_ended() && self.listener.is_none() && self.admission.open() == 0
    }
}

impl Peer {
    fn vacant() -> Peer {
        Peer {
            connection: Connection::new(1),
            waiting: Waiting::default(),
            slot: None,
            parked: false,
            woken: false,
            is_marked: false,
            after_room: false,
            due_ns: 0,
            kept_by_send: Share::default(),
        }
    }

    fn welcome(&mut self, slot: Slot, connection: Connection) {
        debug_assert!(self.slot.is_none() && self.waiting.is_empty());
        self.connection = connection;
        self.slot = Some(slot);
        self.parked = false;
        self.due_ns = 0;
    }
}
