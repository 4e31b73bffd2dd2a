//! How is load made and timed?
//!
//! [`flags`] become a [`plan`], the plan's [`schedule`] says what is due when, the [`flow`] what becomes of each message,
//! the [`recorder`] remembers how long it took; an engine (io_uring or epoll) moves the bytes. A [`fleet`] of worker threads does this
//! for stretch after stretch of load and gives a [`tally`] of each. A whole [`run`] is one stretch with a [`verdict`], and
//! ends in a [run file](mod@file), of which the [`report`] is a rendering.
#![forbid(unsafe_code)]

mod connect_times;
mod cuts;
mod dial;
mod drive;
mod engine;
pub mod expression;
pub mod fail_if;
pub mod failure;
pub mod file;
pub mod flags;
pub mod fleet;
pub mod flow;
pub mod histogram_log;
mod kernel_time;
mod lives;
mod meter;
pub mod payload;
pub mod plan;
pub mod progress;
pub mod recorder;
pub mod report;
pub mod run;
pub mod schedule;
mod segment;
pub mod sizes;
pub mod source;
pub mod storm;
mod summary;
pub mod tally;
pub mod target;
pub mod verdict;
pub mod words;
mod worker;

pub use connect_times::{ConnectTimes, SYN_RETRANSMITS_MAX};
pub use cuts::Membership;
pub use failure::{Failure, Failures};
pub use fleet::{DriveError, Fleet, FleetError, OpenError, SessionId};
pub use plan::Plan;
pub use segment::OpenLoop;
pub use summary::{Summary, VALUE_NS_MAX, histogram, quantile};
pub use tally::{Phase, Tally};
pub use target::Target;
pub use words::{LoadPart, LoadWords};
