//! How does a server listen? One listener, or a group of them on one port among which the kernel
//! spreads the connections (`SO_REUSEPORT`), without ever sharing a port with a stranger by accident.

mod error;

use std::{
    fs, io,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::Path,
    sync::Arc,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

pub use error::ListenError;

use super::{Holder, bound_address, raw_address, set_buffers, stream_socket};
use crate::address::Address;

/// What listeners are made with.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted, as asked; see [`Listener::backlog_effective`].
    pub backlog: u32,
    /// `TCP_NODELAY`; accepted connections inherit it from the listener.
    pub nodelay: bool,
    /// `SO_SNDBUF` in bytes, inherited by accepted connections; none leaves the kernel's auto-tuning on.
    pub sndbuf: Option<usize>,
    /// `SO_RCVBUF` in bytes, inherited likewise. It must be set before listening, because the window
    /// scale is agreed on in the handshake (tcp(7)).
    pub rcvbuf: Option<usize>,
    /// One queue that all listeners draw from, instead of one each; see [`Listener::is_shared`].
    pub shared: bool,
    /// A v6 socket takes v4 connections too. Said to the kernel either way (`IPV6_V6ONLY`), because its
    /// default is a sysctl (`net.ipv6.bindv6only`).
    pub dual_stack: bool,
}

impl Default for ListenOptions {
    /// A backlog of 4,096, no Nagle delay, a queue for each listener, and v6 apart from v4.
    fn default() -> ListenOptions {
        ListenOptions {
            backlog: 4_096,
            nodelay: true,
            sndbuf: None,
            rcvbuf: None,
            shared: false,
            dual_stack: false,
        }
    }
}

/// Listens on `address` with `count` sockets, one for each worker.
///
/// With more than one, TCP listeners form an `SO_REUSEPORT` group on one port (port 0: the first picks
/// it), each with a queue of its own. With [`ListenOptions::shared`], and on a unix socket always, they are
/// duplicates of one socket with one queue. A unix path left behind by a dead server is replaced; one in use is not.
///
/// A port that any other socket listens on is refused, even where that one set `SO_REUSEPORT` and
/// belongs to the same user: two benchmarks must not share a port without knowing. Therefore the first
/// socket binds without `SO_REUSEPORT`, and the option is turned on, on it and the others, only then.
///
/// # Errors
/// [`ListenError`] names the address and the cause. Nothing stays open then.
///
/// # Panics
/// If `count` is 0.
pub fn listen(
    address: &Address,
    count: usize,
    options: &ListenOptions,
) -> Result<Vec<Listener>, ListenError> {
    listen_by(address, count, options, &by_calls)
}

/// How a TCP socket comes to listen on an address with a backlog: it is made, the options are set by the last argument,
/// it is bound, it listens. It is to be non-blocking and close-on-exec.
pub type Opening<'a> = dyn Fn(SocketAddr, u32, &mut SetOptions<'_>) -> io::Result<OwnedFd> + 'a;

/// Sets a socket's options before it is bound.
pub type SetOptions<'a> = dyn FnMut(BorrowedFd<'_>) -> io::Result<()> + 'a;

/// As [`listen`], with TCP sockets opened in a way of the caller's.
///
/// # Errors
/// As [`listen`].
///
/// # Panics
/// If `count` is 0.
pub fn listen_by(
    address: &Address,
    count: usize,
    options: &ListenOptions,
    opening: &Opening<'_>,
) -> Result<Vec<Listener>, ListenError> {
    assert!(0 < count, "a server listens with at least one socket");
    let listeners = match address {
        Address::Tcp(tcp) => listen_tcp(address, *tcp, count, options, opening),
        Address::Unix(path) => listen_unix(address, path, count, options),
    };
    listeners.map_err(|cause| ListenError {
        address: address.clone(),
        holder: (cause.kind() == io::ErrorKind::AddrInUse).then(|| Holder::of(address)),
        cause,
    })
}

/// A listening socket: non-blocking, close-on-exec.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Address,
    backlog_effective: u32,
    shared: bool,
    /// One for all that draw from this queue: who holds the last is the last.
    sharers: Arc<()>,
}

impl Listener {
    /// Where it listens; the port is the real one.
    #[must_use]
    pub fn local_addr(&self) -> &Address {
        &self.address
    }

    /// How long its queue may really get: `listen(2)` silently cuts the backlog to
    /// `net.core.somaxconn`. The kernel lets one more connection than this wait.
    ///
    /// Where the sysctl cannot be read, the backlog as asked.
    #[must_use]
    pub fn backlog_effective(&self) -> u32 {
        self.backlog_effective
    }

    /// Whether other listeners draw from the same queue: then each should take one connection at a time
    /// and let the others have theirs, and a queue found empty is no surprise.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// `TCP_NODELAY` as the kernel set it.
    ///
    /// # Errors
    /// A unix socket has no such option.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.socket.tcp_nodelay()
    }

    /// `SO_SNDBUF` as the kernel set it, in bytes (about twice what was asked).
    ///
    /// # Errors
    /// Only if the socket were no socket.
    pub fn sndbuf(&self) -> io::Result<usize> {
        self.socket.send_buffer_size()
    }

    /// `SO_RCVBUF` as the kernel set it, in bytes (about twice what was asked).
    ///
    /// # Errors
    /// Only if the socket were no socket.
    pub fn rcvbuf(&self) -> io::Result<usize> {
        self.socket.recv_buffer_size()
    }

    /// What the kernel calls this socket; see [`ListenQueue`](super::ListenQueue).
    ///
    /// # Errors
    /// Only if the descriptor were none.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.socket)?.st_ino)
    }

    /// Ends it: when the last that draws from its queue has ended, nobody listens there any more, and the address can be
    /// listened on again. Dropping it does that too, unless somebody else has the socket: an io_uring that it was handed
    /// to lets go of it some time after its own end, and even after the process's.
    pub fn end(self) {
        // Not before: it would reset who still waits in the queue.
        if Arc::into_inner(self.sharers).is_some() {
            // A listener that is shut is closed but for its name, and that stands in the way of no other listener with
            // SO_REUSEADDR. It fails on one that was shut before.
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Gives the socket up to an owner of another kind.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.socket.into()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn listen_tcp(
    address: &Address,
    tcp: SocketAddr,
    count: usize,
    options: &ListenOptions,
    opening: &Opening<'_>,
) -> io::Result<Vec<Listener>> {
    let open = |address: SocketAddr, reuse_port: bool| -> io::Result<Socket> {
        let mut set = |socket: BorrowedFd<'_>| {
            let socket = SockRef::from(&socket);
            set_tcp_options(&socket, address, options)?;
            // Not said at all, rather than "off", where it was never on.
            if reuse_port {
                socket.set_reuse_port(true)?;
            }
            Ok(())
        };
        Ok(opening(address, options.backlog, &mut set)?.into())
    };
    // The first listens before the others bind: from then on the port is known to be ours alone.
    let first = open(tcp, false)?;
    // A port 0 is a number now.
    let address = bound_address(&first, address)?;
    let Address::Tcp(tcp) = address else {
        unreachable!("a TCP socket is bound to a TCP address")
    };

    if options.shared {
        return Ok(finish(duplicates(first, count)?, &address, options));
    }
    let mut sockets = vec![first];
    if 1 < count {
        sockets[0].set_reuse_port(true)?;
    }
    while sockets.len() < count {
        sockets.push(open(tcp, true)?);
    }
    Ok(finish(sockets, &address, options))
}

/// The plain system calls: socket, bind, listen.
fn by_calls(address: SocketAddr, backlog: u32, set: &mut SetOptions<'_>) -> io::Result<OwnedFd> {
    let kind = Type::STREAM.cloexec().nonblocking();
    let socket = Socket::new_raw(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    set(socket.as_fd())?;
    socket.bind(&address.into())?;
    listen_on(&socket, backlog)?;
    Ok(socket.into())
}

fn set_tcp_options(
    socket: &Socket,
    address: SocketAddr,
    options: &ListenOptions,
) -> io::Result<()> {
    // Else the connections of a server just gone (TIME_WAIT) would hold its port for a minute.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(options.nodelay)?;
    if address.is_ipv6() {
        socket.set_only_v6(!options.dual_stack)?;
    }
    set_buffers(socket, options.sndbuf, options.rcvbuf)
}

fn listen_unix(
    address: &Address,
    path: &Path,
    count: usize,
    options: &ListenOptions,
) -> io::Result<Vec<Listener>> {
    let first = stream_socket(address, true)?;
    set_buffers(&first, options.sndbuf, options.rcvbuf)?;
    let raw = raw_address(address)?;
    match first.bind(&raw) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(address, path) => {
            fs::remove_file(path)?;
            first.bind(&raw)?;
        }
        bound => bound?,
    }
    listen_on(&first, options.backlog)?;
    Ok(finish(duplicates(first, count)?, address, options))
}

/// `count` descriptors of one socket.
fn duplicates(socket: Socket, count: usize) -> io::Result<Vec<Socket>> {
    let mut sockets = vec![socket];
    while sockets.len() < count {
        sockets.push(sockets[0].try_clone()?);
    }
    Ok(sockets)
}

/// Whether `path` is a socket that nobody listens on.
fn is_left_behind(address: &Address, path: &Path) -> bool {
    let is_socket =
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let refused = || -> io::Result<bool> {
        let probe = stream_socket(address, true)?.connect(&raw_address(address)?);
        Ok(probe.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
    };
    is_socket && refused().unwrap_or(false)
}

fn listen_on(socket: &Socket, backlog: u32) -> io::Result<()> {
    // listen(2) takes an int and cuts it at somaxconn, itself an int.
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

fn finish(sockets: Vec<Socket>, address: &Address, options: &ListenOptions) -> Vec<Listener> {
    let backlog_effective = options.backlog.min(somaxconn().unwrap_or(u32::MAX));
    let one_queue = options.shared || matches!(address, Address::Unix(_));
    let shared = one_queue && 1 < sockets.len();
    let all = Arc::new(());
    let listener = |socket| Listener {
        socket,
        address: address.clone(),
        backlog_effective,
        shared,
        sharers: if shared {
            Arc::clone(&all)
        } else {
            Arc::new(())
        },
    };
    let listeners = sockets.into_iter().map(listener).collect();
    drop(all);
    listeners
}

fn somaxconn() -> Option<u32> {
    sysctl("/proc/sys/net/core/somaxconn")
}

fn sysctl<T: std::str::FromStr>(file: &str) -> Option<T> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
