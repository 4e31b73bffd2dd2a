//! How does a result read in 80 columns? One file per kind, and what they share.

pub(crate) mod bars;
pub mod columns;
pub mod compare;
pub mod counted;
pub mod curve;
pub mod doctor;
pub mod find_rate;
pub mod floor;
pub mod jitter;
mod remarks;
pub mod selftest;
pub mod sentence;
pub mod storm;
pub mod sweep;
