//! Durations, sizes, counts and rates as people type and read them: `10s`, `4KiB`, `50k`.
//!
//! A duration without a unit is refused, for nobody can tell whether `-d 10` means seconds or milliseconds.

use std::time::Duration;

/// Parses a duration with its unit (`ns`, `us`, `ms`, `s`, `m`, `h`), fractions allowed: `1.5s`. Zero is fine here; a
/// flag that needs more says so itself.
///
/// # Errors
/// A sentence that says what is wrong and how to write it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let scale_ns = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3_600e9,
        "" if !number.is_empty() => {
            return Err(format!(
                "the unit is missing: write {number}s or {number}ms"
            ));
        }
        _ => {
            return Err(
                "a duration is a number with one of the units ns, us, ms, s, m, h: 10s, 500ms"
                    .to_owned(),
            );
        }
    };
    let ns = decimal(number).ok_or("a duration starts with a number: 10s, 1.5ms")? * scale_ns;
    if ns > DURATION_NS_MAX {
        return Err("longer than 30 days, which is the most that can be asked for".to_owned());
    }
    Ok(Duration::from_nanos(ns.round() as u64))
}

/// Thirty days: far beyond any run, and small enough that no sum of two instants can overflow.
const DURATION_NS_MAX: f64 = 30.0 * 86_400e9;

/// Parses a size in bytes: a plain number, or with `KiB`, `MiB`, `GiB` (powers of two; `K`, `M`, `G` mean the same) or
/// `KB`, `MB`, `GB` (powers of ten).
///
/// # Errors
/// A sentence that says what is wrong and how to write it.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let scale: f64 =
        match unit {
            "" | "B" => 1.0,
            "K" | "k" | "KiB" => 1024.0,
            "M" | "MiB" => 1024.0 * 1024.0,
            "G" | "GiB" => 1024.0 * 1024.0 * 1024.0,
            "KB" | "kB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            _ => return Err(
                "a size is a number of bytes, or has one of the units B, KiB, MiB, GiB, KB, MB, GB"
                    .to_owned(),
            ),
        };
    whole(number, scale)
        .ok_or_else(|| "a size is a whole number of bytes: 64, 4KiB, 1MB".to_owned())
}

/// Parses a count: a whole number, with `k` or `M` for thousands and millions (`50k`, `1.5k`).
///
/// # Errors
/// A sentence that says what is wrong and how to write it.
pub fn count(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let scale =
        count_scale(unit).ok_or("a count is a whole number, with k or M if you like: 64, 1k")?;
    whole(number, scale)
        .ok_or_else(|| "a count is a whole number, with k or M if you like: 64, 1k".to_owned())
}

/// Parses a rate per second, above 0 and up to 1 G: `20k`, `0.5`, `1.5M`.
///
/// # Errors
/// A sentence that says what is wrong and how to write it.
pub fn rate(text: &str) -> Result<f64, String> {
    let (number, unit) = split(text);
    let rate = count_scale(unit)
        .and_then(|scale| decimal(number).map(|number| number * scale))
        .ok_or("a rate is a number a second, with k or M if you like: 500, 20k, 1.5M")?;
    if rate <= 0.0 {
        return Err(
            "a rate of 0 sends nothing: give messages per second, or leave -R away for closed loop"
                .to_owned(),
        );
    }
    if !(1e-3..=1e9).contains(&rate) {
        return Err("a rate lies between 0.001 and 1,000,000,000 per second".to_owned());
    }
    Ok(rate)
}

/// Says a time in ns in the unit that keeps it short: `873 ns`, `24.1 us`, `1.02 ms`, `3.00 s`. Three digits, no more
/// than the histograms hold.
pub fn show_ns(ns: u64) -> String {
    let value = ns as f64;
    match ns {
        0..=999 => format!("{ns} ns"),
        1_000..=999_499 => three_digits(value / 1e3, "us"),
        999_500..=999_499_999 => three_digits(value / 1e6, "ms"),
        _ => three_digits(value / 1e9, "s"),
    }
}

/// Says a duration as it would be typed: `10s`, `500ms`, `1.5s`.
pub fn show_duration(duration: Duration) -> String {
    // The largest unit that leaves at most three decimals, which is how people think of durations.
    for (unit, ns) in [("s", 1e9), ("ms", 1e6), ("us", 1e3)] {
        let value = duration.as_nanos() as f64 / ns;
        if 1.0 <= value && (value * 1_000.0).fract() == 0.0 {
            return format!("{value}{unit}");
        }
    }
    if duration.is_zero() {
        "0s".to_owned()
    } else {
        format!("{}ns", duration.as_nanos())
    }
}

/// Says a number of bytes: `64 B`, `4 KiB`, `1.5 MiB`.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (scale, unit) in UNITS {
        if scale <= bytes {
            let value = bytes as f64 / scale as f64;
            return if bytes.is_multiple_of(scale) {
                format!("{value} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
    }
    format!("{bytes} B")
}

/// Says a whole number with commas between the thousands: `1,234,567`.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Says a rate per second, without the "per second": `20,000`, and below 1,000 with up to three decimals, since half a
/// message per second is neither 0 nor 1. Of measured rates no more than four digits are meant.
pub fn show_rate(per_s: f64) -> String {
    let decimals = match per_s {
        _ if per_s.fract() == 0.0 || 999.95 <= per_s => return show_count(per_s.round() as u64),
        _ if per_s < 0.0005 => return "below 0.001".to_owned(),
        _ if per_s < 9.9995 => 3,
        _ if per_s < 99.995 => 2,
        _ => 1,
    };
    let text = format!("{per_s:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn three_digits(value: f64, unit: &str) -> String {
    if value < 9.995 {
        format!("{value:.2} {unit}")
    } else if value < 99.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// A count with its noun, which gets an `s` unless there is one of them: `1 connection`, `1,000 connections`.
pub fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", show_count(count))
}

/// The number in front and whatever follows it, both trimmed.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// Digits with at most one point; neither signs nor exponents nor `inf`, which `f64::from_str` would take.
fn decimal(number: &str) -> Option<f64> {
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain { number.parse().ok() } else { None }
}

fn count_scale(unit: &str) -> Option<f64> {
    match unit {
        "" => Some(1.0),
        "k" | "K" => Some(1e3),
        "M" => Some(1e6),
        _ => None,
    }
}

/// `number * scale`, if that is a whole number of those that doubles tell apart.
fn whole(number: &str, scale: f64) -> Option<u64> {
    let value = decimal(number)? * scale;
    // Most decimal fractions are none in binary: 1.001 * 1000 is 1000.9999999999999. The text and the product are each
    // rounded to half an epsilon.
    let nearest = value.round();
    let whole = (value - nearest).abs() <= nearest * f64::EPSILON;
    (whole && value <= 9_007_199_254_740_992.0).then_some(nearest as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(counted(1, "message"), "1 message");
        assert_eq!(counted(0, "message"), "0 messages");
        assert_eq!(counted(12_345, "message"), "12,345 messages");
    }

    #[test]
    fn small_rates_are_not_rounded_away() {
        let shown = [
            0.0, 0.5, 0.4987, 0.0001, 1.0, 2.999_9, 12.345, 123.45, 999.94, 20_000.4,
        ];
        let expected = [
            "0",
            "0.5",
            "0.499",
            "below 0.001",
            "1",
            "3",
            "12.35",
            "123.5",
            "999.9",
            "20,000",
        ];
        assert_eq!(shown.map(show_rate), expected);
    }

    #[test]
    fn durations_need_their_unit() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5ms"), Ok(Duration::from_micros(1_500)));
        assert_eq!(duration("2 m"), Ok(Duration::from_secs(120)));
        assert!(duration("10").unwrap_err().contains("unit is missing"));
        for wrong in [
            "",
            "s",
            "ten",
            "-1s",
            "1e3s",
            "inf",
            "1.2.3s",
            "10 parsecs",
            "9999999h",
        ] {
            assert!(duration(wrong).is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn sizes_and_counts() {
        assert_eq!(size("64"), Ok(64));
        assert_eq!(size("4KiB"), Ok(4096));
        assert_eq!(size("1MB"), Ok(1_000_000));
        assert_eq!(size("1.5K"), Ok(1536));
        assert!(size("0.3").is_err());
        assert_eq!(count("1.5k"), Ok(1_500));
        assert_eq!(count("2M"), Ok(2_000_000));
        for thousandths in 1..10_000 {
            let text = format!("{}.{:03}k", thousandths / 1_000, thousandths % 1_000);
            assert_eq!(count(&text), Ok(thousandths), "{text}");
        }
        assert!(count("1.0001k").is_err());
        assert!(count("2KiB").is_err());
        assert!(count("99999999999999999999999").is_err());
    }

    #[test]
    fn durations_are_said_as_they_are_typed() {
        let said = [
            "10s",
            "500ms",
            "1.5s",
            "90s",
            "250us",
            "0s",
            "17ns",
            "1.000001s",
        ]
        .map(|text| {
            let shown = show_duration(duration(text).unwrap());
            assert_eq!(duration(&shown), duration(text), "{shown}");
            shown
        });
        assert_eq!(
            said[..7],
            ["10s", "500ms", "1.5s", "90s", "250us", "0s", "17ns"]
        );
    }

    #[test]
    fn a_rate_is_never_zero() {
        assert_eq!(rate("20k"), Ok(20_000.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("0").unwrap_err().contains("sends nothing"));
        assert!(rate("nan").is_err() && rate("1e9").is_err() && rate("2000M").is_err());
    }

    #[test]
    fn times_keep_three_digits() {
        let shown = [
            873,
            1_000,
            24_123,
            999_499,
            999_500,
            1_020_000,
            3_000_000_000,
        ]
        .map(show_ns);
        assert_eq!(
            shown,
            [
                "873 ns", "1.00 us", "24.1 us", "999 us", "1.00 ms", "1.02 ms", "3.00 s"
            ]
        );
        assert_eq!(show_size(4096), "4 KiB");
        assert_eq!(show_count(1_234_567), "1,234,567");
        assert_eq!(show_count(64), "64");
    }

    proptest! {
        #[test]
        fn nothing_typed_makes_it_panic(text in "\\PC{0,12}") {
            let _ = (duration(&text), size(&text), count(&text), rate(&text));
        }

        #[test]
        fn whole_milliseconds_come_back(ms in 0u64..1_000_000_000) {
            prop_assert_eq!(duration(&format!("{ms}ms")), Ok(Duration::from_millis(ms)));
        }
    }
}
