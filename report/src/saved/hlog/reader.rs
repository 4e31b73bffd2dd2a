//! Reads a log line by line: what is kept of a line is its time, its tag and its histogram as it was packed.

use std::{
    collections::HashMap,
    io::{BufRead, Read as _},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::saved::{
    error::Reason,
    harmless::harmless,
    hlog::{
        Interval, Log, Unit,
        content::{FILE_BYTES_MAX, too_large, unread},
        encoded::{COUNT_MAX, Encoded, Shape},
        fault::Fault,
        line::{Fields, Line, duration},
    },
};

/// The version of the log's form that is read; later minor versions are.
const VERSION_MAX: u32 = 1;
/// Times below this are counted from the log's start, and times above from 1970: a year, as HdrHistogram's reader does.
const YEAR_NS: i128 = 365 * 86_400 * 1_000_000_000;
/// Bytes of one line: the largest histogram there is, not deflated, in base64.
const LINE_BYTES_MAX: u64 = 96 << 20;
/// Lines with a histogram.
const INTERVALS_MAX: usize = 1_000_000;
/// Bytes that all tags together may take, unpacked: each is added up when it is shown.
const TAGS_BYTES_MAX: u64 = 512 << 20;
/// Bytes that all histograms together may inflate to: a day of lines of 10 ms takes less.
const INFLATED_BYTES_MAX: u64 = 16 << 30;
/// Starts and lengths are rounded to ms by most writers.
const ROUNDING_NS: i128 = 2_000_000;

/// Reads a log. `told` is the unit of a log that doesn't say its own.
pub(super) fn read(from: impl BufRead, told: Option<Unit>) -> Result<Log, Reason> {
    let mut reading = Reading::new(told);
    reading.all(from)?;
    reading.end()
}

/// What is known so far.
struct Reading {
    told: Option<Unit>,
    /// What the log says of itself.
    own: Option<Unit>,
    start_ns: Option<i128>,
    base_ns: Option<i128>,
    /// Whether an interval came since those were said: then the next ones begin another log.
    begun: bool,
    /// Whether anything so far can only be in a log.
    known: bool,
    line: usize,
    intervals: Vec<Interval>,
    /// The start and the second column of each, as they stand.
    columns: Vec<(i128, i128)>,
    tags: HashMap<String, Shape>,
    count: u64,
    inflated: u64,
    /// Room that is used again and again.
    plain: Vec<u8>,
}

impl Reading {
    fn new(told: Option<Unit>) -> Self {
        Self {
            told,
            own: None,
            start_ns: None,
            base_ns: None,
            begun: false,
            known: false,
            line: 0,
            intervals: Vec::new(),
            columns: Vec::new(),
            tags: HashMap::new(),
            count: 0,
            inflated: 0,
            plain: Vec::new(),
        }
    }

    fn all(&mut self, mut from: impl BufRead) -> Result<(), Reason> {
        let (mut bytes, mut total) = (Vec::new(), 0);
        loop {
            bytes.clear();
            let most = LINE_BYTES_MAX.min(FILE_BYTES_MAX - total) + 1;
            let read = from.by_ref().take(most).read_until(b'\n', &mut bytes);
            total += read.map_err(unread)? as u64;
            if bytes.is_empty() {
                return Ok(());
            }
            self.line += 1;
            if FILE_BYTES_MAX < total {
                return Err(too_large());
            }
            if LINE_BYTES_MAX < bytes.len() as u64 {
                let expected = format!("{} MiB at most", LINE_BYTES_MAX >> 20);
                return Err(self.damaged(&Fault::new("line", expected, "more")));
            }
            let whole = bytes.last() == Some(&b'\n');
            self.one(&bytes).map_err(|reason| match reason {
                // Cut within, most likely: the message says where all the same.
                Reason::Damaged(why) if !whole => Reason::Truncated(why),
                other => other,
            })?;
        }
    }

    fn one(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            // A comment may be in any encoding: no magic one is.
            Err(_) if bytes.first() == Some(&b'#') && !bytes.contains(&b',') => return Ok(()),
            Err(_) if !self.known => {
                return Err(Reason::Foreign("it is no text, so no histogram log".into()));
            }
            Err(_) => return Err(self.damaged(&Fault::new("line", "text (UTF-8)", "other bytes"))),
        };
        let line = Line::parse(text).map_err(|fault| {
            if self.known || text.contains("HIST") || text.starts_with('#') {
                return self.damaged(&fault);
            }
            Reason::Foreign("it is no HdrHistogram log".into())
        })?;
        self.known |= !matches!(line, Line::Nothing);
        match line {
            Line::Nothing => {}
            Line::Version(said) => self.version(said)?,
            Line::InNs => self.own = Some(Unit::Ns),
            Line::Start(start) => {
                self.head();
                self.start_ns = Some(start.as_nanos() as i128);
            }
            Line::Base(base) => {
                self.head();
                self.base_ns = Some(base.as_nanos() as i128);
            }
            Line::Interval(fields) => self.interval(&fields)?,
        }
        Ok(())
    }

    /// A head after intervals is that of another log behind the first.
    fn head(&mut self) {
        if std::mem::take(&mut self.begun) {
            (self.start_ns, self.base_ns) = (None, None);
        }
    }

    fn version(&self, said: &str) -> Result<(), Reason> {
        let major = said.split('.').next().unwrap_or_default();
        match major.parse::<u32>() {
            Ok(major) if major <= VERSION_MAX => Ok(()),
            Ok(_) => Err(Reason::Newer {
                found: format!("histogram log version {}", harmless(said)),
                known: format!("version {VERSION_MAX}"),
            }),
            Err(_) => Err(self.damaged(&Fault::new("version", "a number", said))),
        }
    }

    fn interval(&mut self, fields: &Fields<'_>) -> Result<(), Reason> {
        self.begun = true;
        if self.intervals.len() == INTERVALS_MAX {
            let why = format!("{INTERVALS_MAX} intervals are read at most");
            return Err(Reason::Large(why));
        }
        let bytes = BASE64_STANDARD.decode(fields.histogram).map_err(|error| {
            let expected = format!("base64 ({error})");
            self.damaged(&Fault::new("histogram", expected, fields.histogram))
        })?;
        let unit = self.own.or(self.told).unwrap_or(Unit::Ns);
        let histogram = Encoded::check(bytes, unit.ns(), &mut self.plain)
            .map_err(|fault| self.damaged(&fault))?;
        self.inflated += self.plain.len() as u64;
        if INFLATED_BYTES_MAX < self.inflated {
            let most = INFLATED_BYTES_MAX >> 30;
            return Err(Reason::Large(format!(
                "its histograms inflate to more than {most} GiB"
            )));
        }
        // Of all tags, because their counts are added up in places.
        let count = self.count.checked_add(histogram.len());
        self.count = count.filter(|count| *count <= COUNT_MAX).ok_or_else(|| {
            self.damaged(&Fault::new(
                "histogram",
                "2^63 - 1 values at most in a log",
                "more",
            ))
        })?;
        let start_ns = self.origin_ns(fields.start_ns) + fields.start_ns;
        let start = duration(start_ns).ok_or_else(|| {
            let found = format!("{} s before it", start_ns.unsigned_abs() / 1_000_000_000);
            self.damaged(&Fault::new("start", "a time after 1970", found))
        })?;
        let tag = harmless(fields.tag).into_owned();
        let shape = histogram.shape();
        match self.tags.get_mut(&tag) {
            Some(known) => *known = known.and(shape),
            None => {
                self.tags.insert(tag.clone(), shape);
                self.tags_fit()?;
            }
        }
        self.columns
            .push((fields.start_ns, fields.length.as_nanos() as i128));
        self.intervals.push(Interval {
            tag,
            start,
            length: fields.length,
            histogram,
        });
        Ok(())
    }

    /// What a start counts from, as HdrHistogram's own reader has it.
    fn origin_ns(&self, start_ns: i128) -> i128 {
        match (self.base_ns, self.start_ns) {
            (Some(base), _) => base,
            (None, Some(start)) if start_ns < start - YEAR_NS => start,
            (None, _) => 0,
        }
    }

    /// Whether the sums of all tags fit in memory. They grow with new tags, and with values of known ones.
    fn tags_fit(&self) -> Result<(), Reason> {
        let memory: u64 = self.tags.values().map(|shape| shape.memory()).sum();
        if TAGS_BYTES_MAX < memory {
            return Err(Reason::Large(format!(
                "its {} tags take more than {} MiB",
                self.tags.len(),
                TAGS_BYTES_MAX >> 20
            )));
        }
        Ok(())
    }

    fn damaged(&self, fault: &Fault) -> Reason {
        Reason::Damaged(format!("line {}, {fault}", self.line))
    }

    fn end(mut self) -> Result<Log, Reason> {
        if self.intervals.is_empty() {
            return Err(Reason::Truncated("it holds no histogram".to_owned()));
        }
        self.tags_fit()?;
        let mut notes = Vec::new();
        match self.second_column() {
            Column::Lengths => {}
            Column::Ends => {
                for (interval, (start, end)) in self.intervals.iter_mut().zip(&self.columns) {
                    interval.length = duration(end - start).unwrap_or(Duration::ZERO);
                }
                notes.push("its second column is taken for the ends of its intervals".to_owned());
            }
            Column::Overlapping => notes.push(
                "intervals of a tag lie over each other: if its second column means something else than \
                 lengths, their times are wrong"
                    .to_owned(),
            ),
        }
        Ok(Log {
            intervals: self.intervals,
            unit: self.own.or(self.told),
            own_unit: self.own.is_some(),
            notes,
        })
    }

    /// What the second column is. Some writers of C put the end there: taken for lengths, the intervals then lie over
    /// each other; taken for ends, one begins where the one before it ends.
    fn second_column(&self) -> Column {
        let mut before: HashMap<&str, (i128, i128)> = HashMap::new();
        let (mut touching, mut overlaps, mut ends, mut absolute) = (false, false, true, true);
        for (interval, &(start, second)) in self.intervals.iter().zip(&self.columns) {
            ends &= start <= second;
            absolute &= YEAR_NS < start;
            let earlier = before.insert(&interval.tag, (start, second));
            if let Some((earlier, of_it)) = earlier {
                let over = earlier + of_it - start;
                touching |= ROUNDING_NS < over;
                // Clients that began a moment apart are no fault of a log.
                overlaps |= of_it.min(second) / 2 < over && earlier <= start;
                ends &= earlier <= start && of_it <= start + ROUNDING_NS;
            }
        }
        match (ends && (touching || absolute), overlaps) {
            (true, _) => Column::Ends,
            (false, true) => Column::Overlapping,
            (false, false) => Column::Lengths,
        }
    }
}

/// See [`Reading::second_column`].
enum Column {
    Lengths,
    Ends,
    Overlapping,
}
