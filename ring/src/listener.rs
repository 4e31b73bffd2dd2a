//! The beginning of a server's life as io_uring operations: socket, bind, listen (`IORING_OP_BIND` and `_LISTEN`, 6.11).
//!
//! It happens once, before any worker has a ring, so it uses a small ring of its own and waits for each step. What is
//! set on the socket between the steps is the caller's business.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};
use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use crate::features::Feature;
use crate::setup;

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
    use std::os::fd::AsFd;

    let mut ring = IoUring::new(2)?;
    let domain = i32::from(address.address_family().as_raw());
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let made = perform(&mut ring, &opcode::Socket::new(domain, kind, 0).build())?;
    // SAFETY: the operation that just succeeded made this descriptor, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(made) };
    prepare(socket.as_fd())?;
    let fd = Fd(socket.as_raw_fd());
    let (name, len) = (address.as_ptr().cast(), address.addr_len());
    perform(&mut ring, &opcode::Bind::new(fd, name, len).build())?;
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    perform(&mut ring, &opcode::Listen::new(fd, backlog).build())?;
    Ok(socket)
}

/// Whether this kernel has the operations for [`listen`], and lets this process use io_uring.
pub fn can_listen() -> bool {
    setup::operations_exist(Feature::BindListen)
}

/// Submits one operation and waits for its result.
fn perform(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<i32> {
    // SAFETY: what the entry points to (the address) is borrowed by the caller for longer than this call, and this call
    // returns only when the operation has ended: none of the three can be left pending.
    unsafe { ring.submission().push(entry) }.expect("the queue is empty at each call");
    loop {
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if let Some(completion) = ring.completion().next() {
            return match completion.result() {
                done if 0 <= done => Ok(done),
                failed => Err(Errno::from_raw_os_error(-failed).into()),
            };
        }
    }
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
