//! `echometer jitter`: what disturbs which cpu, by name, and what that alone makes of a tail.
//!
//! A server is disturbed by what happens on its cpu while its client keeps another cpu busy: then tasks that could run
//! anywhere have one cpu less to go to. So cpus are looked at in pairs, a loop on each, and no third one is kept busy. All
//! at once would drive every movable task onto a loop, one alone would let it flee to where the client will be.

pub(crate) mod command;
pub(crate) mod flags;
