//! What an operation is called while the kernel has it: `{operation, slot, generation}` in the 64 bits of `user_data`.
//!
//! A slot is reused at once after a close, so its number alone doesn't name a connection: the generation does.

use crate::slot::Slot;

/// The operation that a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    Accept = 1,
    Recv = 2,
    Send = 3,
    Shutdown = 4,
    Close = 5,
    Poll = 6,
    Connect = 7,
    Cancel = 8,
    /// The poll that says when a bulk receive would find bytes.
    Readiness = 9,
    /// A receive into a large buffer. It has a name of its own, so that its completion says by itself of which pool the
    /// buffer is.
    BulkRecv = 10,
    /// The poll that says when a full socket has room.
    Room = 11,
    /// A plain descriptor for a direct one.
    File = 12,
}

impl Op {
    fn from_byte(byte: u8) -> Option<Op> {
        Some(match byte {
            1 => Op::Accept,
            2 => Op::Recv,
            3 => Op::Send,
            4 => Op::Shutdown,
            5 => Op::Close,
            6 => Op::Poll,
            7 => Op::Connect,
            8 => Op::Cancel,
            9 => Op::Readiness,
            10 => Op::BulkRecv,
            11 => Op::Room,
            12 => Op::File,
            _ => return None,
        })
    }
}

/// The name of one operation: operation in the top 8 bits, then 24 bits of slot, then 32 bits of generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) op: Op,
    pub(crate) number: u32,
    pub(crate) generation: u32,
}

impl Token {
    /// Below the operation: slot and generation.
    pub(crate) const OP_SHIFT: u32 = 56;

    pub(crate) fn new(op: Op, slot: Slot) -> Token {
        Token {
            op,
            number: slot.number(),
            generation: slot.generation().get(),
        }
    }

    #[inline]
    pub(crate) fn pack(self) -> u64 {
        (self.op as u64) << Token::OP_SHIFT
            | u64::from(self.number) << 32
            | u64::from(self.generation)
    }

    /// The token in `user_data`, or `None` where no operation of ours wrote it.
    #[inline]
    pub(crate) fn unpack(user_data: u64) -> Option<Token> {
        Some(Token {
            op: Op::from_byte((user_data >> Token::OP_SHIFT) as u8)?,
            number: (user_data >> 32) as u32 & Slot::INDEX_MAX,
            generation: user_data as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_trip_through_the_kernel() {
        for byte in 1..=12 {
            let op = Op::from_byte(byte).expect("1 to 12 are operations");
            for number in [0, 1, 4_096, Slot::INDEX_MAX] {
                for generation in [1, u32::MAX] {
                    let token = Token {
                        op,
                        number,
                        generation,
                    };
                    assert_eq!(Token::unpack(token.pack()), Some(token));
                }
            }
        }
    }

    #[test]
    fn foreign_user_data_is_no_token() {
        assert_eq!(Token::unpack(0), None);
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}
