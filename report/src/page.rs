//! A saved result as something to look at: words, tables and charts as plain data. `html`, `svg`, `markdown`,
//! `csv` and `text` are renderings of it and know nothing of what was measured.

pub mod chart;
pub(crate) mod compare;
pub mod csv;
pub(crate) mod curve;
pub(crate) mod doctor;
pub(crate) mod find_rate;
pub(crate) mod floor;
mod frame;
pub(crate) mod html;
pub(crate) mod jitter;
pub(crate) mod log;
pub(crate) mod markdown;
pub mod model;
pub(crate) mod run;
pub(crate) mod selftest;
pub(crate) mod storm;
pub(crate) mod svg;
pub(crate) mod sweep;
pub mod table;
pub(crate) mod text;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    folder::BLOCKS,
    page::model::{Page, RawFile},
    saved::Saved,
};

/// Raw data beyond this are not put into the page, but named in it: a report stays below a megabyte.
const FILES_BYTES_MAX: usize = 500_000;

/// The page of a saved result, with its raw data: the result file first, then what lies beside it, as long as there is
/// room.
#[must_use]
pub fn of(saved: &Saved) -> Page {
    let mut page = saved.kind.page();
    let name = |path: &Path| {
        let inside = path.strip_prefix(&saved.folder).unwrap_or(path);
        inside.to_string_lossy().into_owned()
    };
    let mut paths = vec![saved.file.clone()];
    if !saved.alone {
        paths.extend(data_beside(&saved.folder, &saved.file));
    }
    let mut room = FILES_BYTES_MAX;
    for path in paths {
        let Ok(bytes) = fs::read(&path) else { continue };
        match room.checked_sub(bytes.len()) {
            Some(left) => {
                room = left;
                let name = name(&path);
                page.files.push(RawFile { name, bytes });
            }
            None => page.files_left_out.push(format!(
                "{} (it would make this page too large)",
                name(&path)
            )),
        }
    }
    let missing = saved.missing.iter();
    page.files_left_out
        .extend(missing.map(|name| format!("{name} (it was not beside the result)")));
    page
}

/// The data files of a result's folder and of its `blocks/`, in the order of their names.
fn data_beside(folder: &Path, result: &Path) -> Vec<PathBuf> {
    const DATA: [&str; 6] = ["json", "toml", "hlog", "hgrm", "csv", "txt"];
    let mut paths = Vec::new();
    for folder in [folder.to_owned(), folder.join(BLOCKS)] {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        let mut here: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        here.sort();
        paths.extend(here.into_iter().filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            path != result && path.is_file() && extension.is_some_and(|name| DATA.contains(&name))
        }));
    }
    paths
}
