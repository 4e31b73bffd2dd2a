//! What did we learn? The bench: it starts servers, puts them under the load generator in turn, and says which is
//! cheaper or faster, by how much and how sure.
#![forbid(unsafe_code)]

pub mod analysis;
pub mod arm;
pub mod block_files;
pub mod compare;
pub mod figures;
pub mod file;
pub mod flags;
pub mod fleet_client;
pub mod guard;
pub mod metric;
pub mod placement;
pub mod process_group;
pub mod progress;
pub mod record;
pub mod report;
pub mod results;
pub mod sentence;
pub mod server_process;
pub mod servers;
pub mod slices;
pub mod statistics;
