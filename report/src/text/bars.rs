//! Bars in plain text: a value each with the interval that it has, in at most 80 columns.

use std::fmt::Write as _;

/// The widest line.
const COLUMNS: usize = 80;
/// Longer labels are cut.
const LABEL_MAX: usize = 30;

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bar {
    /// What it stands for.
    pub label: String,
    /// Its length; `None` where there is no figure. Not negative.
    pub value: Option<f64>,
    /// The interval of the value, where there is one.
    pub interval: Option<(f64, f64)>,
    /// The value in words.
    pub shown: String,
}

/// All bars on one scale that begins at 0: full up to the interval's lower end, shaded to its upper end.
#[must_use]
pub(crate) fn bars(bars: &[Bar]) -> String {
    let chars = |text: &str| text.chars().count();
    let label_width = bars
        .iter()
        .map(|bar| chars(&bar.label))
        .max()
        .unwrap_or(0)
        .min(LABEL_MAX);
    let shown_width = bars.iter().map(|bar| chars(&bar.shown)).max().unwrap_or(0);
    let width = COLUMNS.saturating_sub(label_width + shown_width + 4).max(8);
    let top = bars
        .iter()
        .filter_map(|bar| Some(bar.interval.map_or(bar.value?, |(_, high)| high)))
        .fold(0.0, f64::max);
    let cells = |value: f64| match 0.0 < top {
        true => (value / top * width as f64)
            .round()
            .clamp(0.0, width as f64) as usize,
        false => 0,
    };
    let mut text = String::new();
    for bar in bars {
        let label: String = bar.label.chars().take(label_width).collect();
        let (full, shaded) = match (bar.value, bar.interval) {
            (Some(_), Some((low, high))) => (cells(low), cells(high) - cells(low)),
            (Some(value), None) => (cells(value), 0),
            (None, _) => (0, 0),
        };
        let drawn = format!("{}{}", "█".repeat(full), "░".repeat(shaded));
        let line = format!(
            "{label:<label_width$}  {:>shown_width$}  {drawn}",
            bar.shown
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, value: Option<f64>, interval: Option<(f64, f64)>) -> Bar {
        Bar {
            label: label.to_owned(),
            value,
            interval,
            shown: value.map_or("-".to_owned(), |value| format!("{value} us")),
        }
    }

    #[test]
    fn the_longest_bar_ends_at_the_margin_and_the_others_stand_to_it() {
        let text = bars(&[
            bar("connections=1", Some(10.0), Some((9.0, 10.0))),
            bar("connections=1000", Some(5.0), None),
            bar("connections=1M", None, None),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        let width = |line: &str| line.chars().count();
        let count = |line: &str, mark| line.chars().filter(|&c| c == mark).count();
        assert_eq!(width(lines[0]), COLUMNS);
        let (full, shaded) = (count(lines[0], '█'), count(lines[0], '░'));
        assert!((full as f64 / (full + shaded) as f64 - 0.9).abs() < 0.02);
        assert!(count(lines[1], '█').abs_diff((full + shaded) / 2) <= 1);
        assert!(lines[2].ends_with('-'));
    }

    #[test]
    fn long_labels_and_no_bars_are_no_trouble() {
        assert_eq!(bars(&[]), "");
        let text = bars(&[bar(&"x".repeat(100), Some(0.0), None)]);
        assert!(text.trim_end().chars().count() <= COLUMNS, "{text}");
    }
}
