//! How does a program write for people? In lines of 80 columns; and a reader who leaves early is no error.

use std::{fmt::Write as _, io};

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
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is_one() {
        assert!(unless_closed(Ok(())).is_ok());
        assert!(unless_closed(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        let full = unless_closed(Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
