//! What do a block's figures say?

pub mod figures;
pub(crate) mod objections;
