//! Charts as SVG files, for READMEs and papers, drawn by plotters. The same data give the same bytes, so that CI can tell
//! whether a figure is still that of its result.

use std::ops::Range;

use anyhow::anyhow;
use plotters::{
    coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
    prelude::*,
};

use echometer_host::units::{show_count, show_ns};

use crate::page::chart::{Axis, Chart, Forest, Mark, Scale, Unit, percent};

const WIDTH: u32 = 760;
const HEIGHT: u32 = 420;
const ROW_HEIGHT: u32 = 34;
/// Okabe and Ito's, as in the HTML report.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const RULE: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const BAND: RGBColor = RGBColor(0xdb, 0xe7, 0xf5);

/// A chart as SVG.
///
/// # Errors
/// Plotters can't draw it, which is a fault of this program.
pub(crate) fn chart(chart: &Chart) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw_chart(
        chart,
        &SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area(),
    )
    .map_err(|error| anyhow!("cannot draw '{}': {error}", chart.title))?;
    Ok(closed(svg))
}

/// A forest of ratios as SVG.
///
/// # Errors
/// As for [`chart()`].
pub(crate) fn forest(forest: &Forest) -> anyhow::Result<String> {
    let height = 90 + ROW_HEIGHT * forest.rows.len() as u32;
    let mut svg = String::new();
    draw_forest(
        forest,
        &SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area(),
    )
    .map_err(|error| anyhow!("cannot draw '{}': {error}", forest.title))?;
    Ok(closed(svg))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Fault = Box<dyn std::error::Error>;

fn draw_chart(chart: &Chart, area: &Area<'_>) -> Result<(), Fault> {
    area.fill(&WHITE)?;
    let all = || chart.series.iter().flat_map(|series| &series.points);
    let xs = Ticked::of(&chart.x, &chart.marks, all().map(|point| point.x));
    let ys = Ticked::of(
        &chart.y,
        &[],
        all().flat_map(|point| [Some(point.y), point.low, point.high].into_iter().flatten()),
    );
    let (x_end, y_ends) = (xs.ends.1, ys.ends);
    let mut canvas = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", 18).into_font().color(&INK))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(xs, ys)?;
    canvas
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RULE)
        .axis_style(INK)
        .label_style(("sans-serif", 12).into_font().color(&INK))
        .axis_desc_style(("sans-serif", 13).into_font().color(&INK))
        .x_desc(&chart.x.label)
        .y_desc(&chart.y.label)
        .draw()?;
    for mark in chart.marks.iter().filter(|_| chart.x.unit != Unit::Name) {
        let line = [(mark.x, y_ends.0), (mark.x, y_ends.1)];
        canvas.draw_series([PathElement::new(line, INK.mix(0.5))])?;
        canvas.draw_series([Text::new(
            mark.label.clone(),
            (mark.x.min(x_end), y_ends.1),
            ("sans-serif", 11).into_font().color(&INK),
        )])?;
    }
    for (series, index) in chart.series.iter().zip(0_usize..) {
        let colour = COLOURS[index % COLOURS.len()];
        let points = series.points.iter().map(|point| (point.x, point.y));
        if series.dots || (!series.steps && series.points.len() < 40) {
            let dots = points.clone().map(|at| Circle::new(at, 3, colour.filled()));
            canvas.draw_series(dots)?;
        }
        if !series.dots {
            let line: Vec<(f64, f64)> = match series.steps {
                false => points.collect(),
                true => series
                    .points
                    .windows(2)
                    .flat_map(|pair| [(pair[0].x, pair[0].y), (pair[1].x, pair[0].y)])
                    .collect(),
            };
            canvas.draw_series([PathElement::new(line, colour.stroke_width(2))])?;
        }
        let intervals = series
            .points
            .iter()
            .filter_map(|point| Some([(point.x, point.low?), (point.x, point.high?)]));
        canvas.draw_series(intervals.map(|ends| PathElement::new(ends, colour.stroke_width(2))))?;
        // An empty series, for its entry in the legend alone.
        canvas
            .draw_series(std::iter::empty::<PathElement<(f64, f64)>>())?
            .label(&series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    canvas
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(RULE)
        .label_font(("sans-serif", 12).into_font().color(&INK))
        .draw()?;
    area.present()?;
    Ok(())
}

fn draw_forest(forest: &Forest, area: &Area<'_>) -> Result<(), Fault> {
    const LEFT: i32 = 210;
    const RIGHT: i32 = 560;
    const TOP: i32 = 50;
    area.fill(&WHITE)?;
    let at = |ratio: f64| LEFT + (forest.place(ratio) * f64::from(RIGHT - LEFT)).round() as i32;
    let bottom = TOP + (ROW_HEIGHT as i32) * forest.rows.len() as i32;
    let ink = |size: i32| ("sans-serif", size).into_font().color(&INK);
    area.draw(&Text::new(forest.title.clone(), (16, 14), ink(18)))?;
    let band = [
        (at(1.0 - forest.margin), TOP),
        (at(1.0 + forest.margin), bottom),
    ];
    area.draw(&Rectangle::new(band, BAND.filled()))?;
    for tick in forest.ticks() {
        let colour = if tick == 1.0 { INK } else { RULE };
        area.draw(&PathElement::new(
            [(at(tick), TOP), (at(tick), bottom)],
            colour,
        ))?;
        let text = format!("{tick:.3}");
        let text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
        area.draw(&Text::new(text, (at(tick) - 10, bottom + 8), ink(12)))?;
    }
    for (row, index) in forest.rows.iter().zip(0_i32..) {
        let y = TOP + ROW_HEIGHT as i32 * index + ROW_HEIGHT as i32 / 2;
        let colour = match row.verdict.as_str() {
            "better" => COLOURS[2],
            "worse" => COLOURS[1],
            _ => INK,
        };
        area.draw(&Text::new(row.label.clone(), (16, y - 7), ink(13)))?;
        if let (Some(low), Some(high)) = (row.low, row.high) {
            let line = [(at(low), y), (at(high), y)];
            area.draw(&PathElement::new(line, colour.stroke_width(3)))?;
        }
        let Some(ratio) = row.ratio else { continue };
        area.draw(&Circle::new((at(ratio), y), 5, colour.filled()))?;
        let words = format!("{ratio:.3}  {}", row.verdict);
        area.draw(&Text::new(words, (RIGHT + 24, y - 7), ink(13)))?;
    }
    area.present()?;
    Ok(())
}

/// Plotters ends its text without a line feed.
fn closed(mut svg: String) -> String {
    if !svg.ends_with('\n') {
        svg.push('\n');
    }
    svg
}

/// An axis whose ticks are chosen here: round numbers, or powers of ten.
#[derive(Clone)]
struct Ticked {
    ends: (f64, f64),
    ticks: Vec<f64>,
    log: bool,
    unit: Unit,
    names: Vec<Mark>,
}

impl Ticked {
    fn of(axis: &Axis, marks: &[Mark], values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        if !(low.is_finite() && high.is_finite()) {
            (low, high) = (1.0, 10.0);
        }
        let log = axis.scale == Scale::Log && 0.0 < low;
        let ends = match log {
            true => (low / 1.15, high * 1.15),
            false if 0.0 <= low && low < 0.6 * high && axis.unit != Unit::Name => {
                (0.0, high * 1.05)
            }
            false => {
                let room = (high - low).max(high.abs() * 0.01).max(f64::MIN_POSITIVE) * 0.08;
                (low - room, high + room)
            }
        };
        let names = match axis.unit {
            Unit::Name => marks.to_vec(),
            _ => Vec::new(),
        };
        let mut ticks: Vec<f64> = names.iter().map(|name| name.x).collect();
        if ticks.is_empty() {
            ticks = if log { powers(ends) } else { round_steps(ends) };
        }
        Self {
            ends,
            ticks,
            log,
            unit: axis.unit,
            names,
        }
    }

    fn scaled(&self, value: f64) -> f64 {
        if self.log {
            value.max(f64::MIN_POSITIVE).ln()
        } else {
            value
        }
    }
}

/// Powers of ten, and 2 and 5 times those where there are fewer than three.
fn powers((low, high): (f64, f64)) -> Vec<f64> {
    let exponents = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let times = |factors: &[f64]| -> Vec<f64> {
        let all = exponents.clone().flat_map(|exponent| {
            factors
                .iter()
                .map(move |factor| factor * 10_f64.powi(exponent))
        });
        all.filter(|tick| (low..=high).contains(tick)).collect()
    };
    let tens = times(&[1.0]);
    if tens.len() < 3 {
        times(&[1.0, 2.0, 5.0])
    } else {
        tens
    }
}

fn round_steps((low, high): (f64, f64)) -> Vec<f64> {
    let rough = (high - low) / 6.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| rough <= *step)
        .unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|index| index as f64 * step).collect()
}

impl Ranged for Ticked {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let (low, high) = (self.scaled(self.ends.0), self.scaled(self.ends.1));
        let share = (self.scaled(*value) - low) / (high - low);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.ends.0..self.ends.1
    }
}

impl ValueFormatter<f64> for Ticked {
    fn format_ext(&self, value: &f64) -> String {
        match self.unit {
            Unit::Ns => show_ns(value.round().max(0.0) as u64),
            Unit::Quantile => percent(1.0 - 1.0 / value),
            Unit::Number if *value == value.round() => show_count(value.max(0.0) as u64),
            Unit::Number => format!("{value:.2}"),
            Unit::Seconds => format!("{value} s"),
            Unit::Name => self
                .names
                .iter()
                .find(|name| name.x == *value)
                .map(|name| name.label.clone())
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::chart::{ForestRow, spectrum};

    #[test]
    fn a_chart_has_its_lines_and_words_and_is_the_same_each_time() {
        let mut values = echometer_loadgen::recorder::histogram();
        (1..=100_000).for_each(|value| values.record(value).expect("it fits"));
        let made = spectrum(&[("epoll".into(), &values), ("uring".into(), &values)]);
        let svg = chart(&made).expect("it can be drawn");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        for part in [
            "polyline",
            "epoll",
            "uring",
            "99 %",
            "Latency by percentile",
        ] {
            assert!(svg.contains(part), "{part}");
        }
        assert_eq!(svg, chart(&made).expect("again"));
    }

    #[test]
    fn a_forest_has_a_row_each_metric() {
        let made = Forest {
            id: "f".into(),
            title: "uring / epoll".into(),
            caption: String::new(),
            margin: 0.02,
            rows: vec![ForestRow {
                label: "rate".into(),
                ratio: Some(1.1),
                low: Some(1.05),
                high: Some(1.2),
                verdict: "better".into(),
                lower_is_better: false,
            }],
        };
        let svg = forest(&made).expect("it can be drawn");
        for part in ["uring / epoll", "rate", "1.100  better", "circle"] {
            assert!(svg.contains(part), "{part}");
        }
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            round_steps((0.0, 60.0)),
            [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
        );
        assert_eq!(powers((0.9, 1_500.0)), [1.0, 10.0, 100.0, 1_000.0]);
        assert_eq!(powers((15.0, 60.0)), [20.0, 50.0]);
    }
}
