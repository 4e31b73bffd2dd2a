//! What does the kernel do to every process: how it reads the clock, what a system call costs, what it holds up?

use super::{Check, Judgement, fail, pass, unknown, warn};
use crate::{
    fitness::{CpuQuota, Seen},
    units::counted,
};

pub(super) const CHECKS: &[Check] = &[
    Check::new(
        "clocksource",
        clocksource,
        "a clock that can't be read in user space costs a system call or more for each of our readings",
    ),
    Check::new(
        "mitigations",
        mitigations,
        "mitigations make system calls dearer, epoll's more than io_uring's: ratios differ from machines without them",
    ),
    Check::new(
        "huge pages",
        huge_pages,
        "where they are forced on every process, the kernel may stop a process to make room: stalls of milliseconds",
    ),
    Check::new(
        "cpu quota",
        cpu_quota,
        "a process whose group has used up its quota (cpu.max) sleeps until the next period: stalls of tens of milliseconds",
    ),
];

fn clocksource(seen: &Seen) -> Judgement {
    // These are read in user space (vDSO): arch/x86/entry/vdso, arch/arm64 and arch/riscv alike.
    const FAST: [&str; 5] = [
        "tsc",
        "kvm-clock",
        "hyperv_clocksource_tsc_page",
        "arch_sys_counter",
        "riscv_clocksource",
    ];
    const SLOW: [&str; 5] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"];
    match seen.facts.clocksource.as_deref() {
        None => unknown("it can't be read", "mount /sys"),
        Some(source) if FAST.contains(&source) => pass(source),
        Some(source) if SLOW.contains(&source) => fail(
            source,
            "# echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource, \
             or boot with tsc=reliable if the machine's tsc is steady",
        ),
        Some(source) => warn(
            format!("{source}: maybe not readable in user space"),
            "see available_clocksource in /sys/devices/system/clocksource/clocksource0 for tsc",
        ),
    }
}

fn mitigations(seen: &Seen) -> Judgement {
    /// How the states begin that are paid at each entry into the kernel. (Enhanced IBRS is paid once.)
    const DEAR: [&str; 5] = ["PTI", "IBRS", "untrained", "Safe RET", "Clear CPU buffers"];
    let all = &seen.facts.mitigations;
    if all.is_empty() {
        return unknown(
            "the kernel does not tell",
            "mount /sys, or use a kernel since 4.15",
        );
    }
    let dear: Vec<&str> = all
        .iter()
        .filter(|(_, state)| {
            let how = state.strip_prefix("Mitigation: ").unwrap_or_default();
            DEAR.iter().any(|word| how.starts_with(word))
        })
        .map(|(name, _)| name.as_str())
        .collect();
    let count = all
        .values()
        .filter(|state| state.starts_with("Mitigation"))
        .count();
    if dear.is_empty() {
        return pass(format!("{count} in force, none paid at each system call"));
    }
    warn(
        format!("paid at each system call: {}", dear.join(", ")),
        "leave them on where others' code runs; to compare with machines without: boot with mitigations=off",
    )
}

fn huge_pages(seen: &Seen) -> Judgement {
    match seen.facts.transparent_hugepages.as_deref() {
        None => unknown("the kernel does not tell", "mount /sys"),
        Some("always") => warn(
            "always",
            "# echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        Some(setting) => pass(setting),
    }
}

fn cpu_quota(seen: &Seen) -> Judgement {
    match seen.cpu_quota {
        None => unknown("no control group can be read", "mount /sys/fs/cgroup"),
        Some(CpuQuota::Unlimited) => pass("none"),
        Some(CpuQuota::Cpus(quota)) if quota < seen.cpus.len() as f64 => fail(
            format!(
                "{quota:.2} cpus' worth for {}",
                counted(seen.cpus.len() as u64, "cpu")
            ),
            "# echo max > cpu.max in the group of this process (see /proc/self/cgroup); \
             in a container: run it without a cpu limit",
        ),
        Some(CpuQuota::Cpus(quota)) => pass(format!("{quota:.2} cpus' worth, enough for all")),
    }
}
