//! Which connections have been idle for too long: `--idle-timeout`. A message costs one store of a time that was read
//! once for the whole turn; each place of a connection is looked at once a timeout, and no timer is ever moved.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// The watch over one worker's connections, by the engine's own index of them. Times are CLOCK_MONOTONIC nanoseconds
/// and come in as arguments.
#[derive(Debug)]
pub struct IdleWatch {
    timeout_ns: u64,
    /// The time at which this turn began, for all that happens in it.
    now_ns: u64,
    places: Vec<Place>,
    /// When to look at which place. One entry per place at most, whoever comes and goes there, so that no crowd of
    /// short connections fills memory: an entry found early is put back for the time that is left.
    checks: BinaryHeap<Reverse<(u64, u32)>>,
}

/// What was seen of a connection that seems idle: completions and edges tell only of what was asked for, and a send that has
/// filled the socket is told of when a good part of that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The kernel has something for it that nobody has told yet, or what it waits for is ours.
    Moves,
    /// Nothing; and in its socket are so many bytes that its peer has not taken.
    Stands {
        /// Bytes.
        unsent: u32,
    },
    /// It could not be looked at now.
    Unknown,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    active_ns: u64,
    /// Bytes in its socket when it was last looked at, and when that was.
    unsent: u32,
    looked_ns: u64,
    open: bool,
    in_checks: bool,
}

impl IdleWatch {
    /// A watch for a timeout above zero.
    pub fn new(timeout: Duration) -> IdleWatch {
        IdleWatch {
            timeout_ns: u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
            now_ns: 0,
            places: Vec::new(),
            checks: BinaryHeap::new(),
        }
    }

    /// A turn of the worker's loop begins.
    #[inline]
    pub fn begin_turn(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// A connection was accepted.
    pub fn opened(&mut self, index: usize) {
        if self.places.len() <= index {
            self.places.resize(index + 1, Place::default());
        }
        let place = &mut self.places[index];
        place.open = true;
        place.active_ns = self.now_ns;
        if !std::mem::replace(&mut place.in_checks, true) {
            let check_ns = self.now_ns.saturating_add(self.timeout_ns);
            self.checks.push(Reverse((check_ns, index as u32)));
        }
    }

    /// Something moved on an open connection.
    #[inline]
    pub fn active(&mut self, index: usize) {
        self.places[index].active_ns = self.now_ns;
    }

    /// A connection was closed.
    pub fn closed(&mut self, index: usize) {
        self.places[index].open = false;
    }

    /// When to ask [`pop_idle`](Self::pop_idle) next.
    pub fn next_check_ns(&self) -> Option<u64> {
        self.checks.peek().map(|Reverse((check_ns, _))| *check_ns)
    }

    /// A connection on which nothing has moved for the timeout, as of this turn. It is the caller's to look at, and to say what
    /// it saw by [`is_idle`](Self::is_idle): until then it is not named again.
    pub fn pop_idle(&mut self) -> Option<usize> {
        while let Some(mut top) = self.checks.peek_mut() {
            let Reverse((check_ns, index)) = *top;
            if self.now_ns < check_ns {
                return None;
            }
            let place = &mut self.places[index as usize];
            let due_ns = place.active_ns.saturating_add(self.timeout_ns);
            if place.open && self.now_ns < due_ns {
                *top = Reverse((due_ns, index));
                continue;
            }
            place.in_checks = false;
            let idle = place.open;
            std::collections::binary_heap::PeekMut::pop(top);
            if idle {
                return Some(index as usize);
            }
        }
        None
    }
}

impl IdleWatch {
    /// Whether a connection that [`pop_idle`](Self::pop_idle) named, and that is still open, is idle. If so it is the caller's
    /// to close. If not it is named again after another timeout on which nothing moves: one whose peer has not taken all that
    /// is in the socket is idle only if nothing of that was taken for a whole timeout.
    pub fn is_idle(&mut self, index: usize, look: Look) -> bool {
        let now_ns = self.now_ns;
        let place = &mut self.places[index];
        if now_ns < place.active_ns.saturating_add(self.timeout_ns) {
            self.watch_on(index);
            return false;
        }
        let stood_before = place.looked_ns == place.active_ns && 0 < place.looked_ns;
        match look {
            Look::Stands { unsent: 0 } => return true,
            Look::Stands { unsent } if stood_before && unsent == place.unsent => return true,
            Look::Stands { unsent } => {
                place.unsent = unsent;
                place.looked_ns = now_ns;
            }
            Look::Moves | Look::Unknown => {}
        }
        place.active_ns = now_ns;
        self.watch_on(index);
        false
    }

    /// Names a connection again that was named, once nothing has moved on it for the timeout.
    fn watch_on(&mut self, index: usize) {
        let place = &mut self.places[index];
        if !std::mem::replace(&mut place.in_checks, true) {
            let due_ns = place.active_ns.saturating_add(self.timeout_ns);
            self.checks.push(Reverse((due_ns, index as u32)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn watch(timeout_ns: u64) -> IdleWatch {
        IdleWatch::new(Duration::from_nanos(timeout_ns))
    }

    fn idle_at(watch: &mut IdleWatch, now_ns: u64) -> Vec<usize> {
        watch.begin_turn(now_ns);
        let mut idle: Vec<usize> = std::iter::from_fn(|| watch.pop_idle()).collect();
        idle.sort_unstable();
        for &index in &idle {
            watch.closed(index);
        }
        idle
    }

    #[test]
    fn who_moves_stays() {
        let mut watch = watch(100);
        watch.opened(0);
        watch.opened(3);
        assert_eq!(idle_at(&mut watch, 50), [0; 0]);
        watch.active(3);
        assert_eq!(idle_at(&mut watch, 99), [0; 0]);
        assert_eq!(idle_at(&mut watch, 100), [0]);
        assert_eq!(watch.next_check_ns(), Some(150));
        assert_eq!(idle_at(&mut watch, 150), [3]);
        assert_eq!(watch.next_check_ns(), None);
    }

    #[test]
    fn a_place_taken_again_starts_anew() {
        let mut watch = watch(100);
        watch.opened(0);
        watch.begin_turn(60);
        watch.closed(0);
        watch.opened(0);
        assert_eq!(idle_at(&mut watch, 100), [0; 0]);
        assert_eq!(idle_at(&mut watch, 160), [0]);
    }

    #[test]
    fn who_has_taken_some_of_its_bytes_is_not_idle_and_who_has_not_is() {
        let mut watch = watch(100);
        watch.begin_turn(1);
        watch.opened(0);
        for (now_ns, unsent, idle) in [(101, 900, false), (201, 800, false), (301, 800, true)] {
            watch.begin_turn(now_ns);
            assert_eq!(watch.pop_idle(), Some(0));
            assert_eq!(watch.pop_idle(), None);
            let look = Look::Stands { unsent };
            assert_eq!(watch.is_idle(0, look), idle, "at {now_ns}");
        }
    }

    #[test]
    fn what_was_in_the_socket_before_something_moved_says_nothing() {
        let mut watch = watch(100);
        watch.begin_turn(1);
        watch.opened(0);
        watch.begin_turn(101);
        assert_eq!(watch.pop_idle(), Some(0));
        assert!(!watch.is_idle(0, Look::Stands { unsent: 900 }));
        watch.begin_turn(150);
        watch.active(0);
        watch.begin_turn(250);
        assert_eq!(watch.pop_idle(), Some(0));
        assert!(!watch.is_idle(0, Look::Stands { unsent: 900 }));
        watch.begin_turn(350);
        assert_eq!(watch.pop_idle(), Some(0));
        assert!(watch.is_idle(0, Look::Stands { unsent: 900 }));
    }

    #[test]
    fn who_moved_while_it_was_looked_at_is_watched_on() {
        let mut watch = watch(100);
        watch.begin_turn(1);
        watch.opened(0);
        watch.begin_turn(101);
        assert_eq!(watch.pop_idle(), Some(0));
        watch.active(0);
        assert!(!watch.is_idle(0, Look::Stands { unsent: 0 }));
        assert_eq!(watch.next_check_ns(), Some(201));
    }

    #[test]
    fn coming_and_going_fills_no_memory() {
        let mut watch = watch(1_000_000);
        for now_ns in 0..10_000 {
            watch.begin_turn(now_ns);
            watch.opened(0);
            watch.closed(0);
        }
        assert_eq!(watch.checks.len(), 1);
    }

    proptest! {
        /// Against the plain rule: idle is who has not moved for the timeout.
        #[test]
        fn it_names_whom_a_sweep_would_name(steps in proptest::collection::vec((1u64..40, 0usize..6, 0u8..3), 1..200)) {
            const TIMEOUT_NS: u64 = 100;
            let mut watch = watch(TIMEOUT_NS);
            let mut model: [Option<u64>; 6] = [None; 6];
            let mut now_ns = 0;
            for (pause_ns, index, what) in steps {
                now_ns += pause_ns;
                let expected: Vec<usize> =
                    (0..6).filter(|&i| model[i].is_some_and(|at| TIMEOUT_NS <= now_ns - at)).collect();
                prop_assert_eq!(idle_at(&mut watch, now_ns), expected.clone());
                for i in expected {
                    model[i] = None;
                }
                match (what, model[index].is_some()) {
                    (0, true) => {
                        watch.closed(index);
                        model[index] = None;
                    }
                    (_, true) => {
                        watch.active(index);
                        model[index] = Some(now_ns);
                    }
                    (_, false) => {
                        watch.opened(index);
                        model[index] = Some(now_ns);
                    }
                }
            }
        }
    }
}
