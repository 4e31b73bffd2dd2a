//! Receiving: piece after piece, with few buffers, with times, and at rest.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use echometer_ring::{Config, Errno, Event, Feature, Features, Payload, Ring, stamp_receives};

use crate::support::{connected, event, feature_sets, no_event, small, with_large};

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
                Event::Taken { .. } => {}
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
fn a_piece_that_was_said_to_follow_comes_next_though_the_queue_fills_meanwhile() {
    // Pieces in a row are put together by the ring's word: an end of another connection's send, in between them, would
    // find them half done.
    let mut ring = Ring::new(&Config {
        entries: 2,
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
    // More than the 2 submission entries hold: they are submitted early.
    ring.recv(other);
    ring.shutdown_write(other);
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
    const TRIES: usize = 60;
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
        // Other tests keep the cpu busy, or wait for a disk themselves: what counts is a wait in which it was at rest.
        (0..TRIES)
            .map(|_| {
                let (idle, iowait) = at_rest(cpu);
                ring.submit_and_wait(Some(WAIT)).expect("waited");
                let (idle_then, iowait_then) = at_rest(cpu);
                (idle_then - idle, iowait_then - iowait)
            })
            .find(|(idle, iowait)| WAIT / 2 <= *idle + *iowait)
    });
    match waiting.join().expect("no panic") {
        Some((idle, iowait)) => assert!(iowait <= idle, "{iowait:?} of iowait, {idle:?} idle"),
        None => {
            eprintln!("not looked at: this cpu was busy with others in {TRIES} waits of {WAIT:?}");
        }
    }
}

/// How long a cpu was idle so far, without and with somebody waiting for a disk.
fn at_rest(cpu: usize) -> (Duration, Duration) {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc/stat");
    let name = format!("cpu{cpu}");
    let line = stat
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words[0] == name)
        .expect("a line per cpu");
    let time = |column: usize| {
        let ticks: u64 = line[column].parse().expect("a number");
        Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
    };
    (time(4), time(5))
}
