//! Are the chosen cpus fit: enough of them, apart from each other and from other work, at a steady clock, awake?

use std::collections::BTreeMap;

use super::{Check, Judgement, fail, pass, unknown, warn};
use crate::{cpus::CpuList, fitness::Seen, topology::Cpu};

/// A sleep that takes longer to wake from is seen at the median of an echo on loopback, which is some tens of
/// microseconds.
const EXIT_US_MAX: u64 = 2;

pub(super) const CHECKS: &[Check] = &[
    Check::new(
        "cpus",
        cpus,
        "server and client need a cpu each, or each waits for the other and both are measured",
    ),
    Check::new(
        "SMT siblings",
        siblings,
        "two threads of one core share its execution units: each slows the other by tens of per cent, unpredictably",
    ),
    Check::new(
        "like cpus",
        like_cpus,
        "cores of different kinds are different machines: what is measured depends on who runs where",
    ),
    Check::new(
        "shared cache",
        shared_cache,
        "cpus without a common level-3 cache pass every message over the interconnect: latency and CPU go up",
    ),
    Check::new(
        "NUMA node",
        numa_node,
        "memory of another node is slower to reach: it shows in CPU per message, differently from run to run",
    ),
    Check::new(
        "isolcpus",
        isolated,
        "the scheduler puts other tasks on cpus that are not isolated: a tail of milliseconds that is not the server's",
    ),
    Check::new(
        "nohz_full",
        nohz_full,
        "the timer's tick interrupts a busy cpu 100 to 1,000 times per second, some microseconds each: seen at p99.9",
    ),
    Check::new(
        "governor",
        governor,
        "a governor that follows the load lowers the clock in pauses: light loads look slower than heavy ones",
    ),
    Check::new(
        "boost",
        boost,
        "above its nominal frequency the clock depends on temperature and on the other cores: figures drift",
    ),
    Check::new(
        "C-states",
        c_states,
        "waking from a deep sleep is added to the latency of every message that finds the cpu asleep",
    ),
];

fn cpus(seen: &Seen) -> Judgement {
    let allowed = seen.facts.cpus_allowed.as_ref();
    let outside = allowed.map(|allowed| seen.cpus.difference(allowed));
    if let Some(outside) = outside.filter(|outside| !outside.is_empty()) {
        return fail(
            format!("cpu {outside} is offline, or outside this process's mask"),
            "name others with --cpus, or widen the mask: taskset --cpu-list LIST COMMAND",
        );
    }
    match seen.cpus.len() {
        0 => unknown("no cpu list can be read", "mount /proc and /sys"),
        count if count < seen.cpus_min => fail(
            format!("only cpu {}", seen.cpus),
            "give the (virtual) machine a second cpu, or widen the mask or the container's cpuset",
        ),
        _ => pass(format!("cpu {}", seen.cpus)),
    }
}

fn siblings(seen: &Seen) -> Judgement {
    let Some(chosen) = chosen(seen) else {
        return no_topology();
    };
    let online = seen
        .topology
        .as_ref()
        .map(crate::topology::Topology::online);
    let online = online.unwrap_or_default();
    let mut shared = Vec::new();
    for cpu in &chosen {
        let others: CpuList = cpu
            .siblings
            .intersection(&online)
            .iter()
            .filter(|&other| other != cpu.id)
            .collect();
        if !others.is_empty() {
            shared.push(format!("{} with {others}", cpu.id));
        }
    }
    if shared.is_empty() {
        let guest = is_guest(seen);
        let hidden = if guest {
            " (a guest may not be told)"
        } else {
            ""
        };
        return pass(format!("no core is shared{hidden}"));
    }
    warn(
        format!("cpu {}", shared.join(", ")),
        "# echo off > /sys/devices/system/cpu/smt/control, or choose one thread per core with --cpus",
    )
}

fn like_cpus(seen: &Seen) -> Judgement {
    let Some(chosen) = chosen(seen) else {
        return no_topology();
    };
    let mut kinds: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for cpu in &chosen {
        let Some(kind) = cpu.kind.describe() else {
            return unknown(
                "the kernel does not tell what kind of core each cpu is on",
                "none: in a guest the host knows; lscpu --extended shows what is told",
            );
        };
        kinds.entry(kind).or_default().push(cpu.id);
    }
    if kinds.len() < 2 {
        return pass("one kind of core for all");
    }
    let named: Vec<String> = kinds
        .into_iter()
        .map(|(kind, cpus)| format!("cpu {}: {kind}", CpuList::from_iter(cpus)))
        .collect();
    warn(
        named.join(", "),
        "choose cpus of one kind with --cpus; cpu_capacity below /sys/devices/system/cpu/cpu*, \
         or /sys/devices/cpu_core/cpus, shows which",
    )
}

fn shared_cache(seen: &Seen) -> Judgement {
    of_one("level-3 cache", seen, |cpu| cpu.l3)
}

fn numa_node(seen: &Seen) -> Judgement {
    of_one("node", seen, |cpu| cpu.node)
}

/// Whether the chosen cpus have one and the same.
fn of_one(what: &str, seen: &Seen, of: fn(&Cpu) -> Option<u32>) -> Judgement {
    let Some(chosen) = chosen(seen) else {
        return no_topology();
    };
    let all: Option<Vec<u32>> = chosen.iter().map(|cpu| of(cpu)).collect();
    let Some(mut all) = all else {
        return unknown(
            format!("sysfs does not tell the {what} of each cpu"),
            "none: it is the hypervisor's or the firmware's to tell",
        );
    };
    all.sort_unstable();
    all.dedup();
    match all.len() {
        0 | 1 => pass(format!("one {what} for all")),
        count => warn(
            format!("{count} of them"),
            format!("choose cpus of one {what} with --cpus; lscpu --extended shows which"),
        ),
    }
}

fn isolated(seen: &Seen) -> Judgement {
    kept_apart(
        seen,
        seen.facts.cpus_isolated.as_ref(),
        "isolated",
        "isolcpus=managed_irq,domain",
    )
}

fn nohz_full(seen: &Seen) -> Judgement {
    kept_apart(
        seen,
        seen.facts.cpus_nohz_full.as_ref(),
        "free of the tick",
        "nohz_full",
    )
}

fn kept_apart(seen: &Seen, apart: Option<&CpuList>, word: &str, parameter: &str) -> Judgement {
    let Some(apart) = apart else {
        return unknown(
            "this kernel does not tell",
            format!("boot a kernel that knows it, with {parameter}=LIST"),
        );
    };
    let exposed = seen.cpus.difference(apart);
    if exposed.is_empty() {
        return pass(format!("cpu {} is {word}", seen.cpus));
    }
    let all = seen.facts.cpus_online.as_ref() == Some(&exposed);
    let cure = if all {
        format!(
            "on a machine with cpus to spare: boot with {parameter}=LIST, then choose LIST with --cpus"
        )
    } else {
        format!("boot with {parameter}={exposed}")
    };
    warn(format!("cpu {exposed} is not {word}"), cure)
}

fn governor(seen: &Seen) -> Judgement {
    match &seen.facts.governor {
        None => unknown(
            "no frequency control is visible",
            "none: in a guest the host sets the clock",
        ),
        Some(governors)
            if governors
                .split(", ")
                .all(|governor| governor.starts_with("performance")) =>
        {
            pass(governors.clone())
        }
        Some(governors) => warn(
            governors.clone(),
            "# scripts/tune-host.sh --apply, or cpupower frequency-set --governor performance",
        ),
    }
}

fn boost(seen: &Seen) -> Judgement {
    match seen.facts.boost {
        None => unknown(
            "it can't be seen from here",
            "none: in a guest the host decides",
        ),
        Some(false) => pass("off"),
        Some(true) => warn(
            "on",
            "# echo 0 > /sys/devices/system/cpu/cpufreq/boost \
             (Intel: echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo)",
        ),
    }
}

fn c_states(seen: &Seen) -> Judgement {
    let Some(deepest) = seen.idle_states.as_ref().and_then(|states| states.last()) else {
        return unknown(
            "no sleep states are visible",
            "none: in a guest the host puts cpus to sleep",
        );
    };
    let value = format!("{}, {} us to wake from", deepest.name, deepest.exit_us);
    if deepest.exit_us <= EXIT_US_MAX {
        return pass(format!("deepest is {value}"));
    }
    warn(
        format!("down to {value}"),
        format!(
            "# cpupower idle-set --disable-by-latency {EXIT_US_MAX}, or scripts/tune-host.sh --apply"
        ),
    )
}

/// The chosen cpus as far as the topology knows them; none if it does not know them all.
fn chosen(seen: &Seen) -> Option<Vec<&Cpu>> {
    let topology = seen.topology.as_ref()?;
    seen.cpus.iter().map(|cpu| topology.cpu(cpu)).collect()
}

fn is_guest(seen: &Seen) -> bool {
    !matches!(seen.facts.hypervisor.as_deref(), Some("none"))
}

fn no_topology() -> Judgement {
    unknown(
        "sysfs does not describe all of these cpus",
        "mount /sys, or name online cpus with --cpus",
    )
}
