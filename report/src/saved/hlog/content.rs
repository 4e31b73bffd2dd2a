//! What a file is, by its first bytes and not by its name: gzip is unpacked, a byte-order mark is taken off, and nothing
//! is read without a bound.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

use crate::saved::error::Reason;

/// Bytes of a file that are read, unpacked.
pub(crate) const FILE_BYTES_MAX: u64 = 256 << 20;

/// A file's bytes, whatever it is packed in.
pub(crate) type Content = Box<dyn BufRead>;

/// Opens a file, a pipe too.
///
/// # Errors
/// It can't be read.
pub(crate) fn open(path: &Path) -> io::Result<Content> {
    unpacked(File::open(path)?)
}

/// What is in a file: unpacked, without a byte-order mark.
pub(super) fn unpacked(file: impl Read + 'static) -> io::Result<Content> {
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    let (head, rest) = peek(file, GZIP.len())?;
    let inner: Box<dyn Read> = match head == GZIP {
        true => Box::new(MultiGzDecoder::new(BufReader::new(joined(head, rest)))),
        false => Box::new(joined(head, rest)),
    };
    const MARK: [u8; 3] = *b"\xef\xbb\xbf";
    let (mut head, rest) = peek(inner, MARK.len())?;
    if head == MARK {
        head.clear();
    }
    Ok(Box::new(BufReader::new(joined(head, rest))))
}

/// The first bytes, as many as there are up to `count`: a pipe may bring them one by one.
fn peek<R: Read>(mut from: R, count: usize) -> io::Result<(Vec<u8>, R)> {
    let mut head = Vec::with_capacity(count);
    from.by_ref().take(count as u64).read_to_end(&mut head)?;
    Ok((head, from))
}

fn joined(head: Vec<u8>, rest: impl Read) -> impl Read {
    io::Cursor::new(head).chain(rest)
}

/// Why reading ended: damage within gzip is none of the kernel's.
pub(crate) fn unread(error: io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Reason::Truncated("its gzip stream is cut".into()),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            Reason::Damaged(format!("it can't be unpacked ({error})"))
        }
        _ => Reason::Open(error),
    }
}

/// Says the bound.
pub(crate) fn too_large() -> Reason {
    Reason::Large(format!(
        "{} MiB unpacked are read at most: take a shorter piece of it",
        FILE_BYTES_MAX >> 20
    ))
}
