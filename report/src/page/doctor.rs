//! The doctor's findings to look at.

use crate::{
    file::doctor::Examination,
    page::{
        model::{Page, TrustShown, machine_rows},
        table::{Cell, Table},
    },
};

/// The page of an examination. The findings have a part of their own on every page; the table is for other formats.
pub(crate) fn page(examination: &Examination) -> Page {
    let mut table = Table::new("Findings", ["grade", "check", "value", "why", "cure"]);
    for finding in &examination.findings {
        table.push(vec![
            Cell::text(finding.grade.word()),
            Cell::text(finding.check.clone()),
            Cell::text(finding.value.clone()),
            Cell::text(finding.why.clone()),
            Cell::text(finding.cure.clone().unwrap_or_else(|| "-".into())),
        ]);
    }
    let good = !examination.failed();
    Page {
        kind: "doctor".into(),
        title: "Is this machine fit to measure?".into(),
        subtitle: examination.machine.summary(),
        sentence: crate::text::doctor::sentence(examination),
        trust: TrustShown {
            word: if good { "fit" } else { "not fit" }.into(),
            good,
            ..TrustShown::default()
        },
        tables: vec![table],
        machine: machine_rows(&examination.machine),
        ..Page::default()
    }
}
