//! How a connection fails, as kinds that can be counted.

use std::{fmt, io};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use echometer_host::sockets::ConnectedToItself;

/// What ended a connection before its time, or kept it from being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Failure {
    /// The peer reset it (ECONNRESET).
    Reset,
    /// The peer closed it while a reply was owed, or before we had finished.
    ClosedByPeer,
    /// We wrote into a connection that the peer had closed (EPIPE).
    BrokenPipe,
    /// The kernel gave up sending again (ETIMEDOUT, EHOSTUNREACH, ENETUNREACH).
    TimedOut,
    /// More came back than was sent.
    Surplus,
    /// What came back is not what was sent (`--verify`).
    Mismatch,
    /// The peer was to close it (`--close server`), and had not when the waiting ended.
    NotClosed,
    /// Any other error of a send or a receive.
    Other,
    /// Nobody listened (ECONNREFUSED).
    ConnectRefused,
    /// No answer to the connect within its time.
    ConnectTimedOut,
    /// The peer reset the connection while it was being made.
    ConnectReset,
    /// No way to the peer (EHOSTUNREACH, ENETUNREACH).
    ConnectUnreachable,
    /// No local port was left for this source and this peer, or the source is not ours (EADDRNOTAVAIL).
    NoLocalPort,
    /// This process may open no more files (EMFILE, ENFILE).
    NoDescriptor,
    /// The queue of a unix listener was full (EAGAIN).
    ListenQueueFull,
    /// Any other error of a connect.
    ConnectOther,
    /// Nobody listened, and the kernel gave the connect the very port that it was to reach.
    ConnectedToItself,
}

/// All kinds, in the order in which they are reported.
pub(crate) const KINDS: [Failure; 17] = [
    Failure::Reset,
    Failure::ClosedByPeer,
    Failure::BrokenPipe,
    Failure::TimedOut,
    Failure::Surplus,
    Failure::Mismatch,
    Failure::NotClosed,
    Failure::Other,
    Failure::ConnectRefused,
    Failure::ConnectTimedOut,
    Failure::ConnectReset,
    Failure::ConnectUnreachable,
    Failure::NoLocalPort,
    Failure::NoDescriptor,
    Failure::ListenQueueFull,
    Failure::ConnectOther,
    Failure::ConnectedToItself,
];

impl Failure {
    /// The kind of a failed send or receive.
    pub fn from_errno(errno: Errno) -> Failure {
        match errno {
            Errno::CONNRESET => Failure::Reset,
            Errno::PIPE => Failure::BrokenPipe,
            Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH => Failure::TimedOut,
            _ => Failure::Other,
        }
    }

    /// The kind of a failed connect.
    pub fn from_connect_errno(errno: Errno) -> Failure {
        match errno {
            Errno::CONNREFUSED => Failure::ConnectRefused,
            Errno::TIMEDOUT => Failure::ConnectTimedOut,
            Errno::CONNRESET | Errno::PIPE => Failure::ConnectReset,
            Errno::HOSTUNREACH | Errno::NETUNREACH => Failure::ConnectUnreachable,
            Errno::ADDRNOTAVAIL => Failure::NoLocalPort,
            Errno::MFILE | Errno::NFILE => Failure::NoDescriptor,
            Errno::AGAIN => Failure::ListenQueueFull,
            _ => Failure::ConnectOther,
        }
    }

    /// Whether it kept a connection from being made, rather than ended one.
    pub fn is_of_connect(self) -> bool {
        Failure::ConnectRefused as usize <= self as usize
    }

    /// What helps, where the kind alone says it.
    pub fn cure(self) -> Option<&'static str> {
        match self {
            Failure::NoLocalPort => Some(
                "local ports ran out (or --source is no address of this machine): name more source addresses (--source 127.0.0.2-127.0.0.40), widen \
                 net.ipv4.ip_local_port_range, or let the server close first (--close server)",
            ),
            Failure::NoDescriptor => {
                Some("this process may open no more files: raise ulimit -n, or lower -c")
            }
            Failure::ConnectRefused => {
                Some("nobody listened: did the server die, or is the port wrong?")
            }
            Failure::ConnectTimedOut => Some(
                "connects had no answer in time: the server's listen queue was full; raise its --backlog and \
                 net.core.somaxconn",
            ),
            Failure::NotClosed => Some(
                "the server was to close its connections (--close server) and did not: does it close after so many \
                 messages (--requests-per-connection)?",
            ),
            Failure::ConnectedToItself => Some(
                "a connection met nobody but itself: nobody listens on the server's port, which is one that the kernel gives to \
                 clients (net.ipv4.ip_local_port_range); did the server die?",
            ),
            Failure::ListenQueueFull => {
                Some("the server's listen queue was full: raise its --backlog")
            }
            _ => None,
        }
    }

    /// Its name in files: `closed_by_peer`.
    pub fn name(self) -> &'static str {
        match self {
            Failure::Reset => "reset",
            Failure::ClosedByPeer => "closed_by_peer",
            Failure::BrokenPipe => "broken_pipe",
            Failure::TimedOut => "timed_out",
            Failure::Surplus => "surplus",
            Failure::Mismatch => "mismatch",
            Failure::NotClosed => "not_closed",
            Failure::Other => "other",
            Failure::ConnectRefused => "connect_refused",
            Failure::ConnectTimedOut => "connect_timed_out",
            Failure::ConnectReset => "connect_reset",
            Failure::ConnectUnreachable => "connect_unreachable",
            Failure::NoLocalPort => "no_local_port",
            Failure::NoDescriptor => "no_descriptor",
            Failure::ListenQueueFull => "listen_queue_full",
            Failure::ConnectOther => "connect_other",
            Failure::ConnectedToItself => "connected_to_itself",
        }
    }
}

impl fmt::Display for Failure {
    /// As a person reads it: `closed by peer`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().replace('_', " "))
    }
}

/// How many connections failed, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures([u64; KINDS.len()]);

impl Failures {
    /// Counts one.
    pub fn count(&mut self, failure: Failure) {
        self.0[failure as usize] += 1;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Failures) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// How many failed in this way.
    pub fn of(&self, failure: Failure) -> u64 {
        self.0[failure as usize]
    }

    /// How many failed in any way.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The kinds that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Failure, u64)> + '_ {
        KINDS
            .into_iter()
            .map(|kind| (kind, self.of(kind)))
            .filter(|(_, count)| *count != 0)
    }
}

/// What an I/O error of a connect means to the user, with the cure.
pub(crate) fn connect_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        _ if ConnectedToItself::is(error) => {
            "its port is one that the kernel gives to clients (net.ipv4.ip_local_port_range): is the server running?"
        }
        io::ErrorKind::ConnectionRefused => {
            "nobody listens there: is the server running, and is the port right?"
        }
        io::ErrorKind::TimedOut => {
            "no answer: is the address right, is its listen queue full, or does a firewall drop us?"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no local port is left for this address: name more source addresses (--source), widen net.ipv4.ip_local_port_range, or use fewer connections"
        }
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            "no route: check the address and the network"
        }
        io::ErrorKind::InvalidInput if error.raw_os_error().is_some() => {
            "is it a link-local address? That needs its interface: [fe80::1%eth0]:7777"
        }
        io::ErrorKind::NotFound => "there is no such unix socket: is the server running?",
        io::ErrorKind::PermissionDenied => "this user may not connect there",
        _ if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => {
            "this process may open no more files (nofile): raise ulimit -n, or use fewer connections"
        }
        _ => "see the text of the error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_counted_in_its_own_place() {
        let mut failures = Failures::default();
        for (index, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            for _ in 0..=index {
                failures.count(kind);
            }
        }
        failures.add(&failures.clone());
        assert_eq!(failures.of(Failure::Mismatch), 12);
        assert_eq!(failures.total(), 306);
        let names: Vec<_> = failures.iter().map(|(kind, _)| kind.name()).collect();
        let written: Vec<_> = KINDS
            .iter()
            .map(|kind| serde_json::to_value(kind).unwrap())
            .collect();
        assert_eq!(names, written);
    }

    #[test]
    fn errors_of_the_kernel_have_a_kind() {
        assert_eq!(Failure::from_errno(Errno::CONNRESET), Failure::Reset);
        assert_eq!(Failure::from_errno(Errno::PIPE), Failure::BrokenPipe);
        assert_eq!(Failure::from_errno(Errno::INVAL), Failure::Other);
        assert_eq!(
            Failure::from_connect_errno(Errno::ADDRNOTAVAIL),
            Failure::NoLocalPort
        );
        assert!(Failure::NoLocalPort.cure().unwrap().contains("--source"));
        assert!(Failure::ConnectOther.is_of_connect() && !Failure::Other.is_of_connect());
    }
}
