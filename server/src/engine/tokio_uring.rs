//! The tokio-uring engine: version 0.5 as its documentation shows it, with the flags that it sets by itself
//! (DEFER_TASKRUN hangs it, because it waits for the ring's descriptor with epoll). A task per connection, a read that
//! owns its buffer, then a write of all of it.
//!
//! The runtime's own system calls cannot be seen from here, so `enters` stays 0.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use echometer_host::address::Address;
use echometer_host::limits;
use echometer_host::signals::Stop;
use echometer_host::sockets::Listener;
use echometer_host::threads;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{SocketFlags, accept_with};
use tokio::net::unix::pipe;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_uring::buf::BoundedBuf as _;
use tokio_uring::net::{TcpListener, TcpStream};

use crate::config::Config;
use crate::connection::CloseReason;
use crate::counters::Counters;
use crate::engine::accept_failures::{ACCEPT_REST, AcceptFailures, Next};
use crate::engine::{ServeError, Unavailable, Worker, refuse_experiments};

/// Bytes received at once unless the user says otherwise. Each connection has its own buffer.
const BUFFER_SIZE_DEFAULT: u32 = 16 * 1024;

/// The submission queue. The completion queue is twice that, and the kernel keeps what does not fit.
const ENTRIES: u32 = 1024;

/// How long connections that were shut by force may take to end. The kernel ends their operations at once.
const FORCED_END: Duration = Duration::from_secs(1);

/// Whether this kernel lets the runtime make its ring.
pub fn available(config: &Config) -> Result<(), Unavailable> {
    refuse_experiments("tokio-uring", config)?;
    if let Address::Unix(_) = config.listen {
        return Err(Unavailable::Usage(
            "the engine tokio-uring cannot accept from a unix listener that it did not bind: use a TCP address, or \
             another engine"
                .into(),
        ));
    }
    // On a thread of its own, as for the uring engine: the end of a ring interrupts the thread that used it.
    let trial = threads::spawn("uring-trial", || -> Result<(), Unavailable> {
        // Asked first, because the runtime drops the error of a call that submits, and waits for ever.
        echometer_ring::plain_ring_is_allowed().map_err(|error| Unavailable::from(&error))?;
        tokio_uring::Runtime::new(&builder())
            .map(drop)
            .map_err(|error| {
                let hint = limits::hint(&error);
                Unavailable::Failed(format!("the runtime cannot make a ring: {error}{hint}"))
            })
    });
    trial?
        .join()
        .unwrap_or_else(|_| Err(Unavailable::Failed("the trial of a ring panicked".into())))
}

/// Serves on one thread until stopped; see [`Serve`](crate::engine::Serve).
pub fn serve(listener: Listener, config: &Config, worker: &Worker) -> Result<(), ServeError> {
    let runtime = tokio_uring::Runtime::new(&builder())
        .map_err(ServeError::system("cannot build a tokio-uring runtime"))?;
    let queue_max = listener.backlog_effective();
    runtime.block_on(accept_until_stopped(
        listener.into_fd(),
        queue_max,
        config,
        worker,
    ))
}

fn builder() -> tokio_uring::Builder {
    let mut builder = tokio_uring::builder();
    builder.entries(ENTRIES);
    builder
}

/// What a worker's tasks share.
struct Shared {
    counters: Arc<Counters>,
    stop_request: Stop,
    buffer_size: usize,
    idle_timeout: Option<Duration>,
    stopping: Cell<bool>,
    /// Wakes those who wait for their peers when the stop begins.
    stop: watch::Sender<bool>,
    /// A connection was closed.
    closed: Notify,
    /// The drain time is over.
    expired: Cell<bool>,
    /// Those that are open, to be shut at the end of the drain time: an operation of the kernel cannot be dropped.
    open: RefCell<HashMap<u64, Rc<TcpStream>>>,
}

async fn accept_until_stopped(
    fd: OwnedFd,
    queue_max: u32,
    config: &Config,
    worker: &Worker,
) -> Result<(), ServeError> {
    // A socket that does not block makes the kernel answer EAGAIN instead of waiting for a connection.
    let own = fd
        .try_clone()
        .and_then(|own| ioctl_fionbio(&own, false).map(|()| own).map_err(Into::into))
        .map_err(ServeError::system("cannot make the listener wait"))?;
    let listener = TcpListener::from_std(fd.into());
    // A stop request is a pipe that becomes readable; its bytes are left where they are, for the other workers.
    let stop = worker
        .stop
        .fd()
        .try_clone_to_owned()
        .and_then(pipe::Receiver::from_owned_fd)
        .map_err(ServeError::system("cannot watch for the stop request"))?;
    let shared = Rc::new(Shared {
        counters: Arc::clone(&worker.counters),
        stop_request: worker.stop.clone(),
        buffer_size: config.buffer_size.unwrap_or(BUFFER_SIZE_DEFAULT) as usize,
        idle_timeout: config.idle_timeout,
        stopping: Cell::new(false),
        stop: watch::Sender::new(false),
        closed: Notify::new(),
        expired: Cell::new(false),
        open: RefCell::default(),
    });
    if !worker.ready(vec!["plain-ring".into(), "local-set".into()]) {
        return Ok(());
    }
    worker.accepts();

    let mut failures = AcceptFailures::default();
    loop {
        // An accept that was begun is seen to its end, even at the stop: it may hold a connection already.
        let mut accept = pin!(listener.accept());
        let accepted = tokio::select! {
            biased;
            _ = stop.readable() => {
                begin_stop(&own, queue_max, &shared, config, worker);
                if let Ok((stream, _)) = accept.await {
                    welcome(stream, &shared, config, worker);
                }
                break;
            }
            accepted = &mut accept => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                failures.succeeded();
                welcome(stream, &shared, config, worker);
            }
            Err(error) => {
                // Another worker that shares this queue may have ended it, at a stop that we are about to hear of.
                if !worker.stop.requested() && failures.failed_io(&error, worker)? == Next::Again {
                    continue;
                }
                tokio::select! {
                    _ = stop.readable() => {
                        begin_stop(&own, queue_max, &shared, config, worker);
                        break;
                    }
                    () = shared.closed.notified() => {}
                    () = sleep(ACCEPT_REST) => {}
                }
            }
        }
    }
    drain(&shared, config, worker).await;
    Ok(())
}

/// Takes in who waits, then ends the accept that is under way.
fn begin_stop(
    own: &OwnedFd,
    queue_max: u32,
    shared: &Rc<Shared>,
    config: &Config,
    worker: &Worker,
) {
    shared.stopping.set(true);
    shared.stop.send_replace(true);
    // Where these calls fail there is no queue to be drained any more.
    let _ = ioctl_fionbio(own, true);
    for _ in 0..=queue_max {
        match accept_with(own, SocketFlags::CLOEXEC) {
            Ok(fd) => welcome(TcpStream::from_std(fd.into()), shared, config, worker),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => break,
        }
    }
    let _ = rustix::net::shutdown(own, rustix::net::Shutdown::Both);
}

async fn drain(shared: &Shared, config: &Config, worker: &Worker) {
    let counters = &*worker.counters;
    let deadline = Instant::now() + config.drain_timeout;
    while 0 < counters.open() && timeout_at(deadline, shared.closed.notified()).await.is_ok() {}
    shared.expired.set(true);
    for stream in shared.open.borrow().values() {
        // One that its peer has closed meanwhile is no worse for it.
        let _ = stream.shutdown(Shutdown::Both);
    }
    let deadline = Instant::now() + FORCED_END;
    while 0 < counters.open() && timeout_at(deadline, shared.closed.notified()).await.is_ok() {}
}

fn welcome(stream: TcpStream, shared: &Rc<Shared>, config: &Config, worker: &Worker) {
    let counters = &worker.counters;
    counters.accepted.add(1);
    let over = |max| u64::from(max) < worker.connections_open();
    if config.connections_max.is_some_and(over) {
        counters.close(CloseReason::OverLimit);
        return;
    }
    let (shared, stream, id) = (Rc::clone(shared), Rc::new(stream), counters.accepted.read());
    shared.open.borrow_mut().insert(id, Rc::clone(&stream));
    tokio_uring::spawn(async move {
        let reason = echo(&stream, &shared)
            .await
            .unwrap_or_else(|error| CloseReason::from_io(&error));
        shared.open.borrow_mut().remove(&id);
        drop(stream);
        shared.counters.close(if shared.expired.get() {
            CloseReason::DrainExpired
        } else {
            reason
        });
        shared.closed.notify_one();
    });
}

/// One connection, from its first byte to its end.
async fn echo(stream: &TcpStream, shared: &Shared) -> io::Result<CloseReason> {
    let counters = &*shared.counters;
    let mut stop = shared.stop.subscribe();
    let mut stopped = pin!(stop.wait_for(|&stop| stop));
    let mut buffer = Vec::with_capacity(shared.buffer_size);
    // The flag is for those who always have something to read: they never get as far as to wait for the stop.
    while !shared.stopping.get() {
        let mut read = pin!(stream.read(buffer));
        let (result, filled) = tokio::select! {
            biased;
            read = limited(shared.idle_timeout, stream, read.as_mut()) => read?,
            _ = &mut stopped => {
                // This read goes on: what it still brings is the first to be dropped.
                stream.shutdown(Shutdown::Write)?;
                let (result, filled) = read.await;
                return linger(stream, result?, filled, shared).await;
            }
        };
        let n = result?;
        if n == 0 {
            return Ok(if shared.stop_request.requested() {
                CloseReason::Drained
            } else {
                CloseReason::PeerClosed
            });
        }
        counters.bytes_in.add(n as u64);
        // `write_all`, but for the counting.
        let mut rest = filled.slice(..n);
        while !rest.is_empty() {
            let write = pin!(stream.write(rest).submit());
            let (result, written) = limited(shared.idle_timeout, stream, write).await?;
            let sent = result?;
            counters.bytes_out.add(sent as u64);
            if sent < written.len() {
                counters.send_stalls.add(1);
            }
            rest = written.slice(sent..);
        }
        buffer = rest.into_inner();
    }
    stream.shutdown(Shutdown::Write)?;
    let (result, filled) = stream.read(buffer).await;
    linger(stream, result?, filled, shared).await
}

/// Our side is shut, and `n` bytes came since: drops what comes until the peer's end. A close before that would be a
/// reset if the peer is still sending.
async fn linger(
    stream: &TcpStream,
    mut n: usize,
    mut buffer: Vec<u8>,
    shared: &Shared,
) -> io::Result<CloseReason> {
    while 0 < n {
        shared.counters.bytes_dropped.add(n as u64);
        let (result, filled) = stream.read(buffer).await;
        (n, buffer) = (result?, filled);
    }
    Ok(CloseReason::Drained)
}

/// `call`, with a time limit if there is one. The kernel has the buffer until the call ends, so a call that takes too
/// long is ended by shutting the connection, and not by forgetting it.
async fn limited<T: Future + Unpin>(
    limit: Option<Duration>,
    stream: &TcpStream,
    mut call: T,
) -> io::Result<T::Output> {
    let Some(limit) = limit else {
        return Ok(call.await);
    };
    if let Ok(done) = timeout(limit, &mut call).await {
        return Ok(done);
    }
    // The end of the call may lie in the ring unread, where this thread was held up: the runtime looks there now.
    tokio::task::yield_now().await;
    if let Ok(done) = timeout(Duration::ZERO, &mut call).await {
        return Ok(done);
    }
    stream.shutdown(Shutdown::Both)?;
    call.await;
    Err(io::ErrorKind::TimedOut.into())
}
