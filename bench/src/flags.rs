//! The flags: what was typed, turned once into settings that are valid. Nobody further down sees a flag. One file a
//! command; [`groups`] are what commands share.

pub mod compare;
pub mod groups;
pub mod selftest;
pub mod trace;

use clap::{CommandFactory, Parser, Subcommand};

use echometer_loadgen::flags::with_default_help;

pub use compare::{CompareFlags, CompareSettings, Design, load_defaults};
pub use selftest::{SelftestFlags, SelftestSettings};
pub use trace::{TraceFlags, TraceSettings, TraceTarget};

/// Compares echo servers, and says how sure it is.
#[derive(Debug, Parser)]
#[command(name = "echometer", version, max_term_width = 100)]
pub struct Cli {
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The command line's parser, with what the load generator's flags mean and default to here.
    #[must_use]
    pub fn parser() -> clap::Command {
        Self::command().mut_subcommand("compare", |compare| {
            let compare = compare
                .mut_arg("duration", |flag| {
                    flag.help("How long each arm is measured in a block: 3s, 500ms")
                })
                .mut_arg("warmup", |flag| {
                    flag.help("Load on each arm before that, in every block")
                })
                .mut_arg("seed", |flag| {
                    flag.help("Makes the arms' order, schedule and payload repeatable")
                });
            with_default_help(compare, &load_defaults(false))
        })
    }
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compare servers with each other: which is cheaper or faster, by how much, how sure
    ///
    /// An ARM is [NAME=]SPEC. SPEC is an engine of echometer-server (auto, uring, epoll, tokio-uring, tokio, blocking),
    /// perhaps with its flags after a colon; tcp:HOST:PORT, a server that is already running; or else a command that
    /// starts an echo server, in which {port} stands for the port it shall listen on and {cpus} for its cpus. The first
    /// arm is the baseline.
    #[command(after_help = compare::EXAMPLES)]
    Compare(Box<CompareFlags>),
    /// Prove on this machine that the instrument tells the truth
    ///
    /// A server whose slowness is known (echometer-server --delay) is loaded and compared, and what is shown is held
    /// against what is known: medians, tails, ratios and their intervals.
    #[command(after_help = selftest::EXAMPLES)]
    Selftest(Box<SelftestFlags>),
    /// Show one connection step by step, each timed: what the benchmark measures, and which step is slow
    ///
    /// Each step comes with the call or io_uring operation that does it, its descriptor, what came of it and what it
    /// would have said on failure. --explain is for who sees it for the first time.
    #[command(after_help = trace::EXAMPLES)]
    Trace(Box<TraceFlags>),
    /// Kill the servers of a bench that has died. The bench starts it by itself.
    #[command(name = crate::guard::SUBCOMMAND, hide = true)]
    Guard,
}
