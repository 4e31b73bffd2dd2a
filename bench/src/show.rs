//! How is a saved result shown again? `report`, `merge` and `export`.

pub(crate) mod command;
pub(crate) mod export;
pub(crate) mod flags;
pub(crate) mod merge;
