//! A buffer that the kernel copies received bytes into at full speed, wherever the allocator puts it.

use std::ops::{Deref, DerefMut};

/// Bytes from the start of a page to the buffer: a whole number of cache lines, and not where an allocator puts what it
/// maps for itself, which is 16 bytes into a page.
///
/// Received bytes lie at the start of a page as a rule. On some processors (AMD's Zen 3 and its likes) a string copy takes
/// several times as long when its target lies a few bytes further into its page than its source does: of messages of
/// 64 KiB an echo server's CPU went from 25 to 60 us for that alone, and a large buffer looked like a bad idea.
const PAGE_OFFSET: usize = 64;

const PAGE: usize = 4096;

/// Bytes to receive into.
#[derive(Debug)]
pub struct ReceiveBuffer {
    bytes: Box<[u8]>,
    start: usize,
    len: usize,
}

impl ReceiveBuffer {
    /// `len` zeroed bytes.
    pub fn new(len: usize) -> ReceiveBuffer {
        let bytes = vec![0; len + PAGE].into_boxed_slice();
        let start = PAGE_OFFSET.wrapping_sub(bytes.as_ptr().addr()) % PAGE;
        ReceiveBuffer { bytes, start, len }
    }
}

impl Deref for ReceiveBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for ReceiveBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_where_copies_are_fast_whatever_its_size() {
        for len in [0, 1, 64, 4_096, 65_536, 256 * 1024, 1 << 20] {
            let mut buffer = ReceiveBuffer::new(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr().addr() % PAGE, PAGE_OFFSET, "{len}");
            buffer.fill(7);
            assert!(buffer.iter().all(|byte| *byte == 7));
        }
    }
}
