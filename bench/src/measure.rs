//! How is one block measured? In [`slices`] or whole [`runs`], behind traits for both sides, so that a made-up world can
//! stand there in tests.

pub(crate) mod block;
pub(crate) mod block_files;
pub(crate) mod fleet_client;
pub(crate) mod floor;
pub(crate) mod open_run;
pub(crate) mod priority;
pub(crate) mod reading;
pub(crate) mod runs;
pub(crate) mod sides;
pub(crate) mod slices;
#[cfg(test)]
pub(crate) mod world;
