//! The seam where engines meet: one function a worker thread. Below it each engine is written the way its best
//! user would write it; above it nobody knows how bytes move.
//!
//! Adding an engine is one file here and one line in [`ENGINES`].

mod accept_failures;
pub mod blocking;
pub mod epoll;
#[cfg(feature = "tokio")]
pub mod tokio;
#[cfg(feature = "tokio-uring")]
pub mod tokio_uring;
pub mod uring;

use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use echometer_host::limits;
use echometer_host::pinning::PinError;
use echometer_host::signals::Stop;
use echometer_host::sockets::{self, ListenError, ListenOptions, Listener};
use echometer_host::threads::{self, ThreadError};
use echometer_ring::SetupError;

use crate::config::Config;
use crate::counters::Counters;
use crate::wait::Wait;

/// Every engine, in the order in which `auto` tries them.
pub const ENGINES: &[Engine] = &[
    Engine {
        name: "uring",
        available: uring::available,
        listen: uring::listen,
        serve: uring::serve,
    },
    Engine {
        name: "epoll",
        available: epoll::available,
        listen: listen_plainly,
        serve: epoll::serve,
    },
    #[cfg(feature = "tokio")]
    Engine {
        name: "tokio",
        available: tokio::available,
        listen: listen_plainly,
        serve: tokio::serve,
    },
    #[cfg(feature = "tokio-uring")]
    Engine {
        name: "tokio-uring",
        available: tokio_uring::available,
        listen: listen_plainly,
        serve: tokio_uring::serve,
    },
    Engine {
        name: "blocking",
        available: blocking::available,
        listen: listen_plainly,
        serve: blocking::serve,
    },
];

/// Serves until stopped: one call per worker thread.
///
/// The engine takes all that it needs to serve (descriptors, a ring, a runtime), and then calls [`Worker::ready`]. Before
/// that it accepts nobody, and where the answer is no it returns at once. Then it says [`Worker::accepts`], accepts on `listener` (non-blocking),
/// echoes, counts into `worker.counters`, and watches `worker.stop`. When that is requested it drains the accept queue,
/// closes the listener, closes each connection as [`Connection`](crate::connection::Connection) says, within
/// `config.drain_timeout`, and returns. A failing connection is closed and counted; an error returned ends the process.
pub type Serve = fn(Listener, &Config, &Worker) -> Result<(), ServeError>;

/// Makes the workers' listeners.
pub type Listen = fn(&Config, &ListenOptions) -> Result<Vec<Listener>, ListenError>;

/// The plain way to listen.
pub(crate) fn listen_plainly(
    config: &Config,
    options: &ListenOptions,
) -> Result<Vec<Listener>, ListenError> {
    sockets::listen(&config.listen, config.workers.len(), options)
}

/// A way of moving bytes.
#[derive(Debug, Clone, Copy)]
pub struct Engine {
    /// As typed after `--engine`.
    pub name: &'static str,
    /// Whether this machine lets it run, asked once before any worker starts, so that `auto` can choose.
    pub available: fn(&Config) -> Result<(), Unavailable>,
    /// How its listeners are made: [`listen`](echometer_host::sockets::listen), unless it has a way of its own.
    pub listen: Listen,
    /// The engine itself.
    pub serve: Serve,
}

/// What a worker thread knows besides its settings.
#[derive(Debug)]
pub struct Worker {
    /// 0 for the first worker.
    pub index: usize,
    /// The cpu that its thread is pinned to.
    pub cpu: Option<u32>,
    /// When to stop.
    pub stop: Stop,
    /// Where this worker counts. No other thread writes to it.
    pub counters: Arc<Counters>,
    /// The counters of all workers, this one's included, by index: to be read.
    pub everyone: Arc<[Arc<Counters>]>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) news: Sender<News>,
}

/// Where workers wait until all of them are set up: a connection accepted before could take the descriptor, or its thread
/// the place, that another worker still needs.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    answer: Mutex<Option<bool>>,
    answered: Condvar,
}

/// What a worker thread tells the thread that started it.
#[derive(Debug)]
pub(crate) enum News {
    /// It is set up, with these features in use, and waits at the gate.
    Ready { features: Vec<String> },
    /// It has passed the gate, and accepts.
    Accepts,
    /// It is done.
    Ended { result: Result<(), ServeError> },
}

/// An engine that cannot be used. `auto` goes on to the next one for `Denied` only: what is out of memory or
/// descriptors is to be mended, not hidden.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The kernel has no such thing, or forbids it here. The text names cause and cure.
    #[error("{0}")]
    Denied(String),
    /// It exists, and setting it up failed for another reason.
    #[error("{0}")]
    Failed(String),
    /// There is no thread to try it on.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// The flags ask for what it doesn't have: a usage error.
    #[error("{0}")]
    Usage(String),
}

/// Why a worker ended before it was stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The engine cannot be used here.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A system call that must not fail did.
    // No `source`: the text has it, and whoever prints the chain of causes would print it twice.
    #[error("{what}: {cause}{}", limits::hint(.cause))]
    System {
        /// What was being done, as in "cannot wait for events".
        what: &'static str,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// A thread could not be started.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// The thread could not be pinned.
    #[error(transparent)]
    Pinning(PinError),
    /// A worker thread panicked: a fault of ours.
    #[error("worker {0} panicked; this is a fault in echometer-server, please report it")]
    Panicked(usize),
}

impl From<&SetupError> for Unavailable {
    fn from(error: &SetupError) -> Unavailable {
        let text = error.to_string();
        let hint = match error {
            SetupError::Other { source, .. } => {
                format!("{}{}", limits::hint(source), threads::hint(source))
            }
            _ if error.is_unavailable() => {
                return Unavailable::Denied(format!("{text}; or use --engine epoll"));
            }
            _ => String::new(),
        };
        Unavailable::Failed(format!("{text}{hint}"))
    }
}

impl Engine {
    /// The engine of that name.
    pub fn named(name: &str) -> Option<&'static Engine> {
        ENGINES.iter().find(|engine| engine.name == name)
    }
}

/// For an engine that is here to be compared with, and keeps to what its runtime does: refuses the flags that only the
/// hand-written engines follow.
fn refuse_experiments(name: &str, config: &Config) -> Result<(), Unavailable> {
    let refused = [
        (config.wait != Wait::Block, "--wait"),
        (!config.delay.is_none(), "--delay"),
    ];
    match refused.iter().find(|(set, _)| *set) {
        None => Ok(()),
        Some((_, flag)) => Err(Unavailable::Usage(format!(
            "{flag} is not for the engine {name}: drop it, or use --engine uring or epoll"
        ))),
    }
}

impl Worker {
    /// To be called once the engine is set up, with the features in use (short words without blanks or commas, for the
    /// ready line and `--stats`). Waits until all workers are. Says whether to serve: not if another one could not be set
    /// up. Then [`accepts`](Self::accepts) is called.
    #[must_use]
    pub fn ready(&self, features: Vec<String>) -> bool {
        // Nobody listens any more when another worker failed to start: the answer is there then.
        let _ = self.news.send(News::Ready { features });
        self.gate.wait()
    }

    /// To be called once the engine waits for connections. The server has started when all its workers do.
    pub fn accepts(&self) {
        // Nobody listens any more when another worker failed: then this one is about to be stopped.
        let _ = self.news.send(News::Accepts);
    }

    /// Connections open over all workers. Another worker's may be off by those of this instant: a limit checked
    /// against it is exact with one worker, and within one connection per worker otherwise.
    pub fn connections_open(&self) -> u64 {
        self.everyone.iter().map(|counters| counters.open()).sum()
    }
}

impl Gate {
    /// Tells all that wait, and those who still come, whether to serve.
    pub(crate) fn answer(&self, serve: bool) {
        *self.lock() = Some(serve);
        self.answered.notify_all();
    }

    fn wait(&self) -> bool {
        let mut answer = self.lock();
        loop {
            match *answer {
                Some(serve) => return serve,
                None => {
                    let waited = self.answered.wait(answer);
                    answer = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<bool>> {
        // Nobody panics while holding it.
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServeError {
    /// For `map_err`: wraps the error of a system call.
    pub fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> ServeError {
        move |cause| ServeError::System {
            what,
            cause: cause.into(),
        }
    }
}
