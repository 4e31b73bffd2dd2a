//! How is load made and timed?
//!
//! A [`Plan`] says what load is to be made and a [`Target`] who is loaded. A whole [`run`] is one stretch of load with a
//! [`verdict`]; it ends in a [run file](mod@file), of which the [`report`] is a rendering. A [`Fleet`] of worker threads
//! makes stretch after stretch, and gives a [`Tally`] of each. A [`storm`] is many connects at once.
//!
//! Inside, the schedule says what is due when, the flow what becomes of each message, the recorder remembers how long it
//! took, and an engine (io_uring or epoll) moves the bytes.
//!
//! # Features
//! `cli` (on by default): the program `echometer-loadgen`, its [`flags`], and `clap::ValueEnum` for the plan's enums.
#![forbid(unsafe_code)]

mod connect_times;
mod cuts;
mod dial;
mod drive;
mod engine;
pub mod expression;
mod fail_if;
mod failure;
pub mod file;
#[cfg(feature = "cli")]
pub mod flags;
mod fleet;
mod flow;
pub mod histogram_log;
mod kernel_time;
mod lives;
mod meter;
mod payload;
pub mod plan;
pub mod recorder;
pub mod report;
pub mod run;
mod schedule;
mod segment;
mod sizes;
mod source;
pub mod storm;
mod summary;
mod tally;
pub mod verdict;
mod words;
mod worker;

pub use connect_times::{ConnectTimes, SYN_RETRANSMITS_MAX};
pub use cuts::Membership;
pub use echometer_host::{
    signals::Stop,
    target::{Target, TargetError},
};
pub use fail_if::{Held, Threshold};
pub use failure::{Failure, Failures};
pub use fleet::{DriveError, Fleet, FleetError, OpenError, SessionId};
pub use payload::Difference;
pub use plan::Plan;
pub use segment::OpenLoop;
pub use sizes::SizeMix;
pub use source::Sources;
pub use summary::{Summary, VALUE_NS_MAX, histogram, quantile};
pub use tally::{Phase, Tally, Third, WindowCounts};
pub use words::{LoadPart, LoadWords};

/// The example of README.md is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
