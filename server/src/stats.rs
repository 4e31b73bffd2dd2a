//! The file of `--stats`: what the server did, over all and by worker.

use std::path::Path;
use std::sync::Arc;

use echometer_host::files::{WriteError, write_whole};
use serde::{Deserialize, Serialize};

use crate::counters::{Counters, Tally};

/// The name and version of the format. Readers refuse another one.
pub const SCHEMA: &str = "echometer.stats/1";

/// All workers' counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// [`SCHEMA`].
    pub schema: String,
    /// The engine's name.
    pub engine: String,
    /// What of it is in use.
    pub features: Vec<String>,
    /// The sums over the workers.
    #[serde(flatten)]
    pub total: Tally,
    /// The same by worker.
    pub workers: Vec<WorkerStats>,
}

/// One worker's share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// The cpu that it is pinned to.
    pub cpu: Option<u32>,
    /// Its counters.
    #[serde(flatten)]
    pub tally: Tally,
}

impl Stats {
    pub(crate) fn new(
        engine: &str,
        features: &[String],
        cpus: &[Option<u32>],
        counters: &[Arc<Counters>],
    ) -> Stats {
        let workers: Vec<WorkerStats> = cpus
            .iter()
            .zip(counters)
            .map(|(&cpu, counters)| WorkerStats {
                cpu,
                tally: counters.tally(),
            })
            .collect();
        let mut total = Tally::default();
        for worker in &workers {
            total += &worker.tally;
        }
        Stats {
            schema: SCHEMA.into(),
            engine: engine.into(),
            features: features.to_vec(),
            total,
            workers,
        }
    }

    /// Writes the file: whole or not at all, so that a reader that waits for it never sees a half of it.
    ///
    /// # Errors
    /// Of the file system.
    ///
    /// # Panics
    /// Never: numbers and names have a form in JSON.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        let mut text = serde_json::to_vec_pretty(self).expect("numbers and names are JSON");
        text.push(b'\n');
        write_whole(path, &text)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_file_holds_sums_and_shares() {
        let counters: Vec<Arc<Counters>> = (0..2).map(|_| Arc::default()).collect();
        counters[0].bytes_in.add(3);
        counters[1].bytes_in.add(4);
        let stats = Stats::new("epoll", &["a".into()], &[Some(0), None], &counters);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stats.json");
        stats.write(&path).expect("written");
        let text = fs::read_to_string(&path).expect("there");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["schema"], SCHEMA);
        assert_eq!(json["bytes_in"], 7);
        assert_eq!(json["workers"][1]["bytes_in"], 4);
        assert_eq!(json["closed"]["peer_closed"], 0);
        assert_eq!(
            serde_json::from_str::<Stats>(&text).expect("reads back"),
            stats
        );
        assert_eq!(
            fs::read_dir(folder.path()).expect("there").count(),
            1,
            "nothing is left beside it"
        );
    }
}
