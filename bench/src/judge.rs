//! What do a block's figures say?

pub(crate) mod figures;
pub(crate) mod multiples;
pub(crate) mod objections;
