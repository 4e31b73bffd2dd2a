//! `compare.json`: everything that a comparison asked, saw and concludes, as plain data. The table and the sentence
//! are renderings of it.

use serde::{Deserialize, Serialize};

use echometer_host::{cpus::CpuList, fitness::Finding, machine::Facts};
use echometer_loadgen::Plan;

use crate::{
    compare::{
        analysis::{MetricResult, Trust},
        flags::Design,
    },
    floor::multiples::FloorEntry,
    judge::figures::BlockFigures,
    measure::slices::Started,
    report::file::metric::Metric,
    serve::arm::Arm,
};

/// What the file says of its form.
pub const SCHEMA: &str = "echometer.compare/1";
/// The name of the file in its folder.
pub const FILE_NAME: &str = "compare.json";

/// A comparison, finished or under way: it is saved after every block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// How long it took so far.
    pub elapsed_ns: u64,
    /// Whether it was stopped before its last block.
    pub cut_short: bool,
    /// The answer for people.
    pub sentence: String,
    /// Whether the whole can be trusted.
    pub verdict: Trust,
    /// In the order of the command line, the baseline first.
    pub arms: Vec<ArmEntry>,
    /// What was asked.
    pub design: DesignEntry,
    /// Repeats the order of the slices, the payload and, in open loop, the arrivals.
    pub seed: u64,
    /// Where it was measured.
    pub machine: Facts,
    /// Whether that machine was fit for it, the gravest finding first; empty in files of older versions.
    #[serde(default)]
    pub doctor: Vec<Finding>,
    /// What was run: the bench itself, then each arm's server as it was started last.
    pub commands: Vec<CommandEntry>,
    /// Every block, invalid ones too.
    pub blocks: Vec<BlockFigures>,
    /// One entry an arm (but the baseline) and metric.
    pub metrics: Vec<MetricResult>,
    /// What an echo costs the kernel at least, and each server as a multiple of it; `null` where it was not asked for.
    #[serde(default)]
    pub floor: Option<FloorEntry>,
}

/// One arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmEntry {
    /// Unique among the arms.
    pub name: String,
    /// What it is, as it can be typed again.
    pub spec: String,
    /// What our own server said when it was ready: engine, threads, cpus, backlog, features.
    pub ready_line: Option<String>,
}

/// What was asked, as far as it isn't an arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesignEntry {
    /// How the arms take turns.
    pub kind: Design,
    /// How many blocks were to be run.
    pub blocks: usize,
    /// The shortest slice (see each block for what it was), or the length of a run.
    pub slice_min_ns: u64,
    /// The metric that was named before the run.
    pub primary: Metric,
    /// Smaller differences are of no practical use; a share.
    pub margin: f64,
    /// Where the servers ran; `null` where none of them was ours.
    pub server_cpus: Option<CpuList>,
    /// Where the client ran, one thread a cpu.
    pub client_cpus: CpuList,
    /// The load; its duration is the time that each arm was measured in a block, or the length of a run.
    pub load: Plan,
}

/// One command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandEntry {
    /// `echometer`, or the arm's name.
    pub of: String,
    /// As a shell would take it.
    pub command: String,
}

impl ArmEntry {
    /// An arm whose server was not started yet.
    #[must_use]
    pub fn of(arm: &Arm) -> Self {
        Self {
            name: arm.name.clone(),
            spec: arm.spec.to_string(),
            ready_line: None,
        }
    }
}

impl CommandEntry {
    /// The bench's own command line, which is the first of a result's.
    #[must_use]
    pub fn bench(command_line: &str) -> Self {
        Self {
            of: "echometer".to_owned(),
            command: command_line.to_owned(),
        }
    }

    /// Writes down behind the bench's own line how the servers were started last, each under its name. One that was
    /// running already has no line.
    pub fn list_servers<'a>(
        commands: &mut Vec<Self>,
        servers: impl IntoIterator<Item = (&'a String, &'a Started)>,
    ) {
        commands.truncate(1);
        commands.extend(servers.into_iter().filter_map(|(name, started)| {
            Some(Self {
                of: name.clone(),
                command: started.command.clone()?,
            })
        }));
    }
}

impl Comparison {
    /// Blocks that are part of the comparison.
    pub fn valid_blocks(&self) -> impl Iterator<Item = &BlockFigures> {
        self.blocks.iter().filter(|block| block.valid)
    }
}
