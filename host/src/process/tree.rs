//! Who are a process's descendants? Read from the kernel's own lists of children where it keeps them,
//! else found by asking every process for its parent.

use std::{collections::HashMap, fs, io};

use super::{Stat, numbered_entries, threads};

/// The live descendants of `pid`, parents before their children; zombies count as live.
///
/// A process that begins or ends meanwhile may be missed. One whose parent has ended belongs to init
/// from then on, and is no longer found.
///
/// # Errors
/// There is no process `pid`, or `/proc` cannot be read.
pub fn descendants(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = children(pid)?;
    let mut next = 0;
    while let Some(&child) = found.get(next) {
        // A child that ended in the meantime has none.
        for grandchild in children(child).unwrap_or_default() {
            if grandchild != pid && !found.contains(&grandchild) {
                found.push(grandchild);
            }
        }
        next += 1;
    }
    Ok(found)
}

fn children(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for thread in threads(pid)? {
        match fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")) {
            Ok(text) => found.extend(
                text.split_ascii_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            ),
            // The thread has ended, or this kernel is built without CONFIG_PROC_CHILDREN.
            Err(_) if kernel_lists_children() => {}
            Err(_) => return children_by_parent(pid),
        }
    }
    Ok(found)
}

fn kernel_lists_children() -> bool {
    fs::exists("/proc/thread-self/children").unwrap_or(false)
}

/// Asks every process of the machine: the slow way, milliseconds on a busy one.
fn children_by_parent(pid: u32) -> io::Result<Vec<u32>> {
    let parent = |&child: &u32| Some((child, Stat::read(child).ok()?.parent));
    let parents: HashMap<u32, u32> = numbered_entries("/proc")?
        .iter()
        .filter_map(parent)
        .collect();
    let mut found: Vec<u32> = parents
        .into_iter()
        .filter(|&(_, parent)| parent == pid)
        .map(|(child, _)| child)
        .collect();
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Child, ChildStdout, Command, Stdio},
    };

    use super::*;

    /// A shell with two sleeping children, one of them a shell with a child of its own.
    struct Family {
        shell: Child,
        _stdout: BufReader<ChildStdout>,
    }

    impl Family {
        fn start() -> Family {
            // Each `echo` comes after the fork it speaks of, and `read` waits until stdin is closed.
            let script = "sh -c 'sleep 600 & echo one; wait' & sleep 600 & echo two; read line; kill $(jobs -p)";
            let mut shell = Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("there is a shell");
            let mut stdout = BufReader::new(shell.stdout.take().expect("it was piped"));
            for _ in 0..2 {
                assert!(
                    0 < stdout
                        .read_line(&mut String::new())
                        .expect("the shell speaks")
                );
            }
            Family {
                shell,
                _stdout: stdout,
            }
        }
    }

    impl Drop for Family {
        fn drop(&mut self) {
            // The grandchild first, while it can still be found.
            for pid in descendants(self.shell.id())
                .unwrap_or_default()
                .into_iter()
                .rev()
            {
                let pid = nix::unistd::Pid::from_raw(pid as i32);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            let _ = self.shell.kill();
            let _ = self.shell.wait();
        }
    }

    #[test]
    fn children_and_grandchildren_are_found_parents_first() {
        let family = Family::start();
        let shell = family.shell.id();
        let found = descendants(shell).unwrap();
        assert_eq!(found.len(), 3, "{found:?}");
        let parents: Vec<u32> = found
            .iter()
            .map(|&pid| Stat::read(pid).unwrap().parent)
            .collect();
        assert_eq!(parents[..2], [shell, shell]);
        assert!(found[..2].contains(&parents[2]));
        assert!(descendants(std::process::id()).unwrap().contains(&found[2]));
    }

    #[test]
    fn both_ways_of_finding_children_agree() {
        let family = Family::start();
        let shell = family.shell.id();
        let mut listed = children(shell).unwrap();
        listed.sort_unstable();
        assert_eq!(children_by_parent(shell).unwrap(), listed);
        assert_eq!(listed.len(), 2);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert_eq!(
            descendants(u32::MAX).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
