//! On which cpus do both sides run?

pub mod layouts;
pub mod placement;
