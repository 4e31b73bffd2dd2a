//! The epoll engine: edge-triggered readiness, the echo sent inline from the buffer it was received into, and no
//! epoll_ctl, no allocation and no clock read for a message.

mod peer;
mod slab;
mod timer;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use echometer_host::clock::now_ns;
use echometer_host::sockets::Listener;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use self::peer::{Peer, Shared, Turn};
use self::slab::{Slab, Token};
use self::timer::Timer;
use crate::config::Config;
use crate::connection::CloseReason;
use crate::delay::{DelayQueue, WAKE_LEAD_NS};
use crate::engine::accept_failures::{ACCEPT_REST, AcceptFailures, Next};
use crate::engine::{ServeError, Unavailable, Worker};
use crate::idle::IdleWatch;
use crate::wait::Patience;

/// Bytes received at once unless the user says otherwise. Received into one buffer per worker, so that small messages
/// touch its first lines only: what is used of it follows the message by itself. For messages of 64 KiB, 16 KiB costs twice
/// the CPU of 64 KiB; for those of 1 MiB, 64 KiB costs 1.4 times that of 256 KiB, and more brings little.
const BUFFER_SIZE_DEFAULT: u32 = 256 * 1024;

/// Events fetched by one wait. A thousand busy connections are served in a few batches, each small enough that the
/// sockets' lines, touched by the wait, are still in cache when they are received from.
const EVENTS_MAX: usize = 256;

/// Connections accepted in one turn, so that a storm of them does not starve those that are in.
const ACCEPTS_PER_TURN: usize = 64;

/// Connections that seem idle and are looked at in one turn, and perhaps closed: when a thousand are idle at once, the others
/// don't wait for all of them.
const LOOKS_PER_TURN: usize = 32;

/// How long the listener rests when accepting fails, if no connection of this worker is closed meanwhile.
const PARK_NS: u64 = ACCEPT_REST.as_nanos() as u64;

/// Epoll needs nothing that a kernel of this century lacks.
pub fn available(_: &Config) -> Result<(), Unavailable> {
    Ok(())
}

/// Serves on one thread until stopped; see [`Serve`](crate::engine::Serve).
pub fn serve(listener: Listener, config: &Config, worker: &Worker) -> Result<(), ServeError> {
    let mut engine = Readiness::new(listener, config, worker)?;
    if !worker.ready(vec!["edge-triggered".into(), "inline-send".into()]) {
        return Ok(());
    }
    worker.accepts();
    engine.run()
}

/// One worker's loop.
struct Readiness<'a> {
    config: &'a Config,
    worker: &'a Worker,
    epoll: OwnedFd,
    listening: Listening,
    peers: Slab<Peer>,
    shared: Shared<'a>,
    /// Peers that used up their turn, in the order in which they get their next one.
    again: Vec<Token>,
    /// The same, for the turn being taken: swapped, so that neither is allocated anew.
    taking_turns: Vec<Token>,
    /// Wakes the worker for delayed echoes; only with a delay that holds pieces back.
    timer: Option<Timer>,
    /// Only with an idle timeout.
    idle: Option<IdleWatch>,
    patience: Patience,
    /// Once stopping: when the drain time ends.
    deadline_ns: Option<u64>,
    accept_failures: AcceptFailures,
}

/// Whether connections are accepted.
enum Listening {
    Armed(Listener),
    /// Accepting fails: readiness is switched off, or a listener with a queue would wake us for ever.
    Parked {
        listener: Listener,
        retry_ns: u64,
    },
    /// Stopping.
    Ended,
}

/// How a round of accepting ended.
enum Accepted {
    /// The queue is empty.
    All,
    /// The turn is over; there may be more.
    Some,
    /// It fails, and would fail again at once.
    Fails,
}

const LISTENER: Token = Token::special(0);
const STOP: Token = Token::special(1);
const TIMER: Token = Token::special(2);

impl<'a> Readiness<'a> {
    fn new(
        listener: Listener,
        config: &'a Config,
        worker: &'a Worker,
    ) -> Result<Readiness<'a>, ServeError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)
            .map_err(ServeError::system("cannot create an epoll set"))?;
        // Level-triggered, both: a turn may leave connections in the queue, and a stop request is never taken back.
        watch(&epoll, &listener, LISTENER, listener_events(&listener))?;
        watch(&epoll, worker.stop.fd(), STOP, EventFlags::IN)?;
        let timer = if config.delay.holds_back() {
            let timer = Timer::new()?;
            // Edge-triggered: arming it anew takes the old expiry back, so it never needs to be read.
            watch(&epoll, &timer.fd, TIMER, EventFlags::IN | EventFlags::ET)?;
            Some(timer)
        } else {
            None
        };
        let buffer_size = config.buffer_size.unwrap_or(BUFFER_SIZE_DEFAULT) as usize;
        Ok(Readiness {
            config,
            worker,
            epoll,
            listening: Listening::Armed(listener),
            peers: Slab::new(),
            shared: Shared::new(config.delay, buffer_size, worker),
            again: Vec::new(),
            taking_turns: Vec::new(),
            timer,
            idle: config.idle_timeout.map(IdleWatch::new),
            patience: Patience::new(config.wait),
            deadline_ns: None,
            accept_failures: AcceptFailures::default(),
        })
    }

    fn run(&mut self) -> Result<(), ServeError> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
        loop {
            let timeout = self.timeout();
            events.clear();
            self.worker.counters.enters.add(1);
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(ServeError::system("cannot wait for events")(errno)),
            }
            self.patience.found(!events.is_empty());
            if let Some(idle) = &mut self.idle {
                idle.begin_turn(now_ns());
            }
            for event in &events {
                let (token, flags) = (Token::from_u64(event.data.u64()), event.flags);
                match token {
                    LISTENER => self.handle_listener()?,
                    STOP => self.handle_stop()?,
                    TIMER => {}
                    _ => self.handle_peer(token, flags),
                }
            }
            self.take_turns();
            if self.timer.is_some() {
                self.release_due()?;
            }
            self.close_idle();
            self.retry_parked()?;
            if self.drained() {
                return Ok(());
            }
        }
    }

    #[inline]
    fn handle_peer(&mut self, token: Token, flags: EventFlags) {
        // A token of a connection closed earlier in this batch names nobody any more.
        if let Some(peer) = self.peers.entry(token) {
            peer.note(flags);
            let turn = peer.turn(token, &mut self.shared);
            self.note_active(token);
            self.settle(token, turn);
        }
    }

    /// What follows from a peer's turn.
    #[inline]
    fn settle(&mut self, token: Token, turn: Turn) {
        match turn {
            Turn::Waits => {}
            Turn::Full => {
                let peer = self
                    .peers
                    .entry(token)
                    .expect("the peer that just had its turn");
                // Once in a connection's life at most: an edge-triggered EPOLLOUT that stays on fires only after
                // the socket was full, so taking it off again would cost a call and save nothing.
                if peer.wants_writable_watch() {
                    self.worker.counters.enters.add(1);
                    let flags = PEER_EVENTS | EventFlags::OUT;
                    if epoll::modify(&self.epoll, peer.socket(), token.data(), flags).is_err() {
                        self.close(token, CloseReason::Error);
                    }
                }
            }
            Turn::Again => self.again.push(token),
            Turn::Close(reason) => self.close(token, reason),
        }
    }

    fn close(&mut self, token: Token, reason: CloseReason) {
        if let Some(peer) = self.peers.remove(token) {
            peer.close(reason, &self.worker.counters);
            self.worker.counters.enters.add(1);
            self.worker.counters.close(reason);
            if let Some(idle) = &mut self.idle {
                idle.closed(token.index());
            }
            if let Listening::Parked { retry_ns, .. } = &mut self.listening {
                *retry_ns = 0;
            }
        }
    }

    /// Something moves on this connection: it is not idle.
    #[inline]
    fn note_active(&mut self, token: Token) {
        if let Some(idle) = &mut self.idle {
            idle.active(token.index());
        }
    }

    /// Closes those on which nothing has moved for too long. In a stop the drain time rules instead.
    fn close_idle(&mut self) {
        if self.deadline_ns.is_some() {
            return;
        }
        for _ in 0..LOOKS_PER_TURN {
            let Some(index) = self.idle.as_mut().and_then(IdleWatch::pop_idle) else {
                return;
            };
            let Some(token) = self.peers.token_at(index) else {
                continue;
            };
            // A wait that a signal cut short, or a batch of events that was full, told us nothing of what it sees.
            let peer = self.peers.entry(token).expect("a token in use");
            let look = peer.look(&self.worker.counters);
            let idle = self.idle.as_mut().expect("it named the connection");
            if idle.is_idle(index, look) {
                self.close(token, CloseReason::TimedOut);
            }
        }
    }

    /// Gives everyone who used up the last turn another one.
    fn take_turns(&mut self) {
        if self.again.is_empty() {
            return;
        }
        std::mem::swap(&mut self.again, &mut self.taking_turns);
        for index in 0..self.taking_turns.len() {
            let token = self.taking_turns[index];
            if let Some(peer) = self.peers.entry(token) {
                let turn = peer.turn_again(token, &mut self.shared);
                self.note_active(token);
                self.settle(token, turn);
            }
        }
        self.taking_turns.clear();
    }

    fn handle_listener(&mut self) -> Result<(), ServeError> {
        if let Accepted::Fails = self.accept()? {
            return self.park();
        }
        match &self.listening {
            Listening::Armed(listener) if listener.is_shared() => {
                // The kernel wakes the worker that has waited longest; who took one goes to the end of that queue.
                // Without this the first worker, if it is quick enough, gets all connections.
                self.worker.counters.enters.add(2);
                unwatch(&self.epoll, listener)?;
                watch(&self.epoll, listener, LISTENER, listener_events(listener))
            }
            _ => Ok(()),
        }
    }

    fn accept(&mut self) -> Result<Accepted, ServeError> {
        let (Listening::Armed(listener) | Listening::Parked { listener, .. }) = &self.listening
        else {
            return Ok(Accepted::All);
        };
        let counters = &self.worker.counters;
        let shared = listener.is_shared();
        // Of a queue that others draw from too, a stop takes all that is there, and a turn takes one.
        let accepts_max = if shared && self.deadline_ns.is_none() {
            1
        } else {
            ACCEPTS_PER_TURN
        };
        for _ in 0..accepts_max {
            counters.enters.add(1);
            let errno = match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    counters.accepted.add(1);
                    self.accept_failures.succeeded();
                    let over = |max| u64::from(max) < self.worker.connections_open();
                    if self.config.connections_max.is_some_and(over) {
                        counters.enters.add(1);
                        counters.close(CloseReason::OverLimit);
                        continue;
                    }
                    let token = self.peers.insert(Peer::new(socket, self.config));
                    let peer = self.peers.entry(token).expect("just inserted");
                    counters.enters.add(1);
                    let watched = epoll::add(&self.epoll, peer.socket(), token.data(), PEER_EVENTS);
                    if let Err(errno) = watched {
                        // ENOSPC (fs.epoll.max_user_watches) or ENOMEM: this connection's misfortune, not ours.
                        self.accept_failures.cannot_serve(
                            "cannot watch a connection",
                            &errno.into(),
                            self.worker,
                        );
                        self.peers.remove(token);
                        counters.enters.add(1);
                        counters.close(CloseReason::Error);
                    } else if let Some(idle) = &mut self.idle {
                        idle.opened(token.index());
                    }
                    continue;
                }
                Err(Errno::AGAIN) => return Ok(Accepted::All),
                Err(Errno::INTR) => continue,
                Err(errno) => errno,
            };
            if self.accept_failures.failed(errno, self.worker)? == Next::Rest {
                return Ok(Accepted::Fails);
            }
        }
        Ok(Accepted::Some)
    }

    fn park(&mut self) -> Result<(), ServeError> {
        self.listening = match std::mem::replace(&mut self.listening, Listening::Ended) {
            Listening::Armed(listener) => {
                unwatch(&self.epoll, &listener)?;
                Listening::Parked {
                    listener,
                    retry_ns: now_ns() + PARK_NS,
                }
            }
            Listening::Parked { listener, .. } => Listening::Parked {
                listener,
                retry_ns: now_ns() + PARK_NS,
            },
            Listening::Ended => Listening::Ended,
        };
        Ok(())
    }

    /// Accepts again after a failure that lasts: at once when a connection was closed, else every [`PARK_NS`], since
    /// another thread or process may have closed something.
    fn retry_parked(&mut self) -> Result<(), ServeError> {
        let Listening::Parked { retry_ns, .. } = self.listening else {
            return Ok(());
        };
        if 0 < retry_ns && now_ns() < retry_ns {
            return Ok(());
        }
        if let Accepted::Fails = self.accept()? {
            return self.park();
        }
        if let Listening::Parked { listener, .. } =
            std::mem::replace(&mut self.listening, Listening::Ended)
        {
            watch(&self.epoll, &listener, LISTENER, listener_events(&listener))?;
            self.listening = Listening::Armed(listener);
        }
        Ok(())
    }

    /// Stopping: takes in who already waits in the queue, so that closing the listener resets nobody, and then lets
    /// every connection flush, shut and linger.
    fn handle_stop(&mut self) -> Result<(), ServeError> {
        unwatch(&self.epoll, self.worker.stop.fd())?;
        self.deadline_ns =
            Some(now_ns().saturating_add(self.config.drain_timeout.as_nanos() as u64));
        if let Listening::Armed(listener) | Listening::Parked { listener, .. } = &self.listening {
            // As many as the queue may hold: those that come on and on must not keep us from stopping. And at a
            // descriptor limit nobody in it can be helped.
            for _ in 0..=listener.backlog_effective() as usize / ACCEPTS_PER_TURN {
                let Accepted::Some = self.accept()? else {
                    break;
                };
            }
        }
        if let Listening::Armed(listener) = std::mem::replace(&mut self.listening, Listening::Ended)
        {
            // Closing it would not do: a shared listener is open elsewhere, and a set forgets a file only when its
            // last descriptor is closed.
            unwatch(&self.epoll, &listener)?;
        }
        // What these hold back, each peer's stop releases.
        self.shared.delayed = DelayQueue::new();
        for token in self.peers.tokens() {
            if let Some(peer) = self.peers.entry(token) {
                let turn = peer.stop(token, &mut self.shared);
                self.settle(token, turn);
            }
        }
        Ok(())
    }

    /// Whether the stop is complete; closes by force what is left at the deadline.
    fn drained(&mut self) -> bool {
        let Some(deadline_ns) = self.deadline_ns else {
            return false;
        };
        if !self.peers.is_empty() && deadline_ns <= now_ns() {
            for token in self.peers.tokens() {
                self.close(token, CloseReason::DrainExpired);
            }
        }
        self.peers.is_empty()
    }

    /// Sends the delayed echoes whose time has come, and sets the timer for the next.
    fn release_due(&mut self) -> Result<(), ServeError> {
        loop {
            let now = now_ns();
            while let Some((token, bytes)) = self.shared.delayed.pop_due(now) {
                if let Some(peer) = self.peers.entry(token) {
                    let turn = peer.release(bytes, token, &mut self.shared);
                    self.note_active(token);
                    self.settle(token, turn);
                }
            }
            let Some(due_ns) = self.shared.delayed.next_due() else {
                return Ok(());
            };
            let now = now_ns();
            let wake_ns = due_ns.saturating_sub(WAKE_LEAD_NS);
            if now < wake_ns {
                let timer = self.timer.as_mut().expect("what is delayed has a timer");
                return timer.arm(wake_ns, &self.worker.counters.enters);
            }
            if now < due_ns {
                // So near that the loop does not sleep until then: see `timeout`.
                return Ok(());
            }
        }
    }

    /// How long the next wait may last. Reads the clock only at a limit, in a stop, for delays and idle timeouts, and
    /// while a hybrid spins.
    #[inline]
    fn timeout(&mut self) -> Option<Timespec> {
        if !self.patience.may_sleep(now_ns) || !self.again.is_empty() {
            return Some(NO_WAIT);
        }
        if self.timer.is_some()
            && self
                .shared
                .delayed
                .next_due()
                .is_some_and(|due_ns| due_ns < now_ns() + WAKE_LEAD_NS)
        {
            return Some(NO_WAIT);
        }
        let parked_ns = match self.listening {
            Listening::Parked { retry_ns, .. } => Some(retry_ns),
            _ => None,
        };
        let idle_ns = self.idle.as_ref().and_then(IdleWatch::next_check_ns);
        let alarms = [parked_ns, self.deadline_ns, idle_ns];
        let due_ns = alarms.into_iter().flatten().min()?;
        let wait = Duration::from_nanos(due_ns.saturating_sub(now_ns()));
        // Rounded up to what epoll_wait can say, or it would wake early and wait again for nothing.
        let wait_ms = wait.as_nanos().div_ceil(1_000_000) as i64;
        Some(Timespec {
            tv_sec: wait_ms / 1000,
            tv_nsec: (wait_ms % 1000) * 1_000_000,
        })
    }
}

/// EPOLLRDHUP says that an EOF lies behind the data, so that a short read need not be followed by another one to learn
/// of it; EPOLLPRI that urgent data, at which a read stops short, is there. All are edges.
const PEER_EVENTS: EventFlags = EventFlags::IN
    .union(EventFlags::RDHUP)
    .union(EventFlags::PRI)
    .union(EventFlags::ET);

const NO_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

fn watch(
    epoll: &OwnedFd,
    fd: impl AsFd,
    token: Token,
    flags: EventFlags,
) -> Result<(), ServeError> {
    epoll::add(epoll, fd, token.data(), flags)
        .map_err(ServeError::system("cannot add to the epoll set"))
}

fn unwatch(epoll: &OwnedFd, fd: impl AsFd) -> Result<(), ServeError> {
    epoll::delete(epoll, fd).map_err(ServeError::system("cannot change the epoll set"))
}

/// Of those who share a listener, one is woken for each connection, and not all.
fn listener_events(listener: &Listener) -> EventFlags {
    if listener.is_shared() {
        EventFlags::IN | EventFlags::EXCLUSIVE
    } else {
        EventFlags::IN
    }
}

impl Token {
    fn data(self) -> EventData {
        EventData::new_u64(self.to_u64())
    }
}
