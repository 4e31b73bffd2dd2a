//! What a rate has to hold: `p99<200us`, a quantile of the latency and its limit. It is read as the load generator's
//! thresholds are, and is one of those that a search can be made for.

use std::{fmt, str::FromStr, time::Duration};

use hdrhistogram::Histogram;

use echometer_loadgen::{
    OpenLoop,
    expression::{Comparison, Expression, ExpressionError, Figure, Of, Statistic},
};

/// A quantile is judged only where so many samples lie above it.
const SAMPLES_ABOVE_MIN: f64 = 100.0;
/// The maximum is judged over so many samples at least.
const SAMPLES_FOR_MAX: u64 = 10_000;
/// The highest quantile that is understood: beyond, no run would be long enough.
const QUANTILE_MAX: f64 = 0.9999;

/// A service level objective.
#[derive(Debug, Clone, PartialEq)]
pub struct Slo {
    /// As typed, without blanks.
    text: String,
    /// 0..1; `None` for the maximum.
    quantile: Option<f64>,
    /// The latency must be below.
    limit: Duration,
    /// Or may reach it.
    or_equal: bool,
}

impl Slo {
    /// How many messages a run needs, so that the quantile can be judged.
    #[must_use]
    pub fn messages_min(&self) -> u64 {
        match self.quantile {
            None => SAMPLES_FOR_MAX,
            // Rounded, for 100 / (1 - 0.99) is not quite 10,000 in doubles.
            Some(quantile) => (SAMPLES_ABOVE_MIN / (1.0 - quantile)).round() as u64,
        }
    }

    /// How long a run at a rate must last; at least `least`.
    #[must_use]
    pub fn run_length(&self, rate_per_s: f64, least: Duration) -> Duration {
        // A little more, because Poisson arrivals are not on time.
        let needed = self.messages_min() as f64 * 1.05 / rate_per_s;
        least.max(Duration::from_secs_f64(needed))
    }

    /// The latency that is judged, ns.
    #[must_use]
    pub fn value_ns(&self, latency: &Histogram<u64>) -> u64 {
        match self.quantile {
            None => latency.max(),
            Some(quantile) => latency.value_at_quantile(quantile),
        }
    }

    /// What is left of that latency without the client's own lateness, ns: the wait for room, and the time from the write to
    /// the last look that did not find the reply.
    #[must_use]
    pub fn least_ns(&self, open: &OpenLoop) -> u64 {
        self.value_ns(&open.queue) + self.value_ns(&open.service_least)
    }

    /// Whether a latency, ns, is within the limit.
    #[must_use]
    pub fn holds(&self, value_ns: u64) -> bool {
        match self.or_equal {
            true => value_ns <= self.limit_ns(),
            false => value_ns < self.limit_ns(),
        }
    }

    /// The limit, ns.
    #[must_use]
    pub fn limit_ns(&self) -> u64 {
        self.limit.as_nanos() as u64
    }

    /// The quantile's name: `p99`, `max`.
    #[must_use]
    pub fn quantile_name(&self) -> &str {
        self.text.split(['<', '=']).next().unwrap_or_default()
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text: String = text.split_whitespace().collect();
        // Whose quantile it is needs no word here, and the figure's name is shown in tables.
        let text = text.strip_prefix("latency.").unwrap_or(&text).to_owned();
        let form = || {
            format!("'{text}' is no objective: write a quantile, < and a time, such as 'p99<200us'")
        };
        let expression = text.parse::<Expression>().map_err(|error| match error {
            ExpressionError::NoComparison | ExpressionError::NoFigure(_) => form(),
            ExpressionError::Value(why) => format!("'{text}': {why}"),
        })?;
        let quantile = match expression.figure {
            Figure::Time(Of::Latency, Statistic::Max) => None,
            Figure::Time(Of::Latency, Statistic::Quantile(quantile)) => Some(quantile),
            _ => return Err(form()),
        };
        let or_equal = match expression.comparison {
            Comparison::Below => false,
            Comparison::AtMost => true,
            Comparison::Above | Comparison::AtLeast | Comparison::Equal => return Err(form()),
        };
        let limit = Duration::from_nanos(expression.limit as u64);
        if limit.is_zero() {
            return Err(format!("'{text}': no latency is below 0"));
        }
        if quantile.is_some_and(|quantile| !(0.01..=QUANTILE_MAX).contains(&quantile)) {
            return Err(format!(
                "'{text}': a quantile lies between p1 and p99.99; there is also max"
            ));
        }
        Ok(Self {
            text,
            quantile,
            limit,
            or_equal,
        })
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slo(text: &str) -> Slo {
        text.parse().expect("a test's objective")
    }

    #[test]
    fn objectives_are_read() {
        let objective = slo(" p99.9 < 1ms");
        assert_eq!(objective.to_string(), "p99.9<1ms");
        assert_eq!(
            (objective.quantile_name(), objective.limit_ns()),
            ("p99.9", 1_000_000)
        );
        assert_eq!(objective.messages_min(), 100_000);
        assert_eq!(slo("p99<200us").messages_min(), 10_000);
        assert_eq!(slo("p50<=1s").messages_min(), 200);
        assert_eq!(slo("max<1s").messages_min(), 10_000);
        assert_eq!(slo("latency.p99<200us"), slo("p99<200us"));
        for text in [
            "",
            "p99",
            "p99<",
            "p99<5",
            "p99>5us",
            "p0<1ms",
            "p99.999<1ms",
            "q99<1ms",
            "p<1ms",
            "p1e1<1ms",
            "p99<0us",
        ] {
            assert!(text.parse::<Slo>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_objective_is_told_with_what_is() {
        for (text, words) in [
            ("p99", "such as 'p99<200us'"),
            ("q99<1ms", "such as 'p99<200us'"),
            ("service.p99<1ms", "such as 'p99<200us'"),
            ("mean<1ms", "such as 'p99<200us'"),
            ("rate>50k", "such as 'p99<200us'"),
            ("p99==1ms", "such as 'p99<200us'"),
            ("p99<5", "unit"),
            ("p99<0us", "no latency is below 0"),
            ("p99.999<1ms", "between p1 and p99.99"),
        ] {
            let error = text.parse::<Slo>().expect_err(text);
            assert!(error.contains(text) && error.contains(words), "{error}");
        }
    }

    #[test]
    fn runs_are_long_enough_for_their_quantile() {
        let least = Duration::from_secs(1);
        assert_eq!(slo("p99<1ms").run_length(100_000.0, least), least);
        assert_eq!(
            slo("p99<1ms").run_length(1_000.0, least),
            Duration::from_millis(10_500)
        );
    }
}
