//! One histogram as a log holds it: V2 or V1, plain or deflated. It is checked once, kept as it is, and unpacked when it
//! is needed: unpacked it may be a thousand times as large, and a log has thousands.

use std::io;

use flate2::{Decompress, FlushDecompress, Status};
use hdrhistogram::{
    Histogram,
    serialization::{Serializer as _, V2DeflateSerializer},
};

use crate::saved::hlog::fault::Fault;

/// The field of a line that a histogram is.
const FIELD: &str = "histogram";
/// Forms by the first number, without the word size in its second digit.
const V2: u32 = 0x1c84_9303;
const V2_DEFLATED: u32 = 0x1c84_9304;
const V1: u32 = 0x1c84_9301;
const V1_DEFLATED: u32 = 0x1c84_9302;
const V0: [u32; 2] = [0x1c84_9308, 0x1c84_9309];
/// Those of a DoubleHistogram, which read `DHIST` in base64.
const DOUBLE: [u32; 2] = [0x0c72_124e, 0x0c72_124f];
/// The numbers before the counts.
const HEADER: usize = 40;
/// Bytes that one histogram may inflate to: the largest shape there is, 5 digits up to 2^63, has 6.2 million counts of
/// 9 bytes at most.
const PLAIN_BYTES_MAX: usize = 64 << 20;
/// The most that other tools count to: theirs are signed.
pub(super) const COUNT_MAX: u64 = i64::MAX as u64;

/// A histogram, packed. Values are in whatever unit they were recorded, times `ns_per_value`.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    bytes: Box<[u8]>,
    shape: Shape,
    count: u64,
    ns_per_value: u64,
}

/// Which values a histogram can hold, and how finely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    low: u64,
    high: u64,
    digits: u8,
}

impl Encoded {
    /// Checks a histogram from its bytes. `ns_per_value` is its unit; other than 1 makes 5 digits of its digits, because
    /// the steps of a histogram in ns are others. `plain` is room that is used again and again.
    ///
    /// # Errors
    /// It is not whole, of another form, or more than a histogram can be.
    pub(super) fn check(
        bytes: Vec<u8>,
        ns_per_value: u64,
        plain: &mut Vec<u8>,
    ) -> Result<Self, Fault> {
        let (mut count, mut max) = (0_u64, 0_u64);
        let mut too_many = false;
        let shape = walk(inflated(&bytes, plain)?, |step, of_it| {
            match count.checked_add(of_it).filter(|sum| *sum <= COUNT_MAX) {
                Some(sum) => count = sum,
                None => too_many = true,
            }
            max = step.high;
        })?;
        if too_many {
            return Err(Fault::new(FIELD, "2^63 - 1 values at most", "more"));
        }
        let scaled = |value: u64| {
            let ns = value
                .checked_mul(ns_per_value)
                .filter(|ns| *ns <= COUNT_MAX);
            ns.ok_or_else(|| Fault::new(FIELD, "values up to 2^63 ns", format!("{value}")))
        };
        let shape = match ns_per_value {
            1 => shape,
            _ => Shape {
                low: 1,
                high: scaled(max)?.max(2),
                digits: 5,
            },
        };
        Ok(Self {
            bytes: bytes.into_boxed_slice(),
            shape,
            count,
            ns_per_value,
        })
    }

    /// Packs a histogram, as V2.
    ///
    /// # Errors
    /// It counts further than 2^63 - 1, the most that the form can hold.
    pub fn of(histogram: &Histogram<u64>) -> io::Result<Self> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(histogram, &mut bytes)
            .map_err(io::Error::other)?;
        Self::check(bytes, 1, &mut Vec::new()).map_err(|fault| io::Error::other(fault.to_string()))
    }

    /// How many values it holds; 2^63 - 1 at most.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// It, unpacked.
    #[must_use]
    pub fn histogram(&self) -> Histogram<u64> {
        let mut histogram = self.shape.histogram();
        self.add_to(&mut histogram, &mut Vec::new());
        histogram
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Adds its counts to a histogram that grows.
    pub(super) fn add_to(&self, total: &mut Histogram<u64>, plain: &mut Vec<u8>) {
        let plain = inflated(&self.bytes, plain).expect("it was checked when it was read");
        walk(plain, |step, count| {
            // In another unit the highest value of a step is what every quantile of it is called by; in the same one
            // all values of a step fall into one again.
            let value = match self.ns_per_value {
                1 => step.low,
                factor => step.high * factor,
            };
            total
                .record_n(value, count)
                .expect("a histogram that grows takes any value");
        })
        .expect("it was checked when it was read");
    }
}

impl Shape {
    /// One that holds what either holds, as finely.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
            digits: self.digits.max(other.digits),
        }
    }

    /// An empty histogram of it.
    pub(super) fn histogram(self) -> Histogram<u64> {
        let high = self.high.max(2 * self.low);
        let mut histogram = Histogram::new_with_bounds(self.low, high, self.digits)
            .expect("shapes are checked, and one of two is finer than either");
        histogram.auto(true);
        histogram
    }

    /// Bytes that it takes unpacked.
    pub(super) fn memory(self) -> u64 {
        self.counts() * 8
    }

    fn counts(self) -> u64 {
        let unit = self.low.ilog2();
        let sub_bits = self.sub_bits();
        // The first bucket has all its steps, each further one the upper half of them.
        let mut buckets = 1;
        while u128::from(self.high) >= 1_u128 << (sub_bits + unit + buckets - 1) {
            buckets += 1;
        }
        u64::from(buckets + 1) << (sub_bits - 1)
    }

    /// Steps of the first bucket, as a power of two: as many as tell all numbers of its digits apart.
    fn sub_bits(self) -> u32 {
        (2 * 10_u32.pow(u32::from(self.digits)))
            .next_power_of_two()
            .ilog2()
    }

    /// The values that are counted as one at an index.
    fn step(self, index: u64) -> Step {
        let (unit, half_bits) = (self.low.ilog2(), self.sub_bits() - 1);
        let bucket = (index >> half_bits).saturating_sub(1);
        let sub = index - (bucket << half_bits);
        let shift = u64::from(unit) + bucket;
        let low = u128::from(sub) << shift;
        let high = low + (1_u128 << shift) - 1;
        // Only the last steps of the largest shape end beyond.
        let bounded = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        Step {
            low: bounded(low),
            high: bounded(high).min(COUNT_MAX.max(bounded(low))),
        }
    }
}

/// Values that are counted as one.
struct Step {
    low: u64,
    high: u64,
}

/// The plain form of a histogram's bytes, in `room` if it was deflated. Nothing may be left over.
fn inflated<'a>(bytes: &'a [u8], room: &'a mut Vec<u8>) -> Result<&'a [u8], Fault> {
    let cookie = number(bytes, 0)
        .ok_or_else(|| Fault::new(FIELD, "a histogram", format!("{} bytes", bytes.len())))?;
    match cookie & !0xf0 {
        V2_DEFLATED | V1_DEFLATED => {}
        V2 | V1 => return Ok(bytes),
        _ if DOUBLE.contains(&cookie) => {
            let found = "a DoubleHistogram (DHIST)";
            return Err(Fault::new(FIELD, "one of integers (HIST), V2 or V1", found));
        }
        old if V0.contains(&old) => {
            let found = "V0: convert it with the tool that wrote it";
            return Err(Fault::new(FIELD, "V2 or V1", found));
        }
        _ => {
            let found = format!("the unknown form {cookie:#010x}");
            return Err(Fault::new(FIELD, "V2 or V1", found));
        }
    }
    const OUTER: usize = 8;
    let deflated = bytes.get(OUTER..).unwrap_or_default();
    let said = number(bytes, 4).map_or(0, |length| length as usize);
    if said != deflated.len() {
        let expected = format!("{said} deflated bytes, as it says");
        return Err(Fault::new(FIELD, expected, deflated.len().to_string()));
    }
    room.clear();
    let mut stream = Decompress::new(true);
    loop {
        let consumed = stream.total_in() as usize;
        room.reserve(4_096.max(room.len()));
        let status = stream.decompress_vec(&deflated[consumed..], room, FlushDecompress::None);
        let status =
            status.map_err(|error| Fault::new(FIELD, "a zlib stream", error.to_string()))?;
        if PLAIN_BYTES_MAX < room.len() {
            let expected = format!("{} MiB inflated at most", PLAIN_BYTES_MAX >> 20);
            return Err(Fault::new(FIELD, expected, "more"));
        }
        match status {
            Status::StreamEnd => break,
            // Room is left, and nothing comes.
            _ if room.len() < room.capacity() && stream.total_in() as usize == deflated.len() => {
                return Err(Fault::new(FIELD, "a whole zlib stream", "one that is cut"));
            }
            _ => {}
        }
    }
    let left = deflated.len() - stream.total_in() as usize;
    if 0 < left {
        let found = format!("{left} bytes");
        return Err(Fault::new(FIELD, "nothing behind the zlib stream", found));
    }
    Ok(room)
}

/// Goes through the counts of a plain histogram that are not zero, by rising value.
fn walk(plain: &[u8], mut found: impl FnMut(Step, u64)) -> Result<Shape, Fault> {
    let header = plain
        .get(..HEADER)
        .ok_or_else(|| Fault::new(FIELD, "40 bytes of head", format!("{}", plain.len())))?;
    let at = |offset| number(header, offset).expect("the head is long enough");
    let wide = |offset| u64::from(at(offset)) << 32 | u64::from(at(offset + 4));
    let (cookie, payload, said) = (at(0), &plain[HEADER..], at(4) as usize);
    if payload.len() != said {
        let expected = format!("{said} bytes of counts, as it says");
        return Err(Fault::new(FIELD, expected, payload.len().to_string()));
    }
    let shape = shape(at(12), wide(16), wide(24))?;
    let mut index = 0_u64;
    let counts = shape.counts();
    let mut settle = |index: u64, count: u64| {
        if counts <= index {
            let expected = format!("{counts} counts at most in its shape");
            return Err(Fault::new(FIELD, expected, "more"));
        }
        if 0 < count {
            found(shape.step(index), count);
        }
        Ok(())
    };
    // The offset at 8 and the ratio at 32 say how a histogram was shifted, and how it was scaled for a DoubleHistogram:
    // counts in V2 stand in the order of their values whatever they say, and hdr-histogram-js writes 0 for both.
    match cookie & !0xf0 {
        V2 => {
            let mut rest = payload;
            while !rest.is_empty() {
                let number = zig_zag(&mut rest)
                    .ok_or_else(|| Fault::new(FIELD, "a whole count", "the end"))?;
                if number < 0 {
                    index = index.saturating_add(number.unsigned_abs());
                    // As far as the counts reach, and not beyond.
                    settle(index - 1, 0)?;
                } else {
                    settle(index, number.unsigned_abs())?;
                    index += 1;
                }
            }
        }
        V1 => {
            let word = (cookie >> 4 & 0xe) as usize;
            if !matches!(word, 2 | 4 | 8) || !payload.len().is_multiple_of(word) {
                let found = format!("{} bytes in words of {word}", payload.len());
                return Err(Fault::new(FIELD, "whole counts of 2, 4 or 8 bytes", found));
            }
            if at(8) != 0 {
                return Err(Fault::new(FIELD, "no shift in V1", at(8).to_string()));
            }
            for bytes in payload.chunks_exact(word) {
                let count = bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                if count >> (8 * word - 1) & 1 == 1 {
                    return Err(Fault::new(FIELD, "counts", "a negative one"));
                }
                if 0 < count || index < counts {
                    settle(index, count)?;
                }
                index += 1;
            }
        }
        _ => {
            let found = format!("the form {cookie:#010x} inside");
            return Err(Fault::new(FIELD, "V2 or V1", found));
        }
    }
    Ok(shape)
}

/// A shape that a histogram can have.
fn shape(digits: u32, low: u64, high: u64) -> Result<Shape, Fault> {
    let digits = u8::try_from(digits)
        .ok()
        .filter(|digits| *digits <= 5)
        .ok_or_else(|| Fault::new(FIELD, "0 to 5 significant digits", digits.to_string()))?;
    if low == 0 || COUNT_MAX < high || high / 2 < low {
        let expected = "values from 1 or more to twice that or more, up to 2^63 - 1";
        return Err(Fault::new(FIELD, expected, format!("{low} to {high}")));
    }
    let shape = Shape { low, high, digits };
    if 63 < low.ilog2() + shape.sub_bits() {
        let expected = format!("a lowest value that {digits} digits can tell from others");
        return Err(Fault::new(FIELD, expected, low.to_string()));
    }
    Ok(shape)
}

/// A number of 1 to 9 bytes, the ninth with 8 bits, small ones of either sign first.
fn zig_zag(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for place in 0..9 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        if place == 8 {
            value |= u64::from(*byte) << 56;
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// The big-endian number at an offset.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
