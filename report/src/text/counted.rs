//! Counts with their noun and its verb: `1 block is`, `5 blocks are`.

use echometer_host::units::counted;

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
    fn one_has_a_verb_of_its_own() {
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
