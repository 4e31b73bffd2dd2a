//! Thresholds: `--fail-if 'p99<200us'`. An [expression](crate::expression) says what is to hold; where it doesn't, the
//! program ends with 99.

use std::{fmt, str::FromStr};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use echometer_host::units::{self, counted, show_count, show_ns, show_rate};

use crate::{
    expression::{Comparison, Expression, ExpressionError, Figure, Of, Statistic},
    summary::quantile,
};

/// What is to hold. In a file it is its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Threshold(Expression);

/// Whether it held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The expression as it was typed.
    pub expression: String,
    /// The figure: ns, per second, or a count. Null where too few samples lie above a quantile for it to be told.
    pub value: Option<f64>,
    /// The figure is only known to be at least that: it reaches messages without an answer.
    pub at_least: bool,
    /// What can't be told does not hold.
    pub holds: bool,
}

/// A histogram, and from where on its values are lower bounds.
pub(crate) type Censored<'a> = (&'a Histogram<u64>, Option<u64>);

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
    /// Replies per second.
    pub rate_per_s: f64,
    /// Connections that failed or could not be made.
    pub errors: u64,
    /// Messages without an answer.
    pub lost: u64,
}

impl Threshold {
    /// Looks whether it holds.
    pub fn judge(&self, figures: &Figures<'_>) -> Held {
        let Expression {
            text,
            figure,
            comparison,
            limit,
        } = &self.0;
        let (value, at_least) = figures.value_of(*figure);
        let holds = value.is_some_and(|value| {
            let holds = comparison.holds(value, *limit);
            // A lower bound can be beyond a limit for certain, and never below one.
            let certain = matches!(comparison, Comparison::Above | Comparison::AtLeast);
            holds && (certain || !at_least)
        });
        Held {
            expression: text.clone(),
            value,
            at_least,
            holds,
        }
    }
}

impl Threshold {
    /// A figure in words, with as many digits as it takes to see on which side of the limit it is.
    fn show(&self, value: f64) -> String {
        let Expression {
            figure,
            comparison,
            limit,
            ..
        } = &self.0;
        let same_side =
            |shown: f64| comparison.holds(shown, *limit) == comparison.holds(value, *limit);
        match figure {
            Figure::Time(..) => {
                let shown = show_ns(value.round() as u64);
                let ns = units::duration(&shown).map_or(0, |shown| shown.as_nanos() as u64);
                match (same_side(ns as f64), same_side(value.round())) {
                    (true, _) => shown,
                    (false, true) => format!("{} ns", show_count(value.round() as u64)),
                    (false, false) => format!("{value} ns"),
                }
            }
            Figure::Rate => {
                let shown = show_rate(value);
                match shown.replace(',', "").parse().is_ok_and(same_side) {
                    true => shown,
                    false => value.to_string(),
                }
            }
            Figure::Errors => show_count(value as u64),
            // The counts beside it tell those two apart.
            Figure::Lost => format!("{} without an answer", counted(value as u64, "message")),
        }
    }
}

impl Held {
    /// In one line for people: `p99<200us: no, it is 412 us`.
    pub fn line(&self) -> String {
        let word = if self.holds { "holds" } else { "FAILED" };
        // The expression was read once, or it would not be here.
        let threshold = self.expression.parse::<Threshold>().ok();
        let value = match (self.value, threshold) {
            (None, _) => "too few samples to tell".to_owned(),
            (Some(value), Some(threshold)) => threshold.show(value),
            (Some(value), None) => show_rate(value),
        };
        let at_least = if self.at_least { ">=" } else { "" };
        format!("{}: {word}, {at_least}{value}", self.expression)
    }
}

impl Figures<'_> {
    /// A figure's value, and whether that is only a lower bound.
    fn value_of(&self, figure: Figure) -> (Option<f64>, bool) {
        let (of, statistic) = match figure {
            Figure::Rate => return (Some(self.rate_per_s), false),
            Figure::Errors => return (Some(self.errors as f64), false),
            Figure::Lost => return (Some(self.lost as f64), false),
            Figure::Time(of, statistic) => (of, statistic),
        };
        let censored = match of {
            Of::Latency => Some(self.latency),
            Of::Service => Some(self.service),
            Of::Queue => self.queue,
            Of::SendLag => self.send_lag,
            Of::RecvLag => self.recv_lag,
            Of::Connect => Some(self.connect),
            Of::FirstEcho => Some(self.first_echo),
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

impl FromStr for Threshold {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Threshold, ExpressionError> {
        text.parse().map(Threshold)
    }
}

impl TryFrom<String> for Threshold {
    type Error = ExpressionError;

    fn try_from(text: String) -> Result<Threshold, ExpressionError> {
        text.parse()
    }
}

impl From<Threshold> for String {
    fn from(threshold: Threshold) -> String {
        threshold.0.text
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::histogram;

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
    fn a_figure_is_shown_on_its_own_side_of_the_limit() {
        let line = |expression: &str, value: f64, holds| {
            let held = Held {
                expression: expression.to_owned(),
                value: Some(value),
                at_least: false,
                holds,
            };
            held.line()
        };
        for (expression, value, shown) in [
            ("rate>=1", 0.5, "0.5"),
            ("rate>=50k", 49_999.75, "49999.75"),
            ("rate>=50k", 49_123.4, "49,123"),
            ("p99<=200us", 200_300.0, "200,300 ns"),
            ("p99<200us", 201_300.0, "201 us"),
            ("mean<=500ns", 500.25, "500.25 ns"),
            ("lost==0", 31.0, "31 messages without an answer"),
            ("lost==0", 1.0, "1 message without an answer"),
            ("errors<=2", 1_234.0, "1,234"),
        ] {
            let said = line(expression, value, false);
            assert_eq!(said, format!("{expression}: FAILED, {shown}"));
        }
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
    fn they_survive_their_file() {
        let threshold: Threshold = " p99 <= 1.5ms ".parse().unwrap();
        let json = serde_json::to_string(&threshold).unwrap();
        assert_eq!(json, "\"p99 <= 1.5ms\"");
        assert_eq!(serde_json::from_str::<Threshold>(&json).unwrap(), threshold);
    }
}
