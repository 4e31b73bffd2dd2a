//! Charts as plain data: lines over two axes, and forests of ratios. Each carries its text equivalent.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::page::table::{Cell, Table};

/// Lines or dots over two axes.
#[derive(Debug, Clone, Serialize)]
pub struct Chart {
    /// Short and unique on the page: names its element, and its file.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// How to read it, in a sentence.
    pub caption: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
    /// Upright lines with words.
    pub marks: Vec<Mark>,
    /// The same for those who can't see it, or want to copy it.
    pub figures: Table,
}

/// An axis.
#[derive(Debug, Clone, Serialize)]
pub struct Axis {
    /// What it counts.
    pub label: String,
    /// How its values are spaced.
    pub scale: Scale,
    /// How its values are written.
    pub unit: Unit,
}

/// How an axis' values are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By powers of ten; values are above 0.
    Log,
}

/// How an axis' values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Nanoseconds.
    Ns,
    /// 1/(1-q) of a quantile q: 100 is written 99 %.
    Quantile,
    /// A plain number.
    Number,
    /// Seconds.
    Seconds,
    /// The n-th of [`Axis::label`]'s names, counted from 1; see [`Chart::marks`].
    Name,
}

/// A line.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Series {
    /// What it stands for.
    pub name: String,
    /// In the order of x.
    pub points: Vec<Point>,
    /// Dots without a line between them.
    pub dots: bool,
    /// Steps, each from its x to the next.
    pub steps: bool,
}

/// A point, perhaps with an interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Upwards.
    pub y: f64,
    /// Where its interval begins.
    pub low: Option<f64>,
    /// Where its interval ends.
    pub high: Option<f64>,
}

/// An upright line with a word.
#[derive(Debug, Clone, Serialize)]
pub struct Mark {
    /// Where.
    pub x: f64,
    /// What.
    pub label: String,
}

/// Ratios with their intervals, one below the other.
#[derive(Debug, Clone, Serialize)]
pub struct Forest {
    /// Short and unique on the page.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// A difference smaller than this share is of no practical use.
    pub margin: f64,
    /// From top to bottom.
    pub rows: Vec<ForestRow>,
}

/// One ratio.
#[derive(Debug, Clone, Serialize)]
pub struct ForestRow {
    /// Of what.
    pub label: String,
    /// arm / baseline.
    pub ratio: Option<f64>,
    /// Where its interval begins.
    pub low: Option<f64>,
    /// Where its interval ends.
    pub high: Option<f64>,
    /// The word for it.
    pub verdict: String,
    /// Whether less is better.
    pub lower_is_better: bool,
}

impl Point {
    /// A point without an interval.
    #[must_use]
    pub fn at(x: f64, y: f64) -> Self {
        Self {
            x,
            y,
            low: None,
            high: None,
        }
    }
}

impl Chart {
    /// Whether there is anything to draw.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.is_empty())
    }
}

impl Forest {
    /// The ends of its axis: every interval and the margin on both sides, with some room. Ratios are above 0.
    #[must_use]
    pub fn range(&self) -> (f64, f64) {
        let values = self
            .rows
            .iter()
            .flat_map(|row| [row.ratio, row.low, row.high])
            .flatten()
            .filter(|ratio| ratio.is_finite() && 0.0 < *ratio);
        let around = |ratio: f64| ratio.max(1.0 / ratio);
        let widest = values.map(around).fold(1.0 + 2.0 * self.margin, f64::max);
        let widest = widest.powf(1.08);
        (1.0 / widest, widest)
    }

    /// Where a ratio lies between the ends, 0 to 1, in the logarithm.
    #[must_use]
    pub fn place(&self, ratio: f64) -> f64 {
        let (low, high) = self.range();
        ((ratio.ln() - low.ln()) / (high.ln() - low.ln())).clamp(0.0, 1.0)
    }

    /// The ratios at which its axis is labelled: 1, and as round ones on both sides as there is room for.
    #[must_use]
    pub fn ticks(&self) -> Vec<f64> {
        const STEPS: [(f64, f64); 9] = [
            (0.99, 1.01),
            (0.98, 1.02),
            (0.95, 1.05),
            (0.9, 1.1),
            (0.8, 1.25),
            (0.7, 1.5),
            (0.5, 2.0),
            (0.2, 5.0),
            (0.1, 10.0),
        ];
        let (_, high) = self.range();
        let fitting: Vec<(f64, f64)> = STEPS
            .into_iter()
            .filter(|(below, above)| above.max(1.0 / below) < high)
            .collect();
        let mut ticks = vec![1.0];
        for (below, above) in fitting.iter().rev().step_by(2).take(2) {
            ticks.extend([*below, *above]);
        }
        ticks.sort_by(f64::total_cmp);
        ticks
    }
}

/// The percentile spectrum of histograms in ns: value over 1/(1-q), as far as ten samples lie above.
#[must_use]
pub fn spectrum(of: &[(String, &Histogram<u64>)]) -> Chart {
    const QUANTILES: [f64; 7] = [0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 0.99999];
    const SAMPLES_ABOVE_MIN: f64 = 10.0;
    let series = of.iter().map(|(name, histogram)| {
        let count = histogram.len() as f64;
        let mut points: Vec<Point> = Vec::new();
        for step in histogram.iter_quantiles(6) {
            let quantile = step.quantile_iterated_to();
            if 1.0 <= quantile || (1.0 - quantile) * count < SAMPLES_ABOVE_MIN {
                break;
            }
            points.push(Point::at(
                1.0 / (1.0 - quantile),
                step.value_iterated_to().max(1) as f64,
            ));
        }
        points.dedup_by(|later, earlier| later.x == earlier.x);
        Series {
            name: name.clone(),
            points,
            ..Series::default()
        }
    });
    let mut figures = Table::new(
        "Latency by percentile",
        ["percentile".to_owned()]
            .into_iter()
            .chain(of.iter().map(|(name, _)| name.clone())),
    );
    for quantile in QUANTILES {
        let cells: Vec<Cell> = of
            .iter()
            .map(|(_, histogram)| {
                let value = echometer_loadgen::file::quantile(histogram, quantile);
                Cell::ns(value.map(|value| value as f64))
            })
            .collect();
        if cells.iter().any(|cell| cell.number.is_some()) {
            let mut row = vec![Cell::text(percent(quantile))];
            row.extend(cells);
            figures.push(row);
        }
    }
    let mut row = vec![Cell::text("greatest")];
    row.extend(
        of.iter()
            .map(|(_, histogram)| Cell::ns(Some(histogram.max() as f64))),
    );
    figures.push(row);
    Chart {
        id: "spectrum".into(),
        title: "Latency by percentile".into(),
        caption: "How long the slowest of so many messages took: further right is rarer, lower is better. Each line ends \
                  where fewer than ten samples lie above it."
            .into(),
        x: Axis {
            label: "percentile".into(),
            scale: Scale::Log,
            unit: Unit::Quantile,
        },
        y: Axis {
            label: "latency".into(),
            scale: Scale::Log,
            unit: Unit::Ns,
        },
        series: series.collect(),
        marks: Vec::new(),
        figures,
    }
}

/// How often a connection took how long, and where the kernel sends a lost SYN again.
#[must_use]
pub fn connect_times(of: &[(String, &Histogram<u64>)], linear_timeouts: Option<u64>) -> Chart {
    let mut figures = Table::new(
        "Connections by the time they took",
        ["", "up to", "connections"],
    );
    let mut most: u64 = 0;
    let series: Vec<Series> = of
        .iter()
        .map(|(name, histogram)| {
            most = most.max(histogram.max());
            // Steps of a quarter of a power of two from 1 us on: fine enough to tell 1.0 s from 1.2 s.
            let edge = |step: i32| 1_000.0 * 2.0_f64.powf(f64::from(step) / 4.0);
            let mut counts: BTreeMap<i32, u64> = BTreeMap::new();
            for value in histogram.iter_recorded() {
                let doublings = (value.value_iterated_to().max(1_000) as f64 / 1_000.0).log2();
                *counts.entry((doublings * 4.0) as i32).or_default() += value.count_at_value();
            }
            let (first, last) = (counts.keys().next(), counts.keys().next_back());
            let steps = first.zip(last).map(|(first, last)| *first - 1..=*last + 1);
            let points = steps.into_iter().flatten().map(|step| {
                let count = counts.get(&step).copied().unwrap_or(0);
                Point::at(edge(step), count as f64)
            });
            for (step, count) in &counts {
                figures.push(vec![
                    Cell::text(name.clone()),
                    Cell::ns(Some(edge(step + 1))),
                    Cell::count(Some(*count as f64)),
                ]);
            }
            Series {
                name: name.clone(),
                points: points.collect(),
                steps: true,
                dots: false,
            }
        })
        .collect();
    // A kernel that does not tell is taken for one that doubles at once, as all did before Linux 6.5.
    let steps = syn_steps_s(linear_timeouts.unwrap_or(0));
    let marks = steps
        .into_iter()
        .filter(|step| *step as f64 * 1e9 <= most as f64 * 1.3)
        .map(|step| Mark {
            x: step as f64 * 1e9,
            label: format!("SYN {step} s"),
        });
    Chart {
        id: "connect".into(),
        title: "Time to connect".into(),
        caption: "How many connections took how long. A connection at a marked time lost its SYN to a full queue and sent \
                  it again then."
            .into(),
        x: Axis {
            label: "time to connect".into(),
            scale: Scale::Log,
            unit: Unit::Ns,
        },
        y: Axis {
            label: "connections".into(),
            scale: Scale::Linear,
            unit: Unit::Number,
        },
        series,
        marks: marks.collect(),
        figures,
    }
}

/// When a SYN that gets no answer is sent again, in seconds since the first: `linear` times a second apart
/// (`tcp_syn_linear_timeouts`), then in doubling distances, up to a minute.
fn syn_steps_s(linear: u64) -> Vec<u64> {
    let mut steps: Vec<u64> = (1..=linear.min(60)).collect();
    let (mut at, mut distance) = (linear.min(60), 1);
    while at + distance <= 60 {
        at += distance;
        distance *= 2;
        steps.push(at);
    }
    steps
}

/// `99.9 %`, without the noise of binary fractions.
#[must_use]
pub fn percent(quantile: f64) -> String {
    let text = format!("{:.6}", quantile * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl Iterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = echometer_loadgen::recorder::histogram();
        for value in values {
            histogram.record(value).expect("it fits");
        }
        histogram
    }

    #[test]
    fn a_spectrum_rises_and_ends_where_ten_samples_are_left() {
        let values = histogram(1..=1_000);
        let chart = spectrum(&[("a".into(), &values)]);
        let points = &chart.series[0].points;
        assert!(points.is_sorted_by(|one, next| one.x < next.x && one.y <= next.y));
        let last = points.last().expect("there are some");
        assert!((50.0..=100.0).contains(&last.x), "{last:?}");
        let shown: Vec<&str> = chart
            .figures
            .rows
            .iter()
            .map(|row| row[0].text.as_str())
            .collect();
        assert_eq!(shown, ["50 %", "75 %", "90 %", "99 %", "greatest"]);
        assert!(spectrum(&[("a".into(), &histogram(0..0))]).is_empty());
    }

    #[test]
    fn lost_syns_stand_at_their_marks() {
        let values = histogram(
            (0..90)
                .map(|_| 80_000)
                .chain((0..10).map(|_| 1_030_000_000)),
        );
        let chart = connect_times(&[("backlog 16".into(), &values)], Some(4));
        let labels: Vec<&str> = chart.marks.iter().map(|mark| mark.label.as_str()).collect();
        assert_eq!(labels, ["SYN 1 s"]);
        let total: f64 = chart.series[0].points.iter().map(|point| point.y).sum();
        assert!(
            (total - 100.0).abs() < 1e-9,
            "every connection is in a step: {total}"
        );
        assert_eq!(syn_steps_s(4), [1, 2, 3, 4, 5, 7, 11, 19, 35]);
        assert_eq!(syn_steps_s(0), [1, 3, 7, 15, 31]);
    }

    #[test]
    fn a_forest_holds_all_its_intervals() {
        let row = |low, high| ForestRow {
            label: "x".into(),
            ratio: Some(1.0),
            low,
            high,
            verdict: "same".into(),
            lower_is_better: true,
        };
        let forest = Forest {
            id: "f".into(),
            title: String::new(),
            caption: String::new(),
            margin: 0.02,
            rows: vec![row(Some(0.5), Some(1.1)), row(None, None)],
        };
        let (low, high) = forest.range();
        assert!(low < 0.5 && 2.0 < high);
        assert!((forest.place(1.0) - 0.5).abs() < 1e-9);
        assert!(forest.place(0.5) < forest.place(0.9));
        assert!(forest.ticks().contains(&1.0) && forest.ticks().contains(&2.0));
        assert_eq!(percent(0.9999), "99.99 %");
    }
}
