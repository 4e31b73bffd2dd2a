//! The `echometer` binary.
fn main() {}
