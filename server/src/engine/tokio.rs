//! The tokio engine: a current-thread runtime and a `LocalSet` per worker, a task per connection that reads and writes
//! all, as tokio's own tutorial has it, with a graceful stop as in mini-redis. No work stealing, so that a worker stays
//! on its core as those of the other engines do.
//!
//! The runtime's own system calls cannot be seen from here, so `enters` stays 0.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use echometer_host::address::Address;
use echometer_host::receive_buffer::ReceiveBuffer;
use echometer_host::signals::Stop;
use echometer_host::sockets::Listener;
use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::config::Config;
use crate::connection::CloseReason;
use crate::counters::Counters;
use crate::engine::accept_failures::{ACCEPT_REST, AcceptFailures, Next};
use crate::engine::{ServeError, Unavailable, Worker, refuse_experiments};

/// Bytes received at once unless the user says otherwise. Each connection has its own buffer: its task reads into it.
const BUFFER_SIZE_DEFAULT: u32 = 16 * 1024;

/// Tokio runs everywhere; it has no delays and sleeps while there is nothing to do.
pub fn available(config: &Config) -> Result<(), Unavailable> {
    refuse_experiments("tokio", config)
}

/// Serves on one thread until stopped; see [`Serve`](crate::engine::Serve).
pub fn serve(listener: Listener, config: &Config, worker: &Worker) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServeError::system("cannot build a tokio runtime"))?;
    let is_unix = matches!(listener.local_addr(), Address::Unix(_));
    let queue_max = listener.backlog_effective();
    let fd = listener.into_fd();
    // Declared after the runtime, so that its tasks are dropped while their reactor still runs.
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        if is_unix {
            accept_until_stopped::<UnixListener>(fd, queue_max, config, worker).await
        } else {
            accept_until_stopped::<TcpListener>(fd, queue_max, config, worker).await
        }
    })
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
}

async fn accept_until_stopped<L: Listen>(
    fd: OwnedFd,
    queue_max: u32,
    config: &Config,
    worker: &Worker,
) -> Result<(), ServeError> {
    let listener = L::from_fd(fd).map_err(ServeError::system("cannot watch the listener"))?;
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
    });
    if !worker.ready(vec!["current-thread".into(), "local-set".into()]) {
        return Ok(());
    }
    worker.accepts();

    let mut failures = AcceptFailures::default();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.readable() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                failures.succeeded();
                welcome(stream, &shared, config, worker);
            }
            Err(error) if failures.failed_io(&error, worker)? == Next::Rest => {
                tokio::select! {
                    _ = stop.readable() => break,
                    () = shared.closed.notified() => {}
                    () = sleep(ACCEPT_REST) => {}
                }
            }
            Err(_) => {}
        }
    }

    shared.stopping.set(true);
    shared.stop.send_replace(true);
    let deadline = Instant::now() + config.drain_timeout;
    // As many as the queue may hold: those that come on and on must not keep us from stopping.
    for stream in listener.into_waiting().take(queue_max as usize + 1) {
        welcome(stream, &shared, config, worker);
    }
    let counters = &*worker.counters;
    while 0 < counters.open() && timeout_at(deadline, shared.closed.notified()).await.is_ok() {}
    // Their tasks end with the `LocalSet`.
    for _ in 0..counters.open() {
        counters.close(CloseReason::DrainExpired);
    }
    Ok(())
}

fn welcome(
    stream: impl AsyncRead + AsyncWrite + AsFd + Unpin + 'static,
    shared: &Rc<Shared>,
    config: &Config,
    worker: &Worker,
) {
    worker.counters.accepted.add(1);
    let over = |max| u64::from(max) < worker.connections_open();
    if config.connections_max.is_some_and(over) {
        worker.counters.close(CloseReason::OverLimit);
        return;
    }
    let shared = Rc::clone(shared);
    tokio::task::spawn_local(async move {
        let mut stream = Held {
            stream,
            owes: false,
        };
        let reason = echo(&mut stream, &shared)
            .await
            .unwrap_or_else(|error| CloseReason::from_io(&error));
        drop(stream);
        shared.counters.close(reason);
        shared.closed.notify_one();
    });
}

/// A connection, whose end is a reset where its peer is owed bytes: an end in order would say that all was echoed.
struct Held<S: AsFd> {
    stream: S,
    owes: bool,
}

impl<S: AsFd> Drop for Held<S> {
    fn drop(&mut self) {
        if self.owes {
            // Where it fails, the connection is gone already.
            let _ = set_socket_linger(&self.stream, Some(Duration::ZERO));
        }
    }
}

/// One connection, from its first byte to its end.
async fn echo<S>(held: &mut Held<S>, shared: &Shared) -> io::Result<CloseReason>
where
    S: AsyncRead + AsyncWrite + AsFd + Unpin,
{
    let Held { stream, owes } = held;
    let counters = &*shared.counters;
    let mut stop = shared.stop.subscribe();
    let mut stopped = pin!(stop.wait_for(|&stop| stop));
    let mut buffer = ReceiveBuffer::new(shared.buffer_size);
    // The flag is for those who always have something to read: they never get as far as to wait for the stop.
    while !shared.stopping.get() {
        let n = tokio::select! {
            biased;
            read = limited(shared.idle_timeout, stream.read(&mut buffer)) => read?,
            _ = &mut stopped => break,
        };
        if n == 0 {
            return Ok(if shared.stop_request.requested() {
                CloseReason::Drained
            } else {
                CloseReason::PeerClosed
            });
        }
        counters.bytes_in.add(n as u64);
        // `write_all`, but for the counting.
        let mut rest = &buffer[..n];
        *owes = true;
        while !rest.is_empty() {
            let mut stalled = false;
            let write = std::future::poll_fn(|context| {
                let written = Pin::new(&mut *stream).poll_write(context, rest);
                if written.is_pending() && !std::mem::replace(&mut stalled, true) {
                    counters.send_stalls.add(1);
                }
                written
            });
            let sent = limited(shared.idle_timeout, write).await?;
            counters.bytes_out.add(sent as u64);
            rest = &rest[sent..];
        }
        *owes = false;
    }

    // What the server owes is sent. A close now would be a reset if the peer is still sending.
    stream.shutdown().await?;
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(CloseReason::Drained),
            n => counters.bytes_dropped.add(n as u64),
        }
    }
}

/// `call`, with a time limit if there is one.
async fn limited<T>(
    limit: Option<Duration>,
    call: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let Some(limit) = limit else {
        return call.await;
    };
    let mut call = pin!(call);
    if let Ok(done) = timeout(limit, call.as_mut()).await {
        return done;
    }
    // The kernel may know of something that the runtime doesn't, where this thread was held up: it asks now.
    tokio::task::yield_now().await;
    timeout(Duration::ZERO, call)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A TCP or unix listener.
trait Listen: Sized {
    type Stream: AsyncRead + AsyncWrite + AsFd + Unpin + 'static;

    fn from_fd(fd: OwnedFd) -> io::Result<Self>;
    async fn accept(&self) -> io::Result<Self::Stream>;
    /// Those who wait in the queue, without waiting for more; then the listener is closed.
    fn into_waiting(self) -> impl Iterator<Item = Self::Stream>;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        TcpListener::from_std(fd.into())
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        Ok(TcpListener::accept(self).await?.0)
    }

    fn into_waiting(self) -> impl Iterator<Item = TcpStream> {
        let listener = self.into_std();
        std::iter::from_fn(move || {
            let (stream, _) = listener.as_ref().ok()?.accept().ok()?;
            stream.set_nonblocking(true).ok()?;
            TcpStream::from_std(stream).ok()
        })
    }
}

impl Listen for UnixListener {
    type Stream = UnixStream;

    fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        UnixListener::from_std(fd.into())
    }

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixListener::accept(self).await?.0)
    }

    fn into_waiting(self) -> impl Iterator<Item = UnixStream> {
        let listener = self.into_std();
        std::iter::from_fn(move || {
            let (stream, _) = listener.as_ref().ok()?.accept().ok()?;
            stream.set_nonblocking(true).ok()?;
            UnixStream::from_std(stream).ok()
        })
    }
}
