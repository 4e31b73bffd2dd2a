//! The flags of `echometer floor`, and what they mean.

use std::time::Duration;

use clap::Args;

use echometer_host::units;

use crate::{
    flags::{OutputFlags, OutputSettings},
    measure::floor::PAIRS_MAX,
};

/// The most blocks.
const BLOCKS_MAX: u64 = 200;

/// The flags of `echometer floor`.
#[derive(Debug, Args)]
pub(crate) struct FloorFlags {
    /// How many connections: one row each
    #[arg(long, short, value_name = "N,N,...", value_delimiter = ',', value_parser = units::count, default_value = "1,50,1000")]
    connections: Vec<u64>,

    /// Bytes in a message
    #[arg(long, short, value_name = "SIZE", value_parser = units::size, default_value = "64")]
    size: u64,

    /// How long each number of connections is measured in a block
    #[arg(long, short, value_name = "TIME", value_parser = units::duration, default_value = "200ms")]
    duration: Duration,

    /// Blocks: each measures every number of connections once. An interval needs six
    #[arg(long, value_name = "N", value_parser = units::count, default_value = "8")]
    blocks: u64,

    /// The cpu that is measured [default: the one that `compare` would give a server]
    #[arg(long, value_name = "CPU")]
    cpu: Option<u32>,

    /// Makes the order within the blocks repeatable
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,

    /// The machine's name in the results' path [default: from its cpu and kernel]
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,

    #[command(flatten)]
    output: OutputFlags,
}

/// A measurement of the floor that can be carried out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FloorSettings {
    /// One row each: 1 to [`PAIRS_MAX`], in the order typed.
    pub connections: Vec<u32>,
    /// At least 1.
    pub message_size: u32,
    /// Of one number of connections in a block; above 0.
    pub duration: Duration,
    /// 1 to 200.
    pub blocks: usize,
    /// The cpu, where one was named.
    pub cpu: Option<u32>,
    /// Of the order.
    pub seed: u64,
    /// The machine's name in paths; fit to be a folder's.
    pub machine: Option<String>,
    /// Where the results go, and how they are shown.
    pub output: OutputSettings,
}

impl FloorFlags {
    /// What is meant by what was typed.
    ///
    /// # Errors
    /// A sentence for the user: a usage error.
    pub(crate) fn settings(self) -> Result<FloorSettings, String> {
        let pairs = |&count: &u64| {
            u32::try_from(count)
                .ok()
                .filter(|count| (1..=PAIRS_MAX).contains(count))
                .ok_or_else(|| format!("-c: {count} is out of range: give 1 to {PAIRS_MAX}"))
        };
        let message_size = u32::try_from(self.size)
            .ok()
            .filter(|size| (1..=echometer_loadgen::plan::MESSAGE_SIZE_MAX).contains(size));
        if self.duration.is_zero() {
            return Err(
                "-d: 0 is too short to measure anything: give a time such as 200ms".to_owned(),
            );
        }
        if !(1..=BLOCKS_MAX).contains(&self.blocks) {
            return Err(format!(
                "--blocks: give 1 to {BLOCKS_MAX}; an interval needs 6"
            ));
        }
        Ok(FloorSettings {
            connections: self
                .connections
                .iter()
                .map(pairs)
                .collect::<Result<_, _>>()?,
            message_size: message_size.ok_or("-s: a message has 1 byte to 64 MiB")?,
            duration: self.duration,
            blocks: self.blocks as usize,
            cpu: self.cpu,
            seed: self.seed,
            machine: self.machine,
            output: self.output.settings(),
        })
    }
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  echometer floor                    1, 50 and 1,000 connections, 64 B: some five seconds
  echometer floor -c 200 -s 4KiB     another load

Exit codes: 0 ok, 1 could not do it, 2 usage, 3 measured but without an interval.";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn typed(line: &str) -> Result<FloorSettings, String> {
        let words = format!("echometer floor {line}");
        let cli =
            Cli::try_parse_from(words.split_whitespace()).map_err(|error| error.to_string())?;
        let Command::Floor(flags) = cli.command else {
            panic!("it is floor")
        };
        flags.settings()
    }

    #[test]
    fn defaults_and_lists() {
        let settings = typed("").expect("valid");
        assert_eq!(settings.connections, [1, 50, 1_000]);
        assert_eq!((settings.message_size, settings.blocks), (64, 8));
        let settings = typed("-c 2,1k -s 4KiB -d 1s --cpu 3").expect("valid");
        assert_eq!(
            (settings.connections, settings.message_size),
            (vec![2, 1_000], 4_096)
        );
        assert_eq!(
            (settings.duration, settings.cpu),
            (Duration::from_secs(1), Some(3))
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, cure) in [
            ("-c 0", "1 to 10000"),
            ("-c 10001", "1 to 10000"),
            ("-s 0", "1 byte"),
            ("-d 0s", "200ms"),
            ("-d 5", "unit"),
            ("--blocks 0", "needs 6"),
        ] {
            let error = typed(line).expect_err(line);
            assert!(error.contains(cure), "{line}: {error}");
        }
    }
}
