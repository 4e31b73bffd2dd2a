//! What else does a process use? Context switches and memory, of it and its descendants, and the time
//! that threads stood ready while others had the cpu.

use std::{collections::BTreeMap, fs, io};

use super::{descendants, invalid, threads};

/// What a process and its living descendants have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Times that a thread gave up its cpu to wait: one for each sleep.
    pub voluntary_switches: u64,
    /// Times that a thread was taken off its cpu.
    pub involuntary_switches: u64,
    /// Memory in RAM, in bytes. Pages shared between processes are counted in each of them.
    pub rss_bytes: u64,
    /// The anonymous part of it (heap and stacks, not program files), in bytes.
    pub rss_anon_bytes: u64,
}

impl Usage {
    /// Context switches of both kinds.
    #[must_use]
    pub fn switches(&self) -> u64 {
        self.voluntary_switches + self.involuntary_switches
    }
}

/// Reads the usage of `pid` and its descendants: all threads and processes that live now.
///
/// The kernel shows the switches of living threads only, so they go back when a thread ends; take
/// differences over a stretch in which none does, and subtract with saturation.
///
/// # Errors
/// There is no such process, or `/proc` does not look as it should.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let mut total = usage_of_one(pid)?;
    for child in descendants(pid)? {
        // It may have ended since.
        let Ok(usage) = usage_of_one(child) else {
            continue;
        };
        total.voluntary_switches += usage.voluntary_switches;
        total.involuntary_switches += usage.involuntary_switches;
        total.rss_bytes += usage.rss_bytes;
        total.rss_anon_bytes += usage.rss_anon_bytes;
    }
    Ok(total)
}

/// How long the calling thread has stood ready to run without a cpu, in nanoseconds since it began.
///
/// # Errors
/// The kernel keeps no such account (built without `CONFIG_SCHED_INFO`, or a sandbox hides it).
pub fn thread_run_delay_ns() -> io::Result<u64> {
    run_delay_ns("/proc/thread-self/schedstat")
}

/// The sum of [`thread_run_delay_ns`] over the living threads of process `pid`. It goes back when a
/// thread ends, as [`usage`] does.
///
/// # Errors
/// There is no such process, or the kernel keeps no such account.
pub fn process_run_delay_ns(pid: u32) -> io::Result<u64> {
    // Settles whether there is such an account at all.
    run_delay_ns(&format!("/proc/{pid}/schedstat"))?;
    let delay = |thread| run_delay_ns(&format!("/proc/{pid}/task/{thread}/schedstat"));
    // A thread that has ended meanwhile is left out.
    Ok(threads(pid)?
        .into_iter()
        .filter_map(|thread| delay(thread).ok())
        .sum())
}

/// The CPU time of each living thread of process `pid` and its descendants, in nanoseconds since it began, by the
/// thread's number. Empty where there is no such process, or no such account.
#[must_use]
pub fn thread_cpu_ns(pid: u32) -> BTreeMap<u32, u64> {
    let mut processes = descendants(pid).unwrap_or_default();
    processes.push(pid);
    let of_process = |process: u32| {
        let threads = threads(process).unwrap_or_default().into_iter();
        threads.filter_map(move |thread| {
            let text =
                fs::read_to_string(format!("/proc/{process}/task/{thread}/schedstat")).ok()?;
            let ran_ns = text.split_ascii_whitespace().next()?.parse().ok()?;
            Some((thread, ran_ns))
        })
    };
    processes.into_iter().flat_map(of_process).collect()
}

/// How often the scheduler has moved threads of process `pid` and its descendants to another cpu. Only threads whose
/// name begins with `threads` count (an empty text: all). It goes back when a thread ends, as [`usage`] does.
///
/// # Errors
/// There is no such process, or the kernel keeps no such account (`/proc/PID/sched` needs `CONFIG_SCHED_DEBUG`).
pub fn migrations(pid: u32, threads: &str) -> io::Result<u64> {
    let mut total = migrations_of_one(pid, threads)?;
    for child in descendants(pid)? {
        // It may have ended since.
        total += migrations_of_one(child, threads).unwrap_or(0);
    }
    Ok(total)
}

fn migrations_of_one(pid: u32, wanted: &str) -> io::Result<u64> {
    // Settles whether there is such an account at all.
    let file = format!("/proc/{pid}/sched");
    if migrations_in(&fs::read_to_string(&file)?).is_none() {
        return Err(invalid(&file));
    }
    // A thread that has ended meanwhile is left out.
    let of_thread = |thread: u32| {
        let folder = format!("/proc/{pid}/task/{thread}");
        let name = fs::read_to_string(format!("{folder}/comm")).ok()?;
        let text = fs::read_to_string(format!("{folder}/sched")).ok()?;
        name.starts_with(wanted).then(|| migrations_in(&text))?
    };
    Ok(threads(pid)?.into_iter().filter_map(of_thread).sum())
}

/// The line `se.nr_migrations : 3` of a `sched` file.
fn migrations_in(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.starts_with("se.nr_migrations"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}

/// The second of three numbers: time on a cpu, time waiting for one, times run (Documentation/scheduler/
/// sched-stats.rst).
fn run_delay_ns(file: &str) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    text.split_ascii_whitespace()
        .nth(1)
        .and_then(|delay| delay.parse().ok())
        .ok_or_else(|| invalid(file))
}

fn usage_of_one(pid: u32) -> io::Result<Usage> {
    let file = format!("/proc/{pid}/status");
    let status = Status::read(&file)?;
    // The process's own file speaks of its first thread only, as far as switches go.
    let (mut voluntary_switches, mut involuntary_switches) = (0, 0);
    for thread in threads(pid)? {
        let Ok(status) = Status::read(&format!("/proc/{pid}/task/{thread}/status")) else {
            continue;
        };
        voluntary_switches += status.number("voluntary_ctxt_switches").unwrap_or(0);
        involuntary_switches += status.number("nonvoluntary_ctxt_switches").unwrap_or(0);
    }
    // A zombie has no memory, and no line for it.
    let kibibytes = |key| status.number(key).unwrap_or(0).saturating_mul(1_024);
    Ok(Usage {
        voluntary_switches,
        involuntary_switches,
        rss_bytes: kibibytes("VmRSS"),
        rss_anon_bytes: kibibytes("RssAnon"),
    })
}

/// The lines `Key: value` of a status file.
struct Status(BTreeMap<String, String>);

impl Status {
    fn read(file: &str) -> io::Result<Status> {
        Ok(Status::parse(&String::from_utf8_lossy(&fs::read(file)?)))
    }

    fn parse(text: &str) -> Status {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        Status(
            lines
                .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
                .collect(),
        )
    }

    /// The number at the start of a value; `512 kB` is 512.
    fn number(&self, key: &str) -> Option<u64> {
        self.0
            .get(key)?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        process::{Command, Stdio},
        sync::mpsc,
        time::{Duration, Instant},
    };

    use proptest::prelude::*;

    use super::*;
    use crate::{clock, cpus, pinning};

    #[test]
    fn each_sleep_is_a_voluntary_switch() {
        let mut cat = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut to, mut from) = (cat.stdin.take().unwrap(), cat.stdout.take().unwrap());
        let mut talk = |times: u64| {
            for _ in 0..times {
                to.write_all(b"x").unwrap();
                from.read_exact(&mut [0]).unwrap();
            }
        };
        talk(1);
        let before = usage(cat.id()).unwrap();
        // A byte may be there before `cat` has gone to sleep, so some turns pass without a switch.
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut after = before;
        while after.voluntary_switches < before.voluntary_switches + 50 {
            assert!(Instant::now() < deadline, "{before:?} {after:?}");
            talk(10);
            after = usage(cat.id()).unwrap();
        }
        assert!(before.switches() < after.switches());
        drop(to);
        cat.wait().unwrap();
    }

    #[test]
    fn switches_of_every_thread_count() {
        let (finish, finished) = mpsc::channel::<()>();
        let (report, reported) = mpsc::channel();
        let sleeper = std::thread::spawn(move || {
            for _ in 0..50 {
                std::thread::park_timeout(Duration::from_micros(100));
            }
            let status = Status::read("/proc/thread-self/status").unwrap();
            report
                .send(
                    status
                        .number("voluntary_ctxt_switches")
                        .expect("the kernel counts them"),
                )
                .unwrap();
            finished.recv().expect_err("nothing is sent");
        });
        let of_the_sleeper = reported.recv().unwrap();
        let of_the_process = usage(std::process::id()).unwrap().voluntary_switches;
        drop(finish);
        sleeper.join().expect("the sleeper holds");
        assert!(50 <= of_the_sleeper && of_the_sleeper <= of_the_process);
    }

    #[test]
    fn memory_that_is_touched_shows() {
        let before = usage(std::process::id()).unwrap();
        let touched = vec![1_u8; 64 << 20];
        let after = usage(std::process::id()).unwrap();
        assert!(touched.iter().all(|&byte| byte == 1));
        assert!(
            before.rss_bytes + (32 << 20) < after.rss_bytes,
            "{before:?} {after:?}"
        );
        assert!(before.rss_anon_bytes + (32 << 20) < after.rss_anon_bytes);
        assert!(after.rss_anon_bytes < after.rss_bytes);
    }

    #[test]
    fn a_child_counts_in_its_parents_usage() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let alone = usage_of_one(child.id()).unwrap();
        let family = usage(std::process::id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(alone.rss_bytes <= family.rss_bytes && 0 < alone.rss_bytes);
        assert!(usage(child.id()).is_err());
    }

    #[test]
    fn two_threads_on_one_cpu_wait_for_each_other() {
        let cpu = cpus::allowed().unwrap().first().expect("a cpu");
        let contest = move || {
            pinning::pin_current_thread(cpu).unwrap();
            let before = thread_run_delay_ns().unwrap();
            let deadline = clock::now_ns() + 30_000_000_000;
            // Until the scheduler has taken turns.
            while thread_run_delay_ns().unwrap() < before + 2_000_000 {
                assert!(
                    clock::now_ns() < deadline,
                    "two busy threads never took turns"
                );
            }
            process_run_delay_ns(std::process::id()).unwrap()
        };
        let totals = [std::thread::spawn(contest), std::thread::spawn(contest)]
            .map(|thread| thread.join().unwrap());
        assert!(totals.iter().all(|&total| 2_000_000 <= total), "{totals:?}");
    }

    #[test]
    fn a_thread_that_is_sent_to_another_cpu_has_migrated() {
        let all = cpus::allowed().unwrap();
        let Some(other) = all.iter().nth(1) else {
            return; // There is nowhere to go.
        };
        let first = all.first().expect("a cpu");
        let name = "wanderer";
        let thread = std::thread::Builder::new().name(name.to_owned());
        let wander = move || {
            pinning::confine_current_thread(&[first].into_iter().collect()).unwrap();
            let Ok(before) = migrations(std::process::id(), name) else {
                return; // This kernel keeps no such account.
            };
            for cpu in [other, first, other] {
                pinning::confine_current_thread(&[cpu].into_iter().collect()).unwrap();
            }
            let after = migrations(std::process::id(), name).unwrap();
            assert!(before + 3 <= after, "{before} {after}");
        };
        thread.spawn(wander).unwrap().join().expect("it wandered");
    }

    #[test]
    fn no_such_process_is_an_error() {
        assert!(migrations(u32::MAX, "").is_err());
        assert!(usage(u32::MAX).is_err());
        assert!(process_run_delay_ns(u32::MAX).is_err());
    }

    proptest! {
        #[test]
        fn no_contents_make_it_panic(text in "(VmRSS|Name|:|[0-9]{0,30}| kB|\\n|\\t|\\PC){0,30}") {
            let status = Status::parse(&text);
            let _ = status.number("VmRSS");
        }
    }
}
