//! What does a result say? As data ([`mod@file`]), as [`text`] and as a [`page`]; and how a stranger's file is read
//! ([`saved`]).

#![forbid(unsafe_code)]

pub mod file;
pub mod folder;
#[cfg(test)]
pub(crate) mod golden;
pub mod kinds;
pub mod names;
pub mod page;
pub mod render;
pub mod saved;
pub mod text;
