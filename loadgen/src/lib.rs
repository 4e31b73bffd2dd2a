//! How is load made and timed?
#![forbid(unsafe_code)]
