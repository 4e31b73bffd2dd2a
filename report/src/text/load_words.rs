//! A load in words, part by part, so that who varies a part can leave it out.

use std::fmt;

use echometer_host::units::{show_count, show_duration};
use echometer_loadgen::{
    Plan,
    plan::{Arrivals, Load},
};

use crate::text::counted::counted;

/// The parts. Written in a row they are `50 connections, 64 B, closed loop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadWords {
    /// `50 connections`, and how long each lasts where they are made anew.
    pub connections: String,
    /// `64 B`, or the mix of sizes.
    pub size: String,
    /// `16 in flight on each`; of an open loop it is a bound and no load, and of one message it goes without saying.
    pub pipeline: Option<String>,
    /// `closed loop`; `open loop at 20,000/s, Poisson`.
    pub timing: String,
}

impl LoadWords {
    /// What is asked for by a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let connections = counted(u64::from(plan.connections), "connection");
        let churn = match plan.requests_per_connection {
            0 => String::new(),
            1 => " (a new one for each message)".to_owned(),
            count => format!(
                " (a new one after {} messages)",
                show_count(u64::from(count))
            ),
        };
        let pipeline = match (plan.load, plan.pipeline) {
            (Load::Closed, depth) if 1 < depth => {
                Some(format!("{} in flight on each", show_count(depth.into())))
            }
            _ => None,
        };
        Self {
            connections: format!("{connections}{churn}"),
            size: plan.show_size(),
            pipeline,
            timing: timing(plan),
        }
    }
}

fn timing(plan: &Plan) -> String {
    let rate = |rate_per_s: f64| format!("{}/s", show_count(rate_per_s.round() as u64));
    match plan.load {
        Load::Closed if plan.think.is_zero() => "closed loop".to_owned(),
        Load::Closed => format!("closed loop, thinking {}", show_duration(plan.think)),
        Load::Open {
            rate_per_s,
            arrivals,
        } => {
            let arrivals = match arrivals {
                Arrivals::Poisson => "Poisson",
                Arrivals::Uniform => "uniform",
            };
            match plan.ramp_to_per_s {
                None => format!("open loop at {}, {arrivals}", rate(rate_per_s)),
                Some(to) => format!(
                    "open loop from {} to {}, {arrivals}",
                    rate(rate_per_s),
                    rate(to)
                ),
            }
        }
    }
}

impl fmt::Display for LoadWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.connections, self.size)?;
        if let Some(pipeline) = &self.pipeline {
            write!(f, ", {pipeline}")?;
        }
        write!(f, ", {}", self.timing)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn said(plan: &Plan) -> String {
        LoadWords::of(plan).to_string()
    }

    #[test]
    fn loads_in_words() {
        let closed = Plan {
            connections: 50,
            ..Plan::default()
        };
        assert_eq!(said(&closed), "50 connections, 64 B, closed loop");
        let deep = Plan {
            connections: 1,
            message_size: 4096,
            pipeline: 16,
            ..Plan::default()
        };
        assert_eq!(
            said(&deep),
            "1 connection, 4 KiB, 16 in flight on each, closed loop"
        );
        let arrivals = Arrivals::Poisson;
        let open = Plan {
            load: Load::Open {
                rate_per_s: 20_000.0,
                arrivals,
            },
            pipeline: 1_024,
            ..closed
        };
        assert_eq!(
            said(&open),
            "50 connections, 64 B, open loop at 20,000/s, Poisson"
        );
    }

    #[test]
    fn what_is_unusual_is_said() {
        let plan = Plan {
            connections: 1_000,
            requests_per_connection: 1,
            think: Duration::from_millis(3),
            ..Plan::default()
        };
        assert_eq!(
            said(&plan),
            "1,000 connections (a new one for each message), 64 B, closed loop, thinking 3ms"
        );
        let ramp = Plan {
            load: Load::Open {
                rate_per_s: 1_000.0,
                arrivals: Arrivals::Uniform,
            },
            ramp_to_per_s: Some(5_000.0),
            ..plan
        };
        assert!(
            said(&ramp).ends_with("open loop from 1,000/s to 5,000/s, uniform"),
            "{}",
            said(&ramp)
        );
    }
}
