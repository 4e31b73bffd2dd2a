//! What stops the servers when the bench itself dies? A second copy of this program that sits on a pipe: it is told
//! which process groups were started and stopped, and when the pipe closes, for whatever reason, it kills the rest.
//!
//! (The kernel's own means, `PR_SET_PDEATHSIG`, has to be set between fork and exec, which needs unsafe code, and is
//! forgotten by a child that changes its user.)

use std::{
    collections::HashSet,
    io::{self, BufRead, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::Mutex,
};

use rustix::process::{Pid, Signal, kill_process_group};

/// The word on the command line that makes a copy of this program the guard.
pub(crate) const SUBCOMMAND: &str = "guard";

/// The guard, seen from the bench. Dropping it ends it, and with it every group that it still knows.
#[derive(Debug)]
pub(crate) struct Guard {
    child: Child,
    pipe: Mutex<Option<ChildStdin>>,
}

impl Guard {
    /// Starts `program` (this very program) as a guard, in a process group of its own so that a terminal's Ctrl-C
    /// does not reach it.
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) fn start(program: &Path) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg(SUBCOMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let pipe = Mutex::new(child.stdin.take());
        Ok(Self { child, pipe })
    }

    /// A process group that has to end when the bench does.
    pub(crate) fn watch(&self, group: Pid) {
        self.tell('+', group);
    }

    /// A process group that has ended.
    pub(crate) fn forget(&self, group: Pid) {
        self.tell('-', group);
    }

    /// A guard that is gone can't be helped: the servers then end with the bench in the ordinary way only.
    fn tell(&self, sign: char, group: Pid) {
        if let Ok(mut pipe) = self.pipe.lock()
            && let Some(pipe) = pipe.as_mut()
        {
            let _ = writeln!(pipe, "{sign}{}", group.as_raw_nonzero());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Ok(mut pipe) = self.pipe.lock() {
            pipe.take();
        }
        let _ = self.child.wait();
    }
}

/// The guard's whole life: reads what it is told until the pipe closes, then kills the groups that are left.
pub(crate) fn stand(input: impl BufRead) {
    for group in left_over(input) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn left_over(input: impl BufRead) -> HashSet<Pid> {
    let mut groups = HashSet::new();
    for line in input.lines().map_while(Result::ok) {
        let Some((sign, number)) = line.split_at_checked(1) else {
            continue;
        };
        // Group 1 is init's: a server can't have it, so it is a mistake, and a fatal one.
        let group = number
            .parse()
            .ok()
            .filter(|&raw| 1 < raw)
            .and_then(Pid::from_raw);
        match (sign, group) {
            ("+", Some(group)) => groups.insert(group),
            ("-", Some(group)) => groups.remove(&group),
            _ => false,
        };
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Vec<i32> {
        let mut raw: Vec<i32> = left_over(text.as_bytes())
            .into_iter()
            .map(|pid| pid.as_raw_nonzero().get())
            .collect();
        raw.sort_unstable();
        raw
    }

    #[test]
    fn what_was_started_and_not_stopped_is_left_over() {
        assert_eq!(raw(""), [0; 0]);
        assert_eq!(raw("+10\n+20\n-10\n+30\n"), [20, 30]);
        assert_eq!(raw("+10\n-10\n"), [0; 0]);
    }

    #[test]
    fn nonsense_kills_nobody() {
        assert_eq!(raw("+1\n+0\n+-5\n+\n\n10\n+x\né5\n+99999999999\n"), [0; 0]);
    }
}
