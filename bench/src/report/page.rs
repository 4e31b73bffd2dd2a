//! A saved result as something to look at: words, tables and charts as plain data. [`html`], [`svg`], [`markdown`],
//! [`csv`] and [`text`] are renderings of it and know nothing of what was measured.

pub mod chart;
mod compare;
pub mod csv;
mod doctor;
mod find_rate;
mod floor;
pub mod html;
mod log;
pub mod markdown;
mod run;
mod selftest;
mod storm;
pub mod svg;
mod sweep;
pub mod table;
pub mod text;
mod value;

use std::fs;

use serde::Serialize;

use echometer_host::{fitness::Finding, machine::Facts};

use crate::report::{
    page::{
        chart::{Chart, Forest},
        table::Table,
    },
    saved::{Kind, Saved},
};

/// Raw data beyond this are not put into the page, but named in it: a report stays below a megabyte.
const FILES_BYTES_MAX: usize = 500_000;

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

impl Page {
    /// Of a saved result.
    #[must_use]
    pub fn of(saved: &Saved) -> Self {
        let mut page = match &saved.kind {
            Kind::Run(run, log) => crate::report::page::run::page(run, log.as_ref()),
            Kind::Compare(comparison, latencies) => {
                crate::report::page::compare::page(comparison, latencies)
            }
            Kind::Sweep(sweep) => crate::report::page::sweep::page(&as_value(sweep)),
            Kind::FindRate(search) => crate::report::page::find_rate::page(search),
            Kind::Storm(storm, logs) => crate::report::page::storm::page(&as_value(storm), logs),
            Kind::Floor(floor) => crate::report::page::floor::page(floor),
            Kind::Selftest(selftest) => crate::report::page::selftest::page(selftest),
            Kind::Doctor(examination) => crate::report::page::doctor::page(examination),
            Kind::Log(log) => crate::report::page::log::page(log, &saved.file),
        };
        page.take_files(saved);
        page
    }

    /// Takes in the raw data: the result file first, then what lies beside it, as long as there is room.
    fn take_files(&mut self, saved: &Saved) {
        let name = |path: &std::path::Path| {
            let inside = path.strip_prefix(&saved.folder).unwrap_or(path);
            inside.to_string_lossy().into_owned()
        };
        let mut paths = vec![saved.file.clone()];
        if !matches!(saved.kind, Kind::Log(_)) {
            paths.extend(data_beside(&saved.folder, &saved.file));
        }
        let mut room = FILES_BYTES_MAX;
        for path in paths {
            let Ok(bytes) = fs::read(&path) else { continue };
            match room.checked_sub(bytes.len()) {
                Some(left) => {
                    room = left;
                    let name = name(&path);
                    self.files.push(RawFile { name, bytes });
                }
                None => self.files_left_out.push(format!(
                    "{} (it would make this page too large)",
                    name(&path)
                )),
            }
        }
        let missing = saved.missing.iter();
        self.files_left_out
            .extend(missing.map(|name| format!("{name} (it was not beside the result)")));
    }
}

/// A result file as the fields that it has.
fn as_value(file: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(file).expect("plain data with text keys has a JSON form")
}

/// The data files of a result's folder and of its `blocks/`, in the order of their names.
fn data_beside(folder: &std::path::Path, result: &std::path::Path) -> Vec<std::path::PathBuf> {
    const DATA: [&str; 6] = ["json", "toml", "hlog", "hgrm", "csv", "txt"];
    let mut paths = Vec::new();
    for folder in [
        folder.to_owned(),
        folder.join(crate::report::folder::BLOCKS),
    ] {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        let mut here: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        here.sort();
        paths.extend(here.into_iter().filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            path != result && path.is_file() && extension.is_some_and(|name| DATA.contains(&name))
        }));
    }
    paths
}

/// The machine's facts in words; what is unknown is left out.
fn machine_rows(facts: &Facts) -> Vec<(String, String)> {
    let list = |map: &std::collections::BTreeMap<String, String>| {
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
