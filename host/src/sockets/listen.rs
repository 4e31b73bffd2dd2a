//! How does a server listen? One listener, or a group of them on one port among which the kernel
//! spreads the connections (`SO_REUSEPORT`), without ever sharing a port with a stranger by accident.

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

use super::{Holder, bound_address, is_abstract, raw_address, set_buffers, stream_socket};
use crate::{address::Address, limits};

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

/// Why it could not be listened; the text names the address, the kernel's word and a cure.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}{}", hint(.cause, .address, .holder.as_ref()))]
pub struct ListenError {
    /// Where.
    pub address: Address,
    /// Who has the address, where that is the cause.
    pub holder: Option<Holder>,
    /// What the kernel said.
    pub cause: io::Error,
}

impl ListenError {
    /// Whether somebody else has the address.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.cause.kind() == io::ErrorKind::AddrInUse
    }

    /// Whether the address may become free by itself within moments; see [`Holder::may_pass`].
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.holder.as_ref().is_some_and(Holder::may_pass)
    }
}

/// On a line of its own, so that the first line stays what other programs print.
fn hint(error: &io::Error, address: &Address, holder: Option<&Holder>) -> String {
    match (error.kind(), address, holder) {
        (_, Address::Tcp(tcp), Some(holder)) => format!(
            "\nhint: {holder}; stop what is there (`ss -tanp 'sport = :{}'`), or choose another port (port 0 picks a free \
             one)",
            tcp.port()
        ),
        (_, Address::Unix(_), Some(holder)) => {
            format!("\nhint: {holder}; stop what is there, or choose another path")
        }
        (io::ErrorKind::AddrNotAvailable, ..) => {
            "\nhint: no interface of this machine has that address (`ip address` lists them)".into()
        }
        (io::ErrorKind::PermissionDenied, Address::Tcp(tcp), _) => {
            match unprivileged_port_start() {
                Some(start) if (1..start).contains(&tcp.port()) => format!(
                    "\nhint: port {} is reserved for privileged processes (sysctl net.ipv4.ip_unprivileged_port_start is \
                 {start}); choose a higher one",
                    tcp.port()
                ),
                _ => "\nhint: a seccomp filter or a security module forbids it".into(),
            }
        }
        (io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound, Address::Unix(path), _)
            if !is_abstract(path) =>
        {
            "\nhint: the folder of that path must exist and be writable".into()
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
            "\nhint: this kernel or container has that address family switched off".into()
        }
        _ => limits::hint(error),
    }
}

/// The first port that needs no privilege.
fn unprivileged_port_start() -> Option<u16> {
    sysctl("/proc/sys/net/ipv4/ip_unprivileged_port_start")
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
mod tests {
    use std::{
        collections::HashSet,
        net::{Ipv6Addr, TcpStream},
        os::unix::net::{UnixListener, UnixStream},
        time::{Duration, Instant},
    };

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn loopback() -> Address {
        "127.0.0.1:0".parse().expect("an address")
    }

    fn connect(address: &Address) -> TcpStream {
        let Address::Tcp(address) = address else {
            panic!("{address} is not TCP")
        };
        TcpStream::connect(address).expect("the listener is there")
    }

    /// Waits for one connection and accepts it.
    fn accept(listener: &Listener) -> Socket {
        let limit = Timespec {
            tv_sec: 30,
            tv_nsec: 0,
        };
        assert_eq!(
            poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&limit)).unwrap(),
            1,
            "nobody connected"
        );
        listener.socket.accept().unwrap().0
    }

    #[test]
    fn port_0_picks_a_port_and_the_listener_does_not_block() {
        let listeners = listen(&loopback(), 1, &ListenOptions::default()).unwrap();
        assert_ne!(listeners[0].local_addr().port(), Some(0));
        assert_eq!(
            listeners[0].socket.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        assert!(
            !listeners[0].socket.reuse_port().unwrap(),
            "a lone listener shares its port with nobody"
        );
        let flags = rustix::io::fcntl_getfd(&listeners[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn v6_works() {
        let address = Address::Tcp((Ipv6Addr::LOCALHOST, 0).into());
        let listeners = listen(&address, 2, &ListenOptions::default()).unwrap();
        assert!(listeners[0].local_addr().to_string().starts_with("[::1]:"));
        connect(listeners[1].local_addr());
    }

    #[test]
    fn a_group_has_one_port_and_the_kernel_spreads_connections_over_it() {
        let listeners = listen(&loopback(), 4, &ListenOptions::default()).unwrap();
        let ports: HashSet<_> = listeners
            .iter()
            .map(|listener| listener.local_addr().port())
            .collect();
        assert_eq!(ports.len(), 1);

        const CONNECTIONS: usize = 200;
        let _clients: Vec<_> = (0..CONNECTIONS)
            .map(|_| connect(listeners[0].local_addr()))
            .collect();
        let mut accepted = [0_usize; 4];
        let deadline = Instant::now() + Duration::from_secs(30);
        while accepted.iter().sum::<usize>() < CONNECTIONS {
            assert!(Instant::now() < deadline, "only {accepted:?} arrived");
            for (listener, count) in listeners.iter().zip(&mut accepted) {
                *count += usize::from(listener.socket.accept().is_ok());
            }
        }
        // By a hash over the ports: 50 each, give or take. 10 of 200 by chance is one in 10^13.
        assert!(accepted.iter().all(|&count| 10 <= count), "{accepted:?}");
    }

    #[test]
    fn a_shared_queue_gives_to_whoever_asks() {
        let options = ListenOptions {
            shared: true,
            ..ListenOptions::default()
        };
        let listeners = listen(&loopback(), 2, &options).unwrap();
        assert!(listeners.iter().all(Listener::is_shared));
        let _clients = [0; 2].map(|_| connect(listeners[0].local_addr()));
        accept(&listeners[1]);
        accept(&listeners[1]);
        assert!(!listen(&loopback(), 1, &options).unwrap()[0].is_shared());
    }

    #[test]
    fn v4_reaches_a_v6_listener_by_choice_only() {
        for dual_stack in [false, true] {
            let options = ListenOptions {
                dual_stack,
                ..ListenOptions::default()
            };
            let everywhere = Address::Tcp((Ipv6Addr::UNSPECIFIED, 0).into());
            let listeners = listen(&everywhere, 1, &options).unwrap();
            let port = listeners[0].local_addr().port().unwrap();
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
            assert_eq!(TcpStream::connect(("127.0.0.1", port)).is_ok(), dual_stack);
        }
    }

    #[test]
    fn a_taken_port_is_refused_even_where_the_owner_would_share_it() {
        for count in [1, 3] {
            for owner_shares in [false, true] {
                let owner = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                owner.set_reuse_port(owner_shares).unwrap();
                owner.set_reuse_address(true).unwrap();
                owner.bind(&raw_address(&loopback()).unwrap()).unwrap();
                owner.listen(1).unwrap();
                let taken = bound_address(&owner, &loopback()).unwrap();

                let error = listen(&taken, count, &ListenOptions::default()).unwrap_err();
                assert!(error.is_in_use());
                let text = error.to_string();
                let first_line =
                    format!("cannot listen on {taken}: Address already in use (os error 98)");
                assert_eq!(text.lines().next(), Some(first_line.as_str()));
                assert!(text.contains("\nhint: "), "{text}");
            }
        }
    }

    #[test]
    fn our_own_groups_refuse_each_other() {
        let group = listen(&loopback(), 2, &ListenOptions::default()).unwrap();
        for count in [1, 2] {
            let error =
                listen(group[0].local_addr(), count, &ListenOptions::default()).unwrap_err();
            assert!(error.is_in_use(), "{error}");
        }
    }

    #[test]
    fn a_port_is_free_again_at_once_when_its_server_is_gone() {
        let listeners = listen(&loopback(), 2, &ListenOptions::default()).unwrap();
        let address = listeners[0].local_addr().clone();
        let client = connect(&address);
        // The server closes first, so its side of the connection lingers in TIME_WAIT.
        for listener in listeners {
            drop(listener.socket.accept());
            drop(listener);
        }
        drop(client);
        listen(&address, 2, &ListenOptions::default()).unwrap();
    }

    #[test]
    fn accepted_connections_inherit_the_options() {
        for nodelay in [true, false] {
            let options = ListenOptions {
                nodelay,
                sndbuf: Some(65_536),
                rcvbuf: Some(32_768),
                ..ListenOptions::default()
            };
            let listener = listen(&loopback(), 1, &options).unwrap().remove(0);
            let _client = connect(listener.local_addr());
            let accepted = accept(&listener);
            assert_eq!(listener.nodelay().unwrap(), nodelay);
            assert_eq!(accepted.tcp_nodelay().unwrap(), nodelay);
            assert_eq!(
                accepted.send_buffer_size().unwrap(),
                listener.sndbuf().unwrap()
            );
            assert_eq!(
                accepted.recv_buffer_size().unwrap(),
                listener.rcvbuf().unwrap()
            );
            // socket(7): the kernel doubles what is asked.
            assert_eq!(listener.sndbuf().unwrap(), 2 * 65_536);
            assert_eq!(listener.rcvbuf().unwrap(), 2 * 32_768);
        }
    }

    #[test]
    fn the_effective_backlog_is_what_somaxconn_leaves() {
        let somaxconn = somaxconn().expect("the sysctl is readable");
        for (asked, effective) in [
            (1, 1),
            (somaxconn, somaxconn),
            (somaxconn + 1, somaxconn),
            (u32::MAX, somaxconn),
        ] {
            let options = ListenOptions {
                backlog: asked,
                ..ListenOptions::default()
            };
            assert_eq!(
                listen(&loopback(), 1, &options).unwrap()[0].backlog_effective(),
                effective
            );
        }
    }

    #[test]
    fn errors_say_the_cause_and_a_cure() {
        let text = |address: &str| {
            let address = address.parse::<Address>().unwrap();
            listen(&address, 1, &ListenOptions::default())
                .unwrap_err()
                .to_string()
        };
        // 192.0.2.0/24 is reserved for documentation (RFC 5737): no machine has it.
        let not_ours = text("192.0.2.1:0");
        assert!(
            not_ours.starts_with("cannot listen on 192.0.2.1:0: Cannot assign requested address"),
            "{not_ours}"
        );
        assert!(not_ours.contains("\nhint: no interface"), "{not_ours}");
        let no_folder = text("unix:/nonexistent/echo.sock");
        assert!(no_folder.contains("\nhint: the folder"), "{no_folder}");
    }

    #[test]
    fn what_was_ended_is_free_although_somebody_still_has_the_socket() {
        for (count, shared) in [(1, false), (2, false), (2, true)] {
            let options = ListenOptions {
                shared,
                ..ListenOptions::default()
            };
            let mut listeners = listen(&loopback(), count, &options).unwrap();
            let address = listeners[0].local_addr().clone();
            // As a ring keeps them.
            let _kept: Vec<Socket> = listeners
                .iter()
                .map(|listener| listener.socket.try_clone().unwrap())
                .collect();
            let last = listeners.pop().expect("one at least");
            for other in listeners {
                other.end();
            }
            // The last still serves, also who waited before the others ended.
            let _client = connect(&address);
            if shared {
                accept(&last);
            }
            assert!(listen(&address, count, &options).is_err());
            last.end();
            listen(&address, count, &options).unwrap();
        }
    }

    #[test]
    fn a_name_without_a_file_is_served_too() {
        let name = format!("@echometer-test-{}", std::process::id());
        let address: Address = format!("unix:{name}").parse().unwrap();
        let listener = listen(&address, 1, &ListenOptions::default())
            .unwrap()
            .remove(0);
        assert!(!Path::new(&name).exists());
        let options = super::super::ConnectOptions::default();
        super::super::connect_stream(&address, &options).unwrap();
        accept(&listener);
        let error = listen(&address, 1, &ListenOptions::default()).unwrap_err();
        assert!(matches!(error.holder, Some(Holder::Listener(_))), "{error}");
        drop(listener);
        listen(&address, 1, &ListenOptions::default()).unwrap();
    }

    #[test]
    fn only_a_reserved_port_is_called_reserved() {
        let denied = io::Error::from(rustix::io::Errno::ACCESS);
        let hint = |address: &str| hint(&denied, &address.parse().unwrap(), None);
        let start = unprivileged_port_start().expect("the sysctl is readable");
        assert_eq!(hint("127.0.0.1:1").contains("is reserved"), 1 < start);
        for address in ["127.0.0.1:0", "127.0.0.1:65535"] {
            assert!(!hint(address).contains("reserved"), "{}", hint(address));
        }
    }

    #[test]
    fn unix_listeners_share_one_queue_and_replace_a_dead_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("echo.sock");
        let address = Address::unix(&path).unwrap();
        // A std listener leaves its path behind when dropped.
        drop(UnixListener::bind(&path).unwrap());

        let listeners = listen(&address, 2, &ListenOptions::default()).unwrap();
        assert_eq!(listeners[1].local_addr(), &address);
        let _clients = [
            UnixStream::connect(&path).unwrap(),
            UnixStream::connect(&path).unwrap(),
        ];
        accept(&listeners[0]);
        accept(&listeners[1]);

        let error = listen(&address, 1, &ListenOptions::default()).unwrap_err();
        assert!(error.is_in_use(), "{error}");
        assert!(
            UnixStream::connect(&path).is_ok(),
            "the living server lost its path"
        );
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = listen(
            &Address::unix(file.path()).unwrap(),
            1,
            &ListenOptions::default(),
        )
        .unwrap_err();
        assert!(error.is_in_use(), "{error}");
        assert!(file.path().exists());
    }

    #[test]
    fn a_listener_can_be_given_up_as_a_descriptor() {
        let listener = listen(&loopback(), 1, &ListenOptions::default())
            .unwrap()
            .remove(0);
        let address = listener.local_addr().clone();
        let fd = listener.into_fd();
        connect(&address);
        assert!(SockRef::from(&fd).is_listener().unwrap());
    }
}
