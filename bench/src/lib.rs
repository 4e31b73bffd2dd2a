//! What did we learn? The bench: it starts servers, puts them under the load generator in turn, and says which is
//! cheaper or faster, by how much and how sure.
//!
//! [`cli`] knows which command was typed; a command is a folder (`compare`, `sweep`, `curve`, `find_rate`, `storm`, `floor`,
//! `trace`, `doctor`, `jitter`, `selftest`, `show`) with files of the same names: its `flags` become settings, its `command` is what the user
//! sees of it, its `record` is what is under way. `measure` is how one block is measured, `judge` what its figures say,
//! `serve` what serves and who ends it, `place` on which cpus. What a result says as data, text and page is a crate of its
//! own, `echometer-report`, and so are the statistics.
#![forbid(unsafe_code)]

pub mod cli;
mod compare;
mod curve;
mod doctor;
mod find_rate;
mod flags;
mod floor;
mod invocation;
mod jitter;
mod judge;
mod levels;
mod measure;
mod place;
mod screen;
mod search;
mod selftest;
mod serve;
mod show;
mod site;
mod storm;
mod sweep;
mod trace;
