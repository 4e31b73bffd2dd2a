//! How is the highest rate found that a server holds? The search ([`rungs`]) is pure; what a rate does is said by the votes of
//! short slices ([`by_slices`]), so that a neighbour's stall costs a vote and not the answer.

pub(crate) mod by_slices;
pub(crate) mod rungs;
