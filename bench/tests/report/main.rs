//! `echometer report`, `merge` and `export` on a result of each kind: the pages in a real browser, the texts against
//! what they were, the files against what is in them.

mod browser;
mod commands;
mod fixtures;
mod pages;
