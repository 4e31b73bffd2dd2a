//! The beginning of a server's life as io_uring operations: socket, bind, listen (`IORING_OP_BIND` and `_LISTEN`, 6.11).
//!
//! It happens once, before any worker has a ring, so it uses a small ring of its own and waits for each step. What is
//! set on the socket between the steps is the caller's business.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::SocketAddrAny;

use crate::single::Single;

/// None of the three operations can be left pending, so that this is never met.
const LIMIT: Duration = Duration::from_secs(60);

/// A listening TCP socket (close-on-exec, non-blocking), made by three operations. `prepare` is called before the bind:
/// it sets options.
///
/// # Errors
/// What the kernel or `prepare` said; `EINVAL` where it lacks these operations.
pub fn listen(
    address: &SocketAddrAny,
    backlog: u32,
    prepare: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    let mut ring = Single::new(LIMIT)?;
    let socket = ring.socket_with(address.address_family(), libc::SOCK_NONBLOCK)?;
    prepare(socket.as_fd())?;
    ring.bind(socket.as_fd(), address)?;
    ring.listen(socket.as_fd(), backlog)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn three_operations_make_a_listener() {
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let socket = listen(&any.into(), 16, |_| Ok(())).expect("6.11 or newer");
        let listener = TcpListener::from(socket);
        listener.set_nonblocking(false).expect("blocking");
        let address = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(address).expect("connect");
        client.write_all(b"x").expect("write");
        let (mut server, _) = listener.accept().expect("accept");
        server.read_exact(&mut [0]).expect("read");
    }

    #[test]
    fn a_taken_port_is_said_by_the_bind() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = taken.local_addr().expect("bound");
        let error = listen(&address.into(), 16, |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
