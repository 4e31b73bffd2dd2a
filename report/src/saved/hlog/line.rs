//! One line of a log: an interval, something that says how to take the others, or nothing.

use std::time::Duration;

use crate::saved::hlog::fault::Fault;

/// Times from 1970 beyond the year 9999 are no times.
const NS_MAX: i128 = 253_402_300_800 * NS_PER_S;
const NS_PER_S: i128 = 1_000_000_000;
/// No shorter text is a histogram: its head alone is longer.
const HISTOGRAM_CHARS_MIN: usize = 48;

/// A line, as it stands.
#[derive(Debug, PartialEq)]
pub(super) enum Line<'a> {
    /// Blank, a comment, or the legend.
    Nothing,
    /// `#[Histogram log format version 1.3]`.
    Version(&'a str),
    /// `#[StartTime: ...]`: when the log was begun, since 1970.
    Start(Duration),
    /// `#[BaseTime: ...]`: what the starts count from, since 1970.
    Base(Duration),
    /// Our own comment: values are in ns.
    InNs,
    /// A histogram and its time.
    Interval(Fields<'a>),
}

/// The fields of an interval.
#[derive(Debug, PartialEq)]
pub(super) struct Fields<'a> {
    /// Empty for none.
    pub tag: &'a str,
    /// Counts from the base, and may lie before it.
    pub start_ns: i128,
    /// Not negative.
    pub length: Duration,
    /// Base64.
    pub histogram: &'a str,
}

impl<'a> Line<'a> {
    /// Reads a line without its end.
    pub(super) fn parse(text: &'a str) -> Result<Self, Fault> {
        let text = text.trim();
        if let Some(comment) = text.strip_prefix('#') {
            return of_comment(comment);
        }
        if text.is_empty() || is_legend(text) {
            return Ok(Self::Nothing);
        }
        interval(text).map(Self::Interval)
    }
}

/// `"StartTimestamp","Interval_Length",...`, with quotes or without.
fn is_legend(text: &str) -> bool {
    let bare = |field: &str| field.trim().trim_matches('"').replace(['_', ' '], "");
    let first = bare(text.split(',').next().unwrap_or_default());
    // A legend whose line break is lost would take the first histogram along.
    let all_short = text
        .split(',')
        .all(|field| field.len() < HISTOGRAM_CHARS_MIN);
    first.to_ascii_lowercase().starts_with("starttimestamp") && all_short
}

fn interval(text: &str) -> Result<Fields<'_>, Fault> {
    let (tag, rest) = match text.strip_prefix("Tag=") {
        Some(tagged) => tagged.split_once(',').unwrap_or((tagged, "")),
        None => ("", text),
    };
    let fields: Vec<&str> = rest.split(',').map(str::trim).collect();
    let [start, length, max, histogram] = fields[..] else {
        let expected = "a start, a length, a maximum and a histogram, with commas between";
        let found = format!("{} fields", fields.len());
        return Err(Fault::new("line", expected, found));
    };
    let start_ns = seconds("start", start)?;
    let length = seconds("length", length)?;
    let length = duration(length)
        .ok_or_else(|| Fault::new("length", "0 s or more", fields[1].to_owned()))?;
    if max.parse::<f64>().is_err() {
        return Err(Fault::new("maximum", "a number", max));
    }
    Ok(Fields {
        tag,
        start_ns,
        length,
        histogram,
    })
}

fn of_comment(comment: &str) -> Result<Line<'_>, Fault> {
    // A comment whose line break is lost would take the histogram behind it along. One that is an interval as a whole
    // was taken out on purpose.
    let last = comment.rsplit(',').next().unwrap_or_default();
    if HISTOGRAM_CHARS_MIN <= last.len()
        && last.starts_with("HIST")
        && interval(comment.trim_start_matches(['#', ' '])).is_err()
    {
        let found = "a histogram at its end";
        return Err(Fault::new("comment", "a line break behind it", found));
    }
    let Some(inside) = comment.trim_start().strip_prefix('[') else {
        return Ok(Line::Nothing);
    };
    let inside = inside.trim();
    if let Some(version) = after(inside, "Histogram log format version") {
        return Ok(Line::Version(version.trim_matches([' ', ':', ']'])));
    }
    if after(inside, "echometer").is_some_and(|what| what.contains("values in ns")) {
        return Ok(Line::InNs);
    }
    let time = |field, said: &str| {
        let said = said
            .trim_start()
            .trim_start_matches([':', '='])
            .trim_start();
        let end = said.find([' ', '\t', ',', '(', ')', ']']);
        let number = &said[..end.unwrap_or(said.len())];
        let ns = seconds(field, number)?;
        duration(ns).ok_or_else(|| Fault::new(field, "seconds since 1970", number))
    };
    for name in ["StartTime", "Start Time", "Start_Time"] {
        if let Some(said) = after(inside, name) {
            return time("StartTime", said).map(Line::Start);
        }
    }
    for name in ["BaseTime", "Base Time", "Base_Time"] {
        if let Some(said) = after(inside, name) {
            return time("BaseTime", said).map(Line::Base);
        }
    }
    Ok(Line::Nothing)
}

/// What follows a word, in whatever case it is written.
fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(word.len())?;
    let ends = !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
    (ends && head.eq_ignore_ascii_case(word)).then_some(rest)
}

/// Seconds as any tool writes them, in ns. Decimals are taken as they stand: 1700000000.123 has no double of its own.
fn seconds(field: &'static str, text: &str) -> Result<i128, Fault> {
    let wrong = |expected: &str| Fault::new(field, expected, text);
    let value: f64 = text.parse().map_err(|_| wrong("seconds"))?;
    if !value.is_finite() || (NS_MAX / NS_PER_S) as f64 <= value.abs() {
        return Err(wrong("seconds up to the year 9999"));
    }
    if text.contains(['e', 'E']) {
        // Less than NS_MAX, as was seen.
        return Ok((value * NS_PER_S as f64).round() as i128);
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole: i128 = match whole {
        "" => 0,
        whole => whole.parse().map_err(|_| wrong("seconds"))?,
    };
    let fraction = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let fraction = fraction.fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    let ns = whole * NS_PER_S + fraction;
    Ok(if negative { -ns } else { ns })
}

/// None if it is negative.
pub(super) fn duration(ns: i128) -> Option<Duration> {
    let ns = u128::try_from(ns)
        .ok()
        .filter(|ns| *ns <= 2 * NS_MAX as u128)?;
    let whole = u64::try_from(ns / NS_PER_S as u128).ok()?;
    Some(Duration::new(whole, (ns % NS_PER_S as u128) as u32))
}
