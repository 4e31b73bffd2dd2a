//! One block of a curve: every arm is started afresh and warmed up at each of its rates, then every (arm, rate) has one slice
//! of an open loop in each cycle, in random order. So drift and neighbours hit all arms and all rates alike.

use std::time::Duration;

use rand::{Rng, seq::SliceRandom};

use crate::measure::{
    block::{Abort, Block, End, Fault},
    reading::Clocks,
    sides::{Arms, Client, OpenSlice},
    slices::{self, OPEN_RAMP, PAUSE_MAX, clean, start_afresh},
};

/// A slice of one arm at one rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cell {
    /// Which arm.
    pub arm: usize,
    /// Which of the curve's points.
    pub point: usize,
    /// Messages per second; above 0.
    pub rate_per_s: f64,
    /// How long its slices are, about; above 0.
    pub length: Duration,
}

/// How a block is to be run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CurvePlan {
    /// How many arms; at least 1.
    pub arms: usize,
    /// Connections of each, at least 1.
    pub connections: u64,
    /// Each arm's rates; at least one cell.
    pub cells: Vec<Cell>,
    /// How many slices each cell has; at least 1.
    pub cycles: u32,
    /// The length of an unrecorded slice of each cell before that; above 0.
    pub warmup: Duration,
}

impl CurvePlan {
    /// What a block takes, apart from starting and stopping servers.
    #[must_use]
    pub(crate) fn block_time(&self) -> Duration {
        let around = OPEN_RAMP + PAUSE_MAX / 2;
        let of_cell = |cell: &Cell| (cell.length + around) * self.cycles + self.warmup + OPEN_RAMP;
        self.cells.iter().map(of_cell).sum()
    }
}

/// Runs one block; the arms of the [`Block`] that comes of it are the plan's cells, but its faults name the servers' arms.
/// Whatever happens, every server is stopped and every connection closed on return.
///
/// `stop` is asked before every slice; `watch` hears which cell is next.
///
/// # Errors
/// An arm can't be started or connected to, or is no echo. (One that fails later on makes the block invalid instead.)
pub(crate) fn run_block(
    index: usize,
    plan: &CurvePlan,
    random: &mut impl Rng,
    client: &mut impl Client,
    arms: &mut impl Arms,
    stop: &dyn Fn() -> bool,
    watch: &mut dyn FnMut(&Cell),
) -> Result<Block, Abort> {
    let mut run = Run {
        plan,
        client,
        arms,
        stop,
        watch,
        block: Block::new(plan.cells.len()),
        resting: Block::new(plan.arms),
    };
    let outcome = run.play(index, random);
    for arm in 0..plan.arms {
        run.client.close(arm);
        run.arms.stop(arm);
    }
    run.block.ended(outcome)
}

struct Run<'a, C, A> {
    plan: &'a CurvePlan,
    client: &'a mut C,
    arms: &'a mut A,
    stop: &'a dyn Fn() -> bool,
    watch: &'a mut dyn FnMut(&Cell),
    block: Block,
    /// Of each arm: what it did while others had their slices.
    resting: Block,
}

impl<C: Client, A: Arms> Run<'_, C, A> {
    fn play(&mut self, index: usize, random: &mut impl Rng) -> Result<(), End> {
        let mut servers: Vec<usize> = (0..self.plan.arms).collect();
        servers.shuffle(random);
        for arm in servers {
            start_afresh(self.client, self.arms, index, arm)
                .map_err(|reason| End::Abort(Abort::NotStarted(Fault { arm, reason })))?;
        }
        let mut order: Vec<usize> = (0..self.plan.cells.len()).collect();
        order.shuffle(random);
        for &cell in &order {
            if self.asked_to_stop() {
                return Ok(());
            }
            let Cell {
                arm, rate_per_s, ..
            } = self.plan.cells[cell];
            let slice =
                OpenSlice::about(self.plan.warmup, rate_per_s, self.plan.connections, random);
            let outcome = self.client.open_slice(arm, &slice);
            clean(self.arms, arm, outcome)?;
        }
        for cycle in 0..self.plan.cycles {
            order.shuffle(random);
            for &cell in &order {
                if self.asked_to_stop() {
                    return Ok(());
                }
                (self.watch)(&self.plan.cells[cell]);
                self.client.pause(slices::pause(random));
                self.slice(cycle, cell, random)?;
            }
        }
        for arm in 0..self.plan.arms {
            if let Some(reason) = self.resting.arms[arm].restless() {
                self.block.faults.push(Fault { arm, reason });
            }
        }
        Ok(())
    }

    fn asked_to_stop(&mut self) -> bool {
        self.block.cut_short = (self.stop)();
        self.block.cut_short
    }

    fn slice(&mut self, cycle: u32, cell: usize, random: &mut impl Rng) -> Result<(), End> {
        let Cell {
            arm,
            rate_per_s,
            length,
            ..
        } = self.plan.cells[cell];
        let slice = OpenSlice::about(length, rate_per_s, self.plan.connections, random);
        let clocks = Clocks::read(self.arms, self.plan.arms);
        self.block.order.push(cell);
        let outcome = self.client.open_slice(arm, &slice);
        let stretch = clean(self.arms, arm, outcome)?;
        let passed = clocks.passed(self.arms);
        for other in (0..self.plan.arms).filter(|&other| other != arm) {
            self.resting.arms[other].rested(passed.cpu_ns[other], passed.span_ns);
        }
        self.block.arms[cell].measured(cycle, &stretch, &passed, arm);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::measure::world::{GOOD, Server, World};

    fn plan(arms: usize, rates: &[f64]) -> CurvePlan {
        let cell = |arm, point, rate_per_s| Cell {
            arm,
            point,
            rate_per_s,
            length: Duration::from_millis(400),
        };
        CurvePlan {
            arms,
            connections: 50,
            cells: (0..arms)
                .flat_map(|arm| {
                    let rates = rates.iter().enumerate();
                    rates.map(move |(point, &rate)| cell(arm, point, rate))
                })
                .collect(),
            cycles: 4,
            warmup: Duration::from_millis(100),
        }
    }

    fn run(world: &World, plan: &CurvePlan) -> Result<Block, Abort> {
        let mut random = StdRng::seed_from_u64(3);
        let block = run_block(
            1,
            plan,
            &mut random,
            &mut world.clone(),
            &mut world.clone(),
            &|| false,
            &mut |_| {},
        );
        assert!(world.is_tidy(), "something was left behind");
        block
    }

    const QUEUES: Server = Server {
        latency_ns: 100_000,
        queues: true,
        ..GOOD
    };

    #[test]
    fn every_cell_has_a_slice_in_every_cycle_at_its_rate() {
        let world = World::of(&[QUEUES, QUEUES]);
        let plan = plan(2, &[10_000.0, 50_000.0, 120_000.0]);
        let block = run(&world, &plan).expect("all start");
        assert!(block.faults.is_empty(), "{:?}", block.faults);
        for cycle in block.order.chunks(6) {
            let mut sorted = cycle.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4, 5]);
        }
        assert!(
            block
                .order
                .chunks(6)
                .any(|cycle| cycle != &block.order[..6])
        );
        for (cell, arm) in plan.cells.iter().zip(&block.arms) {
            assert_eq!(arm.slices.len(), 4);
            let overloaded = arm.slices.iter().all(|slice| slice.overloaded);
            assert_eq!(overloaded, 100_000.0 < cell.rate_per_s, "{cell:?}");
            assert!(arm.slices.iter().all(|slice| slice.server_cpu_ns.is_some()));
        }
        // As long as the plan says, but for lengths and pauses that are random.
        let took = world.state.borrow().now_ns as f64 / plan.block_time().as_nanos() as f64;
        assert!((0.9..1.1).contains(&took), "{took}");
        // Both arms were warmed up at each rate.
        assert_eq!(world.state.borrow().open_slices.len(), 6 + 4 * 6);
    }

    #[test]
    fn a_server_that_fails_or_does_not_rest_spoils_the_block_and_is_named() {
        let dies = World::of(&[
            QUEUES,
            Server {
                dies_at: Some(5),
                ..QUEUES
            },
        ]);
        let block = run(&dies, &plan(2, &[10_000.0, 20_000.0])).expect("all start");
        assert_eq!(block.faults[0].arm, 1);
        assert!(
            block.faults[0].reason.contains("killed"),
            "{:?}",
            block.faults
        );
        let restless = World::of(&[
            Server {
                restless: 0.2,
                ..QUEUES
            },
            QUEUES,
        ]);
        let block = run(&restless, &plan(2, &[10_000.0])).expect("all start");
        assert_eq!(block.faults.len(), 1);
        assert!(block.faults[0].arm == 0 && block.faults[0].reason.contains("rested"));
        let never = World::of(&[Server {
            refuses_start: Some(0),
            ..QUEUES
        }]);
        assert!(matches!(
            run(&never, &plan(1, &[10_000.0])),
            Err(Abort::NotStarted(Fault { arm: 0, .. }))
        ));
    }
}
