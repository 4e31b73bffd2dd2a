//! `echometer export`: a saved run's or comparison's latencies as files that other tools draw and count: a percentile
//! spectrum (`.hgrm`, for hdr-plot and HdrHistogram's plotter) and CSV, one of each a histogram, and every table as CSV.

use std::{
    collections::HashSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;

use echometer_host::files::write_whole;
use echometer_loadgen::histogram_log;
use echometer_report::{
    names::{file_name, free_name},
    page::{self, csv},
    saved::{Saved, hlog::Unit},
};

/// Writes the files into `folder` and says which.
///
/// # Errors
/// One of them is there already: then nothing is written. The folder or a file can't be written.
pub(crate) fn write_files(saved: &Saved, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files: Vec<(String, String)> = Vec::new();
    let mut taken = HashSet::new();
    for (name, histogram) in saved.kind.histograms() {
        let name = free_name(name, &mut taken);
        files.push((format!("{name}.hgrm"), histogram_log::spectrum(&histogram)));
        files.push((
            format!("{name}.csv"),
            counts(&histogram, saved.kind.read_as()),
        ));
    }
    for table in &page::of(saved).tables {
        let name = free_name(format!("table-{}", file_name(&table.title)), &mut taken);
        files.push((format!("{name}.csv"), csv::table(table)));
    }
    if let Some((name, _)) = files.iter().find(|(name, _)| folder.join(name).exists()) {
        bail!(
            "{} is there already, and files are never overwritten: name another folder with --out, or take it away",
            folder.join(name).display()
        );
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    files
        .into_iter()
        .map(|(name, text)| {
            let path = folder.join(name);
            write_whole(&path, text.as_bytes())?;
            Ok(path)
        })
        .collect()
}

/// Every bucket that holds anything: its greatest value in ns, how many are in it, and how many up to it. Of a log also
/// what its values were taken for before they were made ns.
fn counts(histogram: &Histogram<u64>, read_as: Option<Unit>) -> String {
    let (head, unit) = match read_as {
        Some(unit) => (",read_as", format!(",{unit}")),
        None => ("", String::new()),
    };
    let mut text = format!("value_ns,count,total{head}\n");
    let mut total = 0;
    for step in histogram.iter_recorded() {
        total += step.count_at_value();
        let _ = writeln!(
            text,
            "{},{},{total}{unit}",
            step.value_iterated_to(),
            step.count_at_value()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up() {
        let mut histogram = echometer_loadgen::recorder::histogram();
        for value in [1, 1, 7, 100_000] {
            histogram.record(value).expect("it fits");
        }
        let text = counts(&histogram, None);
        assert!(
            text.starts_with("value_ns,count,total\n1,2,2\n7,1,3\n"),
            "{text}"
        );
        assert!(text.ends_with(",1,4\n"), "{text}");
        // F.39: which unit was taken.
        let text = counts(&histogram, Some(Unit::Us));
        assert!(
            text.starts_with("value_ns,count,total,read_as\n1,2,2,us\n"),
            "{text}"
        );
    }

    #[test]
    fn names_are_fit_for_files() {
        assert_eq!(file_name("Metrics (* decides)"), "metrics-decides");
        assert_eq!(file_name("../x"), "x");
        assert_eq!(file_name(""), "untagged");
        assert_eq!(file_name(&"é\u{1f980}x".repeat(100)).len(), 65);
        let mut taken = HashSet::new();
        let names = ["A", "a", "a_b", "a-b", "A"].map(|arm| free_name(file_name(arm), &mut taken));
        assert_eq!(names, ["a", "a-2", "a-b", "a-b-2", "a-3"]);
    }
}
