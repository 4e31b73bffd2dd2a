//! What a server was asked to be: values already valid, as every engine receives them.

use std::net::SocketAddr;
use std::time::Duration;

use echometer_host::address::Address;

use crate::delay::Delay;
use crate::wait::Wait;

/// The least bytes a connection may owe before it is no longer received from. Two of the largest sensible pieces:
/// one on its way out, one on its way in.
pub const OWED_MAX_DEFAULT: u32 = 512 * 1024;

/// A server's settings. `Default` is what the binary does without flags, on one unpinned worker.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Address,
    /// Which engine, by name, or `auto`.
    pub engine: EngineChoice,
    /// The workers, one per entry: the cpu that it is pinned to, or `None` for wherever the scheduler puts it. Never
    /// empty.
    pub workers: Vec<Option<u32>>,
    /// Connections that may wait to be accepted, as asked; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// How workers share what arrives.
    pub accept: Accept,
    /// A v6 listener takes v4 connections too.
    pub dual_stack: bool,
    /// What a worker does while there is nothing to do.
    pub wait: Wait,
    /// Bytes received at once, 1 to 2^30. `None`: the engine's own choice.
    pub buffer_size: Option<u32>,
    /// Receive buffers per worker, for engines that have a pool of them. `None`: the engine's own choice.
    pub buffers: Option<u32>,
    /// Connections open at once over all workers; one more is accepted and closed at once. `None`: as many as
    /// descriptors and engine allow.
    pub connections_max: Option<u32>,
    /// Bytes that a connection may owe its peer before it is no longer received from, at least 1
    /// (see [`Connection::new`](crate::connection::Connection::new)).
    pub owed_max: u32,
    /// A connection on which nothing moves for this long is closed, as [`TimedOut`](crate::connection::CloseReason).
    /// Never zero. It may take a scheduling turn longer, never shorter.
    pub idle_timeout: Option<Duration>,
    /// How long a stop may wait for peers to read and close.
    pub drain_timeout: Duration,
    /// A known slowness, for calibrating instruments.
    pub delay: Delay,
    /// TCP_NODELAY on accepted sockets.
    pub nodelay: bool,
    /// SO_SNDBUF as asked, in bytes; the kernel doubles and caps it. `None`: left to its autotuning.
    pub sndbuf: Option<usize>,
    /// SO_RCVBUF likewise.
    pub rcvbuf: Option<usize>,
    /// Where to serve the counters for Prometheus; port 0 picks one.
    pub metrics: Option<SocketAddr>,
    /// `--uring` as typed: features to switch on (`true`) or off, in order. The engine says which exist.
    pub uring: Vec<(bool, String)>,
}

/// Which engine was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineChoice {
    /// The first one of [`ENGINES`](crate::engine::ENGINES) that this kernel and its keepers allow.
    Auto,
    /// This one or none.
    Named(String),
}

/// How workers share what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accept {
    /// A listener per worker on one port (SO_REUSEPORT): the kernel spreads connections by a hash, so who gets one is
    /// known before anyone wakes.
    #[default]
    ReusePort,
    /// One listener: whoever is free takes the next one.
    Shared,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: Address::Tcp(([127, 0, 0, 1], 7777).into()),
            engine: EngineChoice::Auto,
            workers: vec![None],
            backlog: 4096,
            accept: Accept::ReusePort,
            dual_stack: false,
            wait: Wait::Block,
            buffer_size: None,
            buffers: None,
            connections_max: None,
            owed_max: OWED_MAX_DEFAULT,
            idle_timeout: None,
            drain_timeout: Duration::from_secs(5),
            delay: Delay::None,
            nodelay: true,
            sndbuf: None,
            rcvbuf: None,
            metrics: None,
            uring: Vec::new(),
        }
    }
}
