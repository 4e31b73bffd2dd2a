//! Who may keep how many of the pool's buffers: a count without a ring.
//!
//! Bytes that can't be sent now stay in the buffer that they arrived in, until half of the pool is kept that way: what
//! comes after that moves to the heap. So slow readers never leave the others without buffers.

/// Buffers that wait in a queue or for a slow reader, of both sizes.
#[derive(Debug, Default)]
pub(super) struct Holding {
    held: [usize; 2],
}

/// The buffers that one send keeps, of both sizes, until its peer has the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share([u16; 2]);

impl Holding {
    /// Whether one more buffer may be kept, of a pool that has `pool` of that size, of which zero-copy sends of connections
    /// that are gone hold `lingering`. If so, it is counted.
    pub(super) fn keep(&mut self, large: bool, lingering: usize, pool: usize) -> bool {
        let held = &mut self.held[usize::from(large)];
        let may = *held + lingering < pool / 2;
        *held += usize::from(may);
        may
    }

    /// A buffer that was kept is not any more.
    #[inline]
    pub(super) fn give_up(&mut self, large: bool) {
        self.held[usize::from(large)] -= 1;
    }

    /// What is held now: see [`Holding::since`].
    pub(super) fn mark(&self) -> [usize; 2] {
        self.held
    }

    /// What was kept since `mark`, for one send to give up at its end.
    pub(super) fn since(&self, mark: [usize; 2]) -> Share {
        let kept = |size: usize| (self.held[size] - mark[size]) as u16;
        Share([kept(0), kept(1)])
    }

    /// A send is over, and gives up what it kept.
    pub(super) fn end(&mut self, share: Share) {
        for (held, kept) in self.held.iter_mut().zip(share.0) {
            *held -= usize::from(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_pool_is_kept_at_most() {
        let mut holding = Holding::default();
        let kept = (0..100).filter(|_| holding.keep(false, 0, 64)).count();
        assert_eq!(kept, 32);
        assert!(holding.keep(true, 0, 8), "the other pool is another's");
        holding.give_up(false);
        assert!(holding.keep(false, 0, 64));
    }

    #[test]
    fn what_lingers_counts_as_kept() {
        let mut holding = Holding::default();
        assert!(!holding.keep(false, 32, 64));
        assert!(holding.keep(false, 31, 64));
        assert!(!holding.keep(false, 31, 64));
    }

    #[test]
    fn a_send_gives_up_what_it_kept_and_no_more() {
        let mut holding = Holding::default();
        assert!(holding.keep(false, 0, 64));
        let mark = holding.mark();
        assert!(holding.keep(false, 0, 64) && holding.keep(true, 0, 64));
        let share = holding.since(mark);
        assert_ne!(share, Share::default());
        holding.end(share);
        assert_eq!(holding.mark(), [1, 0]);
        assert_eq!(holding.since(holding.mark()), Share::default());
    }
}
