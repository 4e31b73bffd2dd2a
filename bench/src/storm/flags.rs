//! The flags of `echometer storm`, and what they mean.

use clap::Args;

use echometer_host::{priority::Priority, units};
use echometer_loadgen::{
    Plan,
    flags::LoadFlags,
    plan::{Load, PlanError},
};

use crate::{
    flags::{MachineFlags, MachineSettings, OutputFlags, OutputSettings},
    levels::{Change, Key, parse_axis},
    serve::arm::{Arm, parse_arms},
    storm::StormLevel,
};

/// The most storms on one level.
const BLOCKS_MAX: u64 = 200;
/// The backlogs that are compared where none are named.
const DEFAULT_BACKLOGS: &str = "backlog=16,128,1024,4096";

/// The flags of `echometer storm`.
#[derive(Debug, Args)]
pub(crate) struct StormFlags {
    /// What is stormed, a fresh server for each backlog [default: uring]
    #[arg(value_name = "ARM")]
    arms: Vec<String>,

    /// How many connections are made [default: 1,000]
    #[arg(long, value_name = "N", value_parser = units::count, help_heading = "Storm")]
    connects: Option<u64>,

    /// The backlogs that are compared: backlog=V,V [default: backlog=16,128,1024,4096]
    #[arg(long, value_name = "backlog=V,V", help_heading = "Storm")]
    over: Option<String>,

    /// Storms on each level [default: 3]
    #[arg(long, value_name = "N", value_parser = units::count, help_heading = "Storm")]
    blocks: Option<u64>,

    #[command(flatten)]
    load: LoadFlags,

    #[command(flatten)]
    machine: MachineFlags,

    #[command(flatten)]
    output: OutputFlags,
}

/// A storm that can be carried out, but for what only the machine can say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StormSettings {
    /// What is stormed, in the order of the command line: each arm with each backlog.
    pub levels: Vec<StormLevel>,
    /// The load: its connections are the connects of one storm, its pace theirs. Its workers are placed later.
    pub load: Plan,
    /// Storms on each level: 1 to 200.
    pub blocks: usize,
    /// Where both sides run, and what the machine is called.
    pub machine: MachineSettings,
    /// Where the results go, and how they are shown.
    pub output: OutputSettings,
}

/// Flags of the load generator that mean nothing in a storm; hidden, and refused.
pub(crate) const MEANINGLESS: [&str; 10] = [
    "connections",
    "duration",
    "warmup",
    "rate",
    "arrivals",
    "pipeline",
    "requests_per_connection",
    "close",
    "reconnect",
    "verify",
];

impl StormFlags {
    /// What is meant by what was typed.
    ///
    /// # Errors
    /// A sentence for the user: a usage error.
    pub(crate) fn settings(self: Box<Self>) -> Result<StormSettings, String> {
        let load = &self.load;
        if load.connections.is_some() {
            return Err("-c: say --connects, the number of connects in one storm".to_owned());
        }
        if load.rate.is_some() {
            return Err(
                "-R: a storm has one message per connection: --connect-rate sets the pace of the connects".to_owned(),
            );
        }
        let other = [
            ("-d", load.duration.is_some()),
            ("-w", load.warmup.is_some()),
            ("--pipeline", load.pipeline.is_some()),
            (
                "--requests-per-connection",
                load.requests_per_connection.is_some(),
            ),
            ("--verify", load.verify),
            ("--reconnect", load.reconnect),
        ];
        if let Some((flag, _)) = other.iter().find(|(_, typed)| *typed) {
            return Err(format!(
                "{flag}: a storm is connects with one echo each: leave it away"
            ));
        }
        let connects = u32::try_from(self.connects.unwrap_or(1_000))
            .ok()
            .filter(|connects| *connects != 0);
        let defaults = Plan {
            connections: connects.ok_or("--connects: give 1 or more")?,
            message_size: 64,
            load: Load::Closed,
            ..Plan::default()
        };
        let load = self
            .load
            .plan(&defaults)
            .map_err(|PlanError { flag, reason }| match flag {
                "-c" => format!("--connects: {reason}"),
                _ => format!("{flag}: {reason}"),
            })?;
        let arms = match self.arms.is_empty() {
            true => vec!["uring".to_owned()],
            false => self.arms,
        };
        let arms = parse_arms(&arms).map_err(|error| error.to_string())?;
        let blocks = self.blocks.unwrap_or(3);
        if !(1..=BLOCKS_MAX).contains(&blocks) {
            return Err(format!("--blocks: give 1 to {BLOCKS_MAX}"));
        }
        Ok(StormSettings {
            levels: levels(&arms, self.over.as_deref())?,
            load,
            blocks: blocks as usize,
            machine: self.machine.settings()?.without_priority(
                &[Priority::Nice, Priority::Rt],
                "a storm measures how connects are taken, on a machine as it is: leave it away",
            )?,
            output: self.output.settings(),
        })
    }
}

/// Every arm with every backlog; a server that is running already has the one that it has.
fn levels(arms: &[Arm], over: Option<&str>) -> Result<Vec<StormLevel>, String> {
    let axis = parse_axis(over.unwrap_or(DEFAULT_BACKLOGS))?;
    if axis.key != Key::Backlog {
        return Err(format!(
            "--over: a storm varies the backlog, such as --over {DEFAULT_BACKLOGS}; for {} use `echometer sweep`",
            axis.key
        ));
    }
    let mut levels = Vec::new();
    for arm in arms {
        if !arm.spec.is_local() && over.is_none() {
            levels.push(StormLevel {
                arm: arm.name.clone(),
                backlog: None,
                server: arm.clone(),
            });
            continue;
        }
        for level in &axis.levels {
            let mut server = arm.clone();
            level.change.apply_to_arm(&mut server)?;
            server.name = format!("{}-{}", arm.name, level.text);
            let Change::ServerFlag { value, .. } = &level.change else {
                continue;
            };
            levels.push(StormLevel {
                arm: arm.name.clone(),
                backlog: value.parse().ok(),
                server,
            });
        }
    }
    Ok(levels)
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  echometer storm --connects 1000                       our server, four backlogs
  echometer storm --connects 5k --over backlog=511,4096 epoll
  echometer storm --connects 2000 --connect-rate 20k 'mine=./srv {port} {backlog}'
  echometer storm --connects 500 tcp:10.0.0.2:7777      a server as it is

A command is told its backlog where it holds {backlog}.

Exit codes: 0 ok, 1 could not do it, 2 usage, 3 measured but not valid,
130 cut short by a second signal.";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn typed(line: &str) -> Result<StormSettings, String> {
        let words = shell_words::split(&format!("echometer storm {line}")).expect("a test's line");
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Storm(flags) = cli.command else {
            panic!("it is storm")
        };
        flags.settings()
    }

    #[test]
    fn without_words_it_is_a_thousand_connects_on_our_ring() {
        let settings = typed("").expect("valid");
        assert_eq!((settings.load.connections, settings.blocks), (1_000, 3));
        let backlogs: Vec<Option<u32>> =
            settings.levels.iter().map(|level| level.backlog).collect();
        assert_eq!(backlogs, [Some(16), Some(128), Some(1_024), Some(4_096)]);
        assert_eq!(
            settings.levels[1].server.to_string(),
            "uring-128=uring:--backlog 128"
        );
    }

    #[test]
    fn any_server_can_be_stormed() {
        let settings = typed(
            "--connects 2k --connect-rate 20k --over backlog=8,9 epoll 'x=./x {port} {backlog}'",
        )
        .expect("valid");
        assert_eq!(settings.levels.len(), 4);
        assert_eq!(settings.levels[3].server.spec.to_string(), "./x {port} 9");
        assert_eq!(settings.load.connect_rate_per_s, 20_000.0);
        let remote = typed("tcp:host:1").expect("valid");
        assert_eq!((remote.levels.len(), remote.levels[0].backlog), (1, None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, words) in [
            ("-c 5", "--connects"),
            ("-R 5k", "--connect-rate"),
            ("-d 5s", "-d: a storm"),
            ("--connects 0", "1 or more"),
            ("--over size=1,2", "a storm varies the backlog"),
            ("--over backlog=x", "backlog"),
            ("--over backlog=1,2 tcp:h:1", "running already"),
            ("'x=./x {port}'", "{backlog}"),
            ("--blocks 0", "--blocks"),
        ] {
            let error = typed(line).expect_err(line);
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
