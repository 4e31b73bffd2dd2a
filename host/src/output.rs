//! How does a program write for people? In lines of 80 columns; and a reader who leaves early is no error.

use std::{env, fmt::Write as _, io};

/// The widest line, in characters.
pub const COLUMNS: usize = 80;

/// Writes words into lines of at most [`COLUMNS`] characters, the first after `mark`, the others indented as far. A word
/// that is longer than a line stays whole.
pub fn paragraph(text: &mut String, mark: &str, words: &str) {
    hanging(text, mark, mark.chars().count(), words);
}

/// As [`paragraph`], with all lines but the first indented by `indent` blanks.
pub fn hanging(text: &mut String, mark: &str, indent: usize, words: &str) {
    let indent = " ".repeat(indent);
    let mut line = mark.to_owned();
    let mut empty = true;
    for word in words.split_whitespace() {
        if !empty && COLUMNS < line.chars().count() + 1 + word.chars().count() {
            let _ = writeln!(text, "{line}");
            line.clone_from(&indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    let _ = writeln!(text, "{line}");
}

/// Writes what was asked for to stdout, all of it: a disk that is full is found here and not at the process's end, where
/// nobody looks any more.
///
/// # Errors
/// A failure to write, unless the reader has left; see [`unless_closed`].
pub fn deliver(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    unless_closed(
        io::Write::write_all(&mut stdout, text).and_then(|()| io::Write::flush(&mut stdout)),
    )
}

/// An error with its causes on one line, as in `cannot open x: no such file`. A cause that the text has already, because
/// the error above it names it, is not said again.
#[must_use]
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            let _ = write!(text, ": {cause}");
        }
    }
    text
}

/// Whether the terminal can do no more than show text: it has no name, or that of a dumb one. Then there is neither colour
/// nor a line that is redrawn.
#[must_use]
pub fn is_plain_terminal() -> bool {
    env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb")
}

/// The outcome of a write to stdout, where a pipe that was closed at its other end (`| head`) counts as success: the
/// reader has seen enough, and what was measured is still right.
///
/// # Errors
/// Any other failure to write.
pub fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_fit_and_lose_nothing() {
        let words = "a word that is followed by others ".repeat(20);
        let mut text = String::new();
        paragraph(&mut text, "- ", &words);
        assert!(
            text.lines().all(|line| line.chars().count() <= COLUMNS),
            "{text}"
        );
        assert!(
            text.lines()
                .skip(1)
                .all(|line| line.starts_with("  ") && !line.starts_with("   "))
        );
        let read: Vec<&str> = text.trim_start_matches("- ").split_whitespace().collect();
        assert_eq!(read, words.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn a_word_that_is_too_long_stays_whole() {
        let long = "x".repeat(100);
        let mut text = String::new();
        hanging(&mut text, "", 3, &format!("a {long} b"));
        assert_eq!(text, format!("a\n   {long}\n   b\n"));
    }

    #[test]
    fn no_cause_is_said_twice() {
        #[derive(Debug, thiserror::Error)]
        enum Outer {
            #[error("{0}")]
            Same(#[from] io::Error),
            #[error("cannot open x")]
            Further { source: io::Error },
        }
        let cause = || io::Error::other("no such cpu");
        let same = Outer::from(cause());
        assert_eq!(with_causes(&same), "no such cpu");
        let further = Outer::Further { source: cause() };
        assert_eq!(with_causes(&further), "cannot open x: no such cpu");
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is_one() {
        assert!(unless_closed(Ok(())).is_ok());
        assert!(unless_closed(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        let full = unless_closed(Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
