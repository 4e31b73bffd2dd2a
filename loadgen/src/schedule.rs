//! The schedule of an open loop: which message is due when, and on which connection. Neither socket nor clock is in
//! it, so two schedules made alike are alike.
//!
//! Uniform arrivals of all workers together are exactly `1 / rate` apart: worker `w` of `n` takes every n-th. Poisson
//! arrivals are independent at each worker, at its even share of the rate; their superposition is Poisson again at the
//! full rate (Kingman, Poisson Processes, 1993, superposition theorem).

use rand::{Rng, SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Exp1, Poisson};

use crate::plan::Arrivals;

/// A message that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// ns since the start of the stretch.
    pub at_ns: u64,
    /// The connection it goes to: an index below the worker's number of connections.
    pub connection: u32,
}

/// The due messages of one worker, in order, without end.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    next: Due,
    connections: u32,
    gaps: Gaps,
    /// What comes before all that, if anything.
    greeting: Option<Greeting>,
    /// By how much a greeting moves everything.
    offset_ns: u64,
}

/// One message to each connection, in turn and evenly apart.
#[derive(Clone, Debug)]
struct Greeting {
    /// The connection after the next one.
    after_next: u32,
    length_ns: u64,
    /// The first message of the schedule proper.
    then: Due,
}

impl Greeting {
    fn due(&self, connection: u32, connections: u32) -> Due {
        let at_ns = u128::from(self.length_ns) * u128::from(connection) / u128::from(connections);
        Due {
            at_ns: at_ns as u64,
            connection,
        }
    }
}

#[derive(Clone, Debug)]
enum Gaps {
    /// Fixed point with 64 fractional bits: the error of the n-th instant stays below n * 2^-64 ns, so that a rate
    /// such as 30,000/s does not drift.
    Uniform { at: u128, gap: u128 },
    /// Doubles hold a day in ns with 16 bits to spare. The generator is boxed so that the variants weigh alike.
    Poisson {
        at_ns: f64,
        gap_mean_ns: f64,
        random: Box<SmallRng>,
    },
    /// Arrivals of a rate that changes: those of rate 1, each at the instant by which so many are due (time rescaling;
    /// Çinlar, Introduction to Stochastic Processes, 1975, 4.7).
    Ramp {
        ramp: Ramp,
        /// How many messages of all workers are due before the next one of ours.
        position: f64,
        /// By how much that grows: workers for uniform arrivals, on average for Poisson ones.
        step: f64,
        random: Option<Box<SmallRng>>,
    },
}

/// A rate that grows, or falls, evenly from one value to another: constant before and after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ramp {
    /// Messages per second over all workers, until `from_ns`.
    pub from_per_s: f64,
    /// The same, from `until_ns` on.
    pub to_per_s: f64,
    /// When it begins to change, ns since the start of the stretch.
    pub from_ns: u64,
    /// When it has changed.
    pub until_ns: u64,
}

impl Ramp {
    /// When `count` messages are due, in ns.
    fn at_ns(&self, count: f64) -> f64 {
        let (from, to) = (self.from_per_s / 1e9, self.to_per_s / 1e9);
        let (begin, length) = (
            self.from_ns as f64,
            (self.until_ns - self.from_ns).max(1) as f64,
        );
        let before = from * begin;
        if count <= before {
            return count / from;
        }
        let during = (from + to) / 2.0 * length;
        let count = count - before;
        if during <= count {
            return begin + length + (count - during) / to;
        }
        // from x + (to - from) / (2 length) x^2 = count, solved in the form that doesn't cancel.
        let slope = (to - from) / length;
        begin + 2.0 * count / (from + (from * from + 2.0 * slope * count).sqrt())
    }

    /// How many messages are due by `at_ns`: the inverse of [`Ramp::at_ns`].
    fn count_by(&self, at_ns: f64) -> f64 {
        let (from, to) = (self.from_per_s / 1e9, self.to_per_s / 1e9);
        let (begin, length) = (
            self.from_ns as f64,
            (self.until_ns - self.from_ns).max(1) as f64,
        );
        let before = from * at_ns.min(begin);
        let x = (at_ns - begin).clamp(0.0, length);
        let during = (from + (to - from) / length / 2.0 * x) * x;
        let after = to * (at_ns - begin - length).max(0.0);
        before + during + after
    }
}

/// What part of the whole load a worker makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// The worker's index, below `workers`.
    pub worker: u32,
    /// How many workers share the load; at least 1.
    pub workers: u32,
    /// How many connections this worker has; at least 1.
    pub connections: u32,
}

impl Schedule {
    /// The schedule of one worker for a load of `rate_per_s` (above 0) over all workers.
    ///
    /// Equal arguments give an equal schedule.
    pub(crate) fn new(rate_per_s: f64, arrivals: Arrivals, share: Share, seed: u64) -> Schedule {
        let gap_ns = 1e9 / rate_per_s;
        let gaps = match arrivals {
            Arrivals::Uniform => {
                let gap = fixed_point(gap_ns);
                Gaps::Uniform {
                    at: gap * u128::from(share.worker),
                    gap: gap * u128::from(share.workers),
                }
            }
            Arrivals::Poisson => Gaps::Poisson {
                at_ns: 0.0,
                gap_mean_ns: gap_ns * f64::from(share.workers),
                random: random_of(share, seed),
            },
        };
        Schedule::of(gaps, share)
    }

    /// As [`Schedule::new`], for a rate that changes.
    pub(crate) fn ramp(ramp: Ramp, arrivals: Arrivals, share: Share, seed: u64) -> Schedule {
        let workers = f64::from(share.workers);
        let gaps = match arrivals {
            Arrivals::Uniform => Gaps::Ramp {
                ramp,
                position: f64::from(share.worker),
                step: workers,
                random: None,
            },
            Arrivals::Poisson => Gaps::Ramp {
                ramp,
                position: 0.0,
                step: workers,
                random: Some(random_of(share, seed)),
            },
        };
        Schedule::of(gaps, share)
    }

    fn of(gaps: Gaps, share: Share) -> Schedule {
        // In turn begins with connection 0; the first draw of Poisson is made here.
        let mut schedule = Schedule {
            next: Due {
                at_ns: 0,
                connection: share.connections - 1,
            },
            connections: share.connections,
            gaps,
            greeting: None,
            offset_ns: 0,
        };
        schedule.advance();
        schedule
    }

    /// The same, begun `length_ns` later; until then each connection gets one message. To be called before any is taken.
    pub(crate) fn after_greeting(mut self, length_ns: u64) -> Schedule {
        let greeting = Greeting {
            after_next: 1,
            length_ns,
            then: Due {
                at_ns: self.next.at_ns + length_ns,
                ..self.next
            },
        };
        self.next = greeting.due(0, self.connections);
        self.greeting = Some(greeting);
        self.offset_ns = length_ns;
        self
    }

    /// When the next message is due, in ns since the start of the stretch.
    #[inline]
    pub(crate) fn next_at_ns(&self) -> u64 {
        self.next.at_ns
    }

    /// Takes the next message if it is due at `now_ns` (since the start of the stretch) or was before.
    #[inline]
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<Due> {
        if now_ns < self.next.at_ns {
            return None;
        }
        let due = self.next;
        self.advance();
        Some(due)
    }

    /// Takes all messages that are due before `end_ns`, and gives only how many they are: in a time that doesn't depend
    /// on their number. Uniform arrivals are counted exactly. Of Poisson arrivals, whose next ones nobody has seen yet,
    /// the number is drawn: what is left of a Poisson process is one too, so that it is as true a number as that of the
    /// arrivals that would have been drawn one by one, but not the same.
    pub(crate) fn count_due(&mut self, end_ns: u64) -> u64 {
        // A greeting is short: one by one.
        let mut greeted = 0;
        while self.greeting.is_some() && self.next.at_ns < end_ns {
            self.advance();
            greeted += 1;
        }
        if end_ns <= self.next.at_ns {
            return greeted;
        }
        // Those after the next one.
        let end_ns = end_ns - self.offset_ns;
        let end = end_ns as f64;
        let more = match &mut self.gaps {
            Gaps::Uniform { at, gap } => {
                let more = (u128::from(end_ns) << 64)
                    .saturating_sub(*at)
                    .div_ceil(*gap);
                *at += more * *gap;
                more as u64
            }
            Gaps::Poisson {
                at_ns,
                gap_mean_ns,
                random,
            } => {
                let more = poisson((end - *at_ns) / *gap_mean_ns, random);
                *at_ns = end;
                more
            }
            Gaps::Ramp {
                ramp,
                position,
                step,
                random: None,
            } => {
                let is_due =
                    |count: u64| (ramp.at_ns(*position + count as f64 * *step) as u64) < end_ns;
                // By halves: `low` of them are due, and not `high`.
                let (mut low, mut high) = (0, 1);
                while is_due(high - 1) {
                    (low, high) = (high, high * 2);
                }
                while low + 1 < high {
                    let middle = low + (high - low) / 2;
                    if is_due(middle - 1) {
                        low = middle;
                    } else {
                        high = middle;
                    }
                }
                *position += low as f64 * *step;
                low
            }
            Gaps::Ramp {
                ramp,
                position,
                step,
                random: Some(random),
            } => {
                let by_then = ramp.count_by(end);
                let more = poisson((by_then - *position) / *step, random);
                *position = by_then.max(*position);
                more
            }
        };
        // In turn: as if each had been taken.
        let turns = more % u64::from(self.connections);
        let connection = (u64::from(self.next.connection) + turns) % u64::from(self.connections);
        self.next.connection = connection as u32;
        self.advance();
        greeted + more + 1
    }

    #[inline]
    fn advance(&mut self) {
        if self.greeting.is_some() {
            self.greet();
            return;
        }
        let in_turn = match self.next.connection + 1 {
            connection if connection < self.connections => connection,
            _ => 0,
        };
        self.next = match &mut self.gaps {
            Gaps::Uniform { at, gap } => {
                let at_ns = (*at >> 64) as u64;
                *at += *gap;
                Due {
                    at_ns,
                    connection: in_turn,
                }
            }
            Gaps::Poisson {
                at_ns,
                gap_mean_ns,
                random,
            } => {
                let gap: f64 = Exp1.sample(random);
                *at_ns += gap * *gap_mean_ns;
                Due {
                    at_ns: *at_ns as u64,
                    connection: random.random_range(0..self.connections),
                }
            }
            Gaps::Ramp {
                ramp,
                position,
                step,
                random: None,
            } => {
                let at_ns = ramp.at_ns(*position) as u64;
                *position += *step;
                Due {
                    at_ns,
                    connection: in_turn,
                }
            }
            Gaps::Ramp {
                ramp,
                position,
                step,
                random: Some(random),
            } => {
                let gap: f64 = Exp1.sample(random);
                *position += gap * *step;
                Due {
                    at_ns: ramp.at_ns(*position) as u64,
                    connection: random.random_range(0..self.connections),
                }
            }
        };
        self.next.at_ns += self.offset_ns;
    }

    /// The next of the greeting, or what follows it.
    #[cold]
    fn greet(&mut self) {
        let Some(greeting) = &mut self.greeting else {
            return;
        };
        if greeting.after_next < self.connections {
            let connection = greeting.after_next;
            greeting.after_next += 1;
            self.next = greeting.due(connection, self.connections);
        } else {
            self.next = greeting.then;
            self.greeting = None;
        }
    }
}

/// Workers must not share a sequence; the odd constant keeps their seeds apart.
fn random_of(share: Share, seed: u64) -> Box<SmallRng> {
    let seed = seed ^ u64::from(share.worker + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Box::new(SmallRng::seed_from_u64(seed))
}

/// A Poisson variate of this mean.
fn poisson(mean: f64, random: &mut SmallRng) -> u64 {
    // There is no distribution for a mean of 0 (or, by rounding, a hair below).
    Poisson::new(mean).map_or(0, |distribution| distribution.sample(random) as u64)
}

/// A double (below 2^63) with 64 fractional bits. Its own 53 bits are all kept.
fn fixed_point(value: f64) -> u128 {
    let whole = value.trunc();
    let fraction = (value - whole) * 18_446_744_073_709_551_616.0;
    ((whole as u128) << 64) + fraction as u128
}

#[cfg(test)]
mod tests;
