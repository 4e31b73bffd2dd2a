//! One operation at a time, each waited for: how a connection's life looks when every step of it is an io_uring
//! operation. For beginnings (a server's listener) and for teaching (a trace), not for speed.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny};

use crate::setup;

/// The operation that is waited for.
const OPERATION: u64 = 1;
/// The request to end it.
const CANCEL: u64 = 2;

/// A small ring that does one thing after the other. Sockets are plain descriptors and blocking: the ring waits, and no
/// call does.
pub struct Single {
    ring: IoUring,
    /// How long an operation may take.
    limit: Duration,
}

impl Single {
    /// A ring whose operations are given up after `limit`.
    ///
    /// # Errors
    /// What the kernel said: `ENOSYS` or `EPERM` where there is no io_uring, or none for this process.
    pub fn new(limit: Duration) -> io::Result<Single> {
        Ok(Single {
            ring: setup::when_memory_is_back(|| IoUring::new(4))?,
            limit,
        })
    }

    /// How long operations may take from now on.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// `IORING_OP_SOCKET` (5.19): a TCP socket, close-on-exec.
    ///
    /// # Errors
    /// What the kernel said: `EMFILE`, `EAFNOSUPPORT`, `EINVAL` where it lacks the operation.
    pub fn socket(&mut self, family: AddressFamily) -> io::Result<OwnedFd> {
        self.socket_with(family, 0)
    }

    /// As [`Single::socket`], with further `SOCK_` flags.
    pub(crate) fn socket_with(&mut self, family: AddressFamily, flags: i32) -> io::Result<OwnedFd> {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags;
        let entry = opcode::Socket::new(i32::from(family.as_raw()), kind, 0).build();
        let made = self.perform(entry, ())?;
        // SAFETY: the operation that just succeeded made this descriptor, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(made) })
    }

    /// `IORING_OP_BIND` (6.11).
    ///
    /// # Errors
    /// What the kernel said: `EADDRINUSE`, `EACCES`, `EADDRNOTAVAIL`, `EINVAL` where it lacks the operation.
    pub fn bind(&mut self, socket: BorrowedFd<'_>, address: &SocketAddrAny) -> io::Result<()> {
        let address = Box::new(address.clone());
        let (name, len) = (address.as_ptr().cast(), address.addr_len());
        let entry = opcode::Bind::new(Fd(socket.as_raw_fd()), name, len).build();
        self.perform(entry, address).map(drop)
    }

    /// `IORING_OP_LISTEN` (6.11).
    ///
    /// # Errors
    /// What the kernel said: `EADDRINUSE`, `EINVAL` where it lacks the operation.
    pub fn listen(&mut self, socket: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        let entry = opcode::Listen::new(Fd(socket.as_raw_fd()), backlog).build();
        self.perform(entry, ()).map(drop)
    }

    /// `IORING_OP_ACCEPT` (5.5): the next connection, close-on-exec.
    ///
    /// # Errors
    /// What the kernel said: `EMFILE`; `TimedOut` where nobody came.
    pub fn accept(&mut self, listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let fd = Fd(listener.as_raw_fd());
        let entry = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC)
            .build();
        let made = self.perform(entry, ())?;
        // SAFETY: the operation that just succeeded made this descriptor, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(made) })
    }

    /// `IORING_OP_CONNECT` (5.5).
    ///
    /// # Errors
    /// What the kernel said: `ECONNREFUSED`, `EADDRNOTAVAIL`; `TimedOut` where there was no answer: the attempt itself
    /// goes on in the kernel, and the socket becomes writable should it succeed.
    pub fn connect(&mut self, socket: BorrowedFd<'_>, address: &SocketAddrAny) -> io::Result<()> {
        let address = Box::new(address.clone());
        let (name, len) = (address.as_ptr().cast(), address.addr_len());
        let entry = opcode::Connect::new(Fd(socket.as_raw_fd()), name, len).build();
        self.perform(entry, address).map(drop)
    }

    /// `IORING_OP_SEND` (5.6), without a signal where the peer is gone.
    ///
    /// # Errors
    /// What the kernel said: `EPIPE`, `ECONNRESET`; `TimedOut` where the peer reads nothing.
    pub fn send(&mut self, socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        let bytes: Box<[u8]> = bytes.into();
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        Ok(self.perform(entry, bytes)? as usize)
    }

    /// `IORING_OP_RECV` (5.6): up to `len` bytes; none at the end of the stream.
    ///
    /// # Errors
    /// What the kernel said: `ECONNRESET`; `TimedOut` where nothing came.
    pub fn recv(&mut self, socket: BorrowedFd<'_>, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let room = u32::try_from(len).unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(Fd(socket.as_raw_fd()), bytes.as_mut_ptr(), room).build();
        // The heap memory stays where it is while the vector itself is moved in and out.
        let (received, mut bytes) = self.perform_with(entry, bytes)?;
        bytes.truncate(received as usize);
        Ok(bytes)
    }

    /// `IORING_OP_SHUTDOWN` (5.11) of the sending half.
    ///
    /// # Errors
    /// What the kernel said: `ENOTCONN`.
    pub fn shutdown_write(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let entry = opcode::Shutdown::new(Fd(socket.as_raw_fd()), libc::SHUT_WR).build();
        self.perform(entry, ()).map(drop)
    }

    /// `IORING_OP_CLOSE` (5.6).
    ///
    /// # Errors
    /// What the kernel said; the descriptor is gone in any case.
    pub fn close(&mut self, file: OwnedFd) -> io::Result<()> {
        let raw = file.into_raw_fd();
        let entry = opcode::Close::new(Fd(raw)).build();
        self.perform(entry, ()).map(drop)
    }

    fn perform<T>(&mut self, entry: squeue::Entry, memory: T) -> io::Result<i32> {
        self.perform_with(entry, memory).map(|(result, _)| result)
    }

    /// Submits one operation and waits for its last word, whatever happens. `memory` is what the entry points into.
    fn perform_with<T>(&mut self, entry: squeue::Entry, memory: T) -> io::Result<(i32, T)> {
        // SAFETY: what the entry points to lies on the heap in `memory`, which is freed only after the operation's
        // completion was seen, or never; descriptors are borrowed (or given up) for longer than this call.
        unsafe { self.ring.submission().push(&entry.user_data(OPERATION)) }
            .expect("the queue is empty at each call");
        let mut deadline = Instant::now() + self.limit;
        let mut cancelled = false;
        loop {
            let left = Timespec::from(deadline.saturating_duration_since(Instant::now()));
            let arguments = SubmitArgs::new().timespec(&left);
            let waited = self.ring.submitter().submit_with_args(1, &arguments);
            while let Some(completion) = self.ring.completion().next() {
                if completion.user_data() == CANCEL {
                    continue;
                }
                return match completion.result() {
                    done if 0 <= done => Ok((done, memory)),
                    failed if cancelled && failed == -libc::ECANCELED => {
                        Err(io::ErrorKind::TimedOut.into())
                    }
                    // A connect that is cancelled says EINTR.
                    failed if cancelled && failed == -libc::EINTR => {
                        Err(io::ErrorKind::TimedOut.into())
                    }
                    failed => Err(Errno::from_raw_os_error(-failed).into()),
                };
            }
            match waited.map_err(|error| (Errno::from_io_error(&error), error)) {
                Ok(_) | Err((Some(Errno::INTR), _)) => {}
                Err((Some(Errno::TIME), _)) => {
                    if !cancelled {
                        cancelled = true;
                        let cancel = opcode::AsyncCancel::new(OPERATION).build();
                        // SAFETY: a cancel points to nothing.
                        unsafe { self.ring.submission().push(&cancel.user_data(CANCEL)) }
                            .expect("it has room for two");
                    }
                    // A socket's operation ends at once when cancelled.
                    deadline = Instant::now() + Duration::from_secs(1);
                }
                Err((_, error)) => {
                    // The kernel may still hold the operation: its memory is left to it.
                    mem::forget(memory);
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::os::fd::AsFd;

    use super::*;
    use crate::listener::listen;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn a_whole_connection_is_made_of_operations() {
        let mut ring = Single::new(LIMIT).expect("io_uring");
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let listener = ring.socket(AddressFamily::INET).expect("a socket");
        ring.bind(listener.as_fd(), &any.into()).expect("6.11");
        ring.listen(listener.as_fd(), 16).expect("6.11");
        let address = rustix::net::getsockname(&listener).expect("bound");
        let client = ring.socket(AddressFamily::INET).expect("a socket");
        ring.connect(client.as_fd(), &address).expect("it listens");
        let server = ring.accept(listener.as_fd()).expect("one waits");
        assert_eq!(ring.send(client.as_fd(), b"hello").expect("connected"), 5);
        assert_eq!(ring.recv(server.as_fd(), 64).expect("sent"), b"hello");
        ring.shutdown_write(client.as_fd()).expect("connected");
        assert_eq!(ring.recv(server.as_fd(), 64).expect("the end"), b"");
        ring.close(server).expect("open");
        assert_eq!(ring.recv(client.as_fd(), 64).expect("the end"), b"");
    }

    #[test]
    fn what_never_ends_is_given_up_and_the_ring_goes_on() {
        let mut ring = Single::new(LIMIT).expect("io_uring");
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let listener = listen(&any.into(), 16, |_| Ok(())).expect("6.11");
        rustix::io::ioctl_fionbio(&listener, false).expect("a socket");
        ring.set_limit(Duration::from_millis(20));
        let error = ring.accept(listener.as_fd()).expect_err("nobody comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let again = ring.accept(listener.as_fd()).expect_err("nobody comes");
        assert_eq!(again.kind(), io::ErrorKind::TimedOut);
        ring.set_limit(LIMIT);
        let address = rustix::net::getsockname(&listener).expect("bound");
        let client = ring.socket(AddressFamily::INET).expect("a socket");
        ring.connect(client.as_fd(), &address).expect("it listens");
        ring.accept(listener.as_fd()).expect("one waits");
    }

    #[test]
    fn refusals_are_the_kernel_s_own() {
        let mut ring = Single::new(LIMIT).expect("io_uring");
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address: SocketAddrAny = taken.local_addr().expect("bound").into();
        let socket = ring.socket(AddressFamily::INET).expect("a socket");
        let error = ring
            .bind(socket.as_fd(), &address)
            .expect_err("it is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(taken);
        let error = ring
            .connect(socket.as_fd(), &address)
            .expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
