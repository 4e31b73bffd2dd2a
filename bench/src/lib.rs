//! What did we learn? The bench: it starts servers, puts them under the load generator in turn, and says which is
//! cheaper or faster, by how much and how sure.
#![forbid(unsafe_code)]

pub mod analysis;
pub mod arm;
pub mod figures;
pub mod guard;
pub mod metric;
pub mod process_group;
pub mod server_process;
pub mod slices;
pub mod statistics;
