//! A known slowness: what `--delay` makes the server do, so that an instrument can be checked against a truth.
//! Times come in as CLOCK_MONOTONIC nanoseconds and due times go out; nothing here reads a clock or waits.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rand_distr::Exp1;

use echometer_host::units;

/// How much before a delayed echo is due a worker wakes, to spin from then on: a thread that wakes from sleep is late by
/// 30 to 120 us on a virtual machine, and a calibration server may not be.
pub const WAKE_LEAD_NS: u64 = 150_000;

/// How much later than it could a server echoes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delay {
    /// Not at all.
    #[default]
    None,
    /// Each piece received is echoed this many ns after it was received.
    Fixed {
        /// 1 ns to 60 s.
        delay_ns: u64,
    },
    /// Each piece received is echoed after a time drawn anew for it from the exponential distribution; where that
    /// would overtake an earlier piece of its connection, together with that one.
    Exp {
        /// 1 ns to 60 s.
        mean_ns: u64,
    },
    /// Nothing is echoed while CLOCK_MONOTONIC modulo the period is below the length, by any worker of any server
    /// of the machine: the clock is theirs in common.
    Freeze {
        /// 1 ns up to the period, without it.
        length_ns: u64,
        /// At most 1 h.
        period_ns: u64,
    },
    /// The worker burns this much CPU for each piece received, before it echoes it.
    Busy {
        /// 1 ns to 1 s.
        burn_ns: u64,
    },
}

/// Says of each piece received when it may be echoed.
#[derive(Debug)]
pub struct Releases {
    delay: Delay,
    random: StdRng,
}

/// What waits for its time to come: in order of due times, and of pushing where those are equal. So a fixed delay,
/// whose due times only grow, keeps the order of bytes; a delay drawn at random keeps it in a connection as long as
/// the caller lets no due time be earlier than the one before it on that connection.
#[derive(Debug)]
pub struct DelayQueue<T> {
    /// A heap, and not a plain FIFO, for random delays. Pushing growing times, as a fixed delay does, costs a
    /// heap no move, and at the rates at which a delay is used popping costs nothing that could be measured.
    heap: BinaryHeap<Reverse<Waiting<T>>>,
    pushed: u64,
}

impl Delay {
    /// Whether this is [`Delay::None`], which engines keep off their hot path altogether.
    #[inline]
    pub fn is_none(&self) -> bool {
        *self == Delay::None
    }

    /// Whether pieces are put off one by one, and so wait in a [`DelayQueue`].
    #[inline]
    pub fn holds_back(&self) -> bool {
        matches!(self, Delay::Fixed { .. } | Delay::Exp { .. })
    }

    /// The end of the frozen stretch that holds `now_ns`, if one does. Until then nothing may be echoed.
    pub fn frozen_until(&self, now_ns: u64) -> Option<u64> {
        match *self {
            Delay::Freeze {
                length_ns,
                period_ns,
            } => {
                let phase = now_ns % period_ns;
                (phase < length_ns).then(|| now_ns - phase + length_ns)
            }
            _ => None,
        }
    }

    /// CPU time to burn for each piece received, in ns.
    pub fn busy_ns(&self) -> u64 {
        match *self {
            Delay::Busy { burn_ns } => burn_ns,
            _ => 0,
        }
    }
}

impl Releases {
    /// Workers take different seeds, or they would draw the same times. The same seed draws the same times again.
    pub fn new(delay: Delay, seed: u64) -> Releases {
        Releases {
            delay,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// When a piece received at `now_ns` may be echoed: never before `now_ns`, and never before `previous_ns`, when the
    /// piece before it on its connection may be (0 for the first), so that bytes keep their order. [`Delay::Busy`] is
    /// CPU time and no waiting: see [`Delay::busy_ns`].
    pub fn due_ns(&mut self, now_ns: u64, previous_ns: u64) -> u64 {
        let due_ns = match self.delay {
            Delay::None | Delay::Busy { .. } => now_ns,
            Delay::Fixed { delay_ns } => now_ns.saturating_add(delay_ns),
            Delay::Exp { mean_ns } => {
                let drawn: f64 = self.random.sample(Exp1);
                now_ns.saturating_add((drawn * mean_ns as f64) as u64)
            }
            Delay::Freeze { .. } => self.delay.frozen_until(now_ns).unwrap_or(now_ns),
        };
        due_ns.max(previous_ns)
    }
}

impl<T> DelayQueue<T> {
    /// An empty queue.
    pub fn new() -> DelayQueue<T> {
        DelayQueue {
            heap: BinaryHeap::new(),
            pushed: 0,
        }
    }

    /// Puts `item` away until `due_ns`.
    pub fn push(&mut self, due_ns: u64, item: T) {
        let waiting = Waiting {
            due_ns,
            turn: self.pushed,
            item,
        };
        self.pushed += 1;
        self.heap.push(Reverse(waiting));
    }

    /// When the next item is due.
    pub fn next_due(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(waiting)| waiting.due_ns)
    }

    /// Takes the next item that is due at `now_ns`.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<T> {
        if self.next_due()? <= now_ns {
            self.heap.pop().map(|Reverse(waiting)| waiting.item)
        } else {
            None
        }
    }

    /// Items waiting.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<T> Default for DelayQueue<T> {
    fn default() -> DelayQueue<T> {
        DelayQueue::new()
    }
}

/// `none`, `fixed:1ms`, `exp:1ms`, `freeze:200ms/2s`, `busy:20us`.
impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Delay, String> {
        const CHOICES: &str = "none, fixed:1ms, exp:1ms, freeze:200ms/2s, busy:20us";
        let (kind, value) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "none" if value.is_empty() => Ok(Delay::None),
            "fixed" => Ok(Delay::Fixed {
                delay_ns: bounded(value, Duration::from_secs(60))?,
            }),
            "exp" => Ok(Delay::Exp {
                mean_ns: bounded(value, Duration::from_secs(60))?,
            }),
            "busy" => Ok(Delay::Busy {
                burn_ns: bounded(value, Duration::from_secs(1))?,
            }),
            "freeze" => {
                let Some((length, period)) = value.split_once('/') else {
                    return Err(format!(
                        "`{text}` lacks its period: write freeze:LENGTH/PERIOD, as in freeze:200ms/2s"
                    ));
                };
                let limit = Duration::from_secs(3600);
                let (length_ns, period_ns) = (bounded(length, limit)?, bounded(period, limit)?);
                if period_ns <= length_ns {
                    return Err(format!(
                        "`{text}` would be frozen for ever: the length must be below the period"
                    ));
                }
                Ok(Delay::Freeze {
                    length_ns,
                    period_ns,
                })
            }
            _ => Err(format!("`{text}` is no delay; there are {CHOICES}")),
        }
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Duration::from_nanos;
        match *self {
            Delay::None => write!(f, "none"),
            Delay::Fixed { delay_ns } => write!(f, "fixed:{:?}", time(delay_ns)),
            Delay::Exp { mean_ns } => write!(f, "exp:{:?}", time(mean_ns)),
            Delay::Freeze {
                length_ns,
                period_ns,
            } => {
                write!(f, "freeze:{:?}/{:?}", time(length_ns), time(period_ns))
            }
            Delay::Busy { burn_ns } => write!(f, "busy:{:?}", time(burn_ns)),
        }
    }
}

/// A duration of 1 ns to `limit`, in ns.
fn bounded(text: &str, limit: Duration) -> Result<u64, String> {
    let value = units::duration(text)?;
    if value.is_zero() {
        return Err(format!(
            "`{text}` is nothing: use `none`, or a time above 0"
        ));
    }
    if limit < value {
        return Err(format!("`{text}` is above the limit of {limit:?}"));
    }
    Ok(value.as_nanos() as u64)
}

#[derive(Debug)]
struct Waiting<T> {
    due_ns: u64,
    turn: u64,
    item: T,
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due_ns, self.turn).cmp(&(other.due_ns, other.turn))
    }
}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Waiting<T> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn what_is_typed_is_what_is_meant() {
        assert_eq!("none".parse(), Ok(Delay::None));
        assert_eq!("fixed:1ms".parse(), Ok(Delay::Fixed { delay_ns: MS }));
        assert_eq!(
            "freeze:200ms/2s".parse(),
            Ok(Delay::Freeze {
                length_ns: 200 * MS,
                period_ns: 2000 * MS
            })
        );
        assert_eq!("busy:20us".parse(), Ok(Delay::Busy { burn_ns: 20_000 }));
        for text in [
            "none",
            "fixed:1.1ms",
            "exp:1ms",
            "freeze:200ms/2s",
            "busy:20µs",
        ] {
            let delay: Delay = text.parse().expect("one of the grammar's own examples");
            assert_eq!(delay.to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| text.parse::<Delay>().expect_err(text);
        assert!(error("slow").contains("none, fixed:1ms, exp:1ms, freeze:200ms/2s, busy:20us"));
        assert!(error("fixed").contains("number"));
        assert!(error("fixed:1").contains("unit is missing"));
        assert!(error("fixed:0ms").contains("nothing"));
        assert!(error("fixed:2m").contains("limit"));
        assert!(error("exp").contains("number"));
        assert!(error("exp:0s").contains("nothing"));
        assert!(error("freeze:200ms").contains("period"));
        assert!(error("freeze:2s/2s").contains("for ever"));
        assert!(error("none:1ms").contains("no delay"));
    }

    #[test]
    fn a_freeze_follows_the_clock() {
        let delay: Delay = "freeze:200ms/2s".parse().expect("valid");
        assert_eq!(delay.frozen_until(4_000 * MS), Some(4_200 * MS));
        assert_eq!(delay.frozen_until(4_199 * MS), Some(4_200 * MS));
        assert_eq!(delay.frozen_until(4_200 * MS), None);
        assert_eq!(delay.frozen_until(5_999 * MS), None);
        let mut releases = Releases::new(delay, 0);
        assert_eq!(releases.due_ns(4_150 * MS, 0), 4_200 * MS);
        assert_eq!(releases.due_ns(4_250 * MS, 0), 4_250 * MS);
    }

    #[test]
    fn drawn_times_are_exponential_and_in_order() {
        let delay = "exp:1ms".parse().expect("valid");
        let mut releases = Releases::new(delay, 7);
        let mut drawn: Vec<u64> = (0..100_000)
            .map(|_| releases.due_ns(5 * MS, 0) - 5 * MS)
            .collect();
        drawn.sort_unstable();
        // Quantiles are -ln(1 - q); the seed is fixed, and at 100,000 draws each has a standard error below 1 %.
        for (q, truth_ms) in [(0.5, 0.693), (0.9, 2.303), (0.99, 4.605)] {
            let shown_ms = drawn[(q * 100_000.0) as usize] as f64 / MS as f64;
            assert!((shown_ms / truth_ms - 1.0).abs() < 0.03, "{q}: {shown_ms}");
        }
        let mut previous_ns = 0;
        for now_ns in (0..100 * MS).step_by(MS as usize / 10) {
            let due_ns = releases.due_ns(now_ns, previous_ns);
            assert!(now_ns.max(previous_ns) <= due_ns);
            previous_ns = due_ns;
        }
    }

    #[test]
    fn nothing_leaves_the_queue_before_its_time() {
        let mut queue = DelayQueue::new();
        queue.push(30, 'c');
        queue.push(10, 'a');
        queue.push(20, 'b');
        assert_eq!(queue.next_due(), Some(10));
        assert_eq!(queue.pop_due(9), None);
        assert_eq!(queue.pop_due(20), Some('a'));
        assert_eq!(queue.pop_due(20), Some('b'));
        assert_eq!(queue.pop_due(29), None);
        assert_eq!((queue.len(), queue.is_empty()), (1, false));
    }

    proptest! {
        #[test]
        fn a_release_is_never_early_and_never_frozen(length in 1u64..5_000, extra in 1u64..5_000, now in any::<u32>()) {
            let delay = Delay::Freeze { length_ns: length, period_ns: length + extra };
            let released = Releases::new(delay, 0).due_ns(u64::from(now), 0);
            prop_assert!(u64::from(now) <= released);
            prop_assert_eq!(delay.frozen_until(released), None);
            prop_assert!(released - u64::from(now) <= length);
        }

        #[test]
        fn equal_times_keep_their_order(dues in proptest::collection::vec(0u64..8, 0..100)) {
            let mut queue = DelayQueue::new();
            for (turn, &due) in dues.iter().enumerate() {
                queue.push(due, (due, turn));
            }
            let popped: Vec<_> = std::iter::from_fn(|| queue.pop_due(u64::MAX)).collect();
            let mut sorted = popped.clone();
            sorted.sort_unstable();
            prop_assert_eq!(popped.len(), dues.len());
            prop_assert_eq!(popped, sorted);
        }
    }
}
