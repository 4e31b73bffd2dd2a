//! The measured loop allocates nothing: a stretch ten times as long takes no more allocations than a short one, and
//! neither does one in which the server stands still. A program of its own, because all of its threads are counted.

use std::{
    alloc::System,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use echometer_loadgen::{
    Fleet, Membership, Phase, Plan, Target,
    plan::{Arrivals, Engine, Load, Wait},
};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn no_message_costs_an_allocation() {
    let target = Target::from(echo());
    let open = |arrivals| Load::Open {
        rate_per_s: 5_000.0,
        arrivals,
    };
    let loads = [
        ("closed loop", Load::Closed, 1),
        ("closed loop, pipelined", Load::Closed, 16),
        ("uniform", open(Arrivals::Uniform), 64),
        ("Poisson", open(Arrivals::Poisson), 64),
    ];
    for engine in [Engine::Uring, Engine::Epoll] {
        for (name, load, pipeline) in loads {
            let plan = Plan {
                connections: 4,
                engine,
                load,
                pipeline,
                wait: Wait::Block,
                verify: true,
                ..Plan::default()
            };
            let mut fleet = Fleet::start(&plan).expect("a fleet");
            let session = fleet.open(&target).expect("the peer listens");
            // What is allocated once, in the first seconds, is.
            let mut stretch = |ms: u64| {
                let phase = Phase {
                    greeting: Duration::ZERO,
                    record_after: Duration::from_millis(1),
                    stop_after: Duration::from_millis(ms),
                    give_up_after: Duration::from_secs(10),
                    membership: Membership::ByReply,
                    intervals: None,
                };
                let before = COUNTED.stats();
                let tally = fleet.drive(session, &phase).expect("a tally");
                let after = COUNTED.stats();
                assert_eq!((tally.errors.total(), tally.outstanding), (0, 0));
                let made = after.allocations - before.allocations
                    + (after.reallocations - before.reallocations);
                (made, tally.messages)
            };
            stretch(300);
            let (short, few) = stretch(40);
            STAND_STILL.store(true, Relaxed);
            let (long, many) = stretch(400);
            assert!(!STAND_STILL.load(Relaxed), "the server stood still");
            assert!(
                few + 500 < many,
                "{engine:?}, {name}: {few} and {many} messages"
            );
            // A stretch costs the same handful of allocations whatever its length; the channel between the threads
            // takes one for each 31 words that pass over it, so that one stretch may have one more than another.
            assert!(
                long <= short + 2,
                "{engine:?}, {name}: {long} allocations for {many} messages, {short} for {few}"
            );
        }
    }
}

/// Makes the server's next connection that has something to read wait first, for long enough that hundreds of messages
/// come due on it.
static STAND_STILL: AtomicBool = AtomicBool::new(false);
const STILL_FOR: Duration = Duration::from_millis(150);

/// An echo server that allocates nothing once its connections are made.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                    if STAND_STILL.swap(false, Relaxed) {
                        thread::sleep(STILL_FOR);
                    }
                    if stream.write_all(&buffer[..bytes]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}
