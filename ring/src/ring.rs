//! The ring: its making, its files and buffers, and an orderly end. [`operations`] go in by the [`queue`], [`completions`] come
//! out.

mod accepting;
mod completions;
mod operations;
mod queue;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use io_uring::register::Restriction;
use io_uring::types::{CancelBuilder, Napi};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use crate::buffers::Buffer;
use crate::bulk::BulkQueue;
use crate::faces::Faces;
use crate::features::{Extras, Feature, Features};
use crate::payload::{Gather, Payload};
use crate::pools::Pools;
use crate::receive_time;
use crate::setup::{self, Config, SetupError, limit_text};
use crate::slot::{Naming, Slot};
use crate::slots::{Life, Readiness, Slots};
use crate::token::{Op, Token};

/// Rings of this process so far: each names its slots by its number.
static RINGS: AtomicU32 = AtomicU32::new(1);

/// Gathers that are kept to be filled again. Each holds up to some 34 KiB, and a stalled peer is not a rare one.
const GATHERS_KEPT: usize = 16;

/// How long a wait polls the network card's queue, with `napi`.
const NAPI_POLL_US: u32 = 50;

/// How long a ring that ends waits for its last completions. Cancelled socket operations end at once; the limit is
/// there so that a kernel fault costs memory and not the process.
const REAP_LIMIT: Duration = Duration::from_secs(2);

/// The same where only notifications of zero-copy sends are awaited: those of a peer that doesn't read can't be cancelled,
/// and others come with the next acknowledgement.
const NOTIFICATION_LIMIT: Duration = Duration::from_millis(100);

/// The longest rest after the kernel refused for the moment.
const REST_MAX: Duration = Duration::from_millis(10);

/// An io_uring instance with its files and its buffers. It belongs to the thread that made it.
pub struct Ring {
    condition: Condition,
    /// Before the pools: what the kernel reads and writes is freed after the ring is gone.
    faces: Faces,
    pools: Pools,
    slots: Slots,
    shared: Arc<[u8]>,
    features: Features,
    /// Operations that have not had their last completion.
    in_flight: u32,
    /// Accepts that are armed: while one is, the kernel may be choosing slots.
    accepts: u32,
    /// The `ioprio` of an accept that may wait.
    accept_flags: u16,
    /// Completions that the last submits brought and that are still to be settled: those of sends, and all others.
    send_completions: VecDeque<cqueue::Entry>,
    completions_left: VecDeque<cqueue::Entry>,
    /// Completions that came while the user was busy with those: the next submit adds them.
    deferred: Vec<cqueue::Entry>,
    /// Sends that say nothing when they succeed, each with its ticket, in order; the first `confirmable` were handed over.
    unconfirmed: VecDeque<(Slot, u32)>,
    confirmable: usize,
    ticket: u32,
    /// Zero-copy sends that are over but for their notification, also of files that are closed by now.
    notifications: u32,
    /// What the latter sent, by the token of the send: the kernel reads from it until the notification.
    lingering: Vec<(u64, Payload)>,
    /// Gathers that were sent, to be filled again.
    #[allow(clippy::vec_box, reason = "a payload holds it boxed")]
    gathers: Vec<Box<Gather>>,
    /// What is left of a receive that filled several buffers.
    bundle: Bundle,
    recv_bytes_max: u32,
    /// What a bulk receive asks for.
    recv_bytes_bulk: u32,
    /// A receive that brings less than it asked for has emptied its socket.
    short_is_empty: bool,
    /// Bulk receives that wait for one another.
    bulk: BulkQueue,
    /// Addresses of connects not submitted yet: the kernel copies them when it takes the request.
    #[allow(clippy::vec_box, reason = "a queued request points into the box")]
    addresses: Vec<Box<SocketAddrAny>>,
    /// A wait need not be accounted as one for a disk.
    no_iowait: bool,
    /// What a receive with times is asked with.
    stamped_request: Box<libc::msghdr>,
    /// Submits in a row that the kernel refused for the moment, and brought nothing.
    refused: u32,
    last_refusal: Option<Errno>,
    counts: Counts,
}

/// What a submit has to do beside submitting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// Nothing.
    InUse,
    /// Set up with restrictions and not used yet: files can still be installed.
    Disabled,
    /// The kernel took nothing of a full submission queue, and entries were lost: every submit fails from now on.
    Broken(Errno),
}

/// A receive that filled several buffers: those whose events are still to come.
struct Bundle {
    slot: Slot,
    buffers: VecDeque<Buffer>,
    more: bool,
}

/// What a ring did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Completions seen.
    pub cqes: u64,
    /// Times that the completion queue was found to have overflowed. Nothing was lost; time was.
    pub cq_overflows: u64,
    /// Calls that the kernel refused for the moment (`EAGAIN`: short of memory; `EBUSY`: completions are to be taken
    /// first). Each is tried again, after a rest where it brought nothing.
    pub refusals: u64,
}

/// `IORING_ACCEPT_POLL_FIRST`
const ACCEPT_POLL_FIRST: u16 = 1 << 2;

impl Ring {
    /// What a receive with times takes of each buffer, beside the bytes received.
    pub const STAMP_BYTES: u32 = receive_time::STAMP_BYTES as u32;

    /// Puts a ring together: queues, table of direct descriptors, buffers. Its features are taken as sound, but for what
    /// the kernel refuses by itself.
    pub(crate) fn assemble(config: &Config, extras: Extras) -> Result<Ring, SetupError> {
        let (uring, mut features) = setup::build(config)?;
        if !uring.params().is_feature_ext_arg() || !uring.params().is_feature_nodrop() {
            return Err(SetupError::Unavailable {
                what: "no timed waits or no completion back-log".into(),
            });
        }
        // A polling thread has to be woken besides, which the crate's own submit knows how to do.
        let no_iowait = uring.params().is_feature_no_iowait() && !features.has(Feature::Sqpoll);
        let slots = config.slots.clamp(1, Slot::INDEX_MAX);
        if features.has(Feature::Direct) {
            features = register_table(&uring, slots, features)?;
        }
        if config.large_buffers == 0 {
            features = features.without(Feature::BulkRecv);
        }
        let mut pools = Pools::new(config, features.has(Feature::BulkRecv)).map_err(|source| {
            SetupError::Other {
                step: "mapping the buffers",
                source,
            }
        })?;
        register_pools(&uring, &mut pools)?;

        let mut faces = Faces::new(uring);
        if features.has(Feature::RegisteredRing) && !faces.register() {
            features = features.without(Feature::RegisteredRing);
        }
        if features.has(Feature::Napi)
            && faces
                .submitter
                .register_napi(&mut Napi::new().set_busy_poll_timeout(NAPI_POLL_US))
                .is_err()
        {
            features = features.without(Feature::Napi);
        }
        if let Some(workers) = config.workers_max {
            // Of both kinds: for files of a disk, and for everything else.
            let registered = faces
                .submitter
                .register_iowq_max_workers(&mut [workers.max(1); 2]);
            registered.map_err(|source| SetupError::Other {
                step: "bounding its kernel threads",
                source,
            })?;
        }
        if features.has(Feature::Restrictions) {
            confine(&faces).map_err(|source| SetupError::Other {
                step: "confining the ring",
                source,
            })?;
        }
        let recv_bytes_max = if extras.recv_limit && features.has(Feature::MultishotRecv) {
            // The kernel counts what is left in an `int`.
            config.recv_bytes_max.clamp(1, i32::MAX as u32)
        } else {
            // Unbounded, a bundle would let one connection take all buffers at once.
            features = features.without(Feature::Bundle);
            0
        };
        let naming = Naming::of(RINGS.fetch_add(1, Ordering::Relaxed));
        let slots = Slots::new(naming, slots, features.has(Feature::Direct));
        Ok(Ring {
            condition: match features.has(Feature::Restrictions) {
                true => Condition::Disabled,
                false => Condition::InUse,
            },
            faces,
            pools,
            shared: Arc::clone(&config.shared),
            features,
            in_flight: 0,
            accepts: 0,
            accept_flags: match extras.accept_poll_first {
                true => ACCEPT_POLL_FIRST,
                false => 0,
            },
            send_completions: VecDeque::new(),
            completions_left: VecDeque::new(),
            deferred: Vec::new(),
            unconfirmed: VecDeque::new(),
            confirmable: 0,
            ticket: 0,
            notifications: 0,
            lingering: Vec::new(),
            gathers: Vec::new(),
            bundle: Bundle {
                slot: slots.nowhere(),
                buffers: VecDeque::new(),
                more: false,
            },
            slots,
            recv_bytes_max,
            short_is_empty: config.short_is_empty,
            recv_bytes_bulk: match recv_bytes_max {
                0 => config.large_buffer_size,
                bound => bound.min(config.large_buffer_size),
            },
            bulk: BulkQueue::default(),
            addresses: Vec::new(),
            no_iowait,
            stamped_request: receive_time::request(),
            refused: 0,
            last_refusal: None,
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

    /// Why the kernel last refused a call for the moment, if it ever did: see [`Counts::refusals`].
    pub fn last_refusal(&self) -> Option<Errno> {
        self.last_refusal
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
                .faces
                .submitter
                .register_files_update(slot.number(), &[file.as_raw_fd()]);
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

    /// The plain descriptor behind a slot; `None` where a direct one is, or where the slot is not open.
    pub fn file(&mut self, slot: Slot) -> Option<BorrowedFd<'_>> {
        self.slots.find(slot)?.file.as_ref().map(AsFd::as_fd)
    }

    /// Closes the file of a slot: ends what is in flight on it, swallows its completions (their buffers go back), then
    /// closes, then says [`Event::Close`](crate::Event::Close). From this call on the slot is stale: every
    /// operation on it panics. A close of a stale slot is without effect.
    ///
    /// What a zero-copy send holds until the peer has it comes back later, and doesn't hold up the close. Connections that
    /// a listener's accept took in meanwhile are closed too, each with an event of its own.
    pub fn close(&mut self, slot: Slot) {
        let Some(state) = self.slots.find(slot) else {
            return;
        };
        state.life = Life::Closing;
        let may_close = state.may_close();
        if self.bundle.slot == slot {
            self.discard_bundle();
        }
        if may_close {
            self.push_close(slot);
            return;
        }
        // Closing under an armed receive would send no FIN and go on receiving: so first all must have ended.
        self.cancel_armed(slot);
        if self.slots.state(slot).readiness == Readiness::InFlight {
            self.push_cancel_of(slot, Op::Readiness);
        }
        if self.slots.state(slot).room {
            self.push_cancel_of(slot, Op::Room);
        }
        let state = self.slots.state(slot);
        if state.sending.is_some() && !state.notifying {
            self.push_cancel_of(slot, Op::Send);
        }
        if self.slots.state(slot).connecting {
            self.push_cancel_of(slot, Op::Connect);
        }
    }

    /// As [`Ring::close`], but what was not delivered is dropped and the peer sees a reset: for a connection whose peer is owed
    /// bytes, because an end in order would say that those before it were all. A unix socket knows no reset; where no plain
    /// descriptor is left to ask for it (`EMFILE`), it is a close in order.
    pub fn reset(&mut self, slot: Slot) {
        let Some(state) = self.slots.find(slot) else {
            return;
        };
        state.resetting = true;
        match &state.file {
            Some(file) => close_resets(file),
            // By its descriptor, while the close waits for that.
            None if !state.opening => self.open_file(slot),
            None => {}
        }
        self.close(slot);
    }

    // ---- buffers

    /// The bytes of a lease.
    ///
    /// # Panics
    /// When the buffer is another ring's.
    #[inline]
    pub fn bytes(&self, buffer: &Buffer) -> &[u8] {
        self.pools.home(buffer).bytes(buffer)
    }

    /// The bytes of a lease that [`Ring::recv_stamped`] brought, and when the kernel received the last segment of them:
    /// `CLOCK_REALTIME`, ns. No bytes: the peer ended its stream.
    ///
    /// # Panics
    /// When the buffer is another ring's.
    #[inline]
    pub fn stamped_bytes(&self, buffer: &Buffer) -> (Option<u64>, &[u8]) {
        receive_time::take_apart(self.bytes(buffer), &self.stamped_request)
    }

    /// Gives a buffer back to the pool.
    ///
    /// # Panics
    /// When the buffer is another ring's.
    #[inline]
    pub fn release(&mut self, buffer: Buffer) {
        self.pools.release(buffer);
    }

    /// Gives back what is left of a payload that is not to be sent any more.
    ///
    /// # Panics
    /// When a buffer in it is another ring's.
    #[inline]
    pub fn take_back(&mut self, payload: Payload) {
        match payload {
            Payload::Buffer(buffer) => self.pools.release(buffer),
            Payload::Gather(mut gather) => {
                while let Some(piece) = gather.pop() {
                    self.take_back(piece);
                }
                if self.gathers.len() < GATHERS_KEPT {
                    self.gathers.push(gather);
                }
            }
            Payload::Heap { .. } | Payload::Shared(_) => {}
        }
    }

    /// An empty gather: one that was sent before, if there is one, which saves its allocations.
    #[inline]
    pub fn gather(&mut self) -> Box<Gather> {
        self.gathers.pop().unwrap_or_default()
    }

    /// Small buffers that nobody holds: what a receive can always be armed with.
    #[inline]
    pub fn buffers_free(&self) -> usize {
        self.pools.small().free()
    }

    /// Buffers in all, of those that are as large as `buffer`.
    #[inline]
    pub fn buffers_like(&self, buffer: &Buffer) -> usize {
        usize::from(self.pools.home(buffer).count())
    }

    /// Buffers as large as `buffer` that are still held by zero-copy sends of connections closed meanwhile: for as long as
    /// those peers don't read, or until the kernel gives them up.
    pub fn buffers_lingering(&self, buffer: &Buffer) -> usize {
        let large = self.is_large(buffer);
        let alike = |payload: &Payload| matches!(payload, Payload::Buffer(held) if self.is_large(held) == large);
        let payloads = self.lingering.iter().map(|(_, payload)| payload);
        payloads.filter(|payload| alike(payload)).count()
    }

    /// Whether it is one of the large buffers.
    #[inline]
    pub fn is_large(&self, buffer: &Buffer) -> bool {
        self.pools.is_large(buffer)
    }
}

/// Cancel, reap to the last completion, then free.
impl Drop for Ring {
    fn drop(&mut self) {
        if !self.come_to_rest() {
            // The kernel may still write to this memory: it is given up, not freed.
            self.pools.leak();
            for state in self.slots.iter_mut() {
                std::mem::forget(state.sending.take());
            }
            std::mem::forget(std::mem::take(&mut self.lingering));
            std::mem::forget(std::mem::take(&mut self.addresses));
            std::mem::forget(std::mem::replace(
                &mut self.stamped_request,
                receive_time::request(),
            ));
            std::mem::forget(Arc::clone(&self.shared));
        }
    }
}

impl Ring {
    /// Ends all that is in flight. Returns whether it did within [`REAP_LIMIT`], or [`NOTIFICATION_LIMIT`].
    fn come_to_rest(&mut self) -> bool {
        let began = Instant::now();
        let everything = Token::new(Op::Cancel, self.slots.nowhere());
        self.push_raw(
            &opcode::AsyncCancel2::new(CancelBuilder::any())
                .build()
                .user_data(everything.pack()),
        );
        while 0 < self.in_flight {
            let limit = if self.in_flight == self.notifications {
                NOTIFICATION_LIMIT
            } else {
                REAP_LIMIT
            };
            if limit <= began.elapsed() {
                break;
            }
            if self.submit_and_wait(Some(NOTIFICATION_LIMIT)).is_err() {
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

/// Registers an empty table of direct descriptors. Without direct descriptors where the kernel can't choose the slots.
fn register_table(uring: &IoUring, slots: u32, features: Features) -> Result<Features, SetupError> {
    let Err(error) = uring.submitter().register_files_sparse(slots) else {
        return Ok(features);
    };
    match Errno::from_io_error(&error) {
        Some(Errno::MFILE) => Err(SetupError::Nofile {
            slots,
            limit: limit_text(rustix::process::Resource::Nofile),
        }),
        Some(Errno::INVAL) => Ok(features.without(Feature::Direct)),
        _ => Err(SetupError::Other {
            step: "registering the table of direct descriptors",
            source: error,
        }),
    }
}

/// Registers each pool of buffers with the kernel, and offers the first ones.
fn register_pools(uring: &IoUring, pools: &mut Pools) -> Result<(), SetupError> {
    for (group, pool) in pools.each() {
        // SAFETY: the pool's entries are `count` long and stay mapped until after the ring is gone (or for ever, if
        // it could not be brought to rest).
        let registered = unsafe {
            uring.submitter().register_buf_ring_with_flags(
                pool.entries_address(),
                pool.count(),
                group as u16,
                0,
            )
        };
        registered.map_err(|source| match Errno::from_io_error(&source) {
            Some(Errno::INVAL) => SetupError::Unavailable {
                what: "no rings of provided buffers".into(),
            },
            _ => SetupError::Other {
                step: "registering the buffers",
                source,
            },
        })?;
        pool.open();
    }
    pools.publish();
    Ok(())
}

/// Allows the operations that a server needs and no others. Registrations come before this; afterwards the kernel
/// refuses all but the one that lets the ring go.
fn confine(faces: &Faces) -> io::Result<()> {
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
        opcode::FixedFdInstall::CODE,
    ];
    let flags = squeue::Flags::FIXED_FILE.bits()
        | squeue::Flags::BUFFER_SELECT.bits()
        | squeue::Flags::SKIP_SUCCESS.bits();
    let mut allowed: Vec<Restriction> = operations.map(Restriction::sqe_op).into();
    // With the operations alone, every request that carries a flag is refused.
    allowed.push(Restriction::sqe_flags_allowed(flags));
    allowed.push(Restriction::register_op(UNREGISTER_RING_FDS));
    faces.submitter.register_restrictions(&mut allowed)
}

/// From here on, a close drops what was not delivered, and sends a reset.
pub(crate) fn close_resets(socket: &impl AsFd) {
    // Where it fails, the socket has no such thing.
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// The wait's time is up; a signal came; the kernel wants completions to be taken off first, or is short of memory for
/// the moment: all of these are for the next turn.
fn is_for_the_moment(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN
    )
}
