//! Counts with their noun: `1 block`, `1,000 blocks`.

use echometer_host::units::show_count;

/// So many of `noun`, which takes an `s` for its plural.
#[must_use]
pub fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", show_count(count))
}

/// `1 block is`, `5 blocks are`.
#[must_use]
pub fn counted_are(count: u64, noun: &str) -> String {
    let verb = if count == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(count, noun))
}

/// `1 rate was`, `5 rates were`.
#[must_use]
pub fn counted_were(count: u64, noun: &str) -> String {
    let verb = if count == 1 { "was" } else { "were" };
    format!("{} {verb}", counted(count, noun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_no_plural() {
        assert_eq!(
            [0, 1, 1_000].map(|count| counted(count, "connection")),
            ["0 connections", "1 connection", "1,000 connections"]
        );
        assert_eq!(
            [1, 5].map(|count| counted_are(count, "block")),
            ["1 block is", "5 blocks are"]
        );
        assert_eq!(
            [1, 5].map(|count| counted_were(count, "rate")),
            ["1 rate was", "5 rates were"]
        );
    }
}
