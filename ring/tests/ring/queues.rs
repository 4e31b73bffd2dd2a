//! The two queues: full ones, waits, and the end of a ring in full flight.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use echometer_ring::{Config, Errno, Event, Features, Payload, Ring};

use crate::support::{connect_until, connected, copying_feature_sets, event, small};

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
