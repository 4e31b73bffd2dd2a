//! `echometer merge`: the logs of several clients, or of several tools, as one. Histograms are added up, so that the
//! quantiles of the sum are exact, which averages of quantiles never are.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, bail};

use echometer_report::saved::hlog::{Encoded, Interval, Log, Unit, add_counts, sum};

/// Merges the logs at `inputs` into a new one at `output`, and says what it did. `unit` is that of logs that don't say
/// their own; what is written is in ns.
///
/// # Errors
/// A log can't be read, or `output` is one of them, is there already or can't be written; a tag has no form in a log;
/// there are more than 2^63 - 1 values.
pub(crate) fn merge_files(
    inputs: &[impl AsRef<Path>],
    output: &Path,
    unit: Option<Unit>,
) -> anyhow::Result<String> {
    if output.exists() {
        bail!(
            "{} is there already, and results are never overwritten: name another with -o",
            output.display()
        );
    }
    let logs: Vec<Log> = inputs
        .iter()
        .map(|input| Log::read(input.as_ref(), unit))
        .collect::<Result<_, _>>()?;
    if unit.is_some_and(|unit| unit != Unit::Ns) && logs.iter().all(|log| log.own_unit) {
        bail!(
            "--unit is for logs that don't say their own, and all of these say that theirs is ns"
        );
    }
    let notes: Vec<String> = inputs
        .iter()
        .zip(&logs)
        .flat_map(|(input, log)| {
            let input = input.as_ref().display();
            log.notes
                .iter()
                .map(move |note| format!("{input}: {note}\n"))
        })
        .collect();
    let from = logs.len();
    let merged = merge(logs).with_context(|| format!("cannot write {}", output.display()))?;
    merged.write(output)?;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for interval in &merged.intervals {
        *counts.entry(&interval.tag).or_default() += interval.histogram.len();
    }
    let counts: Vec<String> = merged
        .tags()
        .into_iter()
        .map(|tag| {
            let name = if tag.is_empty() { "untagged" } else { tag };
            format!("{name} {}", echometer_host::units::show_count(counts[tag]))
        })
        .collect();
    Ok(format!(
        "{}: {from} logs, {} intervals; values: {}\n{}",
        output.display(),
        merged.intervals.len(),
        counts.join(", "),
        notes.concat()
    ))
}

/// One log of several. An interval whose middle lies in one of another log, of the same tag, is added to that; others
/// stand as they are. Longer ones go first, so that two that lie in a third come together in it, and nothing becomes
/// coarser elsewhere. So a run's course over time is kept, whether or not its clients began in the same instant; and no
/// value is lost or counted twice.
///
/// # Errors
/// They hold more than 2^63 - 1 values.
pub(crate) fn merge(logs: Vec<Log>) -> anyhow::Result<Log> {
    let counts = logs.iter().flat_map(|log| &log.intervals);
    counts
        .map(|interval| interval.histogram.len())
        .try_fold(0, add_counts)?;
    let alone = logs.len() == 1;
    let mut by_tag: BTreeMap<String, Vec<Interval>> = BTreeMap::new();
    for interval in logs.into_iter().flat_map(|log| log.intervals) {
        by_tag
            .entry(interval.tag.clone())
            .or_default()
            .push(interval);
    }
    let mut merged = Vec::new();
    for intervals in by_tag.into_values() {
        // Intervals of one log are apart by themselves, even where they lie over each other.
        if alone {
            merged.extend(intervals);
            continue;
        }
        for parts in pieces(intervals) {
            merged.push(added_up(parts)?);
        }
    }
    // By time first, as readers expect a log to be.
    merged.sort_by(|one, other| (one.start, &one.tag).cmp(&(other.start, &other.tag)));
    Ok(Log::of(merged))
}

/// The intervals of a tag, those of the same time together.
fn pieces(mut intervals: Vec<Interval>) -> Vec<Vec<Interval>> {
    intervals.sort_by_key(|interval| (std::cmp::Reverse(interval.length), interval.start));
    // By the start of the longest, which is the first. No later one is longer, so that the nearest piece before a middle
    // is the only one that it can lie in.
    let mut pieces: BTreeMap<Duration, Vec<Interval>> = BTreeMap::new();
    for interval in intervals {
        let middle = interval.start + interval.length / 2;
        let before = pieces.range_mut(..=middle).next_back();
        match before.filter(|(start, parts)| {
            middle < **start + parts[0].length || (**start == interval.start)
        }) {
            Some((_, parts)) => parts.push(interval),
            None => {
                pieces.insert(interval.start, vec![interval]);
            }
        }
    }
    pieces.into_values().collect()
}

fn added_up(mut parts: Vec<Interval>) -> anyhow::Result<Interval> {
    let first = parts.swap_remove(0);
    if parts.is_empty() {
        return Ok(first);
    }
    parts.push(first);
    let start = parts.iter().map(|part| part.start).min();
    let end = parts.iter().map(|part| part.start + part.length).max();
    let start = start.expect("there are two or more");
    let whole = sum(parts.iter().map(|part| &part.histogram))?;
    Ok(Interval {
        tag: parts.swap_remove(0).tag,
        start,
        length: end.expect("there are two or more").saturating_sub(start),
        histogram: Encoded::of(&whole.expect("there are two or more"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(tag: &str, start_ms: u64, length_ms: u64, values: &[u64]) -> Interval {
        let mut histogram = echometer_loadgen::recorder::histogram();
        for value in values {
            histogram.record(*value).expect("it fits");
        }
        Interval {
            tag: tag.into(),
            start: Duration::from_millis(start_ms),
            length: Duration::from_millis(length_ms),
            histogram: Encoded::of(&histogram).expect("few values"),
        }
    }

    #[test]
    fn intervals_of_the_same_time_are_added_up() {
        let one = Log::of(vec![
            interval("latency", 10_000, 1_000, &[1, 2]),
            interval("latency", 11_000, 1_000, &[3]),
            interval("connect", 9_500, 100, &[9]),
        ]);
        // Began 30 ms later, and its last interval is shorter.
        let other = Log::of(vec![
            interval("latency", 10_030, 1_000, &[4]),
            interval("latency", 11_030, 500, &[5, 6]),
        ]);
        let merged = merge(vec![one, other]).expect("few values");
        let shape: Vec<(&str, u64)> = merged
            .intervals
            .iter()
            .map(|interval| (interval.tag.as_str(), interval.histogram.len()))
            .collect();
        assert_eq!(shape, [("connect", 1), ("latency", 3), ("latency", 3)]);
        assert_eq!(merged.intervals[1].start, Duration::from_millis(10_000));
        assert_eq!(merged.intervals[1].length, Duration::from_millis(1_030));
        assert_eq!(merged.whole("latency").expect("it is there").len(), 6);
    }

    #[test]
    fn files_are_merged_exactly_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let part = |values: &[u64]| Log::of(vec![interval("latency", 1_000, 1_000, values)]);
        part(&[1, 10_000])
            .write(&at("a.hlog"))
            .expect("it is writable");
        part(&[1]).write(&at("b.hlog")).expect("it is writable");
        let inputs = [at("a.hlog"), at("b.hlog")];
        let said = merge_files(&inputs, &at("c.hlog"), None).expect("both are whole");
        assert!(
            said.ends_with("2 logs, 1 intervals; values: latency 3\n"),
            "{said}"
        );
        let whole = Log::read(&at("c.hlog"), None).expect("it was written");
        assert_eq!(whole.whole("latency").expect("it is there").count_at(1), 2);
        let error = merge_files(&inputs, &at("a.hlog"), None).expect_err("it is an input");
        assert!(error.to_string().contains("never overwritten"), "{error}");
        let error = merge_files(&inputs, &at("nowhere/c.hlog"), None).expect_err("no such folder");
        assert!(
            error.to_string().contains("c.hlog: cannot be written: No"),
            "{error}"
        );
    }

    /// F.38: lines of 1, 1, 1, 6, 1 and 1 s became pieces of 6 s.
    #[test]
    fn merging_coarsens_nothing_that_does_not_lie_over_something_longer() {
        let lines = |offset_ms: u64| {
            let mut start_ms = offset_ms;
            let intervals = [1_000, 1_000, 1_000, 6_000, 1_000, 1_000].map(|length_ms| {
                start_ms += length_ms;
                interval("latency", start_ms - length_ms, length_ms, &[length_ms])
            });
            Log::of(intervals.to_vec())
        };
        let lengths = |log: &Log| -> Vec<u64> {
            let lengths = log
                .intervals
                .iter()
                .map(|one| one.length.as_millis() as u64);
            lengths.collect()
        };
        let one = lines(0);
        assert_eq!(merge(vec![one.clone()]).expect("few values"), one);
        let two = merge(vec![one.clone(), one.clone()]).expect("few values");
        assert_eq!(lengths(&two), lengths(&one));
        assert!(two.intervals.iter().all(|one| one.histogram.len() == 2));
        // A client that began 20 ms later.
        let late = merge(vec![one, lines(20)]).expect("few values");
        assert_eq!(lengths(&late), [1_020, 1_020, 1_020, 6_020, 1_020, 1_020]);
        // Over a line of 6 s, lines of 1 s can't be told apart; those beside it can.
        let fine = Log::of(
            (0..11)
                .map(|second| interval("latency", second * 1_000, 1_000, &[7]))
                .collect(),
        );
        let mixed = merge(vec![lines(0), fine]).expect("few values");
        let counts: Vec<u64> = mixed
            .intervals
            .iter()
            .map(|one| one.histogram.len())
            .collect();
        assert_eq!(counts, [2, 2, 2, 7, 2, 2]);
        assert_eq!(lengths(&mixed), lengths(&lines(0)));
    }

    /// F.34: the values of `Tag=read op` were added to those without a tag.
    #[test]
    fn a_tag_that_a_log_cannot_hold_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (from, to) = (folder.path().join("a.hlog"), folder.path().join("b.hlog"));
        let one = Log::of(vec![interval("", 0, 1_000, &[1])]);
        one.write(&from).expect("it is writable");
        let text = std::fs::read_to_string(&from).expect("it was written");
        assert!(!text.contains("Tag="), "{text}");
        let said = merge_files(std::slice::from_ref(&from), &to, None).expect("it is whole");
        assert!(said.ends_with("values: untagged 1\n"), "{said}");
        let written = std::fs::read_to_string(&to).expect("it was written");
        assert!(
            written.contains("\n0.000,1.000,") && !written.contains("Tag="),
            "{written}"
        );
        std::fs::remove_file(&to).expect("it is there");
        let tagged = text.replace("\n0.000,", "\nTag=read op,0.000,");
        std::fs::write(&from, tagged).expect("it is writable");
        let error = merge_files(&[from], &to, None).expect_err("no reader would take it");
        assert!(error.to_string().contains("the tag \"read op\""), "{error}");
        assert!(!to.exists());
    }
}
