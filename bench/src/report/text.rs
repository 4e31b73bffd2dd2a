//! How does a result read in 80 columns? One file a kind, and what they share.

pub mod bars;
pub mod compare;
pub mod counted;
pub mod find_rate;
pub mod load_words;
pub mod selftest;
pub mod sentence;
pub mod storm;
pub mod sweep;
