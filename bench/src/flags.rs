//! The flags that every command of the bench shares: where both sides run, and where the results go.

use std::path::PathBuf;

use clap::{
    Args, ValueHint,
    builder::{PossibleValuesParser, TypedValueParser},
};

use echometer_host::{cpus::CpuList, priority::Priority};

use crate::serve::arm::Arm;

/// Where both sides run, and what the machine is called.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct MachineFlags {
    /// Where the servers run: 0, 2-5 [default: chosen by the machine's topology]
    #[arg(long, value_name = "LIST")]
    server_cpus: Option<CpuList>,

    /// Where the load generator runs, one thread per cpu [default: chosen by the machine's topology]
    #[arg(long, value_name = "LIST")]
    client_cpus: Option<CpuList>,

    /// Raise the servers, and a client that sleeps, above what else runs: nice is nice -20, rt is SCHED_RR 1
    ///
    /// rt is for servers of one busy thread per cpu that use up to 80 % of it.
    #[arg(long, value_name = "none|nice|rt", default_value = "none", value_parser = priorities(), hide_default_value = true)]
    priority: Priority,

    /// The machine's name in the results' path [default: from its cpu and kernel]
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
}

/// Where the results go, and how they are shown.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputFlags {
    /// Write the results into this folder [default: results/DATE/MACHINE/COMMAND-NNN]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,

    /// Print the result file (JSON) instead of the table
    #[arg(long)]
    json: bool,

    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
}

/// Where both sides run, as far as the user said.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct MachineSettings {
    /// Where the servers shall run; not empty.
    pub server_cpus: Option<CpuList>,
    /// Where the client shall run; not empty.
    pub client_cpus: Option<CpuList>,
    /// How far the servers are raised, and a client that sleeps.
    pub priority: Priority,
    /// The machine's name in paths; fit to be a folder's.
    pub name: Option<String>,
}

/// Where the results go, as far as the user said, and how they are shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct OutputSettings {
    /// The folder for the results.
    pub out: Option<PathBuf>,
    /// Whether the file is printed instead of the table.
    pub json: bool,
    /// Whether progress is not wanted.
    pub quiet: bool,
}

impl MachineFlags {
    /// What is meant by what was typed.
    ///
    /// # Errors
    /// A sentence for the user: a usage error.
    pub(crate) fn settings(self) -> Result<MachineSettings, String> {
        for (flag, cpus) in [
            ("--server-cpus", &self.server_cpus),
            ("--client-cpus", &self.client_cpus),
        ] {
            if cpus.as_ref().is_some_and(CpuList::is_empty) {
                return Err(format!(
                    "{flag}: an empty list: name one cpu or more, such as 1 or 2-5"
                ));
            }
        }
        let plain = |name: &String| {
            !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
        };
        if self.machine.as_ref().is_some_and(|name| !plain(name)) {
            return Err("--machine: the name becomes a folder: give one without slashes that starts with no dot".to_owned());
        }
        Ok(MachineSettings {
            server_cpus: self.server_cpus,
            client_cpus: self.client_cpus,
            priority: self.priority,
            name: self.machine,
        })
    }
}

impl MachineSettings {
    /// Refuses a priority where a command has no use for it.
    ///
    /// # Errors
    /// A usage error: `why`, a clause.
    pub(crate) fn without_priority(self, refused: &[Priority], why: &str) -> Result<Self, String> {
        match refused.contains(&self.priority) {
            true => Err(format!("--priority {}: {why}", self.priority)),
            false => Ok(self),
        }
    }
}

/// Refuses arms that never sleep where they would run at real-time priority.
///
/// # Errors
/// A usage error.
pub(crate) fn sleepers_only(arms: &[Arm], priority: Priority) -> Result<(), String> {
    let restless = arms.iter().find(|arm| arm.spec.never_sleeps());
    match restless.filter(|_| priority == Priority::Rt) {
        None => Ok(()),
        Some(arm) => Err(format!(
            "--priority rt: arm '{}' never sleeps (--wait spin or sqpoll) and would keep its cpu from everybody else: give \
             it --wait hybrid:50us, or use --priority nice",
            arm.name,
        )),
    }
}

/// The three words.
fn priorities() -> impl TypedValueParser<Value = Priority> {
    PossibleValuesParser::new(Priority::ALL.map(Priority::word))
        .try_map(|word| word.parse::<Priority>())
}

impl OutputFlags {
    /// What is meant by what was typed.
    #[must_use]
    pub(crate) fn settings(self) -> OutputSettings {
        OutputSettings {
            out: self.out,
            json: self.json,
            quiet: self.quiet,
        }
    }
}

/// `2%`, or the same as a share: `0.02`.
pub(crate) fn margin(text: &str) -> Result<f64, String> {
    let (number, scale) = text
        .strip_suffix('%')
        .map_or((text, 1.0), |number| (number.trim_end(), 0.01));
    let plain = !number.is_empty()
        && number
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let share = number
        .parse::<f64>()
        .ok()
        .filter(|_| plain)
        .map(|number| number * scale);
    share
        .filter(|share| (0.0..1.0).contains(share))
        .ok_or_else(|| "a margin is a percentage or a share below 1: 2% or 0.02".to_owned())
}
