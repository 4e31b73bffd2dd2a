//! What is seen of a measurement, meanwhile and at the end?

pub mod progress;
pub mod stdout;
