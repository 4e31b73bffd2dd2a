//! Thresholds: `--fail-if 'p99<200us'`. An expression says what is to hold; where it doesn't, the program ends with 99.
//!
//! `[OF.]FIGURE OP VALUE`. OF is `latency` (where nothing stands before the figure), `service`, `queue`, `send_lag`,
//! `recv_lag`, `connect` or `first_echo`; of these the figures are `min`, `mean`, `max` and quantiles: `p50`, `p99.9`. Besides there
//! are `rate` (replies a second), `errors` (connections that failed or could not be made) and `lost` (messages without
//! an answer). OP is one of `<`, `<=`, `>`, `>=`, `==`. Times carry a unit.

use std::{fmt, str::FromStr};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use echometer_host::units::{self, show_count, show_ns};

use crate::file::quantile;

/// What is to hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Threshold {
    text: String,
    figure: Figure,
    comparison: Comparison,
    /// ns, a second, or a count.
    limit: f64,
}

/// Whether it held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The expression as it was typed.
    pub expression: String,
    /// The figure: ns, a second, or a count. Null where too few samples lie above a quantile for it to be told.
    pub value: Option<f64>,
    /// The figure is only known to be at least that: it reaches messages without an answer.
    pub at_least: bool,
    /// What can't be told does not hold.
    pub holds: bool,
}

/// A histogram, and from where on its values are lower bounds.
pub type Censored<'a> = (&'a Histogram<u64>, Option<u64>);

/// A run's figures.
#[derive(Clone, Copy, Debug)]
pub struct Figures<'a> {
    /// Due or written to reply.
    pub latency: Censored<'a>,
    /// Written to reply.
    pub service: Censored<'a>,
    /// Waiting for room; `None` in closed loop.
    pub queue: Option<Censored<'a>>,
    /// The client's own lateness; `None` in closed loop.
    pub send_lag: Option<Censored<'a>>,
    /// Replies that waited for the client; `None` without the kernel's times.
    pub recv_lag: Option<Censored<'a>>,
    /// Connects.
    pub connect: Censored<'a>,
    /// Connects with the first answer.
    pub first_echo: Censored<'a>,
    /// Replies a second.
    pub rate_per_s: f64,
    /// Connections that failed or could not be made.
    pub errors: u64,
    /// Messages without an answer.
    pub lost: u64,
}

impl Threshold {
    /// Looks whether it holds.
    pub fn judge(&self, figures: &Figures<'_>) -> Held {
        let (value, at_least) = self.figure.of(figures);
        let holds = value.is_some_and(|value| {
            let holds = self.comparison.holds(value, self.limit);
            // A lower bound can be beyond a limit for certain, and never below one.
            let certain = matches!(self.comparison, Comparison::Above | Comparison::AtLeast);
            holds && (certain || !at_least)
        });
        Held {
            expression: self.text.clone(),
            value,
            at_least,
            holds,
        }
    }
}

impl Held {
    /// In one line for people: `p99<200us: no, it is 412 us`.
    pub fn line(&self) -> String {
        let word = if self.holds { "holds" } else { "FAILED" };
        // The expression was read once, or it would not be here.
        let is_time = self
            .expression
            .parse::<Threshold>()
            .is_ok_and(|threshold| matches!(threshold.figure, Figure::Time(..)));
        let value = match self.value {
            None => "too few samples to tell".to_owned(),
            Some(value) if is_time => show_ns(value.round() as u64),
            Some(value) => show_count(value.round() as u64),
        };
        let at_least = if self.at_least { ">=" } else { "" };
        format!("{}: {word}, {at_least}{value}", self.expression)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Figure {
    Time(Of, Statistic),
    Rate,
    Errors,
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    Latency,
    Service,
    Queue,
    SendLag,
    RecvLag,
    Connect,
    FirstEcho,
}

const OFS: [(&str, Of); 7] = [
    ("latency", Of::Latency),
    ("service", Of::Service),
    ("queue", Of::Queue),
    ("send_lag", Of::SendLag),
    ("recv_lag", Of::RecvLag),
    ("connect", Of::Connect),
    ("first_echo", Of::FirstEcho),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Statistic {
    Min,
    Mean,
    Max,
    /// A share below 1.
    Quantile(f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Below,
    AtMost,
    Above,
    AtLeast,
    Equal,
}

/// Those of two characters first, so that `<=` is not read as `<`.
const COMPARISONS: [(&str, Comparison); 5] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("==", Comparison::Equal),
    ("<", Comparison::Below),
    (">", Comparison::Above),
];

impl Figure {
    /// Its value, and whether that is only a lower bound.
    fn of(self, figures: &Figures<'_>) -> (Option<f64>, bool) {
        let (of, statistic) = match self {
            Figure::Rate => return (Some(figures.rate_per_s), false),
            Figure::Errors => return (Some(figures.errors as f64), false),
            Figure::Lost => return (Some(figures.lost as f64), false),
            Figure::Time(of, statistic) => (of, statistic),
        };
        let censored = match of {
            Of::Latency => Some(figures.latency),
            Of::Service => Some(figures.service),
            Of::Queue => figures.queue,
            Of::SendLag => figures.send_lag,
            Of::RecvLag => figures.recv_lag,
            Of::Connect => Some(figures.connect),
            Of::FirstEcho => Some(figures.first_echo),
        };
        let Some((histogram, from)) = censored.filter(|(histogram, _)| !histogram.is_empty())
        else {
            return (None, false);
        };
        let reaches =
            |value: u64| from.is_some_and(|from| histogram.lowest_equivalent(from) <= value);
        match statistic {
            Statistic::Min => (Some(histogram.min() as f64), reaches(histogram.min())),
            // Every censored value makes a mean a lower bound.
            Statistic::Mean => (Some(histogram.mean()), from.is_some()),
            Statistic::Max => (Some(histogram.max() as f64), from.is_some()),
            Statistic::Quantile(share) => match quantile(histogram, share) {
                Some(value) => (Some(value as f64), reaches(value)),
                None => (None, false),
            },
        }
    }
}

impl Comparison {
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Comparison::Below => value < limit,
            Comparison::AtMost => value <= limit,
            Comparison::Above => limit < value,
            Comparison::AtLeast => limit <= value,
            Comparison::Equal => value == limit,
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Threshold, String> {
        let (at, (sign, comparison)) = COMPARISONS
            .iter()
            .filter_map(|entry| Some((text.find(entry.0)?, entry)))
            .min_by_key(|(at, (sign, _))| (*at, usize::MAX - sign.len()))
            .ok_or(
                "no comparison: write what is to hold, such as p99<200us, rate>=50k or errors==0",
            )?;
        let (figure, value) = (text[..at].trim(), text[at + sign.len()..].trim());
        let figure = match figure {
            "rate" => Figure::Rate,
            "errors" => Figure::Errors,
            "lost" => Figure::Lost,
            _ => time_figure(figure)?,
        };
        let limit = match figure {
            Figure::Time(..) => units::duration(value)?.as_nanos() as f64,
            Figure::Rate => units::rate(value)?,
            Figure::Errors | Figure::Lost => units::count(value)? as f64,
        };
        Ok(Threshold {
            text: text.trim().to_owned(),
            figure,
            comparison: *comparison,
            limit,
        })
    }
}

fn time_figure(text: &str) -> Result<Figure, String> {
    let prefixed = OFS.iter().find_map(|(name, of)| {
        let rest = text.strip_prefix(name)?.strip_prefix('.')?;
        Some((*of, rest))
    });
    let (of, statistic) = prefixed.unwrap_or((Of::Latency, text));
    let statistic = match statistic {
        "min" => Statistic::Min,
        "mean" => Statistic::Mean,
        "max" => Statistic::Max,
        _ => {
            let percent = statistic
                .strip_prefix('p')
                .filter(|digits| digits.chars().all(|c| c.is_ascii_digit() || c == '.'))
                .and_then(|digits| digits.parse::<f64>().ok())
                .filter(|percent| 0.0 < *percent && *percent < 100.0)
                .ok_or_else(|| {
                    format!(
                        "'{text}' is no figure: there are p50, p99.9 and other quantiles, min, mean, max, with latency., \
                         service., queue., send_lag., recv_lag., connect. or first_echo. before them, and rate, errors, lost"
                    )
                })?;
            Statistic::Quantile(percent / 100.0)
        }
    };
    Ok(Figure::Time(of, statistic))
}

impl TryFrom<String> for Threshold {
    type Error = String;

    fn try_from(text: String) -> Result<Threshold, String> {
        text.parse()
    }
}

impl From<Threshold> for String {
    fn from(threshold: Threshold) -> String {
        threshold.text
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::histogram;

    fn judged(expression: &str, censored_from: Option<u64>) -> Held {
        // 1 to 1,000 us: p50 500 us, p99 990 us.
        let (mut latency, empty) = (histogram(), histogram());
        (1..=1_000u64).for_each(|us| latency.record(us * 1_000).unwrap());
        let figures = Figures {
            latency: (&latency, censored_from),
            service: (&latency, None),
            queue: None,
            send_lag: None,
            recv_lag: None,
            connect: (&latency, None),
            first_echo: (&empty, None),
            rate_per_s: 1_000.0,
            errors: 2,
            lost: 0,
        };
        expression.parse::<Threshold>().unwrap().judge(&figures)
    }

    #[test]
    fn expressions_say_when_they_hold() {
        for (expression, holds) in [
            ("p99<1ms", true),
            ("p99 < 990us", false),
            ("p99>=900us", true),
            ("latency.p50<=501us", true),
            ("service.max<1.1ms", true),
            ("connect.mean>600us", false),
            ("min==1us", true),
            ("rate>=1k", true),
            ("rate>1k", false),
            ("errors==2", true),
            ("errors<1", false),
            ("lost==0", true),
            // With ten samples above it at least; and what isn't there can't hold.
            ("p99.9<1s", false),
            ("first_echo.p50<1s", false),
            ("queue.p50<1s", false),
        ] {
            let held = judged(expression, None);
            assert_eq!(held.holds, holds, "{held:?}");
            let words = if holds { "holds" } else { "FAILED" };
            assert!(held.line().contains(words) && held.line().starts_with(expression));
        }
        assert!(judged("p99<1us", None).line().ends_with("FAILED, 990 us"));
        assert!(judged("p99.9<1us", None).line().contains("too few"));
    }

    #[test]
    fn a_lower_bound_never_lies_below_a_limit() {
        assert!(judged("p50<1ms", Some(900_000)).holds);
        let held = judged("p99<1ms", Some(900_000));
        assert!(held.at_least && !held.holds && held.line().contains(">=99"));
        assert!(judged("p99>900us", Some(900_000)).holds);
        assert!(!judged("max<60s", Some(900_000)).holds);
    }

    #[test]
    fn wrong_ones_are_refused_with_a_reason() {
        for (expression, reason) in [
            ("p99", "no comparison"),
            ("p99<200", "unit"),
            ("p99=200us", "no comparison"),
            ("p100<1s", "no figure"),
            ("pxx<1s", "no figure"),
            ("p1e1<1s", "no figure"),
            ("cpu<1s", "no figure"),
            ("service.rate>1k", "no figure"),
            ("rate>0", "rate"),
            ("errors<x", ""),
            ("<1s", "no figure"),
            ("p99<<1s", ""),
        ] {
            let error = expression.parse::<Threshold>().unwrap_err();
            assert!(error.contains(reason), "{expression}: {error}");
        }
    }

    #[test]
    fn they_survive_their_file() {
        let threshold: Threshold = " p99 <= 1.5ms ".parse().unwrap();
        let json = serde_json::to_string(&threshold).unwrap();
        assert_eq!(json, "\"p99 <= 1.5ms\"");
        assert_eq!(serde_json::from_str::<Threshold>(&json).unwrap(), threshold);
    }
}
