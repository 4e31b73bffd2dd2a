//! Several payloads for one connection, sent by one request: one pass through TCP instead of one a piece.

use std::collections::VecDeque;

use crate::event::Payload;

/// Payloads in the order in which they are to go out. It can be used again, which saves its allocations.
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
