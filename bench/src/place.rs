//! On which cpus do both sides run?

pub(crate) mod layouts;
pub(crate) mod placement;
pub(crate) mod quiet;
