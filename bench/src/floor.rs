//! `echometer floor`: what an echo costs the kernel at least on this machine. How it is measured is
//! [`crate::measure::floor`]'s.

pub(crate) mod command;
pub(crate) mod flags;
