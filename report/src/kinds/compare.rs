//! A comparison, with each arm's latencies over all valid blocks.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde_json::Value;

use crate::{
    file::compare::{self, Comparison},
    kinds::{ResultKind, Shown},
    names::file_name,
    page::{compare::page, model::Page},
    saved::{
        error::{FileError, Reason},
        hlog,
        place::{Place, typed},
    },
    text::compare::text,
};

/// The file, and by the arm's name its latencies.
#[derive(Debug)]
pub(super) struct Compared {
    file: Comparison,
    latencies: BTreeMap<String, Histogram<u64>>,
}

impl ResultKind for Compared {
    const SCHEMA: &'static str = compare::SCHEMA;
    const FILE_NAME: &'static str = compare::FILE_NAME;

    fn load(file: Value, place: &mut Place<'_>) -> Result<Self, FileError> {
        let file: Comparison = typed(file, place.file)?;
        let mut latencies = BTreeMap::new();
        for arm in &file.arms {
            let names = file
                .valid_blocks()
                .filter_map(|block| Some(&block.arms.get(&arm.name)?.hlog));
            let mut parts = Vec::new();
            for name in names {
                let intervals = place.log(name)?.into_iter().flat_map(|log| log.intervals);
                let of_latency = intervals.filter(|interval| interval.tag == "latency");
                parts.extend(of_latency.map(|interval| interval.histogram));
            }
            let whole = hlog::sum(parts.iter())
                .map_err(|error| Reason::Damaged(error.to_string()).of(place.file))?;
            if let Some(whole) = whole {
                latencies.insert(arm.name.clone(), whole);
            }
        }
        Ok(Self { file, latencies })
    }
}

impl Shown for Compared {
    fn text(&self) -> String {
        text(&self.file)
    }

    fn page(&self) -> Page {
        page(&self.file, &self.latencies)
    }

    fn histograms(&self) -> Vec<(String, Histogram<u64>)> {
        self.latencies
            .iter()
            .map(|(arm, whole)| (format!("latency-{}", file_name(arm)), whole.clone()))
            .collect()
    }
}
