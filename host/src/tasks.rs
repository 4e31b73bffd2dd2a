//! Who runs on which cpu? Every task of the machine with its CPU time and the cpu that it ran on last. The difference of
//! two looks says who ran meanwhile; who began and ended between them is not seen.

use std::{collections::BTreeMap, fs, io};

use crate::process::numbered_entries;

/// A task: a thread of a process, or of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The process that it belongs to.
    pub pid: u32,
    /// The kernel's name for it, up to 15 bytes (kernel threads: longer).
    pub name: String,
    /// The cpu that it ran on last.
    pub cpu: u32,
    /// CPU time since it began, in ns.
    pub ran_ns: u64,
}

/// All tasks, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tasks(BTreeMap<u32, Task>);

/// What a task did between two looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The task, as it was at the later look.
    pub task: Task,
    /// CPU time between the looks, in ns.
    pub ran_ns: u64,
    /// Whether it was seen on another cpu at the earlier look: then it is unknown how much of its time was here.
    pub moved: bool,
}

impl Tasks {
    /// All tasks that can be seen now. Root is not needed: `stat` and `schedstat` are open to everybody, unless procfs
    /// is mounted with `hidepid`.
    ///
    /// # Errors
    /// There is no procfs.
    pub fn now() -> io::Result<Self> {
        let mut tasks = BTreeMap::new();
        for pid in numbered_entries("/proc")? {
            // It may have ended since.
            let numbers = numbered_entries(&format!("/proc/{pid}/task")).unwrap_or_default();
            for number in numbers {
                tasks.extend(read(pid, number).map(|task| (number, task)));
            }
        }
        Ok(Self(tasks))
    }

    /// Who ran on `cpu` since `earlier`, the most first. `spare` are processes that are left out: our own.
    #[must_use]
    pub fn ran_on(&self, cpu: u32, earlier: &Tasks, spare: &[u32]) -> Vec<Ran> {
        let here = self
            .0
            .iter()
            .filter(|(_, task)| task.cpu == cpu && !spare.contains(&task.pid));
        let mut ran: Vec<Ran> = here
            .filter_map(|(number, task)| {
                let before = earlier
                    .0
                    .get(number)
                    .filter(|before| before.pid == task.pid);
                let ran_ns = task
                    .ran_ns
                    .saturating_sub(before.map_or(0, |before| before.ran_ns));
                (0 < ran_ns).then(|| Ran {
                    task: task.clone(),
                    ran_ns,
                    moved: before.is_some_and(|before| before.cpu != cpu),
                })
            })
            .collect();
        ran.sort_by_key(|ran| std::cmp::Reverse(ran.ran_ns));
        ran
    }
}

fn read(pid: u32, number: u32) -> Option<Task> {
    let folder = format!("/proc/{pid}/task/{number}");
    let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
    let (name, cpu) = name_and_cpu(&stat)?;
    let account = fs::read_to_string(format!("{folder}/schedstat")).ok()?;
    Some(Task {
        pid,
        name,
        cpu,
        ran_ns: account.split_ascii_whitespace().next()?.parse().ok()?,
    })
}

/// The second and the 39th field of proc_pid_stat(5). A name may hold blanks and brackets.
fn name_and_cpu(stat: &str) -> Option<(String, u32)> {
    let (start, end) = (stat.find('(')?, stat.rfind(')')?);
    let name = stat.get(start + 1..end)?.to_owned();
    let cpu = stat.get(end + 1..)?.split_ascii_whitespace().nth(39 - 3)?;
    Some((name, cpu.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_anything() {
        let stat = "12 (a) (b c) S 1 12 12 0 -1 4194304 1 0 0 0 5 6 0 0 20 0 1 0 7 8 9 18446744073709551615 1 1 1 1 1 0 0 0 \
                    0 0 0 0 17 3 0 0 0 0 0";
        assert_eq!(name_and_cpu(stat), Some(("a) (b c".to_owned(), 3)));
        assert_eq!(name_and_cpu("12 (a"), None);
    }

    #[test]
    fn who_ran_here_stands_first() {
        let task = |pid, cpu, ran_ns| Task {
            pid,
            name: format!("t{pid}"),
            cpu,
            ran_ns,
        };
        let all = |tasks: &[(u32, Task)]| Tasks(tasks.iter().cloned().collect());
        let before = all(&[
            (1, task(1, 0, 50)),
            (2, task(2, 0, 10)),
            (3, task(3, 1, 0)),
            (4, task(4, 0, 7)),
        ]);
        let after = all(&[
            (1, task(1, 0, 60)),
            (2, task(2, 0, 90)),
            (3, task(3, 0, 20)),
            (4, task(4, 0, 7)),
            (5, task(5, 0, 5)),
            (6, task(6, 1, 99)),
        ]);
        let ran = after.ran_on(0, &before, &[5]);
        let seen: Vec<_> = ran
            .iter()
            .map(|ran| (ran.task.pid, ran.ran_ns, ran.moved))
            .collect();
        assert_eq!(seen, [(2, 80, false), (3, 20, true), (1, 10, false)]);
    }

    #[test]
    fn we_are_among_them() {
        let tasks = Tasks::now().expect("procfs");
        let ours = std::process::id();
        assert!(
            tasks
                .0
                .values()
                .any(|task| task.pid == ours && 0 < task.ran_ns)
        );
    }
}
