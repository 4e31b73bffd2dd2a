//! What did we learn?
#![forbid(unsafe_code)]
