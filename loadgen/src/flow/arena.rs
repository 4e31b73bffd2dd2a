//! All messages of a worker: singly linked lists in one vector. The slot freed last is used first, so that the lines in
//! use stay in the cache.

use std::fmt;

/// The instants of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// When it was due; in closed loop when it was written.
    pub due_ns: u64,
    /// When it was written.
    pub written_ns: u64,
}

/// No message.
pub(super) const NONE: u32 = u32::MAX;

pub(super) struct Arena {
    slots: Vec<Slot>,
    free: u32,
}

pub(super) struct Slot {
    pub(super) message: Message,
    /// Bytes.
    pub(super) size: u32,
    /// The next of the same connection, or of the free list.
    pub(super) next: u32,
}

impl Arena {
    pub(super) fn with_capacity(capacity: usize) -> Arena {
        Arena {
            slots: Vec::with_capacity(capacity),
            free: NONE,
        }
    }

    /// Makes room for `messages` at once, so that none of them costs an allocation. Pages that no message reaches are
    /// not touched.
    pub(super) fn reserve(&mut self, messages: usize) {
        self.slots
            .reserve(messages.saturating_sub(self.slots.len()));
    }

    #[inline]
    pub(super) fn insert(&mut self, message: Message, size: u32) -> u32 {
        let slot = Slot {
            message,
            size,
            next: NONE,
        };
        if self.free == NONE {
            self.slots.push(slot);
            return (self.slots.len() - 1) as u32;
        }
        let index = self.free;
        self.free = self.slots[index as usize].next;
        self.slots[index as usize] = slot;
        index
    }

    #[inline]
    pub(super) fn link(&mut self, tail: u32, next: u32) {
        self.slots[tail as usize].next = next;
    }

    #[inline]
    pub(super) fn at(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    /// Frees the slot; gives its message and what followed it.
    #[inline]
    pub(super) fn remove(&mut self, index: u32) -> (Message, u32) {
        let slot = &mut self.slots[index as usize];
        let (message, next) = (slot.message, slot.next);
        slot.next = self.free;
        self.free = index;
        (message, next)
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({} slots)", self.slots.len())
    }
}
