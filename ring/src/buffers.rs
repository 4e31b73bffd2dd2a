//! The pool that received bytes land in: a ring of provided buffers (5.19) that the kernel picks from when data is there,
//! so that idle connections hold none.
//!
//! A buffer is in one of three hands: the kernel's (it may be written at any time), a [`Buffer`] lease's (only read), or
//! an operation's that sends it (only read). It moves by value, so the types say whose it is. Or it rests with the pool.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The bytes of one receive, in a buffer of the pool. Not `Clone`: whoever has it is its only reader, and gives it back
/// with `Ring::release` or by sending it. One that is dropped instead is lost to the pool until the ring ends.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a buffer that is dropped never returns to its pool"]
pub struct Buffer {
    pool: u32,
    id: u16,
    start: u32,
    len: u32,
}

impl Buffer {
    /// Bytes in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no bytes are in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn advance(&mut self, count: usize) {
        self.start += count as u32;
        self.len -= count as u32;
    }
}

/// Cache lines are 64 bytes. Buffers stand one line more than their size apart: with a stride of a power of two, the
/// first lines of all buffers would fall into the same few sets of the cache, and small messages touch only those. Whole
/// lines also keep them off the places that a processor copies slowly to: see `ReceiveBuffer` in `echometer-host`.
const LINE: usize = 64;

/// Bytes of buffers that are opened at a time, at the least, and how many buffers that may be.
const OPENED_BYTES: u32 = 256 * 1024;
const OPENED_MIN: u32 = 4;
const OPENED_MAX: u32 = 64;

/// Names pools, so that a buffer of one ring can't be given to another.
static POOLS: AtomicU32 = AtomicU32::new(1);

/// A pool of `count` buffers of `size` bytes and the ring that offers them to the kernel.
pub(crate) struct Pool {
    name: u32,
    count: u16,
    size: u32,
    stride: usize,
    bytes: Mapping,
    entries: Mapping,
    /// The next entry to write; the kernel sees it once published.
    tail: u16,
    published: u16,
    /// Buffers with the kernel now.
    offered: u16,
    /// Buffers that were never offered: the pool opens them when those in use run out, so that a quiet server keeps to
    /// a few that stay in cache.
    unopened: u16,
    /// Of a pool that offers one buffer at a time: those that rest, the one that was used last on top, because it is
    /// still in cache.
    resting: Option<Vec<u16>>,
    /// Some were opened since the last publishing.
    opened: bool,
    /// Where in the ring each buffer was put last, and which stands at each position: a bundle goes on at the next
    /// position, whichever buffer that is.
    position_of: Vec<u16>,
    at_position: Vec<u16>,
}

impl Pool {
    /// Maps a pool. `count` is rounded up to a power of two, at most 32,768; `size` is 64 bytes at least.
    pub(crate) fn new(count: u16, size: u32) -> io::Result<Pool> {
        let count = count.clamp(1, 1 << 15).next_power_of_two();
        let size = size.max(LINE as u32);
        let stride = (size as usize).next_multiple_of(LINE) + LINE;
        let bytes = Mapping::new(stride * usize::from(count))?;
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        // A name is never given twice: a buffer of one pool would pass for another's.
        let name = POOLS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |name| {
            name.checked_add(1)
        });
        let name = name.map_err(|_| io::Error::other("this process made 2^32 pools of buffers"))?;
        Ok(Pool {
            name,
            count,
            size,
            stride,
            bytes,
            entries,
            tail: 0,
            published: 0,
            offered: 0,
            unopened: count,
            resting: None,
            opened: false,
            position_of: vec![0; usize::from(count)],
            at_position: vec![0; usize::from(count)],
        })
    }

    /// As [`Pool::new`]; but the kernel is offered one buffer at a time, and only when [`Pool::offer_one`] says so.
    pub(crate) fn one_by_one(count: u16, size: u32) -> io::Result<Pool> {
        let mut pool = Pool::new(count, size)?;
        pool.unopened = 0;
        pool.resting = Some((0..pool.count).rev().collect());
        Ok(pool)
    }

    /// The address of the entries, for the registration.
    pub(crate) fn entries_address(&self) -> u64 {
        self.entries.start.as_ptr() as u64
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// Buffers that nobody holds.
    pub(crate) fn free(&self) -> usize {
        let resting = self.resting.as_ref().map_or(0, Vec::len);
        usize::from(self.offered) + usize::from(self.unopened) + resting
    }

    /// Offers the kernel a buffer for one receive, if there is any. One that the last receive left is still there.
    pub(crate) fn offer_one(&mut self) {
        if self.offered == 0
            && let Some(id) = self.resting.as_mut().and_then(Vec::pop)
        {
            self.offer(id);
        }
    }

    /// Offers some buffers that were never used: those offered before have run out, or there are none yet. Few at a
    /// time, so that those in use stay in cache. Without effect until the next publishing: of receives that fail together,
    /// the first opens for all.
    pub(crate) fn open(&mut self) {
        if std::mem::replace(&mut self.opened, true) {
            return;
        }
        let few = (OPENED_BYTES / self.size).clamp(OPENED_MIN, OPENED_MAX) as u16;
        for _ in 0..few.max(self.count / 8).min(self.unopened) {
            let id = self.count - self.unopened;
            self.unopened -= 1;
            self.offer(id);
        }
    }

    /// Whether the buffer is one of this pool's.
    #[inline]
    pub(crate) fn owns(&self, buffer: &Buffer) -> bool {
        buffer.pool == self.name
    }

    /// Takes the buffer that a completion names out of the kernel's hands.
    ///
    /// Returns `None` for a number that is no buffer's, which a sound kernel never sends.
    #[inline]
    pub(crate) fn lease(&mut self, id: u16, len: u32) -> Option<Buffer> {
        if self.count <= id || self.size < len {
            return None;
        }
        self.offered -= 1;
        Some(Buffer {
            pool: self.name,
            id,
            start: 0,
            len,
        })
    }

    /// The buffer that stands behind `id` in the ring.
    #[inline]
    pub(crate) fn after(&self, id: u16) -> u16 {
        let position = self.position_of[usize::from(id)].wrapping_add(1) & (self.count - 1);
        self.at_position[usize::from(position)]
    }

    /// Gives a buffer back to the kernel; it is seen there after [`Pool::publish`].
    #[inline]
    pub(crate) fn release(&mut self, buffer: Buffer) {
        assert_eq!(buffer.pool, self.name, "a buffer of another ring");
        match &mut self.resting {
            Some(resting) => resting.push(buffer.id),
            None => self.offer(buffer.id),
        }
    }

    #[inline]
    fn offer(&mut self, id: u16) {
        let position = self.tail & (self.count - 1);
        // SAFETY: the mapping holds `count` entries and `position` is below `count`; the kernel reads an entry only
        // after the tail moved past it, and entries between the published tail and head + count are ours.
        unsafe {
            let entry = self
                .entries
                .start
                .cast::<BufRingEntry>()
                .add(usize::from(position))
                .as_mut();
            entry.set_addr(self.bytes.start.add(usize::from(id) * self.stride).as_ptr() as u64);
            entry.set_len(self.size);
            entry.set_bid(id);
        }
        self.position_of[usize::from(id)] = position;
        self.at_position[usize::from(position)] = id;
        self.tail = self.tail.wrapping_add(1);
        self.offered += 1;
    }

    /// Lets the kernel see what was given back since the last time.
    #[inline]
    pub(crate) fn publish(&mut self) {
        self.opened = false;
        if self.published == self.tail {
            return;
        }
        self.published = self.tail;
        // SAFETY: the ring's tail overlays the reserved field of the first entry (`struct io_uring_buf_ring`); it is
        // inside the mapping, aligned, and shared with the kernel, hence atomic. Release orders the entries before it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.start.cast::<BufRingEntry>().as_ptr());
            AtomicU16::from_ptr(tail.cast_mut()).store(self.tail, Ordering::Release);
        }
    }

    /// The bytes of a lease.
    #[inline]
    pub(crate) fn bytes(&self, buffer: &Buffer) -> &[u8] {
        let start = self.address(buffer);
        // SAFETY: a lease's range was inside its buffer when made and only shrinks; the kernel doesn't write to a
        // buffer between its completion and its next offer, and the offer needs the lease that is borrowed here.
        unsafe { std::slice::from_raw_parts(start, buffer.len as usize) }
    }

    /// Where a lease's bytes start.
    #[inline]
    pub(crate) fn address(&self, buffer: &Buffer) -> *const u8 {
        assert_eq!(buffer.pool, self.name, "a buffer of another ring");
        let offset = usize::from(buffer.id) * self.stride + buffer.start as usize;
        // SAFETY: `id` is below `count` and `start` within the buffer, so the offset is inside the mapping.
        unsafe { self.bytes.start.add(offset).as_ptr() }
    }

    /// Forgets the memory: for a ring that could not be brought to rest, where the kernel may still write to it.
    pub(crate) fn leak(&mut self) {
        self.bytes.len = 0;
        self.entries.len = 0;
    }
}

/// Anonymous memory, page-aligned as the kernel wants the entries, and not resident until it is touched.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Mapping> {
        // SAFETY: a new anonymous private mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        let start = NonNull::new(start.cast()).expect("a mapping is never at address 0");
        Ok(Mapping { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        // SAFETY: the range is one whole mapping of ours, and no reference into it is left: leases borrow the pool.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}
