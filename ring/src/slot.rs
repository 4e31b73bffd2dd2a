//! The name of a file that a ring holds.

use std::num::NonZeroU32;

/// One file of a ring: a socket, a listener, an eventfd.
///
/// A slot names the file and not only its place. When the file is closed its place is used again, by a new file under a
/// new slot; the old slot is then stale, and the ring refuses it. A slot of another ring is refused too (of rings that are
/// 256 apart in the order of their making only as surely as their generations differ).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// The ring's tag in the top 8 bits, the index below.
    place: u32,
    generation: NonZeroU32,
}

const _: () = assert!(size_of::<Option<Slot>>() == 8);

impl Slot {
    /// The highest index: it has 24 bits in a token.
    pub(crate) const INDEX_MAX: u32 = 0x00ff_ffff;

    /// The bits of a place that are the ring's tag.
    const TAG_BITS: u32 = !Slot::INDEX_MAX;

    pub(crate) fn new(tag: u32, index: u32, generation: NonZeroU32) -> Slot {
        debug_assert!(index <= Slot::INDEX_MAX && tag & Slot::INDEX_MAX == 0);
        Slot {
            place: tag | index,
            generation,
        }
    }

    /// The slot's number, for tables beside the ring: dense, from 0, below the `slots` of the configuration. The next
    /// file in the same place has the same number.
    #[inline]
    pub fn index(self) -> usize {
        self.number() as usize
    }

    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.place & Slot::INDEX_MAX
    }

    /// The ring's tag, in its place above the index.
    #[inline]
    pub(crate) fn tag(self) -> u32 {
        self.place & Slot::TAG_BITS
    }

    #[inline]
    pub(crate) fn generation(self) -> NonZeroU32 {
        self.generation
    }
}

/// What tells the slots of one ring from those of others: a tag, and where its generations begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Naming {
    pub(crate) tag: u32,
    pub(crate) first: NonZeroU32,
}

impl Naming {
    /// The naming of the `ring`th ring of this process.
    pub(crate) fn of(ring: u32) -> Naming {
        // Spread over the whole range (Fibonacci hashing), so that generations of different rings rarely meet.
        let first = ring.wrapping_mul(0x9e37_79b9);
        Naming {
            tag: ring << 24,
            first: NonZeroU32::new(first).unwrap_or(NonZeroU32::MIN),
        }
    }
}

/// The generation after this one. It goes round after 2^32 files in one place.
#[inline]
pub(crate) fn next_generation(generation: NonZeroU32) -> NonZeroU32 {
    generation.checked_add(1).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_its_parts_apart() {
        for ring in [1, 2, 255, 256, 257] {
            let naming = Naming::of(ring);
            for index in [0, 1, Slot::INDEX_MAX] {
                let slot = Slot::new(naming.tag, index, naming.first);
                assert_eq!(slot.index(), index as usize);
                assert_eq!(slot.tag(), naming.tag);
                assert_eq!(slot.generation(), naming.first);
            }
        }
    }

    #[test]
    fn rings_that_share_a_tag_begin_with_other_generations() {
        let (one, other) = (Naming::of(3), Naming::of(259));
        assert_eq!(one.tag, other.tag);
        assert_ne!(one.first, other.first);
    }

    #[test]
    fn a_generation_is_never_0() {
        assert_eq!(next_generation(NonZeroU32::MAX), NonZeroU32::MIN);
    }
}
