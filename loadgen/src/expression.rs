//! Expressions of what is to hold: `p99<200us`, `rate>=50k`, `errors==0`. The grammar alone; who has figures judges by it:
//! `fail_if` a run's, the bench a rate's.
//!
//! `[OF.]FIGURE OP VALUE`. OF is `latency` (where nothing stands before the figure), `service`, `queue`, `send_lag`,
//! `recv_lag`, `connect` or `first_echo`; of these the figures are `min`, `mean`, `max` and quantiles: `p50`, `p99.9`. Besides there
//! are `rate` (replies per second), `errors` (connections that failed or could not be made) and `lost` (messages
//! without an answer). OP is one of `<`, `<=`, `>`, `>=`, `==`. Times carry a unit.

use std::{fmt, str::FromStr};

use echometer_host::units;

/// An expression that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    /// As it was typed, without blanks around it.
    pub text: String,
    /// What is looked at.
    pub figure: Figure,
    /// How it is to stand to the limit.
    pub comparison: Comparison,
    /// In ns, per second, or a count, as the figure is.
    pub limit: f64,
}

/// Why one was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Neither `<` nor another comparison is in it.
    #[error("no comparison: write what is to hold, such as p99<200us, rate>=50k or errors==0")]
    NoComparison,
    /// What stands before the comparison.
    #[error(
        "'{0}' is no figure: there are p50, p99.9 and other quantiles, min, mean, max, with latency., service., queue., \
         send_lag., recv_lag., connect. or first_echo. before them, and rate, errors, lost"
    )]
    NoFigure(String),
    /// What is wrong with the value behind the comparison.
    #[error("{0}")]
    Value(String),
}

/// What can be looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// A time, ns.
    Time(Of, Statistic),
    /// Replies per second.
    Rate,
    /// Connections that failed or could not be made.
    Errors,
    /// Messages without an answer.
    Lost,
}

/// Which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Due or written to reply.
    Latency,
    /// Written to reply.
    Service,
    /// Waiting for room.
    Queue,
    /// The client's own lateness.
    SendLag,
    /// Replies that waited for the client.
    RecvLag,
    /// Connects.
    Connect,
    /// Connects with the first answer.
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

/// Which of many times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistic {
    /// The least.
    Min,
    /// Their mean.
    Mean,
    /// The greatest.
    Max,
    /// A share, above 0 and below 1.
    Quantile(f64),
}

/// How a figure is to stand to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `==`
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

impl Comparison {
    /// Whether `value` stands to `limit` as it is to.
    pub fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Comparison::Below => value < limit,
            Comparison::AtMost => value <= limit,
            Comparison::Above => limit < value,
            Comparison::AtLeast => limit <= value,
            Comparison::Equal => value == limit,
        }
    }
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Expression, ExpressionError> {
        let (at, (sign, comparison)) = COMPARISONS
            .iter()
            .filter_map(|entry| Some((text.find(entry.0)?, entry)))
            .min_by_key(|(at, (sign, _))| (*at, usize::MAX - sign.len()))
            .ok_or(ExpressionError::NoComparison)?;
        let (figure, value) = (text[..at].trim(), text[at + sign.len()..].trim());
        let figure = match figure {
            "rate" => Figure::Rate,
            "errors" => Figure::Errors,
            "lost" => Figure::Lost,
            _ => time_figure(figure).ok_or_else(|| ExpressionError::NoFigure(figure.to_owned()))?,
        };
        let limit = match figure {
            Figure::Time(..) => units::duration(value).map(|limit| limit.as_nanos() as f64),
            Figure::Rate => units::rate(value).map_err(|_| {
                "the limit of a rate is a number a second above 0, with k or M if you like: rate>=50k"
                    .to_owned()
            }),
            Figure::Errors | Figure::Lost => units::count(value).map(|limit| limit as f64),
        };
        Ok(Expression {
            text: text.trim().to_owned(),
            figure,
            comparison: *comparison,
            limit: limit.map_err(ExpressionError::Value)?,
        })
    }
}

fn time_figure(text: &str) -> Option<Figure> {
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
                .filter(|percent| 0.0 < *percent && *percent < 100.0)?;
            Statistic::Quantile(percent / 100.0)
        }
    };
    Some(Figure::Time(of, statistic))
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_taken_apart() {
        let expression: Expression = " service.p50 <= 1.5ms ".parse().unwrap();
        let figure = Figure::Time(Of::Service, Statistic::Quantile(0.5));
        assert_eq!(
            (expression.figure, expression.comparison, expression.limit),
            (figure, Comparison::AtMost, 1_500_000.0)
        );
        assert_eq!(expression.to_string(), "service.p50 <= 1.5ms");
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
            ("rate>0", "limit of a rate"),
            ("rate>x", "rate>=50k"),
            ("errors<x", ""),
            ("<1s", "no figure"),
            ("p99<<1s", ""),
        ] {
            let error = expression.parse::<Expression>().unwrap_err().to_string();
            assert!(error.contains(reason), "{expression}: {error}");
        }
    }
}
