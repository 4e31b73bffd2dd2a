//! On what machine was this measured? The facts that travel with every result, and a short name for the
//! folder that it lies in. Never the host's name, nor anything else that says whose machine it is.

mod command_line;
mod cpu_model;
pub(crate) mod files;
mod hypervisor;
mod slug;

use std::{collections::BTreeMap, env, path::Path};

use serde::{Deserialize, Serialize};

pub use slug::slug;

use crate::{
    clock,
    counters::{self, IrqTimeAccounting},
    cpus::{self, CpuList},
    limits::{self, Limit, UNLIMITED},
    topology::Topology,
};
use files::Files;

/// What is known of a machine. `None` means unknown (the file is absent, or not as expected), never
/// "fine"; readers of older files see it for facts that were not collected yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// When this was read: RFC 3339, UTC.
    pub read_at: String,
    /// Version of Echometer.
    pub echometer: String,
    /// The commit that it was built from, if the environment variable `ECHOMETER_COMMIT` says so: the scripts
    /// set it, and a program that knows better may overwrite it.
    pub commit: Option<String>,
    /// The compiler that built it.
    pub rustc: Option<String>,
    /// `x86_64`, `aarch64`, ...
    pub architecture: String,
    /// The cpu's name for people.
    pub cpu_model: Option<String>,
    /// The cpus that are switched on.
    pub cpus_online: Option<CpuList>,
    /// The cpus that this process may use.
    pub cpus_allowed: Option<CpuList>,
    /// Cpus kept out of the scheduler's hands at boot (`isolcpus`); an empty list for none.
    pub cpus_isolated: Option<CpuList>,
    /// Cpus whose timer tick stops when one task runs (`nohz_full`); an empty list for none.
    pub cpus_nohz_full: Option<CpuList>,
    /// How many packages, cores, level-3 caches and NUMA nodes the online cpus make up.
    pub packages: Option<usize>,
    /// See `packages`.
    pub cores: Option<usize>,
    /// See `packages`.
    pub l3_caches: Option<usize>,
    /// See `packages`.
    pub numa_nodes: Option<usize>,
    /// Simultaneous multithreading: `on`, `off`, `forceoff`, `notsupported` or `notimplemented`.
    pub smt: Option<String>,
    /// RAM in bytes, as the kernel sees it.
    pub memory_bytes: Option<u64>,
    /// `none` on bare metal, else the hypervisor's name, or `unknown` if there is one without a name.
    pub hypervisor: Option<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// From the kernel's command line, only what bears on timing.
    pub kernel_parameters: BTreeMap<String, String>,
    /// What is done about each cpu vulnerability.
    pub mitigations: BTreeMap<String, String>,
    /// The frequency governor, with its driver; several if the cpus differ.
    pub governor: Option<String>,
    /// Whether the cpus may exceed their nominal frequency.
    pub boost: Option<bool>,
    /// The driver that puts idle cpus to sleep; `none` without one.
    pub idle_driver: Option<String>,
    /// The source of time.
    pub clocksource: Option<String>,
    /// `always`, `madvise` or `never`.
    pub transparent_hugepages: Option<String>,
    /// Whether interrupts are charged to whom they interrupt.
    pub irq_time_accounting: Option<IrqTimeAccounting>,
    /// `net.core.somaxconn`: the limit of every backlog.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub tcp_max_syn_backlog: Option<u64>,
    /// `net.ipv4.tcp_syn_linear_timeouts`: how many lost SYNs are sent again a second apart.
    pub tcp_syn_linear_timeouts: Option<u64>,
    /// `net.ipv4.tcp_abort_on_overflow`.
    pub tcp_abort_on_overflow: Option<u64>,
    /// `net.ipv4.tcp_congestion_control`.
    pub tcp_congestion_control: Option<String>,
    /// `net.ipv4.tcp_rmem`: least, default and most bytes of a receive buffer.
    pub tcp_rmem: Option<String>,
    /// `net.ipv4.tcp_wmem`: the same of a send buffer.
    pub tcp_wmem: Option<String>,
    /// `net.core.busy_poll`, in microseconds.
    pub busy_poll_us: Option<u64>,
    /// `net.ipv4.ip_local_port_range`: first and last port of outgoing connections.
    pub port_range: Option<(u16, u16)>,
    /// `kernel.io_uring_disabled`: 0 allowed, 1 for the privileged or a group only, 2 forbidden.
    pub io_uring_disabled: Option<u64>,
    /// RLIMIT_NOFILE.
    pub nofile: Option<LimitFact>,
    /// RLIMIT_MEMLOCK, in bytes.
    pub memlock_bytes: Option<LimitFact>,
}

/// A resource limit in a file; null for "no limit".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LimitFact {
    /// What holds.
    pub soft: Option<u64>,
    /// What it may be raised to.
    pub hard: Option<u64>,
}

impl Facts {
    /// Reads all that can be read without privileges, in some milliseconds. Never fails: what cannot be
    /// read is unknown.
    #[must_use]
    pub fn read() -> Facts {
        Facts {
            read_at: clock::wall_time().to_string(),
            echometer: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env::var("ECHOMETER_COMMIT")
                .ok()
                .filter(|commit| !commit.is_empty()),
            rustc: option_env!("ECHOMETER_RUSTC").map(str::to_owned),
            architecture: env::consts::ARCH.to_owned(),
            cpus_allowed: cpus::allowed().ok(),
            nofile: Some(limits::nofile().into()),
            memlock_bytes: Some(limits::memlock().into()),
            ..Facts::read_files(Path::new("/"))
        }
    }

    /// One line for people: `AMD EPYC, 2 cpus, KVM, Linux 6.18.2`.
    #[must_use]
    pub fn summary(&self) -> String {
        let unknown = || "unknown".to_owned();
        let cpus = match self.cpus_online.as_ref().map(CpuList::len) {
            Some(1) => "1 cpu".to_owned(),
            Some(count) => format!("{count} cpus"),
            None => "an unknown number of cpus".to_owned(),
        };
        let metal = match self.hypervisor.as_deref() {
            Some("none") => "no hypervisor".to_owned(),
            Some("unknown") => "a virtual machine".to_owned(),
            Some(name) => name.to_owned(),
            None => "hypervisor unknown".to_owned(),
        };
        let model = self
            .cpu_model
            .clone()
            .unwrap_or_else(|| format!("{} cpu", self.architecture));
        format!(
            "{model}, {cpus}, {metal}, Linux {}",
            self.kernel.clone().unwrap_or_else(unknown)
        )
    }

    /// The facts that stand in files, below `root` (`/`, but for tests).
    fn read_files(root: &Path) -> Facts {
        let files = Files::below(root);
        let topology = Topology::read_from(&root.join("sys/devices/system")).ok();
        let joined = |count: fn(&Topology) -> Option<usize>| topology.as_ref().and_then(count);
        let sysctl = |name: &str| files.text(&format!("proc/sys/{name}"));
        let sysctl_number = |name: &str| files.number(&format!("proc/sys/{name}"));
        let (packages, cores, l3_caches, numa_nodes) = (
            joined(Topology::packages),
            joined(Topology::cores),
            joined(Topology::l3_caches),
            joined(Topology::nodes),
        );
        Facts {
            cpu_model: cpu_model::read(&files),
            cpus_online: topology.as_ref().map(Topology::online),
            cpus_isolated: files.cpu_list("sys/devices/system/cpu/isolated"),
            cpus_nohz_full: files.cpu_list("sys/devices/system/cpu/nohz_full"),
            packages,
            cores,
            l3_caches,
            numa_nodes,
            smt: files.text("sys/devices/system/cpu/smt/control"),
            memory_bytes: memory_bytes(&files),
            hypervisor: hypervisor::read(&files),
            kernel: sysctl("kernel/osrelease"),
            kernel_parameters: command_line::read(&files),
            mitigations: mitigations(&files),
            governor: governor(&files),
            boost: boost(&files),
            idle_driver: files.text("sys/devices/system/cpu/cpuidle/current_driver"),
            clocksource: files
                .text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            transparent_hugepages: files.chosen("sys/kernel/mm/transparent_hugepage/enabled"),
            irq_time_accounting: Some(counters::irq_time_accounting_in(
                &root.join("proc/pressure"),
            )),
            somaxconn: sysctl_number("net/core/somaxconn"),
            tcp_max_syn_backlog: sysctl_number("net/ipv4/tcp_max_syn_backlog"),
            tcp_syn_linear_timeouts: sysctl_number("net/ipv4/tcp_syn_linear_timeouts"),
            tcp_abort_on_overflow: sysctl_number("net/ipv4/tcp_abort_on_overflow"),
            tcp_congestion_control: sysctl("net/ipv4/tcp_congestion_control"),
            tcp_rmem: sysctl("net/ipv4/tcp_rmem").as_deref().map(single_spaced),
            tcp_wmem: sysctl("net/ipv4/tcp_wmem").as_deref().map(single_spaced),
            busy_poll_us: sysctl_number("net/core/busy_poll"),
            port_range: sysctl("net/ipv4/ip_local_port_range").and_then(|text| port_range(&text)),
            io_uring_disabled: sysctl_number("kernel/io_uring_disabled"),
            ..Facts::default()
        }
    }
}

impl From<Limit> for LimitFact {
    fn from(limit: Limit) -> LimitFact {
        let finite = |value| Some(value).filter(|&value| value != UNLIMITED);
        LimitFact {
            soft: finite(limit.soft),
            hard: finite(limit.hard),
        }
    }
}

/// `MemTotal:       24684092 kB`, where kB are KiB.
fn memory_bytes(files: &Files) -> Option<u64> {
    let text = files.text("proc/meminfo")?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    total
        .trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1_024)
}

fn mitigations(files: &Files) -> BTreeMap<String, String> {
    const FOLDER: &str = "sys/devices/system/cpu/vulnerabilities";
    let read = |name: String| Some((name.clone(), files.text(&format!("{FOLDER}/{name}"))?));
    files.names(FOLDER).into_iter().filter_map(read).collect()
}

/// `performance (intel_pstate)`; both kinds where big and little cpus differ.
fn governor(files: &Files) -> Option<String> {
    const FOLDER: &str = "sys/devices/system/cpu/cpufreq";
    let read = |policy: String| {
        let governor = files.text(&format!("{FOLDER}/{policy}/scaling_governor"))?;
        Some(
            match files.text(&format!("{FOLDER}/{policy}/scaling_driver")) {
                Some(driver) => format!("{governor} ({driver})"),
                None => governor,
            },
        )
    };
    let mut kinds: Vec<String> = files.names(FOLDER).into_iter().filter_map(read).collect();
    kinds.sort();
    kinds.dedup();
    (!kinds.is_empty()).then(|| kinds.join(", "))
}

/// Two drivers, two files, and one of them the other way round.
fn boost(files: &Files) -> Option<bool> {
    let boost = files
        .number("sys/devices/system/cpu/cpufreq/boost")
        .map(|on| on != 0);
    boost.or_else(|| {
        files
            .number("sys/devices/system/cpu/intel_pstate/no_turbo")
            .map(|off| off == 0)
    })
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut ports = text.split_ascii_whitespace().map(str::parse);
    Some((ports.next()?.ok()?, ports.next()?.ok()?))
}

fn single_spaced(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn this_machine_is_known_and_its_facts_survive_a_file() {
        let facts = Facts::read();
        assert_eq!(facts.cpus_online, Some(cpus::online().unwrap()));
        assert_eq!(facts.kernel, crate::kernel::release());
        assert!(
            facts
                .rustc
                .as_deref()
                .is_some_and(|rustc| rustc.starts_with("rustc ")),
            "{:?}",
            facts.rustc
        );
        assert!(facts.memory_bytes.is_some_and(|bytes| 64 << 20 < bytes));
        assert!(facts.somaxconn.is_some() && facts.port_range.is_some());
        assert!(facts.summary().contains("Linux"), "{}", facts.summary());
        let text = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), facts);
    }

    #[test]
    fn a_machine_without_files_is_unknown_and_not_fine() {
        let empty = tempfile::tempdir().unwrap();
        let expected = Facts {
            irq_time_accounting: Some(IrqTimeAccounting::Unknown),
            ..Facts::default()
        };
        let facts = Facts::read_files(empty.path());
        assert_eq!(facts, expected);
        assert!(facts.summary().contains("unknown"), "{}", facts.summary());
    }

    #[test]
    fn files_of_older_and_newer_versions_are_readable() {
        let facts: Facts =
            serde_json::from_str(r#"{"kernel": "7.0", "from_the_future": [1]}"#).unwrap();
        assert_eq!(
            facts,
            Facts {
                kernel: Some("7.0".into()),
                ..Facts::default()
            }
        );
    }

    #[test]
    fn a_machine_on_paper_is_read() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/meminfo", "MemTotal:       1024 kB\nMemFree: 5 kB\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
            ("proc/sys/kernel/osrelease", "6.18.2\n"),
            ("proc/sys/kernel/io_uring_disabled", "2\n"),
            ("sys/devices/system/cpu/online", "0-3\n"),
            ("sys/devices/system/cpu/isolated", "\n"),
            ("sys/devices/system/cpu/nohz_full", "(null)\n"),
            ("sys/devices/system/cpu/intel_pstate/no_turbo", "1\n"),
            (
                "sys/devices/system/cpu/cpufreq/policy0/scaling_governor",
                "performance\n",
            ),
            (
                "sys/devices/system/cpu/cpufreq/policy0/scaling_driver",
                "intel_pstate\n",
            ),
            (
                "sys/devices/system/cpu/cpufreq/policy1/scaling_governor",
                "powersave\n",
            ),
            (
                "sys/devices/system/cpu/vulnerabilities/spectre_v1",
                "Mitigation: barriers\n",
            ),
            (
                "sys/kernel/mm/transparent_hugepage/enabled",
                "always [madvise] never\n",
            ),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let facts = Facts::read_files(root.path());
        assert_eq!(facts.memory_bytes, Some(1 << 20));
        assert_eq!(facts.port_range, Some((32_768, 60_999)));
        assert_eq!(facts.tcp_rmem.as_deref(), Some("4096 131072 6291456"));
        assert_eq!(
            (facts.io_uring_disabled, facts.boost),
            (Some(2), Some(false))
        );
        assert_eq!(
            (facts.cpus_isolated, facts.cpus_nohz_full),
            (Some(CpuList::default()), Some(CpuList::default()))
        );
        assert_eq!(
            facts.governor.as_deref(),
            Some("performance (intel_pstate), powersave")
        );
        assert_eq!(facts.mitigations["spectre_v1"], "Mitigation: barriers");
        assert_eq!(facts.transparent_hugepages.as_deref(), Some("madvise"));
        assert_eq!(
            (facts.packages, facts.smt, facts.somaxconn),
            (None, None, None)
        );
    }
}
