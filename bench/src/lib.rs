//! What did we learn? The bench: it starts servers, puts them under the load generator in turn, and says which is
//! cheaper or faster, by how much and how sure.
//!
//! [`flags`] become settings, [`mod@compare`] places both sides and runs [`slices`] block by block, [`figures`] are what
//! a block gives, [`analysis`] asks the [`statistics`], the [`record`] is saved after every block as a [`mod@file`], of
//! which [`report`] and [`sentence`] are renderings. Behind the slices' two traits stand the [`fleet_client`] and the
//! [`servers`].
#![forbid(unsafe_code)]

pub mod analysis;
pub mod arm;
pub mod block_files;
pub mod chart;
pub mod compare;
pub mod counted;
pub mod doctor;
pub mod export;
pub mod figures;
pub mod file;
pub mod find_rate;
pub mod flags;
pub mod fleet_client;
pub mod floor;
#[cfg(test)]
mod golden;
pub mod guard;
pub mod layouts;
pub mod levels;
pub mod load_words;
pub mod manual;
pub mod merge;
pub mod metric;
pub mod open_load;
pub mod page;
pub mod placement;
pub mod process_group;
pub mod progress;
pub mod record;
pub mod render;
pub mod report;
pub mod results;
pub mod runs;
pub mod saved;
pub mod selftest;
pub mod sentence;
pub mod server_process;
pub mod servers;
pub mod shown;
pub mod slices;
pub mod statistics;
pub mod storm;
pub mod sweep;
pub mod trace;
