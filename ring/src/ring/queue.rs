//! How an operation gets into the submission queue, also into a full one.

use std::io;
use std::time::{Duration, Instant};

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, squeue};
use rustix::io::Errno;

use super::{Condition, REST_MAX, Ring, is_for_the_moment};
use crate::slot::Slot;
use crate::token::{Op, Token};

/// How long the kernel may refuse a full submission queue for reasons that pass, before the ring is given up.
const ROOM_LIMIT: Duration = Duration::from_secs(5);

/// The first rest between two attempts; each next is twice as long, up to [`REST_MAX`].
const ROOM_REST: Duration = Duration::from_micros(100);

impl Ring {
    #[inline]
    pub(super) fn push(&mut self, entry: squeue::Entry, op: Op, slot: Slot) {
        let state = self.slots.state(slot);
        // What is armed, a send, a connect, a shutdown, a readiness poll, and a cancel of each: they are few.
        state.in_flight = state.in_flight.checked_add(1).expect("few are in flight");
        let token = Token::new(op, slot);
        self.push_raw(&entry.user_data(token.pack()));
    }

    #[inline]
    pub(super) fn push_raw(&mut self, entry: &squeue::Entry) {
        self.in_flight += 1;
        if !self.push_if_room(entry) {
            self.push_late(entry);
        }
    }

    #[inline]
    fn push_if_room(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: every entry that names memory is built in `operations`, from what the ring owns until the completion: a
        // pool buffer or payload kept in its slot, the shared bytes, an address kept until it is submitted.
        unsafe { self.faces.submissions.push(entry) }.is_ok()
    }

    /// The submission queue is full: submits early, until there is room. A ring of which the kernel takes nothing any more
    /// is broken: the entry is lost, and the submit at the end of the turn says so.
    #[cold]
    fn push_late(&mut self, entry: &squeue::Entry) {
        let began = Instant::now();
        let mut rest = ROOM_REST;
        while !matches!(self.condition, Condition::Broken(_)) {
            let refused = self.make_room();
            if self.push_if_room(entry) {
                return;
            }
            if ROOM_LIMIT <= began.elapsed() {
                self.condition = Condition::Broken(Errno::IO);
            } else if refused {
                // It passes when the kernel has memory again, or time: asking without a break doesn't bring it nearer.
                std::thread::sleep(rest);
                rest = (2 * rest).min(REST_MAX);
            }
        }
    }

    /// Submits early. What comes of it is set aside until the turn's own submit, because the user is in the middle of what
    /// the last one brought: the end of a send would come in between pieces that were said to follow one another. Whether
    /// the kernel refused for the moment.
    fn make_room(&mut self) -> bool {
        let mut refused = false;
        if let Err(error) = self.hand_over(0, None) {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            // The others are for the next attempt, as in `enter`.
            if !is_for_the_moment(errno) {
                self.condition = Condition::Broken(errno);
            }
            refused = true;
            self.counts.refusals += 1;
            self.last_refusal = Some(errno);
        }
        self.faces.completions.sync();
        self.deferred.extend(self.faces.completions.by_ref());
        self.faces.completions.sync();
        refused
    }

    /// Calls into the kernel, and leaves completions where they are.
    #[inline]
    pub(super) fn hand_over(&mut self, want: usize, limit: Option<Duration>) -> io::Result<usize> {
        if self.condition != Condition::InUse {
            self.put_to_use()?;
        }
        self.pools.publish();
        self.faces.submissions.sync();
        self.counts.enters += 1;
        let limit = limit.filter(|_| 0 < want).map(Timespec::from);
        let args = limit
            .as_ref()
            .map(|limit| SubmitArgs::new().timespec(limit));
        let entered = match &args {
            _ if 0 < want && self.no_iowait => self.wait_at_rest(want, args.as_ref()),
            Some(args) => self.faces.submitter.submit_with_args(want, args),
            None => self.faces.submitter.submit_and_wait(want),
        };
        self.faces.submissions.sync();
        entered
    }

    /// What a ring with restrictions needs before its first submit; and a broken one stays broken.
    #[cold]
    fn put_to_use(&mut self) -> io::Result<()> {
        if let Condition::Broken(errno) = self.condition {
            return Err(errno.into());
        }
        self.condition = Condition::InUse;
        self.faces.submitter.register_enable_rings()
    }

    /// As the submitter's own way to submit and wait; but a cpu that has nothing to do meanwhile counts as idle. Else the
    /// kernel accounts the wait as iowait (it takes a ring with anything in flight for one that waits for a disk), and
    /// `top` shows an idle server as a busy disk. 6.15.
    #[inline]
    fn wait_at_rest(&self, want: usize, args: Option<&SubmitArgs<'_, '_>>) -> io::Result<usize> {
        let submitted = self.faces.submissions.len() as u32;
        let want = want as u32;
        let flags = EnterFlags::GETEVENTS | EnterFlags::NO_IOWAIT;
        // SAFETY: the flags say what the argument is: a `SubmitArgs`, whose time outlives the call, or nothing.
        unsafe {
            match args {
                Some(args) => {
                    let flags = flags | EnterFlags::EXT_ARG;
                    self.faces
                        .submitter
                        .enter(submitted, want, flags.bits(), Some(args))
                }
                None => self.faces.submitter.enter::<libc::sigset_t>(
                    submitted,
                    want,
                    flags.bits(),
                    None,
                ),
            }
        }
    }

    /// The kernel refused for the moment. It passes when the kernel has memory again, or time: asking without a break
    /// doesn't bring that nearer, and would be a thread that spins.
    #[cold]
    pub(super) fn rest(&mut self, errno: Errno, brought: bool) {
        self.counts.refusals += 1;
        self.last_refusal = Some(errno);
        if brought {
            self.refused = 0;
            return;
        }
        self.refused += 1;
        std::thread::sleep(REST_MAX.min(Duration::from_micros(50) * (1 << self.refused.min(8))));
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::features::Features;
    use crate::setup::Config;

    #[test]
    fn a_ring_of_which_the_kernel_takes_nothing_says_so_though_its_queue_is_full() {
        let config = Config {
            features: Features::NONE,
            entries: 8,
            ..Config::default()
        };
        let mut ring = Ring::assemble(&config, crate::features::Extras::default()).expect("a ring");
        let (here, _there) = UnixStream::pair().expect("a pair");
        let slot = ring.adopt(here.into()).expect("a slot");
        let null = std::fs::File::open("/dev/null").expect("it is there");
        // SAFETY: both descriptors are open, and the ring's is not used for anything but to enter it.
        let replaced = unsafe { libc::dup2(null.as_raw_fd(), ring.faces.as_raw_fd()) };
        assert_eq!(replaced, ring.faces.as_raw_fd());
        for _ in 0..100 {
            ring.push_cancel_of(slot, Op::Recv);
        }
        for _ in 0..2 {
            assert!(ring.submit().is_err(), "and goes on saying so");
        }
    }
}
