//! HdrHistogram interval logs (V2 and V1, plain or deflated), as ours and as every other tool's: read line by line, never
//! trusted, and kept as small as they came.

pub(crate) mod content;
mod encoded;
mod fault;
mod line;
mod reader;

use std::{
    collections::HashSet,
    fmt,
    fs::File,
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use clap::ValueEnum;
use hdrhistogram::{Histogram, serialization::V2DeflateSerializer};

use echometer_host::files::write_whole;
use echometer_loadgen::histogram_log;

pub use crate::saved::hlog::encoded::Encoded;
use crate::saved::{
    error::{FileError, Reason},
    hlog::content::Content,
};

/// A log: at least one interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// In the order of the file.
    pub intervals: Vec<Interval>,
    /// What its values are in, if it says so or somebody else did; else ns are assumed. Whatever it is, values were made ns.
    pub unit: Option<Unit>,
    /// Whether the log itself says what its values are in, as ours do.
    pub own_unit: bool,
    /// What to know of how it was read, a sentence each.
    pub notes: Vec<String>,
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
    /// Its values, ns.
    pub histogram: Encoded,
}

/// What the values of a log are in. The format has no place for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Unit {
    /// Nanoseconds.
    Ns,
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
}

impl Unit {
    /// How many ns one is.
    #[must_use]
    pub fn ns(self) -> u64 {
        match self {
            Self::Ns => 1,
            Self::Us => 1_000,
            Self::Ms => 1_000_000,
            Self::S => 1_000_000_000,
        }
    }

    /// In a sentence.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Ns => "nanoseconds",
            Self::Us => "microseconds",
            Self::Ms => "milliseconds",
            Self::S => "seconds",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        form.write_str(match self {
            Self::Ns => "ns",
            Self::Us => "us",
            Self::Ms => "ms",
            Self::S => "s",
        })
    }
}

impl Log {
    /// A log of intervals in ns.
    #[must_use]
    pub fn of(intervals: Vec<Interval>) -> Self {
        Self {
            intervals,
            unit: Some(Unit::Ns),
            own_unit: true,
            notes: Vec::new(),
        }
    }

    /// What its values were taken for.
    #[must_use]
    pub fn read_as(&self) -> Unit {
        self.unit.unwrap_or(Unit::Ns)
    }

    /// Reads a log, packed by gzip or not. `unit` is that of a log that doesn't say its own.
    ///
    /// # Errors
    /// It can't be opened, is truncated, damaged, too large, of another form or a later version, or holds no histogram.
    pub fn read(path: &Path, unit: Option<Unit>) -> Result<Self, FileError> {
        let file = File::open(path).map_err(|error| Reason::Open(error).of(path))?;
        Self::from_file(file, unit).map_err(|reason| reason.of(path))
    }

    /// Reads a log from whatever brings its bytes.
    ///
    /// # Errors
    /// As [`Log::read`] says.
    pub fn from_file(file: impl io::Read + 'static, unit: Option<Unit>) -> Result<Self, Reason> {
        let content = content::unpacked(file).map_err(content::unread)?;
        reader::read(content, unit)
    }

    /// Reads a log from what was opened by [`content::open`].
    pub(crate) fn from_content(content: Content, unit: Option<Unit>) -> Result<Self, Reason> {
        reader::read(content, unit)
    }

    /// Writes the log as V2, deflated, whole or not at all. Times count from its first start.
    ///
    /// # Errors
    /// The file can't be written, or a tag is none that the format can hold.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let bytes = self.to_bytes();
        let written =
            bytes.and_then(|bytes| write_whole(path, &bytes).map_err(|error| error.source));
        written.map_err(|error| Reason::Write(error).of(path))
    }

    fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let starts = self.intervals.iter().map(|interval| interval.start);
        let base = starts.min().unwrap_or_default();
        // The base is written in ms, and no start may be negative.
        let base = Duration::from_millis(u64::try_from(base.as_millis()).unwrap_or(u64::MAX));
        let (mut bytes, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let mut log =
            histogram_log::begin(&mut bytes, &mut serializer, SystemTime::UNIX_EPOCH + base)?;
        for interval in &self.intervals {
            let start = interval.start.saturating_sub(base);
            // One unpacked at a time.
            let histogram = interval.histogram.histogram();
            histogram_log::write(&mut log, &interval.tag, &histogram, start, interval.length)?;
        }
        Ok(bytes)
    }

    /// The tags, each once, in the order in which they come first.
    #[must_use]
    pub fn tags(&self) -> Vec<&str> {
        let mut known = HashSet::new();
        let tags = self.intervals.iter().map(|interval| interval.tag.as_str());
        tags.filter(|tag| known.insert(*tag)).collect()
    }

    /// All intervals of a tag together; none if there is no such tag.
    #[must_use]
    pub fn whole(&self, tag: &str) -> Option<Histogram<u64>> {
        let of_tag = self
            .intervals
            .iter()
            .filter(|interval| interval.tag == tag)
            .map(|interval| &interval.histogram);
        sum(of_tag).expect("a log counts to 2^63 - 1 at most, as its reader saw")
    }
}

/// Adds histograms up, whatever their shapes; every count arrives. None for no histograms.
///
/// # Errors
/// They hold more than 2^63 - 1 values together.
pub fn sum<'a>(
    histograms: impl Iterator<Item = &'a Encoded> + Clone,
) -> Result<Option<Histogram<u64>>, TooMany> {
    let shapes = histograms.clone().map(Encoded::shape);
    let Some(shape) = shapes.reduce(encoded::Shape::and) else {
        return Ok(None);
    };
    let (mut total, mut count, mut room) = (shape.histogram(), 0_u64, Vec::new());
    for histogram in histograms {
        count = add_counts(count, histogram.len())?;
        histogram.add_to(&mut total, &mut room);
    }
    Ok(Some(total))
}

/// Two counts together.
///
/// # Errors
/// They are more than 2^63 - 1.
pub fn add_counts(one: u64, other: u64) -> Result<u64, TooMany> {
    one.checked_add(other)
        .filter(|sum| *sum <= encoded::COUNT_MAX)
        .ok_or(TooMany)
}

/// More values than any histogram counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("together they hold more than 2^63 - 1 values, which no histogram counts")]
pub struct TooMany;

#[cfg(test)]
mod tests;
