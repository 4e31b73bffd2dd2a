//! What a worker does while there is nothing to do: `--wait`. Sleeping costs the first message a wake-up (30 to 120 us
//! on a virtual machine), spinning costs a cpu; the hybrid spins for a while after the last thing that happened.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use echometer_host::units;

/// The longest spin of a hybrid: more is as good as spinning for ever.
const SPIN_MAX: Duration = Duration::from_secs(1);

/// How a worker waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// It sleeps in the kernel.
    #[default]
    Block,
    /// It asks again and again, and never sleeps.
    Spin,
    /// It spins until nothing has happened for that long, and sleeps then.
    Hybrid {
        /// Above zero, at most a second.
        spin: Duration,
    },
}

/// Decides before each wait whether the worker may sleep in it. The clock is asked only while there is nothing to do.
#[derive(Debug)]
pub struct Patience {
    wait: Wait,
    /// Since when nothing has happened.
    idle_since_ns: Option<u64>,
    busy: bool,
}

impl Patience {
    /// For a worker that waits like this.
    pub fn new(wait: Wait) -> Patience {
        Patience {
            wait,
            idle_since_ns: None,
            busy: true,
        }
    }

    /// The wait is over, and something had happened, or nothing.
    #[inline]
    pub fn found(&mut self, something: bool) {
        self.busy = something;
    }

    /// Whether the next wait may sleep. `now_ns` (CLOCK_MONOTONIC) is called only by a hybrid that found nothing.
    #[inline]
    pub fn may_sleep(&mut self, now_ns: impl FnOnce() -> u64) -> bool {
        match self.wait {
            Wait::Block => true,
            Wait::Spin => false,
            Wait::Hybrid { .. } if self.busy => {
                self.idle_since_ns = None;
                false
            }
            Wait::Hybrid { spin } => {
                let now_ns = now_ns();
                let since_ns = *self.idle_since_ns.get_or_insert(now_ns);
                spin.as_nanos() as u64 <= now_ns.saturating_sub(since_ns)
            }
        }
    }
}

/// `block`, `spin`, `hybrid:50us`.
impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Wait, String> {
        match text.split_once(':') {
            None if text == "block" => Ok(Wait::Block),
            None if text == "spin" => Ok(Wait::Spin),
            Some(("hybrid", time)) => {
                let spin = units::duration(time)?;
                if spin.is_zero() || SPIN_MAX < spin {
                    return Err(format!(
                        "`{time}` is not above 0 and at most {SPIN_MAX:?}: use block or spin for what lies beyond"
                    ));
                }
                Ok(Wait::Hybrid { spin })
            }
            _ => Err(format!(
                "`{text}` is no way to wait; there are block, spin, hybrid:50us"
            )),
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::Block => write!(f, "block"),
            Wait::Spin => write!(f, "spin"),
            Wait::Hybrid { spin } => write!(f, "hybrid:{spin:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_is_meant() {
        for text in ["block", "spin", "hybrid:50µs"] {
            let wait: Wait = text.parse().expect("valid");
            assert_eq!(wait.to_string(), text);
        }
        for (bad, word) in [
            ("sleep", "hybrid:50us"),
            ("hybrid", "hybrid:50us"),
            ("hybrid:50", "unit"),
            ("hybrid:0us", "above 0"),
            ("hybrid:2s", "at most 1s"),
            ("spin:50us", "block"),
        ] {
            let error = bad.parse::<Wait>().expect_err(bad);
            assert!(error.contains(word), "{bad}: {error}");
        }
    }

    #[test]
    fn blocking_and_spinning_ask_no_clock() {
        for (wait, sleeps) in [(Wait::Block, true), (Wait::Spin, false)] {
            let mut patience = Patience::new(wait);
            patience.found(false);
            assert_eq!(patience.may_sleep(|| unreachable!("no clock")), sleeps);
        }
    }

    #[test]
    fn a_hybrid_sleeps_after_its_spin_and_starts_over() {
        let spin = Duration::from_nanos(50);
        let mut patience = Patience::new(Wait::Hybrid { spin });
        for _ in 0..2 {
            patience.found(true);
            assert!(!patience.may_sleep(|| unreachable!("no clock while busy")));
            for (now_ns, sleeps) in [(100, false), (149, false), (150, true), (1000, true)] {
                patience.found(false);
                assert_eq!(patience.may_sleep(|| now_ns), sleeps, "at {now_ns}");
            }
        }
    }
}
