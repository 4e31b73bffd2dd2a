//! A page as plain data: words, tables, charts, findings.

use std::collections::BTreeMap;

use serde::Serialize;

use echometer_host::{fitness::Finding, machine::Facts};

use crate::page::{
    chart::{Chart, Forest},
    table::Table,
};

/// A result, ready to be drawn.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Page {
    /// `compare`, `run`, ...
    pub kind: String,
    /// What was done, in a few words.
    pub title: String,
    /// Under which load, when.
    pub subtitle: String,
    /// The answer.
    pub sentence: String,
    /// Whether it can be trusted.
    pub trust: TrustShown,
    /// Ratios with their intervals.
    pub forests: Vec<Forest>,
    /// The rest that is drawn.
    pub charts: Vec<Chart>,
    /// The figures; the first is the one that a CSV file holds.
    pub tables: Vec<Table>,
    /// What was asked: names and values.
    pub facts: Vec<(String, String)>,
    /// Where it was measured: names and values.
    pub machine: Vec<(String, String)>,
    /// Whether that machine is fit, the gravest first.
    pub findings: Vec<Finding>,
    /// What was run: whose, and the command.
    pub commands: Vec<(String, String)>,
    /// The raw data.
    #[serde(skip)]
    pub files: Vec<RawFile>,
    /// Raw data that are not in the page, and why.
    pub files_left_out: Vec<String>,
}

/// Whether a result can be trusted, as it is shown.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TrustShown {
    /// The word; empty where a result has no verdict of its own.
    pub word: String,
    /// Whether the word is a good one.
    pub good: bool,
    /// Why it isn't.
    pub reasons: Vec<String>,
    /// What to know besides.
    pub warnings: Vec<String>,
}

/// A file of the result's folder.
#[derive(Debug, Clone)]
pub struct RawFile {
    /// Relative to the folder.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// The machine's facts in words; what is unknown is left out.
pub(crate) fn machine_rows(facts: &Facts) -> Vec<(String, String)> {
    let list = |map: &BTreeMap<String, String>| {
        let entries: Vec<String> = map
            .iter()
            .map(|(name, value)| match value.is_empty() {
                true => name.clone(),
                false => format!("{name}={value}"),
            })
            .collect();
        Some(entries.join(", ")).filter(|text| !text.is_empty())
    };
    let size = |bytes: Option<u64>| bytes.map(echometer_host::units::show_size);
    let mitigated: Vec<String> = facts
        .mitigations
        .iter()
        .filter(|(_, state)| state.as_str() != "Not affected")
        .map(|(name, state)| format!("{name}: {state}"))
        .collect();
    let rows = [
        ("cpu", facts.cpu_model.clone()),
        (
            "architecture",
            Some(facts.architecture.clone()).filter(|text| !text.is_empty()),
        ),
        (
            "cpus online",
            facts.cpus_online.as_ref().map(ToString::to_string),
        ),
        ("cores", facts.cores.map(|cores| cores.to_string())),
        (
            "level-3 caches",
            facts.l3_caches.map(|caches| caches.to_string()),
        ),
        (
            "NUMA nodes",
            facts.numa_nodes.map(|nodes| nodes.to_string()),
        ),
        ("SMT", facts.smt.clone()),
        ("memory", size(facts.memory_bytes)),
        ("hypervisor", facts.hypervisor.clone()),
        ("kernel", facts.kernel.clone()),
        ("boot parameters", list(&facts.kernel_parameters)),
        (
            "mitigations",
            Some(mitigated.join("; ")).filter(|text| !text.is_empty()),
        ),
        ("governor", facts.governor.clone()),
        ("clocksource", facts.clocksource.clone()),
        ("somaxconn", facts.somaxconn.map(|count| count.to_string())),
        ("congestion control", facts.tcp_congestion_control.clone()),
        (
            "echometer",
            Some(facts.echometer.clone()).filter(|text| !text.is_empty()),
        ),
        ("commit", facts.commit.clone()),
        ("compiler", facts.rustc.clone()),
        (
            "read at",
            Some(facts.read_at.clone()).filter(|text| !text.is_empty()),
        ),
    ];
    let known = rows.into_iter();
    known
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}
