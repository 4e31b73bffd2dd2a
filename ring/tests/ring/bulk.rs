//! Bulk receives: who gets large buffers, one after the other, and bundles of small ones.

use std::io::Write;
use std::net::TcpStream;

use echometer_ring::{Config, Errno, Event, Feature, Features, Ring, Slot};

use crate::support::{connect_until, connected, event, no_event, pieces, small, with_large};

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
