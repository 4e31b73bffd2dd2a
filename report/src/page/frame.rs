//! What the pages of several kinds have in common: when it began, the answer, whether it can be trusted, the machine.

use echometer_host::{fitness::Finding, machine::Facts};

use crate::{
    file::{
        entries::CommandEntry,
        trust::{Status, Trust},
    },
    page::model::{Page, TrustShown, machine_rows},
};

/// The parts of a result file that are shown in the same way whatever it is.
pub(super) struct Frame<'a> {
    pub(super) kind: &'a str,
    pub(super) title: String,
    pub(super) started_at: &'a str,
    pub(super) cut_short: bool,
    pub(super) sentence: &'a str,
    /// Absent where a result has no verdict of its own.
    pub(super) verdict: Option<&'a Trust>,
    pub(super) machine: &'a Facts,
    pub(super) doctor: &'a [Finding],
    pub(super) commands: &'a [CommandEntry],
}

impl Frame<'_> {
    /// A page with these parts and nothing else.
    pub(crate) fn page(self) -> Page {
        let mut trust = self.verdict.map_or_else(TrustShown::default, shown);
        if self.cut_short {
            let cut = "it was cut short: what is whole is shown".to_owned();
            trust.warnings.insert(0, cut);
        }
        Page {
            kind: self.kind.to_owned(),
            title: self.title,
            subtitle: self.started_at.to_owned(),
            sentence: self.sentence.to_owned(),
            trust,
            machine: machine_rows(self.machine),
            findings: self.doctor.to_vec(),
            commands: self
                .commands
                .iter()
                .map(|entry| (entry.of.clone(), entry.command.clone()))
                .collect(),
            ..Page::default()
        }
    }
}

fn shown(verdict: &Trust) -> TrustShown {
    let good = verdict.status == Status::Valid;
    TrustShown {
        word: if good { "valid" } else { "invalid" }.to_owned(),
        good,
        reasons: verdict.reasons.clone(),
        warnings: verdict.warnings.clone(),
    }
}
