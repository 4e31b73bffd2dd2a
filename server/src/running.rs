//! A server's life: listen, start a worker per cpu, wait until all of them accept, wait until they are done.
//! The binary and the tests start it alike, so that a test's server on port 0 is the real one.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use echometer_host::address::Address;
use echometer_host::limits::{self, UNLIMITED};
use echometer_host::pinning::pin_current_thread;
use echometer_host::signals::Stop;
use echometer_host::sockets::{Holder, ListenError, ListenOptions, Listener};
use echometer_host::threads::{self, ThreadError};

use crate::config::{Accept, Config, EngineChoice};
use crate::counters::Counters;
use crate::engine::{ENGINES, Engine, Gate, News, ServeError, Unavailable, Worker};
use crate::log;
use crate::metrics::{self, Responder};
use crate::stats::Stats;

/// How long a start waits for an address that nobody to be seen holds: the kernel lets go of what a ring had some time
/// after the end of its process, up to a tenth of a second here.
const LISTEN_PATIENCE: Duration = Duration::from_secs(2);

/// Starts a server and returns when all its workers are set up and begin to accept connections. It runs until `stop` is requested or a worker
/// fails; [`Running::wait`] says which.
///
/// # Errors
/// [`StartError`]; nothing stays behind then, and `stop` was requested of those workers that had started.
pub fn start(config: Config, stop: &Stop) -> Result<Running, StartError> {
    let (engine, fallback) = choose(&config)?;
    let options = ListenOptions {
        backlog: config.backlog,
        nodelay: config.nodelay,
        sndbuf: config.sndbuf,
        rcvbuf: config.rcvbuf,
        shared: config.accept == Accept::Shared,
        dual_stack: config.dual_stack,
    };
    let listeners = listen(engine, &config, &options, stop)?;
    // Duplicates of one socket, where it is a unix one.
    let refuses_descriptors = match config.listen {
        Address::Unix(_) => Some(echometer_ring::refuse_descriptors(listeners[0].as_fd()).is_ok()),
        Address::Tcp(_) => None,
    };
    let counters: Arc<[Arc<Counters>]> = config.workers.iter().map(|_| Arc::default()).collect();

    // Before the listeners go to their workers, and only now: a server that cannot listen has nothing to tell.
    let metrics = match config.metrics {
        Some(address) => {
            let exposed = metrics::expose(address, engine.name, Arc::clone(&counters), &listeners);
            Some(exposed.map_err(|cause| StartError::Metrics { address, cause })?)
        }
        None => None,
    };

    let config = Arc::new(config);
    let (sender, news) = channel();
    let gate = Arc::new(Gate::default());
    let mut running = Running {
        engine,
        address: listeners[0].local_addr().clone(),
        backlog_effective: listeners[0].backlog_effective(),
        nodelay: listeners[0].nodelay().ok(),
        sndbuf: listeners[0].sndbuf().ok(),
        rcvbuf: listeners[0].rcvbuf().ok(),
        refuses_descriptors,
        fallback,
        metrics,
        features: Vec::new(),
        config: Arc::clone(&config),
        counters: Arc::clone(&counters),
        stop: stop.clone(),
        gate: Arc::clone(&gate),
        news,
        threads: Vec::new(),
    };
    for (index, listener) in listeners.into_iter().enumerate() {
        let worker = Worker {
            index,
            cpu: config.workers[index],
            stop: stop.clone(),
            counters: Arc::clone(&counters[index]),
            everyone: Arc::clone(&counters),
            gate: Arc::clone(&gate),
            news: sender.clone(),
        };
        match spawn(engine, listener, Arc::clone(&config), worker) {
            Ok(thread) => running.threads.push(thread),
            Err(error) => {
                running.end();
                return Err(ServeError::from(error).into());
            }
        }
    }
    // From here on only workers hold a sender: when the last is gone, so is the channel.
    drop(sender);
    running.wait_until_ready()?;
    Ok(running)
}

/// A server that accepts connections. Dropping it stops it and waits for its workers.
#[derive(Debug)]
pub struct Running {
    engine: &'static Engine,
    address: Address,
    backlog_effective: u32,
    /// The options of accepted sockets, as read back from the listener that they inherit them from.
    nodelay: Option<bool>,
    sndbuf: Option<usize>,
    rcvbuf: Option<usize>,
    /// Whether peers of a unix socket can pass no descriptors to it.
    refuses_descriptors: Option<bool>,
    fallback: Option<String>,
    metrics: Option<Responder>,
    features: Vec<String>,
    config: Arc<Config>,
    counters: Arc<[Arc<Counters>]>,
    stop: Stop,
    gate: Arc<Gate>,
    news: Receiver<News>,
    threads: Vec<JoinHandle<()>>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict each other or the engine: a usage error.
    #[error("{0}")]
    Usage(String),
    /// The address cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The counters cannot be served.
    #[error("cannot serve metrics on {address}: {cause}{}", metrics_hint(*.address, .cause))]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// The kernel's answer.
        cause: std::io::Error,
    },
    /// A worker did not come up.
    #[error(transparent)]
    Worker(#[from] ServeError),
}

/// Who may connect to a unix socket, and what they can do there beside sending bytes.
fn unix_peers(path: &Path, refuses_descriptors: bool) -> String {
    let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o777);
    let who = match mode {
        Ok(mode) => format!("mode {mode:04o} by the umask: who may write to the path may connect"),
        // A name that is no file.
        Err(_) => "no file, so no mode: all of this network namespace may connect".to_owned(),
    };
    let descriptors = if refuses_descriptors {
        "are refused"
    } else {
        "are closed by a worker, which may have to wait for that (Linux 6.16 can refuse them): let only those connect whom \
         you trust"
    };
    format!("\nunix socket: {who}; descriptors that peers pass {descriptors}")
}

/// The first line on stdout: what runs, and where. By its `Display`.
#[derive(Debug)]
pub struct ReadyLine<'a>(&'a Running);

impl Running {
    /// Where it listens; the port is the real one.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The name of the engine in use.
    pub fn engine(&self) -> &'static str {
        self.engine.name
    }

    /// What of its engine is in use.
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// Under `auto`: why a better engine is not in use.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Where the counters are served for Prometheus; the port is the real one.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(Responder::address)
    }

    /// The line for stdout.
    pub fn ready_line(&self) -> ReadyLine<'_> {
        ReadyLine(self)
    }

    /// The limits chosen and the socket options in effect, for the log: what a peer or a user may run into.
    pub fn limits(&self) -> String {
        let config = &*self.config;
        let nofile = limits::nofile().soft;
        let connections = config
            .connections_max
            .map_or("unlimited".into(), |max| max.to_string());
        let buffer = config
            .buffer_size
            .map_or("by engine".into(), |bytes| format!("{bytes} B"));
        let idle = config
            .idle_timeout
            .map_or("none".into(), |time| format!("{time:?}"));
        let mut text = format!(
            "limits: connections {connections} (descriptors {}), buffer {buffer}, owed per connection {} B, idle time {idle}, \
             drain time {:?}\nsockets:",
            if nofile == UNLIMITED {
                "unlimited".into()
            } else {
                nofile.to_string()
            },
            config.owed_max,
            config.drain_timeout,
        );
        // A unix socket has no Nagle's algorithm to switch.
        if let Some(nodelay) = self.nodelay {
            text.push_str(if nodelay {
                " nodelay on,"
            } else {
                " nodelay off,"
            });
        }
        let buffer = |name, asked: Option<usize>, actual: Option<usize>| {
            let actual = actual.map_or("unknown".into(), |bytes| format!("{bytes} B"));
            match asked {
                Some(asked) => format!(" {name} {actual} (asked {asked} B)"),
                None => format!(" {name} {actual} at first (autotuned)"),
            }
        };
        text.push_str(&buffer("sndbuf", config.sndbuf, self.sndbuf));
        text.push(',');
        text.push_str(&buffer("rcvbuf", config.rcvbuf, self.rcvbuf));
        if let (Address::Unix(path), Some(refuses)) = (&self.address, self.refuses_descriptors) {
            text.push_str(&unix_peers(path, refuses));
        }
        text
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        Stats::new(
            self.engine.name,
            &self.features,
            &self.config.workers,
            &self.counters,
        )
    }

    /// Asks the workers to stop; [`wait`](Self::wait) waits until they have.
    pub fn stop(&self) {
        self.stop.request();
    }

    /// Waits until the server was stopped and its connections are closed, and gives its last counters.
    ///
    /// # Errors
    /// A worker failed. The others were stopped then.
    pub fn wait(mut self) -> (Stats, Result<(), ServeError>) {
        let result = self.end_when_over();
        (self.stats(), result)
    }

    fn wait_until_ready(&mut self) -> Result<(), ServeError> {
        let mut unready = self.threads.len();
        let mut silent = self.threads.len();
        while 0 < silent {
            match self.news.recv() {
                Ok(News::Ready { features, .. }) => {
                    self.features = features;
                    unready -= 1;
                    if unready == 0 {
                        self.gate.answer(true);
                    }
                }
                Ok(News::Accepts) => silent -= 1,
                Ok(News::Ended { result, .. }) => {
                    // Before the gate is opened none has accepted anybody, so that there is nothing to drain.
                    self.end();
                    return result;
                }
                Err(_) => {
                    unreachable!("every worker thread reports its end before it drops its sender")
                }
            }
        }
        Ok(())
    }

    /// Returns when all workers are done; the first failure stops the others.
    fn end_when_over(&mut self) -> Result<(), ServeError> {
        let mut outcome = Ok(());
        while let Ok(news) = self.news.recv() {
            if let News::Ended {
                result: Err(error), ..
            } = news
            {
                self.stop.request();
                if outcome.is_ok() {
                    outcome = Err(error);
                }
            }
        }
        self.join();
        outcome
    }

    fn end(&mut self) {
        // Those that wait at the gate don't serve; to those that have passed it is the stop.
        self.gate.answer(false);
        self.stop.request();
        self.join();
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            thread.join().expect("a worker thread catches its panics");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.end();
        }
    }
}

impl fmt::Display for ReadyLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Running {
            engine,
            address,
            backlog_effective,
            features,
            config,
            ..
        } = self.0;
        let cpus: Vec<String> = config
            .workers
            .iter()
            .flatten()
            .map(u32::to_string)
            .collect();
        write!(
            f,
            "listening on {address} engine={} threads={} cpus={} backlog={} effective_backlog={backlog_effective} features={}",
            engine.name,
            config.workers.len(),
            if cpus.is_empty() {
                "any".into()
            } else {
                cpus.join(",")
            },
            config.backlog,
            if features.is_empty() {
                "none".into()
            } else {
                features.join(",")
            },
        )
    }
}

fn metrics_hint(address: SocketAddr, cause: &std::io::Error) -> String {
    let other = "choose another --metrics address (port 0 picks a free port)";
    match cause.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("\nhint: {}; {other}", Holder::of(&address.into()))
        }
        std::io::ErrorKind::AddrNotAvailable | std::io::ErrorKind::PermissionDenied => {
            format!("\nhint: {other}")
        }
        _ => limits::hint(cause),
    }
}

impl From<Unavailable> for StartError {
    fn from(unavailable: Unavailable) -> StartError {
        match unavailable {
            Unavailable::Usage(text) => StartError::Usage(text),
            other => StartError::Worker(other.into()),
        }
    }
}

/// Listens; where the address may become free by itself, it is waited for. A supervisor starts the next server at once.
fn listen(
    engine: &Engine,
    config: &Config,
    options: &ListenOptions,
    stop: &Stop,
) -> Result<Vec<Listener>, ListenError> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(5);
    let mut said = false;
    loop {
        let error = match (engine.listen)(config, options) {
            Err(error) if error.may_pass() => error,
            done => return done,
        };
        if LISTEN_PATIENCE <= began.elapsed() || stop.requested() {
            return match error.holder {
                // It may have become free just before we looked.
                Some(Holder::Nothing) => (engine.listen)(config, options),
                _ => Err(error),
            };
        }
        if let (Some(holder), false) = (&error.holder, said) {
            log::line(format_args!(
                "note: {} is taken, waiting up to {LISTEN_PATIENCE:?} for it: {holder}",
                error.address
            ));
            said = true;
        }
        thread::sleep(pause);
        pause = (2 * pause).min(Duration::from_millis(100));
    }
}

/// The engine to use; and under `auto`, why not one that comes before it.
fn choose(config: &Config) -> Result<(&'static Engine, Option<String>), StartError> {
    match &config.engine {
        EngineChoice::Named(name) => {
            let engine = Engine::named(name).ok_or_else(|| {
                let names: Vec<_> = ENGINES.iter().map(|engine| engine.name).collect();
                StartError::Usage(format!(
                    "`{name}` is no engine; there are auto, {}",
                    names.join(", ")
                ))
            })?;
            (engine.available)(config)?;
            Ok((engine, None))
        }
        EngineChoice::Auto => {
            let mut denials = Vec::new();
            for engine in ENGINES {
                match (engine.available)(config) {
                    Ok(()) => {
                        return Ok((engine, (!denials.is_empty()).then(|| denials.join("; "))));
                    }
                    Err(Unavailable::Denied(why)) => {
                        denials.push(format!("{} cannot be used: {why}", engine.name));
                    }
                    Err(other) => return Err(other.into()),
                }
            }
            Err(Unavailable::Denied(denials.join("; ")).into())
        }
    }
}

fn spawn(
    engine: &'static Engine,
    listener: Listener,
    config: Arc<Config>,
    worker: Worker,
) -> Result<JoinHandle<()>, ThreadError> {
    let (index, news) = (worker.index, worker.news.clone());
    threads::spawn(format!("{}-{index}", engine.name), move || {
        let work = move || {
            if let Some(cpu) = worker.cpu {
                pin_current_thread(cpu).map_err(ServeError::Pinning)?;
            }
            (engine.serve)(listener, &config, &worker)
        };
        // Whoever waits for this worker must hear of its end, also of one that should not be.
        let result =
            catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(ServeError::Panicked(index)));
        let _ = news.send(News::Ended { result });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            listen: "127.0.0.1:0".parse().expect("valid"),
            ..Config::default()
        }
    }

    #[test]
    fn an_unknown_engine_is_a_usage_error_with_the_choices() {
        let config = Config {
            engine: EngineChoice::Named("nope".into()),
            ..config()
        };
        let error = start(config, &Stop::new().expect("a pipe")).expect_err("no such engine");
        assert!(
            matches!(&error, StartError::Usage(text) if text.contains("auto, ")),
            "{error}"
        );
    }

    #[test]
    fn a_cpu_that_is_not_there_ends_the_start() {
        let config = Config {
            workers: vec![None, Some(100_000)],
            ..config()
        };
        let stop = Stop::new().expect("a pipe");
        let error = start(config, &stop).expect_err("no such cpu");
        assert!(error.to_string().contains("cpu 100000"), "{error}");
        assert!(stop.requested(), "the worker that had started was stopped");
    }

    #[test]
    fn a_stop_before_the_start_is_a_short_life() {
        let stop = Stop::new().expect("a pipe");
        stop.request();
        let running = start(config(), &stop).expect("it starts");
        let (stats, result) = running.wait();
        result.expect("an orderly end");
        assert_eq!(stats.total.accepted, 0);
    }
}
