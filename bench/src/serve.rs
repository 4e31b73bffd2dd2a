//! What serves, and who ends it?

pub(crate) mod arm;
pub(crate) mod guard;
pub(crate) mod launcher;
pub(crate) mod output_log;
pub(crate) mod process_group;
mod ready;
pub(crate) mod servers;
pub(crate) mod stray;
