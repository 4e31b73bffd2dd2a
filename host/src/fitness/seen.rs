//! What was seen of a machine, for the checks: its facts, and what concerns the chosen cpus alone. Made up in tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Activity;
use crate::{
    cpus::{self, CpuList},
    machine::{Facts, files::Files},
    topology::Topology,
};

/// What the machine shall be fit for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// The cpus of server and client; empty for all that this process may use.
    pub cpus: CpuList,
    /// How many of them there must be: 2 where server and client both run here.
    pub cpus_min: usize,
    /// How many connections at once; none where that is settled, since they are open.
    pub connections: Option<u64>,
    /// How bytes are moved.
    pub engine: Use,
}

impl Default for Purpose {
    /// A server and a client on whatever this process may use.
    fn default() -> Self {
        Self {
            cpus: CpuList::default(),
            cpus_min: 2,
            connections: Some(1_000),
            engine: Use::default(),
        }
    }
}

/// How bytes are moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// By io_uring, which has demands of its own.
    #[default]
    Uring,
    /// By epoll: io_uring is not asked about.
    Epoll,
}

/// All that the checks look at. What is `None` is unknown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The machine as result files know it.
    pub facts: Facts,
    /// Whether `/proc` tells of processes: without it no server's CPU time can be read, and nobody else's either.
    pub proc_mounted: Option<bool>,
    /// Whether `/sys` tells of cpus.
    pub sys_mounted: Option<bool>,
    /// How its cpus are joined.
    pub topology: Option<Topology>,
    /// The cpus that server and client would use.
    pub cpus: CpuList,
    /// How many of them there must be.
    pub cpus_min: usize,
    /// How many connections at once; none where that is settled, since they are open.
    pub connections: Option<u64>,
    /// How bytes are moved.
    pub engine: Use,
    /// The sleep states of the chosen cpus that are switched on, the deepest of all of them last.
    pub idle_states: Option<Vec<IdleState>>,
    /// The tightest limit on cpu time of the control groups around this process.
    pub cpu_quota: Option<CpuQuota>,
    /// Where the kernel itself moves network work from cpu to cpu.
    pub steering: Option<Vec<Steering>>,
    /// Whether a ring could be set up; none where it was not tried.
    pub uring: Option<UringTrial>,
    /// What went on for a second or so; none where nobody watched.
    pub activity: Option<Activity>,
}

/// A sleep state of a cpu.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdleState {
    /// Its name, such as `C6`.
    pub name: String,
    /// What waking from it takes, in microseconds.
    pub exit_us: u64,
}

/// How much cpu time the control groups allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CpuQuota {
    /// All there is.
    Unlimited,
    /// So many cpus' worth.
    Cpus(f64),
}

/// A queue of a network device whose work is bound to given cpus.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Steering {
    /// `lo rx-0`.
    pub queue: String,
    /// Whether it receives (RPS moves its work to `cpus`) or sends (XPS: these cpus send by it).
    pub receives: bool,
    /// Where its work goes.
    pub cpus: CpuList,
}

/// Whether a ring could be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UringTrial {
    /// It could.
    Works,
    /// It could not; the cause and the cure.
    Refused(String),
}

impl Seen {
    /// Looks at this machine, in some milliseconds. Rings are not tried and nobody watches: these two are the caller's.
    #[must_use]
    pub fn now(purpose: Purpose) -> Self {
        Self::with_facts(Facts::read(), purpose)
    }

    /// The same with facts that were read before.
    #[must_use]
    pub fn with_facts(facts: Facts, purpose: Purpose) -> Self {
        let root = Path::new("/");
        let files = Files::below(root);
        let cpus = Some(purpose.cpus)
            .filter(|cpus| !cpus.is_empty())
            .or_else(|| cpus::allowed().ok())
            .unwrap_or_default();
        Self {
            proc_mounted: Some(is_there(root, "proc/self/stat")),
            sys_mounted: Some(is_there(root, "sys/devices/system/cpu")),
            topology: Topology::read().ok(),
            idle_states: idle_states(&files, &cpus),
            cpu_quota: cpu_quota(root),
            steering: steering(&files),
            cpus,
            cpus_min: purpose.cpus_min,
            connections: purpose.connections,
            engine: purpose.engine,
            facts,
            uring: None,
            activity: None,
        }
    }
}

fn is_there(root: &Path, path: &str) -> bool {
    root.join(path).exists()
}

/// The states that are on, from the lightest sleep to the deepest. On cpus that differ the deepest of all comes last.
fn idle_states(files: &Files, cpus: &CpuList) -> Option<Vec<IdleState>> {
    let mut states: Vec<IdleState> = cpus
        .iter()
        .flat_map(|cpu| {
            let folder = format!("sys/devices/system/cpu/cpu{cpu}/cpuidle");
            let state = move |name: String| {
                let file = |file: &str| format!("{folder}/{name}/{file}");
                let off = files.number(&file("disable")) == Some(1);
                let state = IdleState {
                    name: files.text(&file("name"))?,
                    exit_us: files.number(&file("latency"))?,
                };
                (!off).then_some(state)
            };
            files
                .names(&format!("sys/devices/system/cpu/cpu{cpu}/cpuidle"))
                .into_iter()
                .filter_map(state)
        })
        .collect();
    states.sort_by(|one, other| (one.exit_us, &one.name).cmp(&(other.exit_us, &other.name)));
    states.dedup();
    (!states.is_empty()).then_some(states)
}

/// Of the group that this process is in and of all around it (`cpu.max` of version 2, `cpu.cfs_quota_us` of version 1).
fn cpu_quota(root: &Path) -> Option<CpuQuota> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mut quotas = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (mounts, read) = if controllers.is_empty() {
            let read = quota_of_v2 as fn(&Path) -> Option<CpuQuota>;
            (["sys/fs/cgroup", "sys/fs/cgroup/unified"], read)
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            let read = quota_of_v1 as fn(&Path) -> Option<CpuQuota>;
            (["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"], read)
        } else {
            continue;
        };
        for mount in mounts {
            let mount = root.join(mount);
            // In a container the path may lie outside of what is mounted; then its ancestors are what can be seen.
            let inside: PathBuf = path.trim_start_matches('/').into();
            quotas.extend(
                inside
                    .ancestors()
                    .filter_map(|group| read(&mount.join(group))),
            );
        }
    }
    quotas.into_iter().reduce(tighter)
}

fn tighter(one: CpuQuota, other: CpuQuota) -> CpuQuota {
    match (one, other) {
        (CpuQuota::Unlimited, quota) | (quota, CpuQuota::Unlimited) => quota,
        (CpuQuota::Cpus(one), CpuQuota::Cpus(other)) => CpuQuota::Cpus(one.min(other)),
    }
}

/// `max 100000` or `150000 100000`. The root group of version 2 has no such file and no limit, but a folder that isn't a
/// group at all has none either, so its controllers are asked for.
fn quota_of_v2(group: &Path) -> Option<CpuQuota> {
    match fs::read_to_string(group.join("cpu.max")) {
        Ok(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            match quota {
                "max" => Some(CpuQuota::Unlimited),
                quota => quota_of(quota.parse().ok()?, period.parse().ok()?),
            }
        }
        Err(_) => {
            let controllers = fs::read_to_string(group.join("cgroup.controllers")).ok()?;
            let governs = controllers
                .split_ascii_whitespace()
                .any(|controller| controller == "cpu");
            governs.then_some(CpuQuota::Unlimited)
        }
    }
}

/// -1 for no limit.
fn quota_of_v1(group: &Path) -> Option<CpuQuota> {
    let number = |file: &str| {
        let text = fs::read_to_string(group.join(file)).ok()?;
        text.trim().parse::<f64>().ok()
    };
    match number("cpu.cfs_quota_us")? {
        quota if quota < 0.0 => Some(CpuQuota::Unlimited),
        quota => quota_of(quota, number("cpu.cfs_period_us")?),
    }
}

fn quota_of(quota: f64, period: f64) -> Option<CpuQuota> {
    (0.0 < quota && 0.0 < period).then(|| CpuQuota::Cpus(quota / period))
}

/// Every queue that is steered. A queue without the file can't be.
fn steering(files: &Files) -> Option<Vec<Steering>> {
    const DEVICES: &str = "sys/class/net";
    let devices = files.names(DEVICES);
    let mut steered = Vec::new();
    for device in &devices {
        for queue in files.names(&format!("{DEVICES}/{device}/queues")) {
            for (file, receives) in [("rps_cpus", true), ("xps_cpus", false)] {
                let mask = files.text(&format!("{DEVICES}/{device}/queues/{queue}/{file}"));
                let cpus = mask.as_deref().and_then(from_mask).unwrap_or_default();
                if !cpus.is_empty() {
                    steered.push(Steering {
                        queue: format!("{device} {queue}"),
                        receives,
                        cpus,
                    });
                }
            }
        }
    }
    (!devices.is_empty()).then_some(steered)
}

/// A mask as the kernel prints it: hexadecimal words of 32 bits with commas between, the highest first.
fn from_mask(text: &str) -> Option<CpuList> {
    let words: Option<Vec<u32>> = text
        .split(',')
        .rev()
        .map(|word| u32::from_str_radix(word, 16).ok())
        .collect();
    let bits = words?.into_iter().zip(0_u32..).flat_map(|(word, index)| {
        (0..32)
            .filter(move |bit| word & (1 << bit) != 0)
            .map(move |bit| index * 32 + bit)
    });
    Some(bits.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::files::paper;

    #[test]
    fn masks_are_read_as_the_kernel_prints_them() {
        let read = |text| from_mask(text).map(|cpus| cpus.to_string());
        assert_eq!(read("3").as_deref(), Some("0-1"));
        assert_eq!(read("00000001,00000000").as_deref(), Some("32"));
        assert_eq!(read("0"), Some(String::new()));
        assert_eq!(read(""), None);
        assert_eq!(read("x"), None);
    }

    #[test]
    fn the_tightest_quota_around_us_holds() {
        let (root, _) = paper(&[
            ("proc/self/cgroup", "4:memory:/x\n0::/a/b\n"),
            ("sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
        ]);
        assert_eq!(cpu_quota(root.path()), Some(CpuQuota::Cpus(1.5)));
        let (root, _) = paper(&[
            ("proc/self/cgroup", "1:cpu,cpuacct:/\n0::/\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/unified/cgroup.controllers", "\n"),
        ]);
        assert_eq!(cpu_quota(root.path()), Some(CpuQuota::Unlimited));
        let (root, _) = paper(&[("proc/self/cgroup", "0::/\n")]);
        assert_eq!(cpu_quota(root.path()), None);
        let (root, _) = paper(&[]);
        assert_eq!(cpu_quota(root.path()), None);
    }

    #[test]
    fn states_that_are_switched_off_do_not_count() {
        let state = |cpu: u32, state: u32, file: &str| {
            format!("sys/devices/system/cpu/cpu{cpu}/cpuidle/state{state}/{file}")
        };
        let contents = [
            (state(0, 0, "name"), "POLL"),
            (state(0, 0, "latency"), "0"),
            (state(0, 1, "name"), "C1"),
            (state(0, 1, "latency"), "2"),
            (state(0, 2, "name"), "C6"),
            (state(0, 2, "latency"), "133"),
            (state(0, 2, "disable"), "1"),
        ];
        let contents: Vec<(&str, &str)> = contents
            .iter()
            .map(|(path, text)| (path.as_str(), *text))
            .collect();
        let (_root, files) = paper(&contents);
        let names = |cpus: &str| {
            let states = idle_states(&files, &cpus.parse().expect("a list"))?;
            Some(
                states
                    .into_iter()
                    .map(|state| state.name)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(names("0"), Some(vec!["POLL".into(), "C1".into()]));
        assert_eq!(names("1"), None);
    }

    #[test]
    fn steered_queues_are_named() {
        let (_root, files) = paper(&[
            ("sys/class/net/lo/queues/rx-0/rps_cpus", "0\n"),
            ("sys/class/net/eth0/queues/rx-0/rps_cpus", "2\n"),
        ]);
        let expected = Steering {
            queue: "eth0 rx-0".into(),
            receives: true,
            cpus: "1".parse().expect("a list"),
        };
        assert_eq!(steering(&files), Some(vec![expected]));
        assert_eq!(steering(&paper(&[]).1), None);
    }
}
