//! `echometer merge`: the logs of several clients, or of several tools, as one. Histograms are added up, so that the
//! quantiles of the sum are exact, which averages of quantiles never are.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::bail;
use hdrhistogram::Histogram;

use echometer_report::saved::hlog::{Interval, Log, sum};

/// Merges the logs at `inputs` into a new one at `output`, and says what it did.
///
/// # Errors
/// A log can't be read, or `output` is one of them, is there already or can't be written.
pub(crate) fn merge_files(inputs: &[impl AsRef<Path>], output: &Path) -> anyhow::Result<String> {
    if output.exists() {
        bail!(
            "{} is there already, and results are never overwritten: name another with -o",
            output.display()
        );
    }
    let logs: Vec<Log> = inputs
        .iter()
        .map(|input| Log::read(input.as_ref()))
        .collect::<Result<_, _>>()?;
    let merged = merge(&logs);
    merged.write(output)?;
    let counts: Vec<String> = merged
        .tags()
        .into_iter()
        .map(|tag| {
            let whole = merged.whole(tag);
            let count = whole.map_or(0, |histogram| histogram.len());
            let name = if tag.is_empty() { "untagged" } else { tag };
            format!("{name} {}", echometer_host::units::show_count(count))
        })
        .collect();
    Ok(format!(
        "{}: {} logs, {} intervals; values: {}\n",
        output.display(),
        logs.len(),
        merged.intervals.len(),
        counts.join(", ")
    ))
}

/// One log of several. Intervals of a tag that lie at the same time are added up: time is cut into pieces as long as the
/// tag's longest interval, and an interval belongs to the piece in which its middle lies. So a run's course over time is
/// kept, whether or not its clients began in the same instant; and no value is lost or counted twice.
#[must_use]
pub(crate) fn merge(logs: &[Log]) -> Log {
    let all: Vec<&Interval> = logs.iter().flat_map(|log| &log.intervals).collect();
    // Of each tag: when it begins, and its longest interval.
    let mut spans: BTreeMap<&str, (Duration, Duration)> = BTreeMap::new();
    for interval in &all {
        let (begin, longest) = spans
            .entry(&interval.tag)
            .or_insert((interval.start, interval.length));
        *begin = interval.start.min(*begin);
        *longest = interval.length.max(*longest);
    }
    // By time first, as readers expect a log to be.
    let mut pieces: BTreeMap<(u128, &str), Vec<&Interval>> = BTreeMap::new();
    for interval in &all {
        let (begin, longest) = spans[interval.tag.as_str()];
        let width = longest.as_nanos().max(1);
        let middle = (interval.start - begin + interval.length / 2).as_nanos();
        let piece = begin.as_nanos() + middle / width * width;
        pieces
            .entry((piece, &interval.tag))
            .or_default()
            .push(interval);
    }
    let intervals = pieces.into_iter().map(|((_, tag), parts)| {
        let start = parts.iter().map(|part| part.start).min();
        let end = parts.iter().map(|part| part.start + part.length).max();
        let start = start.unwrap_or_default();
        Interval {
            tag: tag.to_owned(),
            start,
            length: end.unwrap_or_default().saturating_sub(start),
            histogram: sum(parts.iter().map(|part| &part.histogram))
                .unwrap_or_else(|| Histogram::new(3).expect("3 digits are a shape that there is")),
        }
    });
    Log {
        intervals: intervals.collect(),
    }
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
            histogram,
        }
    }

    #[test]
    fn intervals_of_the_same_time_are_added_up() {
        let one = Log {
            intervals: vec![
                interval("latency", 10_000, 1_000, &[1, 2]),
                interval("latency", 11_000, 1_000, &[3]),
                interval("connect", 9_500, 100, &[9]),
            ],
        };
        // Began 30 ms later, and its last interval is shorter.
        let other = Log {
            intervals: vec![
                interval("latency", 10_030, 1_000, &[4]),
                interval("latency", 11_030, 500, &[5, 6]),
            ],
        };
        let merged = merge(&[one, other]);
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
        let part = |values: &[u64]| Log {
            intervals: vec![interval("latency", 1_000, 1_000, values)],
        };
        part(&[1, 10_000])
            .write(&at("a.hlog"))
            .expect("it is writable");
        part(&[1]).write(&at("b.hlog")).expect("it is writable");
        let inputs = [at("a.hlog"), at("b.hlog")];
        let said = merge_files(&inputs, &at("c.hlog")).expect("both are whole");
        assert!(
            said.ends_with("2 logs, 1 intervals; values: latency 3\n"),
            "{said}"
        );
        let whole = Log::read(&at("c.hlog")).expect("it was written");
        assert_eq!(whole.whole("latency").expect("it is there").count_at(1), 2);
        let error = merge_files(&inputs, &at("a.hlog")).expect_err("it is an input");
        assert!(error.to_string().contains("never overwritten"), "{error}");
        let error = merge_files(&inputs, &at("nowhere/c.hlog")).expect_err("no such folder");
        assert!(
            error.to_string().contains("c.hlog: cannot be written: No"),
            "{error}"
        );
    }
}
