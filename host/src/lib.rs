//! What do we ask of the machine? Clocks, cpus and their topology, pinning, sockets, process CPU time,
//! kernel counters, limits, signals and the facts that go into every result file.
//!
//! Each module answers one question and knows nothing of echo servers or load; only [`fitness`], which judges the machine
//! for a measurement, knows what our programs will ask of it. What cannot be read is `None` or "unknown", never a guess that
//! looks like a fact: a container, an old kernel or a foreign `/proc` must not turn into a wrong figure.
#![forbid(unsafe_code)]

pub mod address;
pub mod clock;
pub mod counters;
pub mod cpus;
pub mod files;
pub mod fitness;
pub mod gaps;
pub mod interrupts;
pub mod kernel;
pub mod limits;
pub mod machine;
pub mod output;
pub mod pinning;
pub mod priority;
pub mod process;
pub mod receive_buffer;
pub mod signals;
pub mod sockets;
pub mod target;
pub mod tasks;
pub mod threads;
pub mod topology;
pub mod units;

/// The example of README.md is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
