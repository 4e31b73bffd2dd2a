//! Owed bytes behind the send in flight, the oldest first: one pointer while there are none, because nearly every
//! connection has none at nearly every moment, and a server holds one of these for each.

use std::collections::VecDeque;

use echometer_ring::Payload;

/// Copied bytes are put together into pieces of this size at most: what a connection keeps is then bounded in memory, and not
/// only in bytes, however small the pieces are that its peer sends.
const CHUNK: usize = 16 * 1024;

/// A piece on the heap that is smaller than this is copied into the one before it, when it is put back.
const SMALL: usize = CHUNK / 16;

/// Pieces in the order in which they are to be sent. On the heap only while it holds any.
#[derive(Default)]
pub(super) struct Waiting(Option<Box<Pieces>>);

/// Never empty.
#[derive(Default)]
struct Pieces {
    pieces: VecDeque<Payload>,
    /// Behind those: copied bytes, to which more are added.
    tail: Vec<u8>,
}

impl Waiting {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn len(&self) -> usize {
        let of = |waiting: &Pieces| waiting.pieces.len() + usize::from(!waiting.tail.is_empty());
        self.0.as_ref().map_or(0, |waiting| of(waiting))
    }

    /// Adds a piece that stays where it is.
    pub(super) fn push(&mut self, piece: Payload) {
        if piece.is_empty() {
            return;
        }
        match &piece {
            Payload::Heap { bytes, start } if piece.len() < SMALL => {
                self.copy(&bytes[*start as usize..]);
            }
            _ => {
                let waiting = self.0.get_or_insert_default();
                waiting.end_tail();
                waiting.pieces.push_back(piece);
            }
        }
    }

    /// Adds a copy of bytes, together with those before it.
    pub(super) fn copy(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let waiting = self.0.get_or_insert_default();
        if CHUNK < waiting.tail.len() + bytes.len() {
            waiting.end_tail();
        }
        waiting.tail.extend_from_slice(bytes);
    }

    /// Adds all of another one's, and leaves that empty.
    pub(super) fn append(&mut self, behind: &mut Waiting) {
        let Some(mut behind) = behind.0.take() else {
            return;
        };
        if let Some(mut first) = self.0.take() {
            first.end_tail();
            while let Some(piece) = first.pieces.pop_back() {
                behind.pieces.push_front(piece);
            }
        }
        self.0 = Some(behind);
    }

    pub(super) fn pop(&mut self) -> Option<Payload> {
        let waiting = self.0.as_mut()?;
        if waiting.pieces.is_empty() {
            waiting.end_tail();
        }
        let first = waiting.pieces.pop_front();
        if waiting.pieces.is_empty() && waiting.tail.is_empty() {
            self.0 = None;
        }
        first
    }
}

impl Pieces {
    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            let bytes = std::mem::take(&mut self.tail).into_boxed_slice();
            self.pieces.push_back(Payload::Heap { bytes, start: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heap(bytes: &[u8], start: u32) -> Payload {
        Payload::Heap {
            bytes: bytes.into(),
            start,
        }
    }

    fn all(mut waiting: Waiting) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(piece) = waiting.pop() {
            let Payload::Heap {
                bytes: piece,
                start,
            } = piece
            else {
                panic!("only heap pieces were put in");
            };
            bytes.extend_from_slice(&piece[start as usize..]);
        }
        assert!(waiting.is_empty());
        bytes
    }

    #[test]
    fn many_small_pieces_are_few_large_ones() {
        let mut waiting = Waiting::default();
        for byte in 0..100_000_u32 {
            waiting.copy(&[byte as u8]);
        }
        assert_eq!(waiting.len(), 100_000_usize.div_ceil(CHUNK));
        let expected: Vec<u8> = (0..100_000_u32).map(|byte| byte as u8).collect();
        assert_eq!(all(waiting), expected);
    }

    #[test]
    fn the_order_is_kept_whatever_comes_between() {
        let mut waiting = Waiting::default();
        waiting.copy(b"a");
        waiting.push(heap(&[b'b'; SMALL], SMALL as u32 - 1));
        waiting.push(heap(&[b'c'; CHUNK], 0));
        waiting.copy(b"d");
        let mut front = Waiting::default();
        front.push(heap(b"-1", 1));
        front.copy(b"2");
        front.append(&mut waiting);
        assert!(waiting.is_empty());
        front.append(&mut Waiting::default());
        let mut expected = b"12ab".to_vec();
        expected.extend([b'c'; CHUNK]);
        expected.push(b'd');
        assert_eq!(all(front), expected);
    }

    #[test]
    fn what_is_put_back_again_and_again_does_not_fall_to_pieces() {
        let mut waiting = Waiting::default();
        for _ in 0..1_000 {
            waiting.copy(b"x");
            let mut front = Waiting::default();
            while let Some(piece) = waiting.pop() {
                front.push(piece);
            }
            front.append(&mut waiting);
            waiting = front;
        }
        assert_eq!(waiting.len(), 1);
        assert_eq!(all(waiting).len(), 1_000);
    }
}
