//! How busy is a worker, and who keeps it from running?
//!
//! A worker that blocks was busy while it used CPU time. One that spins uses all of it, so there the empty turns are
//! taken off, by the clock that is read in each turn anyway. While others have its cpu that clock goes on and its CPU
//! time does not, so a turn that took too long for an empty one is not taken off.

use echometer_host::{clock, process};

use crate::{cuts::Window, plan::Wait};

/// An empty turn takes some microseconds at most. One that took longer than this was the time of others.
const EMPTY_TURN_NS_MAX: u64 = 20_000;

/// The account of one stretch on one worker, in ns since its start.
pub(crate) struct Meter {
    spin: bool,
    window: Window,
    /// The first and last of a row of empty turns.
    idle: Option<(u64, u64)>,
    turns: Turns,
    idle_in_window_ns: u64,
    at_start: Reading,
    /// CPU time and run delay when the window began and ended, with the instants at which they were read.
    at_from: Option<Reading>,
    at_until: Option<Reading>,
    /// When the next of these is due.
    next_reading_ns: u64,
    /// Reading the run delay takes a file and some 10 us: a long run can afford that inside its window, a slice reads
    /// it before and after.
    reads_delay: bool,
}

/// What a worker used in a stretch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// CPU time of the whole stretch, less empty spins. `None` where others had the cpu of one that spins so often that
    /// its work can't be told from its spins.
    pub(crate) cpu_ns: Option<u64>,
    /// Share of the window in which there was work, 0 to 1.
    pub(crate) busy: f64,
    /// Time that the worker was ready to run and another had its cpu: in the window of a long stretch, else in all of it.
    pub(crate) run_delay_ns: u64,
}

/// Where the time of a worker that spins went, by the stamps of its turns.
#[derive(Debug, Default)]
struct Turns {
    /// The stamp of the turn before, and whether that was idle.
    last: Option<(u64, bool)>,
    /// In empty turns, without those that were too long for one.
    idle_ns: u64,
    /// In turns too long for an empty one: its cpu was another's, or there was much to do.
    long_ns: u64,
}

#[derive(Clone, Copy)]
struct Reading {
    at_ns: u64,
    cpu_ns: u64,
    run_delay_ns: u64,
}

impl Meter {
    /// Begins a stretch whose window this is. In a long one (`reads_delay`) the run delay is read in the window.
    pub(crate) fn begin(wait: Wait, window: Window, reads_delay: bool) -> Meter {
        Meter {
            spin: wait == Wait::Spin,
            window,
            idle: None,
            turns: Turns::default(),
            idle_in_window_ns: 0,
            at_start: Reading::now(true),
            at_from: None,
            at_until: None,
            next_reading_ns: window.from_ns,
            reads_delay,
        }
    }

    /// A turn is over; its harvest was stamped `now_ns`, and it was `idle` if there was nothing to do in it.
    #[inline]
    pub(crate) fn turn(&mut self, now_ns: u64, idle: bool) {
        if self.spin {
            self.turns.turn(now_ns, idle);
        }
        if idle && self.spin {
            match &mut self.idle {
                Some((_, last)) => *last = now_ns,
                None => self.idle = Some((now_ns, now_ns)),
            }
        } else if self.idle.is_some() {
            self.end_idle();
        }
        if self.next_reading_ns <= now_ns {
            self.cross(now_ns);
        }
    }

    /// Reads what must be read when the window begins and when it ends, once each.
    #[cold]
    fn cross(&mut self, now_ns: u64) {
        if self.at_from.is_none() {
            self.at_from = Some(Reading::now(self.reads_delay));
            self.next_reading_ns = self.window.until_ns;
        }
        if self.window.until_ns <= now_ns {
            self.at_until = Some(Reading::now(self.reads_delay));
            self.next_reading_ns = u64::MAX;
        }
    }

    /// The load stopped early, at `now_ns`: the window ends here, and what is idle from now on is not in it.
    pub(crate) fn cut_short(&mut self, now_ns: u64) {
        self.window.cut_short(now_ns);
        if self.at_from.is_some() && self.at_until.is_none() {
            self.next_reading_ns = self.window.until_ns;
        }
    }

    fn end_idle(&mut self) {
        if let Some((first, last)) = self.idle.take() {
            let (from, until) = (
                first.max(self.window.from_ns),
                last.min(self.window.until_ns),
            );
            self.idle_in_window_ns += until.saturating_sub(from);
        }
    }

    /// The end of the stretch. `window` is what it was in the end.
    pub(crate) fn finish(mut self, window: Window) -> Usage {
        self.end_idle();
        let now = Reading::now(true);
        let (from, until) = (self.at_from.unwrap_or(now), self.at_until.unwrap_or(now));
        let (delay_from, delay_until) = if self.reads_delay {
            (from, until)
        } else {
            (self.at_start, now)
        };
        let busy = if self.spin {
            1.0 - self.idle_in_window_ns as f64 / window.length_ns().max(1) as f64
        } else {
            (until.cpu_ns - from.cpu_ns) as f64 / (until.at_ns - from.at_ns).max(1) as f64
        };
        let cpu_ns = now.cpu_ns - self.at_start.cpu_ns;
        let span_ns = now.at_ns - self.at_start.at_ns;
        Usage {
            cpu_ns: if self.spin {
                self.turns.work_ns(cpu_ns, span_ns)
            } else {
                Some(cpu_ns)
            },
            busy: busy.clamp(0.0, 1.0),
            run_delay_ns: delay_until
                .run_delay_ns
                .saturating_sub(delay_from.run_delay_ns),
        }
    }
}

impl Turns {
    #[inline]
    fn turn(&mut self, now_ns: u64, idle: bool) {
        if let Some((last_ns, was_idle)) = self.last {
            let took_ns = now_ns - last_ns;
            if EMPTY_TURN_NS_MAX < took_ns {
                self.long_ns += took_ns;
            } else if idle && was_idle {
                self.idle_ns += took_ns;
            }
        }
        self.last = Some((now_ns, idle));
    }

    /// The CPU time of the work alone, where the thread used `cpu_ns` in `span_ns`; `None` where more than a tenth of
    /// that would be a guess. What was lost to others inside short empty turns is a guess: it was taken off without
    /// having been used.
    fn work_ns(&self, cpu_ns: u64, span_ns: u64) -> Option<u64> {
        let work_ns = cpu_ns.checked_sub(self.idle_ns)?;
        let unseen_ns = span_ns.saturating_sub(cpu_ns).saturating_sub(self.long_ns);
        (0 < work_ns && unseen_ns <= work_ns / 10).then_some(work_ns)
    }
}

impl Reading {
    fn now(with_run_delay: bool) -> Reading {
        // A kernel without schedstat has no figure, and then nobody can be blamed.
        let run_delay_ns = if with_run_delay {
            process::thread_run_delay_ns().unwrap_or(0)
        } else {
            0
        };
        Reading {
            at_ns: clock::now_ns(),
            cpu_ns: clock::thread_cpu_ns(),
            run_delay_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window {
        from_ns: 1_000,
        until_ns: 3_000,
    };

    #[test]
    fn empty_turns_of_a_spin_are_not_work() {
        let mut meter = Meter::begin(Wait::Spin, WINDOW, false);
        // Empty from 500 to 1,500 and from 2,000 to 2,400: of the window 500 + 400 of 2,000 ns.
        let turns = [
            (400, false),
            (500, true),
            (900, true),
            (1_500, true),
            (1_600, false),
            (2_000, true),
            (2_400, true),
            (2_500, false),
        ];
        turns
            .into_iter()
            .for_each(|(now_ns, idle)| meter.turn(now_ns, idle));
        let usage = meter.finish(WINDOW);
        assert!((usage.busy - 0.55).abs() < 1e-9, "{}", usage.busy);
    }

    #[test]
    fn a_window_cut_short_is_measured_as_it_was() {
        let mut meter = Meter::begin(Wait::Spin, WINDOW, false);
        [(1_000, true), (1_500, true), (2_000, false)]
            .into_iter()
            .for_each(|(now_ns, idle)| meter.turn(now_ns, idle));
        let usage = meter.finish(Window {
            until_ns: 2_000,
            ..WINDOW
        });
        assert!((usage.busy - 0.5).abs() < 1e-9, "{}", usage.busy);
    }

    #[test]
    fn waiting_for_answers_after_a_cut_is_not_idle_in_the_window() {
        let mut meter = Meter::begin(Wait::Spin, WINDOW, false);
        // Half of the time until the cut, and all of it until the last answer.
        [(1_000, true), (1_500, true), (1_600, false)]
            .into_iter()
            .for_each(|(now_ns, idle)| meter.turn(now_ns, idle));
        meter.cut_short(2_000);
        [(2_000, true), (2_900, true)]
            .into_iter()
            .for_each(|(now_ns, idle)| meter.turn(now_ns, idle));
        let usage = meter.finish(Window {
            until_ns: 2_000,
            ..WINDOW
        });
        assert!((usage.busy - 0.5).abs() < 1e-9, "{}", usage.busy);
    }

    #[test]
    fn time_that_others_had_is_not_taken_off_the_cpu_time() {
        let mut turns = Turns::default();
        // 100 ms of it: every 10 ms a message takes 10 us, and another has the cpu for 5 ms.
        let mut now_ns = 0;
        for _ in 0..10 {
            turns.turn(now_ns, false);
            for _ in 0..4_990 {
                now_ns += 1_000;
                turns.turn(now_ns, true);
            }
            now_ns += 5_000_000;
            turns.turn(now_ns, true);
            now_ns += 10_000;
            turns.turn(now_ns, false);
        }
        let cpu_ns = now_ns - 50_000_000;
        let work_ns = turns.work_ns(cpu_ns, now_ns).expect("all is seen");
        assert!((100_000..=120_000).contains(&work_ns), "{work_ns}");
    }

    #[test]
    fn work_that_can_not_be_told_from_spinning_is_unknown() {
        let turns = Turns {
            idle_ns: 900,
            ..Turns::default()
        };
        assert_eq!(turns.work_ns(1_000, 1_005), Some(100));
        // Short absences amount to more than a tenth of the work, to more than the work, to all of it.
        assert_eq!(turns.work_ns(1_000, 1_020), None);
        assert_eq!(turns.work_ns(900, 1_000), None);
        assert_eq!(turns.work_ns(800, 1_000), None);
    }

    /// Two threads on one cpu: one spins and works for a tenth of its time, the other never rests.
    #[test]
    fn a_worker_whose_cpu_others_share_has_its_cpu_time_or_none() {
        let cpu = echometer_host::cpus::allowed()
            .expect("a mask")
            .first()
            .expect("a cpu");
        let pin = || echometer_host::pinning::pin_current_thread(cpu).expect("it is allowed");
        let over = std::sync::atomic::AtomicBool::new(false);
        let (found, truth) = std::thread::scope(|scope| {
            scope.spawn(|| {
                pin();
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            pin();
            let window = Window {
                from_ns: 0,
                until_ns: 300_000_000,
            };
            let mut meter = Meter::begin(Wait::Spin, window, false);
            let begun_ns = clock::now_ns();
            let (mut now_ns, mut truth_ns, mut next_ns) = (0, 0, 0);
            while now_ns < window.until_ns {
                let is_idle = now_ns < next_ns;
                if !is_idle {
                    let before_ns = clock::thread_cpu_ns();
                    while clock::thread_cpu_ns() < before_ns + 100_000 {
                        std::hint::spin_loop();
                    }
                    truth_ns += clock::thread_cpu_ns() - before_ns;
                    next_ns = now_ns + 1_000_000;
                }
                now_ns = clock::now_ns() - begun_ns;
                meter.turn(now_ns, is_idle);
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            (meter.finish(window).cpu_ns, truth_ns as f64)
        });
        // A loaded machine may make it unknown, but never nothing.
        if let Some(found) = found {
            assert!(
                (found as f64 / truth - 1.0).abs() < 0.3,
                "{found} of {truth}"
            );
        }
    }

    #[test]
    fn a_blocked_worker_is_busy_by_its_cpu_time() {
        let window = Window {
            from_ns: 0,
            until_ns: 20_000_000,
        };
        // Gives the share that was found, and the share that it was by the clocks outside.
        let busy = |work_ns: u64| {
            let mut meter = Meter::begin(Wait::Block, window, true);
            let (begun_ns, begun_cpu_ns) = (clock::now_ns(), clock::thread_cpu_ns());
            meter.turn(0, false);
            while clock::thread_cpu_ns() - begun_cpu_ns < work_ns {
                std::hint::spin_loop();
            }
            while clock::now_ns() - begun_ns < window.until_ns {
                std::thread::park_timeout(std::time::Duration::from_millis(20));
            }
            meter.turn(window.until_ns, true);
            let took_ns = clock::now_ns() - begun_ns;
            let truth = (clock::thread_cpu_ns() - begun_cpu_ns) as f64 / took_ns as f64;
            (meter.finish(window).busy, truth)
        };
        for work_ns in [0, 10_000_000] {
            // Others may have our cpu for a while between two clocks.
            let (found, truth) = busy(work_ns);
            assert!(
                (found - truth).abs() < 0.1 * truth + 0.05,
                "{found} of {truth}"
            );
        }
        let (idle, working) = (busy(0).0, busy(200_000_000).0);
        assert!(idle < working, "{idle} of {working}");
    }
}
