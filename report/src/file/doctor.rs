//! `doctor.json`: whether a machine is fit to measure, as plain data.

use serde::{Deserialize, Serialize};

use echometer_host::{
    cpus::CpuList,
    fitness::{Finding, Grade, Use},
    machine::Facts,
};

/// What the file says of its form.
pub const SCHEMA: &str = "echometer.doctor/1";

/// The name of the file in its folder.
pub const FILE_NAME: &str = "doctor.json";

/// What the doctor has found, as `--json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Examination {
    /// [`SCHEMA`].
    pub schema: String,
    /// What the machine shall be fit for.
    #[serde(rename = "for")]
    pub engine: Use,
    /// The cpus of server and client.
    pub cpus: CpuList,
    /// How many connections there will be.
    pub connections: u64,
    /// The machine.
    pub machine: Facts,
    /// The gravest first.
    pub findings: Vec<Finding>,
}

impl Examination {
    /// Whether anything makes figures mean something else than they say.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.grade == Grade::Fail)
    }
}
