//! What is seen of a measurement, meanwhile and at the end?

pub(crate) mod progress;
pub(crate) mod stdout;
