//! The ring: operations in, events out, and an orderly end.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::register::Restriction;
use io_uring::types::{CancelBuilder, Fd, Fixed, Napi, SubmitArgs, Timespec};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue};
use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use crate::buffers::{Buffer, Pool};
use crate::event::{Event, Payload};
use crate::features::{Feature, Features};
use crate::gather::Gather;
use crate::setup::{self, Config, SetupError, limit_text};
use crate::slots::{Life, Slot, Slots};
use crate::token::{Op, Token};
use crate::trials;

/// The buffer group that all receives pick from.
const GROUP: u16 = 0;

/// Buffers that are offered at first, and each time that those run out: few enough to stay in cache.
const BUFFERS_OPENED: u16 = 64;

/// How long a wait polls the network card's queue, with `napi`.
const NAPI_POLL_US: u32 = 50;

/// How long a ring that ends waits for its last completions. Cancelled socket operations end at once; the limit is
/// there so that a kernel fault costs memory and not the process.
const REAP_LIMIT: Duration = Duration::from_secs(2);

/// An io_uring instance with its files and its buffers. It belongs to the thread that made it.
pub struct Ring {
    /// It was set up with restrictions and not used yet: files can still be installed.
    disabled: bool,
    // The three faces borrow from `uring`, which is boxed and outlives them: see `Drop`.
    submitter: ManuallyDrop<Submitter<'static>>,
    submissions: ManuallyDrop<SubmissionQueue<'static>>,
    completions: ManuallyDrop<CompletionQueue<'static>>,
    uring: ManuallyDrop<Box<IoUring>>,
    pool: Pool,
    slots: Slots,
    shared: Arc<[u8]>,
    features: Features,
    /// Operations that have not had their last completion.
    in_flight: u32,
    /// Accepts that are armed: while one is, the kernel may be choosing slots.
    accepts: u32,
    /// Completions that were taken off the queue to make room, in order.
    stash: VecDeque<cqueue::Entry>,
    /// Sends that say nothing when they succeed, each with its ticket, in order; the first `confirmable` were handed over.
    unconfirmed: VecDeque<(Slot, u32)>,
    confirmable: usize,
    ticket: u32,
    /// What is left of a receive that filled several buffers.
    bundle: Bundle,
    recv_bytes_max: u32,
    /// Addresses of connects not submitted yet: the kernel copies them when it takes the request.
    #[allow(clippy::vec_box, reason = "a queued request points into the box")]
    addresses: Vec<Box<SocketAddrAny>>,
    counts: Counts,
}

/// A receive that filled several buffers: those whose events are still to come.
struct Bundle {
    slot: Slot,
    buffers: VecDeque<Buffer>,
    more: bool,
}

/// What a ring did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Completions seen.
    pub cqes: u64,
    /// Times that the completion queue was found to have overflowed. Nothing was lost; time was.
    pub cq_overflows: u64,
}

impl Ring {
    /// Sets a ring up: queues, table of direct descriptors, buffers.
    ///
    /// # Errors
    /// [`SetupError`] says which limit or which rule forbids it, and what helps.
    pub fn new(config: &Config) -> Result<Ring, SetupError> {
        let (uring, mut features) = setup::build(config)?;
        if !uring.params().is_feature_ext_arg() || !uring.params().is_feature_nodrop() {
            return Err(SetupError::Unavailable {
                what: "no timed waits or no completion back-log",
            });
        }
        let slots = config.slots.clamp(1, Slot::MAX);
        if features.has(Feature::Direct) {
            match uring.submitter().register_files_sparse(slots) {
                Ok(()) => {}
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::MFILE) => {
                        return Err(SetupError::Nofile {
                            slots,
                            limit: limit_text(rustix::process::Resource::Nofile),
                        });
                    }
                    Some(Errno::INVAL) => features = features.without(Feature::Direct),
                    _ => {
                        return Err(SetupError::Other {
                            step: "registering the table of direct descriptors",
                            source: error,
                        });
                    }
                },
            }
        }
        let mut pool =
            Pool::new(config.buffers, config.buffer_size).map_err(|source| SetupError::Other {
                step: "mapping the buffers",
                source,
            })?;
        // SAFETY: the pool's entries are `count` long and stay mapped until after the ring is gone (or for ever, if
        // it could not be brought to rest).
        let registered = unsafe {
            uring.submitter().register_buf_ring_with_flags(
                pool.entries_address(),
                pool.count(),
                GROUP,
                0,
            )
        };
        registered.map_err(|source| match Errno::from_io_error(&source) {
            Some(Errno::INVAL) => SetupError::Unavailable {
                what: "no rings of provided buffers",
            },
            _ => SetupError::Other {
                step: "registering the buffers",
                source,
            },
        })?;
        pool.open(BUFFERS_OPENED);
        pool.publish();

        let mut uring = ManuallyDrop::new(Box::new(uring));
        let address: *mut IoUring = &raw mut **uring;
        // SAFETY: the box is neither moved out of nor used again before `drop`, which ends the three faces first; so
        // the borrow that is made 'static here never outlives what it borrows from, and is the only one.
        let (mut submitter, submissions, completions) = unsafe { (*address).split() };
        if features.has(Feature::RegisteredRing) && submitter.register_ring_fd().is_err() {
            features = features.without(Feature::RegisteredRing);
        }
        if features.has(Feature::Napi)
            && submitter
                .register_napi(&mut Napi::new().set_busy_poll_timeout(NAPI_POLL_US))
                .is_err()
        {
            features = features.without(Feature::Napi);
        }
        if features.has(Feature::Restrictions) {
            confine(&submitter).map_err(|source| SetupError::Other {
                step: "confining the ring (--uring +restrictions)",
                source,
            })?;
        }
        let limited = features.has(Feature::MultishotRecv) && trials::recv_can_be_limited();
        // Unbounded, a bundle would let one connection take all buffers at once.
        if features.has(Feature::Bundle) && !(limited && trials::bundles_are_sound()) {
            features = features.without(Feature::Bundle);
        }
        let recv_bytes_max = if limited {
            config.recv_bytes_max.max(1)
        } else {
            0
        };
        Ok(Ring {
            disabled: features.has(Feature::Restrictions),
            submitter: ManuallyDrop::new(submitter),
            submissions: ManuallyDrop::new(submissions),
            completions: ManuallyDrop::new(completions),
            uring,
            pool,
            slots: Slots::new(slots),
            shared: Arc::clone(&config.shared),
            features,
            in_flight: 0,
            accepts: 0,
            stash: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            confirmable: 0,
            ticket: 0,
            bundle: Bundle {
                slot: Slot(Slot::MAX),
                buffers: VecDeque::new(),
                more: false,
            },
            recv_bytes_max,
            addresses: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// The features in use: those asked for, less what this kernel lacks.
    pub fn features(&self) -> Features {
        self.features
    }

    /// What the ring did so far.
    #[inline]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    // ---- files

    /// Puts a file into a slot. The ring holds a reference of its own; the caller's descriptor stays the caller's.
    ///
    /// # Errors
    /// `EMFILE`: all slots are taken. `EBUSY`: an accept is armed and direct descriptors are in use, so that the kernel
    /// may be taking slots at this moment. Else what the kernel said.
    pub fn install(&mut self, file: BorrowedFd<'_>) -> io::Result<Slot> {
        let direct = self.features.has(Feature::Direct);
        if direct && 0 < self.accepts {
            return Err(Errno::BUSY.into());
        }
        let held = if direct {
            None
        } else {
            Some(rustix::io::fcntl_dupfd_cloexec(file, 0)?)
        };
        let slot = self.slots.take(held).ok_or(Errno::MFILE)?;
        if direct {
            let installed = self
                .submitter
                .register_files_update(slot.0, &[file.as_raw_fd()]);
            if let Err(error) = installed {
                self.slots.vacate(slot);
                self.slots.closed(slot);
                return Err(error);
            }
        }
        Ok(slot)
    }

    /// As [`Ring::install`], for a file that the caller gives up: with plain descriptors it is kept as it is, which saves
    /// the copy.
    ///
    /// # Errors
    /// As [`Ring::install`]; the file is closed then.
    pub fn adopt(&mut self, file: OwnedFd) -> io::Result<Slot> {
        if self.features.has(Feature::Direct) {
            return self.install(file.as_fd());
        }
        self.slots
            .take(Some(file))
            .ok_or_else(|| Errno::MFILE.into())
    }

    /// The plain descriptor behind a slot; `None` where a direct one is, or none at all.
    pub fn file(&mut self, slot: Slot) -> Option<BorrowedFd<'_>> {
        self.slots.state(slot).file.as_ref().map(AsFd::as_fd)
    }

    /// Closes the file of a slot: ends what is in flight on it, swallows its completions (their buffers go back), then
    /// closes, then says [`Event::Close`]. From this call on the slot is not the caller's any more. A second call is
    /// without effect.
    pub fn close(&mut self, slot: Slot) {
        let state = self.slots.state(slot);
        if state.life != Life::Open {
            return;
        }
        state.life = Life::Closing;
        let quiet = state.in_flight == 0;
        if self.bundle.slot == slot {
            self.discard_bundle();
        }
        if quiet {
            self.push_close(slot);
            return;
        }
        // Closing under an armed receive would send no FIN and go on receiving: so first all must have ended.
        self.cancel(slot);
        if self.slots.state(slot).sending.is_some() {
            self.push_cancel_of(slot, Op::Send);
        }
        if self.slots.state(slot).connecting {
            self.push_cancel_of(slot, Op::Connect);
        }
    }

    /// Whether nothing is in flight on the slot.
    pub fn is_quiet(&mut self, slot: Slot) -> bool {
        self.slots.state(slot).in_flight == 0
    }

    // ---- operations

    /// Arms the accept on a listener: for connection after connection where the kernel can (5.19), else for one. New
    /// connections take slots of the kernel's choice (direct) or ours.
    ///
    /// # Panics
    /// When one is armed already.
    pub fn accept(&mut self, listener: Slot) {
        let multishot = self.features.has(Feature::MultishotAccept);
        self.push_accept(listener, multishot);
    }

    /// Arms the accept for one connection only: for when there is no room for as many as may be waiting.
    ///
    /// # Panics
    /// When one is armed already.
    pub fn accept_one(&mut self, listener: Slot) {
        self.push_accept(listener, false);
    }

    fn push_accept(&mut self, listener: Slot, multishot: bool) {
        let direct = self.features.has(Feature::Direct);
        self.arm(listener, Op::Accept);
        self.accepts += 1;
        // A direct descriptor has no close-on-exec flag: it is in no process' table.
        let flags = if direct { 0 } else { libc::SOCK_CLOEXEC };
        let entry = match (self.target(listener), multishot) {
            (Target::Direct(fixed), true) => opcode::AcceptMulti::new(fixed)
                .allocate_file_index(true)
                .flags(flags)
                .build(),
            (Target::Direct(fixed), false) => {
                opcode::Accept::new(fixed, std::ptr::null_mut(), std::ptr::null_mut())
                    .file_index(Some(io_uring::types::DestinationSlot::auto_target()))
                    .flags(flags)
                    .build()
            }
            (Target::Plain(fd), true) => opcode::AcceptMulti::new(fd).flags(flags).build(),
            (Target::Plain(fd), false) => {
                opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
                    .flags(flags)
                    .build()
            }
        };
        self.push(entry, Op::Accept, listener);
    }

    /// Arms the receive on a connection: for piece after piece where the kernel can (6.0), else for one.
    ///
    /// # Panics
    /// When one is armed already.
    #[inline]
    pub fn recv(&mut self, slot: Slot) {
        self.arm(slot, Op::Recv);
        let multishot = self.features.has(Feature::MultishotRecv);
        // A bundle is a detour for what fits one buffer (1 % of a 64 B message's CPU): so the first receive is a plain
        // one, and whenever a receive ends at its limit of bytes the next is what the last one's pieces ask for.
        let filled = std::mem::take(&mut self.slots.state(slot).filled);
        let bundle = filled && self.features.has(Feature::Bundle);
        let limit = self.recv_bytes_max;
        let size = self.pool.size();
        let entry = match (self.target(slot), multishot) {
            (Target::Direct(fixed), true) if bundle => {
                limited(opcode::RecvMultiBundle::new(fixed, GROUP).build(), limit)
            }
            (Target::Plain(fd), true) if bundle => {
                limited(opcode::RecvMultiBundle::new(fd, GROUP).build(), limit)
            }
            (Target::Direct(fixed), true) => {
                limited(opcode::RecvMulti::new(fixed, GROUP).build(), limit)
            }
            (Target::Plain(fd), true) => limited(opcode::RecvMulti::new(fd, GROUP).build(), limit),
            (Target::Direct(fixed), false) => opcode::Recv::new(fixed, std::ptr::null_mut(), size)
                .buf_group(GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
            (Target::Plain(fd), false) => opcode::Recv::new(fd, std::ptr::null_mut(), size)
                .buf_group(GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
        };
        self.push(entry, Op::Recv, slot);
    }

    /// Whether an accept, a receive or a poll is armed on the slot.
    #[inline]
    pub fn is_armed(&mut self, slot: Slot) -> bool {
        self.slots.state(slot).armed.is_some()
    }

    /// Sends a payload, all of it (`MSG_WAITALL`), however long the peer takes to make room, and without a signal to the
    /// process where the peer is gone.
    ///
    /// # Panics
    /// When a send is in flight on the slot, when the payload is empty, and when it is not this ring's.
    #[inline]
    pub fn send(&mut self, slot: Slot, payload: Payload) {
        self.push_send(slot, payload, 0);
    }

    /// Sends as much of a payload as the socket takes at once: the event then says how much, or `EAGAIN`. Nothing waits
    /// in the kernel, so a buffer that is sent this way is back after the next submit, whatever the peer does.
    ///
    /// # Panics
    /// As [`Ring::send`].
    #[inline]
    pub fn send_now(&mut self, slot: Slot, payload: Payload) {
        self.push_send(slot, payload, libc::MSG_DONTWAIT);
    }

    #[inline]
    fn push_send(&mut self, slot: Slot, mut payload: Payload, flags: i32) {
        assert!(!payload.is_empty(), "an empty send");
        let flags = flags | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let target = self.target(slot);
        let entry = if let Payload::Gather(gather) = &mut payload {
            let header = self.lay_out(gather);
            let flags = flags as u32;
            match target {
                Target::Direct(fixed) => opcode::SendMsg::new(fixed, header).flags(flags).build(),
                Target::Plain(fd) => opcode::SendMsg::new(fd, header).flags(flags).build(),
            }
        } else {
            let (start, len) = self.piece(&payload);
            // A length that doesn't fit 32 bits goes out in part, as a short send, and the caller sends the rest.
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            let zero_copy = self.features.has(Feature::SendZc);
            match (target, zero_copy) {
                (Target::Direct(fixed), false) => {
                    opcode::Send::new(fixed, start, len).flags(flags).build()
                }
                (Target::Plain(fd), false) => {
                    opcode::Send::new(fd, start, len).flags(flags).build()
                }
                (Target::Direct(fixed), true) => {
                    opcode::SendZc::new(fixed, start, len).flags(flags).build()
                }
                (Target::Plain(fd), true) => {
                    opcode::SendZc::new(fd, start, len).flags(flags).build()
                }
            }
        };
        // Only a send that can't wait is known to have ended when the submit returns.
        let skip = self.features.has(Feature::SkipSuccess) && flags & libc::MSG_DONTWAIT != 0;
        let state = self.slots.state(slot);
        assert!(
            state.sending.is_none(),
            "two sends in flight on one socket corrupt its stream"
        );
        state.sending = Some(payload);
        if skip {
            self.ticket = self.ticket.checked_add(1).unwrap_or(1);
            state.ticket = self.ticket;
            self.unconfirmed.push_back((slot, self.ticket));
            self.push(entry.flags(squeue::Flags::SKIP_SUCCESS), Op::Send, slot);
        } else {
            state.ticket = 0;
            self.push(entry, Op::Send, slot);
        }
    }

    /// Where a piece is, and how long.
    #[inline]
    fn piece(&self, payload: &Payload) -> (*const u8, usize) {
        match payload {
            Payload::Buffer(buffer) => (self.pool.address(buffer), buffer.len()),
            Payload::Heap { bytes, start } => (bytes[*start..].as_ptr(), bytes.len() - start),
            Payload::Shared(range) => (self.shared[range.clone()].as_ptr(), range.len()),
            Payload::Gather(_) => unreachable!("a gather holds no gather: `push` sees to it"),
        }
    }

    /// Writes down for the kernel where the pieces are. The header stays valid as long as the gather is kept, which is
    /// until the send's completion: it is boxed, and its vector isn't touched meanwhile.
    fn lay_out(&self, gather: &mut Gather) -> *const libc::msghdr {
        let mut vectors = std::mem::take(&mut gather.vectors);
        vectors.clear();
        vectors.extend(
            gather
                .iter()
                .filter(|piece| !piece.is_empty())
                .take(Gather::PIECES_MAX)
                .map(|piece| {
                    let (start, len) = self.piece(piece);
                    libc::iovec {
                        iov_base: start.cast_mut().cast(),
                        iov_len: len,
                    }
                }),
        );
        gather.header.msg_iov = vectors.as_mut_ptr();
        gather.header.msg_iovlen = vectors.len() as _;
        gather.vectors = vectors;
        &raw const gather.header
    }

    /// Sends that say nothing when they succeed and whose success is not known yet.
    #[inline]
    pub fn sends_unconfirmed(&self) -> usize {
        self.unconfirmed.len()
    }

    /// Whether a send is in flight on the slot.
    #[inline]
    pub fn is_sending(&mut self, slot: Slot) -> bool {
        self.slots.state(slot).sending.is_some()
    }

    /// Connects a socket that was installed.
    pub fn connect(&mut self, slot: Slot, address: &SocketAddrAny) {
        // Boxed, so that the vector may grow without moving what a queued request points to.
        let address = Box::new(address.clone());
        let start = address.as_ptr().cast::<libc::sockaddr>();
        let len = address.addr_len();
        self.addresses.push(address);
        let entry = match self.target(slot) {
            Target::Direct(fixed) => opcode::Connect::new(fixed, start, len).build(),
            Target::Plain(fd) => opcode::Connect::new(fd, start, len).build(),
        };
        self.slots.state(slot).connecting = true;
        self.push(entry, Op::Connect, slot);
    }

    /// Ends our side of the stream: the peer reads to the end of what was sent, then sees EOF.
    pub fn shutdown_write(&mut self, slot: Slot) {
        let entry = match self.target(slot) {
            Target::Direct(fixed) => opcode::Shutdown::new(fixed, libc::SHUT_WR).build(),
            Target::Plain(fd) => opcode::Shutdown::new(fd, libc::SHUT_WR).build(),
        };
        self.push(entry, Op::Shutdown, slot);
    }

    /// Waits for the file to become readable, once.
    ///
    /// # Panics
    /// When something is armed on the slot already.
    pub fn poll(&mut self, slot: Slot) {
        self.arm(slot, Op::Poll);
        let events = u32::from(rustix::event::PollFlags::IN.bits());
        let entry = match self.target(slot) {
            Target::Direct(fixed) => opcode::PollAdd::new(fixed, events).build(),
            Target::Plain(fd) => opcode::PollAdd::new(fd, events).build(),
        };
        self.push(entry, Op::Poll, slot);
    }

    /// Ends the armed accept, receive or poll of a slot. Its last event still comes: `ECANCELED`, or what it had just
    /// then. Without effect where none is armed.
    pub fn cancel(&mut self, slot: Slot) {
        let state = self.slots.state(slot);
        if let Some(op) = state.armed
            && !state.cancelling
        {
            state.cancelling = true;
            self.push_cancel_of(slot, op);
        }
    }

    // ---- buffers

    /// The bytes of a lease.
    ///
    /// # Panics
    /// When the buffer is another ring's.
    #[inline]
    pub fn bytes(&self, buffer: &Buffer) -> &[u8] {
        self.pool.bytes(buffer)
    }

    /// Gives a buffer back to the pool.
    ///
    /// # Panics
    /// When the buffer is another ring's.
    #[inline]
    pub fn release(&mut self, buffer: Buffer) {
        self.pool.release(buffer);
    }

    /// Buffers that nobody holds.
    #[inline]
    pub fn buffers_free(&self) -> usize {
        self.pool.free()
    }

    /// Buffers in all.
    pub fn buffers(&self) -> usize {
        usize::from(self.pool.count())
    }

    // ---- turns

    /// Hands over what was asked for, and doesn't wait.
    ///
    /// # Errors
    /// What `io_uring_enter` said, interruptions and time-outs left out: the ring is not usable then.
    #[inline]
    pub fn submit(&mut self) -> io::Result<()> {
        self.enter(0, None)
    }

    /// As [`Ring::submit`], without a call into the kernel where there is nothing to hand over and nothing to fetch: for
    /// a loop that spins.
    ///
    /// # Errors
    /// As [`Ring::submit`].
    #[inline]
    pub fn submit_if_due(&mut self) -> io::Result<()> {
        self.completions.sync();
        self.submissions.sync();
        let due = !self.submissions.is_empty()
            || !self.completions.is_empty()
            || self.submissions.taskrun()
            || self.submissions.cq_overflow()
            || 0 < self.confirmable;
        if due {
            return self.enter(0, None);
        }
        std::hint::spin_loop();
        Ok(())
    }

    /// Hands over what was asked for and waits for an event, or for `limit` at most.
    ///
    /// # Errors
    /// As [`Ring::submit`]. That the time is up is not an error.
    #[inline]
    pub fn submit_and_wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        // Events that are here already are reason enough not to wait.
        self.completions.sync();
        let want = usize::from(self.completions.is_empty() && self.stash.is_empty());
        self.enter(want, limit)
    }

    /// The next event of those that the last submit brought. They are to be drained before the next wait.
    #[inline]
    pub fn next_event(&mut self) -> Option<Event> {
        if let Some(buffer) = self.bundle.buffers.pop_front() {
            return Some(Event::Recv {
                slot: self.bundle.slot,
                result: Ok(Some(buffer)),
                more: self.bundle.more || !self.bundle.buffers.is_empty(),
            });
        }
        loop {
            let Some(entry) = self.next_completion() else {
                if self.confirmable == 0 {
                    return None;
                }
                match self.confirm() {
                    Some(event) => return Some(event),
                    None => continue,
                }
            };
            self.counts.cqes += 1;
            if let Some(event) = self.settle(&entry) {
                return Some(event);
            }
        }
    }

    #[inline]
    fn next_completion(&mut self) -> Option<cqueue::Entry> {
        match self.stash.pop_front() {
            Some(entry) => Some(entry),
            None => self.completions.next(),
        }
    }

    /// The silent sends that were handed over and have not failed have succeeded: failures and short sends write a
    /// completion before the submit returns, and all completions were read by now.
    fn confirm(&mut self) -> Option<Event> {
        if self.submissions.cq_overflow() {
            // Some may be in the overflow list: they come first.
            if self.enter(0, None).is_err() {
                self.confirmable = 0;
                return None;
            }
            if !self.completions.is_empty() {
                return None;
            }
        }
        while 0 < self.confirmable {
            self.confirmable -= 1;
            let Some((slot, ticket)) = self.unconfirmed.pop_front() else {
                self.confirmable = 0;
                break;
            };
            let state = self.slots.state(slot);
            // It said something after all, and was settled then.
            if state.ticket != ticket {
                continue;
            }
            state.ticket = 0;
            state.in_flight -= 1;
            self.in_flight -= 1;
            let payload = state
                .sending
                .take()
                .expect("an unconfirmed send has its payload");
            if state.life == Life::Closing {
                let quiet = state.in_flight == 0;
                self.take_back(payload);
                if quiet {
                    self.push_close(slot);
                }
                continue;
            }
            return Some(Event::Send {
                slot,
                result: Ok(payload.len()),
                payload,
            });
        }
        None
    }

    /// Puts the buffers of a payload that nobody waits for back into the pool.
    fn take_back(&mut self, payload: Payload) {
        match payload {
            Payload::Buffer(buffer) => self.pool.release(buffer),
            Payload::Gather(mut gather) => {
                while let Some(piece) = gather.pop() {
                    self.take_back(piece);
                }
            }
            Payload::Heap { .. } | Payload::Shared(_) => {}
        }
    }

    /// Takes the buffers of a receive out of the kernel's hands: the first is returned, and where the bytes fill more
    /// than one the others wait for their events. They are all taken now, because the order of the ring says which they
    /// are, and what is given back from now on changes it.
    #[inline]
    fn lease(&mut self, slot: Slot, id: u16, len: u32, more: bool) -> Option<Buffer> {
        let size = self.pool.size();
        if len <= size {
            return self.pool.lease(id, len);
        }
        self.bundle.slot = slot;
        self.bundle.more = more;
        let (mut next, mut left) = (id, len);
        while 0 < left {
            let piece = left.min(size);
            left -= piece;
            let buffer = self.pool.lease(next, piece)?;
            self.bundle.buffers.push_back(buffer);
            next = self.pool.after(next);
        }
        self.bundle.buffers.pop_front()
    }

    fn enter(&mut self, want: usize, limit: Option<Duration>) -> io::Result<()> {
        if std::mem::take(&mut self.disabled) {
            self.submitter.register_enable_rings()?;
        }
        self.pool.publish();
        self.submissions.sync();
        self.counts.enters += 1;
        let entered = match limit {
            Some(limit) if 0 < want => {
                let limit = Timespec::from(limit);
                let args = SubmitArgs::new().timespec(&limit);
                self.submitter.submit_with_args(want, &args)
            }
            _ => self.submitter.submit_and_wait(want),
        };
        self.submissions.sync();
        if self.submissions.is_empty() {
            self.addresses.clear();
            self.confirmable = self.unconfirmed.len();
        }
        if self.submissions.cq_overflow() {
            self.counts.cq_overflows += 1;
        }
        self.completions.sync();
        match entered.map_err(|error| Errno::from_io_error(&error).ok_or(error)) {
            Ok(_) => Ok(()),
            // The wait's time is up; a signal came; the kernel wants completions to be taken off first, or is short of
            // memory for the moment: all of these are for the next turn.
            Err(Ok(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN)) => Ok(()),
            Err(Ok(errno)) => Err(errno.into()),
            Err(Err(error)) => Err(error),
        }
    }

    /// Turns a completion into an event, or swallows it: a stranger's, a cancel's, a closing connection's.
    #[inline]
    fn settle(&mut self, entry: &cqueue::Entry) -> Option<Event> {
        let Some(token) = Token::unpack(entry.user_data()) else {
            debug_assert!(false, "a completion that nobody asked for");
            return None;
        };
        let flags = entry.flags();
        let more = cqueue::more(flags);
        let result = entry.result();
        if !more {
            self.in_flight -= 1;
        }
        let slot = token.slot;
        if token.op == Op::Accept && !more {
            self.accepts -= 1;
        }
        let state = self.slots.try_state(slot)?;
        if token.generation != state.generation {
            self.discard_received(slot, result, flags);
            if token.op == Op::Close {
                self.slots.closed(slot);
                return Some(Event::Close { slot });
            }
            return None;
        }
        if !more {
            state.in_flight -= 1;
            match token.op {
                Op::Accept | Op::Recv | Op::Poll => {
                    state.armed = None;
                    state.cancelling = false;
                }
                Op::Connect => state.connecting = false,
                _ => {}
            }
        }
        let mut result = result;
        if token.op == Op::Send {
            if more {
                // Zero-copy: it was sent, or failed, and the buffer is still the kernel's until the notification.
                state.outcome = result;
                return None;
            }
            if cqueue::notif(flags) {
                result = state.outcome;
            }
        }
        if state.life == Life::Closing {
            let sent = if token.op == Op::Send {
                state.ticket = 0;
                state.sending.take()
            } else {
                None
            };
            let quiet = state.in_flight == 0;
            self.discard_received(slot, result, flags);
            if let Some(payload) = sent {
                self.take_back(payload);
            }
            if quiet {
                self.push_close(slot);
            }
            return None;
        }
        match token.op {
            Op::Recv => {
                let result = self.received(slot, result, flags, more);
                let more = more || !self.bundle.buffers.is_empty();
                Some(Event::Recv { slot, result, more })
            }
            Op::Send => {
                state.ticket = 0;
                let payload = state
                    .sending
                    .take()
                    .expect("a send's payload is kept until its completion");
                Some(Event::Send {
                    slot,
                    result: outcome(result).map(|sent| sent as usize),
                    payload,
                })
            }
            Op::Accept => Some(Event::Accept {
                listener: slot,
                result: self.accepted(result),
                more,
            }),
            Op::Connect => Some(Event::Connect {
                slot,
                result: outcome(result).map(|_| ()),
            }),
            Op::Shutdown => Some(Event::Shutdown {
                slot,
                result: outcome(result).map(|_| ()),
            }),
            Op::Poll => (0 <= result).then_some(Event::Poll { slot }),
            // A close carries the generation that it ended, so it is never met here.
            Op::Close | Op::Cancel => None,
        }
    }

    #[inline]
    fn received(
        &mut self,
        slot: Slot,
        result: i32,
        flags: u32,
        more: bool,
    ) -> Result<Option<Buffer>, Errno> {
        match (outcome(result), cqueue::buffer_select(flags)) {
            (Ok(0), None) => Ok(None),
            (Ok(len), Some(id)) if 0 < len => {
                if self.pool.size() <= len {
                    self.slots.state(slot).filled = true;
                }
                let buffer = self.lease(slot, id, len, more);
                debug_assert!(buffer.is_some(), "bytes in a buffer that the pool hasn't");
                buffer.map(Some).ok_or(Errno::IO)
            }
            (Ok(0), Some(_)) => {
                self.discard_received(slot, result, flags);
                Ok(None)
            }
            (Ok(_), _) => {
                debug_assert!(false, "bytes that came in no buffer");
                Err(Errno::IO)
            }
            (Err(errno), _) => {
                self.discard_received(slot, result, flags);
                if errno == Errno::NOBUFS {
                    // Those in use ran out: open more of the pool, for the receive that is armed next.
                    self.pool.open(BUFFERS_OPENED.max(self.pool.count() / 8));
                }
                Err(errno)
            }
        }
    }

    /// Puts the buffers of a completion that nobody wants back into the pool: whatever becomes of the event, they must
    /// come back.
    fn discard_received(&mut self, slot: Slot, result: i32, flags: u32) {
        let Some(id) = cqueue::buffer_select(flags) else {
            return;
        };
        if let Some(buffer) = self.lease(slot, id, result.max(0) as u32, false) {
            self.pool.release(buffer);
        }
        self.discard_bundle();
    }

    fn discard_bundle(&mut self) {
        while let Some(buffer) = self.bundle.buffers.pop_front() {
            self.pool.release(buffer);
        }
    }

    fn accepted(&mut self, result: i32) -> Result<Slot, Errno> {
        let number = outcome(result)?;
        if self.features.has(Feature::Direct) {
            let slot = Slot(number);
            self.slots.occupy(slot, None);
            return Ok(slot);
        }
        // SAFETY: the kernel made this descriptor for this accept and told nobody else.
        let file = unsafe { OwnedFd::from_raw_fd(number as RawFd) };
        self.slots.take(Some(file)).ok_or(Errno::NFILE)
    }

    #[inline]
    fn arm(&mut self, slot: Slot, op: Op) {
        let state = self.slots.state(slot);
        assert!(state.armed.is_none(), "armed twice on one slot");
        state.armed = Some(op);
    }

    #[inline]
    fn target(&mut self, slot: Slot) -> Target {
        if self.features.has(Feature::Direct) {
            return Target::Direct(Fixed(slot.0));
        }
        let file = self.slots.state(slot).file.as_ref();
        Target::Plain(Fd(file.map_or(-1, AsRawFd::as_raw_fd)))
    }

    fn push_cancel_of(&mut self, slot: Slot, op: Op) {
        let generation = self.slots.state(slot).generation;
        let target = Token::new(op, slot, generation).pack();
        let entry = opcode::AsyncCancel::new(target).build();
        self.push(entry, Op::Cancel, slot);
    }

    /// Tells the kernel to close the file. The generation moves on now: the kernel may give the slot to a new
    /// connection before the completion of this close is read.
    fn push_close(&mut self, slot: Slot) {
        let state = self.slots.state(slot);
        debug_assert_eq!(state.in_flight, 0, "a close under something in flight");
        let generation = state.generation;
        let file = state.file.take();
        let entry = match file {
            Some(file) => opcode::Close::new(Fd(file.into_raw_fd())).build(),
            None => opcode::Close::new(Fixed(slot.0)).build(),
        };
        let entry = entry.user_data(Token::new(Op::Close, slot, generation).pack());
        self.slots.vacate(slot);
        self.push_raw(&entry);
    }

    #[inline]
    fn push(&mut self, entry: squeue::Entry, op: Op, slot: Slot) {
        let state = self.slots.state(slot);
        state.in_flight += 1;
        let token = Token::new(op, slot, state.generation);
        self.push_raw(&entry.user_data(token.pack()));
    }

    #[inline]
    fn push_raw(&mut self, entry: &squeue::Entry) {
        self.in_flight += 1;
        loop {
            // SAFETY: every entry is built in this file from memory that the ring owns until the completion: a pool
            // buffer or payload kept in its slot, the shared bytes, an address kept until it is submitted.
            if unsafe { self.submissions.push(entry) }.is_ok() {
                return;
            }
            self.make_room();
        }
    }

    /// The submission queue is full: submit early. Where the kernel wants completions taken off first, they wait in the
    /// stash.
    #[cold]
    fn make_room(&mut self) {
        for entry in self.completions.by_ref() {
            self.stash.push_back(entry);
        }
        self.completions.sync();
        // An error here is seen again, and reported, by the submit at the end of the turn.
        let _ = self.enter(0, None);
    }
}

/// Cancel, reap to the last completion, then free.
impl Drop for Ring {
    fn drop(&mut self) {
        if !self.come_to_rest() {
            // The kernel may still write to this memory: it is given up, not freed.
            self.pool.leak();
            for (_, state) in self.slots.iter_mut() {
                std::mem::forget(state.sending.take());
            }
            std::mem::forget(Arc::clone(&self.shared));
        }
        if self.features.has(Feature::RegisteredRing) {
            // The thread's table of registered rings holds a reference: without this the ring, and every file in it,
            // would live as long as the thread.
            let _ = self.submitter.unregister_ring_fd();
        }
        // SAFETY: each is dropped once, here, and the three that borrow from the ring before it.
        unsafe {
            ManuallyDrop::drop(&mut self.completions);
            ManuallyDrop::drop(&mut self.submissions);
            ManuallyDrop::drop(&mut self.submitter);
            ManuallyDrop::drop(&mut self.uring);
        }
    }
}

impl Ring {
    /// Ends all that is in flight. Returns whether it did within [`REAP_LIMIT`].
    fn come_to_rest(&mut self) -> bool {
        let deadline = Instant::now() + REAP_LIMIT;
        let everything = Token::new(Op::Cancel, Slot(Slot::MAX), 0);
        self.push_raw(
            &opcode::AsyncCancel2::new(CancelBuilder::any())
                .build()
                .user_data(everything.pack()),
        );
        while 0 < self.in_flight && Instant::now() < deadline {
            if self
                .submit_and_wait(Some(Duration::from_millis(100)))
                .is_err()
            {
                return false;
            }
            // Buffers that come now go down with the pool, and slots with the table: nothing is armed again.
            while let Some(event) = self.next_event() {
                drop(event);
            }
        }
        self.in_flight == 0
    }
}

/// Bounds what a multishot receive takes until it is armed again, in bytes (6.17, `optlen`); 0 is no bound. Without it
/// one connection whose socket is full of data takes all buffers of the pool at once: bundles fill as many as there are
/// bytes for.
fn limited(mut entry: squeue::Entry, bytes: u32) -> squeue::Entry {
    /// Where `struct io_uring_sqe` of the kernel's ABI has its `optlen`.
    const OPTLEN: usize = 44;
    const { assert!(size_of::<squeue::Entry>() == 64) };
    // SAFETY: an entry is `repr(C)` and nothing but the kernel's 64-byte `io_uring_sqe`, in which 4 bytes at 44, aligned,
    // are a plain integer.
    unsafe {
        (&raw mut entry)
            .cast::<u8>()
            .add(OPTLEN)
            .cast::<u32>()
            .write(bytes);
    }
    entry
}

/// Allows the operations that a server needs and no others. Registrations come before this; afterwards the kernel
/// refuses all but the one that lets the ring go.
fn confine(submitter: &Submitter<'_>) -> io::Result<()> {
    /// `IORING_UNREGISTER_RING_FDS`
    const UNREGISTER_RING_FDS: u8 = 21;
    let operations = [
        opcode::Accept::CODE,
        opcode::Recv::CODE,
        opcode::Send::CODE,
        opcode::SendMsg::CODE,
        opcode::SendZc::CODE,
        opcode::Shutdown::CODE,
        opcode::Close::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
    ];
    let flags = squeue::Flags::FIXED_FILE.bits()
        | squeue::Flags::BUFFER_SELECT.bits()
        | squeue::Flags::SKIP_SUCCESS.bits();
    let mut allowed: Vec<Restriction> = operations.map(Restriction::sqe_op).into();
    // With the operations alone, every request that carries a flag is refused.
    allowed.push(Restriction::sqe_flags_allowed(flags));
    allowed.push(Restriction::register_op(UNREGISTER_RING_FDS));
    submitter.register_restrictions(&mut allowed)
}

#[derive(Clone, Copy)]
enum Target {
    Direct(Fixed),
    Plain(Fd),
}

#[inline]
fn outcome(result: i32) -> Result<u32, Errno> {
    if 0 <= result {
        Ok(result as u32)
    } else {
        Err(Errno::from_raw_os_error(-result))
    }
}
