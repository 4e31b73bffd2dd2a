//! Sending: in order, whole or in part, silently, gathered, to nobody.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use echometer_ring::{Config, Errno, Event, Feature, Features, Gather, Payload, Ring};

use crate::support::{connected, copying_feature_sets, event, no_event, small};

#[test]
fn a_reset_is_that_connections_end_only() {
    let mut ring = Ring::new(&small(Features::default())).expect("ring");
    let (_, slot, client) = connected(&mut ring);
    ring.recv(slot);
    ring.submit().expect("submit");
    let socket = rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO));
    socket.expect("linger");
    drop(client);
    match event(&mut ring) {
        Event::Recv {
            result: Err(errno),
            more,
            ..
        } => {
            assert_eq!(errno, Errno::CONNRESET);
            assert!(!more);
        }
        other => panic!("{other:?}"),
    }
    ring.send(
        slot,
        Payload::Heap {
            bytes: Box::from(*b"to nobody"),
            start: 0,
        },
    );
    match event(&mut ring) {
        Event::Unsent { result, .. } => assert_eq!(result, Err(Errno::PIPE)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn shared_bytes_and_heap_bytes_are_sent() {
    let config = Config {
        shared: Arc::from(&b"0123456789"[..]),
        ..small(Features::default())
    };
    let mut ring = Ring::new(&config).expect("ring");
    let (_, slot, mut client) = connected(&mut ring);
    ring.send(slot, Payload::Shared(2..5));
    assert!(matches!(event(&mut ring), Event::Sent { bytes: 3, .. }));
    let bytes = Box::from(*b"heap");
    ring.send(slot, Payload::Heap { bytes, start: 1 });
    assert!(matches!(event(&mut ring), Event::Sent { bytes: 3, .. }));
    let mut six = [0; 6];
    client.read_exact(&mut six).expect("read");
    assert_eq!(&six, b"234eap");
}

#[test]
fn several_pieces_leave_as_one_send_and_come_back_as_they_were() {
    let config = Config {
        shared: Arc::from(&b"0123456789"[..]),
        ..small(Features::default())
    };
    let mut ring = Ring::new(&config).expect("ring");
    let (_, slot, mut client) = connected(&mut ring);
    ring.recv(slot);
    client.write_all(b"received").expect("write");
    let Event::Recv {
        result: Ok(Some(buffer)),
        ..
    } = event(&mut ring)
    else {
        panic!("bytes were to arrive");
    };
    let mut gather = Box::new(Gather::new());
    gather.push(Payload::Shared(0..4));
    gather.push(Payload::Buffer(buffer));
    let bytes = Box::from(*b"heap");
    gather.push(Payload::Heap { bytes, start: 2 });
    ring.send_now(slot, Payload::Gather(gather));
    assert_eq!(ring.buffers_free(), 7);
    assert!(matches!(event(&mut ring), Event::Sent { bytes: 14, .. }));
    assert_eq!(ring.buffers_free(), 8, "the buffer is back by itself");
    assert_eq!(ring.gather().pieces(), 0, "and the gather is empty again");
    let mut back = [0; 14];
    client.read_exact(&mut back).expect("read");
    assert_eq!(&back, b"0123receivedap");
}

#[test]
fn a_send_that_must_not_wait_says_how_much_went_out_and_stays_in_order() {
    // Pitfall: silent sends drop their tail unless the short count is seen. A socket is filled, and what didn't fit is
    // sent on: the peer must read one unbroken stream.
    for features in copying_feature_sets() {
        let mut ring = Ring::new(&Config {
            shared: Arc::from((0..8 << 20).map(|i| (i % 251) as u8).collect::<Vec<_>>()),
            ..small(features)
        })
        .expect("ring");
        let (_, slot, mut client) = connected(&mut ring);
        ring.send_now(slot, Payload::Shared(0..8 << 20));
        let Event::Unsent { result, rest, .. } = event(&mut ring) else {
            panic!("{features:?}: it takes no 8 MiB at once");
        };
        let sent = result.expect("an empty socket takes some");
        assert_eq!(rest.len(), (8 << 20) - sent, "{features:?}");
        ring.send_now(slot, rest);
        assert!(matches!(
            event(&mut ring),
            Event::Unsent {
                result: Ok(_) | Err(Errno::AGAIN),
                ..
            }
        ));
        let reading = std::thread::spawn(move || {
            let mut back = Vec::new();
            client.read_to_end(&mut back).expect("read");
            back
        });
        // What the second took is not known to the first's payload: ask the ring's own words.
        drop(ring);
        let back = reading.join().expect("reader");
        assert!(sent <= back.len());
        assert!(
            back.iter()
                .enumerate()
                .all(|(i, byte)| *byte == (i % 251) as u8),
            "{features:?}: the stream is broken"
        );
    }
}

#[test]
fn silent_sends_are_confirmed_without_a_completion() {
    let config = Config {
        shared: Arc::from(&b"0123456789"[..]),
        ..small(Features::default())
    };
    let mut ring = Ring::new(&config).expect("ring");
    let (_, slot, mut client) = connected(&mut ring);
    let before = ring.counts().cqes;
    for _ in 0..100 {
        ring.send_now(slot, Payload::Shared(0..10));
        assert!(ring.is_sending(slot));
        ring.submit().expect("submit");
        assert!(matches!(
            ring.next_event(),
            Some(Event::Sent { bytes: 10, .. })
        ));
    }
    assert_eq!(ring.counts().cqes, before, "not one was written");
    let mut all = [0; 1_000];
    client.read_exact(&mut all).expect("read");
}

#[test]
fn a_silent_send_to_a_peer_that_is_gone_is_heard_of() {
    let config = Config {
        shared: Arc::from(&b"0123456789"[..]),
        ..small(Features::default())
    };
    let mut ring = Ring::new(&config).expect("ring");
    let (_, slot, client) = connected(&mut ring);
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).expect("linger");
    drop(client);
    ring.send_now(slot, Payload::Shared(0..10));
    match event(&mut ring) {
        Event::Unsent { result, .. } => {
            assert!(
                matches!(result, Err(Errno::CONNRESET | Errno::PIPE)),
                "{result:?}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
#[should_panic(expected = "two sends in flight")]
fn a_second_send_on_one_socket_is_refused() {
    let config = Config {
        shared: Arc::from(&b"0123456789"[..]),
        ..small(Features::default())
    };
    let mut ring = Ring::new(&config).expect("ring");
    let (_, slot, _client) = connected(&mut ring);
    ring.send(slot, Payload::Shared(0..1));
    ring.send(slot, Payload::Shared(1..2));
}

#[test]
fn a_full_socket_says_when_it_has_room_and_not_before() {
    for features in copying_feature_sets() {
        let config = Config {
            shared: Arc::from(vec![7; 64 << 20]),
            ..small(features)
        };
        let mut ring = Ring::new(&config).expect("ring");
        let (_, slot, mut client) = connected(&mut ring);
        ring.send_now(slot, Payload::Shared(0..64 << 20));
        let (sent, rest) = match event(&mut ring) {
            Event::Unsent { result, rest, .. } => (result.expect("a part of it"), rest),
            other => panic!("{features:?}: {other:?}"),
        };
        ring.await_room(slot);
        no_event(&mut ring);
        client
            .read_exact(&mut vec![0; sent])
            .expect("what went out");
        assert!(
            matches!(event(&mut ring), Event::Room { .. }),
            "{features:?}"
        );
        ring.send_now(slot, rest);
        match event(&mut ring) {
            Event::Unsent { result, rest, .. } => {
                assert!(0 < result.expect("a part of it"));
                ring.take_back(rest);
            }
            other => panic!("{features:?}: {other:?}"),
        }
        // A close ends the wait for room.
        ring.await_room(slot);
        ring.submit().expect("submit");
        ring.close(slot);
        assert!(matches!(event(&mut ring), Event::Close { .. }));
    }
}

#[test]
fn a_connection_that_is_given_up_ends_in_a_reset() {
    for features in [
        Features::default(),
        Features::default().without(Feature::Direct),
    ] {
        let mut ring = Ring::new(&small(features)).expect("ring");
        let (_, slot, mut client) = connected(&mut ring);
        ring.recv(slot);
        ring.submit().expect("submit");
        ring.reset(slot);
        assert!(matches!(event(&mut ring), Event::Close { .. }));
        let error = client.read(&mut [0; 1]).expect_err("no end in order");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}
