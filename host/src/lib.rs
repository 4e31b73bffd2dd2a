//! What Echometer asks of the machine.
#![forbid(unsafe_code)]
