//! Zero-copy sends, whose buffers stay with the kernel until the notification.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use echometer_ring::{Config, Errno, Event, Feature, Features, Payload, Ring, Slot};

use crate::support::{connected, event, no_event, small};

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
                Event::Sent { .. } | Event::Taken { .. } => {}
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
