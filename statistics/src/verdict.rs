//! From an interval to a word: better, worse, same, small or undecided, by a margin below which a difference
//! is of no practical use.

use serde::{Deserialize, Serialize};

/// What can be said of an arm against the baseline, in the metric's own good direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The whole interval lies on the good side of 1, beyond the margin.
    Better,
    /// The whole interval lies on the bad side of 1, beyond the margin.
    Worse,
    /// The whole interval lies within the margin: no difference worth having.
    Same,
    /// There is a difference, but the interval does not say that it exceeds the margin.
    Small,
    /// The interval is too wide to say any of these.
    Undecided,
    /// The figures can't carry a verdict: a rate that the client bounds, a CPU time nobody can read.
    Invalid,
}

impl Verdict {
    /// The word, as it stands in files and tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "same",
            Self::Small => "small",
            Self::Undecided => "undecided",
            Self::Invalid => "invalid",
        }
    }
}

/// Which way a metric's ratio is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Good {
    /// CPU per message, latency.
    Lower,
    /// Rate.
    Higher,
}

/// Names where an interval of the ratio arm / baseline lies.
///
/// `margin` is a share (0.02 is 2 %): the band is 1 - margin ..= 1 + margin. `significant` says whether the
/// difference outlasts the correction for asking several questions; where it does not, only `Same` can be said.
#[must_use]
pub fn verdict(low: f64, high: f64, margin: f64, good: Good, significant: bool) -> Verdict {
    let (band_low, band_high) = (1.0 - margin, 1.0 + margin);
    let (below, above) = match good {
        Good::Lower => (Verdict::Better, Verdict::Worse),
        Good::Higher => (Verdict::Worse, Verdict::Better),
    };
    if band_low <= low && high <= band_high {
        return Verdict::Same;
    }
    if !significant {
        return Verdict::Undecided;
    }
    if high < band_low {
        below
    } else if band_high < low {
        above
    } else if high < 1.0 || 1.0 < low {
        Verdict::Small
    } else {
        Verdict::Undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_of_the_interval_has_its_word() {
        let cheaper = |low, high| verdict(low, high, 0.02, Good::Lower, true);
        assert_eq!(cheaper(0.85, 0.90), Verdict::Better);
        assert_eq!(cheaper(1.05, 1.10), Verdict::Worse);
        assert_eq!(cheaper(0.99, 1.01), Verdict::Same);
        assert_eq!(
            cheaper(0.985, 0.995),
            Verdict::Same,
            "a sure difference inside the margin is no difference"
        );
        assert_eq!(cheaper(0.95, 0.99), Verdict::Small);
        assert_eq!(cheaper(1.001, 1.10), Verdict::Small);
        assert_eq!(cheaper(0.90, 1.01), Verdict::Undecided);
        assert_eq!(cheaper(0.90, 1.10), Verdict::Undecided);
    }

    #[test]
    fn the_good_direction_turns_the_words() {
        assert_eq!(verdict(1.1, 1.2, 0.02, Good::Higher, true), Verdict::Better);
        assert_eq!(verdict(0.8, 0.9, 0.02, Good::Higher, true), Verdict::Worse);
    }

    #[test]
    fn what_is_not_significant_is_never_a_difference() {
        assert_eq!(
            verdict(0.8, 0.9, 0.02, Good::Lower, false),
            Verdict::Undecided
        );
        assert_eq!(
            verdict(0.95, 0.99, 0.02, Good::Lower, false),
            Verdict::Undecided
        );
        assert_eq!(verdict(0.99, 1.01, 0.02, Good::Lower, false), Verdict::Same);
    }

    #[test]
    fn ends_on_the_margin_are_inside_it() {
        assert_eq!(verdict(0.75, 1.0, 0.25, Good::Lower, true), Verdict::Same);
        assert_eq!(verdict(0.5, 0.75, 0.25, Good::Lower, true), Verdict::Small);
    }

    #[test]
    fn no_margin_leaves_better_worse_and_undecided() {
        assert_eq!(verdict(0.9, 0.999, 0.0, Good::Lower, true), Verdict::Better);
        assert_eq!(
            verdict(0.9, 1.0, 0.0, Good::Lower, true),
            Verdict::Undecided
        );
    }
}
