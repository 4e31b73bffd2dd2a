//! What did we learn? The bench: it starts servers, puts them under the load generator in turn, and says which is
//! cheaper or faster, by how much and how sure.
//!
//! [`cli`] knows which command was typed; a command is a folder ([`mod@compare`], [`sweep`], [`find_rate`], [`storm`],
//! [`floor`], [`trace`], [`doctor`], [`selftest`], [`show`]) with files of the same names: its `flags` become settings,
//! its `command` is what the user sees of it, its `record` is what is under way. [`measure`] is how one block is
//! measured, [`judge`] what its figures say, [`serve`] what serves and who ends it, [`place`] on which cpus; what a result says as
//! data, text and page is a crate of its own, `echometer-report`.
#![forbid(unsafe_code)]

pub mod cli;
pub mod compare;
pub mod doctor;
pub mod find_rate;
pub mod flags;
pub mod floor;
pub mod invocation;
pub mod judge;
pub mod levels;
pub mod measure;
pub mod place;
pub mod screen;
pub mod selftest;
pub mod serve;
pub mod show;
pub mod site;
pub mod storm;
pub mod sweep;
pub mod trace;
