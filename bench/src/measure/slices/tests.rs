//! Whole blocks against the made-up world.

use std::rc::Rc;

use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::measure::world::{GOOD, Server, World};

fn run(world: &World, plan: &SlicePlan) -> Result<Block, Abort> {
    run_until(world, plan, &|| false)
}

fn run_until(world: &World, plan: &SlicePlan, stop: &dyn Fn() -> bool) -> Result<Block, Abort> {
    let mut random = StdRng::seed_from_u64(7);
    let outcome = run_block(
        1,
        plan,
        &mut random,
        &mut world.clone(),
        &mut world.clone(),
        stop,
        &mut |_| (),
    );
    assert!(world.is_tidy(), "a server or a connection was left behind");
    outcome
}

fn plan(arms: usize) -> SlicePlan {
    SlicePlan {
        arms,
        in_flight: 50,
        slice_min: Duration::from_millis(50),
        measured: Duration::from_secs(1),
        warmup: Duration::from_millis(300),
        floor: false,
        real_time: None,
        open: None,
    }
}

#[test]
fn the_floor_takes_its_turn_in_every_cycle() {
    let world = World::of(&[GOOD, GOOD]);
    let plan = SlicePlan {
        floor: true,
        ..plan(2)
    };
    let block = run(&world, &plan).expect("all start");
    assert_eq!((&block.faults[..], &block.floor_fault), (&[][..], &None));
    assert_eq!(block.order.len(), 3 * 20);
    for cycle in block.order.chunks(3) {
        let mut seen = cycle.to_vec();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2], "the floor's number follows the arms'");
    }
    let cycles: Vec<u32> = block.floor.iter().map(|(cycle, _)| *cycle).collect();
    assert_eq!(cycles, (0..20).collect::<Vec<u32>>());
    // A fifth of a slice of 50 ms; all that time the arms rest.
    assert!(
        block
            .floor
            .iter()
            .all(|(_, slice)| slice.span_ns == 10_000_000)
    );
    assert_eq!(block.arms[0].resting_span_ns, 20 * 60_000_000);
}

#[test]
fn who_computes_while_the_floor_is_measured_is_found_out() {
    let restless = Server {
        restless: 0.5,
        ..GOOD
    };
    let plan = SlicePlan {
        floor: true,
        ..plan(1)
    };
    let block = run(&World::of(&[restless]), &plan).expect("it starts");
    assert!(
        block.faults[0].reason.contains("while it rested"),
        "{:?}",
        block.faults
    );
}

#[test]
fn a_floor_that_breaks_costs_the_arms_nothing() {
    let world = World::of(&[GOOD, GOOD]);
    world.state.borrow_mut().floor_breaks_at = Some(3);
    let plan = SlicePlan {
        floor: true,
        ..plan(2)
    };
    let block = run(&world, &plan).expect("all start");
    assert_eq!(block.faults, []);
    assert_eq!(block.floor.len(), 2);
    assert!(block.floor_fault.is_some());
    assert!(block.arms.iter().all(|arm| arm.slices.len() == 20));
    assert_eq!(block.order.len(), 2 * 20 + 2);
}

#[test]
fn arms_take_turns_and_each_has_its_share() {
    let slower = Server {
        message_ns: 20_000,
        ..GOOD
    };
    let world = World::of(&[GOOD, slower, GOOD]);
    let block = run(&world, &plan(3)).expect("all start");
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
    run(&world, &plan(2)).expect("all start");
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
    let block = run(&World::of(&[GOOD, slower.clone()]), &plan).expect("all start");
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
    let block = run(&World::of(&[GOOD, slower]), &plan).expect("all start");
    assert_eq!(block.order.len(), 2 * 3);
}

#[test]
fn an_arm_that_does_not_rest_makes_the_block_invalid_and_is_named() {
    let restless = Server {
        restless: 0.02,
        ..GOOD
    };
    let block = run(&World::of(&[GOOD, restless]), &plan(2)).expect("all start");
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
    let block = run(&World::of(&[GOOD, almost]), &plan(2)).expect("all start");
    assert_eq!(block.faults, []);
}

#[test]
fn a_server_that_dies_is_named_with_its_end() {
    let mortal = Server {
        dies_at: Some(5),
        ..GOOD
    };
    let block = run(&World::of(&[mortal, GOOD]), &plan(2)).expect("all start");
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
    let block = run(&World::of(&[GOOD, lossy]), &plan(2)).expect("all start");
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
    let block = run(&World::of(&[GOOD, silent]), &plan(2)).expect("all start");
    assert_eq!(block.faults.len(), 1);
    assert!(
        block.faults[0].reason.contains("answered nothing"),
        "{:?}",
        block.faults
    );
    assert_eq!(block.order, [0_usize; 0]);

    let unwilling = Server {
        refuses_start: Some(0),
        ..GOOD
    };
    let abort = run(&World::of(&[GOOD, unwilling]), &plan(2)).expect_err("it does not start");
    let reason = "exited with status 1".to_owned();
    assert_eq!(abort, Abort::NotStarted(Fault { arm: 1, reason }));
}

#[test]
fn wrong_bytes_end_everything() {
    let wrong = Server {
        corrupts_at: Some(3),
        ..GOOD
    };
    let abort = run(&World::of(&[GOOD, wrong]), &plan(2)).expect_err("it is no echo");
    let reason = "sent back something else than it got: byte 7".to_owned();
    assert_eq!(abort, Abort::WrongBytes(Fault { arm: 1, reason }));
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
    let block = run(&World::of(&[GOOD, slow]), &plan).expect("all start");
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
    let block = run(&World::of(&[GOOD, remote]), &plan(2)).expect("all start");
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
    let block =
        run_until(&world, &plan(2), &|| 7 <= seen.borrow().driven.len()).expect("all start");
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
