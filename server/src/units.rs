//! Durations and sizes as people type them. A duration without its unit is refused: `-d 10` has meant seconds,
//! milliseconds and messages in the tools that guessed.

use std::time::Duration;

/// Reads a duration: a number, perhaps with decimals, and its unit at once after it (`20us`, `1.5ms`, `2s`).
///
/// # Errors
/// A text that says what is wrong and which units there are.
pub fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: &[(&str, u64)] = &[
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    const CHOICES: &str = "ns, us, ms, s, m or h, as in 1.5ms";
    if text.parse::<f64>().is_ok() {
        return Err(format!("`{text}` has no unit: add {CHOICES}"));
    }
    scaled(text, UNITS, CHOICES).map(Duration::from_nanos)
}

/// Reads a size in bytes: `4096`, `4KiB`, `1.5MiB`, `64kB`.
///
/// # Errors
/// A text that says what is wrong and which units there are.
pub fn size(text: &str) -> Result<u64, String> {
    const UNITS: &[(&str, u64)] = &[
        ("", 1),
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    scaled(
        text,
        UNITS,
        "B (or none), KiB, MiB, GiB, kB, MB or GB, as in 4KiB",
    )
}

/// `number` x the unit's value, exact to the last unit: 0.1 has no exact double, so the decimals are read as integers.
fn scaled(text: &str, units: &[(&str, u64)], choices: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || decimals.contains('.') || (number.ends_with('.')) {
        return Err(format!(
            "`{text}` is not a number with a unit: use {choices}"
        ));
    }
    let Some(&(_, value)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(format!(
            "`{text}` has the unknown unit `{unit}`: use {choices}"
        ));
    };
    let too_large = || format!("`{text}` is too large");
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let mut total = u128::from(whole) * u128::from(value);
    // More than 18 decimals cannot matter: the largest unit is 3.6e12.
    let decimals = &decimals[..decimals.len().min(18)];
    if !decimals.is_empty() {
        let fraction: u64 = decimals.parse().map_err(|_| too_large())?;
        total += u128::from(fraction) * u128::from(value) / 10u128.pow(decimals.len() as u32);
    }
    u64::try_from(total).map_err(|_| too_large())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_units() {
        assert_eq!(duration("20us"), Ok(Duration::from_micros(20)));
        assert_eq!(duration("1.1ms"), Ok(Duration::from_nanos(1_100_000)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("10").is_err_and(|e| e.contains("has no unit")));
        assert!(duration("0").is_err_and(|e| e.contains("has no unit")));
        for bad in [
            "",
            "ms",
            "1 ms",
            "-1ms",
            "1.ms",
            "1.2.3ms",
            ".5s",
            "1e3s",
            "1parsec",
            "99999999999999999999s",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_may_be_plain() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("4KiB"), Ok(4096));
        assert_eq!(size("1.5MiB"), Ok(1_572_864));
        assert_eq!(size("64kB"), Ok(64_000));
        for bad in ["", "KiB", "4kib", "4 KiB", "-1", "99999999999GiB", "1e3"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
