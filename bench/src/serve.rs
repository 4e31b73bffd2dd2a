//! What serves, and who ends it?

pub mod arm;
pub mod guard;
pub mod launcher;
pub mod process_group;
pub mod servers;
