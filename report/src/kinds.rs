//! Which kinds of result are there? One type per kind, which says its schema, its file, its text, its page and its
//! histograms, and one line per kind in `KINDS`.

mod compare;
mod curve;
mod doctor;
mod find_rate;
mod floor;
mod jitter;
pub(crate) mod log;
mod run;
mod selftest;
mod storm;
mod sweep;

use std::fmt;

use hdrhistogram::Histogram;
use serde_json::Value;

use crate::{
    page::model::Page,
    saved::{error::FileError, hlog::Unit, place::Place},
};

/// A kind of result that has a JSON file.
pub(crate) trait ResultKind: Shown + Sized + 'static {
    /// What the file says of its form.
    const SCHEMA: &'static str;
    /// The name of the file in its folder.
    const FILE_NAME: &'static str;

    /// The result, with what lies beside it.
    ///
    /// # Errors
    /// It is not what it says it is, or raw data are damaged.
    fn load(file: Value, place: &mut Place<'_>) -> Result<Self, FileError>;
}

/// A result that can be looked at.
pub trait Shown: fmt::Debug {
    /// As the command that made it printed it.
    fn text(&self) -> String;

    /// As a page, without its raw data.
    fn page(&self) -> Page;

    /// Its histograms, each with a name that is fit for a file.
    fn histograms(&self) -> Vec<(String, Histogram<u64>)> {
        Vec::new()
    }

    /// What the values of a histogram log were taken for: they are shown in ns. None for a result of ours.
    fn read_as(&self) -> Option<Unit> {
        None
    }
}

/// Reads a file as one kind; see [`ResultKind::load`].
pub(crate) type Load = fn(Value, &mut Place<'_>) -> Result<Box<dyn Shown>, FileError>;

/// A line of the table.
pub(crate) struct Entry {
    /// See [`ResultKind::SCHEMA`].
    pub schema: &'static str,
    /// See [`ResultKind::FILE_NAME`].
    pub file_name: &'static str,
    /// See [`ResultKind::load`].
    pub load: Load,
}

/// Every kind, in the order in which a folder is searched for them.
pub(crate) const KINDS: [Entry; 10] = [
    Entry::of::<run::Run>(),
    Entry::of::<compare::Compared>(),
    Entry::of::<sweep::SweepFile>(),
    Entry::of::<curve::CurveFile>(),
    Entry::of::<find_rate::FindRateFile>(),
    Entry::of::<storm::Stormed>(),
    Entry::of::<floor::FloorFile>(),
    Entry::of::<jitter::JitterFile>(),
    Entry::of::<selftest::Selftest>(),
    Entry::of::<doctor::Examination>(),
];

impl Entry {
    const fn of<K: ResultKind>() -> Self {
        Self {
            schema: K::SCHEMA,
            file_name: K::FILE_NAME,
            load: |file, place| Ok(Box::new(K::load(file, place)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_kinds_are_taken_for_each_other() {
        for names in [
            KINDS.map(|kind| kind.schema),
            KINDS.map(|kind| kind.file_name),
        ] {
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), KINDS.len());
        }
        for kind in KINDS {
            let name = kind.file_name.trim_end_matches(".json");
            assert_eq!(kind.schema, format!("echometer.{name}/1"));
        }
    }
}
