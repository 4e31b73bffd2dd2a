//! Saved results, read back: a folder or a file of any of our commands, or a histogram log of any tool. Whatever is
//! wrong with one is said in a line that names the file.

pub mod error;
pub mod harmless;
pub mod hlog;

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

use hdrhistogram::Histogram;
use serde::de::DeserializeOwned;
use serde_json::Value;

use echometer_loadgen::{file as run_file, file::RunFile};

use crate::report::{
    file::{
        compare as compare_file,
        compare::Comparison,
        doctor::{self, Examination},
        find_rate as find_rate_file,
        find_rate::FindRateFile,
        floor as floor_file,
        floor::FloorFile,
        selftest as selftest_file,
        selftest::Selftest,
        storm as storm_file,
        storm::StormFile,
        sweep as sweep_file,
        sweep::SweepFile,
    },
    folder::BLOCKS,
    saved::{
        error::{FileError, Reason},
        harmless::{disarm, harmless},
        hlog::Log,
    },
};

/// The files that make a folder a result, in the order in which they are looked for.
pub const RESULT_FILES: [&str; 8] = [
    "run.json",
    compare_file::FILE_NAME,
    "sweep.json",
    "find-rate.json",
    "storm.json",
    floor_file::FILE_NAME,
    selftest_file::FILE_NAME,
    doctor::FILE_NAME,
];

/// A saved result with its raw data.
#[derive(Debug)]
pub struct Saved {
    /// What it is.
    pub kind: Kind,
    /// The file itself, as text; empty for a log.
    pub json: String,
    /// Where the raw data lie.
    pub folder: PathBuf,
    /// The file that was read.
    pub file: PathBuf,
    /// Raw data that the result names and that are not there.
    pub missing: Vec<String>,
}

/// What a saved result is.
#[derive(Debug)]
pub enum Kind {
    /// A run of the load generator, with its log if it is there.
    Run(Box<RunFile>, Option<Log>),
    /// A comparison, with each arm's latencies over all valid blocks.
    Compare(Box<Comparison>, BTreeMap<String, Histogram<u64>>),
    /// A sweep.
    Sweep(Box<SweepFile>),
    /// A search for the highest rate.
    FindRate(Box<FindRateFile>),
    /// Connection storms, with the histograms of each level.
    Storm(Box<StormFile>, BTreeMap<String, Log>),
    /// What an echo costs the kernel at least.
    Floor(Box<FloorFile>),
    /// Truths, and what was shown of them.
    Selftest(Box<Selftest>),
    /// The doctor's findings.
    Doctor(Box<Examination>),
    /// A histogram log without a run file.
    Log(Log),
}

impl Saved {
    /// Opens a result: its folder, its JSON file, or a histogram log.
    ///
    /// # Errors
    /// [`FileError`]: there is none, or it is damaged, foreign or newer.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let metadata = fs::metadata(path).map_err(|error| Reason::Open(error).of(path))?;
        let file = match metadata.is_dir() {
            false => path.to_owned(),
            true => RESULT_FILES
                .iter()
                .map(|name| path.join(name))
                .find(|file| file.exists())
                .ok_or_else(|| Reason::NoResult.of(path))?,
        };
        let folder = file.parent().map(Path::to_owned).unwrap_or_default();
        if file
            .extension()
            .is_some_and(|extension| extension == "hlog")
        {
            return Ok(Self {
                kind: Kind::Log(Log::read(&file)?),
                json: String::new(),
                folder,
                file,
                missing: Vec::new(),
            });
        }
        let json = read_text(&file)?;
        let mut missing = Vec::new();
        let kind = parse(&json, &file)?.with_data(&folder, &mut missing)?;
        Ok(Self {
            kind,
            json,
            folder,
            file,
            missing,
        })
    }
}

/// A result file before its raw data were looked at.
enum Bare {
    Run(Box<RunFile>),
    Compare(Box<Comparison>),
    Sweep(Box<SweepFile>),
    FindRate(Box<FindRateFile>),
    Storm(Box<StormFile>),
    Floor(Box<FloorFile>),
    Selftest(Box<Selftest>),
    Doctor(Box<Examination>),
}

impl Bare {
    fn with_data(self, folder: &Path, missing: &mut Vec<String>) -> Result<Kind, FileError> {
        Ok(match self {
            Self::Run(run) => Kind::Run(run, log_at(folder, "run.hlog", missing)?),
            Self::Compare(comparison) => {
                let mut of_arms = BTreeMap::new();
                for arm in &comparison.arms {
                    let names = comparison
                        .valid_blocks()
                        .filter_map(|block| Some(&block.arms.get(&arm.name)?.hlog));
                    let mut parts = Vec::new();
                    for name in names {
                        let log = log_at(folder, name, missing)?;
                        parts.extend(log.and_then(|log| log.whole("latency")));
                    }
                    if let Some(whole) = crate::report::saved::hlog::sum(parts.iter()) {
                        of_arms.insert(arm.name.clone(), whole);
                    }
                }
                Kind::Compare(comparison, of_arms)
            }
            Self::Sweep(sweep) => Kind::Sweep(sweep),
            Self::FindRate(search) => Kind::FindRate(search),
            Self::Storm(storm) => {
                let logs = logs_by_level(folder)?;
                Kind::Storm(storm, logs)
            }
            Self::Floor(floor) => Kind::Floor(floor),
            Self::Selftest(selftest) => Kind::Selftest(selftest),
            Self::Doctor(examination) => Kind::Doctor(examination),
        })
    }
}

/// Reads a result file as what it says it is.
fn parse(json: &str, file: &Path) -> Result<Bare, FileError> {
    let mut value: Value = serde_json::from_str(json).map_err(|error| {
        let reason = match (error.is_eof(), json.trim_start().starts_with('{')) {
            (true, true) => Reason::Truncated(format!("its JSON ends in line {}", error.line())),
            (_, true) => Reason::Damaged(format!("it is no JSON ({error})")),
            (_, false) => Reason::Foreign("it is neither JSON nor a histogram log (.hlog)".into()),
        };
        reason.of(file)
    })?;
    // Here, before anything is made of it: text, tables, pages and errors all come from this value. `Saved::json` has the
    // file as it is.
    disarm(&mut value);
    let Some(schema) = value.get("schema").and_then(Value::as_str) else {
        return Err(Reason::Foreign(
            "it names no schema, as every result of echometer does".into(),
        )
        .of(file));
    };
    let known = |schema_known: &str| schema == schema_known;
    if known(run_file::SCHEMA) {
        return Ok(Bare::Run(typed(value, file)?));
    }
    if known(compare_file::SCHEMA) {
        return Ok(Bare::Compare(typed(value, file)?));
    }
    if known(doctor::SCHEMA) {
        return Ok(Bare::Doctor(typed(value, file)?));
    }
    if known(sweep_file::SCHEMA) {
        return Ok(Bare::Sweep(typed(value, file)?));
    }
    if known(storm_file::SCHEMA) {
        return Ok(Bare::Storm(typed(value, file)?));
    }
    if known(floor_file::SCHEMA) {
        return Ok(Bare::Floor(typed(value, file)?));
    }
    if known(selftest_file::SCHEMA) {
        return Ok(Bare::Selftest(typed(value, file)?));
    }
    if known(find_rate_file::SCHEMA) {
        return Ok(Bare::FindRate(typed(value, file)?));
    }
    Err(unknown_schema(schema).of(file))
}

fn typed<T: DeserializeOwned>(value: Value, file: &Path) -> Result<T, FileError> {
    serde_json::from_value(value).map_err(|error| Reason::Damaged(error.to_string()).of(file))
}

/// A later version of ours, or not ours at all.
fn unknown_schema(schema: &str) -> Reason {
    let ours = schema
        .strip_prefix("echometer.")
        .and_then(|rest| rest.rsplit_once('/'))
        .and_then(|(name, version)| Some((name, version.parse::<u32>().ok()?)));
    match ours {
        Some((name, version)) if 1 < version => Reason::Newer {
            found: schema.to_owned(),
            known: format!("echometer.{name}/1"),
        },
        _ => Reason::Foreign(format!("there is no report for the schema '{schema}'")),
    }
}

/// The logs in `blocks/` by what they are of: those of `001-NAME.hlog` and `002-NAME.hlog` together.
fn logs_by_level(folder: &Path) -> Result<BTreeMap<String, Log>, FileError> {
    let mut logs: BTreeMap<String, Log> = BTreeMap::new();
    let Ok(entries) = fs::read_dir(folder.join(BLOCKS)) else {
        return Ok(logs);
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str());
        let level = name
            .and_then(|name| name.strip_suffix(".hlog")?.split_once('-'))
            .map(|(_, level)| harmless(level).into_owned());
        let Some(level) = level else { continue };
        let Log { intervals } = Log::read(&path)?;
        match logs.get_mut(&level) {
            Some(log) => log.intervals.extend(intervals),
            None => {
                logs.insert(level, Log { intervals });
            }
        }
    }
    Ok(logs)
}

/// A log beside the result; one that is not there is noted, one that can't be read is an error.
fn log_at(folder: &Path, name: &str, missing: &mut Vec<String>) -> Result<Option<Log>, FileError> {
    let inside = |part| matches!(part, Component::Normal(_));
    if !Path::new(name).components().all(inside) {
        // Somebody else's file must not make this program read devices, or what is not part of the result.
        let reason = Reason::Damaged(format!("it names raw data outside its folder: {name:?}"));
        return Err(reason.of(folder));
    }
    let path = folder.join(name);
    if path.exists() {
        Log::read(&path).map(Some)
    } else {
        missing.push(name.to_owned());
        Ok(None)
    }
}

fn read_text(file: &Path) -> Result<String, FileError> {
    let bytes = fs::read(file).map_err(|error| Reason::Open(error).of(file))?;
    String::from_utf8(bytes).map_err(|_| Reason::Foreign("it is no text".into()).of(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, text: &str) -> String {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        fs::write(&path, text).expect("it can be written");
        let error = Saved::open(&path).expect_err("it is refused").to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(name), "{error}");
        error
    }

    #[test]
    fn what_cannot_be_read_is_said_in_a_line() {
        for (text, reason) in [
            ("", "foreign: it is neither JSON"),
            (
                "{\"schema\": \"echometer.compare/1\",\n",
                "truncated: its JSON ends in line",
            ),
            ("{\"schema\": }", "damaged: it is no JSON"),
            ("[1, 2]", "foreign: it names no schema"),
            (
                "{\"schema\": \"echometer.compare/1\"}",
                "damaged: missing field",
            ),
            (
                "{\"schema\": \"echometer.compare/2\"}",
                "newer than this program: it is of echometer.compare/2",
            ),
            (
                "{\"schema\": \"echometer.sweep/1\"}",
                "damaged: missing field",
            ),
            (
                "{\"schema\": \"vegeta/1\"}",
                "foreign: there is no report for the schema 'vegeta/1'",
            ),
            ("{\"schema\": \"echometer.probe/1\"}", "foreign"),
        ] {
            let error = said("result.json", text);
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(said("a.hlog", "x\n").contains("foreign"));
    }

    #[test]
    fn raw_data_are_looked_for_in_the_results_folder_only() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("inside")).expect("it can be made");
        fs::write(folder.path().join("a.hlog"), "x\n").expect("it can be written");
        let inside = folder.path().join("inside");
        for name in ["/dev/zero", "../a.hlog", "blocks/../../a.hlog"] {
            let error = log_at(&inside, name, &mut Vec::new()).expect_err("it is outside");
            assert!(error.to_string().contains("outside its folder"), "{error}");
        }
        let mut missing = Vec::new();
        let log = log_at(&inside, "blocks/001-a.hlog", &mut missing).expect("it is only absent");
        assert_eq!((log, missing), (None, vec!["blocks/001-a.hlog".to_owned()]));
    }

    #[test]
    fn a_folder_without_a_result_says_what_makes_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = Saved::open(folder.path())
            .expect_err("it is empty")
            .to_string();
        assert!(
            error.contains("holds no result") && error.contains("compare.json"),
            "{error}"
        );
        let error = Saved::open(&folder.path().join("x"))
            .expect_err("it is absent")
            .to_string();
        assert!(error.contains("cannot be read: No such file"), "{error}");
    }
}
