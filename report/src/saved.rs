//! Saved results, read back: a folder or a file of any of our commands, or a histogram log of any tool. Whatever is
//! wrong with one is said in a line that names the file.

pub mod error;
pub mod harmless;
pub mod hlog;
pub(crate) mod place;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    kinds::{KINDS, Shown, log::LogFile},
    saved::{
        error::{FileError, Reason},
        harmless::disarm,
        hlog::Log,
        place::Place,
    },
};

/// A saved result with its raw data.
#[derive(Debug)]
pub struct Saved {
    /// What it is.
    pub kind: Box<dyn Shown>,
    /// The file itself, as text; of a log its figures, since it has no JSON of its own.
    pub json: String,
    /// Whether what lies beside the file is no part of it: that of a log.
    pub alone: bool,
    /// Where the raw data lie.
    pub folder: PathBuf,
    /// The file that was read.
    pub file: PathBuf,
    /// Raw data that the result names and that are not there.
    pub missing: Vec<String>,
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
            true => KINDS
                .iter()
                .map(|kind| path.join(kind.file_name))
                .find(|file| file.exists())
                .ok_or_else(|| {
                    let names = KINDS.map(|kind| kind.file_name);
                    Reason::NoResult(names.join(", ")).of(path)
                })?,
        };
        let folder = file.parent().map(Path::to_owned).unwrap_or_default();
        if file
            .extension()
            .is_some_and(|extension| extension == "hlog")
        {
            let log = LogFile {
                log: Log::read(&file)?,
                file: file.clone(),
            };
            return Ok(Self {
                json: log.json(),
                kind: Box::new(log),
                alone: true,
                folder,
                file,
                missing: Vec::new(),
            });
        }
        let json = read_text(&file)?;
        let mut place = Place {
            folder: &folder,
            file: &file,
            missing: Vec::new(),
        };
        let kind = parse(&json, &mut place)?;
        Ok(Self {
            kind,
            json,
            alone: false,
            missing: place.missing,
            folder,
            file,
        })
    }
}

/// Reads a result file as what it says it is.
fn parse(json: &str, place: &mut Place<'_>) -> Result<Box<dyn Shown>, FileError> {
    let file = place.file;
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
    match KINDS.iter().find(|kind| kind.schema == schema) {
        Some(kind) => (kind.load)(value, place),
        None => Err(unknown_schema(schema).of(file)),
    }
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
