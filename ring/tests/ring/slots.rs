//! Slots: files come, go, and their places are used again.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use echometer_ring::{Config, Errno, Event, Feature, Features, Ring};

use crate::support::{connected, event, feature_sets, no_event, small};

/// At the descriptor limit there is none for a copy.
#[test]
fn a_file_that_is_given_up_is_not_copied() {
    let mut ring = Ring::new(&small(Features::NONE)).expect("a ring");
    let (socket, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let descriptor = socket.as_raw_fd();
    let slot = ring.adopt(socket.into()).expect("a slot");
    let held = ring.file(slot).map(|file| file.as_raw_fd());
    assert_eq!(held, Some(descriptor));
}

#[test]
fn close_ends_an_armed_receive_and_the_peer_sees_the_end() {
    for features in feature_sets() {
        let mut ring = Ring::new(&small(features)).expect("ring");
        let (_, slot, mut client) = connected(&mut ring);
        ring.recv(slot);
        ring.submit().expect("submit");
        ring.close(slot);
        ring.close(slot);
        match event(&mut ring) {
            Event::Close { slot: closed } => assert_eq!(closed, slot),
            other => panic!("{features:?}: {other:?}"),
        }
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).expect("EOF and no reset");
        assert!(rest.is_empty());
    }
}

#[test]
fn a_slot_that_is_used_again_hears_nothing_of_its_last_life() {
    let mut ring = Ring::new(&small(Features::default())).expect("ring");
    let (listener, first, mut client) = connected(&mut ring);
    let _ = listener;
    ring.recv(first);
    ring.submit().expect("submit");
    let address = client.peer_addr().expect("address");
    // Bytes on their way while the connection closes: their completion is the old life's.
    client.write_all(b"late").expect("write");
    ring.close(first);
    match event(&mut ring) {
        Event::Close { slot } => assert_eq!(slot, first),
        other => panic!("{other:?}"),
    }
    let mut next = TcpStream::connect(address).expect("connect");
    let second = match event(&mut ring) {
        Event::Accept {
            result: Ok(slot), ..
        } => slot,
        other => panic!("{other:?}"),
    };
    assert_ne!(second, first, "a slot names one file");
    assert_eq!(
        second.index(),
        first.index(),
        "the kernel reuses a place at once"
    );
    ring.recv(second);
    next.write_all(b"new").expect("write");
    match event(&mut ring) {
        Event::Recv {
            result: Ok(Some(buffer)),
            ..
        } => {
            assert_eq!(ring.bytes(&buffer), b"new");
            ring.release(buffer);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(ring.buffers_free(), 8);
}

#[test]
fn a_full_table_turns_the_connection_away_and_lives() {
    let config = Config {
        slots: 2,
        ..small(Features::default())
    };
    let mut ring = Ring::new(&config).expect("ring");
    let (listener, first, client) = connected(&mut ring);
    let address = client.peer_addr().expect("address");
    let mut turned_away = TcpStream::connect(address).expect("connect");
    match event(&mut ring) {
        Event::Accept { result, more, .. } => {
            assert_eq!(result, Err(Errno::NFILE));
            // One that fails ends the others that go on with it.
            let mut goes_on = more;
            while goes_on {
                match event(&mut ring) {
                    Event::Accept { result, more, .. } => {
                        assert_eq!(result, Err(Errno::CANCELED));
                        goes_on = more;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        other => panic!("{other:?}"),
    }
    assert!(!ring.is_armed(listener));
    let mut rest = Vec::new();
    let _ = turned_away.read_to_end(&mut rest);
    assert!(rest.is_empty(), "it gets an end and no bytes");
    ring.close(first);
    assert!(matches!(event(&mut ring), Event::Close { .. }));
    ring.accept(listener);
    let _next = TcpStream::connect(address).expect("connect");
    assert!(matches!(
        event(&mut ring),
        Event::Accept { result: Ok(_), .. }
    ));
}

#[test]
fn connect_and_poll_are_operations_too() {
    let mut ring = Ring::new(&small(Features::default())).expect("ring");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .expect("socket");
    let slot = ring.install(socket.as_fd()).expect("install");
    ring.connect(slot, &listener.local_addr().expect("address").into());
    assert!(matches!(
        event(&mut ring),
        Event::Connect { result: Ok(()), .. }
    ));
    let (mut peer, _) = listener.accept().expect("accept");
    ring.poll(slot);
    no_event(&mut ring);
    peer.write_all(b"!").expect("write");
    assert!(matches!(event(&mut ring), Event::Poll { .. }));
}

#[test]
fn installed_slots_are_used_again_after_their_close_is_done() {
    let mut ring = Ring::new(&Config {
        slots: 1,
        ..small(Features::default())
    })
    .expect("ring");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let first = ring.install(listener.as_fd()).expect("install");
    assert!(ring.install(listener.as_fd()).is_err(), "one slot");
    ring.close(first);
    assert!(
        ring.install(listener.as_fd()).is_err(),
        "the close is queued and not done: it would hit the new file"
    );
    assert!(matches!(event(&mut ring), Event::Close { .. }));
    let second = ring.install(listener.as_fd()).expect("install");
    assert_eq!(second.index(), first.index());
}

#[test]
fn a_listener_that_closes_ends_whom_it_had_just_accepted() {
    for features in [
        Features::default(),
        Features::default().without(Feature::Direct),
    ] {
        let mut ring = Ring::new(&small(features)).expect("ring");
        let (listener, _, client) = connected(&mut ring);
        let address = client.peer_addr().expect("address");
        // Accepted by the kernel, and its event not taken yet.
        let mut next = TcpStream::connect(address).expect("connect");
        ring.submit().expect("submit");
        ring.close(listener);
        let mut closed = 0;
        while closed < 2 {
            match event(&mut ring) {
                Event::Close { .. } => closed += 1,
                other => panic!("{features:?}: {other:?}"),
            }
        }
        let limit = Some(Duration::from_secs(10));
        next.set_read_timeout(limit).expect("a valid time");
        assert_eq!(next.read(&mut [0]).expect("EOF in time"), 0, "{features:?}");
    }
}

/// However many wait in the listen queue, the others get their turn meanwhile.
#[test]
fn a_long_listen_queue_is_taken_in_few_at_a_time() {
    const WAITING: usize = 100;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = listener.local_addr().expect("bound");
    let config = Config {
        slots: 200,
        ..small(Features::default())
    };
    let mut ring = Ring::new(&config).expect("ring");
    let listening = ring.install(listener.as_fd()).expect("install");
    let _clients: Vec<TcpStream> = (0..WAITING)
        .map(|_| TcpStream::connect(address).expect("connect"))
        .collect();
    ring.accept(listening);
    let mut taken = 0;
    while taken < WAITING {
        ring.submit_and_wait(Some(std::time::Duration::from_secs(5)))
            .expect("enter");
        let before = taken;
        while let Some(event) = ring.next_event() {
            match event {
                Event::Accept { result, more, .. } => {
                    result.expect("a connection");
                    assert!(more);
                    taken += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        let at_once = taken - before;
        assert!(
            (1..=2 * usize::from(Ring::ACCEPTS)).contains(&at_once),
            "{at_once}"
        );
    }
}
