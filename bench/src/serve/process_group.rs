//! A program started in a process group of its own, confined to some cpus, watched by its pidfd and stopped as a
//! group: SIGTERM, then SIGKILL. Nothing of it is left behind, unless it leaves its group on purpose.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use echometer_host::{
    cpus::CpuList,
    pinning::confine_current_thread,
    priority::{Priority, RT_TIME, SIGNAL_OF_RT_TIME, limit_rt_time, raise_current_thread},
    threads,
};

use crate::serve::{guard::Guard, output_log::OutputLog};

/// How long a program may take to end after SIGTERM, before SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A running program and whatever it starts and keeps in its group.
#[derive(Debug)]
pub(crate) struct ProcessGroup {
    child: Child,
    /// The leader's process id is the group's id too.
    leader: Pid,
    /// Readable once the leader has ended, without reaping it: while it is a zombie its number can't go to another.
    pidfd: OwnedFd,
    /// Where that goes which it writes to stderr.
    log: PathBuf,
    /// Who brings it there.
    output: OutputLog,
    status: Option<ExitStatus>,
    guard: Option<Arc<Guard>>,
    priority: Priority,
}

/// Where and how a program runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// On these cpus only.
    pub cpus: &'a CpuList,
    /// How far it is raised, with all that it starts.
    pub priority: Priority,
}

/// Where a program's stdout goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// To us: the first line says where it listens.
    Piped,
    /// To the same file as its stderr.
    Logged,
}

impl ProcessGroup {
    /// Starts `words` (the program, then its arguments) at its place, with nothing on stdin and with stderr in `log`.
    ///
    /// # Errors
    /// As [`Command::spawn`]; the cpus are not ours, or the kernel refuses them or the priority; `log` can't be written.
    pub(crate) fn spawn(
        words: &[String],
        place: Place<'_>,
        log: &Path,
        output: Output,
        guard: Option<Arc<Guard>>,
    ) -> io::Result<(Self, Option<ChildStdout>)> {
        // Appended, for a block may start a server more than once.
        let (output_log, stderr) = OutputLog::start(log)?;
        let stdout = match output {
            Output::Piped => Stdio::piped(),
            Output::Logged => Stdio::from(stderr.try_clone()?),
        };
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0);
        let mut child = spawn_at(&mut command, place)?;
        let leader = Pid::from_child(&child);
        if let Some(guard) = &guard {
            guard.watch(leader);
        }
        let stdout = child.stdout.take();
        // It runs already, but for less than it takes to begin: programs are loaded in milliseconds.
        let limited = match place.priority {
            Priority::Rt => limit_rt_time(child.id()),
            Priority::None | Priority::Nice => Ok(()),
        };
        let pidfd = match limited.and_then(|()| Ok(pidfd_open(leader, PidfdFlags::empty())?)) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                // Unwatched or unlimited it must not stay.
                let _ = kill_process_group(leader, Signal::KILL);
                let _ = child.wait();
                if let Some(guard) = &guard {
                    guard.forget(leader);
                }
                return Err(error);
            }
        };
        Ok((
            Self {
                child,
                leader,
                pidfd,
                log: log.to_owned(),
                output: output_log,
                status: None,
                guard,
                priority: place.priority,
            },
            stdout,
        ))
    }

    /// The process id of the program.
    #[must_use]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the program ended ("exited with status 1"), or `None` while it lives. Waits up to `patience` for its end.
    /// What it has started ends with it.
    pub(crate) fn ended(&mut self, patience: Duration) -> Option<String> {
        if self.status.is_none() && readable(self.pidfd.as_fd(), patience) {
            self.reap();
        }
        self.status.map(|status| describe(status, self.priority))
    }

    /// Ends the whole group, at the latest after two seconds and a SIGKILL. May be called again.
    pub(crate) fn stop(&mut self) {
        if self.status.is_none() {
            let _ = kill_process_group(self.leader, Signal::TERM);
            readable(self.pidfd.as_fd(), STOP_TIMEOUT);
            self.reap();
        }
    }

    /// The last lines that it wrote, on one line; or that it wrote nothing.
    #[must_use]
    pub(crate) fn last_words(&self) -> String {
        last_lines(&self.output, &self.log).map_or_else(
            |error| format!("what it wrote to stderr can't be read: {error}"),
            |lines| match lines.is_empty() {
                true => "it wrote nothing to stderr".to_owned(),
                false => format!("last lines of its stderr: {}", lines.join(" | ")),
            },
        )
    }

    /// Kills what is left of the group while the leader, dead or alive, still holds the group's number; then reaps it.
    fn reap(&mut self) {
        let _ = kill_process_group(self.leader, Signal::KILL);
        self.status = self.child.wait().ok();
        if let Some(guard) = &self.guard {
            guard.forget(self.leader);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Spawns from a thread that is confined and raised: a child inherits mask and priority of the thread that forks it, so
/// that not one of its instructions runs elsewhere or otherwise.
fn spawn_at(command: &mut Command, place: Place<'_>) -> io::Result<Child> {
    let spawn = || -> io::Result<Child> {
        let cpus = place.cpus;
        confine_current_thread(cpus)
            .map_err(|error| io::Error::other(format!("cpus {cpus}: {error}")))?;
        raise_current_thread(place.priority).map_err(io::Error::other)?;
        command.spawn()
    };
    thread::scope(|scope| {
        let spawning = threads::spawn_scoped(scope, "spawn", spawn)
            .map_err(|error| io::Error::new(error.cause.kind(), error))?;
        spawning.join().expect("spawning a process does not panic")
    })
}

/// Waits until `fd` is readable or its other end is gone, and says whether it is.
pub(crate) fn readable(fd: BorrowedFd<'_>, patience: Duration) -> bool {
    let patience = Timespec::try_from(patience).ok();
    // An interrupted wait (EINTR) says no; every caller asks again or goes on to the next step anyway.
    poll(
        &mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)],
        patience.as_ref(),
    )
    .is_ok_and(|ready| 0 < ready)
}

fn describe(status: ExitStatus, priority: Priority) -> String {
    match (status.code(), status.signal()) {
        (None, Some(SIGNAL_OF_RT_TIME)) if priority == Priority::Rt => format!(
            "was ended by the kernel (SIGXCPU): at SCHED_RR it ran for {} s without sleeping (RLIMIT_RTTIME); such a \
             server is measured with --priority none",
            RT_TIME.as_secs(),
        ),
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => format!("ended: {status}"),
    }
}

/// The last lines that were written and are not empty, shortened: enough to see what went wrong.
fn last_lines(output: &OutputLog, path: &Path) -> io::Result<Vec<String>> {
    const BYTES: usize = 4096;
    const LINES: usize = 5;
    const CHARS: usize = 200;
    let bytes = output.last_bytes(path, BYTES)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    Ok(last
        .iter()
        .map(|line| {
            line.chars()
                .filter(|c| !c.is_control())
                .take(CHARS)
                .collect()
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        time::Instant,
    };

    use rustix::process::test_kill_process;

    use super::*;

    fn at(cpus: &CpuList) -> Place<'_> {
        Place {
            cpus,
            priority: Priority::None,
        }
    }

    fn spawn(
        script: &str,
        output: Output,
    ) -> (ProcessGroup, Option<ChildStdout>, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let words = ["sh", "-c", script].map(str::to_owned);
        let cpus = echometer_host::cpus::allowed().expect("a mask");
        let (group, stdout) =
            ProcessGroup::spawn(&words, at(&cpus), &folder.path().join("log"), output, None)
                .expect("sh starts");
        (group, stdout, folder)
    }

    fn first_line(stdout: Option<ChildStdout>) -> String {
        let mut line = String::new();
        BufReader::new(stdout.expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        line.trim().to_owned()
    }

    #[test]
    fn an_end_is_described_with_the_last_words() {
        let (mut group, _, _folder) = spawn("echo one; echo two >&2; exit 3", Output::Logged);
        assert_eq!(
            group.ended(Duration::from_secs(30)),
            Some("exited with status 3".to_owned())
        );
        assert_eq!(group.last_words(), "last lines of its stderr: one | two");
        assert_eq!(
            group.ended(Duration::ZERO),
            Some("exited with status 3".to_owned())
        );
        group.stop();
    }

    #[test]
    fn a_killed_one_names_the_signal() {
        let (mut group, _, _folder) = spawn("kill -s KILL $$", Output::Logged);
        assert_eq!(
            group.ended(Duration::from_secs(30)),
            Some("was killed by signal 9".to_owned())
        );
        assert_eq!(group.last_words(), "it wrote nothing to stderr");
    }

    #[test]
    fn the_group_ends_as_a_whole_even_where_it_ignores_sigterm() {
        let (mut group, stdout, _folder) = spawn(
            "trap '' TERM; sleep 600 & echo $!; wait; wait",
            Output::Piped,
        );
        let descendant: i32 = first_line(stdout).parse().expect("a process id");
        assert_eq!(group.ended(Duration::ZERO), None);
        let started = Instant::now();
        group.stop();
        assert!(started.elapsed() < Duration::from_secs(30));
        assert_eq!(
            group.ended(Duration::ZERO),
            Some("was killed by signal 9".to_owned())
        );
        wait_until_gone(descendant);
    }

    #[test]
    fn descendants_end_with_their_leader() {
        let (mut group, stdout, _folder) = spawn("sleep 600 & echo $!; exit 0", Output::Piped);
        let descendant: i32 = first_line(stdout).parse().expect("a process id");
        assert_eq!(
            group.ended(Duration::from_secs(30)),
            Some("exited with status 0".to_owned())
        );
        wait_until_gone(descendant);
    }

    /// An orphan is reaped by whoever adopts it, which takes a moment.
    fn wait_until_gone(pid: i32) {
        let pid = Pid::from_raw(pid).expect("not 0");
        let zombie = || {
            std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).is_ok_and(
                |stat| {
                    stat.rsplit(')')
                        .next()
                        .is_some_and(|rest| rest.trim_start().starts_with('Z'))
                },
            )
        };
        let limit = Instant::now() + Duration::from_secs(30);
        while test_kill_process(pid).is_ok() && !zombie() {
            assert!(Instant::now() < limit, "{pid:?} is still there");
            thread::yield_now();
        }
    }

    #[test]
    fn it_runs_where_it_was_told_to_and_we_stay_where_we_were() {
        let before = echometer_host::cpus::allowed_to_this_thread().expect("a mask");
        let last: CpuList = before.iter().last().into_iter().collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let words = ["sh", "-c", "grep Cpus_allowed_list /proc/self/status"].map(str::to_owned);
        let (_group, stdout) = ProcessGroup::spawn(
            &words,
            at(&last),
            &folder.path().join("log"),
            Output::Piped,
            None,
        )
        .expect("sh starts");
        assert_eq!(first_line(stdout), format!("Cpus_allowed_list:\t{last}"));
        assert_eq!(
            echometer_host::cpus::allowed_to_this_thread().expect("a mask"),
            before
        );
    }

    #[test]
    fn what_is_no_program_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cpus = echometer_host::cpus::allowed().expect("a mask");
        let log = folder.path().join("log");
        let missing = ["/no/such/program".to_owned()];
        let error = ProcessGroup::spawn(&missing, at(&cpus), &log, Output::Logged, None)
            .expect_err("there is none");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let nowhere: CpuList = [8191].into_iter().collect();
        let words = ["true".to_owned()];
        let error = ProcessGroup::spawn(&words, at(&nowhere), &log, Output::Logged, None)
            .expect_err("no such cpu");
        assert!(error.to_string().contains("cpu 8191"), "{error}");
    }

    #[test]
    fn one_that_never_sleeps_at_rt_is_ended_and_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cpus = echometer_host::cpus::allowed().expect("a mask");
        let place = Place {
            cpus: &cpus,
            priority: Priority::Rt,
        };
        let words = ["sh", "-c", "while :; do :; done"].map(str::to_owned);
        let log = folder.path().join("log");
        match ProcessGroup::spawn(&words, place, &log, Output::Logged, None) {
            Ok((mut group, _)) => {
                let ended = group.ended(Duration::from_secs(30)).expect("it has ended");
                assert!(
                    ended.contains("SIGXCPU")
                        && ended.contains("without sleeping")
                        && ended.contains("--priority none"),
                    "{ended}"
                );
            }
            // Who may not raise it is told which right is missing.
            Err(error) => assert!(error.to_string().contains("CAP_SYS_NICE"), "{error}"),
        }
    }
}
