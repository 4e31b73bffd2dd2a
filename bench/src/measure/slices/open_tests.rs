//! Slices of an open loop against the made-up world.

use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::measure::world::{GOOD, Server, World};

/// Answers 100,000 messages a second, each after 50 us.
const QUICK: Server = Server {
    latency_ns: 40_000,
    ..GOOD
};

fn plan(arms: usize) -> SlicePlan {
    SlicePlan {
        arms,
        in_flight: 50,
        slice_min: Duration::from_millis(250),
        measured: Duration::from_secs(4),
        warmup: Duration::from_millis(400),
        floor: false,
        real_time: None,
        open: Some(OpenSlices {
            rate_per_s: 50_000.0,
            messages: 20_000,
            gives_way: true,
        }),
    }
}

fn run(world: &World, plan: &SlicePlan) -> Result<Block, Abort> {
    run_as(1, world, plan)
}

fn run_as(index: usize, world: &World, plan: &SlicePlan) -> Result<Block, Abort> {
    let mut random = StdRng::seed_from_u64(7);
    let outcome = run_block(
        index,
        plan,
        &mut random,
        &mut world.clone(),
        &mut world.clone(),
        &|| false,
        &mut |_| (),
    );
    assert!(world.is_tidy(), "a server or a connection was left behind");
    outcome
}

#[test]
fn slices_are_long_enough_for_their_quantile_and_no_two_alike() {
    let world = World::of(&[QUICK, QUICK]);
    let block = run(&world, &plan(2)).expect("all start");
    assert_eq!(block.faults, []);
    // 20,000 messages at 50,000/s.
    assert_eq!(block.slice, Duration::from_millis(400));
    assert_eq!(block.order.len(), 2 * 10);
    let state = world.state.borrow();
    assert_eq!(state.open_slices.len(), 20);
    assert_eq!(state.pauses.len(), 20, "each begins after a pause");
    let mut lengths = Vec::new();
    for (_, slice) in &state.open_slices {
        // One message to each of 50 connections takes 1 ms; then 50 ms of the schedule.
        assert_eq!(slice.greeting, Duration::from_millis(1));
        assert_eq!(slice.ramp, Duration::from_millis(51));
        let length = (slice.stop - slice.ramp).as_secs_f64();
        assert!((0.3..=0.5).contains(&length), "{length}");
        lengths.push(length);
    }
    lengths.sort_by(f64::total_cmp);
    assert!(lengths.windows(2).all(|two| two[0] < two[1]));
    assert!(0.15 < lengths[19] - lengths[0], "{lengths:?}");
    assert!(
        state
            .pauses
            .iter()
            .all(|pause| *pause <= Duration::from_millis(100))
    );
    for arm in &block.arms {
        let recorded: u64 = arm.slices.iter().map(|slice| slice.recorded).sum();
        assert_eq!(arm.latency.len(), recorded);
        let open = arm.open.as_ref().expect("an open loop");
        assert_eq!(open.service.len(), recorded);
        assert_eq!(arm.overload, None);
    }
}

#[test]
fn slices_are_a_hundred_times_the_slowest_arms_p99() {
    let slower = Server {
        latency_ns: 9_990_000,
        ..GOOD
    };
    let block = run(&World::of(&[QUICK, slower]), &plan(2)).expect("all start");
    assert!(
        block.slice.abs_diff(Duration::from_secs(1)) < Duration::from_millis(1),
        "{:?}",
        block.slice
    );
}

#[test]
fn what_is_too_slow_for_slices_gives_way_to_runs_in_the_first_block_only() {
    let slow = Server {
        latency_ns: 25_000_000,
        ..GOOD
    };
    let world = World::of(&[QUICK, slow]);
    let Err(Abort::TooSlow(fault)) = run(&world, &plan(2)) else {
        panic!("2 s are less than 100 times 25 ms");
    };
    assert_eq!(fault.arm, 1);
    assert!(
        fault.reason.contains("had a p99 of 25.0 ms in its warm-up"),
        "{}",
        fault.reason
    );
    // Later, or where slices were asked for by name, they are as long as they may be.
    let stays = SlicePlan {
        open: plan(2).open.map(|open| OpenSlices {
            gives_way: false,
            ..open
        }),
        ..plan(2)
    };
    for block in [run_as(2, &world, &stays), run(&world, &stays)] {
        assert_eq!(block.expect("all start").slice, OPEN_SLICE_MAX);
    }
}

#[test]
fn a_server_that_does_not_keep_up_is_told_with_the_first_reason() {
    let late = Server {
        overloaded_from: Some(6),
        ..QUICK
    };
    let block = run(&World::of(&[QUICK, late]), &plan(2)).expect("all start");
    assert_eq!(block.faults, []);
    let overloaded = |arm: usize| {
        let slices = &block.arms[arm].slices;
        slices.iter().filter(|slice| slice.overloaded).count()
    };
    // The warm-up is stretch 0; ten slices follow.
    assert_eq!((overloaded(0), overloaded(1)), (0, 5));
    assert_eq!(
        block.arms[1].overload.as_deref(),
        Some("made up not to keep up")
    );
}

#[test]
fn few_messages_make_long_slices_and_many_connections_a_short_greeting() {
    let plan = SlicePlan {
        in_flight: 10_000,
        open: Some(OpenSlices {
            rate_per_s: 1_000.0,
            messages: 20_000,
            gives_way: true,
        }),
        ..plan(1)
    };
    let world = World::of(&[QUICK]);
    let block = run(&world, &plan).expect("it starts");
    assert_eq!(block.slice, OPEN_SLICE_MAX, "20 s would be needed");
    let state = world.state.borrow();
    assert_eq!(state.open_slices[0].1.greeting, Duration::from_millis(100));
}

#[test]
fn at_real_time_priority_a_server_that_is_always_busy_is_refused_in_the_first_block() {
    // The made-up servers of this machine are never idle.
    let plan = SlicePlan {
        real_time: Some(RealTime {
            server_cpus: 1,
            client: true,
        }),
        ..plan(2)
    };
    let far = Server {
        remote: true,
        ..QUICK
    };
    let world = World::of(&[far.clone(), QUICK]);
    let Err(Abort::NotStarted(fault)) = run(&world, &plan) else {
        panic!("100 % are too much");
    };
    assert_eq!(fault.arm, 1);
    assert!(
        fault
            .reason
            .starts_with("kept its cpu 100 % busy in its warm-up"),
        "{}",
        fault.reason
    );
    // Later a busier moment is a finding like any other; and what is not ours was not raised.
    run_as(2, &world, &plan).expect("it goes on");
    run(&World::of(&[far.clone(), far]), &plan).expect("it is fit");
}
