//! The search carried out: slices of an open loop on a server's connections, at one rate after the other.

use std::time::Duration;

use rand::Rng;

use echometer_report::file::slo::Slo;

use crate::{
    measure::{
        block::End,
        sides::{Arms, Client, OpenSlice, Stretch},
        slices::{OPEN_SLICE_MAX, clean},
    },
    search::rungs::{Search, Vote},
};

/// Above this share of a slice the client's busiest thread may be what keeps the server from its load.
const BUSY_MAX: f64 = 0.90;

/// What is searched for, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SearchPlan {
    /// What has to hold besides that the server keeps up; all of it.
    pub slos: Vec<Slo>,
    /// Whether the rate must leave the client some time, too: batches of messages that are late can be made at any rate, and
    /// say nothing of a server.
    pub idle_client: bool,
    /// Connections, at least 1.
    pub connections: u64,
    /// The shortest slice; above 0.
    pub slice_min: Duration,
    /// A quantile may need longer ones; not beyond this.
    pub slice_max: Duration,
}

impl SearchPlan {
    /// A search for the highest rate that can be measured: the server keeps up, the client has time, and these hold.
    #[must_use]
    pub(crate) fn of_capacity(slos: &[Slo], connections: u64) -> Self {
        Self {
            slos: slos.to_vec(),
            idle_client: true,
            connections,
            slice_min: Duration::from_millis(250),
            slice_max: OPEN_SLICE_MAX,
        }
    }

    /// How long a slice at this rate is.
    #[must_use]
    pub(crate) fn slice_length(&self, rate_per_s: f64) -> Duration {
        let needed = self
            .slos
            .iter()
            .map(|slo| slo.run_length(rate_per_s, self.slice_min))
            .fold(self.slice_min, Duration::max);
        needed.min(self.slice_max.max(self.slice_min))
    }
}

/// Carries `search` out on an arm that was started and has its connections. `stop` is asked before each slice; then the
/// search stays where it is. `keep` hears of every slice.
///
/// # Errors
/// The server failed: see [`clean`].
#[expect(
    clippy::too_many_arguments,
    reason = "two sides, a plan and three ears"
)]
pub(crate) fn carry_out(
    search: &mut Search,
    plan: &SearchPlan,
    arm: usize,
    random: &mut impl Rng,
    client: &mut impl Client,
    arms: &mut impl Arms,
    stop: &dyn Fn() -> bool,
    keep: &mut dyn FnMut(f64, &Stretch, Vote),
) -> Result<(), End> {
    while let Some(rate_per_s) = search.next() {
        if stop() {
            return Ok(());
        }
        let length = plan.slice_length(rate_per_s);
        let slice = OpenSlice::about(length, rate_per_s, plan.connections, random);
        let outcome = client.open_slice(arm, &slice);
        let stretch = clean(arms, arm, outcome)?;
        let vote = vote(plan, &stretch);
        keep(rate_per_s, &stretch, vote);
        search.vote(vote);
    }
    Ok(())
}

/// What a slice says of its rate.
#[must_use]
pub(crate) fn vote(plan: &SearchPlan, stretch: &Stretch) -> Vote {
    let busy = BUSY_MAX < stretch.client_busiest;
    match (stretch.overload.is_empty(), busy) {
        (false, false) => return Vote::Fails,
        (false, true) => return Vote::ClientBound,
        (true, true) if plan.idle_client => return Vote::ClientBound,
        (true, _) => {}
    }
    let missed = plan
        .slos
        .iter()
        .filter(|slo| !slo.holds(slo.value_ns(&stretch.latency)));
    let mut vote = Vote::Holds;
    for slo in missed {
        // Missed even without what the client's own lateness may add.
        let open = stretch.open.as_ref();
        let for_sure = open.is_none_or(|open| !slo.holds(slo.least_ns(open)));
        if for_sure {
            return Vote::Fails;
        }
        vote = Vote::ClientBound;
    }
    vote
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::measure::{
        slices::start_afresh,
        world::{GOOD, Server, World},
    };

    fn slos(texts: &[&str]) -> Vec<Slo> {
        let parse = |text: &&str| text.parse().expect("a test's objective");
        texts.iter().map(parse).collect()
    }

    /// What is found for a server of 100k/s with a wait of 100 us / (1 - load), under all of these.
    fn found(texts: &[&str]) -> f64 {
        let world = World::of(&[Server {
            latency_ns: 100_000,
            queues: true,
            ..GOOD
        }]);
        let (mut client, mut arms) = (world.clone(), world.clone());
        start_afresh(&mut client, &mut arms, 0, 0).expect("it starts");
        let plan = SearchPlan::of_capacity(&slos(texts), 50);
        let mut search = Search::new(1_000.0, 20e6, 10_000.0, 2);
        let mut random = StdRng::seed_from_u64(1);
        let mut kept = 0;
        let outcome = carry_out(
            &mut search,
            &plan,
            0,
            &mut random,
            &mut client,
            &mut arms,
            &|| false,
            &mut |_, _, _| kept += 1,
        );
        assert!(outcome.is_ok() && kept <= 2 * (5 + 6 + 1), "{kept}");
        search.found().expect("the lowest holds")
    }

    #[test]
    fn the_capacity_is_what_the_server_keeps_up_with() {
        assert!((98_000.0..=100_000.0).contains(&found(&[])));
    }

    #[test]
    fn all_objectives_have_to_hold() {
        // 100 us at rest, 210 us at 52 % of the capacity, 1 ms at 90 %.
        let (loose, tight) = (found(&["p99<1ms"]), found(&["p99<210us"]));
        assert!((88_000.0..=90_500.0).contains(&loose), "{loose}");
        assert!((51_000.0..=52_500.0).contains(&tight), "{tight}");
        assert_eq!(found(&["p99<1ms", "p50<210us"]), tight);
    }

    #[test]
    fn slices_are_as_long_as_their_quantile_needs_and_no_longer_than_allowed() {
        let plan = SearchPlan::of_capacity(&slos(&["p99<1ms", "p99.9<2ms"]), 50);
        assert_eq!(plan.slice_length(1e6), Duration::from_millis(250));
        assert_eq!(plan.slice_length(100e3), Duration::from_millis(1_050));
        assert_eq!(plan.slice_length(1e3), OPEN_SLICE_MAX);
    }
}
