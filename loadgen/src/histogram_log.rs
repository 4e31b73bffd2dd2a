//! Histograms in the formats that other tools read: `run.hlog`, an HdrHistogram interval log (V2), and `run.hgrm`, the
//! percentile spectrum that hdr-plot and the HdrHistogram plotter draw.

use std::{
    fmt::Write as _,
    io,
    time::{Duration, SystemTime},
};

use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriter, IntervalLogWriterBuilder, IntervalLogWriterError, Tag},
    },
};

/// Begins a log on `writer`, whose times count from `base`.
///
/// # Errors
/// The writer's.
pub fn begin<'a, 'b, W: io::Write>(
    writer: &'a mut W,
    serializer: &'b mut V2DeflateSerializer,
    base: SystemTime,
) -> io::Result<IntervalLogWriter<'a, 'b, W, V2DeflateSerializer>> {
    IntervalLogWriterBuilder::new()
        // What HdrHistogram's own writer says of a log of this form.
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("[echometer-loadgen: values in ns, the maximum of each line in ms]")
        .with_start_time(base)
        .with_base_time(base)
        .with_max_value_divisor(1e6)
        .begin_log_with(writer, serializer)
}

/// Writes one interval's histogram under a tag: `latency`, `service` or `connect`; an empty one writes a line without a
/// tag, because `Tag=,` stops other readers. `start` counts from the base.
///
/// # Errors
/// The writer's; the tag holds a blank, a comma or a line break, which the format has no way to write; a count is beyond
/// 2^63 - 1. Nothing is written then, no part of a line either, unless it is the writer that failed.
pub fn write<W: io::Write>(
    log: &mut IntervalLogWriter<'_, '_, W, V2DeflateSerializer>,
    tag: &str,
    histogram: &Histogram<u64>,
    start: Duration,
    length: Duration,
) -> io::Result<()> {
    let tag = tag_of(tag)?;
    // The line's beginning would be written before its histogram is found to be too much.
    let count_max = histogram.iter_recorded().map(|step| step.count_at_value());
    if count_max.max().is_some_and(|count| (1 << 63) <= count) {
        return Err(io::Error::other(
            "a count of 2^63 or more has no form in a histogram log",
        ));
    }
    log.write_histogram(histogram, start, length, tag)
        .map_err(|error| match error {
            IntervalLogWriterError::IoError(error) => error,
            IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
        })
}

/// The tag as the format has it: none for an empty one.
fn tag_of(tag: &str) -> io::Result<Option<Tag<'_>>> {
    if tag.is_empty() {
        return Ok(None);
    }
    // Written without it, the line would pass for one of those that have none.
    let written = Tag::new(tag).filter(|_| !tag.contains(char::is_whitespace));
    written.map(Some).ok_or_else(|| {
        let why = format!(
            "the tag {tag:?} can't be written: tags of a histogram log have no blanks, commas or line breaks; \
             rename it in the log that it comes from"
        );
        io::Error::new(io::ErrorKind::InvalidInput, why)
    })
}

/// One line of a log that is written at once.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// What it is of: `latency`, say; may be empty.
    pub tag: &'a str,
    /// The values, ns.
    pub histogram: &'a Histogram<u64>,
    /// Counts from the log's base.
    pub start: Duration,
    /// How long it was recorded.
    pub length: Duration,
}

/// A whole log, whose times count from `base`.
///
/// # Errors
/// A histogram or a tag can't be written down.
pub fn whole<'a>(
    base: SystemTime,
    lines: impl IntoIterator<Item = Line<'a>>,
) -> io::Result<Vec<u8>> {
    let (mut bytes, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut log = begin(&mut bytes, &mut serializer, base)?;
    for line in lines {
        write(&mut log, line.tag, line.histogram, line.start, line.length)?;
    }
    Ok(bytes)
}

/// The percentile spectrum of a histogram in ns, as `.hgrm` text in ms: five steps for each halving of the distance to
/// 100 %. Every line begins with a blank and has four numbers, because hdr-plot drops all others: so the last one, whose
/// inverse is infinite, has twice the count there, which lies beyond that of all lines before it.
pub fn spectrum(histogram: &Histogram<u64>) -> String {
    const NS_PER_MS: f64 = 1e6;
    const STEPS: u32 = 5;
    let mut text = format!(
        " {:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let (mut total, mut last) = (0, 1.0_f64);
    for step in histogram.iter_quantiles(STEPS) {
        total += step.count_since_last_iteration();
        let value_ms = step.value_iterated_to() as f64 / NS_PER_MS;
        let quantile = step.quantile_iterated_to();
        let inverse = match quantile < 1.0 {
            true => 1.0 / (1.0 - quantile),
            false => last.max(2.0 * total as f64),
        };
        last = inverse;
        writeln!(
            text,
            " {value_ms:>12.6} {quantile:>14.12} {total:>10} {inverse:>14.2}"
        )
        .expect("a string takes all that is written to it");
    }
    let (mean, deviation) = (histogram.mean() / NS_PER_MS, histogram.stdev() / NS_PER_MS);
    let (max, count) = (histogram.max() as f64 / NS_PER_MS, histogram.len());
    let buckets = histogram.buckets();
    // As many as tell all numbers of its digits apart.
    let sub_buckets = (2 * 10_u32.pow(u32::from(histogram.sigfig()))).next_power_of_two();
    write!(
        text,
        "#[Mean    = {mean:>12.6}, StdDeviation   = {deviation:>12.6}]\n\
         #[Max     = {max:>12.6}, Total count    = {count:>12}]\n\
         #[Buckets = {buckets:>12}, SubBuckets     = {sub_buckets:>12}]\n"
    )
    .expect("a string takes all that is written to it");
    text
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    };

    use super::*;
    use crate::summary::histogram;

    #[test]
    fn a_log_is_read_back() {
        let mut values = histogram();
        [100, 2_000, 59_999_999_999]
            .into_iter()
            .for_each(|value| values.record(value).unwrap());
        let (mut bytes, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let mut log = begin(&mut bytes, &mut serializer, SystemTime::now()).unwrap();
        for second in 0..3 {
            write(
                &mut log,
                "latency",
                &values,
                Duration::from_secs(second),
                Duration::from_secs(1),
            )
            .unwrap();
        }
        let intervals: Vec<_> = IntervalLogIterator::new(&bytes)
            .filter_map(|entry| match entry.unwrap() {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .collect();
        assert_eq!(intervals.len(), 3);
        assert_eq!(intervals[2].start_timestamp(), Duration::from_secs(2));
        assert_eq!(intervals[2].tag().unwrap().as_str(), "latency");
        // The text before the histogram is what other readers split at commas, and it begins as theirs does.
        assert!(intervals[0].encoded_histogram().starts_with("HIST"));
        let decoded = base64(intervals[0].encoded_histogram());
        let read: Histogram<u64> = Deserializer::new()
            .deserialize(&mut decoded.as_slice())
            .unwrap();
        assert_eq!(read, values);
    }

    /// F.34: `Tag=read op` was written without its tag, and no tag as `Tag=,`.
    #[test]
    fn a_tag_is_written_as_it_is_or_not_at_all() {
        let values = histogram();
        let written = |tag| {
            let line = Line {
                tag,
                histogram: &values,
                start: Duration::ZERO,
                length: Duration::from_secs(1),
            };
            whole(SystemTime::UNIX_EPOCH, [line]).map(|bytes| String::from_utf8(bytes).unwrap())
        };
        let last = |text: &str| text.lines().last().unwrap().to_owned();
        assert!(last(&written("").unwrap()).starts_with("0.000,1.000,0.000,HIST"));
        assert!(last(&written("read-op").unwrap()).starts_with("Tag=read-op,0.000,"));
        assert!(written("latency").unwrap().ends_with('\n'));
        for tag in ["read op", "a,b", "a\tb", "a\nb", "\r", " ", "a\u{a0}b"] {
            let error = written(tag).unwrap_err().to_string();
            assert!(error.contains(&format!("the tag {tag:?}")), "{error}");
        }
    }

    /// Each histogram whole: what can't be written leaves no half line behind.
    #[test]
    fn a_count_without_a_form_leaves_the_log_as_it_was() {
        let mut values = histogram();
        values.record_n(1, 1 << 63).unwrap();
        let (mut bytes, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let mut log = begin(&mut bytes, &mut serializer, SystemTime::now()).unwrap();
        let second = Duration::from_secs(1);
        write(&mut log, "latency", &values, second, second).unwrap_err();
        assert!(bytes.ends_with(b"]\n"));
    }

    /// Plain base64, the slow way: enough for a test.
    fn base64(text: &str) -> Vec<u8> {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digits = text
            .bytes()
            .filter_map(|byte| ALPHABET.iter().position(|digit| *digit == byte));
        let bits: Vec<bool> = digits
            .flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1 == 1))
            .collect();
        bits.chunks_exact(8)
            .map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit)))
            .collect()
    }

    #[test]
    fn a_spectrum_ends_at_its_count() {
        let mut values = histogram();
        (1..=1_000u64).for_each(|value| values.record(value * 1_000_000).unwrap());
        let text = spectrum(&values);
        let rows: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .skip(2)
            .collect();
        let last: Vec<&str> = rows.last().unwrap().split_whitespace().collect();
        assert_eq!(last[1..], ["1.000000000000", "1000", "2000.00"]);
        assert!(text.contains("Total count    =         1000]"));
        let p50 = rows
            .iter()
            .find(|row| row.contains("0.500000000000"))
            .unwrap();
        assert!(
            (p50.split_whitespace()
                .next()
                .unwrap()
                .parse::<f64>()
                .unwrap()
                - 500.0)
                .abs()
                < 0.5,
            "{p50}"
        );
    }

    /// F.39: hdr-plot takes lines of a blank and four numbers, so it dropped the last one and all from 10,000 ms.
    #[test]
    fn every_line_of_a_spectrum_is_one_for_hdr_plot() {
        let plotted = |line: &str| {
            let numbers: Option<Vec<f64>> = line
                .split_whitespace()
                .map(|word| word.parse().ok())
                .collect();
            line.starts_with(' ')
                && numbers.is_some_and(|numbers| {
                    numbers.len() == 4 && numbers.iter().all(|number| number.is_finite())
                })
        };
        let mut slow = histogram();
        for value in [1, 9_999_999_999, 10_000_000_000, 59_999_999_999] {
            slow.record(value).unwrap();
        }
        let mut once = histogram();
        once.record(1).unwrap();
        let mut vast = Histogram::<u64>::new(2).unwrap();
        vast.record(i64::MAX as u64).unwrap();
        for (values, sub_buckets) in [(&slow, 2_048), (&once, 2_048), (&vast, 256)] {
            let text = spectrum(values);
            let rows: Vec<&str> = text
                .lines()
                .skip(2)
                .filter(|line| !line.starts_with('#'))
                .collect();
            assert!(rows.iter().all(|row| plotted(row)), "{text}");
            let rising: Vec<f64> = rows
                .iter()
                .map(|row| row.split_whitespace().last().unwrap().parse().unwrap())
                .collect();
            assert!(rising.is_sorted(), "{text}");
            assert!(rows.last().unwrap().contains(" 1.000000000000 "), "{text}");
            assert!(
                text.contains(&format!("SubBuckets     = {sub_buckets:>12}]")),
                "{text}"
            );
        }
    }
}
