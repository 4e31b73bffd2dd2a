//! The load in words: `50 connections, 64 B, closed loop`. Every report, page and sentence that tells a load takes its
//! words from here.

use std::fmt;

use echometer_host::units::{counted, show_count, show_duration, show_size};

use crate::{
    plan::{Arrivals, Load, OPEN_LOOP_PIPELINE, Plan},
    sizes::SizeMix,
};

/// A load in words, in parts. Shown, it is the parts that are there with commas between them; how long the load lasts is
/// not among those ([`LoadWords::time`]).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadWords {
    /// `1 connection`, `1,000 connections`; with churn `64 connections (a new one after 10 messages)`. `None` where it was
    /// left out, as in the parts below.
    pub connections: Option<String>,
    /// `64 B`; of a mix `64 B (90 %) or 4 KiB (10 %)`.
    pub size: Option<String>,
    /// `16 in flight on each`, in open loop `up to 16 in flight on each`; `None` in closed loop with one.
    pub pipeline: Option<String>,
    /// `closed loop` or `open loop`.
    pub kind: &'static str,
    /// `at 20,000/s`, of a ramp `from 1,000/s to 2,000/s`; `None` in closed loop.
    pub rate: Option<String>,
    /// `Poisson` or `uniform`; `None` in closed loop.
    pub arrivals: Option<&'static str>,
    /// `thinking 5ms`; `None` without think time and in open loop.
    pub think: Option<String>,
    /// How long the load lasts: `10s after 2s of warm-up`, `10s without warm-up`.
    pub time: String,
    /// The limit of messages in flight is an open loop's usual one: it is left out where the load is told as a whole.
    pipeline_is_usual: bool,
}

/// What can be left out of the words, because it is varied and told elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadPart {
    /// How many connections.
    Connections,
    /// How large the messages are.
    Size,
    /// How many messages are in flight.
    Pipeline,
    /// An open loop's rate; that it is one, and its arrivals, are still told.
    Rate,
}

impl LoadWords {
    /// The same without a part.
    #[must_use]
    pub fn without(mut self, part: LoadPart) -> LoadWords {
        match part {
            LoadPart::Connections => self.connections = None,
            LoadPart::Size => self.size = None,
            LoadPart::Pipeline => self.pipeline = None,
            LoadPart::Rate => self.rate = None,
        }
        self
    }

    /// When messages are sent: `closed loop`, `closed loop, thinking 5ms`, `open loop at 20,000/s, Poisson`.
    #[must_use]
    pub fn timing(&self) -> String {
        let mut text = self.kind.to_owned();
        if let Some(rate) = &self.rate {
            text += &format!(" {rate}");
        }
        for more in self.arrivals.into_iter().chain(self.think.as_deref()) {
            text += &format!(", {more}");
        }
        text
    }

    /// The load with everything that there is to say of it, how long it lasts included.
    #[must_use]
    pub fn in_full(&self) -> String {
        format!("{}, {}", self.joined(self.pipeline.as_deref()), self.time)
    }

    fn joined(&self, pipeline: Option<&str>) -> String {
        let timing = self.timing();
        let parts = [
            self.connections.as_deref(),
            self.size.as_deref(),
            pipeline,
            Some(&*timing),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for LoadWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pipeline = self.pipeline.as_deref();
        f.write_str(&self.joined(pipeline.filter(|_| !self.pipeline_is_usual)))
    }
}

impl Plan {
    /// The load in words.
    #[must_use]
    pub fn words(&self) -> LoadWords {
        let (kind, rate, arrivals, think) = match self.load {
            Load::Closed => {
                let think = (!self.think.is_zero())
                    .then(|| format!("thinking {}", show_duration(self.think)));
                ("closed loop", None, None, think)
            }
            Load::Open {
                rate_per_s,
                arrivals,
            } => {
                let rate = match self.ramp_to_per_s {
                    None => format!("at {}", show_rate(rate_per_s)),
                    Some(to_per_s) => {
                        format!("from {} to {}", show_rate(rate_per_s), show_rate(to_per_s))
                    }
                };
                let arrivals = match arrivals {
                    Arrivals::Poisson => "Poisson",
                    Arrivals::Uniform => "uniform",
                };
                ("open loop", Some(rate), Some(arrivals), None)
            }
        };
        let open = self.load != Load::Closed;
        LoadWords {
            connections: Some(self.connections_in_words()),
            size: Some(self.show_size()),
            pipeline: (open || 1 < self.pipeline).then(|| self.pipeline_in_words(open)),
            kind,
            rate,
            arrivals,
            think,
            time: self.time_in_words(),
            pipeline_is_usual: open && self.pipeline == OPEN_LOOP_PIPELINE,
        }
    }

    /// The size of the messages: `64 B`; of a mix `64 B (90 %) or 4 KiB (10 %)`.
    #[must_use]
    pub fn show_size(&self) -> String {
        match &self.size_mix {
            None => show_size(u64::from(self.message_size)),
            Some(mix) => mix_in_words(mix),
        }
    }

    fn connections_in_words(&self) -> String {
        let churn = match self.requests_per_connection {
            0 => String::new(),
            1 => " (a new one for each message)".to_owned(),
            count => format!(" (a new one after {} messages)", show_count(count.into())),
        };
        format!("{}{churn}", counted(self.connections.into(), "connection"))
    }

    fn pipeline_in_words(&self, open: bool) -> String {
        let up_to = if open { "up to " } else { "" };
        let on_each = if self.connections == 1 {
            ""
        } else {
            " on each"
        };
        format!(
            "{up_to}{} in flight{on_each}",
            show_count(self.pipeline.into())
        )
    }

    fn time_in_words(&self) -> String {
        let duration = show_duration(self.duration);
        if self.warmup.is_zero() {
            format!("{duration} without warm-up")
        } else {
            format!("{duration} after {} of warm-up", show_duration(self.warmup))
        }
    }
}

/// `20,000/s`; below 1,000 with up to three decimals, since 0.5/s is neither 0 nor 1. It was typed so, and not measured:
/// all of its digits are meant.
fn show_rate(per_s: f64) -> String {
    if per_s.fract() == 0.0 || 1_000.0 <= per_s {
        return format!("{}/s", show_count(per_s.round() as u64));
    }
    let text = format!("{per_s:.3}");
    format!("{}/s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `64 B (90 %), 4 KiB (9 %) or 64 KiB (1 %)`.
fn mix_in_words(mix: &SizeMix) -> String {
    let parts: Vec<String> = mix
        .shares()
        .map(|(size, percent)| format!("{} ({percent} %)", show_size(size.into())))
        .collect();
    match parts.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn open(rate_per_s: f64) -> Plan {
        Plan {
            load: Load::Open {
                rate_per_s,
                arrivals: Arrivals::Poisson,
            },
            pipeline: OPEN_LOOP_PIPELINE,
            ..Plan::default()
        }
    }

    #[test]
    fn one_is_no_plural() {
        let mut plan = Plan {
            connections: 1,
            pipeline: 16,
            ..Plan::default()
        };
        assert_eq!(
            plan.words().to_string(),
            "1 connection, 64 B, 16 in flight, closed loop"
        );
        plan.connections = 1_000;
        plan.requests_per_connection = 1;
        assert_eq!(
            plan.words().to_string(),
            "1,000 connections (a new one for each message), 64 B, 16 in flight on each, closed loop"
        );
        plan.requests_per_connection = 10;
        plan.pipeline = 1;
        plan.think = Duration::from_millis(5);
        assert_eq!(
            plan.words().to_string(),
            "1,000 connections (a new one after 10 messages), 64 B, closed loop, thinking 5ms"
        );
    }

    #[test]
    fn rates_and_ramps_are_told() {
        let words = |plan: Plan| plan.words().timing();
        assert_eq!(words(open(20_000.4)), "open loop at 20,000/s, Poisson");
        assert_eq!(words(open(0.5)), "open loop at 0.5/s, Poisson");
        assert_eq!(words(open(12.125)), "open loop at 12.125/s, Poisson");
        let ramp = Plan {
            ramp_to_per_s: Some(2_000.0),
            ..open(1_000.0)
        };
        assert_eq!(words(ramp), "open loop from 1,000/s to 2,000/s, Poisson");
    }

    #[test]
    fn an_open_loops_usual_limit_is_told_only_in_full() {
        let mut plan = open(3_000.0);
        let words = plan.words();
        assert_eq!(
            words.to_string(),
            "64 connections, 64 B, open loop at 3,000/s, Poisson"
        );
        assert_eq!(
            words.in_full(),
            "64 connections, 64 B, up to 1,024 in flight on each, open loop at 3,000/s, Poisson, 10s after 2s of warm-up"
        );
        (plan.pipeline, plan.warmup) = (1, Duration::ZERO);
        let words = plan.words();
        assert_eq!(
            words.to_string(),
            "64 connections, 64 B, up to 1 in flight on each, open loop at 3,000/s, Poisson"
        );
        assert_eq!(words.time, "10s without warm-up");
    }

    #[test]
    fn what_is_varied_is_left_out() {
        let words = Plan {
            pipeline: 4,
            ..open(3_000.0)
        }
        .words();
        assert_eq!(
            words.clone().without(LoadPart::Rate).to_string(),
            "64 connections, 64 B, up to 4 in flight on each, open loop, Poisson"
        );
        assert_eq!(
            words
                .without(LoadPart::Connections)
                .without(LoadPart::Size)
                .without(LoadPart::Pipeline)
                .to_string(),
            "open loop at 3,000/s, Poisson"
        );
    }

    #[test]
    fn a_mix_names_its_shares() {
        let mut plan = Plan {
            size_mix: "64:90%,4KiB:9.5%,64KiB:0.5%".parse().ok(),
            ..Plan::default()
        };
        assert_eq!(
            plan.show_size(),
            "64 B (90 %), 4 KiB (9.5 %) or 64 KiB (0.5 %)"
        );
        plan.size_mix = "100:100%".parse().ok();
        assert_eq!(plan.show_size(), "100 B (100 %)");
    }
}
