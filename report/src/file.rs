//! What stands in each result's JSON, as plain data. One file per kind, and what kinds share.

pub mod compare;
pub mod correction;
pub mod curve;
pub mod design;
pub mod doctor;
pub mod entries;
pub mod figures;
pub mod find_rate;
pub mod floor;
pub mod jitter;
pub mod metric;
pub mod priorities;
pub mod quiet;
pub mod selftest;
pub mod slo;
pub mod storm;
pub mod sweep;
pub mod sysctls;
pub mod trust;
