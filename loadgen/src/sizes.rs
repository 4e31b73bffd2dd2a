//! How long is a message? All alike, or a mix: each message's size follows from the seed, its connection and its number
//! on it, so that it does not depend on the order in which replies come.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use echometer_host::units;

/// The largest message, in bytes: 64 MiB.
pub const MESSAGE_SIZE_MAX: u32 = 64 << 20;

/// A mix of message sizes: `64:90%,4KiB:9%,64KiB:1%`. The shares add up to 100 %.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SizeMix {
    /// Bytes, and the share of messages in percent.
    entries: Vec<(u32, f64)>,
}

impl SizeMix {
    /// Its sizes in bytes with their shares of the messages in percent, as they were given.
    pub fn shares(&self) -> impl Iterator<Item = (u32, f64)> {
        self.entries.iter().copied()
    }

    /// The largest of its sizes, bytes.
    pub fn largest(&self) -> u32 {
        let sizes = self.entries.iter().map(|(size, _)| *size);
        sizes.max().expect("a mix has an entry")
    }
}

impl FromStr for SizeMix {
    type Err = String;

    fn from_str(text: &str) -> Result<SizeMix, String> {
        let mut entries = Vec::new();
        for entry in text.split(',') {
            let (size, share) = entry.split_once(':').ok_or_else(|| {
                format!("'{entry}' has no share: write a mix as 64:90%,4KiB:9%,64KiB:1%")
            })?;
            let percent = share
                .trim()
                .strip_suffix('%')
                .and_then(|share| share.trim().parse::<f64>().ok())
                .filter(|percent| 0.0 < *percent && *percent <= 100.0)
                .ok_or_else(|| {
                    format!("'{share}' is no share: give percent above 0, such as 90%")
                })?;
            entries.push((message_size(size.trim())?, percent));
        }
        let sum: f64 = entries.iter().map(|(_, percent)| percent).sum();
        if 1e-6 < (sum - 100.0).abs() {
            return Err(format!("the shares add up to {sum} %, and not to 100 %"));
        }
        Ok(SizeMix { entries })
    }
}

impl TryFrom<String> for SizeMix {
    type Error = String;

    fn try_from(text: String) -> Result<SizeMix, String> {
        text.parse()
    }
}

impl From<SizeMix> for String {
    fn from(mix: SizeMix) -> String {
        mix.to_string()
    }
}

impl fmt::Display for SizeMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (size, percent)) in self.entries.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{size}:{percent}%")?;
        }
        Ok(())
    }
}

/// Gives each message its size.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// The size of all, or of those that the mix leaves over by rounding.
    fixed: u32,
    /// Upper ends of the parts of 0..2^64, with their sizes, ascending; empty where all are alike.
    parts: Vec<(u64, u32)>,
    seed: u64,
}

impl Sizes {
    /// All messages have `size` bytes (1 or more).
    pub fn fixed(size: u32) -> Sizes {
        Sizes {
            fixed: size,
            parts: Vec::new(),
            seed: 0,
        }
    }

    /// Messages of a mix, by `seed`.
    pub fn mixed(mix: &SizeMix, seed: u64) -> Sizes {
        let mut sum = 0.0;
        let parts = mix
            .entries
            .iter()
            .map(|(size, percent)| {
                sum += percent;
                // A conversion from a float stays within the type's bounds.
                ((sum / 100.0 * 18_446_744_073_709_551_616.0) as u64, *size)
            })
            .collect();
        let (last, _) = *mix.entries.last().expect("a mix has an entry");
        Sizes {
            fixed: last,
            parts,
            seed,
        }
    }

    /// The size of the `number`-th message of a connection, which is the plan's `connection`.
    #[inline]
    pub fn of(&self, connection: u32, number: u64) -> u32 {
        if self.parts.is_empty() {
            return self.fixed;
        }
        let point = scatter(self.seed ^ scatter(u64::from(connection) << 40 ^ number));
        let part = self.parts.iter().find(|(end, _)| point < *end);
        part.map_or(self.fixed, |(_, size)| *size)
    }
}

/// SplitMix64's output function (Steele, Lea and Flood, OOPSLA'14): neighbours land far apart, evenly spread.
#[inline]
fn scatter(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

pub(crate) fn message_size(text: &str) -> Result<u32, String> {
    match units::size(text)? {
        0 => Err("a message of 0 bytes has no echo: give 1 or more".to_owned()),
        size => u32::try_from(size)
            .ok()
            .filter(|size| *size <= MESSAGE_SIZE_MAX)
            .ok_or_else(|| "at most 64 MiB per message".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_and_written() {
        let mix: SizeMix = "64:90%,4KiB:9.5%, 64KiB:0.5%".parse().unwrap();
        assert_eq!(mix.largest(), 65_536);
        assert_eq!(mix.to_string(), "64:90%,4096:9.5%,65536:0.5%");
        let json = serde_json::to_string(&mix).unwrap();
        assert_eq!(serde_json::from_str::<SizeMix>(&json).unwrap(), mix);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            ("64:90%,4KiB:9%", "99 %"),
            ("64:90%,4KiB", "has no share"),
            ("64:90,4KiB:10%", "no share"),
            ("64:0%,4KiB:100%", "above 0"),
            ("0:100%", "0 bytes"),
            ("65MiB:100%", "64 MiB"),
            ("64,", "no share"),
        ] {
            let error = text.parse::<SizeMix>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn shares_hold_and_are_repeatable() {
        let mix: SizeMix = "64:90%,4096:9%,65536:1%".parse().unwrap();
        let sizes = Sizes::mixed(&mix, 7);
        let count = |wanted| {
            (0..100u32)
                .flat_map(|connection| (0..1_000).map(move |number| (connection, number)))
                .filter(|(connection, number)| sizes.of(*connection, *number) == wanted)
                .count() as f64
        };
        // Of 100,000: binomial, five standard deviations.
        for (size, share) in [(64, 0.9), (4096, 0.09), (65_536, 0.01)] {
            let expected: f64 = 100_000.0 * share;
            let deviation = (expected * (1.0 - share)).sqrt();
            assert!((count(size) - expected).abs() < 5.0 * deviation, "{size}");
        }
        let again = Sizes::mixed(&mix, 7);
        let other = Sizes::mixed(&mix, 8);
        let row = |sizes: &Sizes| (0..500).map(|n| sizes.of(3, n)).collect::<Vec<_>>();
        assert_eq!(row(&sizes), row(&again));
        assert_ne!(row(&sizes), row(&other));
        assert_eq!(Sizes::fixed(9).of(1, 1), 9);
    }
}
