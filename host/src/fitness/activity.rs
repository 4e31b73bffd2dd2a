//! What went on while we watched? Two readings of the cpus' accounts, of the pressure and of the interrupts, and their
//! difference.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use crate::{
    clock,
    counters::{self, CpuTimes, Pressure},
    cpus::CpuList,
};

/// What the cpus did in a stretch of time, whoever caused it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activity {
    /// How long was watched.
    pub watched_ns: u64,
    /// Each cpu's account; none where `/proc/stat` can't be read.
    pub cpus: Option<BTreeMap<u32, CpuTimes>>,
    /// The share of the time in which somebody was ready to run and had no cpu, 0 to 1; none without pressure accounting.
    pub cpu_pressure: Option<f64>,
    /// How many interrupts of devices each cpu took; none where `/proc/interrupts` can't be read.
    pub device_interrupts: Option<BTreeMap<u32, u64>>,
}

impl Activity {
    /// Watches for `length`, asleep.
    #[must_use]
    pub fn watch(length: Duration) -> Self {
        let before = Reading::now();
        thread::sleep(length);
        Reading::now().since(&before)
    }

    /// The account of `cpus` together; none if one of them is missing.
    #[must_use]
    pub fn of(&self, cpus: &CpuList) -> Option<CpuTimes> {
        let times = self.cpus.as_ref()?;
        cpus.iter().try_fold(CpuTimes::default(), |sum, cpu| {
            Some(sum.plus(times.get(&cpu)?))
        })
    }

    /// How many interrupts of devices `cpus` took, a second.
    #[must_use]
    pub fn interrupts_per_s(&self, cpus: &CpuList) -> Option<f64> {
        let interrupts = self.device_interrupts.as_ref()?;
        let count: u64 = cpus.iter().filter_map(|cpu| interrupts.get(&cpu)).sum();
        (0 < self.watched_ns).then(|| count as f64 * 1e9 / self.watched_ns as f64)
    }
}

/// The counters at an instant.
struct Reading {
    at_ns: u64,
    cpus: Option<BTreeMap<u32, CpuTimes>>,
    pressure: Option<Pressure>,
    interrupts: Option<BTreeMap<u32, u64>>,
}

impl Reading {
    fn now() -> Self {
        Self {
            at_ns: clock::now_ns(),
            cpus: counters::cpu_times().ok(),
            pressure: counters::cpu_pressure().ok(),
            interrupts: fs::read_to_string("/proc/interrupts")
                .ok()
                .and_then(|text| device_interrupts(&text)),
        }
    }

    fn since(self, earlier: &Self) -> Activity {
        let watched_ns = self.at_ns.saturating_sub(earlier.at_ns);
        let cpus = self.cpus.zip(earlier.cpus.as_ref()).map(|(now, before)| {
            now.into_iter()
                .filter_map(|(cpu, times)| Some((cpu, times.since(before.get(&cpu)?))))
                .collect()
        });
        let stalled = self.pressure.zip(earlier.pressure);
        let cpu_pressure = stalled.filter(|_| 0 < watched_ns).map(|(now, before)| {
            let stalled_ns = now.some_ns.saturating_sub(before.some_ns);
            (stalled_ns as f64 / watched_ns as f64).min(1.0)
        });
        let device_interrupts =
            self.interrupts
                .zip(earlier.interrupts.as_ref())
                .map(|(now, before)| {
                    now.into_iter()
                        .map(|(cpu, count)| {
                            let before = before.get(&cpu).copied().unwrap_or(0);
                            (cpu, count.saturating_sub(before))
                        })
                        .collect()
                });
        Activity {
            watched_ns,
            cpus,
            cpu_pressure,
            device_interrupts,
        }
    }
}

/// The sums of `/proc/interrupts` by cpu, over the numbered lines: those are the devices'. (Timers, calls from cpu to cpu
/// and the like have letters for names, and come with every load.)
fn device_interrupts(text: &str) -> Option<BTreeMap<u32, u64>> {
    let mut lines = text.lines();
    let cpus: Option<Vec<u32>> = lines
        .next()?
        .split_ascii_whitespace()
        .map(|name| name.strip_prefix("CPU")?.parse().ok())
        .collect();
    let cpus = cpus.filter(|cpus| !cpus.is_empty())?;
    let mut sums: BTreeMap<u32, u64> = cpus.iter().map(|&cpu| (cpu, 0)).collect();
    for line in lines {
        let Some((name, counts)) = line.split_once(':') else {
            continue;
        };
        if name.trim().parse::<u32>().is_err() {
            continue;
        }
        for (cpu, count) in cpus.iter().zip(counts.split_ascii_whitespace()) {
            let Ok(count) = count.parse::<u64>() else {
                break;
            };
            let sum = sums.entry(*cpu).or_default();
            *sum = sum.saturating_add(count);
        }
    }
    Some(sums)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "           CPU0       CPU2       \n \
        24:          1          10  IO-APIC   5-edge      ACPI:Ged\n \
        32:       1327          0 PCI-MSIX-0000:00:01.0   4-edge      virtio0\n\
        LOC:    3805390    3510254   Local timer interrupts\nERR:          0\n";

    #[test]
    fn interrupts_of_devices_are_summed_by_cpu() {
        let sums = device_interrupts(TEXT).expect("it is well-formed");
        assert_eq!(sums, [(0, 1_328), (2, 10)].into_iter().collect());
        assert_eq!(device_interrupts(""), None);
        assert_eq!(device_interrupts("no header\n"), None);
    }

    #[test]
    fn differences_are_taken_by_cpu() {
        let reading = |at_ns, count, some_ns| Reading {
            at_ns,
            cpus: Some([(0, CpuTimes::default())].into()),
            pressure: Some(Pressure {
                some_ns,
                some_last_10_s: 0.0,
            }),
            interrupts: Some([(0, count), (1, 7)].into()),
        };
        let activity = reading(3_000_000_000, 150, 600_000_000).since(&reading(
            1_000_000_000,
            50,
            100_000_000,
        ));
        let one = "0".parse().expect("a list");
        assert_eq!(activity.interrupts_per_s(&one), Some(50.0));
        assert_eq!(activity.cpu_pressure, Some(0.25));
        assert_eq!(activity.of(&one), Some(CpuTimes::default()));
        let both = "0-1".parse().expect("a list");
        assert_eq!(activity.of(&both), None, "cpu 1 has no account");
    }

    #[test]
    fn a_machine_can_be_watched() {
        let activity = Activity::watch(Duration::from_millis(20));
        assert!(20_000_000 <= activity.watched_ns);
        assert!(activity.cpus.is_some_and(|cpus| !cpus.is_empty()));
    }

    proptest! {
        #[test]
        fn no_contents_make_it_panic(text in "(CPU[0-9]{0,12}| |:|[0-9]{1,25}|\\n|\\PC){0,60}") {
            let _ = device_interrupts(&text);
        }
    }
}
