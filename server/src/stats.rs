//! The file of `--stats`: what the server did, over all and by worker.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, access};
use rustix::io::Errno;
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

    /// Writes the file: whole or not at all, since it is renamed into place, so that a reader that waits for it never
    /// sees a half of it. A device or a pipe is written to as it is: a file in its place would take `/dev/null` from
    /// everybody.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        text.push(b'\n');
        if is_device(path) {
            return fs::OpenOptions::new()
                .write(true)
                .open(path)?
                .write_all(&text);
        }
        let path = &target(path);
        let beside = beside(path);
        let written = fs::File::create(&beside)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            // Perhaps never made; what matters is the first error.
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

/// Whether the file could be written now: better learnt at the start than after the last connection.
///
/// # Errors
/// Of the file system, as [`Stats::write`] would give them.
pub fn check_writable(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(Errno::ISDIR.into());
    }
    if is_device(path) {
        // Not by opening it: a pipe has a reader only when somebody reads.
        return Ok(access(path, Access::WRITE_OK)?);
    }
    let beside = beside(&target(path));
    fs::File::create(&beside)?;
    fs::remove_file(&beside)
}

/// Whether there is something at `path` that is neither a file nor a folder.
fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

/// The file that `path` means: a link is followed, and not replaced.
fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Where a file is written before it is renamed to `path`: in the same folder, under a name that is ours alone.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    name.into()
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_link_stays_and_what_it_leads_to_is_written() {
        let stats = Stats::new("epoll", &[], &[], &[]);
        let folder = tempfile::tempdir().expect("a folder");
        let (file, null) = (folder.path().join("file"), Path::new("/dev/null"));
        fs::write(&file, "old").expect("written");
        for (name, to) in [("to-file", &*file), ("to-device", null)] {
            let link = folder.path().join(name);
            std::os::unix::fs::symlink(to, &link).expect("made");
            check_writable(&link).expect("it can be written");
            stats.write(&link).expect("written");
            assert_eq!(fs::read_link(&link).expect("still a link"), to);
        }
        let text = fs::read_to_string(&file).expect("there");
        assert!(text.contains(SCHEMA), "{text}");
        assert!(!null.is_file());
    }

    #[test]
    fn a_folder_is_refused_at_the_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = check_writable(folder.path()).expect_err("no file");
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let stats = Stats::new("epoll", &[], &[], &[]);
        let path = Path::new("/nonexistent/stats.json");
        assert!(stats.write(path).is_err() && check_writable(path).is_err());
    }
}
