//! Is this machine fit to measure latency on? What was [`seen`](Seen) of it goes through a table of pure `checks`, and
//! each gives one [`Finding`]: a grade, the value, why it matters, and the command that mends it.
//!
//! A finding is about the machine and not about a result: a result says by itself where its client was late or its cpus
//! were stolen. All is readable without privileges; what can't be read is unknown, and never fine.

mod activity;
mod checks;
mod seen;

use serde::{Deserialize, Serialize};

pub use activity::Activity;
pub use checks::judge;
pub use seen::{CpuQuota, IdleState, Purpose, Seen, Steering, UringTrial, Use};

use crate::machine::Facts;

/// What one check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check's name, which stays the same from version to version.
    pub check: String,
    /// How it turned out.
    pub grade: Grade,
    /// What was seen.
    pub value: String,
    /// Why it matters to latency, and what it does to the figures.
    pub why: String,
    /// What to do about it: a command, as root where it starts with `#`. Nothing for what passes.
    pub cure: Option<String>,
}

/// How a check turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Grade {
    /// Figures measured here would mean something else than they say.
    #[serde(rename = "FAIL")]
    Fail,
    /// Figures are noisier, or worse, than they could be.
    #[serde(rename = "WARN")]
    Warn,
    /// It can't be read here.
    #[serde(rename = "unknown")]
    Unknown,
    /// As it should be.
    #[serde(rename = "PASS")]
    Pass,
}

impl Grade {
    /// As it is written everywhere.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fail => "FAIL",
            Self::Warn => "WARN",
            Self::Unknown => "unknown",
            Self::Pass => "PASS",
        }
    }
}

/// Looks at the machine that `facts` were read of and judges it, without the checks that need a second of watching:
/// what a result file keeps. The gravest comes first.
#[must_use]
pub fn at_a_glance(facts: &Facts, purpose: Purpose) -> Vec<Finding> {
    let mut findings = judge(&Seen::with_facts(facts.clone(), purpose));
    findings.sort_by_key(|finding| finding.grade);
    findings
}

/// The reasons that the FAILs among `findings` are for not trusting a result.
#[must_use]
pub fn objections(findings: &[Finding]) -> Vec<String> {
    let failed = findings
        .iter()
        .filter(|finding| finding.grade == Grade::Fail);
    failed
        .map(|finding| {
            let cure = finding.cure.as_deref().unwrap_or("see echometer doctor");
            format!(
                "the machine is not fit ({}: {}): {cure}",
                finding.check, finding.value
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fails_are_objections_and_each_names_its_cure() {
        let finding = |grade, cure: Option<&str>| Finding {
            check: "clocksource".into(),
            grade,
            value: "hpet".into(),
            why: "each reading is a system call".into(),
            cure: cure.map(str::to_owned),
        };
        let findings = [
            finding(Grade::Warn, Some("a")),
            finding(Grade::Fail, Some("boot with tsc=reliable")),
            finding(Grade::Unknown, None),
            finding(Grade::Pass, None),
        ];
        assert_eq!(
            objections(&findings),
            ["the machine is not fit (clocksource: hpet): boot with tsc=reliable"]
        );
    }

    #[test]
    fn grades_are_written_alike_everywhere_and_the_gravest_comes_first() {
        let grades = [Grade::Fail, Grade::Warn, Grade::Unknown, Grade::Pass];
        assert!(grades.is_sorted());
        for grade in grades {
            assert_eq!(serde_json::to_value(grade).expect("plain"), grade.word());
        }
    }

    #[test]
    fn this_machine_is_judged_at_a_glance() {
        let findings = at_a_glance(&Facts::read(), Purpose::default());
        assert!(10 < findings.len());
        assert!(findings.iter().all(|finding| !finding.value.is_empty()
            && finding.cure.is_some() == (finding.grade != Grade::Pass)));
        assert!(
            !findings.iter().any(|finding| finding.check == "steal"),
            "what needs watching is left out"
        );
    }
}
