//! How are we told to stop? One flag that is cheap to read in a busy loop, and one descriptor that a ring
//! or an epoll set can wait for, both set by SIGTERM, SIGINT, SIGHUP or a call.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXCPU, SIGXFSZ},
    flag, low_level,
};

use crate::threads;

/// The exit code of a process that a second signal cut short.
pub const EXIT_CUT_SHORT: i32 = 130;

/// Signals this close together are one: timeout(1), for example, signals its child and then the group that
/// the child is in, and a user who meant "stop" would be taken to mean "at once".
pub const SAME_SIGNAL: Duration = Duration::from_millis(100);

/// Outlives the limit on file sizes (`ulimit -f`): from here on a write that meets it fails with `EFBIG`, where SIGXFSZ
/// would have ended the process without a word.
///
/// # Errors
/// The handler cannot be installed.
pub fn outlive_file_size_limit() -> io::Result<()> {
    // Ignoring a signal takes unsafe code; a handler that does next to nothing comes to the same.
    flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// A request to stop, shared by all threads: once made it stays made.
///
/// Clones are the same request. Reading is one relaxed load, no write and no system call.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    requested: Arc<AtomicBool>,
    /// Readable from the request on, because nobody drains it: any number of rings and epoll sets can
    /// wait for it.
    readable: OwnedFd,
    writable: OwnedFd,
}

impl Stop {
    /// A request that only [`Stop::request`] makes.
    ///
    /// # Errors
    /// No descriptor is left (`EMFILE`, `ENFILE`).
    pub fn new() -> io::Result<Stop> {
        let (readable, writable) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Stop(Arc::new(Shared {
            requested: Arc::new(AtomicBool::new(false)),
            readable,
            writable,
        })))
    }

    /// A request that SIGTERM and SIGINT make too. A second signal exits at once with
    /// [`EXIT_CUT_SHORT`]; a signal after a mere [`Stop::request`] counts as the first, and so does one
    /// that follows the first within [`SAME_SIGNAL`].
    ///
    /// A terminal that goes (SIGHUP) makes it as well, unless whoever started us has it ignored (`nohup`); and so does
    /// the limit on CPU time (SIGXCPU, `ulimit -t`), which comes each second from then on and exits never.
    ///
    /// The handlers stay for the life of the process; call this once, in a binary.
    ///
    /// # Errors
    /// As for [`Stop::new`], or a handler cannot be installed, or no thread can be started.
    pub fn on_signals() -> io::Result<Stop> {
        let stop = Stop::new()?;
        let again = Arc::new(AtomicBool::new(false));
        let (signalled, signal_seen) = pipe_with(PipeFlags::CLOEXEC)?;
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGXCPU] {
            if signal == SIGHUP && is_ignored(SIGHUP) {
                continue;
            }
            if signal != SIGXCPU {
                flag::register_conditional_shutdown(signal, EXIT_CUT_SHORT, Arc::clone(&again))?;
            }
            flag::register(signal, Arc::clone(&stop.0.requested))?;
            // Each takes a descriptor for good, so that there is one a signal and no more.
            low_level::pipe::register(signal, signal_seen.try_clone()?)?;
        }
        drop(signal_seen);
        let asked = stop.clone();
        threads::spawn("signals", move || {
            // Sleeps until the first signal, and ends soon after it.
            while rustix::io::read(&signalled, &mut [0; 1]) == Err(Errno::INTR) {}
            asked.request();
            thread::sleep(SAME_SIGNAL);
            again.store(true, Ordering::Relaxed);
        })
        .map_err(|error| io::Error::new(error.cause.kind(), error))?;
        Ok(stop)
    }

    /// Whether to stop. A relaxed load: what the requester wrote before is not thereby visible.
    #[inline]
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.requested.load(Ordering::Relaxed)
    }

    /// Asks everyone to stop. May be called any number of times, from any thread.
    pub fn request(&self) {
        self.0.requested.store(true, Ordering::Relaxed);
        // The pipe is written after the flag is set: who wakes from it sees the request. A full pipe
        // (EAGAIN) is readable already, and the read end lives as long as we do, so no error can matter.
        let _ = rustix::io::write(&self.0.writable, &[0]);
    }

    /// A descriptor that is readable from the request on, for ever. Wait for it; do not read from it.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.readable.as_fd()
    }
}

/// Whether this process ignores a signal; no where it can't be read.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_readable(stop: &Stop, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).expect("seconds fit");
        poll(&mut [PollFd::new(&stop.fd(), PollFlags::IN)], Some(&limit)).expect("poll works") == 1
    }

    #[test]
    fn a_request_is_seen_by_every_clone_and_stays_readable() {
        let stop = Stop::new().unwrap();
        let clone = stop.clone();
        assert!(!stop.requested() && !is_readable(&stop, Duration::ZERO));
        clone.request();
        for _ in 0..3 {
            assert!(stop.requested() && is_readable(&stop, Duration::ZERO));
        }
    }

    #[test]
    fn a_waiter_in_another_thread_wakes() {
        let stop = Stop::new().unwrap();
        let waiter = std::thread::spawn({
            let stop = stop.clone();
            move || is_readable(&stop, Duration::from_secs(30)) && stop.requested()
        });
        stop.request();
        assert!(waiter.join().expect("the waiter holds"));
    }

    #[test]
    fn requests_without_end_neither_block_nor_fail() {
        let stop = Stop::new().unwrap();
        // More than the 64 KiB that a pipe holds.
        for _ in 0..70_000 {
            stop.request();
        }
        assert!(is_readable(&stop, Duration::ZERO));
    }

    #[test]
    fn what_is_ignored_is_known() {
        // Rust's runtime ignores SIGPIPE before main.
        assert!(is_ignored(signal_hook::consts::SIGPIPE));
        assert!(!is_ignored(signal_hook::consts::SIGTERM));
    }

    #[test]
    fn a_signal_is_a_request() {
        let stop = Stop::on_signals().unwrap();
        // One signal only: the second would end the test run, as it should.
        low_level::raise(SIGTERM).unwrap();
        assert!(is_readable(&stop, Duration::from_secs(30)));
        assert!(stop.requested());
    }
}
