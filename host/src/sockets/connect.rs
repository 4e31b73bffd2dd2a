//! How does a client connect? One connection at a time, or many begun together and finished one after
//! the other, with a time limit in every case. The one connect of all programs: none of them talks to itself.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use socket2::Socket;

use super::{local_ports, raw_address, set_buffers, stream_socket};
use crate::address::Address;

/// What a connection is made with.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// `TCP_NODELAY`.
    pub nodelay: bool,
    /// `SO_SNDBUF` in bytes, as asked.
    pub sndbuf: Option<usize>,
    /// `SO_RCVBUF` in bytes, as asked.
    pub rcvbuf: Option<usize>,
    /// The address to connect from. The port is chosen by `connect` with the peer known
    /// (`IP_BIND_ADDRESS_NO_PORT`), so that each source has a full range of ports for each peer.
    pub source: Option<IpAddr>,
    /// How long [`connect_stream`] waits. Linux itself gives up after about two minutes.
    pub time_limit: Duration,
}

impl Default for ConnectOptions {
    /// No Nagle delay, five seconds, everything else the kernel's choice.
    fn default() -> ConnectOptions {
        ConnectOptions {
            nodelay: true,
            sndbuf: None,
            rcvbuf: None,
            source: None,
            time_limit: Duration::from_secs(5),
        }
    }
}

/// Connects to `address` and waits until it is done; the socket is non-blocking and close-on-exec.
///
/// # Errors
/// What the kernel said (`ECONNREFUSED`, `EADDRNOTAVAIL` where the ports have run out, ...), or
/// [`io::ErrorKind::TimedOut`] after `options.time_limit`.
pub fn connect_stream(address: &Address, options: &ConnectOptions) -> io::Result<OwnedFd> {
    let deadline = Instant::now() + options.time_limit;
    connect_start(address, options)?.finish(deadline)
}

/// Begins to connect, without waiting: the SYN is sent when this returns.
///
/// A unix socket knows no such half-way state: there this waits, up to `options.time_limit`, for a place
/// in the listener's queue.
///
/// # Errors
/// As for [`connect_stream`]; a refusal may come here or from [`Connecting::finish`].
pub fn connect_start(address: &Address, options: &ConnectOptions) -> io::Result<Connecting> {
    let socket = match address {
        Address::Tcp(peer) => start_tcp(address, *peer, options)?,
        Address::Unix(_) => connect_unix(address, options)?,
    };
    Ok(Connecting(socket))
}

/// A connection on its way.
#[derive(Debug)]
pub struct Connecting(Socket);

impl Connecting {
    /// Waits until it is connected, at most until `deadline` (at once if that has passed).
    ///
    /// # Errors
    /// As for [`connect_stream`].
    pub fn finish(self, deadline: Instant) -> io::Result<OwnedFd> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], Some(&limit)) {
                // A signal; look at the clock and wait again.
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the server did not answer in time: its listen queue may be full, or a firewall drops packets",
                    ));
                }
                Ok(_) => break,
            }
        }
        match self.0.take_error()? {
            Some(error) => Err(error),
            None if is_connected_to_itself(&self.0) => {
                end_by_reset(&self.0);
                Err(ConnectedToItself.into())
            }
            None => Ok(self.0.into()),
        }
    }
}

/// A connect that found nobody and met itself: where the port that it is to connect to is one of those that the kernel
/// gives to clients, the kernel may give that very port to the connect, and TCP then makes a connection whose two ends
/// are one socket (RFC 9293, simultaneous open). All that is written into it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connected to itself: nobody listens")]
pub struct ConnectedToItself;

impl ConnectedToItself {
    /// Whether that is what an error of a connect says.
    #[must_use]
    pub fn is(error: &io::Error) -> bool {
        let cause = error.get_ref();
        cause.is_some_and(|cause| cause.downcast_ref::<ConnectedToItself>().is_some())
    }
}

impl From<ConnectedToItself> for io::Error {
    /// As good as a refusal, for that is what it would have been.
    fn from(error: ConnectedToItself) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionRefused, error)
    }
}

/// Whether the two ends of a TCP connection are one socket; see [`ConnectedToItself`]. To be asked after a connect.
#[must_use]
pub fn is_connected_to_itself(socket: impl AsFd) -> bool {
    // A unix socket has no address of that kind, and its listener is another socket always.
    let own = rustix::net::getsockname(&socket).ok();
    let own = own.and_then(|own| SocketAddr::try_from(own).ok());
    let peer = rustix::net::getpeername(&socket).ok().flatten();
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    own.is_some() && own == peer
}

/// Makes the end of a connection a reset, which gives its port back at once: after a FIN it is kept for a minute
/// (TIME_WAIT), which a server that wants to come back may need.
pub fn end_by_reset(socket: impl AsFd) {
    // Should that fail, it ends with a FIN.
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// With fewer local ports than this, one in TIME_WAIT is missed.
const PORTS_FEW: usize = 1_024;

/// Closes a connection that was made only to see who is there, before those that are to be measured. Where local ports are
/// few it ends with a reset, which gives its port back at once; else with a FIN, as any other.
pub fn close_trial(socket: impl AsFd + Into<OwnedFd>) {
    if local_ports().is_some_and(|ports| ports.len() < PORTS_FEW) {
        end_by_reset(&socket);
    }
    drop(socket.into());
}

/// Whether the kernel may give `address`'s own port to who connects to it, so that [`ConnectedToItself`] can happen.
#[must_use]
pub fn may_connect_to_itself(address: &Address) -> bool {
    match address {
        Address::Unix(_) => false,
        Address::Tcp(peer) => local_ports().is_none_or(|ports| ports.contains(&peer.port())),
    }
}

impl AsFd for Connecting {
    /// Becomes writable when [`Connecting::finish`] need not wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A socket with its options set, ready to be connected to `address` and not connected yet: for who connects by other
/// means than [`connect_start`], such as a ring. It is close-on-exec; `nonblocking` is the caller's choice, because
/// io_uring waits on a blocking socket and gives up at once on a non-blocking one.
///
/// # Errors
/// No descriptor is left, the source is of another family than the peer, or it is no address of this machine.
pub fn prepare_stream(
    address: &Address,
    options: &ConnectOptions,
    nonblocking: bool,
) -> io::Result<OwnedFd> {
    match address {
        Address::Tcp(peer) => prepare_tcp(address, *peer, options, nonblocking).map(OwnedFd::from),
        Address::Unix(_) => {
            let socket = stream_socket(address, nonblocking)?;
            set_buffers(&socket, options.sndbuf, options.rcvbuf)?;
            Ok(socket.into())
        }
    }
}

fn start_tcp(address: &Address, peer: SocketAddr, options: &ConnectOptions) -> io::Result<Socket> {
    let socket = prepare_tcp(address, peer, options, true)?;
    match socket.connect(&raw_address(address)?) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket),
    }
}

fn prepare_tcp(
    address: &Address,
    peer: SocketAddr,
    options: &ConnectOptions,
    nonblocking: bool,
) -> io::Result<Socket> {
    let socket = stream_socket(address, nonblocking)?;
    if options.nodelay {
        socket.set_tcp_nodelay(true)?;
    }
    set_buffers(&socket, options.sndbuf, options.rcvbuf)?;
    if let Some(source) = options.source {
        if source.is_ipv4() != peer.is_ipv4() {
            let text =
                format!("cannot connect from {source} to {peer}: one is IPv4, the other IPv6");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        // The option is of the IP level for both families (ip(7), since Linux 4.2).
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        let mut own = SocketAddr::new(source, 0);
        // A link-local address is one of each interface, so that it needs one: that which the peer is on.
        if let (SocketAddr::V6(own), SocketAddr::V6(peer)) = (&mut own, peer)
            && own.ip().is_unicast_link_local()
        {
            own.set_scope_id(peer.scope_id());
        }
        socket.bind(&own.into())?;
    }
    Ok(socket)
}

/// A non-blocking connect to a full unix listener fails with EAGAIN and no way to wait for room, so the
/// connect is made blocking, with the send timeout as its limit (unix(7), socket(7)).
fn connect_unix(address: &Address, options: &ConnectOptions) -> io::Result<Socket> {
    let socket = stream_socket(address, false)?;
    set_buffers(&socket, options.sndbuf, options.rcvbuf)?;
    // A timeout of zero would mean none at all.
    socket.set_write_timeout(Some(options.time_limit.max(Duration::from_millis(1))))?;
    socket
        .connect(&raw_address(address)?)
        .map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(
                io::ErrorKind::TimedOut,
                "the server's listen queue stayed full: it accepts nobody",
            ),
            _ => error,
        })?;
    socket.set_write_timeout(None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, TcpListener},
        os::unix::net::UnixListener,
    };

    use socket2::{Domain, SockRef, Type};

    use super::*;

    fn listener() -> (TcpListener, Address) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound").into();
        (listener, address)
    }

    fn patient() -> ConnectOptions {
        ConnectOptions {
            time_limit: Duration::from_secs(30),
            ..ConnectOptions::default()
        }
    }

    #[test]
    fn a_connection_is_made_with_its_options() {
        let (listener, address) = listener();
        for nodelay in [true, false] {
            let options = ConnectOptions {
                nodelay,
                sndbuf: Some(65_536),
                rcvbuf: Some(32_768),
                ..patient()
            };
            let fd = connect_stream(&address, &options).unwrap();
            let socket = SockRef::from(&fd);
            assert_eq!(socket.tcp_nodelay().unwrap(), nodelay);
            assert_eq!(socket.send_buffer_size().unwrap(), 2 * 65_536);
            assert_eq!(socket.recv_buffer_size().unwrap(), 2 * 32_768);
            assert!(socket.nonblocking().unwrap());
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(socket.local_addr().unwrap().as_socket(), Some(peer));
        }
    }

    #[test]
    fn many_begin_before_any_is_finished() {
        let (_listener, address) = listener();
        let begun: Vec<_> = (0..100)
            .map(|_| connect_start(&address, &patient()).unwrap())
            .collect();
        let deadline = Instant::now() + Duration::from_secs(30);
        for connecting in begun {
            let fd = connecting.finish(deadline).unwrap();
            assert!(SockRef::from(&fd).peer_addr().is_ok());
        }
    }

    #[test]
    fn a_source_is_where_the_connection_comes_from() {
        let (listener, address) = listener();
        let source = Ipv4Addr::new(127, 0, 0, 9);
        let options = ConnectOptions {
            source: Some(source.into()),
            ..patient()
        };
        let _fd = connect_stream(&address, &options).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip(), source);

        let options = ConnectOptions {
            source: Some(std::net::Ipv6Addr::LOCALHOST.into()),
            ..patient()
        };
        let error = connect_stream(&address, &options).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }

    /// Without `IP_BIND_ADDRESS_NO_PORT` a bound port serves one connection; with it, one for each peer.
    #[test]
    fn a_source_port_is_chosen_with_the_peer_known() {
        let (_listener, address) = listener();
        let socket = connect_start(
            &address,
            &ConnectOptions {
                source: Some(Ipv4Addr::LOCALHOST.into()),
                ..patient()
            },
        );
        let fd = socket
            .unwrap()
            .finish(Instant::now() + Duration::from_secs(30))
            .unwrap();
        assert!(nix::sys::socket::getsockopt(&fd, IpBindAddressNoPort).unwrap());
    }

    /// TCP's simultaneous open, with one socket: bound to a port, it connects to that port.
    #[test]
    fn who_meets_itself_has_met_nobody() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        let own = socket.local_addr().unwrap();
        socket.connect(&own).unwrap();
        socket.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let error = Connecting(socket).finish(deadline).unwrap_err();
        assert_eq!(error.to_string(), "connected to itself: nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(ConnectedToItself::is(&error));
        // The port is free at once, for a server too that doesn't ask for SO_REUSEADDR.
        let server = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        server.bind(&own).unwrap();
        server.listen(1).unwrap();
        let fd = connect_stream(&own.as_socket().unwrap().into(), &patient()).unwrap();
        assert!(!is_connected_to_itself(&fd));
    }

    #[test]
    fn only_a_port_that_the_kernel_gives_out_can_meet_itself() {
        let ports = local_ports().expect("the sysctl can be read");
        let at = |port| Address::Tcp((Ipv4Addr::LOCALHOST, port).into());
        assert!(may_connect_to_itself(&at(*ports.start())));
        assert!(!may_connect_to_itself(&at(ports.start() - 1)));
        assert!(!may_connect_to_itself(&Address::Unix("x".into())));
    }

    #[test]
    fn nobody_there_is_a_refusal() {
        let (listener, address) = listener();
        drop(listener);
        let error = connect_stream(&address, &patient()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_server_that_never_answers_ends_in_a_time_out() {
        // Backlog 0 holds one connection; the next one's SYN is dropped, again and again.
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        full.listen(0).unwrap();
        let address = Address::Tcp(
            full.local_addr()
                .unwrap()
                .as_socket()
                .expect("an IP address"),
        );
        let _first = connect_stream(&address, &patient()).unwrap();

        let impatient = ConnectOptions {
            time_limit: Duration::from_millis(20),
            ..ConnectOptions::default()
        };
        let start = Instant::now();
        let error = connect_stream(&address, &impatient).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(Duration::from_millis(20) <= start.elapsed());
    }

    #[test]
    fn unix_sockets_connect_and_time_out_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("echo.sock");
        let address = Address::unix(&path).unwrap();
        assert_eq!(
            connect_stream(&address, &patient()).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );

        let listener = UnixListener::bind(&path).unwrap();
        let fd = connect_stream(&address, &patient()).unwrap();
        assert!(SockRef::from(&fd).nonblocking().unwrap());
        drop((listener, fd));
        assert_eq!(
            connect_stream(&address, &patient()).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );

        std::fs::remove_file(&path).unwrap();
        let full = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        full.bind(&raw_address(&address).unwrap()).unwrap();
        full.listen(0).unwrap();
        let _first = connect_stream(&address, &patient()).unwrap();
        let impatient = ConnectOptions {
            time_limit: Duration::from_millis(20),
            ..ConnectOptions::default()
        };
        assert_eq!(
            connect_stream(&address, &impatient).unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }
}
