//! How the p values of questions that were asked together were corrected.

use serde::{Deserialize, Serialize};

/// How the p values of questions that were asked together were corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Correction {
    /// Westfall and Young's, over the ways in which the labels of the blocks could have been dealt.
    #[serde(rename = "step-down max-t")]
    StepDownMaxT,
    /// Holm's, over exact rank tests: in files of 2026-11, which do not say so.
    #[default]
    #[serde(rename = "Holm")]
    Holm,
}

impl Correction {
    /// What stands above a column of such p values.
    #[must_use]
    pub const fn column(self) -> &'static str {
        match self {
            Self::StepDownMaxT => "p (adjusted)",
            Self::Holm => "p (Holm)",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::compare::MetricResult;

    #[test]
    fn files_name_it_as_it_is_called() {
        let word = serde_json::to_value(Correction::StepDownMaxT).expect("plain");
        assert_eq!(word, "step-down max-t");
        assert_eq!(Correction::default(), Correction::Holm);
    }

    #[test]
    fn readers_take_the_old_name_of_an_adjusted_p_and_write_the_new() {
        let read = |name: &str| -> MetricResult {
            let text = format!(
                r#"{{"arm": "uring", "baseline": "epoll", "name": "rate", "unit": "1/s", "primary": false,
                    "p": 0.01, "{name}": 0.04, "blocks_used": 8, "verdict": "small"}}"#
            );
            serde_json::from_str(&text).expect("either name")
        };
        assert_eq!(read("p_holm").p_adjusted, Some(0.04));
        assert_eq!(read("p_holm"), read("p_adjusted"));
        let written = serde_json::to_value(read("p_holm")).expect("plain");
        assert_eq!(written["p_adjusted"], 0.04);
        assert!(written.get("p_holm").is_none(), "{written}");
    }
}
