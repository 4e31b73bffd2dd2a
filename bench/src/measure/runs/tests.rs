//! Whole blocks of runs against the made-up world.

use std::rc::Rc;

use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::measure::world::{GOOD, Server, World};

fn plan(arms: usize) -> RunsPlan {
    RunsPlan {
        arms,
        in_flight: 50,
        measured: Duration::from_secs(1),
        warmup: Duration::from_millis(300),
        floor: false,
        real_time: None,
    }
}

fn run(world: &World, plan: &RunsPlan) -> Result<Block, Abort> {
    run_until(world, plan, &|| false)
}

fn run_until(world: &World, plan: &RunsPlan, stop: &dyn Fn() -> bool) -> Result<Block, Abort> {
    let mut random = StdRng::seed_from_u64(7);
    let (mut client, mut arms) = (world.clone(), world.clone());
    let outcome = run_block(
        1,
        plan,
        &mut random,
        &mut client,
        &mut arms,
        stop,
        &mut |_| (),
    );
    assert!(world.is_tidy(), "a server or a connection was left behind");
    outcome
}

#[test]
fn each_arm_has_two_runs_on_fresh_servers_in_random_order() {
    let slower = Server {
        message_ns: 20_000,
        ..GOOD
    };
    let world = World::of(&[GOOD, slower]);
    let block = run(&world, &plan(2)).expect("all start");
    assert_eq!((&block.faults[..], block.cut_short), (&[][..], false));
    let mut order = block.order.clone();
    order.sort_unstable();
    assert_eq!(order, [0, 0, 1, 1]);
    assert_eq!(world.state.borrow().starts, [2, 2]);
    for (arm, cost) in [(0, 10_000), (1, 20_000)] {
        let figures = &block.arms[arm];
        assert_eq!((figures.slices.len(), figures.runs.len()), (2, 2));
        for (slice, run) in figures.slices.iter().zip(&figures.runs) {
            assert_eq!(
                slice.server_cpu_ns,
                Some(slice.messages * cost),
                "warm-up left out"
            );
            // Two turns of 50 in flight are the ramp, and not recorded.
            assert_eq!(run.stretch.recorded_span_ns, 1_000_000_000);
            assert_eq!(slice.recorded, 1_000_000_000 / cost);
        }
        assert_eq!(figures.latency.len(), 2 * 1_000_000_000 / cost);
        assert_eq!(figures.resting_share(), None, "nobody rests");
        assert_eq!(figures.usage.expect("it is local").context_switches, 2);
    }
}

#[test]
fn orders_differ_from_block_to_block() {
    let world = World::of(&[GOOD, GOOD]);
    let mut random = StdRng::seed_from_u64(1);
    let orders: std::collections::HashSet<Vec<usize>> = (0..20)
        .map(|index| {
            let (mut client, mut arms) = (world.clone(), world.clone());
            let block = run_block(
                index,
                &plan(2),
                &mut random,
                &mut client,
                &mut arms,
                &|| false,
                &mut |_| (),
            );
            block.expect("all start").order
        })
        .collect();
    assert_eq!(orders.len(), 6, "all orders of 2 A and 2 B come up");
}

#[test]
fn the_floor_has_its_two_turns() {
    let floored = RunsPlan {
        floor: true,
        ..plan(2)
    };
    let world = World::of(&[GOOD, GOOD]);
    let block = run(&world, &floored).expect("all start");
    assert_eq!(block.order.iter().filter(|&&arm| arm == 2).count(), 2);
    let floor: Vec<(u32, u64)> = block
        .floor
        .iter()
        .map(|(turn, slice)| (*turn, slice.span_ns))
        .collect();
    assert_eq!(floor, [(0, 200_000_000), (1, 200_000_000)]);
    world.state.borrow_mut().floor_breaks_at = Some(4);
    let block = run(&world, &floored).expect("all start");
    assert_eq!((block.faults.len(), block.floor.len()), (0, 1));
    assert!(block.floor_fault.is_some());
}

#[test]
fn a_server_that_dies_or_loses_messages_spoils_the_block_and_is_named() {
    for (server, expected) in [
        (
            Server {
                dies_at: Some(3),
                ..GOOD
            },
            "was killed by signal 9",
        ),
        (
            Server {
                loses_at: Some(3),
                ..GOOD
            },
            "lost or spoilt messages: 3 lost",
        ),
        (
            Server {
                silent: true,
                ..GOOD
            },
            "too few messages: 0 recorded, 2 of 2 slices without any (raise -d or --slice)",
        ),
    ] {
        let block = run(&World::of(&[GOOD, server]), &plan(2)).expect("all start");
        let reason = expected.to_owned();
        assert_eq!(block.faults, [Fault { arm: 1, reason }]);
    }
}

#[test]
fn wrong_bytes_and_servers_that_do_not_start_end_it() {
    let wrong = Server {
        corrupts_at: Some(1),
        ..GOOD
    };
    let abort = run(&World::of(&[GOOD, wrong]), &plan(2)).expect_err("it is no echo");
    assert!(
        matches!(abort, Abort::WrongBytes(Fault { arm: 1, .. })),
        "{abort:?}"
    );
    let unwilling = Server {
        refuses_start: Some(1),
        ..GOOD
    };
    let abort = run(&World::of(&[GOOD, unwilling]), &plan(2)).expect_err("its second start fails");
    assert!(
        matches!(abort, Abort::NotStarted(Fault { arm: 1, .. })),
        "{abort:?}"
    );
}

#[test]
fn a_request_to_stop_leaves_no_half_run() {
    let world = World::of(&[GOOD, GOOD]);
    let seen = Rc::clone(&world.state);
    // Warm-up and run of the first, then a warm-up and, in the midst of the second run, the request.
    let block =
        run_until(&world, &plan(2), &|| 4 <= seen.borrow().driven.len()).expect("all start");
    assert!(block.cut_short);
    let runs: usize = block.arms.iter().map(|arm| arm.runs.len()).sum();
    assert_eq!(runs, 1);
}
