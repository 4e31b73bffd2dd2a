//! What a server writes, kept within bounds: the first and the last MiB of it. The first is written to its file as it
//! comes, the last when the server has ended.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::ioctl_fionbio,
};

use echometer_host::{signals::Stop, threads};

/// How much is kept of the beginning, and how much of the end.
pub(crate) const KEPT_BYTES: usize = 1 << 20;

/// Reads what a server writes, on a thread of its own, until it is dropped.
#[derive(Debug)]
pub(crate) struct OutputLog {
    kept: Arc<Mutex<Kept>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Kept {
    pipe: PipeReader,
    ended: bool,
    file: File,
    /// How much more of the beginning is kept.
    room: usize,
    /// The end, as far as it isn't in the file.
    last: VecDeque<u8>,
    /// What was between.
    left_out: u64,
}

impl OutputLog {
    /// Appends to the file `path` what is written into the pipe that is given back. A file may have parts of several
    /// servers, one after the other; they share the room for the beginning.
    ///
    /// # Errors
    /// The file can't be written to, or there is no descriptor or thread.
    pub(crate) fn start(path: &Path) -> io::Result<(Self, PipeWriter)> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|error| {
                // No kind that could be taken for the program's own.
                io::Error::other(format!("its log {}: {error}", path.display()))
            })?;
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let (pipe, writer) = io::pipe()?;
        ioctl_fionbio(&pipe, true)?;
        let kept = Arc::new(Mutex::new(Kept {
            pipe,
            ended: false,
            file,
            room: KEPT_BYTES.saturating_sub(usize::try_from(length).unwrap_or(usize::MAX)),
            last: VecDeque::new(),
            left_out: 0,
        }));
        let stop = Stop::new()?;
        let (shared, stopped) = (Arc::clone(&kept), stop.clone());
        let thread = threads::spawn("server's log", move || read_until(&shared, &stopped))
            .map_err(|error| io::Error::new(error.cause.kind(), error))?;
        let log = Self {
            kept,
            stop,
            thread: Some(thread),
        };
        Ok((log, writer))
    }

    /// The last bytes that were written, `most` of them at most.
    ///
    /// # Errors
    /// The file can't be read.
    pub(crate) fn last_bytes(&self, path: &Path, most: usize) -> io::Result<Vec<u8>> {
        let mut kept = lock(&self.kept);
        kept.drain();
        let mut bytes: Vec<u8> = kept.last.iter().copied().collect();
        if bytes.len() < most && kept.left_out == 0 {
            let mut all = std::fs::read(path)?;
            all.append(&mut bytes);
            bytes = all;
        }
        Ok(bytes.split_off(bytes.len().saturating_sub(most)))
    }
}

impl Drop for OutputLog {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
        let mut kept = lock(&self.kept);
        kept.drain();
        kept.write_last();
    }
}

/// Nothing in here is half done where a thread panics: bytes are taken over one by one.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_until(kept: &Mutex<Kept>, stop: &Stop) {
    // A second descriptor, so that nobody waits with the lock held.
    let Ok(pipe) = lock(kept).pipe.try_clone() else {
        return;
    };
    while !stop.requested() {
        let mut waiting = [
            PollFd::new(&pipe, PollFlags::IN),
            PollFd::from_borrowed_fd(stop.fd(), PollFlags::IN),
        ];
        // EINTR leads back here.
        let _ = poll(&mut waiting, None);
        let mut kept = lock(kept);
        kept.drain();
        if kept.ended {
            return;
        }
    }
}

impl Kept {
    /// Takes what is in the pipe now.
    fn drain(&mut self) {
        /// A pipe holds 64 KiB: whoever writes faster than this is read waits, and the next turn goes on.
        const TURN_BYTES: usize = 1 << 20;
        let mut piece = [0; 16 * 1024];
        let mut taken = 0;
        while !self.ended && taken < TURN_BYTES {
            match self.pipe.read(&mut piece) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    taken += n;
                    self.take(&piece[..n]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let (first, rest) = bytes.split_at(bytes.len().min(self.room));
        self.room -= first.len();
        // A log that can't be written (a full disk) is no reason to stop measuring; its end is kept all the same.
        if self.file.write_all(first).is_err() {
            self.room = 0;
        }
        self.last.extend(rest);
        let over = self.last.len().saturating_sub(KEPT_BYTES);
        self.last.drain(..over);
        self.left_out += over as u64;
    }

    fn write_last(&mut self) {
        let (one, two) = self.last.as_slices();
        let gap = match self.left_out {
            0 => String::new(),
            bytes => format!("\n[{bytes} bytes left out here]\n"),
        };
        // As above.
        let _ = self.file.write_all(&[gap.as_bytes(), one, two].concat());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn all_of_a_little_is_kept_in_order() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log");
        for part in ["one\n", "two\n"] {
            let (log, mut pipe) = OutputLog::start(&path).expect("a log");
            pipe.write_all(part.as_bytes()).expect("it is read");
            let last = log.last_bytes(&path, 3).expect("it can be read");
            assert_eq!(last, part.as_bytes()[1..]);
        }
        assert_eq!(fs::read(&path).expect("a log"), b"one\ntwo\n");
    }

    #[test]
    fn of_much_the_first_and_the_last_is_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log");
        let (log, mut pipe) = OutputLog::start(&path).expect("a log");
        let all: Vec<u8> = (0..5 * KEPT_BYTES / 8)
            .flat_map(|number| format!("{number:07}\n").into_bytes())
            .collect();
        pipe.write_all(&all).expect("it is read");
        drop(pipe);
        let end = log.last_bytes(&path, 100).expect("it can be read");
        assert_eq!(end, all[all.len() - 100..]);
        drop(log);
        let kept = fs::read(&path).expect("a log");
        assert!(kept.starts_with(&all[..KEPT_BYTES]));
        assert!(kept.ends_with(&all[4 * KEPT_BYTES..]));
        let said = String::from_utf8_lossy(&kept[KEPT_BYTES..kept.len() - KEPT_BYTES]);
        assert_eq!(
            said,
            format!("\n[{} bytes left out here]\n", 3 * KEPT_BYTES)
        );
    }

    #[test]
    fn whoever_keeps_the_pipe_does_not_keep_us() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (log, _pipe) = OutputLog::start(&folder.path().join("log")).expect("a log");
        // It returns although the other end is still open.
        drop(log);
    }
}
