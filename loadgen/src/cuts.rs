//! The window of a stretch of load: what belongs to it, and where it is cut into segments.

use std::{ops::Range, time::Duration};

/// Which messages belong to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// Those due (open loop) or written (closed loop) within it, whenever their reply comes: a run.
    ByStart,
    /// Those whose reply is harvested within it: a slice.
    ByReply,
}

/// The window that is recorded, in ns since the start of the stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First instant inside.
    pub from_ns: u64,
    /// First instant after it.
    pub until_ns: u64,
}

impl Window {
    #[inline]
    pub(crate) fn contains(&self, at_ns: u64) -> bool {
        self.from_ns <= at_ns && at_ns < self.until_ns
    }

    /// Its length.
    pub fn length_ns(&self) -> u64 {
        self.until_ns - self.from_ns
    }

    /// The load stopped early, at `now_ns`: the window ends there, or at once where it has not begun.
    pub(crate) fn cut_short(&mut self, now_ns: u64) {
        self.until_ns = self.until_ns.min(now_ns.max(self.from_ns));
    }
}

/// Where a window is cut: at the end of each interval and of each third.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuts {
    pub(crate) window: Window,
    /// Ends of the segments, ascending; the last is the window's end.
    ends_ns: Vec<u64>,
    interval_ns: Option<u64>,
}

impl Cuts {
    /// Cuts for `window`; without `interval` there is one segment and no thirds.
    pub fn new(window: Window, interval: Option<Duration>) -> Cuts {
        let interval_ns = interval.map(|interval| (interval.as_nanos() as u64).max(1));
        let mut ends_ns = vec![window.until_ns];
        if let Some(interval_ns) = interval_ns {
            let thirds = (1..3).map(|third| window.from_ns + window.length_ns() * third / 3);
            let intervals = (1..).map(|count| window.from_ns + count * interval_ns);
            ends_ns.extend(thirds);
            ends_ns.extend(intervals.take_while(|end| *end < window.until_ns));
            ends_ns.sort_unstable();
            ends_ns.dedup();
        }
        Cuts {
            window,
            ends_ns,
            interval_ns,
        }
    }

    /// How many segments there are; at least 1.
    pub fn segments(&self) -> usize {
        self.ends_ns.len()
    }

    /// When segment `index` ends; `u64::MAX` for the last, which takes all that comes late.
    pub(crate) fn end_ns(&self, index: usize) -> u64 {
        if index + 1 < self.ends_ns.len() {
            self.ends_ns[index]
        } else {
            u64::MAX
        }
    }

    /// Which interval segment `index` belongs to, from 0.
    pub fn interval_of(&self, index: usize) -> usize {
        self.interval_ns.map_or(0, |interval_ns| {
            ((self.begin_ns(index) - self.window.from_ns) / interval_ns) as usize
        })
    }

    /// The segments that interval `index` is made of.
    pub fn segments_of(&self, index: usize) -> Range<usize> {
        let interval_ns = self.interval_ns.unwrap_or(self.window.length_ns()).max(1);
        // Those before that end by then, in order.
        let before = |interval: u64| {
            let begin_ns = self.window.from_ns + interval * interval_ns;
            self.ends_ns.partition_point(|end_ns| *end_ns <= begin_ns)
        };
        let index = index as u64;
        let first = if index == 0 { 0 } else { before(index) };
        first..before(index + 1)
    }

    /// Which third of the window segment `index` belongs to, 0 to 2.
    pub fn third_of(&self, index: usize) -> usize {
        let from_ns = self.begin_ns(index) - self.window.from_ns;
        // The comparison that made the cut, so that a segment never falls between two thirds.
        (1..3)
            .filter(|third| self.window.length_ns() * third / 3 <= from_ns)
            .count()
    }

    /// How many intervals there are, and the window of each.
    pub fn intervals(&self) -> impl Iterator<Item = Window> + '_ {
        let interval_ns = self.interval_ns.unwrap_or(self.window.length_ns()).max(1);
        let count = self.window.length_ns().div_ceil(interval_ns);
        (0..count).map(move |index| Window {
            from_ns: self.window.from_ns + index * interval_ns,
            until_ns: (self.window.from_ns + (index + 1) * interval_ns).min(self.window.until_ns),
        })
    }

    fn begin_ns(&self, index: usize) -> u64 {
        if index == 0 {
            self.window.from_ns
        } else {
            self.ends_ns[index - 1]
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cuts_cover_the_window(length in 1u64..100_000, interval in 1u64..50_000, from in 0u64..1_000) {
            let window = Window { from_ns: from, until_ns: from + length };
            let cuts = Cuts::new(window, Some(Duration::from_nanos(interval.max(length / 50))));
            let intervals: Vec<Window> = cuts.intervals().collect();
            prop_assert_eq!(intervals.iter().map(Window::length_ns).sum::<u64>(), length);
            let (mut thirds, mut counts) = ([0; 3], vec![0; intervals.len()]);
            for index in 0..cuts.segments() {
                counts[cuts.interval_of(index)] += 1;
                let of = intervals[cuts.interval_of(index)];
                let end_ns = cuts.ends_ns[index];
                prop_assert!(of.from_ns <= cuts.begin_ns(index) && end_ns <= of.until_ns);
                thirds[cuts.third_of(index)] += end_ns - cuts.begin_ns(index);
            }
            prop_assert!(thirds.iter().all(|third| third.abs_diff(length / 3) <= 1), "{:?} of {}", thirds, length);
            prop_assert_eq!((0..intervals.len()).map(|index| cuts.segments_of(index).len()).collect::<Vec<_>>(), counts);
        }
    }
}
