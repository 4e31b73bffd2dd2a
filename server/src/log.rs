//! Where the log goes: stderr. Whoever started us may have closed it, and may still want the echo, so what cannot be
//! written is dropped (`eprintln!` panics there).

use std::fmt;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

/// How often the same thing is said, at most.
const SELDOM: Duration = Duration::from_secs(60);

/// Writes `text` and the end of its line.
pub fn line(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// For what may happen again and again: says it once, and then no more than once a minute.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Option<Instant>,
}

impl Seldom {
    /// Writes the line, unless one was written a short time ago.
    pub fn line(&mut self, text: impl fmt::Display) {
        if self.said.is_none_or(|said| SELDOM <= said.elapsed()) {
            self.said = Some(Instant::now());
            line(text);
        }
    }
}
