//! Whole blocks against a made-up world: servers of known cost, a load generator that counts, a clock that moves
//! only when somebody works.

use std::{cell::RefCell, rc::Rc};

use rand::{SeedableRng, rngs::StdRng};

use super::*;

/// A server of the made-up world.
#[derive(Debug, Clone)]
struct Server {
    /// What a message costs it, in ns; it is the bottleneck, so this is the time between replies too.
    message_ns: u64,
    /// The share of its resting time that it spends computing.
    restless: f64,
    /// Whether its CPU time can be read.
    remote: bool,
    /// It dies in this stretch of load, counted over the block.
    dies_at: Option<usize>,
    /// It loses a message in this stretch.
    loses_at: Option<usize>,
    refuses_to_start: bool,
    silent: bool,
}

const GOOD: Server = Server {
    message_ns: 10_000,
    restless: 0.0,
    remote: false,
    dies_at: None,
    loses_at: None,
    refuses_to_start: false,
    silent: false,
};

#[derive(Debug, Default)]
struct State {
    now_ns: u64,
    cpu_ns: Vec<u64>,
    running: Vec<bool>,
    open: Vec<bool>,
    dead: Vec<bool>,
    stretches: Vec<usize>,
    /// Every stretch: arm, ramp, length.
    driven: Vec<(usize, Duration, Duration)>,
    starts: usize,
}

/// Both sides of the world share their state, as both sides of a real one share a machine.
#[derive(Clone)]
struct World {
    servers: Vec<Server>,
    state: Rc<RefCell<State>>,
}

impl World {
    fn of(servers: &[Server]) -> Self {
        let n = servers.len();
        let state = State {
            cpu_ns: vec![0; n],
            running: vec![false; n],
            open: vec![false; n],
            dead: vec![false; n],
            stretches: vec![0; n],
            ..State::default()
        };
        Self {
            servers: servers.to_vec(),
            state: Rc::new(RefCell::new(state)),
        }
    }

    fn run(&self, plan: &SlicePlan) -> Result<Block, Fault> {
        self.run_until(plan, &|| false)
    }

    fn run_until(&self, plan: &SlicePlan, stop: &dyn Fn() -> bool) -> Result<Block, Fault> {
        let mut random = StdRng::seed_from_u64(7);
        let outcome = run_block(
            0,
            plan,
            &mut random,
            &mut self.clone(),
            &mut self.clone(),
            stop,
            &mut |_| (),
        );
        let state = self.state.borrow();
        assert!(
            !state.running.iter().any(|&running| running),
            "a server was left running"
        );
        assert!(
            !state.open.iter().any(|&open| open),
            "connections were left open"
        );
        outcome
    }
}

impl Client for World {
    fn open(&mut self, arm: usize, address: SocketAddr) -> Result<(), String> {
        assert_eq!(usize::from(address.port()), 1 + arm, "the address of this arm");
        self.state.borrow_mut().open[arm] = true;
        Ok(())
    }

    fn drive(&mut self, arm: usize, ramp: Duration, length: Duration) -> Result<Stretch, String> {
        let mut state = self.state.borrow_mut();
        assert!(
            state.running[arm] && state.open[arm],
            "only a started arm can be driven"
        );
        state.driven.push((arm, ramp, length));
        let server = &self.servers[arm];
        let stretch = state.stretches[arm];
        state.stretches[arm] += 1;
        let length_ns = length.as_nanos() as u64;
        state.now_ns += length_ns;
        if server.dies_at == Some(stretch) {
            state.dead[arm] = true;
            return Err("connection reset".to_owned());
        }
        let messages = if server.silent {
            0
        } else {
            length_ns / server.message_ns
        };
        state.cpu_ns[arm] += messages * server.message_ns;
        for (other, resting) in self
            .servers
            .iter()
            .enumerate()
            .filter(|&(other, _)| other != arm)
        {
            state.cpu_ns[other] += (length_ns as f64 * resting.restless) as u64;
        }
        let span_ns = (length - ramp).as_nanos() as u64;
        let recorded = if server.silent {
            0
        } else {
            span_ns / server.message_ns
        };
        let mut latency = Histogram::new(3).expect("digits");
        latency
            .record_n(server.message_ns, recorded)
            .expect("in range");
        let faults = if server.loses_at == Some(stretch) {
            [("lost".to_owned(), 3)].into()
        } else {
            BTreeMap::new()
        };
        Ok(Stretch {
            latency,
            recorded,
            recorded_span_ns: span_ns,
            messages,
            faults,
            client_cpu_ns: messages * 5_000,
            client_busiest: 0.5,
            client_run_delay: 0.0,
        })
    }

    fn close(&mut self, arm: usize) {
        self.state.borrow_mut().open[arm] = false;
    }
}

impl Arms for World {
    fn start(&mut self, _block: usize, arm: usize) -> Result<SocketAddr, String> {
        let mut state = self.state.borrow_mut();
        state.starts += 1;
        if self.servers[arm].refuses_to_start {
            return Err("exited with status 1".to_owned());
        }
        state.running[arm] = true;
        Ok(SocketAddr::from(([127, 0, 0, 1], 1 + arm as u16)))
    }

    fn ended(&mut self, arm: usize, _patience: Duration) -> Option<String> {
        self.state.borrow().dead[arm].then(|| "was killed by signal 9".to_owned())
    }

    fn cpu_ns(&mut self, arm: usize) -> Option<u64> {
        (!self.servers[arm].remote).then(|| self.state.borrow().cpu_ns[arm])
    }

    fn usage(&mut self, arm: usize) -> Option<Usage> {
        let switches = self.state.borrow().driven.len() as u64;
        (!self.servers[arm].remote).then_some(Usage {
            context_switches: switches,
            rss_bytes: 1 << 20,
        })
    }

    fn server_cpus(&mut self) -> CpuTimes {
        let state = self.state.borrow();
        CpuTimes {
            busy_ns: state.cpu_ns.iter().sum(),
            softirq_ns: state.now_ns / 4,
            steal_ns: 0,
        }
    }

    fn stop(&mut self, arm: usize) {
        self.state.borrow_mut().running[arm] = false;
    }

    fn now_ns(&mut self) -> u64 {
        self.state.borrow().now_ns
    }
}

fn plan(arms: usize) -> SlicePlan {
    SlicePlan {
        arms,
        in_flight: 50,
        slice_min: Duration::from_millis(50),
        measured: Duration::from_secs(1),
        warmup: Duration::from_millis(300),
    }
}

#[test]
fn arms_take_turns_and_each_has_its_share() {
    let slower = Server {
        message_ns: 20_000,
        ..GOOD
    };
    let world = World::of(&[GOOD, slower, GOOD]);
    let block = world.run(&plan(3)).expect("all start");
    assert_eq!((&block.faults[..], block.cut_short), (&[][..], false));
    assert_eq!(block.slice, Duration::from_millis(50));
    assert_eq!(block.order.len(), 3 * 20, "1 s of 50 ms slices for each");
    for cycle in block.order.chunks(3) {
        let mut seen = cycle.to_vec();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2], "each arm once a cycle");
    }
    let orders: std::collections::HashSet<&[usize]> = block.order.chunks(3).collect();
    assert!(
        4 <= orders.len(),
        "the order is drawn anew in each cycle: {orders:?}"
    );
    for (arm, cost) in [(0, 10_000), (1, 20_000), (2, 10_000)] {
        let figures = &block.arms[arm];
        let cycles: Vec<u32> = figures.slices.iter().map(|slice| slice.cycle).collect();
        assert_eq!(cycles, (0..20).collect::<Vec<u32>>());
        for slice in &figures.slices {
            assert_eq!(
                slice.server_cpu_ns,
                Some(slice.messages * cost),
                "CPU over the whole slice, all its messages"
            );
            assert_eq!(slice.span_ns, 50_000_000);
            assert_eq!(slice.server_cpus.busy_ns, slice.messages * cost);
        }
        let recorded: u64 = figures.slices.iter().map(|slice| slice.recorded).sum();
        assert_eq!(figures.latency.len(), recorded);
        assert_eq!(figures.resting_span_ns, 40 * 50_000_000);
        assert_eq!(
            figures.usage.expect("it is local").context_switches,
            60,
            "the warm-up is left out"
        );
    }
}

#[test]
fn the_ramp_is_two_turns_of_the_arm_itself() {
    let slower = Server {
        message_ns: 20_000,
        ..GOOD
    };
    let world = World::of(&[GOOD, slower]);
    world.run(&plan(2)).expect("all start");
    let state = world.state.borrow();
    for &(arm, ramp, length) in &state.driven[..2] {
        assert_eq!(
            (ramp, length),
            (Duration::ZERO, Duration::from_millis(300)),
            "warm-up of arm {arm}"
        );
    }
    for &(arm, ramp, length) in &state.driven[2..] {
        // 2 x 50 in flight at 100,000/s and at 50,000/s.
        let expected = Duration::from_millis([1, 2][arm]);
        assert!(
            ramp.abs_diff(expected) < Duration::from_micros(1),
            "arm {arm}: {ramp:?}"
        );
        assert_eq!(length, Duration::from_millis(50));
    }
}

#[test]
fn slices_grow_with_the_messages_in_flight_and_the_slowest_arm_sets_them() {
    let slower = Server {
        message_ns: 20_000,
        ..GOOD
    };
    let plan = SlicePlan {
        in_flight: 1_000,
        ..plan(2)
    };
    let block = World::of(&[GOOD, slower.clone()])
        .run(&plan)
        .expect("all start");
    // 20 x 1,000 messages at 50,000/s.
    assert!(
        block.slice.abs_diff(Duration::from_millis(400)) < Duration::from_micros(1),
        "{:?}",
        block.slice
    );
    assert_eq!(block.order.len(), 2 * 3, "1 s holds two and a half");
    // So long that the measured time holds less than one: three cycles all the same.
    let plan = SlicePlan {
        in_flight: 10_000,
        ..plan
    };
    let block = World::of(&[GOOD, slower]).run(&plan).expect("all start");
    assert_eq!(block.order.len(), 2 * 3);
}

#[test]
fn an_arm_that_does_not_rest_makes_the_block_invalid_and_is_named() {
    let restless = Server {
        restless: 0.02,
        ..GOOD
    };
    let block = World::of(&[GOOD, restless])
        .run(&plan(2))
        .expect("all start");
    assert_eq!(block.faults.len(), 1);
    assert_eq!(block.faults[0].arm, 1);
    assert!(
        block.faults[0].reason.contains("2.0 %"),
        "{:?}",
        block.faults
    );
    let almost = Server {
        restless: 0.009,
        ..GOOD
    };
    let block = World::of(&[GOOD, almost]).run(&plan(2)).expect("all start");
    assert_eq!(block.faults, []);
}

#[test]
fn a_server_that_dies_is_named_with_its_end() {
    let mortal = Server {
        dies_at: Some(5),
        ..GOOD
    };
    let block = World::of(&[mortal, GOOD]).run(&plan(2)).expect("all start");
    assert_eq!(
        block.faults,
        [Fault {
            arm: 0,
            reason: "was killed by signal 9".to_owned()
        }]
    );
    assert!(block.order.len() < 40, "the block ends there");
}

#[test]
fn lost_messages_make_the_block_invalid() {
    let lossy = Server {
        loses_at: Some(4),
        ..GOOD
    };
    let block = World::of(&[GOOD, lossy]).run(&plan(2)).expect("all start");
    assert_eq!(
        block.faults,
        [Fault {
            arm: 1,
            reason: "lost or spoilt messages: 3 lost".to_owned()
        }]
    );
}

#[test]
fn a_silent_server_and_one_that_does_not_start() {
    let silent = Server {
        silent: true,
        ..GOOD
    };
    let block = World::of(&[GOOD, silent]).run(&plan(2)).expect("all start");
    assert_eq!(block.faults.len(), 1);
    assert!(
        block.faults[0].reason.contains("answered nothing"),
        "{:?}",
        block.faults
    );
    assert_eq!(block.order, [0_usize; 0]);

    let unwilling = Server {
        refuses_to_start: true,
        ..GOOD
    };
    let failure = World::of(&[GOOD, unwilling])
        .run(&plan(2))
        .expect_err("it does not start");
    assert_eq!(
        failure,
        Fault {
            arm: 1,
            reason: "exited with status 1".to_owned()
        }
    );
}

#[test]
fn too_few_messages_are_no_comparison() {
    let slow = Server {
        message_ns: 25_000_000,
        ..GOOD
    };
    let plan = SlicePlan {
        in_flight: 1,
        ..plan(2)
    };
    let block = World::of(&[GOOD, slow]).run(&plan).expect("all start");
    assert_eq!(block.faults.len(), 1);
    assert!(
        block.faults[0].arm == 1 && block.faults[0].reason.contains("too few"),
        "{:?}",
        block.faults
    );
}

#[test]
fn a_server_whose_cpu_nobody_can_read_is_compared_without_it() {
    let remote = Server {
        remote: true,
        restless: 1.0,
        ..GOOD
    };
    let block = World::of(&[GOOD, remote]).run(&plan(2)).expect("all start");
    assert_eq!(block.faults, []);
    assert!(
        block.arms[1]
            .slices
            .iter()
            .all(|slice| slice.server_cpu_ns.is_none())
    );
    assert_eq!(
        (block.arms[1].resting_share(), block.arms[1].usage),
        (None, None)
    );
}

#[test]
fn a_request_to_stop_ends_the_block_after_the_slice() {
    let world = World::of(&[GOOD, GOOD]);
    let seen = Rc::clone(&world.state);
    let block = world
        .run_until(&plan(2), &|| 7 <= seen.borrow().driven.len())
        .expect("all start");
    assert!(block.cut_short);
    assert_eq!(block.order.len(), 5, "two warm-ups and five slices");
    assert_eq!(block.faults, []);
}

#[test]
fn the_seed_repeats_the_order() {
    let order = |seed| {
        let world = World::of(&[GOOD, GOOD]);
        let mut random = StdRng::seed_from_u64(seed);
        let block = run_block(
            0,
            &plan(2),
            &mut random,
            &mut world.clone(),
            &mut world.clone(),
            &|| false,
            &mut |_| (),
        );
        block.expect("all start").order
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
}
