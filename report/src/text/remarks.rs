//! What to know before the figures, the gravest first, each once.

use std::collections::HashSet;

use crate::file::trust::Trust;

/// Why a result is not valid; then `blocks`, of what spoilt single ones; then the warnings, and whatever `more` there is.
pub(crate) fn remarks(
    trust: &Trust,
    blocks: impl IntoIterator<Item = String>,
    more: impl IntoIterator<Item = String>,
) -> Vec<String> {
    let reasons = trust.reasons.iter();
    let warnings = trust.warnings.iter();
    let mut remarks: Vec<String> = reasons
        .map(|reason| format!("not valid: {reason}"))
        .chain(blocks)
        .chain(warnings.map(|warning| format!("warning: {warning}")))
        .chain(more)
        .collect();
    let mut seen = HashSet::new();
    remarks.retain(|remark| seen.insert(remark.clone()));
    remarks
}

/// That a block does not count, and why.
pub(crate) fn spoilt(block: usize, reasons: &[String]) -> String {
    format!("block {block} does not count: {}", reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::trust::Status;

    #[test]
    fn the_gravest_comes_first_and_nothing_twice() {
        let trust = Trust {
            status: Status::Invalid,
            reasons: vec!["too few".into()],
            warnings: vec!["noisy".into()],
        };
        let blocks = [1, 1].map(|block| spoilt(block, &["a".into(), "b".into()]));
        assert_eq!(
            remarks(&trust, blocks, ["no floor".to_owned()]),
            [
                "not valid: too few",
                "block 1 does not count: a; b",
                "warning: noisy",
                "no floor"
            ]
        );
    }
}
