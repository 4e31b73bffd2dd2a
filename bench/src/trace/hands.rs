//! What does the steps: system calls with epoll, or io_uring operations. Both do the same things to the same kind of
//! sockets, so that a trace of one can be laid beside a trace of the other.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, epoll, poll},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, bind,
        connect, listen, recv, send, shutdown, socket_with, sockopt,
    },
};

use echometer_host::sockets::{ConnectedToItself, end_by_reset, is_connected_to_itself};
use echometer_ring::{Single, can_listen};

/// How long a step may take before it is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes that one step receives.
const ROOM: usize = 4096;

/// Whose hands do the steps of a side.
pub(super) enum Hands {
    /// System calls; a server waits with epoll, a client with poll.
    Calls {
        epoll: Option<OwnedFd>,
        limit: Duration,
    },
    /// io_uring operations.
    Ring {
        ring: Box<Single>,
        /// This kernel has bind and listen among them (6.11); else they are calls.
        listens: bool,
    },
}

impl Hands {
    /// A server's: it waits with epoll.
    pub(super) fn calls_of_a_server() -> io::Result<Hands> {
        let epoll = Some(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        Ok(Hands::Calls {
            epoll,
            limit: PATIENCE,
        })
    }

    /// A client's: it waits with poll.
    pub(super) fn calls_of_a_client() -> Hands {
        Hands::Calls {
            epoll: None,
            limit: PATIENCE,
        }
    }

    pub(super) fn ring() -> io::Result<Hands> {
        Ok(Hands::Ring {
            ring: Box::new(Single::new(PATIENCE)?),
            listens: can_listen(),
        })
    }

    /// Gives steps up after `limit` from now on.
    pub(super) fn set_limit(&mut self, new: Duration) {
        match self {
            Hands::Calls { limit, .. } => *limit = new,
            Hands::Ring { ring, .. } => ring.set_limit(new),
        }
    }

    /// How a step is called in the table.
    pub(super) fn name(&self, call: &str, operation: &str) -> String {
        match self {
            Hands::Calls { .. } => call.to_owned(),
            Hands::Ring { listens: false, .. } if matches!(operation, "BIND" | "LISTEN") => {
                call.to_owned()
            }
            Hands::Ring { .. } => format!("IORING_OP_{operation}"),
        }
    }

    /// A TCP socket: with calls it is non-blocking, with a ring it is the ring that waits.
    pub(super) fn socket(&mut self, address: SocketAddr) -> io::Result<OwnedFd> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        match self {
            Hands::Calls { .. } => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                Ok(socket_with(family, SocketType::STREAM, flags, None)?)
            }
            Hands::Ring { ring, .. } => ring.socket(family),
        }
    }

    pub(super) fn bind(&mut self, socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
        match self {
            Hands::Calls { .. } => Ok(bind(socket, &address)?),
            Hands::Ring { listens: false, .. } => Ok(bind(socket, &address)?),
            Hands::Ring { ring, .. } => ring.bind(socket.as_fd(), &address.into()),
        }
    }

    pub(super) fn listen(&mut self, socket: &OwnedFd, backlog: u32) -> io::Result<()> {
        match self {
            Hands::Calls { .. } => {
                listen(socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
                self.watch(socket)
            }
            Hands::Ring { listens: false, .. } => {
                Ok(listen(socket, i32::try_from(backlog).unwrap_or(i32::MAX))?)
            }
            Hands::Ring { ring, .. } => ring.listen(socket.as_fd(), backlog),
        }
    }

    pub(super) fn connect(&mut self, socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
        match self {
            Hands::Calls { limit, .. } => match connect(socket, &address) {
                Err(Errno::INPROGRESS) => {
                    wait_for(socket.as_fd(), PollFlags::OUT, *limit)?;
                    sockopt::socket_error(socket)??;
                }
                done => done?,
            },
            Hands::Ring { ring, .. } => ring.connect(socket.as_fd(), &address.into())?,
        }
        if is_connected_to_itself(socket) {
            end_by_reset(socket);
            return Err(ConnectedToItself.into());
        }
        Ok(())
    }

    pub(super) fn accept(&mut self, listener: &OwnedFd) -> io::Result<OwnedFd> {
        match self {
            Hands::Calls { .. } => {
                self.wait(listener)?;
                let accepted = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
                self.watch(&accepted)?;
                Ok(accepted)
            }
            Hands::Ring { ring, .. } => ring.accept(listener.as_fd()),
        }
    }

    pub(super) fn send(&mut self, socket: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Hands::Calls { .. } => Ok(send(socket, bytes, SendFlags::NOSIGNAL)?),
            Hands::Ring { ring, .. } => ring.send(socket.as_fd(), bytes),
        }
    }

    /// What there is, at least a byte; nothing at the end of the stream.
    pub(super) fn recv(&mut self, socket: &OwnedFd) -> io::Result<Vec<u8>> {
        match self {
            Hands::Calls { .. } => {
                self.wait(socket)?;
                let mut bytes = vec![0; ROOM];
                let (_, n) = recv(socket, bytes.as_mut_slice(), RecvFlags::empty())?;
                bytes.truncate(n);
                Ok(bytes)
            }
            Hands::Ring { ring, .. } => ring.recv(socket.as_fd(), ROOM),
        }
    }

    pub(super) fn shutdown(&mut self, socket: &OwnedFd) -> io::Result<()> {
        match self {
            Hands::Calls { .. } => Ok(shutdown(socket, Shutdown::Write)?),
            Hands::Ring { ring, .. } => ring.shutdown_write(socket.as_fd()),
        }
    }

    pub(super) fn close(&mut self, socket: OwnedFd) -> io::Result<()> {
        match self {
            Hands::Calls { .. } => {
                drop(socket);
                Ok(())
            }
            Hands::Ring { ring, .. } => ring.close(socket),
        }
    }

    /// A server's sockets are in its epoll set from the beginning, as in the engine.
    fn watch(&self, socket: &OwnedFd) -> io::Result<()> {
        if let Hands::Calls {
            epoll: Some(epoll), ..
        } = self
        {
            let data = epoll::EventData::new_u64(socket.as_raw_fd() as u64);
            epoll::add(epoll, socket, data, epoll::EventFlags::IN)?;
        }
        Ok(())
    }

    /// Waits until there is something to read.
    fn wait(&self, socket: &OwnedFd) -> io::Result<()> {
        let Hands::Calls { epoll, limit } = self else {
            return Ok(());
        };
        let Some(epoll) = epoll else {
            return wait_for(socket.as_fd(), PollFlags::IN, *limit);
        };
        let deadline = Instant::now() + *limit;
        let mut events: Vec<epoll::Event> = Vec::with_capacity(8);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            events.clear();
            match epoll::wait(
                epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&timespec(left)?),
            ) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {
                    let ours = socket.as_raw_fd() as u64;
                    if events.iter().any(|event| event.data.u64() == ours) {
                        return Ok(());
                    }
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Waits with poll(2).
pub(super) fn wait_for(fd: BorrowedFd<'_>, flags: PollFlags, limit: Duration) -> io::Result<()> {
    let limit = timespec(limit)?;
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&limit)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn timespec(limit: Duration) -> io::Result<Timespec> {
    Timespec::try_from(limit).map_err(io::Error::other)
}
