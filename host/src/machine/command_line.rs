//! Which boot parameters bear on timing? An allow-list from the kernel's command line: the rest (disks,
//! addresses, keys of provisioning systems) is nobody's business and never enters a file.

use std::collections::BTreeMap;

use super::files::Files;

/// What a result may say of the command line, from Documentation/admin-guide/kernel-parameters.txt.
const ALLOWED: [&str; 38] = [
    "amd_pstate",
    "clocksource",
    "cpufreq.default_governor",
    "cpuidle.governor",
    "cpuidle.off",
    "cpuidle_haltpoll.force",
    "haltpoll.guest_halt_poll_ns",
    "idle",
    "intel_idle.max_cstate",
    "intel_pstate",
    "irqaffinity",
    "isolcpus",
    "kthread_cpus",
    "maxcpus",
    "mitigations",
    "nmi_watchdog",
    "no-steal-acc",
    "noirqdebug",
    "nohz",
    "nohz_full",
    "nopti",
    "nosmt",
    "nospectre_v2",
    "nowatchdog",
    "nr_cpus",
    "numa_balancing",
    "preempt",
    "processor.max_cstate",
    "psi",
    "pti",
    "rcu_nocbs",
    "rcu_nocb_poll",
    "skew_tick",
    "spec_store_bypass_disable",
    "spectre_v2",
    "threadirqs",
    "transparent_hugepage",
    "tsc",
];

/// The allowed parameters with their values; a parameter without a value has an empty one. Of those given
/// twice, the last holds, as it does for most of them in the kernel.
pub(super) fn read(files: &Files) -> BTreeMap<String, String> {
    files
        .text("proc/cmdline")
        .map(|text| parse(&text))
        .unwrap_or_default()
}

fn parse(text: &str) -> BTreeMap<String, String> {
    // What follows a lone `--` is for init.
    let words = text.split_whitespace().take_while(|&word| word != "--");
    let parameter = |word: &str| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        is_allowed(name).then(|| (name.to_owned(), value.to_owned()))
    };
    words.filter_map(parameter).collect()
}

/// The kernel takes `-` and `_` for the same in names.
fn is_allowed(name: &str) -> bool {
    let name = name.replace('-', "_");
    ALLOWED
        .iter()
        .any(|allowed| allowed.replace('-', "_") == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_bears_on_timing_is_kept() {
        let text = "BOOT_IMAGE=/vmlinuz root=UUID=5c1 ip=10.0.0.7 isolcpus=nohz,2-3 nohz-full=2-3 nosmt tsc=reliable \
                    hostname=secret mitigations=auto mitigations=off -- isolcpus=9 --token idle=poll";
        let kept: Vec<(String, String)> = parse(text).into_iter().collect();
        let expected = [
            ("isolcpus", "nohz,2-3"),
            ("mitigations", "off"),
            ("nohz-full", "2-3"),
            ("nosmt", ""),
            ("tsc", "reliable"),
        ];
        assert_eq!(
            kept,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn an_empty_line_says_nothing() {
        assert!(parse("").is_empty() && parse("--").is_empty());
    }
}
