//! Where results go: `results/YYYYMMDD/<machine>/compare-001/`, counted on and never overwritten, and how a file gets
//! there whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;

use echometer_host::{
    clock,
    files::write_whole,
    machine::{self, Facts},
};

/// The folder of the blocks' files, inside a result's folder.
pub const BLOCKS: &str = "blocks";
/// The report as text, beside a result's own file.
pub const REPORT_NAME: &str = "report.txt";

/// A result as its file has it: JSON, indented, with a line feed at the end.
#[must_use]
pub fn json(result: &impl Serialize) -> String {
    let mut text =
        serde_json::to_string_pretty(result).expect("plain data with text keys has a JSON form");
    text.push('\n');
    text
}

/// The folder of one result. It and its `blocks/` exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultFolder {
    path: PathBuf,
}

impl ResultFolder {
    /// Makes the folder that the user named (`out`), else the next free one under `results/`, where the machine is called
    /// `machine_name` or by its slug. `main_file` is the one that no result overwrites.
    ///
    /// # Errors
    /// As [`ResultFolder::named`] and [`ResultFolder::counted`] say.
    pub fn create(
        out: Option<&Path>,
        machine_name: Option<&str>,
        facts: &Facts,
        command: &str,
        main_file: &str,
    ) -> anyhow::Result<Self> {
        let made = match out {
            Some(path) => Self::named(path, main_file),
            None => {
                let name = machine_name.map_or_else(|| machine::slug(facts), str::to_owned);
                let date = clock::wall_date().compact();
                Self::counted(Path::new("results"), &date, &name, command)
            }
        };
        made.context("cannot make the results' folder: name another with --out")
    }

    /// Makes the folder that the user named. A result that is there already is left alone.
    ///
    /// # Errors
    /// The folder holds `main_file` already (`AlreadyExists`), or can't be made.
    pub fn named(path: &Path, main_file: &str) -> io::Result<Self> {
        if path.join(main_file).exists() {
            let text = format!(
                "{} holds a {main_file} already, and results are never overwritten",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Self::make(path.to_owned())
    }

    /// Makes the next free `<root>/<date>/<machine>/<command>-NNN`.
    ///
    /// # Errors
    /// It can't be made: `root` is not writable, say.
    pub fn counted(root: &Path, date: &str, machine: &str, command: &str) -> io::Result<Self> {
        let parent = root.join(date).join(machine);
        fs::create_dir_all(&parent)?;
        let mut number = 1_u32;
        loop {
            let path = parent.join(format!("{command}-{number:03}"));
            // Making it is the question whether it is free: two runs at once can't get the same.
            match fs::create_dir(&path) {
                Ok(()) => return Self::make(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn make(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(path.join(BLOCKS))?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the folder away where nothing was written into it: a comparison that never began leaves no trace.
    pub fn discard_if_empty(&self) {
        self.without_blocks();
        // A folder that holds something is not removed.
        let _ = fs::remove_dir(&self.path);
    }

    /// Takes the folder of the blocks' files away where there are none.
    pub fn without_blocks(&self) {
        // A folder that holds something is not removed.
        let _ = fs::remove_dir(self.join(BLOCKS));
    }

    /// Takes away a file that was written too early.
    pub fn discard(&self, name: &str) {
        // What is not there is as good as gone.
        let _ = fs::remove_file(self.join(name));
    }

    /// The path of a file in it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file in it whole or not at all: whoever reads sees the old or the new.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        write_whole(&self.join(name), bytes).map_err(|error| error.source)
    }

    /// Writes a result: its report, then its own file, so that where the file is the report is too.
    ///
    /// # Errors
    /// A file can't be written; it is named.
    pub fn save(&self, report: &str, name: &str, result: &impl Serialize) -> anyhow::Result<()> {
        self.write_text(REPORT_NAME, report)?;
        self.write_text(name, &json(result))
    }

    /// As [`ResultFolder::write`], with the file's name in the error.
    ///
    /// # Errors
    /// The file can't be written; it is named.
    pub fn write_text(&self, name: &str, text: &str) -> anyhow::Result<()> {
        Ok(write_whole(&self.join(name), text.as_bytes())?)
    }
}

/// The histogram of an arm in a block (counted from 1), relative to the result's folder: `blocks/003-uring.hlog`.
#[must_use]
pub fn hlog_name(block: usize, arm: &str) -> String {
    format!("{BLOCKS}/{block:03}-{arm}.hlog")
}

/// What the arm's server wrote to its stderr in a block (counted from 1): `blocks/003-uring.stderr`.
#[must_use]
pub fn log_name(block: usize, arm: &str) -> String {
    format!("{BLOCKS}/{block:03}-{arm}.stderr")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_on() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let make = || {
            ResultFolder::counted(root.path(), "20260101", "amd-2cpu", "compare")
                .expect("it is writable")
        };
        let first = make();
        assert_eq!(
            first.path(),
            root.path().join("20260101/amd-2cpu/compare-001")
        );
        assert!(first.join(BLOCKS).is_dir());
        assert_eq!(
            make().path(),
            root.path().join("20260101/amd-2cpu/compare-002")
        );
        fs::create_dir(root.path().join("20260101/amd-2cpu/compare-003")).expect("it is writable");
        assert!(make().path().ends_with("compare-004"));
    }

    #[test]
    fn a_named_folder_is_made_but_a_result_in_it_stays() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let path = root.path().join("a/b");
        let folder = ResultFolder::named(&path, "compare.json").expect("it is free");
        folder.write("other.json", b"{}").expect("it is writable");
        ResultFolder::named(&path, "compare.json").expect("other files are no matter");
        folder.write("compare.json", b"{}").expect("it is writable");
        let error = ResultFolder::named(&path, "compare.json").expect_err("there is a result");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("never overwritten"));
    }

    #[test]
    fn files_are_replaced_whole() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = ResultFolder::named(root.path(), "x").expect("it is free");
        folder
            .write("x", b"first, and longer")
            .expect("it is writable");
        folder.write("x", b"second").expect("it is writable");
        assert_eq!(fs::read(folder.join("x")).expect("it is there"), b"second");
        let names: Vec<_> = fs::read_dir(folder.path())
            .expect("a folder")
            .filter_map(Result::ok)
            .collect();
        assert_eq!(names.len(), 2, "the file and blocks/, nothing partial");
    }

    #[test]
    fn names_sort_by_block() {
        assert_eq!(hlog_name(3, "uring"), "blocks/003-uring.hlog");
        assert_eq!(log_name(12, "uring"), "blocks/012-uring.stderr");
    }
}
