//! Thresholds: `--fail-if 'p99<200us'`. An [expression](crate::expression) says what is to hold; where it doesn't, the
//! program ends with 99.

use std::{fmt, str::FromStr};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use echometer_host::units::{show_count, show_ns};

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

impl Held {
    /// In one line for people: `p99<200us: no, it is 412 us`.
    pub fn line(&self) -> String {
        let word = if self.holds { "holds" } else { "FAILED" };
        // The expression was read once, or it would not be here.
        let is_time = self
            .expression
            .parse::<Threshold>()
            .is_ok_and(|threshold| matches!(threshold.0.figure, Figure::Time(..)));
        let value = match self.value {
            None => "too few samples to tell".to_owned(),
            Some(value) if is_time => show_ns(value.round() as u64),
            Some(value) => show_count(value.round() as u64),
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
