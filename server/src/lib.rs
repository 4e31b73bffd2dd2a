//! How does a byte get echoed?
#![forbid(unsafe_code)]
