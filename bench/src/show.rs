//! How is a saved result shown again? `report`, `merge` and `export`.

pub mod command;
pub mod export;
pub mod flags;
pub mod merge;
