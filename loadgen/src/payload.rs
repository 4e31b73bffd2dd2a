//! The bytes that are sent: one immutable, periodic region, shared by all connections.
//!
//! A connection's stream is the pattern from the connection's own phase onwards. So any run of messages is one
//! contiguous slice of the region (pipelined messages go out as one send, and nothing is copied), and what must come
//! back at any offset of the stream is known without remembering it (`--verify`). Because the phases differ, bytes
//! that turn up on the wrong connection, twice, or out of order are seen.

use std::{ops::Range, sync::Arc};

use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Length of the pattern before it repeats. A prime, so that it never falls into step with a message or a buffer
/// whose length is a power of two, and a slip by either is noticed.
const PERIOD: usize = 4_093;

/// The region is at least this long past its first period, in bytes: the most that one send carries, unless one
/// message alone is longer.
const RUN_BYTES_MIN: usize = 256 << 10;

/// The region, and where each connection's stream stands in it.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    region: Arc<[u8]>,
}

impl Payload {
    /// A region for messages of up to `message_size` bytes (1 or more), filled from `seed`.
    pub(crate) fn new(message_size: u32, seed: u64) -> Payload {
        let message_size = message_size as usize;
        let mut period = [0; PERIOD];
        SmallRng::seed_from_u64(seed).fill(&mut period[..]);
        let length = PERIOD + message_size.max(RUN_BYTES_MIN);
        let region = period.iter().copied().cycle().take(length).collect();
        Payload { region }
    }

    /// The region itself, for engines that register it once.
    pub(crate) fn region(&self) -> &Arc<[u8]> {
        &self.region
    }

    /// How many bytes one send can carry: no less than one message.
    pub(crate) fn run_bytes_max(&self) -> usize {
        self.region.len() - PERIOD
    }

    /// Where in the region the `length` bytes from `offset` of `connection`'s stream lie.
    ///
    /// `length` must not exceed the longest run ([`Payload::run_bytes_max`]).
    pub(crate) fn range(&self, connection: usize, offset: u64, length: usize) -> Range<usize> {
        let start = self.start(connection, offset);
        debug_assert!(start + length <= self.region.len());
        start..start + length
    }

    /// Compares `bytes`, received at `offset` of `connection`'s stream, with what was sent there.
    ///
    /// # Errors
    /// The first byte that differs.
    pub(crate) fn verify(
        &self,
        connection: usize,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Difference> {
        let mut checked = 0;
        // A receive buffer may be longer than the region: compare it in runs.
        for run in bytes.chunks(RUN_BYTES_MIN) {
            let start = self.start(connection, offset + checked as u64);
            let expected = &self.region[start..start + run.len()];
            if run != expected {
                let at = run
                    .iter()
                    .zip(expected)
                    .position(|(got, expected)| got != expected);
                let at = at.expect("slices of one length that differ do so in some byte");
                return Err(Difference {
                    connection,
                    offset: offset + (checked + at) as u64,
                    expected: expected[at],
                    got: run[at],
                });
            }
            checked += run.len();
        }
        Ok(())
    }

    fn start(&self, connection: usize, offset: u64) -> usize {
        // Any constant that spreads neighbours over the period will do.
        let phase = (connection * 1_597) % PERIOD;
        ((offset + phase as u64) % PERIOD as u64) as usize
    }
}

/// The first byte that came back wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "connection {connection}, byte {offset} of its stream: expected 0x{expected:02x}, got 0x{got:02x}"
)]
pub struct Difference {
    /// The connection's index within the plan.
    pub connection: usize,
    /// Offset in the stream, counted from the connection's first byte.
    pub offset: u64,
    /// The byte that was sent.
    pub expected: u8,
    /// The byte that came back.
    pub got: u8,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_message_fits_one_run() {
        assert_eq!(Payload::new(1 << 20, 1).run_bytes_max(), 1 << 20);
        assert_eq!(Payload::new(64, 1).run_bytes_max(), RUN_BYTES_MIN);
    }

    #[test]
    fn another_seed_is_another_payload() {
        assert_ne!(Payload::new(64, 1).region(), Payload::new(64, 2).region());
        assert_eq!(Payload::new(64, 1).region(), Payload::new(64, 1).region());
    }

    proptest! {
        #[test]
        fn the_stream_does_not_depend_on_how_it_is_cut(
            connection in 0usize..5_000, cuts in prop::collection::vec(1usize..9_000, 1..20),
        ) {
            let payload = Payload::new(64, 7);
            let whole = payload.range(connection, 0, 200_000);
            let mut offset = 0;
            for cut in cuts {
                let piece = &payload.region()[payload.range(connection, offset, cut)];
                prop_assert_eq!(piece, &payload.region()[whole.clone()][offset as usize..][..cut]);
                prop_assert_eq!(payload.verify(connection, offset, piece), Ok(()));
                offset += cut as u64;
            }
        }

        #[test]
        fn a_changed_byte_is_found(connection in 0usize..5_000, offset in 0u64..1 << 40, at in 0usize..600_000) {
            let payload = Payload::new(64, 7);
            let mut bytes: Vec<u8> = (0..600_000)
                .map(|index| payload.region()[payload.range(connection, offset + index, 1)][0])
                .collect();
            prop_assert_eq!(payload.verify(connection, offset, &bytes), Ok(()));
            bytes[at] ^= 1;
            let found = payload.verify(connection, offset, &bytes).unwrap_err();
            prop_assert_eq!(found.offset, offset + at as u64);
            prop_assert_eq!(found.expected ^ 1, found.got);
        }
    }
}
