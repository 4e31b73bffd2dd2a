//! What a user gives the ring to send: one piece, or several of them to be sent by one request.

use std::collections::VecDeque;
use std::ops::Range;

use crate::buffers::Buffer;

/// Bytes for a send, less than 4 GiB. The ring keeps them until the kernel is done with them.
#[derive(Debug)]
pub enum Payload {
    /// Received bytes, sent on from where they are: nothing is copied in user space.
    Buffer(Buffer),
    /// Bytes on the heap, from `start` on.
    Heap {
        /// The bytes.
        bytes: Box<[u8]>,
        /// How many at the front are not to be sent.
        start: u32,
    },
    /// A piece of the configuration's `shared` bytes, which nobody writes to.
    Shared(Range<usize>),
    /// Several of these, to go out as one.
    Gather(Box<Gather>),
}

impl Payload {
    /// Bytes to send.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Payload::Buffer(buffer) => buffer.len(),
            Payload::Heap { bytes, start } => bytes.len().saturating_sub(*start as usize),
            Payload::Shared(range) => range.len(),
            Payload::Gather(gather) => gather.len(),
        }
    }

    /// Whether nothing is left to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the first `count` bytes, which were sent.
    ///
    /// # Panics
    /// When there are fewer.
    pub(crate) fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "advance past the payload's end");
        match self {
            Payload::Buffer(buffer) => buffer.advance(count),
            Payload::Heap { start, .. } => *start += count as u32,
            Payload::Shared(range) => range.start += count,
            Payload::Gather(gather) => gather.advance(count),
        }
    }
}

/// Several payloads for one connection, in the order in which they are to go out: one pass through TCP instead of one for
/// each piece. It can be used again, which saves its allocations.
pub struct Gather {
    pieces: VecDeque<Payload>,
    len: usize,
    /// What the kernel reads: written by the ring when it is sent, and valid until that send's completion.
    pub(crate) vectors: Vec<libc::iovec>,
    pub(crate) header: libc::msghdr,
}

impl Gather {
    /// Pieces that one request takes at most (`UIO_MAXIOV`, of which a quarter is plenty).
    pub const PIECES_MAX: usize = 256;

    /// An empty one.
    pub fn new() -> Gather {
        Gather {
            pieces: VecDeque::new(),
            len: 0,
            vectors: Vec::new(),
            // SAFETY: all zeroes is a valid `msghdr`: null pointers with lengths of 0.
            header: unsafe { std::mem::zeroed() },
        }
    }

    /// Appends a piece.
    ///
    /// # Panics
    /// When it is a `Gather` itself, and when [`Gather::PIECES_MAX`] are in it: a silent send of more would be taken to
    /// have succeeded as a whole.
    pub fn push(&mut self, piece: Payload) {
        assert!(!matches!(piece, Payload::Gather(_)), "a gather in a gather");
        assert!(
            self.pieces.len() < Gather::PIECES_MAX,
            "more pieces than one request takes"
        );
        self.len += piece.len();
        self.pieces.push_back(piece);
    }

    /// Pieces in it.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Bytes to send.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the first piece out, whatever is left of it.
    pub fn pop(&mut self) -> Option<Payload> {
        let piece = self.pieces.pop_front()?;
        self.len -= piece.len();
        Some(piece)
    }

    /// Drops the first `count` bytes of the whole. Pieces that were sent stay, empty, until they are popped.
    pub(crate) fn advance(&mut self, count: usize) {
        let mut left = count;
        for piece in &mut self.pieces {
            let step = left.min(piece.len());
            piece.advance(step);
            left -= step;
            if left == 0 {
                break;
            }
        }
        assert_eq!(left, 0, "advance past the payload's end");
        self.len -= count;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Payload> {
        self.pieces.iter()
    }
}

impl Default for Gather {
    fn default() -> Gather {
        Gather::new()
    }
}

impl std::fmt::Debug for Gather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gather")
            .field("pieces", &self.pieces)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "more pieces than one request takes")]
    fn a_gather_is_never_longer_than_one_request() {
        let mut gather = Gather::new();
        for _ in 0..Gather::PIECES_MAX {
            gather.push(Payload::Shared(0..1));
        }
        assert_eq!(gather.len(), Gather::PIECES_MAX);
        gather.push(Payload::Shared(0..1));
    }
}
