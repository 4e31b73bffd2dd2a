//! What the trials are played with: a ring that is waited for, sockets that need no address of this machine, bytes that tell
//! one buffer from another.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType,
};

use super::Way;
use crate::event::Event;
use crate::features::{Extras, Feature, Features};
use crate::payload::Payload;
use crate::ring::Ring;
use crate::setup::{Config, SetupError};
use crate::slot::Slot;

/// How long a trial may take. The slowest pushes some megabytes through loopback.
pub(super) const TRIAL_LIMIT: Duration = Duration::from_secs(5);

/// Why a trial did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The kernel does something else than it should.
    Wrong(String),
    /// It could not be tried: descriptors, memory or a right are lacking. That is no finding about the kernel.
    Lacking(SetupError),
}

impl From<String> for Fault {
    fn from(text: String) -> Fault {
        Fault::Wrong(text)
    }
}

impl From<&str> for Fault {
    fn from(text: &str) -> Fault {
        Fault::Wrong(text.into())
    }
}

impl From<SetupError> for Fault {
    fn from(error: SetupError) -> Fault {
        Fault::Lacking(error)
    }
}

/// A ring for trials: with few buffers, so that they run out.
pub(super) fn small(features: Features) -> Config {
    Config {
        entries: 8,
        cq_entries: 64,
        slots: 8,
        buffers: 64,
        buffer_size: 512,
        features,
        ..Config::default()
    }
}

/// A ring, and how a trial waits for what it must say.
pub(super) struct Scene {
    pub(super) ring: Ring,
    pub(super) deadline: Instant,
}

impl Scene {
    /// For unix sockets, which refuse zero-copy sends.
    pub(super) fn new(way: Way) -> Result<Scene, Fault> {
        let features = way.features.without(Feature::SendZc);
        Scene::of(&small(features), way.extras)
    }

    pub(super) fn of(config: &Config, extras: Extras) -> Result<Scene, Fault> {
        let ring = Ring::assemble(config, extras)?;
        Ok(Scene {
            ring,
            deadline: Instant::now() + TRIAL_LIMIT,
        })
    }

    pub(super) fn install(&mut self, file: &impl AsFd) -> Result<Slot, Fault> {
        self.ring.install(file.as_fd()).map_err(text("install"))
    }

    /// Waits until `find` takes an event. Those that it gives back are nobody's.
    pub(super) fn wait_for<T>(
        &mut self,
        what: &str,
        mut find: impl FnMut(&mut Ring, Event) -> Result<T, Event>,
    ) -> Result<T, Fault> {
        // What a silent send did is known when a submit returns, and wakes nobody.
        let mut limit = None;
        loop {
            let submitted = match limit {
                None => self.ring.submit(),
                limit => self.ring.submit_and_wait(limit),
            };
            submitted.map_err(text("wait"))?;
            limit = Some(Duration::from_millis(50));
            while let Some(event) = self.ring.next_event() {
                match find(&mut self.ring, event) {
                    Ok(found) => return Ok(found),
                    Err(Event::Recv {
                        result: Ok(Some(buffer)),
                        ..
                    }) => self.ring.release(buffer),
                    Err(Event::Accept {
                        result: Err(error), ..
                    }) if error != Errno::CANCELED => return Err(text("accept")(error)),
                    Err(_) => {}
                }
            }
            if self.deadline < Instant::now() {
                return Err(format!("{what} does not come").into());
            }
        }
    }

    pub(super) fn accepted(&mut self) -> Result<(Slot, bool), Fault> {
        self.wait_for("a connection", |_, event| match event {
            Event::Accept {
                result: Ok(slot),
                more,
                ..
            } => Ok((slot, more)),
            other => Err(other),
        })
    }

    /// The next piece of a connection, or `None` at its end.
    pub(super) fn received(&mut self, slot: Slot) -> Result<Option<Vec<u8>>, Fault> {
        self.wait_for("a piece", |ring, event| match event {
            Event::Recv {
                slot: of, result, ..
            } if of == slot => Ok(match result {
                Ok(Some(buffer)) => {
                    let bytes = ring.bytes(&buffer).to_vec();
                    ring.release(buffer);
                    Ok(Some(bytes))
                }
                Ok(None) => Ok(None),
                Err(error) => Err(text("receive")(error)),
            }),
            other => Err(other),
        })?
    }

    pub(super) fn sent(&mut self) -> Result<usize, Fault> {
        self.wait_for("the end of a send", |_, event| match event {
            Event::Sent { bytes, .. } => Ok(Ok(bytes)),
            Event::Unsent { result, .. } => Ok(Err(format!("send: {result:?}").into())),
            other => Err(other),
        })?
    }
}

/// What a failed step means.
pub(super) fn text<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Fault {
    move |error| {
        let source: io::Error = error.into();
        match Errno::from_io_error(&source) {
            Some(errno) if is_lack(errno) => {
                Fault::Lacking(SetupError::Other { step: what, source })
            }
            _ => Fault::Wrong(format!("{what}: {source}")),
        }
    }
}

/// Something ran out that has nothing to do with what the kernel can.
fn is_lack(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN
    )
}

pub(super) fn heap(bytes: &[u8]) -> Payload {
    Payload::Heap {
        bytes: bytes.into(),
        start: 0,
    }
}

/// Sockets that need no address of this machine.
pub(super) fn unix_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// A listener under a name of the kernel's choice, which is in no file system.
pub(super) fn unix_listener() -> io::Result<(OwnedFd, SocketAddrAny)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new_unnamed())?;
    rustix::net::listen(&listener, 8)?;
    let name = rustix::net::getsockname(&listener)?;
    Ok((listener, name))
}

pub(super) fn connect(name: &SocketAddrAny) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, name)?;
    Ok(socket)
}

pub(super) fn tcp_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let far = TcpStream::connect(listener.local_addr()?)?;
    far.set_nodelay(true)?;
    let (near, _) = listener.accept()?;
    Ok((near, far))
}

pub(super) fn send_all(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let sent = rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)?;
    match sent == bytes.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Appends all that has come. Whether that was the end.
pub(super) fn take_all(socket: &OwnedFd, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 16 << 10];
    loop {
        match rustix::net::recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Ok(true),
            Ok((count, _)) => into.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the peer of a closed connection sees its end in time.
pub(super) fn ends_within(socket: &OwnedFd, limit: Duration) -> bool {
    wait_readable(socket, limit);
    matches!(
        rustix::net::recv(socket, &mut [0; 1], RecvFlags::DONTWAIT),
        Ok((0, _)) | Err(Errno::CONNRESET)
    )
}

pub(super) fn wait_readable(socket: &OwnedFd, limit: Duration) {
    let limit = rustix::time::Timespec {
        tv_sec: limit.as_secs() as _,
        tv_nsec: limit.subsec_nanos().into(),
    };
    // An interruption is as good as the time being up: who calls looks at the socket.
    let _ = rustix::event::poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&limit));
}

/// Sends in chunks of 1 to 4,000 bytes, so that buffers are filled in part and bundles begin anywhere.
pub(super) fn send_chunks(mut stream: TcpStream, bytes: usize) -> io::Result<()> {
    let mut noise = Noise::new();
    let mut sizes = Noise { state: 42 };
    let mut left = bytes;
    while 0 < left {
        let size = (1 + sizes.next_word() as usize % 4_000).min(left);
        let chunk: Vec<u8> = (0..size).map(|_| noise.next_byte()).collect();
        stream.write_all(&chunk)?;
        left -= size;
    }
    Ok(())
}

/// Bytes that don't repeat where a buffer is mistaken for another: xorshift (Marsaglia 2003).
pub(super) struct Noise {
    pub(super) state: u64,
}

impl Noise {
    pub(super) fn new() -> Noise {
        Noise {
            state: 0x9e37_79b9_7f4a_7c15,
        }
    }

    pub(super) fn next_word(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    pub(super) fn next_byte(&mut self) -> u8 {
        (self.next_word() >> 32) as u8
    }
}
