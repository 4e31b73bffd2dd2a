//! The stored results of this repository, analysed anew: what the method of the corrections may change, and what not.

use std::{
    fs,
    path::{Path, PathBuf},
};

use echometer_loadgen::plan::Load;
use echometer_report::file::compare::{Comparison, FILE_NAME};

use super::*;

/// Every stored comparison by slices, with its path.
fn stored() -> Vec<(PathBuf, Comparison)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../results")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the repository's own") {
            let path = entry.expect("the repository's own").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == FILE_NAME) {
                let text = fs::read_to_string(&path).expect("a result");
                let file: Comparison = serde_json::from_str(&text).expect("a result");
                if file.design.kind == Design::Slices {
                    found.push((path, file));
                }
            }
        }
    }
    found
}

fn anew(file: &Comparison) -> Analysis {
    let terms = Terms {
        arms: file.arms.iter().map(|arm| arm.name.clone()).collect(),
        primary: file.design.primary,
        margin: file.design.margin,
        design: file.design.kind,
        open: file.design.load.load != Load::Closed,
    };
    analyse(&terms, &file.blocks)
}

#[test]
fn the_primary_metric_of_two_arms_is_answered_as_it_was() {
    let two: Vec<(PathBuf, Comparison)> = stored()
        .into_iter()
        .filter(|(_, file)| file.arms.len() == 2)
        .collect();
    assert!(20 <= two.len(), "{} stored comparisons", two.len());
    for (path, file) in &two {
        let primary = |metrics: &[MetricResult]| {
            let mut found = metrics.iter().filter(|metric| metric.primary);
            found.next().expect("there is one").clone()
        };
        let (old, new) = (primary(&file.metrics), primary(&anew(file).metrics));
        let path = path.display();
        assert_eq!(
            (old.verdict, old.blocks_used),
            (new.verdict, new.blocks_used),
            "{path}"
        );
        let figures = |metric: &MetricResult| {
            [
                metric.ratio,
                metric.ci_low,
                metric.ci_high,
                metric.confidence,
                metric.p,
                metric.p_adjusted,
            ]
        };
        for (old, new) in figures(&old).into_iter().zip(figures(&new)) {
            let (old, new) = (old.expect("a figure"), new.expect("a figure"));
            assert!((old - new).abs() < 1e-12, "{path}: {old} {new}");
        }
    }
}

/// Five arms in eight blocks: Holm's correction left all other metrics undecided, at any difference.
#[test]
fn more_arms_lose_no_verdict_on_the_primary_metric_and_the_others_get_theirs() {
    let decided = |metric: &&MetricResult| {
        use Verdict::{Better, Small, Worse};
        matches!(metric.verdict, Better | Worse | Small)
    };
    let (mut before, mut after) = (0, 0);
    let mut many = 0;
    for (path, file) in stored().iter().filter(|(_, file)| 2 < file.arms.len()) {
        many += usize::from(4 < file.arms.len());
        let analysis = anew(file);
        let others = |metrics: &[MetricResult]| {
            metrics
                .iter()
                .filter(|metric| !metric.primary)
                .filter(decided)
                .count()
        };
        if 4 < file.arms.len() {
            before += others(&file.metrics);
            after += others(&analysis.metrics);
        }
        for (old, new) in file.metrics.iter().zip(&analysis.metrics) {
            if old.primary && old.verdict != Verdict::Undecided {
                assert_eq!(old.verdict, new.verdict, "{} {}", path.display(), old.arm);
            }
        }
    }
    assert!(3 <= many, "{many} comparisons of five arms");
    assert_eq!(before, 0);
    assert!(10 <= after, "{after}");
}
