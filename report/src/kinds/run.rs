//! A run of the load generator, with its log if it is there.

use hdrhistogram::Histogram;
use serde_json::Value;

use echometer_loadgen::{
    file::{self, RunFile},
    report::text,
};

use crate::{
    kinds::{ResultKind, Shown, log::of_tags},
    page::{model::Page, run::page},
    saved::{
        error::FileError,
        hlog::Log,
        place::{Place, typed},
    },
};

/// The file, and its log.
#[derive(Debug)]
pub(super) struct Run {
    file: RunFile,
    log: Option<Log>,
}

impl ResultKind for Run {
    const SCHEMA: &'static str = file::SCHEMA;
    const FILE_NAME: &'static str = "run.json";

    fn load(file: Value, place: &mut Place<'_>) -> Result<Self, FileError> {
        Ok(Self {
            file: typed(file, place.file)?,
            log: place.log("run.hlog")?,
        })
    }
}

impl Shown for Run {
    fn text(&self) -> String {
        text(&self.file)
    }

    fn page(&self) -> Page {
        page(&self.file, self.log.as_ref())
    }

    fn histograms(&self) -> Vec<(String, Histogram<u64>)> {
        self.log.as_ref().map(of_tags).unwrap_or_default()
    }
}
