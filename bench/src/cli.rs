//! Which command was typed? The only room that knows all commands.

mod manual;

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, builder::Resettable,
    error::ErrorKind,
};

use echometer_host::{
    limits,
    output::{is_plain_terminal, unless_closed, with_causes},
    signals, threads,
};
use echometer_loadgen::{flags::with_default_help, run::command_line};
use echometer_report::{file::entries::ENGINES, saved::harmless::harmless};

use crate::{
    compare::{
        self,
        flags::{CompareFlags, load_defaults},
    },
    curve::{self, flags::CurveFlags},
    doctor,
    find_rate::{self, flags::FindRateFlags},
    floor::{self, flags::FloorFlags},
    invocation::Invocation,
    jitter::{self, flags::JitterFlags},
    selftest::{self, flags::SelftestFlags},
    serve::guard,
    show,
    storm::{self, flags::StormFlags},
    sweep::{self, flags::SweepFlags},
    trace::{self, flags::TraceFlags},
};

/// Does what `words` ask for, and prints the error, once.
#[must_use]
pub fn main(words: Vec<OsString>) -> ExitCode {
    // A limit on file sizes is an error of the write that meets it, and not this process's end.
    let watched = signals::outlive_file_size_limit().context("cannot watch for signals");
    let done = watched.and_then(|()| threads::with_enough_stack(|| run(words))?);
    done.unwrap_or_else(|error| {
        let text = with_causes(error.as_ref());
        let hint = limits::hint_of_chain(error.as_ref(), &text);
        // With stderr gone there is nobody left to tell, and the exit code says it too.
        // It may quote a foreign file, or a server.
        let _ = writeln!(io::stderr(), "error: {}{hint}", harmless(&text));
        ExitCode::FAILURE
    })
}

/// Parses and enters the command.
fn run(words: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let mut parser = Cli::parser();
    if is_plain_terminal() {
        anstream::ColorChoice::Never.write_global();
        parser = parser.color(clap::ColorChoice::Never);
    }
    // A job file stands for a command line.
    let words = match sweep::job::expand(words) {
        Ok(words) => words,
        Err(error) => parser
            .error(ErrorKind::ValueValidation, harmless(&format!("{error:#}")))
            .exit(),
    };
    let parsed = parser.clone().try_get_matches_from(&words);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => error.exit(),
        // Help or version: asked for, so that it must arrive.
        Err(text) => {
            let written = text.print().and_then(|()| io::stdout().flush());
            unless_closed(written).context("cannot write to stdout")?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    match cli.color {
        // What anstream finds out by itself.
        Colour::Auto => {}
        Colour::Always => anstream::ColorChoice::Always.write_global(),
        Colour::Never => anstream::ColorChoice::Never.write_global(),
    }
    let invocation = Invocation {
        command_line: command_line(),
        words,
        parser,
    };
    enter(cli.command, &invocation)
}

/// Every command is entered so: its flags become settings, or the end; then it runs.
fn enter(command: Command, how: &Invocation) -> anyhow::Result<ExitCode> {
    match command {
        Command::Compare(flags) => {
            compare::command::run(&valid(how, "compare", flags.settings()), how)
        }
        Command::Curve(flags) => curve::command::run(&valid(how, "curve", flags.settings()), how),
        Command::Floor(flags) => floor::command::run(&valid(how, "floor", flags.settings()), how),
        Command::Doctor(flags) => doctor::command::run(&flags, how),
        Command::Jitter(flags) => {
            jitter::command::run(&valid(how, "jitter", flags.settings()), how)
        }
        Command::Report(flags) => show::command::report(&flags, how),
        Command::Merge(flags) => show::command::merge(&flags, how),
        Command::Export(flags) => show::command::export(&flags, how),
        Command::Completions(flags) => manual::show_completions(&flags, how),
        Command::Man(flags) => match manual::show_man(&flags, how)? {
            Ok(code) => Ok(code),
            Err(text) => usage(how, "man", text),
        },
        Command::FindRate(flags) => {
            find_rate::command::run(&valid(how, "find-rate", flags.settings()), how)
        }
        Command::Storm(flags) => storm::command::run(&valid(how, "storm", flags.settings()), how),
        Command::Sweep(flags) => sweep::command::run(&valid(how, "sweep", flags.settings()), how),
        Command::Selftest(flags) => {
            selftest::command::run(&valid(how, "selftest", flags.settings()), how)
        }
        Command::Trace(flags) => trace::command::run(&valid(how, "trace", flags.settings()), how),
        Command::Guard => {
            guard::stand(io::stdin().lock());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The settings, or the end with a usage error.
fn valid<S>(how: &Invocation, subcommand: &str, settings: Result<S, String>) -> S {
    settings.unwrap_or_else(|text| usage(how, subcommand, text))
}

/// Ends with a usage error of a subcommand.
fn usage(how: &Invocation, subcommand: &str, text: String) -> ! {
    let mut parser = how.parser.clone();
    // Only then a subcommand knows that it is called `echometer trace`.
    parser.build();
    let subcommand = parser
        .find_subcommand_mut(subcommand)
        .expect("it was just parsed");
    subcommand.error(ErrorKind::ValueValidation, text).exit()
}

/// Compares echo servers, and says how sure it is.
#[derive(Debug, Parser)]
#[command(name = "echometer", version, max_term_width = 100)]
pub(crate) struct Cli {
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
    pub(crate) fn parser() -> clap::Command {
        let command = Self::command()
            .mut_subcommand("compare", |compare| {
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
                let about = compare.get_long_about().map(ToString::to_string);
                let about = about.unwrap_or_default();
                let compare = compare.long_about(about.replace("{engines}", &ENGINES.join(", ")));
                with_default_help(compare, &load_defaults(false))
            })
            .mut_subcommand("curve", |curve| {
                let curve = curve
                    .mut_arg("rate", |flag| flag.hide(true))
                    .mut_arg("arrivals", |flag| {
                        flag.requires(Resettable::<clap::Id>::Reset)
                    })
                    .mut_arg("duration", |flag| {
                        flag.help(
                            "How long each arm is measured at each rate in a block, at the least",
                        )
                    })
                    .mut_arg("warmup", |flag| {
                        flag.help("Load on each arm at each rate before that, in every block")
                    })
                    .mut_arg("seed", |flag| {
                        flag.help("Makes the orders, schedule and payload repeatable")
                    });
                with_default_help(curve, &curve::flags::load_defaults(false))
            })
            .mut_subcommand("find-rate", |find_rate| {
                let find_rate = find_rate
                    .mut_arg("rate", |flag| flag.hide(true))
                    .mut_arg("arrivals", |flag| {
                        flag.requires(Resettable::<clap::Id>::Reset)
                    })
                    .mut_arg("duration", |flag| {
                        flag.help("How long a run lasts at the least; its quantile may need more")
                    })
                    .mut_arg("warmup", |flag| {
                        flag.help("Load before that, on the same connections, in every run")
                    });
                with_default_help(find_rate, &find_rate::flags::load_defaults())
            })
            .mut_subcommand("storm", |storm| {
                storm::flags::MEANINGLESS
                    .into_iter()
                    .fold(storm, |storm, id| storm.mut_arg(id, |flag| flag.hide(true)))
                    .mut_arg("size", |flag| {
                        flag.help(
                            "Bytes in the one message that follows each connect [default: 64 B]",
                        )
                    })
                    .mut_arg("connect_rate", |flag| {
                        flag.help("Connects per second; 0: all at once [default: 0]")
                    })
            })
            .mut_subcommand("sweep", |sweep| {
                let sweep = sweep
                    .args_override_self(true)
                    // The rate may come from --over.
                    .mut_arg("arrivals", |flag| {
                        flag.requires(Resettable::<clap::Id>::Reset)
                    })
                    .mut_arg("duration", |flag| {
                        flag.help("How long each cell is measured in a block: 3s, 500ms")
                    })
                    .mut_arg("warmup", |flag| {
                        flag.help("Load on each cell before that, in every block")
                    })
                    .mut_arg("seed", |flag| {
                        flag.help("Makes the orders, schedule and payload repeatable")
                    });
                with_default_help(sweep, &sweep::flags::load_defaults(false, false))
            });
        manual::grouped(command)
    }
}

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// In files and pipes too.
    Always,
    /// Never.
    Never,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compare servers with each other: which is cheaper or faster, by how much, how sure
    ///
    /// An ARM is [NAME=]SPEC. SPEC is an engine of echometer-server ({engines}),
    /// perhaps with its flags after a colon; tcp:HOST:PORT, a server that is already running; or else a command that
    /// starts an echo server, in which {port} stands for the port it shall listen on and {cpus} for its cpus. The first
    /// arm is the baseline.
    #[command(after_help = compare::flags::EXAMPLES)]
    Compare(Box<CompareFlags>),
    /// What an echo costs the kernel at least on this machine
    ///
    /// One pinned thread holds both ends of loopback connections: it sends on all, receives on all, sends back and
    /// receives back. The CPU time of an echo and side, minus two empty system calls, is what no server on this kernel
    /// can go below as long as it uses TCP over sockets.
    #[command(after_help = floor::flags::EXAMPLES)]
    Floor(FloorFlags),
    /// Is this machine fit to measure? PASS, WARN, FAIL or unknown, each with why and the cure
    #[command(after_help = doctor::flags::EXAMPLES)]
    Doctor(doctor::flags::DoctorFlags),
    /// What disturbs each cpu, by name, and what p99.9 that alone makes
    ///
    /// A loop on each of two cpus at a time reads the clock without pause: where two readings lie apart, something else
    /// ran. Shown are these gaps, who ran meanwhile, interrupts and what the hypervisor took.
    #[command(after_help = jitter::flags::EXAMPLES)]
    Jitter(JitterFlags),
    /// Show a saved result: a page in one file, text, data or figures
    #[command(after_help = show::flags::REPORT_EXAMPLES)]
    Report(show::flags::ReportFlags),
    /// Make one histogram log of several, every count kept
    #[command(after_help = show::flags::MERGE_EXAMPLES)]
    Merge(show::flags::MergeFlags),
    /// Write a result's histograms and tables for other tools: .hgrm and CSV
    #[command(after_help = show::flags::EXPORT_EXAMPLES)]
    Export(show::flags::ExportFlags),
    /// Print the completions for a shell
    #[command(after_help = show::flags::COMPLETIONS_EXAMPLES)]
    Completions(show::flags::CompletionsFlags),
    /// Print the manual as man pages
    #[command(after_help = show::flags::MAN_EXAMPLES)]
    Man(show::flags::ManFlags),
    /// Latency and CPU per message against rate, for all arms in one interleaved experiment
    ///
    /// First each arm's capacity is searched for. Then every arm takes slices of open loop at every rate in turn, in random
    /// order, in blocks with servers started afresh. Shows p50, p99, p99.9 and CPU per message with intervals, how the arms
    /// compare at each rate, and where each arm's p99 takes off. ARM is as in `compare`.
    #[command(after_help = curve::flags::EXAMPLES)]
    Curve(Box<CurveFlags>),
    /// The highest rate at which an objective such as p99<200us holds, with its interval
    ///
    /// Each block searches anew on a fresh server: up or down in doublings, then between what held and what failed until
    /// they are 2 % apart. Short runs are repeated until two say the same, so that one stall decides nothing. The median of
    /// the blocks is the answer, their range its interval.
    #[command(after_help = find_rate::flags::EXAMPLES)]
    FindRate(Box<FindRateFlags>),
    /// The backlog laboratory: many connects at once against servers with different listen backlogs
    ///
    /// Every connect is followed by one echo. Shows what the kernel drops at each backlog, who has to try again and how
    /// long that takes, and ends with the smallest backlog that lost none. ARM is as in `compare`.
    #[command(after_help = storm::flags::EXAMPLES)]
    Storm(Box<StormFlags>),
    /// Measure servers over the values of one or two keys: connections, backlog, pinning and so on
    ///
    /// Every block measures every cell (each ARM at each combination of values) once, in random order. Cells under the
    /// same load on the same cpus take turns in short slices; an open loop is one whole run each. ARM is as in
    /// `compare`; a job file (job.toml, written beside every result) stands for a whole command line.
    #[command(after_help = sweep::flags::EXAMPLES)]
    Sweep(Box<SweepFlags>),
    /// Prove on this machine that the instrument tells the truth
    ///
    /// A server whose slowness is known (echometer-server --delay) is loaded and compared, and what is shown is
    /// compared with what is known: medians, tails, ratios and their intervals.
    #[command(after_help = selftest::flags::EXAMPLES)]
    Selftest(Box<SelftestFlags>),
    /// Show one connection step by step, each timed: what the benchmark measures, and which step is slow
    ///
    /// Each step comes with the call or io_uring operation that does it, its descriptor, what came of it and what it
    /// would have said on failure. --explain is for readers who see this for the first time.
    #[command(after_help = trace::flags::EXAMPLES)]
    Trace(Box<TraceFlags>),
    /// Kill the servers of a bench that has died. The bench starts it by itself.
    #[command(name = guard::SUBCOMMAND, hide = true)]
    Guard,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_the_engines_that_are_arms() {
        let mut parser = Cli::parser();
        let compare = parser.find_subcommand_mut("compare").expect("it is there");
        let help = compare.render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            help.contains(&format!("({}), perhaps with its flags", ENGINES.join(", "))),
            "{help}"
        );
    }
}
