//! How much CPU time has a server used? Its process clock to the nanosecond, and one for it and all of
//! its descendants that never goes back when one of them ends.

use std::{collections::BTreeMap, io, time::Duration};

use nix::{
    time::{ClockId, clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

use super::{Stat, descendants};

/// Highest number that Linux gives a process (`PID_MAX_LIMIT`, proc_sys_kernel(5)).
const PID_MAX: i32 = 1 << 22;

/// CPU time of `pid` and its descendants, in nanoseconds: [`TreeClock::read_ns`] of a new clock.
///
/// For differences keep a [`TreeClock`]: only it remembers who has ended between two readings.
///
/// # Errors
/// There is no such process, or its `/proc` cannot be read.
pub fn tree_cpu_ns(pid: u32) -> io::Result<u64> {
    Ok(TreeClock::new(pid)?.read_ns())
}

/// The CPU clock of one process: user and system time of all its threads, those that have ended
/// included, to the nanosecond (`clock_getcpuclockid(3)`).
///
/// Its children are not in it, neither living nor dead; see [`TreeClock`] for those.
#[derive(Clone, Copy, Debug)]
pub struct CpuClock(ClockId);

impl CpuClock {
    /// The clock of process `pid`. The number must not be given to another process while this is used:
    /// so for a child that was not waited for, even when it has ended.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: u32) -> io::Result<CpuClock> {
        // 0 would mean the caller. Larger numbers than Linux gives out lose their upper bits on their way
        // into a clock's number, and would name somebody else's clock.
        let pid = i32::try_from(pid)
            .ok()
            .filter(|pid| (1..=PID_MAX).contains(pid))
            .ok_or(nix::Error::ESRCH)?;
        Ok(CpuClock(clock_getcpuclockid(Pid::from_raw(pid))?))
    }

    /// The clock's time.
    ///
    /// # Errors
    /// The process is gone (ended and waited for).
    pub fn read(&self) -> io::Result<Duration> {
        Ok(clock_gettime(self.0)?.into())
    }
}

/// The CPU time of a process and its descendants, which never goes back.
///
/// A process's own clock does not hold its children. When a child ends and is waited for, its clock is
/// gone and its time moves into its parent's `cutime`, which `/proc` shows in ticks of 10 ms only; a
/// child that is never waited for (SIGCHLD ignored), or whose parent ends first, goes without that
/// trace. So each process seen is remembered with its last reading, and whichever is larger holds: what
/// the parent says of the children it waited for, or what was last seen of them.
///
/// Exact to the nanosecond while no descendant ends; else low by what the ended ones used since the last
/// reading, and by two ticks at most where they were waited for. Costs some 20 us per process and reading.
#[derive(Debug)]
pub struct TreeClock {
    root: u32,
    members: BTreeMap<u32, Member>,
    /// Time of those who ended with nobody left in the tree to count it.
    orphaned_ns: u64,
}

/// A process as last seen alive.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// Tells it from a later process of the same number.
    started: u64,
    parent: u32,
    /// Its own clock.
    own_ns: u64,
    /// What those who ended below it had used, by all that is known of them.
    reaped_ns: u64,
    /// The same as its `cutime` and `cstime` say.
    reaped_by_kernel_ns: u64,
}

impl Member {
    fn read(pid: u32) -> io::Result<Member> {
        let stat = Stat::read(pid)?;
        let own_ns = u64::try_from(CpuClock::of(pid)?.read()?.as_nanos()).unwrap_or(u64::MAX);
        let Stat {
            parent,
            started,
            reaped_ns,
        } = stat;
        Ok(Member {
            started,
            parent,
            own_ns,
            reaped_ns,
            reaped_by_kernel_ns: reaped_ns,
        })
    }

    fn total_ns(&self) -> u64 {
        self.own_ns + self.reaped_ns
    }
}

impl TreeClock {
    /// A clock for `root` and its descendants, those of now and those to come.
    ///
    /// # Errors
    /// There is no such process, or its `/proc` cannot be read.
    pub fn new(root: u32) -> io::Result<TreeClock> {
        let member = Member::read(root)?;
        Ok(TreeClock {
            root,
            members: BTreeMap::from([(root, member)]),
            orphaned_ns: 0,
        })
    }

    /// CPU time used up to now, in nanoseconds, counted from the start of the root process. Includes
    /// descendants that ended before this clock was made, if they were waited for.
    ///
    /// When all have ended, the time they had used when last seen.
    pub fn read_ns(&mut self) -> u64 {
        // Parents are read before their children: a child seen alive after its parent was read cannot be
        // in what the parent said, so nothing is counted twice.
        let mut order = vec![self.root];
        order.extend(descendants(self.root).unwrap_or_default());
        order.extend(
            self.members
                .keys()
                .copied()
                .filter(|pid| !order.contains(pid))
                .collect::<Vec<_>>(),
        );

        let mut ended = Vec::new();
        for pid in order {
            let seen = Member::read(pid).ok();
            let Some(known) = self.members.get_mut(&pid) else {
                self.members.extend(seen.map(|seen| (pid, seen)));
                continue;
            };
            match seen.filter(|seen| seen.started == known.started) {
                // What it inherited is settled below, once all who ended are known.
                Some(seen) => {
                    *known = Member {
                        reaped_ns: known.reaped_ns,
                        ..seen
                    }
                }
                None => ended.extend(self.members.remove_entry(&pid)),
            }
        }
        self.bequeath(ended);
        for member in self.members.values_mut() {
            member.reaped_ns = member.reaped_ns.max(member.reaped_by_kernel_ns);
        }
        self.orphaned_ns + self.members.values().map(Member::total_ns).sum::<u64>()
    }

    /// Hands what the ended had used to whoever stood above them.
    fn bequeath(&mut self, mut ended: Vec<(u32, Member)>) {
        // Children first: what they leave must pass through a parent that has ended too.
        let childless = |ended: &[(u32, Member)]| {
            ended
                .iter()
                .position(|(pid, _)| ended.iter().all(|(_, heir)| heir.parent != *pid))
        };
        while let Some(index) = childless(&ended) {
            let (_, gone) = ended.swap_remove(index);
            let above = ended
                .iter_mut()
                .find(|(pid, _)| *pid == gone.parent)
                .map(|(_, member)| member);
            match above.or_else(|| self.members.get_mut(&gone.parent)) {
                Some(parent) => parent.reaped_ns += gone.total_ns(),
                None => self.orphaned_ns += gone.total_ns(),
            }
        }
        // Parents of each other: numbers were given anew in between. Nothing is lost all the same.
        self.orphaned_ns += ended.iter().map(|(_, gone)| gone.total_ns()).sum::<u64>();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        process::{Child, ChildStdin, ChildStdout, Command, Stdio},
        time::Instant,
    };

    use super::*;
    use crate::clock;

    const LIMIT: Duration = Duration::from_secs(60);

    fn burn(cpu_ns: u64) {
        let end = clock::thread_cpu_ns() + cpu_ns;
        while clock::thread_cpu_ns() < end {}
    }

    /// A shell that takes a command a line and speaks when it is done.
    struct Shell {
        child: Child,
        stdin: ChildStdin,
        stdout: BufReader<ChildStdout>,
    }

    impl Shell {
        fn start(prelude: &str) -> Shell {
            let script = format!("{prelude}\nwhile read line; do eval \"$line\"; echo done; done");
            let mut child = Command::new("sh")
                .args(["-c", &script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("there is a shell");
            let stdin = child.stdin.take().expect("it was piped");
            let stdout = BufReader::new(child.stdout.take().expect("it was piped"));
            Shell {
                child,
                stdin,
                stdout,
            }
        }

        /// Runs `command` and waits until it has.
        fn run(&mut self, command: &str) {
            writeln!(self.stdin, "{command}").expect("the shell listens");
            let mut line = String::new();
            while line.trim() != "done" {
                line.clear();
                assert!(
                    0 < self.stdout.read_line(&mut line).expect("the shell speaks"),
                    "the shell ended early"
                );
            }
        }

        fn pid(&self) -> u32 {
            self.child.id()
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// A shell's way of using CPU: some 150 ms of it, less on a fast machine.
    const BUSY: &str = "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done";

    #[test]
    fn a_process_clock_holds_threads_that_have_ended() {
        let clock = CpuClock::of(std::process::id()).unwrap();
        let before = clock.read().unwrap();
        std::thread::spawn(|| burn(50_000_000))
            .join()
            .expect("the thread holds");
        assert!(Duration::from_millis(50) <= clock.read().unwrap() - before);
    }

    #[test]
    fn no_such_process_is_an_error() {
        for pid in [0, PID_MAX as u32, 1 << 23, i32::MAX as u32, u32::MAX] {
            assert!(CpuClock::of(pid).is_err());
            assert!(tree_cpu_ns(pid).is_err());
        }
    }

    #[test]
    fn a_zombie_can_still_be_read() {
        let mut shell = Shell::start("");
        shell.run(BUSY);
        let clock = CpuClock::of(shell.pid()).unwrap();
        let mut tree = TreeClock::new(shell.pid()).unwrap();
        let before = (clock.read().unwrap(), tree.read_ns());
        shell.child.kill().unwrap();
        // Its stdout ends when it does; it is waited for only later.
        while 0 < shell.stdout.read_line(&mut String::new()).unwrap() {}
        assert!(before.0 <= clock.read().unwrap());
        assert!(before.1 <= tree.read_ns());
        shell.child.wait().unwrap();
        assert!(clock.read().is_err());
        assert!(
            before.1 <= tree.read_ns(),
            "an ended tree keeps its last reading"
        );
    }

    #[test]
    fn a_living_child_is_counted() {
        let mut shell = Shell::start("");
        shell.run(&format!(
            "({BUSY}; echo; exec sleep 600) & read first < /dev/null; child=$!"
        ));
        let deadline = Instant::now() + LIMIT;
        let own = CpuClock::of(shell.pid()).unwrap();
        let mut tree = TreeClock::new(shell.pid()).unwrap();
        loop {
            let own_ns = own.read().unwrap().as_nanos() as u64;
            if own_ns + 20_000_000 < tree.read_ns() {
                break;
            }
            assert!(Instant::now() < deadline, "the child's work never showed");
        }
        shell.run("kill $child");
    }

    #[test]
    fn a_child_that_was_waited_for_is_not_forgotten() {
        let mut shell = Shell::start("");
        let before = tree_cpu_ns(shell.pid()).unwrap();
        // Nobody looked while it lived: only the parent knows.
        shell.run(&format!("({BUSY})"));
        let own_ns = CpuClock::of(shell.pid())
            .unwrap()
            .read()
            .unwrap()
            .as_nanos() as u64;
        let after = tree_cpu_ns(shell.pid()).unwrap();
        assert!(
            own_ns + 20_000_000 < after,
            "{own_ns} of {after} ns are the shell's own"
        );
        assert!(before + 20_000_000 < after);
    }

    #[test]
    fn it_never_goes_back_while_children_come_and_go() {
        // With SIGCHLD ignored children vanish without a word to their parent's `cutime`.
        for prelude in ["", "trap '' CHLD"] {
            let mut shell = Shell::start(prelude);
            let mut tree = TreeClock::new(shell.pid()).unwrap();
            // Grandchildren whose parents end before them, too.
            let work = format!("for j in 1 2 3; do ({BUSY}) & (({BUSY}) &) ; done; {BUSY}; wait");
            let runner = std::thread::spawn(move || {
                shell.run(&work);
                shell
            });
            let (mut last, deadline) = (0, Instant::now() + LIMIT);
            while !runner.is_finished() {
                let now = tree.read_ns();
                assert!(last <= now, "{prelude}: {last} then {now}");
                last = now;
                assert!(Instant::now() < deadline, "the shell never ended its work");
            }
            drop(runner.join().expect("the shell did its work"));
            // Four shells at work that somebody is left to count.
            assert!(50_000_000 < last, "{prelude}: {last} ns");
        }
    }
}
