//! Why a file can't be read, in one line that names the file: it is not there, damaged, foreign or newer.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A file that can't be read, or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct FileError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub reason: Reason,
}

/// See [`FileError`].
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The kernel refuses.
    #[error("cannot be read: {0}")]
    Open(#[from] io::Error),
    /// The kernel refuses to take it.
    #[error("cannot be written: {0}")]
    Write(io::Error),
    /// A folder without a result.
    #[error("holds no result: none of {0} is in it")]
    NoResult(String),
    /// It ends too early.
    #[error("is truncated: {0}")]
    Truncated(String),
    /// It is not what it says it is.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// It is no file of ours, or of the format.
    #[error("is foreign: {0}")]
    Foreign(String),
    /// It is beyond a bound.
    #[error("is too large: {0}")]
    Large(String),
    /// A unit was told of what says its own.
    #[error(
        "says itself that its values are in ns: --unit is for logs of tools that don't say theirs"
    )]
    OwnUnit,
    /// It is of a later version than this program.
    #[error(
        "is newer than this program: it is of {found}, and {known} is read here; use a newer echometer"
    )]
    Newer {
        /// What it says of itself.
        found: String,
        /// What is read here.
        known: String,
    },
}

impl Reason {
    /// Of `path`.
    #[must_use]
    pub fn of(self, path: &Path) -> FileError {
        FileError {
            path: path.to_owned(),
            reason: self,
        }
    }
}
