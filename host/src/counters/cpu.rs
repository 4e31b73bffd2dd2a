//! Where did the cpus' time go? The account of `/proc/stat` for each cpu, with what the hypervisor took
//! (steal), and whether interrupts are charged to those whom they interrupt.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{invalid, read};
use crate::kernel;

/// Reads the account of each online cpu, by its number.
///
/// # Errors
/// `/proc/stat` cannot be read or names no cpu.
pub fn cpu_times() -> io::Result<BTreeMap<u32, CpuTimes>> {
    const STAT: &str = "/proc/stat";
    let ns_per_tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let times = parse(&read(STAT)?, ns_per_tick);
    if times.is_empty() {
        Err(invalid(STAT))
    } else {
        Ok(times)
    }
}

/// Time of one cpu by kind, in nanoseconds since boot, in steps of a clock tick (10 ms).
///
/// `user_ns` holds what ran as a guest, too, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTimes {
    /// In user space.
    pub user_ns: u64,
    /// In user space at a low priority.
    pub nice_ns: u64,
    /// In the kernel, on behalf of a process.
    pub system_ns: u64,
    /// With nothing to do.
    pub idle_ns: u64,
    /// With nothing to do while a disk was at work.
    pub iowait_ns: u64,
    /// In interrupt handlers.
    pub irq_ns: u64,
    /// In soft interrupts: on the receive side of the network, mostly.
    pub softirq_ns: u64,
    /// Ready to run while the hypervisor ran somebody else. 0 also where the hypervisor does not tell.
    pub steal_ns: u64,
}

impl CpuTimes {
    /// Time in which the cpu worked, for whomever.
    #[must_use]
    pub fn busy_ns(&self) -> u64 {
        self.user_ns + self.nice_ns + self.system_ns + self.irq_ns + self.softirq_ns
    }

    /// All time, stolen time included.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.busy_ns() + self.idle_ns + self.iowait_ns + self.steal_ns
    }

    /// The share of the time that was stolen, 0 to 1; 0 for an empty stretch.
    #[must_use]
    pub fn steal_ratio(&self) -> f64 {
        if self.total_ns() == 0 {
            0.0
        } else {
            self.steal_ns as f64 / self.total_ns() as f64
        }
    }

    /// What passed since `earlier`. Idle and iowait may step back by a little (proc_stat(5)); that
    /// counts as nothing.
    #[must_use]
    pub fn since(&self, earlier: &CpuTimes) -> CpuTimes {
        CpuTimes {
            user_ns: self.user_ns.saturating_sub(earlier.user_ns),
            nice_ns: self.nice_ns.saturating_sub(earlier.nice_ns),
            system_ns: self.system_ns.saturating_sub(earlier.system_ns),
            idle_ns: self.idle_ns.saturating_sub(earlier.idle_ns),
            iowait_ns: self.iowait_ns.saturating_sub(earlier.iowait_ns),
            irq_ns: self.irq_ns.saturating_sub(earlier.irq_ns),
            softirq_ns: self.softirq_ns.saturating_sub(earlier.softirq_ns),
            steal_ns: self.steal_ns.saturating_sub(earlier.steal_ns),
        }
    }

    /// The times of both together.
    #[must_use]
    pub fn plus(&self, other: &CpuTimes) -> CpuTimes {
        CpuTimes {
            user_ns: self.user_ns.saturating_add(other.user_ns),
            nice_ns: self.nice_ns.saturating_add(other.nice_ns),
            system_ns: self.system_ns.saturating_add(other.system_ns),
            idle_ns: self.idle_ns.saturating_add(other.idle_ns),
            iowait_ns: self.iowait_ns.saturating_add(other.iowait_ns),
            irq_ns: self.irq_ns.saturating_add(other.irq_ns),
            softirq_ns: self.softirq_ns.saturating_add(other.softirq_ns),
            steal_ns: self.steal_ns.saturating_add(other.steal_ns),
        }
    }
}

/// Whether the kernel keeps interrupt time apart from the time of the process that was interrupted.
///
/// It matters to every figure of CPU per message: on loopback most of TCP's work is done in soft interrupts
/// inside the sender's own `send`. With this accounting on, the sender is not charged for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IrqTimeAccounting {
    /// Interrupts are charged to nobody: a process looks cheaper than it is.
    On,
    /// Interrupts are charged to whom they interrupt.
    Off,
    /// The kernel gives no sign.
    Unknown,
}

/// Finds out whether interrupt time is accounted for, from `/proc/pressure`.
///
/// Pressure by interrupts (`irq`, Linux 6.1) exists only in kernels built with
/// `CONFIG_IRQ_TIME_ACCOUNTING`, and since Linux 6.14 cannot be read where the accounting is switched off
/// (`tsc=noirqtime`, an unsteady clock). So: readable is on, absent beside `cpu` is off. An older kernel
/// that has it built in and switched off is taken for on; one without pressure accounting is unknown.
#[must_use]
pub fn irq_time_accounting() -> IrqTimeAccounting {
    irq_time_accounting_in(Path::new("/proc/pressure"))
}

/// The same from a folder laid out as `/proc/pressure`.
pub(crate) fn irq_time_accounting_in(pressure: &Path) -> IrqTimeAccounting {
    if !pressure.join("cpu").exists() {
        return IrqTimeAccounting::Unknown;
    }
    match fs::read_to_string(pressure.join("irq")) {
        Ok(_) => IrqTimeAccounting::On,
        Err(error) if error.kind() == io::ErrorKind::NotFound && kernel::is_at_least(6, 1) => {
            IrqTimeAccounting::Off
        }
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {
            IrqTimeAccounting::Off
        }
        Err(_) => IrqTimeAccounting::Unknown,
    }
}

/// The lines `cpuN user nice system idle iowait irq softirq steal guest guest_nice`, in ticks. Fields
/// that an old kernel lacks are 0; odd lines are left out.
fn parse(text: &str, ns_per_tick: u64) -> BTreeMap<u32, CpuTimes> {
    let line = |line: &str| {
        let mut fields = line.strip_prefix("cpu")?.split(' ');
        // The first line, `cpu ` without a number, is the sum of the others.
        let id = fields.next()?.parse().ok()?;
        let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
        let ns = |index: usize| {
            ticks
                .get(index)
                .copied()
                .unwrap_or(0)
                .saturating_mul(ns_per_tick)
        };
        // A sixteenth of the range each, so that no sum of kinds can overflow.
        let bounded = |index| ns(index).min(u64::MAX / 16);
        let times = CpuTimes {
            user_ns: bounded(0),
            nice_ns: bounded(1),
            system_ns: bounded(2),
            idle_ns: bounded(3),
            iowait_ns: bounded(4),
            irq_ns: bounded(5),
            softirq_ns: bounded(6),
            steal_ns: bounded(7),
        };
        (4 <= ticks.len()).then_some((id, times))
    };
    text.lines().filter_map(line).collect()
}

/// How much of some cpus' time the hypervisor gives to others, from a moment on.
#[derive(Clone, Debug)]
pub struct Steal {
    cpus: Vec<u32>,
    before: Option<BTreeMap<u32, CpuTimes>>,
}

impl Steal {
    /// Begins to watch `cpus`.
    #[must_use]
    pub fn begin(cpus: Vec<u32>) -> Steal {
        Steal {
            cpus,
            before: cpu_times().ok(),
        }
    }

    /// The share since then, 0 to 1, over all of them; `None` where the kernel doesn't tell.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let (before, after) = (self.before.as_ref()?, cpu_times().ok()?);
        let since = |cpu: &u32| Some(after.get(cpu)?.since(before.get(cpu)?));
        let passed = self
            .cpus
            .iter()
            .filter_map(since)
            .reduce(|sum, cpu| sum.plus(&cpu))?;
        Some(passed.steal_ratio())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{clock, cpus, pinning};

    const TEXT: &str = "cpu  3 0 4 300 1 0 1 5 0 0\ncpu0 1 0 2 150 1 0 1 4 0 0\ncpu7 2 0 2 150 0\ncpu8 x\nintr 105099\n";

    #[test]
    fn each_cpu_has_its_line() {
        let times = parse(TEXT, 10_000_000);
        assert_eq!(times.keys().copied().collect::<Vec<_>>(), [0, 7]);
        let cpu = times[&0];
        assert_eq!(
            (cpu.user_ns, cpu.system_ns, cpu.softirq_ns),
            (10_000_000, 20_000_000, 10_000_000)
        );
        assert_eq!((cpu.busy_ns(), cpu.total_ns()), (40_000_000, 1_590_000_000));
        assert!((cpu.steal_ratio() - 4.0 / 159.0).abs() < 1e-12);
        assert_eq!(times[&7].steal_ns, 0);
    }

    #[test]
    fn differences_never_go_below_nothing() {
        let earlier = CpuTimes {
            idle_ns: 30,
            user_ns: 5,
            ..CpuTimes::default()
        };
        let later = CpuTimes {
            idle_ns: 20,
            user_ns: 25,
            ..CpuTimes::default()
        };
        assert_eq!(
            later.since(&earlier),
            CpuTimes {
                user_ns: 20,
                ..CpuTimes::default()
            }
        );
        assert_eq!(later.plus(&earlier).busy_ns(), 30);
        assert_eq!(CpuTimes::default().steal_ratio().to_bits(), 0);
    }

    #[test]
    fn work_on_a_cpu_shows_on_that_cpu() {
        let cpu = cpus::allowed().unwrap().iter().last().expect("a cpu");
        std::thread::spawn(move || {
            pinning::pin_current_thread(cpu).unwrap();
            let before = cpu_times().unwrap()[&cpu];
            let deadline = clock::now_ns() + 30_000_000_000;
            while cpu_times().unwrap()[&cpu].since(&before).busy_ns() < 50_000_000 {
                assert!(clock::now_ns() < deadline, "work never showed");
            }
        })
        .join()
        .expect("the test on its own thread holds");
    }

    #[test]
    fn interrupt_accounting_is_unknown_without_a_sign() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            irq_time_accounting_in(folder.path()),
            IrqTimeAccounting::Unknown
        );
        fs::write(folder.path().join("cpu"), "").unwrap();
        let without = irq_time_accounting_in(folder.path());
        let expected = if kernel::is_at_least(6, 1) {
            IrqTimeAccounting::Off
        } else {
            IrqTimeAccounting::Unknown
        };
        assert_eq!(without, expected);
        fs::write(
            folder.path().join("irq"),
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        )
        .unwrap();
        assert_eq!(irq_time_accounting_in(folder.path()), IrqTimeAccounting::On);
    }

    proptest! {
        #[test]
        fn no_contents_make_it_panic(text in "(cpu[0-9]{0,12}| |-|[0-9]{1,25}|\\n|\\PC){0,60}") {
            for times in parse(&text, 10_000_000).values() {
                let _ = times.plus(times).since(times).steal_ratio();
            }
        }
    }
}
