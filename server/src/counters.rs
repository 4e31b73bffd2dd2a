//! What a worker counts: one struct per worker, written by that worker alone, read by anyone.
//! Single-writer relaxed loads and stores, so counting costs the hot path an addition and no locked instruction.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::connection::CloseReason;

/// The counters of one worker. Aligned to 128 bytes (two lines: x86 prefetches lines in pairs), so that no two
/// workers write to one line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Bytes taken in for echoing: exactly what a client that reads to EOF gets back.
    pub bytes_in: Counter,
    /// Bytes handed to the kernel.
    pub bytes_out: Counter,
    /// Entries into the kernel: every syscall of the worker's loop.
    pub enters: Counter,
    /// io_uring completions; 0 for other engines.
    pub cqes: Counter,
    /// Connections accepted, those over the limit included.
    pub accepted: Counter,
    /// Connections closed, by [`CloseReason::index`]; see [`Counters::close`].
    closed: [Counter; CloseReason::ALL.len()],
    /// Bytes received and dropped while lingering at a stop, or after a failure.
    pub bytes_dropped: Counter,
    /// Receives parked because no buffer was free (ENOBUFS).
    pub recv_parks: Counter,
    /// Completions that did not fit the completion queue at once (none is lost).
    pub cq_overflows: Counter,
    /// Times that a send found the socket full.
    pub send_stalls: Counter,
    /// Failed accepts, by [`AcceptError::index`].
    accept_errors: [Counter; AcceptError::ALL.len()],
    /// See [`lend`](Self::lend). Never locked by a worker that lends nothing.
    lent: Mutex<Vec<Arc<Counters>>>,
    lends: AtomicBool,
}

/// A number with one writer. A second writer would lose counts, not corrupt anything.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Why an accept failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AcceptError {
    /// EMFILE: this process has as many descriptors as it may (`ulimit -n`).
    ProcessLimit,
    /// ENFILE: the whole system, or a ring's direct descriptor table, is full.
    SystemLimit,
    /// ENOBUFS, ENOMEM: the kernel lacks memory for a socket.
    NoMemory,
    /// ECONNABORTED and the network errors that accept(2) passes on: that connection was gone before it was accepted.
    Aborted,
    /// Anything else.
    Other,
}

/// The counters at one moment, as plain numbers; sums over workers add up. This is what `--stats` writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    missing_docs,
    reason = "each is the field of the same name in `Counters`"
)]
pub struct Tally {
    pub accepted: u64,
    pub open: u64,
    pub closed: BTreeMap<String, u64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub bytes_dropped: u64,
    pub enters: u64,
    pub cqes: u64,
    pub recv_parks: u64,
    pub cq_overflows: u64,
    pub send_stalls: u64,
    pub accept_errors: BTreeMap<String, u64>,
}

impl Counters {
    /// Counts a closed connection.
    #[inline]
    pub fn close(&self, reason: CloseReason) {
        self.closed[reason.index()].add(1);
    }

    /// Counts a failed accept.
    pub fn accept_error(&self, error: AcceptError) {
        self.accept_errors[error.index()].add(1);
    }

    /// Counters for a thread that works for this worker, so that each number keeps its one writer. They are part of
    /// [`open`](Self::open) and [`tally`](Self::tally) until they are [taken back](Self::take_back), and in them then.
    pub fn lend(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        self.lends.store(true, Ordering::Relaxed);
        self.lent().push(Arc::clone(&counters));
        counters
    }

    /// Adds what that thread has counted, which has ended. Only the worker's own thread may call this.
    pub fn take_back(&self, counters: &Arc<Counters>) {
        // Under the lock, so that no reader counts it twice or not at all.
        let mut lent = self.lent();
        let Some(index) = lent.iter().position(|lent| Arc::ptr_eq(lent, counters)) else {
            return;
        };
        lent.swap_remove(index);
        for (mine, theirs) in self.numbers().zip(counters.numbers()) {
            mine.add(theirs.read());
        }
    }

    /// Connections open now. Exact for the writing thread; another one may see a moment that never was, off by the
    /// few events in between.
    #[inline]
    pub fn open(&self) -> u64 {
        // Closed first: a connection accepted and closed in between then makes the result too large, never negative.
        if self.lends.load(Ordering::Relaxed) {
            // Under the lock, so that nobody is taken back meanwhile. Plain sums: this is asked for with each accept.
            let lent = self.lent();
            let closed: u64 = lent.iter().map(|counters| counters.closed_own()).sum();
            let closed = closed + self.closed_own();
            let accepted: u64 = lent.iter().map(|counters| counters.accepted.read()).sum();
            return (accepted + self.accepted.read()).saturating_sub(closed);
        }
        let closed = self.closed_own();
        self.accepted.read().saturating_sub(closed)
    }

    fn closed_own(&self) -> u64 {
        self.closed.iter().map(Counter::read).sum()
    }

    /// The numbers now.
    pub fn tally(&self) -> Tally {
        if !self.lends.load(Ordering::Relaxed) {
            return self.own_tally();
        }
        let lent = self.lent();
        let mut tally = self.own_tally();
        for counters in lent.iter() {
            tally += &counters.own_tally();
        }
        // Accepted here, closed there.
        tally.open = tally.accepted.saturating_sub(tally.closed.values().sum());
        tally
    }

    fn lent(&self) -> MutexGuard<'_, Vec<Arc<Counters>>> {
        // Nobody panics while holding it; and what it holds would still be right.
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every number, in one order.
    fn numbers(&self) -> impl Iterator<Item = &Counter> {
        let plain = [
            &self.bytes_in,
            &self.bytes_out,
            &self.enters,
            &self.cqes,
            &self.accepted,
            &self.bytes_dropped,
            &self.recv_parks,
            &self.cq_overflows,
            &self.send_stalls,
        ];
        plain
            .into_iter()
            .chain(&self.closed)
            .chain(&self.accept_errors)
    }

    fn own_tally(&self) -> Tally {
        let closed =
            CloseReason::ALL.map(|reason| (reason.name(), self.closed[reason.index()].read()));
        let accept_errors =
            AcceptError::ALL.map(|error| (error.name(), self.accept_errors[error.index()].read()));
        let closed_sum: u64 = closed.iter().map(|(_, n)| n).sum();
        let accepted = self.accepted.read();
        Tally {
            accepted,
            open: accepted.saturating_sub(closed_sum),
            closed: by_name(&closed),
            bytes_in: self.bytes_in.read(),
            bytes_out: self.bytes_out.read(),
            bytes_dropped: self.bytes_dropped.read(),
            enters: self.enters.read(),
            cqes: self.cqes.read(),
            recv_parks: self.recv_parks.read(),
            cq_overflows: self.cq_overflows.read(),
            send_stalls: self.send_stalls.read(),
            accept_errors: by_name(&accept_errors),
        }
    }
}

impl Counter {
    /// Adds `n`. Only the one writing thread may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.set(self.read() + n);
    }

    /// Sets the number, for one that is counted elsewhere. Only the one writing thread may call this.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number now.
    #[inline]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl AcceptError {
    /// All kinds, in the order of their numbers.
    pub const ALL: [AcceptError; 5] = [
        AcceptError::ProcessLimit,
        AcceptError::SystemLimit,
        AcceptError::NoMemory,
        AcceptError::Aborted,
        AcceptError::Other,
    ];

    /// Sorts an error of accept4(2) or of IORING_OP_ACCEPT.
    pub fn from_errno(errno: Errno) -> AcceptError {
        match errno {
            Errno::MFILE => AcceptError::ProcessLimit,
            Errno::NFILE => AcceptError::SystemLimit,
            Errno::NOBUFS | Errno::NOMEM => AcceptError::NoMemory,
            // The list is accept(2)'s own, under "Error handling".
            Errno::CONNABORTED
            | Errno::NETDOWN
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
            | Errno::PERM => AcceptError::Aborted,
            _ => AcceptError::Other,
        }
    }

    /// The same for an error that went through std.
    pub fn from_io(error: &std::io::Error) -> AcceptError {
        Errno::from_io_error(error).map_or(AcceptError::Other, AcceptError::from_errno)
    }

    /// Whether trying again at once would fail again: a limit was met, and something must be closed first.
    pub fn is_limit(self) -> bool {
        matches!(
            self,
            AcceptError::ProcessLimit | AcceptError::SystemLimit | AcceptError::NoMemory
        )
    }

    /// The kind's number, below `ALL.len()`.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name that `--stats` shows.
    pub fn name(self) -> &'static str {
        match self {
            AcceptError::ProcessLimit => "process_limit",
            AcceptError::SystemLimit => "system_limit",
            AcceptError::NoMemory => "no_memory",
            AcceptError::Aborted => "aborted",
            AcceptError::Other => "other",
        }
    }
}

impl std::ops::AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Tally) {
        self.accepted += other.accepted;
        self.open += other.open;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.bytes_dropped += other.bytes_dropped;
        self.enters += other.enters;
        self.cqes += other.cqes;
        self.recv_parks += other.recv_parks;
        self.cq_overflows += other.cq_overflows;
        self.send_stalls += other.send_stalls;
        for (mine, theirs) in [
            (&mut self.closed, &other.closed),
            (&mut self.accept_errors, &other.accept_errors),
        ] {
            for (name, n) in theirs {
                *mine.entry(name.clone()).or_default() += n;
            }
        }
    }
}

fn by_name(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts
        .iter()
        .map(|&(name, n)| (name.to_owned(), n))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_is_accepted_less_closed() {
        let counters = Counters::default();
        counters.accepted.add(5);
        counters.close(CloseReason::Reset);
        counters.close(CloseReason::PeerClosed);
        counters.close(CloseReason::PeerClosed);
        let tally = counters.tally();
        assert_eq!((counters.open(), tally.open), (2, 2));
        assert_eq!(tally.closed["peer_closed"], 2);
        assert_eq!(
            tally.closed["drained"], 0,
            "a reason that never happened is shown as 0"
        );
    }

    #[test]
    fn tallies_add_up() {
        let counters = Counters::default();
        counters.bytes_in.add(7);
        counters.accept_error(AcceptError::from_errno(Errno::MFILE));
        let mut sum = Tally::default();
        sum += &counters.tally();
        sum += &counters.tally();
        assert_eq!(sum.bytes_in, 14);
        assert_eq!(sum.accept_errors["process_limit"], 2);
    }

    #[test]
    fn what_is_lent_comes_back() {
        let counters = Counters::default();
        let tallied = |counters: &Counters| {
            let tally = counters.tally();
            (tally.accepted, tally.open, tally.bytes_in)
        };
        counters.accepted.add(2);
        let lent = [counters.lend(), counters.lend()];
        lent[0].bytes_in.add(5);
        lent[1].bytes_in.add(6);
        assert_eq!(tallied(&counters), (2, 2, 11));
        lent[0].close(CloseReason::PeerClosed);
        assert_eq!((tallied(&counters), counters.open()), ((2, 1, 11), 1));
        counters.take_back(&lent[0]);
        assert_eq!((tallied(&counters), counters.open()), ((2, 1, 11), 1));
        counters.take_back(&lent[0]);
        assert_eq!(tallied(&counters), (2, 1, 11), "once is enough");
    }

    #[test]
    fn workers_share_no_line() {
        assert_eq!(align_of::<Counters>(), 128);
        assert_eq!(size_of::<Counters>() % 128, 0);
    }

    #[test]
    fn names_are_what_serde_writes() {
        for reason in CloseReason::ALL {
            assert_eq!(
                serde_json::to_value(reason).expect("a plain enum"),
                reason.name()
            );
        }
    }

    #[test]
    fn what_is_open_is_the_same_by_the_short_way_and_the_long() {
        let own = Counters::default();
        let lent: Vec<_> = (0..5).map(|_| own.lend()).collect();
        own.accepted.add(7);
        own.close(CloseReason::OverLimit);
        for counters in &lent[..3] {
            counters.close(CloseReason::PeerClosed);
        }
        assert_eq!((own.open(), own.tally().open), (3, 3));
        for counters in &lent {
            own.take_back(counters);
        }
        assert_eq!((own.open(), own.tally().open), (3, 3));
    }
}
