//! How is one block measured? In [`slices`] or whole [`runs`], behind traits for both sides, so that a made-up world can
//! stand there in tests.

pub mod block;
pub mod block_files;
pub mod fleet_client;
pub mod open_run;
pub mod reading;
pub mod runs;
pub mod sides;
pub mod slices;
#[cfg(test)]
pub(crate) mod world;
