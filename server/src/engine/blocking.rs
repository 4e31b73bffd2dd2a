//! The textbook server: an accept that blocks, a thread per connection, and in it recv and send that block. What
//! everybody writes first, and what the other engines are an answer to.
//!
//! A stop interrupts the calls that block by a signal. The sockets have time limits for that (a call without one would be
//! restarted by the kernel), and they are so long that an idle connection costs nothing.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use echometer_host::interrupts::Interrupts;
use echometer_host::receive_buffer::ReceiveBuffer;
use echometer_host::signals::Stop;
use echometer_host::sockets::Listener;
use echometer_host::threads::{self, ThreadError};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags, accept_with, recv, send, shutdown};

use crate::config::Config;
use crate::connection::CloseReason;
use crate::counters::{AcceptError, Counters};
use crate::engine::accept_failures::{ACCEPT_REST, AcceptFailures, Next};
use crate::engine::{ServeError, Unavailable, Worker, refuse_experiments};

/// Bytes received at once unless the user says otherwise. Each thread has its own buffer.
const BUFFER_SIZE_DEFAULT: u32 = 16 * 1024;

/// The longest that a thread blocks in a receive: an age, since a stop interrupts it.
const RECEIVE_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// The longest that a thread blocks in a send, or in anything once it has noticed the stop. Only slow readers and
/// lingering peers ever wake it that often.
const TICK: Duration = Duration::from_millis(250);

/// The longest that accepting blocks before it looks for a stop: one thread per worker, so it may look often.
const ACCEPT_TICK: Duration = Duration::from_millis(50);

/// How long to wait between two rounds of interrupting those that have not noticed the stop.
const INTERRUPT_ROUND: Duration = Duration::from_millis(10);

/// A thread's stack, in bytes: its buffer is on the heap, and the default of 2 MiB exhausts limits on address space.
const STACK_SIZE: usize = 128 * 1024;

/// Threads run everywhere; they have no delays and sleep while there is nothing to do.
pub fn available(config: &Config) -> Result<(), Unavailable> {
    refuse_experiments("blocking", config)
}

/// Accepts on this thread until stopped, and serves on others; see [`Serve`](crate::engine::Serve).
pub fn serve(listener: Listener, config: &Config, worker: &Worker) -> Result<(), ServeError> {
    let queue_max = listener.backlog_effective();
    let listener = listener.into_fd();
    ioctl_fionbio(&listener, false)
        .and_then(|()| set_socket_timeout(&listener, Timeout::Recv, Some(ACCEPT_TICK)))
        .map_err(ServeError::system("cannot make the listener wait"))?;
    let interrupts = Interrupts::install().map_err(ServeError::system(
        "cannot install the handler that interrupts threads",
    ))?;
    let mut crew = Crew::new(config, worker);
    if !worker.ready(vec!["thread-per-connection".into()]) {
        return Ok(());
    }
    worker.accepts();

    while !worker.stop.requested() {
        crew.dismiss_finished()?;
        if let Accepted::Fails = crew.accept(&listener)? {
            crew.rest();
        }
    }

    ioctl_fionbio(&listener, true).map_err(ServeError::system("cannot empty the queue"))?;
    // As many as the queue may hold: those that come on and on must not keep us from stopping.
    let deadline = crew.shared.deadline();
    for _ in 0..=queue_max {
        crew.dismiss_finished()?;
        if deadline <= Instant::now() {
            break;
        }
        match crew.accept(&listener)? {
            Accepted::One | Accepted::Again => {}
            Accepted::None | Accepted::Fails => break,
        }
    }
    drop(listener);
    crew.interrupt_all(interrupts);
    crew.dismiss_all()
}

/// A worker's connections, each with its thread.
struct Crew<'a> {
    config: &'a Config,
    worker: &'a Worker,
    shared: Arc<Shared>,
    threads: HashMap<u64, Member>,
    failures: AcceptFailures,
}

/// A thread and its connection.
struct Member {
    thread: JoinHandle<()>,
    counters: Arc<Counters>,
    /// It knows of the stop.
    noticed: Arc<AtomicBool>,
}

/// What a worker's threads share. Nothing of it is touched for a message, but for reading whether to stop.
struct Shared {
    stop: Stop,
    buffer_size: usize,
    idle_timeout: Option<Duration>,
    drain_timeout: Duration,
    /// When the drain time ends; the first to see the stop says so.
    deadline: OnceLock<Instant>,
    /// Threads that are done.
    finished: Mutex<Vec<u64>>,
    some_finished: Condvar,
}

/// How a call of accept ended.
enum Accepted {
    One,
    /// Nobody is there.
    None,
    /// That one was gone already.
    Again,
    /// It fails, and would fail again at once.
    Fails,
}

impl<'a> Crew<'a> {
    fn new(config: &'a Config, worker: &'a Worker) -> Crew<'a> {
        let shared = Shared {
            stop: worker.stop.clone(),
            buffer_size: config.buffer_size.unwrap_or(BUFFER_SIZE_DEFAULT) as usize,
            idle_timeout: config.idle_timeout,
            drain_timeout: config.drain_timeout,
            deadline: OnceLock::new(),
            finished: Mutex::default(),
            some_finished: Condvar::new(),
        };
        Crew {
            config,
            worker,
            shared: Arc::new(shared),
            threads: HashMap::new(),
            failures: AcceptFailures::default(),
        }
    }

    fn accept(&mut self, listener: &OwnedFd) -> Result<Accepted, ServeError> {
        let counters = &self.worker.counters;
        counters.enters.add(1);
        let socket = match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(socket) => socket,
            Err(Errno::AGAIN) => return Ok(Accepted::None),
            Err(Errno::INTR) => return Ok(Accepted::Again),
            Err(errno) => {
                return Ok(match self.failures.failed(errno, self.worker)? {
                    Next::Again => Accepted::Again,
                    Next::Rest => Accepted::Fails,
                });
            }
        };
        counters.accepted.add(1);
        self.failures.succeeded();
        let over = |max| u64::from(max) < self.worker.connections_open();
        if self.config.connections_max.is_some_and(over) {
            counters.close(CloseReason::OverLimit);
            return Ok(Accepted::One);
        }
        let lent = counters.lend();
        if let Err(error) = self.spawn(socket, Arc::clone(&lent)) {
            // EAGAIN: as many threads as this user may have. The connection went with the closure.
            counters.take_back(&lent);
            counters.close(CloseReason::Error);
            counters.accept_error(AcceptError::NoMemory);
            let what = "cannot start a thread for a connection";
            self.failures.cannot_serve(what, &error.cause, self.worker);
            return Ok(Accepted::Fails);
        }
        Ok(Accepted::One)
    }

    fn spawn(&mut self, socket: OwnedFd, counters: Arc<Counters>) -> Result<(), ThreadError> {
        let id = self.worker.counters.accepted.read();
        let (shared, own) = (Arc::clone(&self.shared), Arc::clone(&counters));
        let noticed = Arc::new(AtomicBool::new(false));
        let notice = Arc::clone(&noticed);
        let thread = threads::spawn_with_stack(format!("echo-{id}"), STACK_SIZE, move || {
            let reason = match echo(&socket, &shared, &own, &notice) {
                Ok(reason) | Err(reason) => reason,
            };
            drop(socket);
            own.close(reason);
            notice.store(true, Ordering::Relaxed);
            shared.finished().push(id);
            shared.some_finished.notify_one();
        })?;
        let member = Member {
            thread,
            counters,
            noticed,
        };
        self.threads.insert(id, member);
        Ok(())
    }

    /// Waits until a connection is closed, but not for long: another process may give back what we lack.
    fn rest(&self) {
        let finished = self.shared.finished();
        if finished.is_empty() {
            let waited = self
                .shared
                .some_finished
                .wait_timeout(finished, ACCEPT_REST);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn dismiss_finished(&mut self) -> Result<(), ServeError> {
        let finished = std::mem::take(&mut *self.shared.finished());
        for id in finished {
            if let Some(member) = self.threads.remove(&id) {
                self.dismiss(member)?;
            }
        }
        Ok(())
    }

    /// Gets everybody out of calls that block. Who is about to begin one misses the signal, so there are rounds.
    fn interrupt_all(&self, interrupts: Interrupts) {
        loop {
            let mut blocked = 0;
            for member in self.threads.values() {
                let done = member.noticed.load(Ordering::Relaxed) || member.thread.is_finished();
                if !done {
                    interrupts.interrupt(&member.thread);
                    blocked += 1;
                }
            }
            if blocked == 0 {
                return;
            }
            thread::sleep(INTERRUPT_ROUND);
        }
    }

    fn dismiss_all(&mut self) -> Result<(), ServeError> {
        for (_, member) in std::mem::take(&mut self.threads) {
            self.dismiss(member)?;
        }
        Ok(())
    }

    fn dismiss(&self, member: Member) -> Result<(), ServeError> {
        member
            .thread
            .join()
            .map_err(|_| ServeError::Panicked(self.worker.index))?;
        self.worker.counters.take_back(&member.counters);
        Ok(())
    }
}

impl Shared {
    fn deadline(&self) -> Instant {
        *self
            .deadline
            .get_or_init(|| Instant::now() + self.drain_timeout)
    }

    fn finished(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        // A thread that panicked while it held this pushed its id or did not: both are fine.
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection, from its first byte to its end. Either way the result is why it is to be closed.
fn echo(
    socket: &OwnedFd,
    shared: &Shared,
    counters: &Counters,
    noticed: &AtomicBool,
) -> Result<CloseReason, CloseReason> {
    let limit = |direction, time| {
        counters.enters.add(1);
        set_socket_timeout(socket, direction, Some(time)).map_err(CloseReason::from_errno)
    };
    let idle_tick = shared.idle_timeout.map(|timeout| (timeout / 4).min(TICK));
    limit(Timeout::Recv, idle_tick.unwrap_or(RECEIVE_LIMIT))?;
    limit(Timeout::Send, idle_tick.unwrap_or(TICK))?;
    let mut patience = Patience {
        shared,
        noticed,
        tick: idle_tick.unwrap_or(TICK),
        quiet: Duration::ZERO,
        unsent: 0,
    };
    let mut buffer = ReceiveBuffer::new(shared.buffer_size);
    while !shared.stop.requested() {
        counters.enters.add(1);
        match recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((_, 0)) if shared.stop.requested() => return Ok(CloseReason::Drained),
            Ok((_, 0)) => return Ok(CloseReason::PeerClosed),
            Ok((_, n)) => {
                patience.renew();
                counters.bytes_in.add(n as u64);
                let sent = send_all(socket, &buffer[..n], &mut patience, counters);
                if let Err(reason) = sent
                    && reason != CloseReason::Reset
                {
                    // An end in order would say that all was echoed. Where it fails, the connection is gone already.
                    counters.enters.add(1);
                    let _ = set_socket_linger(socket, Some(Duration::ZERO));
                }
                sent?;
            }
            Err(Errno::AGAIN) => patience.use_up(socket, counters)?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(CloseReason::from_errno(errno)),
        }
    }

    noticed.store(true, Ordering::Relaxed);
    limit(Timeout::Recv, TICK)?;
    // What the server owes is sent. A close now would be a reset if the peer is still sending.
    counters.enters.add(1);
    shutdown(socket, Shutdown::Write).map_err(CloseReason::from_errno)?;
    loop {
        counters.enters.add(1);
        match recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((_, 0)) => return Ok(CloseReason::Drained),
            Ok((_, n)) => counters.bytes_dropped.add(n as u64),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(CloseReason::from_errno(errno)),
        }
        if shared.deadline() <= Instant::now() {
            return Err(CloseReason::DrainExpired);
        }
    }
}

fn send_all(
    socket: &OwnedFd,
    mut bytes: &[u8],
    patience: &mut Patience<'_>,
    counters: &Counters,
) -> Result<(), CloseReason> {
    while !bytes.is_empty() {
        counters.enters.add(1);
        match send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(n) => {
                patience.renew();
                counters.bytes_out.add(n as u64);
                bytes = &bytes[n..];
                // It has blocked for a tick, and the peer has still not read enough.
                if !bytes.is_empty() {
                    counters.send_stalls.add(1);
                    patience.use_up(socket, counters)?;
                }
            }
            Err(Errno::AGAIN) => patience.use_up(socket, counters)?,
            Err(Errno::INTR) => patience.heed_stop()?,
            Err(errno) => return Err(CloseReason::from_errno(errno)),
        }
    }
    Ok(())
}

/// How long nothing has moved, in ticks: no clock is read for it.
struct Patience<'a> {
    shared: &'a Shared,
    noticed: &'a AtomicBool,
    tick: Duration,
    quiet: Duration,
    /// Bytes in the socket that the peer had not taken when a call last blocked for a tick.
    unsent: u32,
}

impl Patience<'_> {
    fn renew(&mut self) {
        self.quiet = Duration::ZERO;
    }

    /// A call has blocked for a tick. The error is that this was one too many.
    fn use_up(&mut self, socket: &OwnedFd, counters: &Counters) -> Result<(), CloseReason> {
        self.quiet += self.tick;
        if self.shared.idle_timeout.is_some() {
            counters.enters.add(1);
            // A peer that reads what the socket holds moves too.
            let unsent = echometer_ring::unsent(socket.as_fd()).unwrap_or(0);
            if std::mem::replace(&mut self.unsent, unsent) != unsent {
                self.renew();
            }
        }
        match self.shared.idle_timeout {
            Some(timeout) if timeout <= self.quiet && !self.shared.stop.requested() => {
                Err(CloseReason::TimedOut)
            }
            _ => self.heed_stop(),
        }
    }

    /// The error is that the drain time of a stop is over.
    fn heed_stop(&self) -> Result<(), CloseReason> {
        if !self.shared.stop.requested() {
            return Ok(());
        }
        // From here on the tick of the sends is enough.
        self.noticed.store(true, Ordering::Relaxed);
        if self.shared.deadline() <= Instant::now() {
            Err(CloseReason::DrainExpired)
        } else {
            Ok(())
        }
    }
}
