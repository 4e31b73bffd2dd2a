//! What the tests share: small rings, connections, and the next event.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use echometer_ring::{Config, Errno, Event, Feature, Features, Ring, Slot};

/// Sets of features that every test of bytes runs with: the defaults, none, each one missing, each other one added.
pub(crate) fn feature_sets() -> Vec<Features> {
    let mut sets = vec![Features::default(), Features::NONE];
    for feature in Feature::ALL {
        if Features::default().has(feature) {
            sets.push(Features::default().without(feature));
            continue;
        }
        let added = Features::default().with(feature);
        // What it excludes goes.
        sets.push(match feature {
            Feature::SendZc => added.without(Feature::SkipSuccess).without(Feature::Gather),
            Feature::Sqpoll => added
                .without(Feature::SkipSuccess)
                .without(Feature::DeferTaskrun),
            _ => added,
        });
    }
    assert!(sets.iter().all(|set| set.check().is_ok()));
    sets
}

pub(crate) fn small(features: Features) -> Config {
    Config {
        entries: 8,
        cq_entries: 64,
        slots: 32,
        buffers: 8,
        buffer_size: 64,
        features,
        ..Config::default()
    }
}

/// The next event, within a generous limit.
pub(crate) fn event(ring: &mut Ring) -> Event {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(event) = ring.next_event() {
            return event;
        }
        assert!(Instant::now() < deadline, "no event within 10 s");
        ring.submit_and_wait(Some(Duration::from_millis(100)))
            .expect("enter");
    }
}

/// Lets the ring work until it has nothing to say for a moment.
pub(crate) fn no_event(ring: &mut Ring) {
    ring.submit_and_wait(Some(Duration::from_millis(50)))
        .expect("enter");
    if let Some(event) = ring.next_event() {
        panic!("unexpected {event:?}");
    }
}

/// A listener in the ring, one connection accepted, and the client's end of it.
pub(crate) fn connected(ring: &mut Ring) -> (Slot, Slot, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = listener.local_addr().expect("address");
    let slot = ring.install(listener.as_fd()).expect("install");
    ring.accept(slot);
    let client = TcpStream::connect(address).expect("connect");
    match event(ring) {
        Event::Accept {
            result: Ok(connection),
            ..
        } => (slot, connection, client),
        other => panic!("not an accept: {other:?}"),
    }
}

/// Connects to where the first client did until there are `count` clients, each with its slot.
pub(crate) fn connect_until(
    count: usize,
    ring: &mut Ring,
    clients: &mut Vec<TcpStream>,
    slots: &mut Vec<Slot>,
) {
    let address = clients[0].peer_addr().expect("address");
    while slots.len() < count {
        clients.push(TcpStream::connect(address).expect("connect"));
        match event(ring) {
            Event::Accept {
                result: Ok(slot), ..
            } => slots.push(slot),
            other => panic!("{other:?}"),
        }
    }
}

/// As `small`, with two large buffers besides.
pub(crate) fn with_large(features: Features) -> Config {
    Config {
        large_buffers: 2,
        large_buffer_size: 256,
        ..small(features)
    }
}

/// The length of each piece that comes in until `bytes` have come, each released at once.
pub(crate) fn pieces(ring: &mut Ring, slot: Slot, bytes: usize) -> Vec<usize> {
    let mut lengths = Vec::new();
    while lengths.iter().sum::<usize>() < bytes {
        match event(ring) {
            Event::Recv { result, more, .. } => {
                match result {
                    Ok(Some(buffer)) => {
                        lengths.push(buffer.len());
                        ring.release(buffer);
                    }
                    Err(Errno::NOBUFS | Errno::CANCELED) => {}
                    other => panic!("{other:?}"),
                }
                if !more {
                    ring.recv(slot);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    lengths
}

/// The same without zero-copy sends: what they hold is the kernel's until the peer has taken it, so nothing about them is
/// known at once, and a ring that ends meanwhile gives its memory up.
pub(crate) fn copying_feature_sets() -> impl Iterator<Item = Features> {
    feature_sets()
        .into_iter()
        .filter(|set| !set.has(Feature::SendZc))
}
