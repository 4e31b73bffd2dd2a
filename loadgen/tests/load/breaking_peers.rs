//! Peers that break their promises: counted by kind, the lost censored, and nothing ever hangs.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use echometer_loadgen::{
    Failure, Fleet, OpenError, Phase, Plan, Tally,
    plan::{Arrivals, Engine, Load},
};

use crate::{
    for_each_engine,
    support::{drive, peer, plan, run_of, slice_of, target_of},
};

for_each_engine! {
    fn a_peer_that_closes_is_counted_and_the_rest_goes_on;
    fn a_peer_that_resets_loses_its_messages;
    fn a_peer_that_never_answers_is_waited_for_and_no_longer;
    fn a_peer_that_answers_too_much_is_no_echo_server;
    fn a_wrong_byte_is_found_and_shown;
    fn a_peer_that_never_reads_holds_nobody_up;
    fn a_connection_given_up_is_not_used_again;
    fn nobody_there_is_one_clear_line;
    fn every_breach_is_counted_by_kind_while_connections_come_and_go;
    fn a_listener_that_never_accepts_holds_nobody_up;
}

/// Echoes `messages` of 64 bytes, then gives the stream to `then`.
fn echo_then(mut stream: TcpStream, messages: usize, then: impl FnOnce(TcpStream)) {
    let mut buffer = [0; 64];
    for _ in 0..messages {
        if stream
            .read_exact(&mut buffer)
            .and_then(|()| stream.write_all(&buffer))
            .is_err()
        {
            return;
        }
    }
    then(stream);
}

fn agree(tally: &Tally) {
    assert_eq!(tally.sent, tally.messages + tally.lost + tally.outstanding);
    let window = tally.window;
    assert_eq!(
        window.sent,
        window.answered + window.lost + window.outstanding
    );
    assert_eq!(tally.latency.len(), window.answered + window.censored());
}

fn a_peer_that_closes_is_counted_and_the_rest_goes_on(engine: Engine) {
    let accepted = Arc::new(AtomicUsize::new(0));
    let address = peer(move |stream| {
        // The second of the connections is closed after ten messages.
        let fated = accepted.fetch_add(1, Ordering::Relaxed) == 1;
        echo_then(stream, if fated { 10 } else { usize::MAX }, drop);
    });
    let tally = drive(
        &Plan {
            connections: 3,
            ..plan(engine)
        },
        &target_of(address),
        &run_of(0, 200),
    );
    agree(&tally);
    assert_eq!((tally.errors.total(), tally.connections_alive), (1, 2));
    assert!(tally.lost <= 1 && 10 < tally.messages);
    assert!(!tally.stopped_early);
}

fn a_peer_that_resets_loses_its_messages(engine: Engine) {
    let address = peer(|stream| {
        // Closing with the next message unread makes a reset.
        echo_then(stream, 5, |stream| {
            while !matches!(stream.peek(&mut [0]), Ok(1) | Err(_)) {}
        });
    });
    let plan = Plan {
        load: Load::Open {
            rate_per_s: 1_000.0,
            arrivals: Arrivals::Uniform,
        },
        pipeline: 100,
        connections: 4,
        ..plan(engine)
    };
    let tally = drive(&plan, &target_of(address), &run_of(0, 2_000));
    agree(&tally);
    assert_eq!(
        (
            tally.errors.total(),
            tally.connections_alive,
            tally.messages
        ),
        (4, 0, 20)
    );
    assert!(
        4 <= tally.lost,
        "each connection lost the message that was not read"
    );
    assert!(
        tally.stopped_early,
        "with nobody left there is nothing to measure"
    );
    assert!(tally.recorded_span_ns < 1_500_000_000);
    assert_eq!(tally.window.censored(), tally.lost + tally.window.unsent);
    assert!(tally.window.censored_from_ns.is_some());
}

fn a_peer_that_never_answers_is_waited_for_and_no_longer(engine: Engine) {
    let address =
        peer(|mut stream| while !matches!(stream.read(&mut [0; 4096]), Ok(0) | Err(_)) {});
    let begun = Instant::now();
    let phase = Phase {
        greeting: Duration::ZERO,
        give_up_after: Duration::from_millis(300),
        ..run_of(0, 100)
    };
    let tally = drive(&plan(engine), &target_of(address), &phase);
    agree(&tally);
    assert_eq!((tally.sent, tally.messages, tally.outstanding), (8, 0, 8));
    // They had waited for 400 ms, and that is what the histogram holds, as a lower bound.
    let (least, greatest) = (tally.latency.min(), tally.latency.max());
    assert!(
        395_000_000 < least && greatest < 2_000_000_000,
        "{least} to {greatest}"
    );
    assert_eq!(tally.window.censored(), 8);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

fn a_peer_that_answers_too_much_is_no_echo_server(engine: Engine) {
    let address = peer(|stream| {
        echo_then(stream, 3, |mut stream| {
            let _ = stream.write_all(&[0; 65]);
            let _ = stream.read(&mut [0; 64]);
        });
    });
    let tally = drive(
        &Plan {
            connections: 1,
            ..plan(engine)
        },
        &target_of(address),
        &run_of(0, 1_000),
    );
    agree(&tally);
    assert_eq!(tally.errors.of(Failure::Surplus), 1);
}

fn a_wrong_byte_is_found_and_shown(engine: Engine) {
    let address = peer(|mut stream| {
        let mut buffer = [0; 64];
        for message in 0.. {
            if stream.read_exact(&mut buffer).is_err() {
                return;
            }
            buffer[17] ^= u8::from(message == 2);
            if stream.write_all(&buffer).is_err() {
                return;
            }
        }
    });
    let plan = Plan {
        connections: 1,
        verify: true,
        ..plan(engine)
    };
    let tally = drive(&plan, &target_of(address), &run_of(0, 1_000));
    agree(&tally);
    let difference = tally.mismatch.expect("one byte was changed");
    assert_eq!((difference.connection, difference.offset), (0, 2 * 64 + 17));
    assert_eq!(difference.expected ^ 1, difference.got);
    assert_eq!(tally.errors.of(Failure::Mismatch), 1);
    // Unless asked for, nobody looks.
    let plan = Plan {
        verify: false,
        ..plan
    };
    assert_eq!(
        drive(&plan, &target_of(address), &run_of(0, 50))
            .errors
            .total(),
        0
    );
}

fn a_peer_that_never_reads_holds_nobody_up(engine: Engine) {
    let accepted = Arc::new(AtomicUsize::new(0));
    let address = peer(move |stream| {
        if accepted.fetch_add(1, Ordering::Relaxed) == 0 {
            // Held open and not read, until the client goes.
            let mut probe = stream.try_clone().expect("a descriptor");
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .expect("a valid time");
            while stream.peek(&mut [0]).is_ok_and(|bytes| bytes != 0)
                && stream.take_error().is_ok_and(|e| e.is_none())
            {
                if probe.write(&[]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        } else {
            let mut buffer = vec![0; 1 << 20];
            let mut stream = stream;
            while let Ok(bytes) = stream.read(&mut buffer) {
                if bytes == 0 || stream.write_all(&buffer[..bytes]).is_err() {
                    return;
                }
            }
        }
    });
    let plan = Plan {
        connections: 2,
        message_size: 32 << 20,
        ..plan(engine)
    };
    let phase = Phase {
        greeting: Duration::ZERO,
        give_up_after: Duration::from_millis(500),
        ..run_of(0, 1_000)
    };
    let tally = drive(&plan, &target_of(address), &phase);
    agree(&tally);
    assert_eq!(tally.outstanding, 1, "the one whose peer does not read");
    assert!(0 < tally.messages, "its neighbour is served");
    assert!(tally.life_sent_bytes < tally.sent * (32 << 20));
}

fn a_connection_given_up_is_not_used_again(engine: Engine) {
    let accepted = Arc::new(AtomicUsize::new(0));
    let address = peer(move |stream| {
        // The first connection stops answering after ten messages.
        let mute = accepted.fetch_add(1, Ordering::Relaxed) == 0;
        echo_then(stream, if mute { 10 } else { usize::MAX }, |mut stream| {
            while !matches!(stream.read(&mut [0; 4096]), Ok(0) | Err(_)) {}
        });
    });
    let mut fleet = Fleet::start(&Plan {
        connections: 2,
        ..plan(engine)
    })
    .unwrap();
    let session = fleet.open(&target_of(address)).unwrap();
    let phase = Phase {
        greeting: Duration::ZERO,
        give_up_after: Duration::from_millis(200),
        ..slice_of(1, 100)
    };
    let first = fleet.drive(session, &phase).unwrap();
    assert_eq!((first.outstanding, first.connections_alive), (1, 1));
    let second = fleet.drive(session, &phase).unwrap();
    assert_eq!((second.outstanding, second.errors.total()), (0, 0));
    assert!(0 < second.messages);
}

fn nobody_there_is_one_clear_line(engine: Engine) {
    let address: SocketAddr = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut fleet = Fleet::start(&plan(engine)).unwrap();
    let error = fleet.open(&target_of(address)).unwrap_err();
    assert!(matches!(error, OpenError::Connect { .. }));
    let text = error.to_string();
    assert!(
        text.contains(&address.to_string())
            && text.contains("refused")
            && text.lines().count() == 1,
        "{text}"
    );
    // The fleet is none the worse for it.
    let listening = peer(|stream| {
        echo_then(stream, usize::MAX, drop);
    });
    let session = fleet.open(&target_of(listening)).unwrap();
    assert!(0 < fleet.drive(session, &slice_of(1, 20)).unwrap().messages);
}

/// What a peer does to each connection after it has answered one message.
#[derive(Clone, Copy, Debug)]
enum Breach {
    /// Half an answer, and then the end.
    CloseEarly,
    /// A reset while a message is owed.
    Reset,
    /// An answer and a byte.
    TooMuch,
    /// No answer at all.
    Never,
    /// An answer that is another.
    WrongByte,
}

fn breach(breach: Breach, mut stream: TcpStream) {
    let mut buffer = [0; 65];
    match breach {
        Breach::CloseEarly => {
            let _ = stream.read_exact(&mut buffer[..64]);
            let _ = stream.write_all(&buffer[..32]);
        }
        // Closing with the next message unread makes a reset.
        Breach::Reset => while !matches!(stream.peek(&mut [0]), Ok(1) | Err(_)) {},
        Breach::TooMuch => {
            let _ = stream.read_exact(&mut buffer[..64]);
            let _ = stream.write_all(&buffer);
            let _ = stream.read(&mut [0; 64]);
        }
        Breach::Never => while !matches!(stream.read(&mut [0; 4096]), Ok(0) | Err(_)) {},
        Breach::WrongByte => {
            let _ = stream.read_exact(&mut buffer[..64]);
            buffer[0] ^= 1;
            let _ = stream.write_all(&buffer[..64]);
            let _ = stream.read(&mut [0; 64]);
        }
    }
}

fn every_breach_is_counted_by_kind_while_connections_come_and_go(engine: Engine) {
    use Breach::{CloseEarly, Never, Reset, TooMuch, WrongByte};
    let cases = [
        (CloseEarly, &[Failure::ClosedByPeer][..]),
        // Which of them it is depends on whether we were writing.
        (Reset, &[Failure::Reset, Failure::BrokenPipe]),
        (TooMuch, &[Failure::Surplus]),
        (WrongByte, &[Failure::Mismatch]),
        (Never, &[]),
    ];
    for (kind, failures) in cases {
        // The first connection only looks, and every third keeps its promise.
        let accepted = Arc::new(AtomicUsize::new(0));
        let address = peer(move |stream| {
            let honest = accepted.fetch_add(1, Ordering::Relaxed) % 3 != 2;
            echo_then(stream, if honest { usize::MAX } else { 1 }, |stream| {
                breach(kind, stream);
            });
        });
        let plan = Plan {
            connections: 3,
            requests_per_connection: 4,
            verify: true,
            ..plan(engine)
        };
        let phase = Phase {
            greeting: Duration::ZERO,
            give_up_after: Duration::from_millis(300),
            ..run_of(0, 250)
        };
        let begun = Instant::now();
        let tally = drive(&plan, &target_of(address), &phase);
        agree(&tally);
        let counted: u64 = failures.iter().map(|kind| tally.errors.of(*kind)).sum();
        assert_eq!(
            counted,
            tally.errors.total(),
            "{kind:?}: {:?}",
            tally.errors
        );
        assert_eq!(tally.mismatch.is_some(), failures == [Failure::Mismatch]);
        if let Never = kind {
            // In the end all three wait for an answer in vain.
            assert_eq!((tally.outstanding, tally.errors.total()), (3, 0));
        } else {
            assert!(
                1 < counted && 0 < tally.life_reopened,
                "{kind:?}: {counted}"
            );
            assert_eq!(tally.outstanding, 0, "{kind:?}");
        }
        // One that was written just after the stop is lost too, but not in the window.
        assert!(tally.window.censored() <= tally.lost + tally.outstanding);
        assert!(begun.elapsed() < Duration::from_secs(10), "{kind:?}");
    }
}

fn a_listener_that_never_accepts_holds_nobody_up(engine: Engine) {
    // Room for one, and the look at the start has taken it.
    let listener = crate::support::listener_with_backlog(0);
    let plan = Plan {
        connections: 2,
        requests_per_connection: 1,
        ..plan(engine)
    };
    let phase = Phase {
        greeting: Duration::ZERO,
        give_up_after: Duration::from_millis(200),
        ..run_of(0, 100)
    };
    let begun = Instant::now();
    let tally = drive(&plan, &target_of(listener.local_addr().unwrap()), &phase);
    agree(&tally);
    assert_eq!((tally.sent, tally.life_opened), (0, 0));
    assert_eq!(tally.errors.of(Failure::ConnectTimedOut), 2);
    assert!(begun.elapsed() < Duration::from_secs(5));
}
