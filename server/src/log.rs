//! Where the log goes: stderr. Whoever started us may have closed it, and may still want the echo, so what cannot be
//! written is dropped (`eprintln!` panics there).

use std::fmt;
use std::io::{self, Write as _};

/// Writes `text` and the end of its line.
pub fn line(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
