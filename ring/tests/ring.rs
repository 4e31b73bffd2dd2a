//! The ring against real sockets: each pitfall of io_uring that the ring takes on itself is provoked here.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use echometer_ring::{
    Config, Errno, Event, Feature, Features, Gather, Payload, Ring, Slot, stamp_receives,
};

/// Sets of features that every test of bytes runs with: the defaults, none, each one missing, each other one added.
fn feature_sets() -> Vec<Features> {
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

fn small(features: Features) -> Config {
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
fn event(ring: &mut Ring) -> Event {
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
fn no_event(ring: &mut Ring) {
    ring.submit_and_wait(Some(Duration::from_millis(50)))
        .expect("enter");
    if let Some(event) = ring.next_event() {
        panic!("unexpected {event:?}");
    }
}

/// A listener in the ring, one connection accepted, and the client's end of it.
fn connected(ring: &mut Ring) -> (Slot, Slot, TcpStream) {
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

/// Connects to where the first client did until there are `count` clients, each with its slot.
fn connect_until(
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

#[test]
fn bytes_come_back_with_every_set_of_features() {
    for features in feature_sets() {
        bytes_come_back(&small(features));
        bytes_come_back(&with_large(features));
    }
}

fn bytes_come_back(config: &Config) {
    let features = config.features;
    {
        let mut ring = Ring::new(config).expect("ring");
        let (_, slot, mut client) = connected(&mut ring);
        let sent: Vec<u8> = (0..10_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let mut writer = client.try_clone().expect("clone");
        let copy = sent.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&copy).expect("write");
            writer.shutdown(Shutdown::Write).expect("shutdown");
        });
        ring.recv(slot);
        let mut pieces = std::collections::VecDeque::new();
        let mut ended = false;
        while !ended || ring.is_sending(slot) {
            match event(&mut ring) {
                Event::Recv { result, more, .. } => {
                    match result {
                        Ok(Some(buffer)) => pieces.push_back(buffer),
                        Ok(None) => ended = true,
                        Err(Errno::NOBUFS | Errno::CANCELED) => {}
                        Err(error) => panic!("{features:?}: {error}"),
                    }
                    if !more && !ended {
                        // An empty group fails a receive at once: re-arming only helps when a buffer is back.
                        if 0 < ring.buffers_free() {
                            ring.recv(slot);
                        }
                    }
                }
                Event::Sent { .. } => {
                    if !ended && !ring.is_armed(slot) {
                        ring.recv(slot);
                    }
                }
                Event::Accept { .. } => panic!("one client only"),
                other => panic!("{features:?}: {other:?}"),
            }
            if !ring.is_sending(slot)
                && let Some(buffer) = pieces.pop_front()
            {
                ring.send(slot, Payload::Buffer(buffer));
            }
        }
        ring.close(slot);
        // Where the connection was watched for much, that has to end first.
        assert!(matches!(event(&mut ring), Event::Close { .. }));
        let mut back = Vec::new();
        client.read_to_end(&mut back).expect("read");
        writing.join().expect("writer");
        assert!(back == sent, "{features:?}: the bytes differ");
        assert_eq!(ring.buffers_free(), 8, "{features:?}");
    }
}

/// As `small`, with two large buffers besides.
fn with_large(features: Features) -> Config {
    Config {
        large_buffers: 2,
        large_buffer_size: 256,
        ..small(features)
    }
}

/// The length of each piece that comes in until `bytes` have come, each released at once.
fn pieces(ring: &mut Ring, slot: Slot, bytes: usize) -> Vec<usize> {
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

#[test]
fn who_sends_much_gets_large_buffers_and_who_sends_little_small_ones() {
    let features = Features::default().without(Feature::Bundle);
    let mut ring = Ring::new(&with_large(features)).expect("ring");
    let (_, slot, mut client) = connected(&mut ring);
    ring.recv(slot);
    client.write_all(&[1; 10]).expect("write");
    assert_eq!(pieces(&mut ring, slot, 10), [10]);
    // What fits a small buffer, if only just, is no reason.
    client.write_all(&[2; 64]).expect("write");
    assert_eq!(pieces(&mut ring, slot, 64), [64]);
    client.write_all(&[3; 64]).expect("write");
    assert_eq!(pieces(&mut ring, slot, 64), [64]);
    client.write_all(&[4; 4_000]).expect("write");
    let much = pieces(&mut ring, slot, 4_000);
    assert_eq!(much[0], 64, "{much:?}");
    assert!(much.contains(&256), "{much:?}");
    client.write_all(&[5; 256]).expect("write");
    assert_eq!(pieces(&mut ring, slot, 256), [256]);
}

#[test]
fn without_a_free_large_buffer_small_ones_serve() {
    let features = Features::default().without(Feature::Bundle);
    let mut ring = Ring::new(&with_large(features)).expect("ring");
    let (_, slot, mut client) = connected(&mut ring);
    ring.recv(slot);
    client.write_all(&[1; 64 + 3 * 256]).expect("write");
    let (mut large, mut taken) = (Vec::new(), 0);
    while taken < 64 + 3 * 256 {
        match event(&mut ring) {
            Event::Recv { result, more, .. } => {
                if let Ok(Some(buffer)) = result {
                    taken += buffer.len();
                    if ring.is_large(&buffer) {
                        large.push(buffer);
                    } else {
                        ring.release(buffer);
                    }
                }
                if !more {
                    ring.recv(slot);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        large.len(),
        2,
        "both are held, and the rest came in small ones"
    );
    assert_eq!(ring.buffers_free(), 8);
}

/// A ring with two large buffers, and a connection that is received from as one that brings much.
fn connected_with_much() -> (Ring, Vec<TcpStream>, Vec<Slot>) {
    let features = Features::default().without(Feature::Bundle);
    let mut ring = Ring::new(&with_large(features)).expect("ring");
    let (_, slot, client) = connected(&mut ring);
    let (clients, slots) = (vec![client], vec![slot]);
    ring.recv(slot);
    (&clients[0]).write_all(&[0; 4_000]).expect("write");
    let much = pieces(&mut ring, slot, 4_000);
    assert!(much.contains(&256), "{much:?}");
    (ring, clients, slots)
}

#[test]
fn a_receive_of_much_that_is_cancelled_says_so_once_and_can_be_armed_again() {
    let (mut ring, clients, slots) = connected_with_much();
    let (mut client, slot) = (&clients[0], slots[0]);
    // First while nothing is there to receive, then as soon as there may be.
    for bytes_are_there in [false, true] {
        if bytes_are_there {
            client.write_all(&[7; 300]).expect("write");
        }
        assert!(ring.is_armed(slot));
        ring.cancel(slot);
        let Event::Recv { result, more, .. } = event(&mut ring) else {
            panic!("its last event, and no other")
        };
        assert!(!more);
        let taken = match result {
            Ok(Some(buffer)) => {
                let bytes = buffer.len();
                ring.release(buffer);
                bytes
            }
            Err(Errno::CANCELED) => 0,
            other => panic!("{other:?}"),
        };
        assert!(!ring.is_armed(slot));
        no_event(&mut ring);
        ring.recv(slot);
        if bytes_are_there && taken < 300 {
            pieces(&mut ring, slot, 300 - taken);
        }
    }
}

#[test]
fn connections_with_much_take_turns_and_none_is_forgotten() {
    const BYTES: usize = 20_000;
    let (mut ring, mut clients, mut slots) = connected_with_much();
    connect_until(5, &mut ring, &mut clients, &mut slots);
    for &slot in &slots[1..] {
        ring.recv(slot);
    }
    let writers: Vec<_> = clients
        .iter()
        .map(|client| {
            let mut client = client.try_clone().expect("clone");
            std::thread::spawn(move || client.write_all(&[1; BYTES]).expect("write"))
        })
        .collect();
    let mut came: Vec<usize> = vec![0; slots.len()];
    let mut in_large = 0;
    while came.iter().any(|&bytes| bytes < BYTES) {
        let Event::Recv { slot, result, more } = event(&mut ring) else {
            panic!("receives alone")
        };
        match result {
            Ok(Some(buffer)) => {
                let who = slots.iter().position(|&known| known == slot);
                came[who.expect("one of ours")] += buffer.len();
                in_large += usize::from(ring.is_large(&buffer)) * buffer.len();
                ring.release(buffer);
            }
            Err(Errno::NOBUFS | Errno::CANCELED) => {}
            other => panic!("{other:?}"),
        }
        if !more {
            ring.recv(slot);
        }
    }
    for writer in writers {
        writer.join().expect("writer");
    }
    assert_eq!(came, vec![BYTES; slots.len()]);
    assert!(
        slots.len() * BYTES / 2 < in_large,
        "{in_large} in large ones"
    );
    no_event(&mut ring);
}

#[test]
fn idle_connections_hold_no_buffer_and_an_empty_pool_says_nobufs() {
    let mut ring = Ring::new(&small(Features::default())).expect("ring");
    let (_, slot, mut client) = connected(&mut ring);
    ring.recv(slot);
    no_event(&mut ring);
    assert_eq!(ring.buffers_free(), 8);
    client.write_all(&[1; 64 * 9]).expect("write");
    let mut held = Vec::new();
    loop {
        match event(&mut ring) {
            Event::Recv {
                result: Ok(Some(buffer)),
                more,
                ..
            } => {
                held.push(buffer);
                // A bundle that took the last buffer ends without a word about it.
                if !more {
                    ring.recv(slot);
                }
            }
            Event::Recv {
                result: Err(Errno::NOBUFS),
                more,
                ..
            } => {
                assert!(!more, "a receive without buffers has ended");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((held.len(), ring.buffers_free()), (8, 0));
    // Armed on an empty group it fails at once; with one buffer back it goes on where it was.
    ring.release(held.pop().expect("eight"));
    ring.recv(slot);
    match event(&mut ring) {
        Event::Recv {
            result: Ok(Some(buffer)),
            ..
        } => assert_eq!(ring.bytes(&buffer), &[1; 64][..]),
        other => panic!("{other:?}"),
    }
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
    assert_eq!(second, first, "the kernel reuses a direct slot at once");
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

/// The same without zero-copy sends: what they hold is the kernel's until the peer has taken it, so nothing about them is
/// known at once, and a ring that ends meanwhile gives its memory up.
fn copying_feature_sets() -> impl Iterator<Item = Features> {
    feature_sets()
        .into_iter()
        .filter(|set| !set.has(Feature::SendZc))
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
fn a_full_submission_queue_is_submitted_early() {
    let config = Config {
        shared: Arc::from(&b"x"[..]),
        ..small(Features::default())
    };
    let mut ring = Ring::new(&config).expect("ring");
    let (listener, first, client) = connected(&mut ring);
    let _ = listener;
    let mut clients = vec![client];
    let mut slots = vec![first];
    connect_until(20, &mut ring, &mut clients, &mut slots);
    // 20 sends through 8 submission entries, in one turn.
    for slot in &slots {
        ring.send(*slot, Payload::Shared(0..1));
    }
    for _ in &slots {
        assert!(matches!(event(&mut ring), Event::Sent { bytes: 1, .. }));
    }
    for client in &mut clients {
        let mut one = [0];
        client.read_exact(&mut one).expect("read");
    }
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
            assert!(!more);
        }
        other => panic!("{other:?}"),
    }
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
    assert_eq!(ring.install(listener.as_fd()).expect("install"), first);
}

#[test]
fn a_ring_that_is_dropped_in_full_flight_ends_soon() {
    for features in copying_feature_sets() {
        let mut ring = Ring::new(&Config {
            shared: Arc::from(vec![7; 32 << 20]),
            ..small(features)
        })
        .expect("ring");
        let (_, slot, client) = connected(&mut ring);
        ring.recv(slot);
        // More than the sockets hold, to a peer that doesn't read: the send stays in flight.
        ring.send(slot, Payload::Shared(0..32 << 20));
        ring.submit().expect("submit");
        let start = Instant::now();
        drop(ring);
        assert!(start.elapsed() < Duration::from_secs(1), "{features:?}");
        drop(client);
    }
}

#[test]
fn an_overflowed_completion_queue_loses_nothing_and_is_counted() {
    let config = Config {
        entries: 8,
        cq_entries: 8,
        slots: 64,
        shared: Arc::from(&b"x"[..]),
        ..small(Features::default())
    };
    let mut ring = Ring::new(&config).expect("ring");
    let (_, first, client) = connected(&mut ring);
    let address = client.peer_addr().expect("address");
    let mut clients = vec![client];
    let mut slots = vec![first];
    // 40 connections at once against 8 completion entries, with nobody harvesting meanwhile.
    for _ in 0..40 {
        clients.push(TcpStream::connect(address).expect("connect"));
    }
    while slots.len() < 41 {
        match event(&mut ring) {
            Event::Accept {
                result: Ok(slot),
                more,
                listener,
            } => {
                slots.push(slot);
                if !more {
                    ring.accept(listener);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    for slot in &slots {
        ring.send(*slot, Payload::Shared(0..1));
    }
    for _ in &slots {
        assert!(matches!(event(&mut ring), Event::Sent { bytes: 1, .. }));
    }
    assert!(0 < ring.counts().cq_overflows, "it was to overflow");
}

#[test]
fn bundles_are_used_once_a_connection_has_filled_its_buffers() {
    // The first receive is armed plain, and ends at its limit with a full buffer: from then on several buffers come with
    // one completion.
    let mut ring = Ring::new(&Config {
        recv_bytes_max: 1_024,
        ..small(Features::default())
    })
    .expect("ring");
    assert!(ring.features().has(Feature::Bundle), "this kernel has them");
    let (_, slot, mut client) = connected(&mut ring);
    let bytes = 64 * 1_024;
    let writing = std::thread::spawn(move || {
        client.write_all(&vec![7; bytes]).expect("write");
        client
    });
    ring.recv(slot);
    let cqes_before = ring.counts().cqes;
    let (mut received, mut pieces) = (0, 0);
    while received < bytes {
        match event(&mut ring) {
            Event::Recv { result, more, .. } => {
                if let Ok(Some(buffer)) = result {
                    received += buffer.len();
                    pieces += 1;
                    ring.release(buffer);
                } else {
                    assert!(matches!(result, Err(Errno::NOBUFS)), "{result:?}");
                }
                if !more && received < bytes {
                    ring.recv(slot);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    writing.join().expect("writer");
    let cqes = ring.counts().cqes - cqes_before;
    assert!(
        cqes < pieces,
        "{cqes} completions for {pieces} pieces: no bundle"
    );
}

#[test]
fn a_piece_that_was_said_to_follow_comes_next_though_the_queue_fills_meanwhile() {
    // Pieces in a row are put together by the ring's word: an end of another connection's send, in between them, would
    // find them half done.
    let mut ring = Ring::new(&Config {
        shared: Arc::from(&b"x"[..]),
        ..small(Features::default().without(Feature::Bundle))
    })
    .expect("ring");
    let (_, sender, mut client) = connected(&mut ring);
    let address = client.peer_addr().expect("address");
    let _other_client = TcpStream::connect(address).expect("connect");
    let Event::Accept {
        result: Ok(other), ..
    } = event(&mut ring)
    else {
        panic!("an accept was to come");
    };
    ring.recv(sender);
    client.write_all(&[1; 128]).expect("write");
    let Event::Recv {
        result: Ok(Some(first)),
        ..
    } = event(&mut ring)
    else {
        panic!("bytes were to arrive");
    };
    assert!(ring.another_piece_follows(sender), "two buffers' worth");
    ring.send_now(other, Payload::Shared(0..1));
    // More than the 8 submission entries hold: they are submitted early.
    for _ in 0..8 {
        ring.shutdown_write(other);
    }
    match event(&mut ring) {
        Event::Recv {
            slot,
            result: Ok(Some(second)),
            ..
        } => {
            assert_eq!(slot, sender);
            ring.release(second);
        }
        other => panic!("{other:?}"),
    }
    ring.release(first);
    assert!(matches!(event(&mut ring), Event::Sent { bytes: 1, .. }));
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

fn zero_copy() -> Features {
    let features = Features::default().with(Feature::SendZc);
    features
        .without(Feature::SkipSuccess)
        .without(Feature::Gather)
}

/// Echoes what a client sends that doesn't read, until a zero-copy send waits for it. All that the client sent was
/// received, so that a close is no reset.
fn stuck_zero_copy_send(ring: &mut Ring) -> (Slot, TcpStream) {
    let (_, slot, client) = connected(ring);
    let mut writer = client.try_clone().expect("clone");
    let enough = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&enough);
    let writing = std::thread::spawn(move || {
        let mut written = 0;
        while !told.load(Ordering::Relaxed) {
            writer.write_all(&[7; 4_096]).expect("all is received");
            written += 4_096;
        }
        written
    });
    ring.recv(slot);
    let (mut received, mut sent_at) = (0, 0);
    let mut written = usize::MAX;
    let mut writing = Some(writing);
    let deadline = Instant::now() + Duration::from_secs(10);
    while received < written {
        assert!(Instant::now() < deadline, "no send gets stuck within 10 s");
        ring.submit_and_wait(Some(Duration::from_millis(50)))
            .expect("enter");
        while let Some(event) = ring.next_event() {
            match event {
                Event::Recv { result, more, .. } => {
                    match result {
                        Ok(Some(buffer)) => {
                            received += buffer.len();
                            if ring.is_sending(slot) {
                                ring.release(buffer);
                            } else {
                                sent_at = received;
                                ring.send_now(slot, Payload::Buffer(buffer));
                            }
                        }
                        Err(Errno::NOBUFS | Errno::CANCELED) => {}
                        other => panic!("{other:?}"),
                    }
                    if !more {
                        ring.recv(slot);
                    }
                }
                Event::Sent { .. } => {}
                Event::Unsent { rest, .. } => ring.take_back(rest),
                other => panic!("{other:?}"),
            }
        }
        // Each segment of the client's acknowledges what it has: after so many, what is sent finds its window full.
        if sent_at + (4 << 20) < received {
            enough.store(true, Ordering::Relaxed);
        }
        if writing.as_ref().is_some_and(JoinHandle::is_finished) {
            written = writing.take().expect("it is").join().expect("writer");
        }
    }
    assert!(ring.is_sending(slot), "a window's worth is unread");
    assert_eq!(ring.buffers_free(), 7, "the kernel still reads from one");
    (slot, client)
}

#[test]
fn a_close_does_not_wait_for_what_a_zero_copy_send_still_holds() {
    for features in [zero_copy(), zero_copy().without(Feature::Direct)] {
        let mut ring = Ring::new(&Config {
            buffer_size: 4_096,
            ..small(features)
        })
        .expect("ring");
        let (slot, mut client) = stuck_zero_copy_send(&mut ring);
        ring.close(slot);
        match event(&mut ring) {
            Event::Close { slot: closed } => assert_eq!(closed, slot),
            other => panic!("{features:?}: {other:?}"),
        }
        assert_eq!(ring.buffers_free(), 7, "but its buffer does");
        let mut back = Vec::new();
        client.read_to_end(&mut back).expect("EOF and no reset");
        assert!(back.iter().all(|byte| *byte == 7), "written to meanwhile");
        let deadline = Instant::now() + Duration::from_secs(10);
        while ring.buffers_free() < 8 {
            assert!(Instant::now() < deadline, "the buffer never came back");
            no_event(&mut ring);
        }
    }
}

#[test]
fn a_ring_does_not_wait_long_for_what_a_peer_has_not_read() {
    let mut ring = Ring::new(&Config {
        buffer_size: 4_096,
        ..small(zero_copy())
    })
    .expect("ring");
    let (slot, client) = stuck_zero_copy_send(&mut ring);
    ring.close(slot);
    let start = Instant::now();
    drop(ring);
    assert!(start.elapsed() < Duration::from_secs(1));
    drop(client);
}

#[test]
fn a_zero_copy_send_that_fails_gives_its_buffer_back_once() {
    let mut ring = Ring::new(&small(zero_copy())).expect("ring");
    let (_, slot, mut client) = connected(&mut ring);
    client.write_all(b"bytes").expect("write");
    ring.recv(slot);
    let Event::Recv {
        result: Ok(Some(buffer)),
        ..
    } = event(&mut ring)
    else {
        panic!("bytes were to arrive");
    };
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).expect("linger");
    drop(client);
    match event(&mut ring) {
        Event::Recv { result, .. } => assert_eq!(result.err(), Some(Errno::CONNRESET)),
        other => panic!("{other:?}"),
    }
    ring.send_now(slot, Payload::Buffer(buffer));
    match event(&mut ring) {
        Event::Unsent { result, rest, .. } => {
            assert_eq!(result, Err(Errno::PIPE));
            assert_eq!(rest.len(), 5);
            ring.take_back(rest);
        }
        other => panic!("{other:?}"),
    }
    no_event(&mut ring);
    assert_eq!(ring.buffers_free(), 8);
}

#[test]
fn a_wait_that_a_signal_cuts_short_is_no_error() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing, and without SA_RESTART the signal interrupts what waits.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        assert_eq!(
            libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()),
            0
        );
    }
    let (tell, told) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let mut ring = Ring::new(&small(Features::default())).expect("ring");
        // SAFETY: it has no conditions.
        tell.send(unsafe { libc::pthread_self() }).expect("heard");
        let start = Instant::now();
        ring.submit_and_wait(Some(Duration::from_secs(10)))
            .expect("an interruption is no error");
        assert!(ring.next_event().is_none());
        start.elapsed()
    });
    let waiter = told.recv().expect("it says who it is");
    // It may not have begun to wait at the first.
    while !waiting.is_finished() {
        // SAFETY: the thread is not joined yet, so that its name is valid.
        unsafe { libc::pthread_kill(waiter, libc::SIGUSR1) };
        std::thread::sleep(Duration::from_millis(1));
    }
    let waited = waiting.join().expect("no error");
    assert!(waited < Duration::from_secs(10), "the signal ended it");
}

#[test]
fn what_is_submitted_early_fills_no_queue_with_completions() {
    let mut ring = Ring::new(&Config {
        entries: 8,
        cq_entries: 64,
        slots: 64,
        ..small(Features::default())
    })
    .expect("ring");
    let (listener, first, client) = connected(&mut ring);
    let mut clients = vec![client];
    let mut slots = vec![first];
    connect_until(40, &mut ring, &mut clients, &mut slots);
    let _ = listener;
    for slot in &slots {
        ring.recv(*slot);
    }
    ring.submit().expect("submit");
    // Each has two completions, its own and the receive's: 80, in a queue of 64.
    for slot in &slots {
        ring.cancel(*slot);
    }
    for _ in &slots {
        match event(&mut ring) {
            Event::Recv { result, .. } => assert_eq!(result.err(), Some(Errno::CANCELED)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ring.counts().cq_overflows, 0);
}

#[test]
fn a_receive_with_times_brings_bytes_and_when_they_came() {
    const WAIT: Duration = Duration::from_millis(30);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for features in feature_sets() {
        if !features.has(Feature::MultishotRecv) || features.has(Feature::Restrictions) {
            continue;
        }
        let mut ring = Ring::new(&Config {
            buffer_size: 64 + Ring::STAMP_BYTES,
            ..small(features)
        })
        .expect("a ring");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let ours = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let mut peer = listener.accept().expect("accept").0;
        stamp_receives(ours.as_fd()).expect("the kernel stamps");
        let slot = ring.install(ours.as_fd()).expect("a slot");
        drop(ours);
        ring.recv_stamped(slot);
        let received = |ring: &mut Ring| match event(ring) {
            Event::Recv {
                result: Ok(Some(buffer)),
                more,
                ..
            } => {
                let (time, bytes) = ring.stamped_bytes(&buffer);
                let took = (time, bytes.to_vec(), more);
                ring.release(buffer);
                took
            }
            other => panic!("{features:?}: {other:?}"),
        };
        // The kernel begins to stamp a moment after it was asked to.
        let limit = now() + Duration::from_secs(5);
        loop {
            let before = now();
            peer.write_all(b"echo").expect("written");
            let after = now();
            std::thread::sleep(WAIT);
            let (time, bytes, more) = received(&mut ring);
            assert_eq!(
                (bytes.as_slice(), more),
                (&b"echo"[..], true),
                "{features:?}"
            );
            // With a polling thread the bytes may be taken at once; the kernel's time is the same.
            if let Some(time) = time {
                let time = Duration::from_nanos(time);
                assert!(
                    before <= time && time < after + WAIT,
                    "{features:?}: {before:?} {time:?} {after:?}"
                );
                break;
            }
            assert!(now() < limit, "{features:?}: the kernel never stamped");
        }
        // More than a buffer takes comes in pieces, each with its time.
        let many: Vec<u8> = (0..200).collect();
        peer.write_all(&many).expect("written");
        let mut pieces = Vec::new();
        while pieces.len() < many.len() {
            let (time, bytes, more) = received(&mut ring);
            assert!(time.is_some() && bytes.len() <= 64 && more, "{features:?}");
            pieces.extend(bytes);
        }
        assert_eq!(pieces, many);
        peer.shutdown(Shutdown::Write).expect("a half-close");
        let (_, bytes, more) = received(&mut ring);
        assert_eq!(
            (bytes.len(), more),
            (0, false),
            "{features:?}: the end of the stream"
        );
        assert_eq!(ring.buffers_free(), 8);
    }
}

/// A ring that waits for its peers is idle, and not waiting for a disk: else `top` shows a busy machine.
#[test]
fn a_wait_is_not_counted_as_iowait() {
    const WAIT: Duration = Duration::from_millis(300);
    const TRIES: usize = 8;
    let trial = io_uring::IoUring::new(2).expect("a ring");
    if !trial.params().is_feature_no_iowait() {
        return;
    }
    let waiting = std::thread::spawn(|| {
        let mut ring = Ring::new(&small(Features::default())).expect("ring");
        let (_listener, slot, _client) = connected(&mut ring);
        ring.recv(slot);
        ring.submit().expect("armed");
        let cpu = rustix::thread::sched_getcpu();
        let mut cpus = rustix::thread::CpuSet::new();
        cpus.set(cpu);
        rustix::thread::sched_setaffinity(None, &cpus).expect("pinned");
        let shares = (0..TRIES).map(|_| {
            let (idle, iowait) = at_rest(cpu);
            ring.submit_and_wait(Some(WAIT)).expect("waited");
            let (idle_then, iowait_then) = at_rest(cpu);
            (idle_then - idle, iowait_then - iowait)
        });
        // Other tests keep the cpu busy, or wait for a disk themselves: what counts is the stillest time.
        shares.max_by_key(|(idle, iowait)| *idle + *iowait)
    });
    let (idle, iowait) = waiting.join().expect("no panic").expect("a try");
    assert!(iowait <= idle, "{iowait:?} of iowait, {idle:?} idle");
}

/// How long a cpu was idle so far, without and with somebody waiting for a disk.
fn at_rest(cpu: usize) -> (Duration, Duration) {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc/stat");
    let name = format!("cpu{cpu}");
    let line = stat
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words[0] == name)
        .expect("a line a cpu");
    let time = |column: usize| {
        let ticks: u64 = line[column].parse().expect("a number");
        Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
    };
    (time(4), time(5))
}
