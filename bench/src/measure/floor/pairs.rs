//! Loopback connections of which one thread holds both ends, and the least that can be done with them: send all,
//! receive all, send back, receive back. No waiting, no waking, no bookkeeping: what is left is the kernel's TCP.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

use echometer_host::{
    address::Address,
    receive_buffer::ReceiveBuffer,
    sockets::{ConnectOptions, connect_stream},
};

/// What a receive takes at most: larger messages need several, as they would in a server.
const BUFFER_MAX: usize = 256 << 10;
/// Loopback moves bytes within the send itself; a round that stands still this long never ends.
const STALL_MAX: Duration = Duration::from_secs(2);

/// What the pairs are, apart from their number the same as the connections of the load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PairsPlan {
    /// How many pairs; at least 1.
    pub pairs: u32,
    /// Bytes in a message; at least 1.
    pub message_size: u32,
    /// Whether Nagle's algorithm stays on.
    pub nagle: bool,
    /// SO_SNDBUF in bytes, where asked for.
    pub sndbuf: Option<u32>,
    /// SO_RCVBUF in bytes, where asked for.
    pub rcvbuf: Option<u32>,
}

/// Open pairs.
pub(super) struct Pairs {
    ends: Vec<[TcpStream; 2]>,
    message: Vec<u8>,
    buffer: ReceiveBuffer,
    /// Messages that did not go through in one send and one receive; reused, so that a round allocates nothing.
    late: Vec<Late>,
}

/// A message on its way.
struct Late {
    pair: usize,
    sent: usize,
    received: usize,
}

impl Pairs {
    /// Opens all pairs, each end non-blocking.
    ///
    /// # Errors
    /// What the kernel says: too many descriptors, no port left.
    pub(super) fn open(plan: &PairsPlan) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = Address::Tcp(listener.local_addr()?);
        let options = ConnectOptions {
            nodelay: !plan.nagle,
            sndbuf: plan.sndbuf.map(|bytes| bytes as usize),
            rcvbuf: plan.rcvbuf.map(|bytes| bytes as usize),
            ..ConnectOptions::default()
        };
        let pair = || -> io::Result<[TcpStream; 2]> {
            let near = TcpStream::from(connect_stream(&address, &options)?);
            let (far, _) = listener.accept()?;
            far.set_nonblocking(true)?;
            far.set_nodelay(options.nodelay)?;
            if let Some(bytes) = options.sndbuf {
                set_socket_send_buffer_size(&far, bytes)?;
            }
            if let Some(bytes) = options.rcvbuf {
                set_socket_recv_buffer_size(&far, bytes)?;
            }
            Ok([near, far])
        };
        let ends = (0..plan.pairs)
            .map(|_| pair())
            .collect::<io::Result<Vec<_>>>()?;
        let size = plan.message_size as usize;
        Ok(Self {
            late: Vec::with_capacity(ends.len()),
            ends,
            message: vec![b'e'; size],
            buffer: ReceiveBuffer::new(size.min(BUFFER_MAX)),
        })
    }

    /// How many echoes a round holds, each side's counted: two per pair.
    pub(super) fn echoes_a_round(&self) -> u64 {
        2 * self.ends.len() as u64
    }

    /// Every pair's message there and back.
    ///
    /// # Errors
    /// A connection broke, or nothing moved for two seconds.
    pub(super) fn round(&mut self) -> io::Result<()> {
        self.pass(0, 1)?;
        self.pass(1, 0)
    }

    /// A message over every pair from one end to the other: all sends, then all receives.
    fn pass(&mut self, from: usize, to: usize) -> io::Result<()> {
        let whole = self.message.len();
        self.late.clear();
        for (pair, ends) in self.ends.iter().enumerate() {
            let sent = moved((&ends[from]).write(&self.message))?;
            if sent != whole {
                self.late.push(Late {
                    pair,
                    sent,
                    received: 0,
                });
            }
        }
        let mut late = self.late.iter_mut().peekable();
        let mut missed = Vec::new();
        for (pair, ends) in self.ends.iter().enumerate() {
            let received = received(&ends[to], &mut self.buffer)?;
            match late.next_if(|late| late.pair == pair) {
                Some(late) => late.received = received,
                // Nothing is pushed, and nothing allocated, where all arrived: the usual case.
                None if received != whole => missed.push(Late {
                    pair,
                    sent: whole,
                    received,
                }),
                None => {}
            }
        }
        self.late.append(&mut missed);
        if self.late.is_empty() {
            return Ok(());
        }
        self.finish_late(from, to)
    }

    /// Moves what did not go in one piece: messages larger than a buffer, or bytes that took their time.
    fn finish_late(&mut self, from: usize, to: usize) -> io::Result<()> {
        let whole = self.message.len();
        let mut moved_at = Instant::now();
        while !self.late.is_empty() {
            let mut progress = 0;
            for late in &mut self.late {
                let ends = &self.ends[late.pair];
                if late.sent < whole {
                    let sent = moved((&ends[from]).write(&self.message[late.sent..]))?;
                    late.sent += sent;
                    progress += sent;
                }
                let received = received(&ends[to], &mut self.buffer)?;
                late.received += received;
                progress += received;
            }
            self.late.retain(|late| late.received < whole);
            if 0 < progress {
                moved_at = Instant::now();
            } else if STALL_MAX < moved_at.elapsed() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "nothing moved over loopback for two seconds",
                ));
            }
        }
        Ok(())
    }
}

/// How many bytes went; none where there is no room or nothing to be had yet.
fn moved(outcome: io::Result<usize>) -> io::Result<usize> {
    match outcome {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(0)
        }
        other => other,
    }
}

/// How many bytes came. The other end is ours and open, so that no bytes at all is a fault.
fn received(mut end: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match end.read(buffer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        outcome => moved(outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pairs: u32, message_size: u32) -> PairsPlan {
        PairsPlan {
            pairs,
            message_size,
            nagle: false,
            sndbuf: None,
            rcvbuf: None,
        }
    }

    /// Nothing may be left in a socket after a round: the next would take it for its own.
    fn assert_drained(pairs: &Pairs) {
        let mut byte = [0];
        for end in pairs.ends.iter().flatten() {
            let error = { end }.read(&mut byte).expect_err("nothing is left");
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn rounds_of_any_size_end_with_empty_sockets() {
        for (count, size) in [(1, 1), (50, 64), (3, 70_000), (2, 8 << 20)] {
            let mut pairs = Pairs::open(&plan(count, size)).expect("loopback");
            assert_eq!(pairs.echoes_a_round(), u64::from(2 * count));
            for _ in 0..3 {
                pairs.round().expect("it goes through");
                assert_drained(&pairs);
            }
        }
    }

    #[test]
    fn a_broken_pair_is_an_error_and_not_an_endless_round() {
        let mut pairs = Pairs::open(&plan(2, 64)).expect("loopback");
        pairs.ends[1][1]
            .shutdown(std::net::Shutdown::Both)
            .expect("it is connected");
        assert!(pairs.round().is_err());
    }

    #[test]
    fn buffers_are_as_asked_for_at_both_ends() {
        let small = PairsPlan {
            sndbuf: Some(8 << 10),
            rcvbuf: Some(8 << 10),
            ..plan(1, 100_000)
        };
        let mut pairs = Pairs::open(&small).expect("loopback");
        let usual = Pairs::open(&plan(1, 64)).expect("loopback");
        for end in 0..2 {
            let bytes = |pairs: &Pairs| {
                rustix::net::sockopt::socket_send_buffer_size(&pairs.ends[0][end])
                    .expect("a socket")
            };
            assert!(bytes(&pairs) < bytes(&usual), "end {end}");
        }
        pairs.round().expect("in many pieces");
        assert_drained(&pairs);
    }
}
