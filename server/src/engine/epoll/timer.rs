//! The clock that wakes a worker for a delayed echo.

use std::os::fd::OwnedFd;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::counters::Counter;
use crate::engine::ServeError;

/// A timer of the kernel. Unlike the timeout of epoll_wait it has no slack and no rounding to a millisecond.
pub(super) struct Timer {
    pub(super) fd: OwnedFd,
    armed_ns: u64,
}

impl Timer {
    pub(super) fn new() -> Result<Timer, ServeError> {
        let fd = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )
        .map_err(ServeError::system("cannot create a timer"))?;
        Ok(Timer { fd, armed_ns: 0 })
    }

    /// Makes the descriptor readable at `due_ns`, instead of whenever it was to be.
    pub(super) fn arm(&mut self, due_ns: u64, enters: &Counter) -> Result<(), ServeError> {
        if self.armed_ns == due_ns {
            return Ok(());
        }
        let at = Timespec {
            tv_sec: (due_ns / 1_000_000_000) as i64,
            tv_nsec: (due_ns % 1_000_000_000) as i64,
        };
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: at,
        };
        enters.add(1);
        timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &once)
            .map_err(ServeError::system("cannot set a timer"))?;
        self.armed_ns = due_ns;
        Ok(())
    }
}
