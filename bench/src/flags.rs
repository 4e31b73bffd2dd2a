//! The flags: what was typed, turned once into settings that are valid. Nobody further down sees a flag. One file a
//! command; [`groups`] are what commands share.

pub mod compare;
pub mod doctor;
pub mod floor;
pub mod groups;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use echometer_loadgen::flags::with_default_help;

pub use compare::{CompareFlags, CompareSettings, Design, load_defaults};
pub use floor::{FloorFlags, FloorSettings};

/// Compares echo servers, and says how sure it is.
#[derive(Debug, Parser)]
#[command(name = "echometer", version, max_term_width = 100)]
pub struct Cli {
    /// Whether text is coloured; it says the same without
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Output"
    )]
    pub color: Colour,

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

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// In files and pipes too.
    Always,
    /// Never.
    Never,
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
    /// What an echo costs the kernel at least on this machine
    ///
    /// One pinned thread holds both ends of loopback connections: it sends on all, receives on all, sends back and
    /// receives back. The CPU time of an echo and side, less two empty system calls, is what no server on this kernel
    /// can go below as long as it uses TCP over sockets.
    #[command(after_help = floor::EXAMPLES)]
    Floor(FloorFlags),
    /// Is this machine fit to measure? PASS, WARN, FAIL or unknown, each with why and the cure
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::DoctorFlags),
    /// Kill the servers of a bench that has died. The bench starts it by itself.
    #[command(name = crate::guard::SUBCOMMAND, hide = true)]
    Guard,
}
