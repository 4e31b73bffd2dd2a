//! How are the kernel's one-line files read? Below a folder that stands for `/`, with everything odd or
//! absent as "unknown".

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::cpus::CpuList;

/// Files below a root folder; paths are given without their leading slash.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn below(root: &Path) -> Files {
        Files(root.to_owned())
    }

    /// The trimmed text of a file; none if it cannot be read or is empty.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.0.join(path)).ok()?;
        let text = String::from_utf8_lossy(&bytes)
            .trim_matches(['\0', '\n', ' ', '\t'])
            .to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// A file that holds one number.
    pub(crate) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// A file that holds a list of cpus, which may be empty: then it is blank or `(null)`.
    pub(crate) fn cpu_list(&self, path: &str) -> Option<CpuList> {
        let text = fs::read_to_string(self.0.join(path)).ok()?;
        if text.trim() == "(null)" {
            Some(CpuList::default())
        } else {
            CpuList::from_kernel(&text).ok()
        }
    }

    /// A file that lists choices with the one in force in brackets: `always [madvise] never`.
    pub(crate) fn chosen(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let (_, after) = text.split_once('[')?;
        Some(after.split_once(']')?.0.to_owned())
    }

    /// The names in a folder, sorted; none for a folder that cannot be read.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.0.join(path)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }
}

/// Files on paper, for the tests of those who read them.
#[cfg(test)]
pub(crate) fn paper(contents: &[(&str, &str)]) -> (tempfile::TempDir, Files) {
    let root = tempfile::tempdir().expect("a temporary folder");
    for (path, text) in contents {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("it can be made");
        fs::write(path, text).expect("it can be written");
    }
    let files = Files::below(root.path());
    (root, files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_or_odd_is_unknown() {
        let (_root, files) = paper(&[
            ("blank", "\n"),
            ("word", "on\n"),
            ("number", " 7\n"),
            ("list", "0-1\n"),
        ]);
        assert_eq!(
            (
                files.text("absent"),
                files.text("blank"),
                files.text("word")
            ),
            (None, None, Some("on".into()))
        );
        assert_eq!(
            (
                files.number("absent"),
                files.number("word"),
                files.number("number")
            ),
            (None, None, Some(7))
        );
        assert_eq!(
            (files.cpu_list("absent"), files.cpu_list("word")),
            (None, None)
        );
        assert_eq!(files.cpu_list("blank"), Some(CpuList::default()));
        assert_eq!((files.chosen("absent"), files.chosen("word")), (None, None));
        assert_eq!((files.names("absent").len(), files.names("").len()), (0, 4));
    }
}
