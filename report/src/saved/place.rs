//! Where a result lies, and what lies beside it. Somebody else's file decides what is asked for.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    folder::BLOCKS,
    saved::{
        error::{FileError, Reason},
        harmless::harmless,
        hlog::{Log, add_counts},
    },
};

/// Where a result lies.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// Its folder.
    pub folder: &'a Path,
    /// Its file in there.
    pub file: &'a Path,
    /// What it names and is not there.
    pub missing: Vec<String>,
}

impl Place<'_> {
    /// A log beside the result; one that is not there is noted.
    ///
    /// # Errors
    /// It can't be read, or lies elsewhere.
    pub(crate) fn log(&mut self, name: &str) -> Result<Option<Log>, FileError> {
        let inside = |part| matches!(part, Component::Normal(_));
        if !Path::new(name).components().all(inside) {
            // Somebody else's file must not make this program read devices, or what is not part of the result.
            let reason = Reason::Damaged(format!("it names raw data outside its folder: {name:?}"));
            return Err(reason.of(self.folder));
        }
        let path = self.folder.join(name);
        if path.exists() {
            Log::read(&path, None).map(Some)
        } else {
            self.missing.push(name.to_owned());
            Ok(None)
        }
    }

    /// The logs in `blocks/` by what they are of: those of `001-NAME.hlog` and `002-NAME.hlog` together.
    ///
    /// # Errors
    /// One can't be read.
    pub(crate) fn logs_by_level(&self) -> Result<BTreeMap<String, Log>, FileError> {
        let mut logs: BTreeMap<String, Log> = BTreeMap::new();
        let Ok(entries) = fs::read_dir(self.folder.join(BLOCKS)) else {
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
            let Log { intervals, .. } = Log::read(&path, None)?;
            // A log counts to 2^63 - 1 at most, and so do those of a level together.
            let counts = logs.get(&level).into_iter().flat_map(|log| &log.intervals);
            counts
                .chain(&intervals)
                .try_fold(0, |sum, interval| add_counts(sum, interval.histogram.len()))
                .map_err(|error| Reason::Damaged(error.to_string()).of(&path))?;
            match logs.get_mut(&level) {
                Some(log) => log.intervals.extend(intervals),
                None => {
                    logs.insert(level, Log::of(intervals));
                }
            }
        }
        Ok(logs)
    }
}

/// The fields of a file as its kind has them.
///
/// # Errors
/// It is not what it says it is.
pub(crate) fn typed<T: DeserializeOwned>(value: Value, file: &Path) -> Result<T, FileError> {
    serde_json::from_value(value).map_err(|error| Reason::Damaged(error.to_string()).of(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_data_are_looked_for_in_the_results_folder_only() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("inside")).expect("it can be made");
        fs::write(folder.path().join("a.hlog"), "x\n").expect("it can be written");
        let inside = folder.path().join("inside");
        let file = inside.join("compare.json");
        let place = || Place {
            folder: &inside,
            file: &file,
            missing: Vec::new(),
        };
        for name in ["/dev/zero", "../a.hlog", "blocks/../../a.hlog"] {
            let error = place().log(name).expect_err("it is outside");
            assert!(error.to_string().contains("outside its folder"), "{error}");
        }
        let mut place = place();
        let log = place.log("blocks/001-a.hlog").expect("it is only absent");
        assert_eq!(
            (log, place.missing),
            (None, vec!["blocks/001-a.hlog".to_owned()])
        );
    }
}
