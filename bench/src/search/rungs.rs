//! The search itself: doublings or halvings until a rate holds and another fails, then the geometric middle of the two until
//! they are a step of 2 % apart. Each rate is decided by votes. Pure: what a slice says comes in.

/// The search ends where the lowest rate that failed is so near to the highest that held.
pub(crate) const STEP: f64 = 1.02;

/// The lowest rate that failed is tried again when the search is at its end: failing once more ends it, and else it goes on
/// from there, so often at most. A disturbance early on would else bound all that follows.
const AGAIN_MAX: u32 = 3;

/// What one slice says of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vote {
    /// It holds.
    Holds,
    /// It does not.
    Fails,
    /// It does not, but perhaps only because the client was late or could not make the load.
    ClientBound,
}

/// A search under way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Search {
    lowest: f64,
    highest: f64,
    first: f64,
    /// So many equal votes decide a rate.
    votes: u32,
    held: Option<f64>,
    failed: Option<f64>,
    /// The lowest rate that failed did so only because of the client, as far as the votes say.
    client_bound: bool,
    /// How often the lowest rate that failed may still be tried again at the end.
    again: u32,
    /// It is being tried again.
    trying_again: bool,
    /// For the rate under way: holds, fails, and how many of the latter because of the client.
    cast: (u32, u32, u32),
}

impl Search {
    /// Begins at `first`, which lies between `lowest` and `highest`; `votes` (at least 1) equal votes decide a rate.
    #[must_use]
    pub(crate) fn new(lowest: f64, highest: f64, first: f64, votes: u32) -> Self {
        Self {
            lowest,
            highest,
            first: first.clamp(lowest, highest),
            votes,
            held: None,
            failed: None,
            client_bound: false,
            again: AGAIN_MAX,
            trying_again: false,
            cast: (0, 0, 0),
        }
    }

    /// The rate to be tried next; the same until it is decided. `None` when the answer is known.
    #[must_use]
    pub(crate) fn next(&self) -> Option<f64> {
        let again = self.failed.filter(|_| self.trying_again || self.again != 0);
        match self.trying_again {
            true => again,
            false => self.towards_the_edge().or(again),
        }
    }

    fn towards_the_edge(&self) -> Option<f64> {
        match (self.held, self.failed) {
            (None, None) => Some(self.first),
            (Some(held), None) => {
                (held < self.highest).then_some((2.0 * held).min(self.highest).round())
            }
            (None, Some(failed)) => {
                (self.lowest < failed).then_some((failed / 2.0).max(self.lowest).round())
            }
            // Whole messages per second: very low rates can't come nearer.
            (Some(held), Some(failed)) => {
                let middle = (held * failed).sqrt().round();
                (held * STEP < failed && held < middle && middle < failed).then_some(middle)
            }
        }
    }

    /// What a slice at the rate that was next says of it.
    pub(crate) fn vote(&mut self, vote: Vote) {
        let Some(rate) = self.next() else { return };
        self.trying_again |= self.towards_the_edge().is_none();
        let (holds, fails, by_client) = &mut self.cast;
        match vote {
            Vote::Holds => *holds += 1,
            Vote::Fails => *fails += 1,
            Vote::ClientBound => {
                *fails += 1;
                *by_client += 1;
            }
        }
        if self.votes <= *holds {
            self.held = Some(rate);
            if std::mem::take(&mut self.trying_again) {
                self.failed = None;
                self.again -= 1;
            }
        } else if self.votes <= *fails {
            self.failed = Some(rate);
            self.client_bound = *fails < 2 * *by_client;
            if std::mem::take(&mut self.trying_again) {
                self.again = 0;
            }
        } else {
            return;
        }
        self.cast = (0, 0, 0);
    }

    /// The highest rate that held; `None` where even the lowest failed. Of use once nothing is to be tried any more.
    #[must_use]
    pub(crate) fn found(&self) -> Option<f64> {
        self.held
    }

    /// Whether the rate above failed only because of the client.
    #[must_use]
    pub(crate) fn client_bound(&self) -> bool {
        self.client_bound
    }

    /// Whether no rate failed.
    #[must_use]
    pub(crate) fn at_the_top(&self) -> bool {
        self.failed.is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches a server that holds up to `capacity`; `stalls` are the slices, counted from 1, that say the contrary.
    fn search(
        first: f64,
        capacity: f64,
        votes: u32,
        stalls: &dyn Fn(u32) -> bool,
    ) -> (Search, u32) {
        let mut search = Search::new(100.0, 20e6, first, votes);
        let mut slices = 0;
        while let Some(rate) = search.next() {
            slices += 1;
            assert!(slices < 10_000, "{search:?}");
            search.vote(match (rate <= capacity) != stalls(slices) {
                true => Vote::Holds,
                false => Vote::Fails,
            });
        }
        (search, slices)
    }

    proptest! {
        #[test]
        fn the_edge_is_found_to_a_step_wherever_it_begins(
            first in 100.0..1e6_f64, capacity in 1e3..10e6_f64,
        ) {
            let (search, slices) = search(first.round(), capacity, 1, &|_| false);
            let found = search.found().expect("the lowest holds");
            prop_assert!(found <= capacity && capacity < found * STEP + 1.0, "{found} {capacity}");
            prop_assert!(slices <= 17 + 8, "{slices}");
        }

        #[test]
        fn a_stall_that_comes_seldom_enough_decides_nothing(
            first in 1e3..1e5_f64, capacity in 1e3..1e6_f64, at in 0..3_u32,
        ) {
            // Every third slice says the contrary: no rate sees more than one of the first three.
            let (stalled, _) = search(first.round(), capacity, 2, &|slice| slice % 3 == at);
            let (calm, _) = search(first.round(), capacity, 2, &|_| false);
            prop_assert_eq!(stalled.found(), calm.found());
        }
    }

    #[test]
    fn a_disturbance_early_on_does_not_bound_what_follows() {
        // The first six slices fail, whatever the server does.
        let (found, _) = search(1e4, 150e3, 3, &|slice| slice <= 6);
        let rate = found.found().expect("it holds");
        assert!(rate <= 150e3 && 150e3 < rate * STEP + 1.0, "{rate}");
    }

    #[test]
    fn the_ends_of_the_range_end_the_search() {
        assert_eq!(search(1e4, 50.0, 2, &|_| false).0.found(), None);
        let (top, _) = search(1e4, 1e9, 2, &|_| false);
        assert_eq!(top.found(), Some(20e6));
    }

    #[test]
    fn whom_the_failure_is_laid_to_is_told_by_most_of_its_votes() {
        for (votes, client_bound) in [
            ([Vote::Fails, Vote::ClientBound], false),
            ([Vote::ClientBound, Vote::ClientBound], true),
        ] {
            let mut search = Search::new(1_000.0, 1_000.0, 1_000.0, 2);
            while search.next().is_some() {
                votes.into_iter().for_each(|vote| search.vote(vote));
            }
            assert_eq!(search.found(), None);
            assert_eq!(search.client_bound(), client_bound);
        }
    }
}
