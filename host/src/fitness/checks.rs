//! The checks: a table of names and reasons, each with a pure function from what was seen to a grade, a value and a cure.

use super::{CpuQuota, Finding, Grade, Seen, UringTrial, Use};
use crate::{
    counters::{CpuTimes, IrqTimeAccounting},
    cpus::CpuList,
    machine::LimitFact,
    topology::Cpu,
    units::{show_count, show_size},
};

/// Judges what was seen. Checks that need watching are left out where nobody watched, those of io_uring where epoll is
/// asked about. The order is that of the table; readers sort by grade.
#[must_use]
pub fn judge(seen: &Seen) -> Vec<Finding> {
    let applies = |check: &&Check| match check.needs {
        Needs::Nothing => true,
        Needs::Watching => seen.activity.is_some(),
        Needs::Uring => seen.engine == Use::Uring,
        Needs::Connections => seen.connections.is_some(),
    };
    CHECKS
        .iter()
        .filter(applies)
        .map(|check| check.judge(seen))
        .collect()
}

/// One check.
struct Check {
    name: &'static str,
    /// Why it matters, and what it does to the figures.
    why: &'static str,
    needs: Needs,
    judge: fn(&Seen) -> Judgement,
}

enum Needs {
    Nothing,
    Watching,
    Uring,
    Connections,
}

/// A grade, a value, a cure.
struct Judgement(Grade, String, Option<String>);

impl Check {
    const fn new(name: &'static str, judge: fn(&Seen) -> Judgement, why: &'static str) -> Self {
        Self {
            name,
            why,
            needs: Needs::Nothing,
            judge,
        }
    }

    const fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }

    fn judge(&self, seen: &Seen) -> Finding {
        let Judgement(grade, value, cure) = (self.judge)(seen);
        Finding {
            check: self.name.to_owned(),
            grade,
            value,
            why: self.why.to_owned(),
            cure,
        }
    }
}

/// Steal, or work of others, above this share is warned of.
const NOISE_MAX: f64 = 0.01;
/// Above this share there is no telling whose latency it is.
const NOISE_FAIL: f64 = 0.25;
/// A sleep that takes longer to wake from is seen at the median of an echo on loopback, which is some tens of
/// microseconds.
const EXIT_US_MAX: u64 = 2;
/// Interrupts of devices a second on the chosen cpus: each takes some microseconds from whoever runs.
const INTERRUPTS_PER_S_MAX: f64 = 200.0;
/// The backlog that our server asks for.
const BACKLOG: u64 = 4_096;
/// Below this a buffer that grows by itself stops before a loopback connection with a pipeline is full.
const BUFFER_BYTES_MIN: u64 = 1 << 20;
/// What rings with registered buffers ask for, with room for a second server.
const MEMLOCK_BYTES_MIN: u64 = 8 << 20;

const CHECKS: [Check; 30] = [
    Check::new(
        "cpus",
        cpus,
        "server and client need a cpu each, or each waits for the other and both are measured",
    ),
    Check::new(
        "SMT siblings",
        siblings,
        "two threads of one core share its execution units: each slows the other by tens of per cent, as it pleases",
    ),
    Check::new(
        "shared cache",
        shared_cache,
        "cpus without a common level-3 cache pass every message over the interconnect: latency and CPU go up",
    ),
    Check::new(
        "NUMA node",
        numa_node,
        "memory of another node is half as fast again: it shows in CPU a message, differently from run to run",
    ),
    Check::new(
        "isolcpus",
        isolated,
        "the scheduler puts other tasks on cpus that are not isolated: a tail of milliseconds that is not the server's",
    ),
    Check::new(
        "nohz_full",
        nohz_full,
        "the timer's tick interrupts a busy cpu 100 to 1,000 times a second, some microseconds each: seen at p99.9",
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
        "where they are forced on everybody, the kernel may stop a process to make room: stalls of milliseconds",
    ),
    Check::new(
        "cpu quota",
        cpu_quota,
        "who has used up the group's quota (cpu.max) sleeps until the next period: stalls of tens of milliseconds",
    ),
    Check::new(
        "steal",
        steal,
        "the hypervisor ran somebody else: every message waits that long, and it is nobody's fault here",
    )
    .needs(Needs::Watching),
    Check::new(
        "cpu pressure",
        pressure,
        "somebody was ready to run and had no cpu: with more tasks than cpus, latency is the scheduler's",
    )
    .needs(Needs::Watching),
    Check::new(
        "other load",
        other_load,
        "what else runs on the chosen cpus takes its turns from server and client: noise in every figure",
    )
    .needs(Needs::Watching),
    Check::new(
        "interrupts",
        interrupts,
        "each interrupt of a device takes some microseconds from the server or client that it hits",
    )
    .needs(Needs::Watching),
    Check::new(
        "RPS and XPS",
        steering,
        "receive steering hands work to another cpu by an interrupt: latency goes up, and CPU is charged elsewhere",
    ),
    Check::new(
        "irq accounting",
        irq_accounting,
        "with it on, soft interrupts inside a server's sends are not in its CPU a message, which looks too small",
    ),
    Check::new(
        "busy_poll",
        busy_poll,
        "sockets then spin in the kernel for their device: lower latency, for CPU that is charged to the server",
    ),
    Check::new(
        "congestion",
        congestion,
        "an algorithm that paces (bbr) holds sends back by timers: CPU and latency that are not the server's",
    ),
    Check::new(
        "socket buffers",
        socket_buffers,
        "where buffers can't grow, large or pipelined messages stop and wait for room",
    ),
    Check::new(
        "somaxconn",
        somaxconn,
        "it caps every backlog: a burst of more connections than that waits a second or more for a new SYN",
    ),
    Check::new(
        "SYN backlog",
        syn_backlog,
        "where SYN cookies are off, the SYNs of connections beyond three quarters of it are dropped: late connects",
    ),
    Check::new(
        "port range",
        port_range,
        "each connection to one address needs a port of its own, also for a minute after it was closed",
    )
    .needs(Needs::Connections),
    Check::new(
        "open files",
        open_files,
        "each connection is a descriptor in the client and one in the server: beyond the limit they fail",
    )
    .needs(Needs::Connections),
    Check::new(
        "locked memory",
        locked_memory,
        "older kernels charge rings, and all of them registered buffers, to this limit: set-up fails beyond it",
    )
    .needs(Needs::Uring),
    Check::new(
        "io_uring",
        io_uring,
        "a kernel, a sysctl or a container's seccomp filter may forbid it: then there is nothing to compare",
    )
    .needs(Needs::Uring),
    Check::new(
        "hypervisor",
        hypervisor,
        "a guest shares its cpus, caches and clock with neighbours: trust ratios with intervals, not times",
    ),
    Check::new(
        "kernel",
        kernel,
        "io_uring gained what makes an echo cheap in 5.19 to 6.17: an older kernel's ring is another program",
    )
    .needs(Needs::Uring),
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
        "# echo off > /sys/devices/system/cpu/smt/control, or choose one thread a core with --cpus",
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
            format!("{quota:.2} cpus' worth for {} cpus", seen.cpus.len()),
            "# echo max > cpu.max in the group of this process (see /proc/self/cgroup); \
             in a container: run it without a cpu limit",
        ),
        Some(CpuQuota::Cpus(quota)) => pass(format!("{quota:.2} cpus' worth, enough for all")),
    }
}

fn steal(seen: &Seen) -> Judgement {
    let Some(times) = watched(seen) else {
        return no_account();
    };
    let share = times.steal_ratio();
    noise(
        share,
        &format!("{} of the time", percent(share)),
        "move to a host that is less busy or has dedicated cpus; until then, more blocks (--blocks)",
    )
}

fn pressure(seen: &Seen) -> Judgement {
    match seen.activity.as_ref().and_then(|seen| seen.cpu_pressure) {
        None => unknown(
            "the kernel keeps no account of pressure",
            "boot with psi=1, where the kernel has CONFIG_PSI",
        ),
        // It is the whole machine's, so that it never fails by itself.
        Some(share) if share <= NOISE_MAX => pass(format!("{} of the time", percent(share))),
        Some(share) => warn(
            format!("{} of the time", percent(share)),
            "end what else runs: top shows it",
        ),
    }
}

fn other_load(seen: &Seen) -> Judgement {
    let Some(times) = watched(seen) else {
        return no_account();
    };
    let share = times.busy_ns() as f64 / times.total_ns().max(1) as f64;
    let value = format!("cpu {} busy {} of the time", seen.cpus, percent(share));
    // The look itself, and a tick of 10 ms that fell into it, are no other load.
    if share <= 2.0 * NOISE_MAX {
        return pass(value);
    }
    noise(
        share,
        &value,
        "end what else runs (top shows it), or choose idle cpus with --cpus",
    )
}

fn interrupts(seen: &Seen) -> Judgement {
    let activity = seen.activity.as_ref();
    let Some(rate) = activity.and_then(|activity| activity.interrupts_per_s(&seen.cpus)) else {
        return unknown("/proc/interrupts can't be read", "mount /proc");
    };
    let value = format!("{rate:.0} of devices a second on cpu {}", seen.cpus);
    if rate <= INTERRUPTS_PER_S_MAX {
        return pass(value);
    }
    warn(
        value,
        "# systemctl stop irqbalance; echo OTHER_CPUS > /proc/irq/NUMBER/smp_affinity_list \
         (/proc/interrupts has the numbers)",
    )
}

fn steering(seen: &Seen) -> Judgement {
    let Some(steering) = &seen.steering else {
        return unknown("no network device is visible", "mount /sys");
    };
    let receiving: Vec<String> = steering
        .iter()
        .filter(|queue| queue.receives)
        .map(|queue| format!("{} to cpu {}", queue.queue, queue.cpus))
        .collect();
    if !receiving.is_empty() {
        return warn(
            format!("RPS moves {}", receiving.join(", ")),
            "# echo 0 > /sys/class/net/DEVICE/queues/QUEUE/rps_cpus",
        );
    }
    match steering.len() {
        0 => pass("off"),
        queues => pass(format!("no RPS; XPS binds {queues} sending queues to cpus")),
    }
}

fn irq_accounting(seen: &Seen) -> Judgement {
    match seen.facts.irq_time_accounting {
        Some(IrqTimeAccounting::Off) => pass("off"),
        Some(IrqTimeAccounting::On) => warn(
            "on",
            "boot with tsc=noirqtime (Linux 6.14), or add the column 'cpu softirq' when comparing CPU",
        ),
        Some(IrqTimeAccounting::Unknown) | None => unknown(
            "the kernel gives no sign",
            "boot with psi=1: /proc/pressure/irq shows it",
        ),
    }
}

fn busy_poll(seen: &Seen) -> Judgement {
    match seen.facts.busy_poll_us {
        None => unknown(
            "the kernel has no such setting, or /proc is hidden",
            "mount /proc",
        ),
        Some(0) => pass("off"),
        Some(us) => warn(
            format!("{us} us"),
            "# sysctl --write net.core.busy_poll=0 net.core.busy_read=0",
        ),
    }
}

fn congestion(seen: &Seen) -> Judgement {
    match seen.facts.tcp_congestion_control.as_deref() {
        None => unknown("it can't be read", "mount /proc"),
        Some(paced) if paced.starts_with("bbr") => warn(
            paced,
            "# sysctl --write net.ipv4.tcp_congestion_control=cubic",
        ),
        Some(algorithm) => pass(algorithm),
    }
}

fn socket_buffers(seen: &Seen) -> Judgement {
    let most = |text: &Option<String>| -> Option<u64> {
        text.as_ref()?.split(' ').next_back()?.parse().ok()
    };
    let (Some(receive), Some(send)) = (most(&seen.facts.tcp_rmem), most(&seen.facts.tcp_wmem))
    else {
        return unknown("they can't be read", "mount /proc");
    };
    let value = format!(
        "up to {} to receive, {} to send",
        show_size(receive),
        show_size(send)
    );
    if BUFFER_BYTES_MIN <= receive.min(send) {
        return pass(value);
    }
    warn(
        value,
        "# sysctl --write net.ipv4.tcp_rmem='4096 131072 6291456' net.ipv4.tcp_wmem='4096 16384 4194304'",
    )
}

fn somaxconn(seen: &Seen) -> Judgement {
    at_least(
        seen.facts.somaxconn,
        BACKLOG,
        "# sysctl --write net.core.somaxconn=4096",
    )
}

fn syn_backlog(seen: &Seen) -> Judgement {
    at_least(
        seen.facts.tcp_max_syn_backlog,
        1_024,
        "# sysctl --write net.ipv4.tcp_max_syn_backlog=4096",
    )
}

fn at_least(value: Option<u64>, least: u64, cure: &str) -> Judgement {
    match value {
        None => unknown("it can't be read", "mount /proc"),
        Some(value) if least <= value => pass(show_count(value)),
        Some(value) => warn(
            format!("{}, below {}", show_count(value), show_count(least)),
            cure,
        ),
    }
}

fn port_range(seen: &Seen) -> Judgement {
    const CURE: &str = "# sysctl --write net.ipv4.ip_local_port_range='1024 65535'";
    let Some((first, last)) = seen.facts.port_range else {
        return unknown("it can't be read", "mount /proc");
    };
    let ports = u64::from(last.saturating_sub(first)) + 1;
    let connections = seen.connections.unwrap_or_default();
    let value = format!(
        "{} ports for {} connections",
        show_count(ports),
        show_count(connections)
    );
    if ports < connections {
        fail(value, CURE)
    } else if ports < 2 * connections {
        warn(value, CURE)
    } else {
        pass(value)
    }
}

fn open_files(seen: &Seen) -> Judgement {
    // What a program holds besides its connections, generously.
    let needed = seen.connections.unwrap_or_default() + 256;
    let Some(LimitFact { soft, hard }) = seen.facts.nofile else {
        return unknown("the limit can't be read", "none");
    };
    let show = |limit: Option<u64>| limit.map_or("no limit".to_owned(), show_count);
    if hard.is_some_and(|hard| hard < needed) {
        return fail(
            format!(
                "{} at most, and {} are needed",
                show(hard),
                show_count(needed)
            ),
            format!(
                "# prlimit --nofile={needed} --pid PID_OF_YOUR_SHELL; for good: LimitNOFILE= or /etc/security/limits.conf"
            ),
        );
    }
    match soft {
        Some(soft) if soft < needed => pass(format!(
            "{} now, raised by our programs to {}",
            show_count(soft),
            show_count(needed)
        )),
        soft => pass(show(soft)),
    }
}

fn locked_memory(seen: &Seen) -> Judgement {
    match seen.facts.memlock_bytes {
        None => unknown("the limit can't be read", "none"),
        Some(LimitFact {
            soft: Some(soft), ..
        }) if soft < MEMLOCK_BYTES_MIN => warn(
            show_size(soft),
            format!(
                "# prlimit --memlock={MEMLOCK_BYTES_MIN} --pid PID_OF_YOUR_SHELL; for good: LimitMEMLOCK= or \
                 /etc/security/limits.conf"
            ),
        ),
        Some(limit) => pass(limit.soft.map_or("no limit".to_owned(), show_size)),
    }
}

fn io_uring(seen: &Seen) -> Judgement {
    const ALLOW: &str = "# sysctl --write kernel.io_uring_disabled=0";
    match (&seen.uring, seen.facts.io_uring_disabled) {
        (Some(UringTrial::Works), _) => pass("a ring was set up"),
        (Some(UringTrial::Refused(why)), _) => fail(why.clone(), "see echometer-server probe"),
        (None, Some(2)) => fail("forbidden by sysctl", ALLOW),
        (None, Some(1)) => warn("for the privileged, or a group, only", ALLOW),
        (None, Some(_)) => pass("allowed by sysctl"),
        (None, None) => unknown(
            "this kernel has no such switch",
            "echometer doctor and echometer-server probe try it out",
        ),
    }
}

fn hypervisor(seen: &Seen) -> Judgement {
    match seen.facts.hypervisor.as_deref() {
        None => unknown("no sign either way", "none: ask whoever runs the machine"),
        Some("none") => pass("none: bare metal"),
        Some(name) => {
            let name = if name == "unknown" {
                "one without a name"
            } else {
                name
            };
            warn(name, "measure on bare metal where times matter")
        }
    }
}

fn kernel(seen: &Seen) -> Judgement {
    let Some(release) = &seen.facts.kernel else {
        return unknown("/proc does not tell", "mount /proc");
    };
    match crate::kernel::version_of(release) {
        None => unknown(release.clone(), "none: its version can't be read from that"),
        Some(version) if version < (5, 19) => fail(
            release.clone(),
            "boot Linux 5.19 or later (6.1 or later is better), or measure with --for epoll",
        ),
        Some(version) if version < (6, 1) => warn(
            release.clone(),
            "boot Linux 6.1 or later: task work is then run when the ring waits, and not in between",
        ),
        Some(_) => pass(release.clone()),
    }
}

/// The chosen cpus as far as the topology knows them; none if it does not know them all.
fn chosen(seen: &Seen) -> Option<Vec<&Cpu>> {
    let topology = seen.topology.as_ref()?;
    seen.cpus.iter().map(|cpu| topology.cpu(cpu)).collect()
}

fn watched(seen: &Seen) -> Option<CpuTimes> {
    let activity = seen.activity.as_ref()?;
    let times = activity.of(&seen.cpus)?;
    (0 < times.total_ns()).then_some(times)
}

fn is_guest(seen: &Seen) -> bool {
    !matches!(seen.facts.hypervisor.as_deref(), Some("none"))
}

fn noise(share: f64, value: &str, cure: &str) -> Judgement {
    if share <= NOISE_MAX {
        pass(value)
    } else if share <= NOISE_FAIL {
        warn(value, cure)
    } else {
        fail(value, cure)
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn no_topology() -> Judgement {
    unknown(
        "sysfs does not describe all of these cpus",
        "mount /sys, or name online cpus with --cpus",
    )
}

fn no_account() -> Judgement {
    unknown("/proc/stat does not account for these cpus", "mount /proc")
}

fn pass(value: impl Into<String>) -> Judgement {
    Judgement(Grade::Pass, value.into(), None)
}

fn warn(value: impl Into<String>, cure: impl Into<String>) -> Judgement {
    Judgement(Grade::Warn, value.into(), Some(cure.into()))
}

fn fail(value: impl Into<String>, cure: impl Into<String>) -> Judgement {
    Judgement(Grade::Fail, value.into(), Some(cure.into()))
}

fn unknown(value: impl Into<String>, cure: impl Into<String>) -> Judgement {
    Judgement(Grade::Unknown, value.into(), Some(cure.into()))
}

#[cfg(test)]
mod tests;
