//! How does a byte get echoed?
//!
//! `connection` says what a connection owes, `engine` moves bytes, `counters` says what happened.
#![forbid(unsafe_code)]

pub mod connection;
pub mod counters;
pub mod delay;
pub mod units;
