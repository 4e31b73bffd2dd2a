//! HdrHistogram interval logs (V2, plain or deflated), as ours and as every other tool's: read whole, and never trusted.

use std::{
    fs,
    io::Read as _,
    path::Path,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use flate2::read::ZlibDecoder;
use hdrhistogram::{
    Histogram,
    serialization::{
        DeserializeError, Deserializer,
        interval_log::{IntervalLogHistogram, IntervalLogIterator, LogEntry},
    },
};

use echometer_loadgen::histogram_log::{self, Line};

use crate::saved::{
    error::{FileError, Reason},
    harmless::harmless,
};

/// The version of the log's form that is read; later minor versions are.
const VERSION_MAX: u32 = 1;
/// The first bytes of a histogram in form V2.
const COOKIE_V2: u32 = 0x1c84_9313;
/// The same deflated.
const COOKIE_V2_DEFLATED: u32 = 0x1c84_9314;
/// Those of older forms, plain and deflated, without the word size in their second digit: V1 and V0.
const COOKIES_OLD: [u32; 4] = [0x1c84_9301, 0x1c84_9302, 0x1c84_9308, 0x1c84_9309];
/// Bytes that one histogram may inflate to: 60 s in 5 digits take 20 MB if every count is used. More is an attack.
const HISTOGRAM_BYTES_MAX: u64 = 64 << 20;
/// Bytes of counts that a histogram may take in memory.
const COUNTS_MAX: u64 = 16 << 20;
/// Times below this are counted from the log's start, and times above from 1970: a year, as HdrHistogram's reader does.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// A log: at least one interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// In the order of the file.
    pub intervals: Vec<Interval>,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Interval {
    /// Whose; empty for a line without a tag.
    pub tag: String,
    /// Since 1970, or since an unknown instant in logs that don't say when they were begun.
    pub start: Duration,
    /// How long it was.
    pub length: Duration,
    /// Its values, in whatever unit they were recorded: ns in ours.
    pub histogram: Histogram<u64>,
}

impl Log {
    /// Reads a log.
    ///
    /// # Errors
    /// It can't be opened, is truncated, damaged, of another form or a later version, or holds no histogram.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let bytes = fs::read(path).map_err(|error| Reason::Open(error).of(path))?;
        Self::parse(&bytes).map_err(|reason| reason.of(path))
    }

    /// Reads a log's bytes.
    ///
    /// # Errors
    /// As [`Log::read`] says.
    pub fn parse(bytes: &[u8]) -> Result<Self, Reason> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Reason::Foreign("it is no text, so no histogram log".to_owned()))?;
        check_version(text)?;
        let mut times = Times::default();
        let mut intervals = Vec::new();
        for entry in IntervalLogIterator::new(bytes) {
            let line = intervals.len() + 1;
            match entry {
                Ok(LogEntry::StartTime(start)) => times.start = Some(start),
                Ok(LogEntry::BaseTime(base)) => times.base = Some(base),
                Ok(LogEntry::Interval(interval)) => {
                    intervals
                        .push(decode(&interval, &times).map_err(|what| {
                            Reason::Damaged(format!("histogram {line}: {what}"))
                        })?);
                }
                Err(_) if !text.starts_with('#') && !text.contains("HIST") => {
                    return Err(Reason::Foreign("it is no HdrHistogram log".to_owned()));
                }
                Err(_) if !text.ends_with('\n') => {
                    return Err(Reason::Truncated(format!(
                        "it breaks off within histogram {line}"
                    )));
                }
                Err(_) => {
                    return Err(Reason::Damaged(format!(
                        "after {} histograms comes a line that is none",
                        intervals.len()
                    )));
                }
            }
        }
        if intervals.is_empty() {
            return Err(Reason::Truncated("it holds no histogram".to_owned()));
        }
        Ok(Self { intervals })
    }

    /// Writes the log as V2, deflated. Times count from its first start.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let written = self.to_bytes().and_then(|bytes| fs::write(path, bytes));
        written.map_err(|error| Reason::Write(error).of(path))
    }

    fn to_bytes(&self) -> std::io::Result<Vec<u8>> {
        let starts = self.intervals.iter().map(|interval| interval.start);
        let base = starts.min().unwrap_or_default();
        let lines = self.intervals.iter().map(|interval| Line {
            tag: &interval.tag,
            histogram: &interval.histogram,
            start: interval.start.saturating_sub(base),
            length: interval.length,
        });
        histogram_log::whole(SystemTime::UNIX_EPOCH + base, lines)
    }

    /// The tags, each once, in the order in which they come first.
    #[must_use]
    pub fn tags(&self) -> Vec<&str> {
        let mut tags: Vec<&str> = Vec::new();
        for interval in &self.intervals {
            if !tags.contains(&interval.tag.as_str()) {
                tags.push(&interval.tag);
            }
        }
        tags
    }

    /// All intervals of a tag together; none if there is no such tag.
    #[must_use]
    pub fn whole(&self, tag: &str) -> Option<Histogram<u64>> {
        sum(self
            .intervals
            .iter()
            .filter(|interval| interval.tag == tag)
            .map(|interval| &interval.histogram))
    }
}

/// Adds histograms up, whatever their shapes; every count arrives. None for no histograms.
#[must_use]
pub fn sum<'a>(histograms: impl Iterator<Item = &'a Histogram<u64>>) -> Option<Histogram<u64>> {
    let all: Vec<&Histogram<u64>> = histograms.collect();
    let digits = all.iter().map(|histogram| histogram.sigfig()).max()?;
    let low = all.iter().map(|histogram| histogram.low()).min()?;
    let high = all.iter().map(|histogram| histogram.high()).max()?;
    let mut total = Histogram::new_with_bounds(low, high.max(2 * low), digits)
        .expect("bounds and digits are those of histograms that exist");
    total.auto(true);
    for histogram in all {
        total
            .add(histogram)
            .expect("a histogram that grows by itself takes any value");
    }
    Some(total)
}

/// When the log says that it was begun.
#[derive(Default)]
struct Times {
    start: Option<Duration>,
    base: Option<Duration>,
}

impl Times {
    /// What a timestamp of a line counts from.
    fn origin(&self, timestamp: Duration) -> Duration {
        match (self.base, self.start) {
            (Some(base), _) => base,
            (None, Some(start)) if timestamp < start.saturating_sub(YEAR) => start,
            (None, _) => Duration::ZERO,
        }
    }
}

/// `#[Histogram log format version 1.3]`; a log without it is taken for the current one.
fn check_version(text: &str) -> Result<(), Reason> {
    let version = text.lines().find_map(|line| {
        line.strip_prefix("#[Histogram log format version ")?
            .strip_suffix(']')
    });
    let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    match (version, major) {
        (Some(version), Some(major)) if VERSION_MAX < major => Err(Reason::Newer {
            found: format!("histogram log version {version}"),
            known: format!("version {VERSION_MAX}"),
        }),
        _ => Ok(()),
    }
}

fn decode(interval: &IntervalLogHistogram<'_>, times: &Times) -> Result<Interval, String> {
    let bytes = BASE64_STANDARD
        .decode(interval.encoded_histogram())
        .map_err(|error| format!("no base64 ({error})"))?;
    let timestamp = interval.start_timestamp();
    Ok(Interval {
        tag: interval
            .tag()
            .map_or_else(String::new, |tag| harmless(tag.as_str()).into_owned()),
        start: times.origin(timestamp).saturating_add(timestamp),
        length: interval.duration(),
        histogram: histogram(&bytes)?,
    })
}

/// A histogram from its bytes. What the reader of the format takes on trust (how long it is, how much memory its shape
/// needs) is checked before.
fn histogram(bytes: &[u8]) -> Result<Histogram<u64>, String> {
    let plain = match number(bytes, 0) {
        Some(COOKIE_V2_DEFLATED) => {
            let mut plain = Vec::new();
            let inflated = ZlibDecoder::new(bytes.get(8..).unwrap_or_default())
                .take(HISTOGRAM_BYTES_MAX)
                .read_to_end(&mut plain);
            inflated.map_err(|error| format!("it can't be inflated ({error})"))?;
            plain
        }
        Some(COOKIE_V2) => bytes.to_vec(),
        Some(cookie) if COOKIES_OLD.contains(&(cookie & !0xf0)) => {
            return Err(
                "it is of an older form than V2: convert it with the tool that wrote it".into(),
            );
        }
        Some(cookie) => return Err(format!("its form is unknown (cookie {cookie:#010x})")),
        None => return Err("it is empty".into()),
    };
    if number(&plain, 0) != Some(COOKIE_V2) {
        return Err("it is not in form V2 inside".into());
    }
    const HEADER: usize = 40;
    let payload = number(&plain, 4).map_or(0, |length| length as usize);
    if plain.len() < HEADER || plain.len() - HEADER != payload {
        return Err(format!(
            "{} bytes where it says {}",
            plain.len(),
            HEADER + payload
        ));
    }
    let digits = number(&plain, 12).unwrap_or(u32::MAX);
    let high = u64::from(number(&plain, 24).unwrap_or(0)) << 32
        | u64::from(number(&plain, 28).unwrap_or(0));
    if 5 < digits {
        return Err(format!(
            "it has {digits} significant digits, and 5 are the most"
        ));
    }
    // Half a set of sub-buckets for each doubling of the value.
    let buckets = u64::from(64 - high.leading_zeros()) + 1;
    if COUNTS_MAX < buckets * 2 * 10_u64.pow(digits) {
        return Err("its shape asks for more memory than any histogram needs".into());
    }
    Deserializer::new()
        .deserialize(&mut plain.as_slice())
        .map_err(|error| match error {
            DeserializeError::UnsupportedFeature => {
                "it is scaled or shifted, which no recorder of integers does".to_owned()
            }
            error => error.to_string(),
        })
}

/// The big-endian number at an offset.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::{Serializer, V2Serializer};
    use proptest::prelude::*;

    use super::*;

    fn filled(values: &[u64]) -> Histogram<u64> {
        let mut histogram = echometer_loadgen::recorder::histogram();
        for value in values {
            histogram.record(*value).expect("it lies within 60 s");
        }
        histogram
    }

    fn log(tag: &str, start_s: u64, values: &[u64]) -> Log {
        Log {
            intervals: vec![Interval {
                tag: tag.into(),
                start: Duration::from_secs(start_s),
                length: Duration::from_secs(1),
                histogram: filled(values),
            }],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut one = log("latency", 1_700_000_000, &[1, 100, 59_999_999_999]);
        one.intervals
            .extend(log("service", 1_700_000_001, &[5]).intervals);
        let read = Log::parse(&one.to_bytes().expect("a vector takes all")).expect("it is whole");
        assert_eq!(read, one);
        assert_eq!(read.tags(), ["latency", "service"]);
        assert_eq!(read.whole("latency").expect("it is there").len(), 3);
        assert_eq!(read.whole("x"), None);
    }

    /// As HdrHistogram_c and wrk2 write it: not deflated, without a tag, times from the start, carriage returns.
    #[test]
    fn another_tools_log_is_read() {
        let mut plain = Vec::new();
        V2Serializer::new()
            .serialize(&filled(&[7, 7, 9_000]), &mut plain)
            .expect("a vector takes all");
        let text = format!(
            "#[Histogram log format version 1.2]\n#[StartTime: 1700000000.000 (seconds since epoch), whenever]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n\
             0.500,1.000,9.0,{}\r\n",
            BASE64_STANDARD.encode(plain)
        );
        let log = Log::parse(text.as_bytes()).expect("it is whole");
        assert_eq!(log.intervals[0].histogram, filled(&[7, 7, 9_000]));
        assert_eq!(
            log.intervals[0].start,
            Duration::from_millis(1_700_000_000_500)
        );
        assert_eq!(log.tags(), [""]);
    }

    #[test]
    fn what_is_no_whole_log_is_named() {
        let whole = log("latency", 0, &[1, 2, 3]).to_bytes().expect("bytes");
        let text = String::from_utf8(whole.clone()).expect("text");
        let last = text.lines().last().expect("a line");
        let said = |bytes: &[u8]| Log::parse(bytes).expect_err("it is refused").to_string();
        assert!(
            said(&whole[..whole.len() - 9]).contains("truncated: it breaks off within histogram 1")
        );
        assert!(said(text.replace(last, "").trim_end().as_bytes()).contains("truncated"));
        assert!(said(b"").contains("holds no histogram"));
        assert!(said(b"\xff\xfe").contains("foreign: it is no text"));
        assert!(said(b"hello\n").contains("foreign: it is no HdrHistogram log"));
        assert!(
            said(text.replace("version 1.3", "version 2.0").as_bytes())
                .contains("newer than this program")
        );
        assert!(said(format!("{text}nonsense\n").as_bytes()).contains("comes a line that is none"));
        let damaged = text.replace(last, &last.replace("HISTF", "HISTX"));
        assert!(
            said(damaged.as_bytes()).contains("histogram 1"),
            "{}",
            said(damaged.as_bytes())
        );
    }

    #[test]
    fn histograms_of_any_shape_add_up_to_every_count() {
        let mut coarse = Histogram::<u64>::new(2).expect("a shape");
        for value in [1, 1_000, 123_456_789_012] {
            coarse.record(value).expect("it grows");
        }
        let fine = filled(&[1, 2, 3]);
        let total = sum([&coarse, &fine].into_iter()).expect("there are two");
        assert_eq!((total.len(), total.sigfig()), (6, 3));
        assert_eq!(total.count_at(1), 2);
        assert!(123_000_000_000 <= total.max());
        assert!(sum(std::iter::empty()).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_damage_makes_it_panic(at in 0usize..400, byte: u8, cut in 0usize..400) {
            let mut bytes = log("latency", 0, &[1, 2, 3, 1_000_000]).to_bytes().expect("bytes");
            let index = at % bytes.len();
            bytes[index] = byte;
            let _ = Log::parse(&bytes);
            let _ = Log::parse(&bytes[..cut.min(bytes.len())]);
        }

        #[test]
        fn no_bytes_of_a_histogram_make_it_panic(at in 0usize..80, byte: u8) {
            let mut plain = Vec::new();
            V2Serializer::new().serialize(&filled(&[1, 2, 3, 1_000_000]), &mut plain).expect("bytes");
            let index = at % plain.len();
            plain[index] = byte;
            let _ = histogram(&plain);
        }
    }
}
