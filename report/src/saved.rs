//! Saved results, read back: a folder or a file of any of our commands, or a histogram log of any tool. Whatever is
//! wrong with one is said in a line that names the file.

pub mod error;
pub mod harmless;
pub mod hlog;
pub(crate) mod place;

use std::{
    fs,
    io::{BufRead as _, Read as _},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    kinds::{KINDS, Shown, log::LogFile},
    saved::{
        error::{FileError, Reason},
        harmless::disarm,
        hlog::{
            Log, Unit,
            content::{self, Content},
        },
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
    /// Opens a result: its folder, its JSON file, or a histogram log. What a file is, its content says and not its name;
    /// it may be packed by gzip, or come through a pipe. `unit` is that of a log that doesn't say its own.
    ///
    /// # Errors
    /// [`FileError`]: there is none, or it is damaged, foreign, too large or newer; or a unit is told of what says its own.
    pub fn open(path: &Path, unit: Option<Unit>) -> Result<Self, FileError> {
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
        let mut content = content::open(&file).map_err(|error| content::unread(error).of(&file))?;
        let head = content.fill_buf();
        let head = head.map_err(|error| content::unread(error).of(&file))?;
        let first = head.iter().find(|byte| !byte.is_ascii_whitespace());
        let blank = first.is_none();
        if !blank && !matches!(first, Some(b'{' | b'[')) {
            let log = Log::from_content(content, unit).map_err(|reason| match reason {
                Reason::Foreign(_) => neither().of(&file),
                other => other.of(&file),
            })?;
            if unit.is_some() && log.own_unit && unit != log.unit {
                return Err(Reason::OwnUnit.of(&file));
            }
            let log = LogFile {
                log,
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
        if unit.is_some() {
            return Err(Reason::OwnUnit.of(&file));
        }
        let json = text(content).map_err(|reason| reason.of(&file))?;
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
            (_, false) if json.trim_start().starts_with('[') => {
                Reason::Damaged(format!("it is no JSON ({error})"))
            }
            (_, false) => neither(),
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

/// What it could be and is not.
fn neither() -> Reason {
    Reason::Foreign("it is neither JSON nor a histogram log".into())
}

fn text(content: Content) -> Result<String, Reason> {
    let mut bytes = Vec::new();
    let read = content
        .take(content::FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes);
    read.map_err(content::unread)?;
    if content::FILE_BYTES_MAX < bytes.len() as u64 {
        return Err(content::too_large());
    }
    String::from_utf8(bytes).map_err(|_| Reason::Foreign("it is no text".into()))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write as _},
        os::fd::AsRawFd as _,
    };

    use super::*;

    fn said(name: &str, text: &str) -> String {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        fs::write(&path, text).expect("it can be written");
        let error = Saved::open(&path, None)
            .expect_err("it is refused")
            .to_string();
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
        let error = Saved::open(folder.path(), None)
            .expect_err("it is empty")
            .to_string();
        assert!(
            error.contains("holds no result") && error.contains("compare.json"),
            "{error}"
        );
        let error = Saved::open(&folder.path().join("x"), None)
            .expect_err("it is absent")
            .to_string();
        assert!(error.contains("cannot be read: No such file"), "{error}");
    }

    /// F.35: a file was what its name says.
    #[test]
    fn content_decides_what_a_file_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let read = |name: &str| fs::read(data.join(name)).expect("it is there");
        let (log, packed) = (read("data/java.hlog"), read("data/java.hlog.gz"));
        let result = read("saved/floor.json");
        let marked = [b"\xef\xbb\xbf", &result[..]].concat();
        let opened = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).expect("it can be written");
            Saved::open(&path, None).unwrap_or_else(|error| panic!("{error}"))
        };
        let right = opened("a.hlog", &log).json;
        for (name, bytes) in [
            ("a.hdr", &log),
            ("a.log", &log),
            ("a", &log),
            ("a.json", &log),
            ("a.gz", &packed),
            ("b.hlog", &packed),
        ] {
            assert_eq!(opened(name, bytes).json, right, "{name}");
        }
        for (name, bytes) in [
            ("b.json", &result),
            ("c.json", &marked),
            ("c.hlog", &result),
        ] {
            let saved = opened(name, bytes);
            assert!(!saved.alone && saved.json.as_bytes() == result, "{name}");
        }
        // Two logs packed one after the other are a packed log of both.
        let both = opened("both.gz", &[&packed[..], &packed[..]].concat());
        assert!(both.json.contains("\"intervals\": 12"), "{}", both.json);
        // What a pipe brings comes in pieces.
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for byte in packed {
                    writer.write_all(&[byte]).expect("it is read");
                }
            });
            let saved = Saved::open(Path::new(&path), None).expect("it is whole");
            assert_eq!(saved.json, right);
        });
    }

    #[test]
    fn what_is_packed_is_unpacked_within_bounds() {
        let cut = &fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/java.hlog.gz"))
            .expect("it is there")[..3_000];
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.gz");
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).expect("it can be written");
            let error = Saved::open(&path, None).expect_err("it is refused");
            error.to_string()
        };
        assert!(refused(cut).contains("is truncated: its gzip stream is cut"));
        let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let line = [b'#'; 1 << 20];
        for _ in 0..300 {
            bomb.write_all(&line[..line.len() - 1])
                .expect("a vector takes all");
            bomb.write_all(b"\n").expect("a vector takes all");
        }
        let bomb = bomb.finish().expect("a vector takes all");
        assert!(refused(&bomb).contains("is too large: 256 MiB unpacked are read at most"));
    }

    /// F.39: a unit is told of logs that don't say theirs, and of nothing else.
    #[test]
    fn what_says_its_unit_is_told_none() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let open = |name: &str, unit| Saved::open(&data.join(name), unit);
        let foreign = open("data/python.hlog", Some(Unit::Us)).expect("it is whole");
        assert!(
            foreign.json.contains("\"read_as\": \"us\""),
            "{}",
            foreign.json
        );
        assert_eq!(foreign.kind.read_as(), Some(Unit::Us));
        let csv = crate::page::csv::csv(&foreign.kind.page());
        assert!(csv.starts_with("read as us,count,"), "{csv}");
        let ours = open("saved/floor.json", Some(Unit::Us)).expect_err("it is in ns");
        assert!(
            ours.to_string().contains("--unit is for logs of tools"),
            "{ours}"
        );
    }
}
