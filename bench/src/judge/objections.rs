//! Why figures can be shown and not judged, in words. `who` is an arm, or an arm at a point of a sweep.

use echometer_host::units::counted;
use echometer_loadgen::file::Summary;
use echometer_report::{
    file::{figures::ArmFigures, metric::Metric},
    text::counted::counted_are,
};
use echometer_statistics::{ALPHA, Answer, Verdict, blocks_min, median};

/// Why a rate in open loop is no answer.
pub(crate) const OPEN_LOOP: &str = "open loop: -R sets the rate";

/// That a server's CPU can't be read.
pub(crate) fn cpu_unknown(who: &str) -> String {
    format!("{who} runs elsewhere or unseen: its CPU is unknown")
}

/// Says where the CPU of a server is unknown in any block.
pub(crate) fn unread<'a>(
    who: &str,
    mut figures: impl Iterator<Item = &'a ArmFigures>,
) -> Option<String> {
    figures
        .any(|figures| figures.server_cpu_ns_per_message.is_none())
        .then(|| cpu_unknown(who))
}

/// Says where the client and not the server sets a rate: its busiest thread has more to do than the server's.
pub(crate) fn client_bound<'a>(
    who: &str,
    figures: impl Iterator<Item = &'a ArmFigures>,
) -> Option<String> {
    let (client, server): (Vec<f64>, Vec<Option<f64>>) = figures
        .map(|figures| (figures.client_busy, figures.server_busy))
        .unzip();
    let client = median(&client)?;
    let server: Option<Vec<f64>> = server.into_iter().collect();
    match server.and_then(|shares| median(&shares)) {
        None => Some(format!(
            "the CPU of {who} is unknown, so nobody can say which side sets the rate"
        )),
        Some(server) if server <= client => Some(format!(
            "client-bound: with {who} the client is {:.0} % busy and the server {:.0} %",
            client * 100.0,
            server * 100.0,
        )),
        Some(_) => None,
    }
}

/// Says where a quantile is only a lower bound in some runs. To leave these out would be to judge an arm by its better
/// runs.
pub(crate) fn lower_bounds<'a>(
    who: &str,
    metric: Metric,
    latencies: impl Iterator<Item = &'a Summary>,
) -> Option<String> {
    let (mut count, mut all) = (0, 0);
    for latency in latencies {
        all += 1;
        count += u64::from(metric.is_lower_bound(latency));
    }
    (0 < count).then(|| {
        format!(
            "{} of {who} is a lower bound in {count} of {}: messages were left without an answer",
            metric.label(),
            counted(all, "run"),
        )
    })
}

/// Why an answer is `undecided`, if it is.
pub(crate) fn undecided(metric: Metric, answer: &Answer) -> Option<String> {
    if answer.verdict != Verdict::Undecided {
        return None;
    }
    let needed = blocks_min(ALPHA);
    let differs = answer
        .interval
        .map(|interval| interval.high < 1.0 || 1.0 < interval.low);
    let sure = answer.p_adjusted.map(|p| p < ALPHA);
    let all = answer.blocks_used + answer.missing;
    Some(if metric.quantile().is_some() && answer.blocks_used == 0 {
        "too few samples above it: raise -d".to_owned()
    } else if 0 < answer.missing && metric.quantile().is_some() {
        format!(
            "too few samples above it in {} of {all} blocks: raise -d",
            answer.missing
        )
    } else if 0 < answer.missing {
        format!("no figure in {} of {all} blocks", answer.missing)
    } else if answer.blocks_used < needed {
        format!("needs {needed} blocks, has {}", answer.blocks_used)
    } else {
        match (differs, sure) {
            (Some(true), Some(false)) => {
                "does not outlast the correction for the number of questions".to_owned()
            }
            (Some(false), Some(true)) => "its p is below 0.05, but its interval holds 1".to_owned(),
            _ => "the interval is too wide".to_owned(),
        }
    })
}

/// Says where too few of `all` blocks are valid for an interval.
pub(crate) fn too_few_blocks(valid: usize, all: usize) -> Option<String> {
    let needed = blocks_min(ALPHA);
    (valid < needed).then(|| match all.saturating_sub(valid) {
        0 => format!(
            "{} too few: a 95 % interval needs {needed} blocks",
            counted_are(valid as u64, "valid block")
        ),
        _ => format!(
            "{valid} of {} valid, and a 95 % interval needs {needed}: see the reasons of the others",
            counted_are(all as u64, "block"),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_are_missing_are_told_from_blocks_that_are_spoilt() {
        assert_eq!(too_few_blocks(6, 8), None);
        let said = |valid, all| too_few_blocks(valid, all).expect("too few");
        assert_eq!(
            said(1, 1),
            "1 valid block is too few: a 95 % interval needs 6 blocks"
        );
        assert_eq!(
            said(5, 8),
            "5 of 8 blocks are valid, and a 95 % interval needs 6: see the reasons of the others"
        );
    }
}
