//! How is a file written so that nobody ever reads half of it? The one way of all programs, at once or piece by piece.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    iter,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{Access, Mode, OFlags, access, fcntl_setfl, open},
    io::Errno,
};

use crate::limits;

/// A file that can't be written, and why; where a limit is in the way, with the cure.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}{}", path.display(), limits::hint(source))]
pub struct WriteError {
    /// The file as it was named.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

/// Links are followed this far, as the kernel does (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// Writes a file whole or not at all: whoever reads it sees the old content or the new. The bytes go into a new file
/// in the same folder, to the disk, and under the file's name then. After a failure nothing is left beside it.
///
/// A link stays, and the file that it leads to is written. A file that was there keeps its permissions. A device, a pipe or
/// an open file (`/dev/stdout`) is written to as it is: a file in its place would take `/dev/null` from everybody. So is a
/// file that may not be replaced: one that a container was given by itself, or another user's in a sticky folder.
///
/// # Errors
/// The file can't be written; it is named.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let mut file = NewFile::create(path)?;
    file.write_all(bytes).map_err(|source| WriteError {
        path: path.to_owned(),
        source,
    })?;
    file.finish()
}

/// The same piece by piece, for what grows while a measurement goes on: until [`NewFile::finish`] it stands beside the
/// file that is meant, as `NAME.PROCESS-NUMBER.tmp`. Dropping it unfinished takes it away.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    file: File,
    /// Where it is, and where it is to be; `None` for a device, and once it is there.
    rename: Option<(PathBuf, PathBuf)>,
}

impl NewFile {
    /// Begins a file that is to be at `path`; what is there stays as it is.
    ///
    /// # Errors
    /// It can't be written there; it is named.
    pub fn create(path: &Path) -> Result<NewFile, WriteError> {
        let failed = |source| WriteError {
            path: path.to_owned(),
            source,
        };
        if stays_as_it_is(path) {
            return Ok(NewFile {
                path: path.to_owned(),
                file: open_as_it_is(path).map_err(failed)?,
                rename: None,
            });
        }
        let to = behind_links(path);
        let (beside, file) = new_beside(&to).map_err(failed)?;
        let new = NewFile {
            path: path.to_owned(),
            file,
            rename: Some((beside, to)),
        };
        new.keep_permissions().map_err(failed)?;
        Ok(new)
    }

    /// To the disk, and under its name.
    ///
    /// # Errors
    /// What was written before can't be kept; the file is named, and nothing is left of it.
    pub fn finish(mut self) -> Result<(), WriteError> {
        let Some((beside, to)) = &self.rename else {
            return Ok(());
        };
        let kept = self
            .file
            .sync_all()
            .and_then(|()| put_in_place(beside, to))
            .map_err(|source| WriteError {
                path: self.path.clone(),
                source,
            });
        if kept.is_ok() {
            self.rename = None;
        }
        kept
    }

    fn keep_permissions(&self) -> io::Result<()> {
        let there = self
            .rename
            .as_ref()
            .and_then(|(_, to)| fs::metadata(to).ok());
        there.map_or(Ok(()), |there| {
            self.file.set_permissions(there.permissions())
        })
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some((beside, _)) = &self.rename {
            // What matters is the error that led here.
            let _ = fs::remove_file(beside);
        }
    }
}

impl io::Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Whether [`write_whole`] could write the file now, which is better learnt before a long measurement than after it.
/// A file that is there is not touched.
///
/// # Errors
/// It could not; the file is named.
pub fn check_writable(path: &Path) -> Result<(), WriteError> {
    let checked = if path.is_dir() {
        Err(Errno::ISDIR.into())
    } else if stays_as_it_is(path) {
        // Not by opening it: a pipe has a reader only when somebody reads.
        access(path, Access::WRITE_OK).map_err(io::Error::from)
    } else {
        new_beside(&behind_links(path)).and_then(|(beside, _)| fs::remove_file(beside))
    };
    checked.map_err(|source| WriteError {
        path: path.to_owned(),
        source,
    })
}

/// A new file in the folder of `path`, under a name that no other process or thread uses. It is made and not opened, so
/// that a link that somebody put there leads nowhere.
fn new_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}-{number}.tmp", process::id()));
        match File::create_new(&name) {
            Ok(file) => return Ok((name.into(), file)),
            // Left by a process of this number that was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Renames a file over another, or copies it there where that one may be written and not replaced.
fn put_in_place(beside: &Path, to: &Path) -> io::Result<()> {
    let error = match fs::rename(beside, to) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let irreplaceable = [Errno::BUSY, Errno::PERM, Errno::ACCESS].map(Errno::raw_os_error);
    if !error
        .raw_os_error()
        .is_some_and(|errno| irreplaceable.contains(&errno))
        || !to.is_file()
    {
        return Err(error);
    }
    let mut from = File::open(beside)?;
    let mut file = OpenOptions::new().write(true).truncate(true).open(to)?;
    io::copy(&mut from, &mut file)?;
    file.sync_all()?;
    fs::remove_file(beside)
}

/// Opens what is not replaced: to write behind what is there. A pipe that nobody reads is an error (`ENXIO`), where a
/// blocking open would wait for a reader for ever.
fn open_as_it_is(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

/// Whether what is at `path` is not to be replaced by a file.
fn stays_as_it_is(path: &Path) -> bool {
    is_device(path) || is_open_file(path)
}

/// Whether `path` leads to a file by way of a descriptor that is open, as `/dev/stdout` does.
fn is_open_file(path: &Path) -> bool {
    links(path).any(|path| {
        let folder = fs::canonicalize(folder_of(&path));
        folder.is_ok_and(|folder| folder.starts_with("/proc"))
    })
}

/// Whether there is something at `path` that is neither a file nor a folder.
fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

/// The file that `path` means, whether it is there already or not.
fn behind_links(path: &Path) -> PathBuf {
    links(path).last().unwrap_or_else(|| path.to_owned())
}

/// `path`, and where each link leads that it is.
fn links(path: &Path) -> impl Iterator<Item = PathBuf> {
    let next = |path: &PathBuf| {
        // What a relative link says is meant from its folder; an absolute one replaces it.
        let to = fs::read_link(path).ok()?;
        Some(folder_of(path).join(to))
    };
    iter::successors(Some(path.to_owned()), next).take(1 + LINKS_MAX)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, os::unix::fs::symlink, sync::Barrier, thread};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_nothing_lies_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        for text in ["first, and longer", "second"] {
            check_writable(&path).unwrap();
            write_whole(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(folder.path()), ["x.json"]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        write_whole(&path, b"third").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        // A folder that holds something can't be replaced by a file: the rename fails, after all was written.
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "old").unwrap();
        let error = write_whole(&path, b"new").unwrap_err();
        let begin = format!("cannot write {}: ", path.display());
        assert!(error.to_string().starts_with(&begin), "{error}");
        assert_eq!(names(folder.path()), ["taken"]);
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"old");
        assert!(check_writable(&path).is_err());

        let nowhere = folder.path().join("no/such/folder");
        for result in [write_whole(&nowhere, b""), check_writable(&nowhere)] {
            let error = result.unwrap_err();
            assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
            assert_eq!(error.path, nowhere);
        }
    }

    #[test]
    fn a_file_that_grows_is_seen_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.hlog");
        fs::write(&path, "old").unwrap();
        let mut file = NewFile::create(&path).unwrap();
        for piece in ["one\n", "two\n"] {
            file.write_all(piece.as_bytes()).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"old");
        }
        assert_eq!(names(folder.path()).len(), 2);
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        // Whoever gives up leaves nothing but what was there.
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"three\n").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(names(folder.path()), ["run.hlog"]);
    }

    #[test]
    fn the_limit_on_sizes_is_named() {
        let error = WriteError {
            path: "x".into(),
            source: Errno::FBIG.into(),
        };
        let said = error.to_string();
        assert!(
            said.contains("\nhint: ") && said.contains("limit on file sizes"),
            "{said}"
        );
    }

    #[test]
    fn links_and_devices_stay() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("file"), "old").unwrap();
        for (link, to) in [
            ("to-file", "file"),
            ("sub/back", "../to-file"),
            ("to-nothing", "sub/new"),
            ("to-device", "/dev/null"),
        ] {
            symlink(to, at(link)).unwrap();
            check_writable(&at(link)).unwrap();
            write_whole(&at(link), link.as_bytes()).unwrap();
            assert_eq!(fs::read_link(at(link)).unwrap(), Path::new(to));
        }
        assert_eq!(fs::read(at("file")).unwrap(), b"sub/back");
        assert_eq!(fs::read(at("sub/new")).unwrap(), b"to-nothing");
        assert!(is_device(Path::new("/dev/null")));
        assert_eq!(names(&at("sub")), ["back", "new"]);
        // A device that is full is one more failure.
        assert!(write_whole(Path::new("/dev/full"), b"x").is_err());
    }

    #[test]
    fn an_open_file_is_written_behind_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut out = File::create(&path).unwrap();
        out.write_all(b"listening\n").unwrap();
        let descriptor = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&out));
        let link = folder.path().join("link");
        symlink(&descriptor, &link).unwrap();
        for name in [Path::new(&descriptor), &link] {
            check_writable(name).unwrap();
            write_whole(name, b"counters\n").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"listening\ncounters\ncounters\n");
        assert_eq!(names(folder.path()), ["link", "out"]);
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_an_error_and_no_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        check_writable(&path).unwrap();
        let error = write_whole(&path, b"x").unwrap_err();
        assert_eq!(
            error.source.raw_os_error(),
            Some(Errno::NXIO.raw_os_error())
        );
        assert_eq!(names(folder.path()), ["pipe"]);
    }

    #[test]
    fn what_may_be_written_and_not_replaced_is_written_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let (beside, to) = (folder.path().join("beside"), folder.path().join("to"));
        fs::write(&to, "old, and longer than the new").unwrap();
        fs::write(&beside, "new").unwrap();
        put_in_place(&beside, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        // A folder is neither replaced nor written to.
        fs::write(&beside, "new").unwrap();
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(put_in_place(&beside, &taken).is_err());
    }

    #[test]
    fn two_writers_at_once_don_t_mix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let texts = ["a".repeat(100_000), "b".repeat(100_000)];
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            for text in &texts {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..20 {
                        write_whole(&path, text.as_bytes()).unwrap();
                        let read = fs::read_to_string(&path).unwrap();
                        assert!(texts.contains(&read));
                    }
                });
            }
        });
        assert_eq!(names(folder.path()), ["x"]);
    }
}
