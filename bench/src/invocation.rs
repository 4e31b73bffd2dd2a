//! What a command is entered with, besides its settings.

use std::ffi::OsString;

use anyhow::Context;

use echometer_host::signals::Stop;

/// How the program was called.
#[derive(Debug)]
pub(crate) struct Invocation {
    /// As it can be typed again; it is kept in the result.
    pub command_line: String,
    /// The same word by word, with what a job file stands for.
    pub words: Vec<OsString>,
    /// What reads such words.
    pub parser: clap::Command,
}

impl Invocation {
    /// A request to stop, made by Ctrl-C or a signal.
    ///
    /// # Errors
    /// The signals can't be watched.
    pub(crate) fn stop(&self) -> anyhow::Result<Stop> {
        Stop::on_signals().context("cannot watch for signals")
    }
}
