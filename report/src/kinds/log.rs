//! A histogram log of any tool, without a run file: the one kind that is no JSON.

use std::path::PathBuf;

use hdrhistogram::Histogram;
use serde_json::{Map, json};

use echometer_loadgen::file::Summary;

use crate::{
    kinds::Shown,
    names::file_name,
    page::{log::page, model::Page, text::text},
    saved::hlog::{Log, Unit},
};

/// The log, and the file that it was read from.
#[derive(Debug)]
pub(crate) struct LogFile {
    /// What is in it.
    pub log: Log,
    /// Where it is.
    pub file: PathBuf,
}

impl LogFile {
    /// Its figures as JSON, since it has none of its own.
    #[must_use]
    pub(crate) fn json(&self) -> String {
        let tags: Map<String, serde_json::Value> = self
            .log
            .tags()
            .into_iter()
            .filter_map(|tag| {
                let summary = Summary::of(&self.log.whole(tag)?, None);
                Some((tag.to_owned(), serde_json::to_value(summary).ok()?))
            })
            .collect();
        let intervals = self.log.intervals.len();
        let value = json!({
            "schema": "echometer.log/1",
            "read_as": self.log.read_as().to_string(),
            "notes": self.log.notes,
            "intervals": intervals,
            "tags": tags,
        });
        format!("{value:#}\n")
    }
}

impl Shown for LogFile {
    /// Of none of our commands: its page's words and main table.
    fn text(&self) -> String {
        text(&self.page())
    }

    fn page(&self) -> Page {
        page(&self.log, &self.file)
    }

    fn histograms(&self) -> Vec<(String, Histogram<u64>)> {
        of_tags(&self.log)
    }

    fn read_as(&self) -> Option<Unit> {
        Some(self.log.read_as())
    }
}

/// What a log holds under each tag.
pub(super) fn of_tags(log: &Log) -> Vec<(String, Histogram<u64>)> {
    log.tags()
        .into_iter()
        .filter_map(|tag| Some((file_name(tag), log.whole(tag)?)))
        .collect()
}
