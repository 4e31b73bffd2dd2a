//! Where the truth is only known to lie between two ends, a verdict must hold at both.

use crate::Verdict;

/// What one end says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct End {
    /// The word.
    pub verdict: Verdict,
    /// arm / baseline; says which way [`Verdict::Small`] points.
    pub ratio: f64,
}

/// The word that holds whichever end is the truth: the weaker one where both point the same way. `None` where one end finds
/// a difference that matters and the other does not, or finds the opposite: then it depends on which is the truth.
///
/// Each end is called different wrongly in at most 5 of 100 comparisons, and so is what both say (intersection-union test:
/// Berger, Multiparameter Hypothesis Testing and Acceptance Sampling, 1982).
#[must_use]
pub fn of_both_ends(one: End, other: End) -> Option<Verdict> {
    use Verdict::{Better, Invalid, Same, Small, Undecided, Worse};
    let same_way = (one.ratio < 1.0) == (other.ratio < 1.0);
    match (one.verdict, other.verdict) {
        (Invalid, _) | (_, Invalid) => Some(Invalid),
        (Same, Same) => Some(Same),
        (Better, Better) => Some(Better),
        (Worse, Worse) => Some(Worse),
        (Small, Small) | (Better | Worse, Small) | (Small, Better | Worse) if same_way => {
            Some(Small)
        }
        (Better | Worse, _) | (_, Better | Worse) => None,
        (Small | Same | Undecided, Small | Same | Undecided) => Some(Undecided),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weaker_word_holds_and_contradictions_are_told() {
        use Verdict::{Better, Invalid, Same, Small, Undecided, Worse};
        let said = |one: (Verdict, f64), other: (Verdict, f64)| {
            let end = |(verdict, ratio)| End { verdict, ratio };
            let there = of_both_ends(end(one), end(other));
            let back = of_both_ends(end(other), end(one));
            assert_eq!(there, back, "neither end goes before the other");
            there
        };
        assert_eq!(said((Better, 0.9), (Better, 0.8)), Some(Better));
        assert_eq!(said((Worse, 1.1), (Small, 1.01)), Some(Small));
        assert_eq!(said((Small, 1.01), (Small, 1.02)), Some(Small));
        assert_eq!(said((Same, 1.0), (Same, 1.001)), Some(Same));
        assert_eq!(said((Same, 1.0), (Undecided, 1.1)), Some(Undecided));
        assert_eq!(said((Small, 1.01), (Small, 0.99)), Some(Undecided));
        assert_eq!(said((Worse, 1.1), (Better, 0.9)), None);
        assert_eq!(said((Worse, 1.1), (Undecided, 1.0)), None);
        assert_eq!(said((Better, 0.9), (Same, 1.0)), None);
        assert_eq!(said((Better, 0.9), (Small, 1.01)), None);
        assert_eq!(said((Invalid, 0.9), (Better, 0.8)), Some(Invalid));
    }
}
