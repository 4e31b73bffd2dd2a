//! The statistics of a comparison: numbers in, numbers out. Nothing here reads a file, a clock or a socket,
//! so that every rule can be tested against brute force, against another library and by simulation.
//!
//! Requests inside one run are not independent samples, so the unit here is the *block*: each test takes one
//! value per block, the logarithm of arm / baseline, and its answer is a ratio with an interval.

#![forbid(unsafe_code)]

mod aligned_rank;
mod both_ends;
mod family;
mod max_t;
mod median;
mod samples;
mod signed_rank;
mod stalls;
mod verdict;

#[cfg(test)]
mod many_questions;
#[cfg(test)]
mod simulation;

pub use crate::{
    aligned_rank::{AlignedRank, RunBlock, aligned_rank},
    both_ends::{End, of_both_ends},
    family::{Answer, Question, answer_all},
    median::median,
    samples::Samples,
    signed_rank::{Interval, SignedRank, blocks_min, signed_rank},
    stalls::{mean_wait, wait_quantile},
    verdict::{Good, Verdict, verdict},
};

/// The size of every test and interval: 5 %, two-sided.
pub const ALPHA: f64 = 0.05;
