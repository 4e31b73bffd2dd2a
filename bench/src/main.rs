//! `echometer`: the bench.
#![forbid(unsafe_code)]

use std::{env, process::ExitCode};

use echometer::cli;

fn main() -> ExitCode {
    cli::main(env::args_os().collect())
}
