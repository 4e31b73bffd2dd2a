//! How does a byte get echoed?
//!
//! [`connection`] says what a connection owes its peer, [`engine`] is the seam below which bytes move, one engine per
//! file and one worker thread per core; [`running`] is a server's life from listening to the last close. [`flags`] says
//! what was typed and [`config`] what it means; [`counters`] and [`stats`] say what happened.
#![forbid(unsafe_code)]

pub mod config;
pub mod connection;
pub mod counters;
pub mod delay;
pub mod engine;
pub mod flags;
pub mod idle;
pub mod log;
mod look;
mod metrics;
pub mod probe;
pub mod running;
pub mod stats;
pub mod wait;
