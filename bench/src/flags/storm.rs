//! The flags of `echometer storm`, and what they mean.

use std::time::Duration;

use clap::Args;

use echometer_host::units;
use echometer_loadgen::{
    Plan,
    flags::LoadFlags,
    plan::{Load, PlanError},
};

use crate::{
    arm::{Arm, Spec, parse_arms},
    flags::groups::{MachineFlags, MachineSettings, OutputFlags, OutputSettings},
    levels::{Key, parse_axis},
    storm::StormLevel,
};

/// The most storms on one level.
const BLOCKS_MAX: u64 = 200;
/// The backlogs that are compared where none are named.
const DEFAULT_BACKLOGS: &str = "backlog=16,128,1024,4096";

/// The flags of `echometer storm`.
#[derive(Debug, Args)]
pub struct StormFlags {
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
pub struct StormSettings {
    /// What is stormed, in the order of the command line: each arm with each backlog.
    pub levels: Vec<StormLevel>,
    /// The load: its connections are the connects of one storm. Its workers are placed later.
    pub load: Plan,
    /// Connects a second; `None`: all at once.
    pub connect_rate: Option<f64>,
    /// Storms on each level: 1 to 200.
    pub blocks: usize,
    /// Where both sides run, and what the machine is called.
    pub machine: MachineSettings,
    /// Where the results go, and how they are shown.
    pub output: OutputSettings,
}
