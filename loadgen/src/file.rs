//! The run file, `run.json`, schema `echometer.run/1`: plain data, of which everything shown is a rendering.
//!
//! Times are integers in ns with `_ns` in their name. What isn't known is null, never a guess.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use echometer_host::{
    files::{WriteError, write_whole},
    fitness::Finding,
    machine::Facts,
    sockets::SynSchedule,
};

use crate::{
    connect_times::ConnectTimes, fail_if::Held, plan::Plan, source::Sources, verdict::RunVerdict,
};

pub use crate::summary::{Summary, quantile};

/// The schema that this program writes, and the only one that it reads.
pub const SCHEMA: &str = "echometer.run/1";

/// One run of the load generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// When the recorded window began: RFC 3339, UTC, to the second.
    pub started_at: String,
    /// How the program that made it was called, as a shell would take it, the program by its name alone; empty in files of
    /// older versions.
    #[serde(default)]
    pub command: String,
    /// What load was asked for.
    pub plan: Plan,
    /// On what machine the client ran.
    pub machine: Facts,
    /// Whether that machine was fit for it, the gravest finding first; empty in files of older versions.
    #[serde(default)]
    pub doctor: Vec<Finding>,
    /// Who was loaded.
    pub server: Server,
    /// The window in lines of [`Plan::interval`], the last perhaps shorter.
    pub intervals: Vec<IntervalRow>,
    /// The whole window.
    pub end: End,
    /// Whether that can be believed.
    pub verdict: RunVerdict,
    /// What was to hold (`--fail-if`), and whether it did.
    #[serde(default)]
    pub thresholds: Vec<Held>,
    /// Ended early by a signal.
    pub cut_short: bool,
}

/// Who was loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Server {
    /// The address as it was typed.
    pub target: String,
}

/// One line of the interval series. A reply belongs to the interval in which it was harvested; those that came after
/// the window belong to the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IntervalRow {
    /// Since the window's start.
    pub start_ns: u64,
    /// Since the window's start.
    pub end_ns: u64,
    /// Messages of the window written in it.
    pub sent: u64,
    /// Messages of the window answered in it.
    pub answered: u64,
    /// Replies that were harvested in it, a second.
    pub rate_per_s: f64,
    /// Latency of the messages answered in it.
    pub latency_ns: Summary,
    /// Service time of the messages answered in it.
    pub service_ns: Summary,
}

/// The figures of the whole window. `messages`, the counts and the histograms are of the messages that were due (open
/// loop) or written (closed loop) inside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct End {
    /// The same as `answered`.
    pub messages: u64,
    /// Written, then or later: `sent = answered + lost + outstanding`.
    pub sent: u64,
    /// Answered, then or later.
    pub answered: u64,
    /// In flight on connections that failed.
    pub lost: u64,
    /// Not answered when the waiting ended, 5 s after the window.
    pub outstanding: u64,
    /// Due and never written, open loop only: what was due is `sent + unsent`.
    pub unsent: u64,
    /// Messages that entered the latency at the time that they had waited in vain: `lost + outstanding + unsent`.
    pub censored: u64,
    /// Values over 60 s, held as 60 s.
    pub clipped: u64,
    /// Length of the window: shorter than the plan's if the run ended early.
    pub window_ns: u64,
    /// Connections that were made since the start, warm-up and drain included.
    pub connections_opened: u64,
    /// How many of them took the place of one that had failed, or that could not be made at first.
    pub reconnects: u64,
    /// Replies that were harvested inside the window, per second: the server's throughput, whatever messages they were
    /// replies to.
    pub rate_per_s: f64,
    /// Messages really due inside the window, per second; null in closed loop, where nothing is due.
    pub offered_per_s: Option<f64>,
    /// Due (open loop) or written (closed loop) to reply.
    pub latency_ns: Summary,
    /// Written to reply.
    pub service_ns: Summary,
    /// Written to reply, less what the reply may have waited for the client: the least that the service time can have
    /// been. Empty in closed loop, and in files of older versions.
    #[serde(default)]
    pub service_least_ns: Summary,
    /// Waiting for room on the connection; empty in closed loop.
    pub queue_ns: Summary,
    /// The client's own lateness; empty in closed loop.
    pub send_lag_ns: Summary,
    /// How long replies had waited for the client when it harvested them, by the kernel's receive times; empty without
    /// those, and in files of older versions.
    #[serde(default)]
    pub recv_lag_ns: Summary,
    /// From before connect(2) until the connection was seen to be there: of those that opened the run, and of those that
    /// were made in the window.
    pub connect_ns: Summary,
    /// From before connect(2) until the first answer on the connection: those of the window. Empty where connections
    /// are made before the load.
    #[serde(default)]
    pub first_echo_ns: Summary,
    /// The connects whose SYN was sent again, split by how often; empty where none was.
    #[serde(default)]
    pub syn_retransmits: Vec<SynRetransmits>,
    /// Connections that failed, by kind.
    pub errors: BTreeMap<String, u64>,
    /// What the client itself did.
    pub client: Client,
    /// Everything since the first byte, warm-up and drain included.
    pub life: Life,
}

/// Connects whose SYN was sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynRetransmits {
    /// How often (`TCP_INFO`); the last row stands for that many and more.
    pub retransmits: u32,
    /// When this kernel sends it for the so-many-th time, since the connect began.
    pub step_ns: u64,
    /// How many connects.
    pub count: u64,
    /// How long they took.
    pub connect_ns: Summary,
}

impl SynRetransmits {
    /// The rows of some connects, by this kernel's schedule.
    pub fn rows(connects: &ConnectTimes, schedule: SynSchedule) -> Vec<SynRetransmits> {
        let histograms = connects.by_syn_retransmits.iter().zip(1..);
        histograms
            .filter_map(|(histogram, retransmits)| {
                let histogram = histogram.as_ref()?;
                Some(SynRetransmits {
                    retransmits,
                    step_ns: schedule.step(retransmits).as_nanos() as u64,
                    count: histogram.len(),
                    connect_ns: Summary::of(histogram, None),
                })
            })
            .collect()
    }
}

/// What the client itself did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Client {
    /// How it moved its bytes: `uring` or `epoll`, never `auto`.
    pub engine: crate::plan::Engine,
    /// The addresses that it connected from, where it chose them: `127.0.0.2-127.0.0.65`.
    #[serde(default)]
    pub sources: Option<Sources>,
    /// CPU time of all its threads, user and system, over messages, from warm-up to drain. Empty spins are left out.
    pub cpu_ns_per_message: Option<f64>,
    /// Share of the window in which its busiest thread had work, 0 to 1.
    pub busiest_thread: f64,
    /// Time in the window that a thread was ready to run while its cpu was another's, of the one that waited most.
    pub run_delay_ns: u64,
    /// Share of the client's cpus' time that the hypervisor gave to others, 0 to 1; null where it can't be read.
    pub steal_ratio: Option<f64>,
}

/// Everything since the first byte, warm-up and drain included: `sent = answered + lost + outstanding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Life {
    /// Messages written.
    pub sent: u64,
    /// Messages answered.
    pub answered: u64,
    /// Messages in flight on connections that failed.
    pub lost: u64,
    /// Messages not answered when the waiting ended.
    pub outstanding: u64,
    /// Bytes that the kernel took: with no connection failed, exactly what the server got. (What had gone of a send
    /// that was in flight when its connection failed is not known, and not in it.)
    pub sent_bytes: u64,
    /// Bytes that came back.
    pub received_bytes: u64,
}

/// A run file that can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file can't be opened.
    #[error("cannot read {path}: {source}")]
    Open {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is of another schema, or of none.
    #[error("{path} is of schema {found}, and this program reads {SCHEMA}")]
    Schema {
        /// The file.
        path: String,
        /// What it says of itself.
        found: String,
    },
    /// It is damaged.
    #[error("{path} is damaged: {source}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl RunFile {
    /// Reads a run file.
    ///
    /// # Errors
    /// It can't be opened, is of another schema, or damaged.
    pub fn read(path: &Path) -> Result<RunFile, ReadError> {
        let shown = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| ReadError::Open {
            path: shown.clone(),
            source,
        })?;
        let damaged = |source| ReadError::Damaged {
            path: shown.clone(),
            source,
        };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(damaged)?;
        match value.get("schema").and_then(serde_json::Value::as_str) {
            Some(SCHEMA) => serde_json::from_value(value).map_err(damaged),
            Some(other) => Err(ReadError::Schema {
                path: shown,
                found: format!("'{other}'"),
            }),
            None => Err(ReadError::Schema {
                path: shown,
                found: "none".to_owned(),
            }),
        }
    }

    /// Writes it, whole or not at all: a reader never meets half of it.
    ///
    /// # Errors
    /// The file can't be written; it is named.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        write_whole(path, self.to_json().as_bytes())
    }

    /// As JSON, indented, with a line feed at the end.
    pub fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(self).expect("plain data with text keys has a JSON form");
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_and_damaged_files_are_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        for (text, reason) in [
            ("", "damaged"),
            ("{\"schema\": \"echometer.run/1\", \"plan\": 3}", "damaged"),
            ("{\"schema\": \"echometer.run/9\"}", "echometer.run/9"),
            ("[1, 2]", "none"),
        ] {
            fs::write(&path, text).unwrap();
            let error = RunFile::read(&path).unwrap_err().to_string();
            assert!(
                error.contains(reason) && error.lines().count() == 1,
                "{error}"
            );
        }
        fs::remove_file(&path).unwrap();
        assert!(
            RunFile::read(&path)
                .unwrap_err()
                .to_string()
                .contains("cannot read")
        );
    }
}
