//! The steps of a connection's life: what is recorded of each, what each would say if it failed, and what it means.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use echometer_host::{clock, sockets::ConnectedToItself};

/// What the file says of its form.
pub(crate) const SCHEMA: &str = "echometer.trace/1";

/// One connection, step by step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trace {
    /// [`SCHEMA`].
    pub schema: String,
    /// What was traced: `uring`, `epoll`, or a foreign server.
    pub target: String,
    /// Where it listens, once that is known.
    pub address: Option<String>,
    /// The demonstration, where it is one.
    pub demo: Option<String>,
    /// In the order in which they happened.
    pub steps: Vec<Step>,
    /// What is to be learnt from it, or how far it came.
    pub sentence: String,
    /// Whether it came to its end as it should; a failure that a demonstration is about is none.
    pub complete: bool,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Which.
    pub kind: Kind,
    /// Whose.
    pub side: Side,
    /// The system call or the io_uring operation.
    pub operation: String,
    /// The descriptor: `fd 9`.
    pub file: Option<String>,
    /// When it began, since the first step.
    pub at_ns: u64,
    /// How long it took.
    pub took_ns: u64,
    /// What came of it.
    pub saw: String,
    /// What the kernel answered instead, where it failed: `EADDRINUSE`.
    pub error: Option<String>,
}

/// Whose step it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    /// The server's.
    Server,
    /// The client's.
    Client,
    /// Nobody's call: the kernel does it by itself.
    Kernel,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A socket is made, to listen on or to connect from.
    Socket,
    /// The socket gets its address.
    Bind,
    /// The socket begins to take connections.
    Listen,
    /// A connection is asked for.
    Connect,
    /// The three-way handshake, seen in the listener's queue.
    Handshake,
    /// The server takes a connection out of the queue.
    Accept,
    /// The client's first bytes.
    Send,
    /// They reach the server.
    Receive,
    /// The server sends them back.
    Echo,
    /// They reach the client.
    Return,
    /// The client says that it sends no more.
    Shutdown,
    /// The other side sees that.
    End,
    /// A socket is closed.
    Close,
    /// The client breaks the connection off.
    Reset,
    /// The listener is closed.
    Unlisten,
}

impl Kind {
    /// As it stands in the table.
    #[must_use]
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Bind => "bind",
            Self::Listen => "listen",
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Accept => "accept",
            Self::Send => "first send",
            Self::Receive => "first recv",
            Self::Echo => "echo",
            Self::Return => "echo arrives",
            Self::Shutdown => "shutdown",
            Self::End => "end of stream",
            Self::Close => "close",
            Self::Reset => "reset",
            Self::Unlisten => "stop listening",
        }
    }

    /// What it would have said on failure.
    #[must_use]
    pub(crate) const fn otherwise(self) -> &'static str {
        match self {
            Self::Socket => "EMFILE: no descriptor left (ulimit -n)",
            Self::Bind => {
                "EADDRINUSE: another socket has the port; EACCES: a port below 1024; EADDRNOTAVAIL: no such address here"
            }
            Self::Listen => "EADDRINUSE: another socket listens on the port",
            Self::Connect => {
                "ECONNREFUSED: nobody listens; ETIMEDOUT: no answer, the queue is full or a firewall drops; \
                 EADDRNOTAVAIL: no local port left"
            }
            Self::Handshake => {
                "no entry in the queue: the SYN was dropped, and is sent again after 1 s"
            }
            Self::Accept => {
                "EMFILE, ENFILE: no descriptor left, the connection stays in the queue; EAGAIN: nobody waits"
            }
            Self::Send | Self::Echo => {
                "EAGAIN: the socket's buffer is full; EPIPE, ECONNRESET: the peer is gone"
            }
            Self::Receive | Self::Return => {
                "EAGAIN: nothing there yet; ECONNRESET: the peer broke off"
            }
            Self::Shutdown => "ENOTCONN: the connection is gone already",
            Self::End => "ECONNRESET: the peer broke off instead of ending",
            Self::Close | Self::Unlisten => "EBADF: closed twice, a fault of the program",
            Self::Reset => "EBADF: closed twice, a fault of the program",
        }
    }

    /// What it means, for who sees it for the first time.
    #[must_use]
    pub(crate) const fn lesson(self) -> &'static str {
        match self {
            Self::Socket => {
                "A descriptor for one end of a connection to come. Nothing is sent, and nobody else knows of it."
            }
            Self::Bind => {
                "The socket gets its address and port. A server names a port; a client is given one when it connects."
            }
            Self::Listen => {
                "From now on the kernel answers SYNs for this port by itself, and queues the connections: as many as \
                 the backlog plus one, and never more than net.core.somaxconn."
            }
            Self::Connect => {
                "The client's SYN goes out. The server's kernel answers; the server's program has no part in it."
            }
            Self::Handshake => {
                "SYN, SYN-ACK, ACK: at the SYN the connection stands in the SYN queue, at the ACK it moves to the \
                 accept queue. Both ends can send now, though the server has not accepted."
            }
            Self::Accept => {
                "The server takes the oldest connection out of the queue and gets a descriptor for it. A server too \
                 busy to do so fills the queue, and then SYNs are dropped."
            }
            Self::Send => {
                "Copies the bytes into the kernel. On loopback the same call goes on through TCP down to the \
                 server's socket: most of an echo's cost is paid here."
            }
            Self::Receive => {
                "Copies the bytes out to the server. Where it slept until they came, waking it is part of the latency."
            }
            Self::Echo => {
                "The same bytes go back. To the server this is all that a message is: one recv, one send."
            }
            Self::Return => {
                "From the first send to here is what the benchmark calls latency of one message on an idle server."
            }
            Self::Shutdown => {
                "A FIN goes out: the peer reads to the end of what was sent, then sees the end. It may still send."
            }
            Self::End => "recv gives 0 bytes: the peer has sent all that it will. It is no error.",
            Self::Close => {
                "The descriptor is given up. Who closes first keeps the port pair in TIME_WAIT for a minute."
            }
            Self::Reset => {
                "With SO_LINGER 0 close sends a RST instead of a FIN: the connection is gone at once, and so is all \
                 that was still on its way."
            }
            Self::Unlisten => {
                "The port is free again. Whoever still waited in the queue is reset: so a server accepts them first."
            }
        }
    }
}

impl Side {
    /// As it stands in the table.
    #[must_use]
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Kernel => "kernel",
        }
    }
}

/// Records steps as they happen.
#[derive(Debug)]
pub(super) struct Recorder {
    begun_ns: Option<u64>,
    pub(super) steps: Vec<Step>,
}

/// A step failed, and is recorded as failed.
#[derive(Debug)]
pub(super) struct Broken;

impl Recorder {
    pub(super) fn new() -> Self {
        Self {
            begun_ns: None,
            steps: Vec::new(),
        }
    }

    /// Does something and times it: `by` which call, on which file. `saw` says what came of it.
    ///
    /// # Errors
    /// It failed: that is recorded with the kernel's answer.
    pub(super) fn step<T>(
        &mut self,
        what: (Side, Kind),
        by: (&str, Option<String>),
        act: impl FnOnce() -> io::Result<T>,
        saw: impl FnOnce(&T) -> String,
    ) -> Result<T, Broken> {
        self.attempt(what, by, act, saw).map_err(|_| Broken)
    }

    /// As [`Recorder::step`], for what may well fail: the kernel's answer comes back.
    pub(super) fn attempt<T>(
        &mut self,
        (side, kind): (Side, Kind),
        (operation, file): (&str, Option<String>),
        act: impl FnOnce() -> io::Result<T>,
        saw: impl FnOnce(&T) -> String,
    ) -> io::Result<T> {
        let before_ns = clock::now_ns();
        let done = act();
        let after_ns = clock::now_ns();
        let begun_ns = *self.begun_ns.get_or_insert(before_ns);
        let (saw, error) = match &done {
            Ok(value) => (saw(value), None),
            Err(error) => (error_words(error), Some(error_name(error))),
        };
        self.steps.push(Step {
            kind,
            side,
            operation: operation.to_owned(),
            file,
            at_ns: before_ns - begun_ns,
            took_ns: after_ns - before_ns,
            saw,
            error,
        });
        done
    }

    /// The file that the last step has made.
    pub(super) fn made(&mut self, socket: &OwnedFd) {
        if let Some(last) = self.steps.last_mut() {
            last.file = file(socket);
        }
    }

    /// What the last step meant, where that is more than it says itself.
    pub(super) fn remark(&mut self, text: &str) {
        if let Some(last) = self.steps.last_mut() {
            last.saw = format!("{}: {text}", last.saw);
        }
    }
}

/// `fd 9`
pub(super) fn file(socket: &OwnedFd) -> Option<String> {
    Some(format!("fd {}", socket.as_raw_fd()))
}

/// `EADDRINUSE`, or the number of an error that no step here is known for.
pub(super) fn error_name(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none() {
        return "no answer".to_owned();
    }
    let name = match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => "EADDRINUSE",
        Some(Errno::ADDRNOTAVAIL) => "EADDRNOTAVAIL",
        Some(Errno::ACCESS) => "EACCES",
        Some(Errno::AGAIN) => "EAGAIN",
        Some(Errno::CONNREFUSED) => "ECONNREFUSED",
        Some(Errno::CONNRESET) => "ECONNRESET",
        Some(Errno::HOSTUNREACH) => "EHOSTUNREACH",
        Some(Errno::INVAL) => "EINVAL",
        Some(Errno::MFILE) => "EMFILE",
        Some(Errno::NETUNREACH) => "ENETUNREACH",
        Some(Errno::NFILE) => "ENFILE",
        Some(Errno::NOSYS) => "ENOSYS",
        Some(Errno::NOTCONN) => "ENOTCONN",
        Some(Errno::PERM) => "EPERM",
        Some(Errno::PIPE) => "EPIPE",
        Some(Errno::TIMEDOUT) => "ETIMEDOUT",
        Some(other) => return format!("errno {}", other.raw_os_error()),
        None => "error",
    };
    name.to_owned()
}

/// `EADDRINUSE, Address already in use`.
fn error_words(error: &io::Error) -> String {
    if ConnectedToItself::is(error) {
        return error.to_string();
    }
    let name = error_name(error);
    if error.raw_os_error().is_none() {
        return name;
    }
    let text = error.to_string();
    let text = text
        .split_once(" (os error")
        .map_or(text.as_str(), |(text, _)| text);
    let cure = match Errno::from_io_error(error) {
        Some(Errno::MFILE) => " (`ulimit -n` is too low)",
        _ => "",
    };
    format!("{name}, {text}{cure}")
}
