//! Connection storms, with the histograms of each level.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde_json::Value;

use crate::{
    file::storm::{self, StormFile},
    kinds::{ResultKind, Shown, log::of_tags},
    names::file_name,
    page::{model::Page, storm::page},
    saved::{
        error::FileError,
        hlog::Log,
        place::{Place, typed},
    },
    text::storm::text,
};

/// The file, and by the level's name its histograms.
#[derive(Debug)]
pub(super) struct Stormed {
    file: StormFile,
    logs: BTreeMap<String, Log>,
}

impl ResultKind for Stormed {
    const SCHEMA: &'static str = storm::SCHEMA;
    const FILE_NAME: &'static str = storm::FILE_NAME;

    fn load(file: Value, place: &mut Place<'_>) -> Result<Self, FileError> {
        Ok(Self {
            file: typed(file, place.file)?,
            logs: place.logs_by_level()?,
        })
    }
}

impl Shown for Stormed {
    fn text(&self) -> String {
        text(&self.file)
    }

    fn page(&self) -> Page {
        page(&self.file, &self.logs)
    }

    fn histograms(&self) -> Vec<(String, Histogram<u64>)> {
        self.logs
            .iter()
            .flat_map(|(level, log)| {
                let named = |(tag, whole)| (format!("{tag}-{}", file_name(level)), whole);
                of_tags(log).into_iter().map(named)
            })
            .collect()
    }
}
