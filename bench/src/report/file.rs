//! What stands in each result's JSON, as plain data. One file a kind, and what kinds share.

pub mod compare;
pub mod metric;
pub mod selftest;
