//! The trials themselves: small scenes of a server's life, each on a ring and sockets of its own.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, SocketAddrAny};

use super::Way;
use super::scene::{
    Fault, Noise, Scene, TRIAL_LIMIT, connect, ends_within, heap, send_all, send_chunks, small,
    take_all, tcp_pair, text, unix_listener, unix_pair, wait_readable,
};
use crate::event::Event;
use crate::features::{Extras, Feature, Features};
use crate::listener;
use crate::payload::Payload;
use crate::setup::Config;

/// How long a peer may take to see that its connection was closed. The kernel lets the file go before the close's own
/// completion, so that it is there by then, or comes only when something else ends.
const END_LIMIT: Duration = Duration::from_millis(20);

/// A listener gives connection after connection, stops when told to, and gives one more after that.
pub(super) fn accept(way: Way) -> Result<(), Fault> {
    let mut scene = Scene::new(way)?;
    let (listener, name) = unix_listener().map_err(text("listen"))?;
    let listening = scene.install(&listener)?;
    scene.ring.accept(listening);
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(connect(&name).map_err(text("connect"))?);
        let (accepted, more) = scene.accepted()?;
        if !more {
            return Err("an accept for connection after connection ends".into());
        }
        let client = clients.last().expect("just pushed");
        send_all(client, b"x").map_err(text("send"))?;
        scene.ring.recv(accepted);
        if scene.received(accepted)?.as_deref() != Some(b"x") {
            return Err("an accepted connection does not bring its bytes".into());
        }
    }
    scene.ring.cancel(listening);
    scene.wait_for("the end of a cancelled accept", |_, event| match event {
        Event::Accept {
            result: Err(Errno::CANCELED),
            more: false,
            ..
        } => Ok(()),
        other => Err(other),
    })?;
    scene.ring.accept_one(listening);
    clients.push(connect(&name).map_err(text("connect"))?);
    match scene.accepted()? {
        (_, false) => Ok(()),
        (_, true) => Err("an accept for one connection goes on".into()),
    }
}

/// A connection that is closed while an accept, a poll and another's receive are armed is over for its peer at once.
///
/// Before 6.13 a direct descriptor was let go only when all requests were over that had begun before its close.
pub(super) fn close(way: Way) -> Result<(), Fault> {
    let mut scene = Scene::new(way)?;
    let (listener, _) = unix_listener().map_err(text("listen"))?;
    let (other, _other_peer) = unix_pair().map_err(text("socketpair"))?;
    let (third, _third_peer) = unix_pair().map_err(text("socketpair"))?;
    let (near, far) = unix_pair().map_err(text("socketpair"))?;
    let listening = scene.install(&listener)?;
    let polled = scene.install(&other)?;
    let receiving = scene.install(&third)?;
    let slot = scene.install(&near)?;
    drop(near);
    scene.ring.accept(listening);
    scene.ring.poll(polled);
    scene.ring.recv(receiving);
    scene.ring.recv(slot);
    scene.ring.submit().map_err(text("submit"))?;
    scene.ring.close(slot);
    scene.wait_for("the end of a close", |_, event| match event {
        Event::Close { slot: closed } if closed == slot => Ok(()),
        other => Err(other),
    })?;
    match ends_within(&far, END_LIMIT) {
        true => Ok(()),
        false => Err("a closed connection stays open until other requests are over".into()),
    }
}

/// A direct descriptor's socket can be had as a plain descriptor; and a connection that is given up ends in a reset.
pub(super) fn reset(way: Way) -> Result<(), Fault> {
    let mut scene = Scene::new(way)?;
    let (near, far) = unix_pair().map_err(text("socketpair"))?;
    let slot = scene.install(&near)?;
    if way.features.has(Feature::Direct) {
        scene.ring.open_file(slot);
        let opened = scene.wait_for("a plain descriptor", |_, event| match event {
            Event::File { result, .. } => Ok(result.map_err(text("open a direct descriptor"))),
            other => Err(other),
        })??;
        rustix::net::send(&opened, b"x", SendFlags::NOSIGNAL).map_err(text("send"))?;
        let mut got = Vec::new();
        take_all(&far, &mut got).map_err(text("receive"))?;
        if got != b"x" {
            return Err("a plain descriptor is of another file".into());
        }
    }
    let (near, mut far) = match tcp_pair() {
        Ok(pair) => pair,
        // This machine has no loopback address.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => return Ok(()),
        Err(error) => return Err(text("connect")(error)),
    };
    let slot = scene.install(&near)?;
    drop(near);
    scene.ring.recv(slot);
    scene.ring.submit().map_err(text("submit"))?;
    scene.ring.reset(slot);
    scene.wait_for("the end of a close", |_, event| match event {
        Event::Close { slot: closed } if closed == slot => Ok(()),
        other => Err(other),
    })?;
    far.set_read_timeout(Some(END_LIMIT))
        .map_err(text("receive"))?;
    match far.read(&mut [0; 1]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        other => Err(format!("a connection that is given up ends so: {other:?}").into()),
    }
}

/// Piece after piece comes; after the peer's last one it still gets its answer, and then the end.
pub(super) fn receive(way: Way) -> Result<(), Fault> {
    let mut scene = Scene::new(way)?;
    let (near, far) = unix_pair().map_err(text("socketpair"))?;
    let slot = scene.install(&near)?;
    drop(near);
    scene.ring.recv(slot);
    for piece in [b"a", b"b", b"c"] {
        send_all(&far, piece).map_err(text("send"))?;
        if scene.received(slot)?.as_deref() != Some(piece) {
            return Err("the bytes are others than were sent".into());
        }
        let armed = scene.ring.is_armed(slot);
        if armed != way.features.has(Feature::MultishotRecv) {
            return Err(format!("a receive that goes on: {armed}").into());
        }
        if !armed {
            scene.ring.recv(slot);
        }
    }
    rustix::net::shutdown(&far, rustix::net::Shutdown::Write).map_err(text("shutdown"))?;
    if scene.received(slot)?.is_some() {
        return Err("bytes came after the end".into());
    }
    scene.ring.send_now(slot, heap(b"answer"));
    scene.sent()?;
    scene.ring.shutdown_write(slot);
    scene.wait_for("the end of a shutdown", |_, event| match event {
        Event::Shutdown { result, .. } => Ok(result.map_err(text("shutdown"))),
        other => Err(other),
    })??;
    let mut got = Vec::new();
    let deadline = Instant::now() + TRIAL_LIMIT;
    while !take_all(&far, &mut got).map_err(text("receive"))? {
        if deadline < Instant::now() {
            return Err("the peer does not see the end of a half-closed connection".into());
        }
        wait_readable(&far, Duration::from_millis(100));
    }
    match got == b"answer" {
        true => Ok(()),
        false => Err("the answer to a half-closed peer is lost".into()),
    }
}

/// A send that must not wait tells how much the socket took; a poll says when there is room for more, and not before, and
/// the rest follows in order; what succeeds silently has
/// succeeded; and what fails says so. `gathered`: the same for a send of several pieces.
///
/// Before 6.1 such a send answered `EAGAIN` though some of it had gone out.
pub(super) fn send(way: Way, gathered: bool) -> Result<(), Fault> {
    const BYTES: usize = 256 << 10;
    let mut noise = Noise::new();
    let bytes: Vec<u8> = (0..BYTES).map(|_| noise.next_byte()).collect();
    let mut scene = Scene::new(way)?;
    let (near, far) = unix_pair().map_err(text("socketpair"))?;
    rustix::net::sockopt::set_socket_send_buffer_size(&near, 16 << 10)
        .map_err(text("SO_SNDBUF"))?;
    let slot = scene.install(&near)?;
    drop(near);
    let payload = if gathered {
        let mut gather = scene.ring.gather();
        for piece in bytes.chunks(BYTES / 3 + 1) {
            gather.push(heap(piece));
        }
        Payload::Gather(gather)
    } else {
        heap(&bytes)
    };
    scene.ring.send_now(slot, payload);
    let (result, rest) = scene.wait_for("the end of a short send", |_, event| match event {
        Event::Unsent { result, rest, .. } => Ok((result, rest)),
        other => Err(other),
    })?;
    scene.ring.await_room(slot);
    for _ in 0..2 {
        scene.ring.submit().map_err(text("submit"))?;
        if let Some(event) = scene.ring.next_event() {
            return Err(format!("a full socket has room: {event:?}").into());
        }
    }
    let mut got = Vec::new();
    take_all(&far, &mut got).map_err(text("receive"))?;
    if result != Ok(got.len()) || got.is_empty() {
        let took = got.len();
        return Err(format!("a send of which {took} bytes went out says {result:?}").into());
    }
    let mut rest = Some(rest);
    let deadline = Instant::now() + TRIAL_LIMIT;
    let mut over = false;
    while !over || got.len() < BYTES {
        if deadline < Instant::now() {
            return Err("the rest of a short send does not arrive".into());
        }
        scene.ring.submit().map_err(text("submit"))?;
        while let Some(event) = scene.ring.next_event() {
            match event {
                Event::Sent { .. } => over = true,
                Event::Room { .. } if rest.is_some() => {
                    scene.ring.send_now(slot, rest.take().expect("just seen"));
                }
                Event::Unsent {
                    result: Ok(_) | Err(Errno::AGAIN),
                    rest: left,
                    ..
                } => {
                    rest = Some(left);
                    scene.ring.await_room(slot);
                }
                other => return Err(format!("the rest of a short send: {other:?}").into()),
            }
        }
        take_all(&far, &mut got).map_err(text("receive"))?;
    }
    if got != bytes {
        return Err("a stream is not what was sent".into());
    }
    scene.ring.send_now(slot, heap(b"small"));
    if scene.sent()? != 5 {
        return Err("a small send is not sent whole".into());
    }
    got.clear();
    take_all(&far, &mut got).map_err(text("receive"))?;
    if got != b"small" {
        return Err("a send that succeeded did not arrive".into());
    }
    drop(far);
    scene.ring.send_now(slot, heap(b"lost"));
    scene.wait_for("the failure of a send to nobody", |_, event| match event {
        Event::Unsent {
            result: Err(Errno::PIPE | Errno::CONNRESET),
            ..
        } => Ok(()),
        other => Err(other),
    })
}

/// Large messages come whole, also after the receive found an empty socket.
pub(super) fn bulk(way: Way) -> Result<(), Fault> {
    const ROUNDS: usize = 4;
    const BYTES: usize = 160 << 10;
    let config = Config {
        large_buffers: 2,
        large_buffer_size: 64 << 10,
        ..small(way.features)
    };
    let mut scene = Scene::of(&config, way.extras)?;
    let (near, far) = tcp_pair().map_err(text("connect"))?;
    far.set_nonblocking(true).map_err(text("connect"))?;
    let slot = scene.install(&near)?;
    drop(near);
    let (mut sent_noise, mut expected) = (Noise::new(), Noise::new());
    let mut large = false;
    let deadline = Instant::now() + TRIAL_LIMIT;
    scene.ring.recv(slot);
    for _ in 0..ROUNDS {
        let message: Vec<u8> = (0..BYTES).map(|_| sent_noise.next_byte()).collect();
        let (mut sent, mut received) = (0, 0);
        while received < BYTES {
            if deadline < Instant::now() {
                return Err(format!("{received} of {BYTES} bytes of a message came").into());
            }
            while sent < BYTES {
                match (&far).write(&message[sent..]) {
                    Ok(bytes) => sent += bytes,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(format!("send: {error}").into()),
                }
            }
            let wait = Some(Duration::from_millis(if sent < BYTES { 1 } else { 100 }));
            scene.ring.submit_and_wait(wait).map_err(text("wait"))?;
            while let Some(event) = scene.ring.next_event() {
                let Event::Recv { result, more, .. } = event else {
                    continue;
                };
                match result {
                    Ok(Some(buffer)) => {
                        large |= scene.ring.is_large(&buffer);
                        received += buffer.len();
                        let bytes = scene.ring.bytes(&buffer);
                        let same = bytes.iter().all(|byte| *byte == expected.next_byte());
                        scene.ring.release(buffer);
                        if !same {
                            return Err("a byte is not the one that was sent".into());
                        }
                    }
                    Err(Errno::NOBUFS | Errno::CANCELED) => {}
                    other => return Err(format!("receive: {other:?}").into()),
                }
                if !more {
                    scene.ring.recv(slot);
                }
            }
        }
    }
    match large {
        true => Ok(()),
        false => Err("the kernel does not say that more waits in a socket".into()),
    }
}

/// A zero-copy send is over when its bytes are with the peer, and then its connection can be closed.
pub(super) fn zero_copy(way: Way) -> Result<(), Fault> {
    let mut scene = Scene::of(&small(way.features), way.extras)?;
    let (near, mut far) = tcp_pair().map_err(text("connect"))?;
    let slot = scene.install(&near)?;
    drop(near);
    let bytes = [7; 4_096];
    scene.ring.send_now(slot, heap(&bytes));
    scene.ring.submit().map_err(text("submit"))?;
    let mut got = [0; 4_096];
    far.set_read_timeout(Some(TRIAL_LIMIT))
        .map_err(text("receive"))?;
    far.read_exact(&mut got).map_err(text("receive"))?;
    if scene.sent()? != bytes.len() || got != bytes {
        return Err("a zero-copy send does not bring its bytes".into());
    }
    scene.ring.close(slot);
    scene.wait_for("the end of a close", |_, event| match event {
        Event::Close { .. } => Ok(()),
        other => Err(other),
    })
}

/// Socket, bind and listen are operations.
pub(super) fn listen() -> Result<(), Fault> {
    let any = SocketAddrAny::from(std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    match listener::listen(&any, 1, |_| Ok(())) {
        Ok(_) => Ok(()),
        // The operation is there, and this machine has no loopback address.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
        Err(error) => Err(text("listen")(error)),
    }
}

/// An accept looks first whether anybody waits (6.10).
pub(super) fn accept_after_a_look(features: Features) -> Result<(), Fault> {
    accept(Way {
        // Connection after connection, each by an accept of its own.
        features: features.without(Feature::MultishotAccept),
        extras: Extras {
            accept_poll_first: true,
            ..Extras::default()
        },
    })
}

/// A multishot receive can be bounded (6.17).
pub(super) fn limited_receive(features: Features) -> Result<(), Fault> {
    let mut scene = Scene::new(Way {
        features,
        extras: Extras {
            recv_limit: true,
            ..Extras::default()
        },
    })?;
    let (near, far) = unix_pair().map_err(text("socketpair"))?;
    let slot = scene.install(&near)?;
    scene.ring.recv(slot);
    // The far end's close ends the receive, whatever the kernel can.
    drop(far);
    scene.received(slot).map(drop)
}

/// See [`check_bytes`](super::check_bytes).
pub(super) fn receive_and_compare(way: Way, bytes: usize) -> Result<(), Fault> {
    let mut scene = Scene::of(&small(way.features), way.extras)?;
    let (receiver, sender) = tcp_pair().map_err(text("connect"))?;
    let slot = scene.install(&receiver)?;
    let sending = std::thread::Builder::new()
        .spawn(move || send_chunks(sender, bytes))
        .map_err(text("start a thread"))?;
    let ring = &mut scene.ring;
    let mut expected = Noise::new();
    let mut received = 0;
    let deadline = Instant::now() + TRIAL_LIMIT;
    ring.recv(slot);
    while received < bytes {
        if deadline < Instant::now() {
            return Err(format!("{received} of {bytes} bytes came within {TRIAL_LIMIT:?}").into());
        }
        let waited = ring.submit_and_wait(Some(Duration::from_millis(100)));
        waited.map_err(text("wait"))?;
        while let Some(event) = ring.next_event() {
            let Event::Recv { result, more, .. } = event else {
                continue;
            };
            match result {
                Ok(Some(buffer)) => {
                    for (i, byte) in ring.bytes(&buffer).iter().enumerate() {
                        if *byte != expected.next_byte() {
                            return Err(format!(
                                "byte {} is not the one that was sent",
                                received + i
                            )
                            .into());
                        }
                    }
                    received += buffer.len();
                    ring.release(buffer);
                }
                Ok(None) if received == bytes => {}
                Ok(None) => return Err(format!("the stream ended after {received} bytes").into()),
                Err(Errno::NOBUFS) => {}
                Err(error) => return Err(format!("receive: {error}").into()),
            }
            if !more && received < bytes {
                ring.recv(slot);
            }
        }
    }
    match sending.join() {
        Ok(sent) => sent.map_err(text("send")),
        Err(_) => Err("the sender panicked".into()),
    }
}
