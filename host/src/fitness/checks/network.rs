//! Will the kernel's TCP change the figures: steering, accounting, pacing, buffers, queues?

use super::{Check, Judgement, Needs, fail, pass, unknown, warn};
use crate::{
    counters::IrqTimeAccounting,
    fitness::Seen,
    units::{counted, show_count, show_size},
};

/// The backlog that our server asks for.
const BACKLOG: u64 = 4_096;
/// Below this a buffer that grows by itself stops before a loopback connection with a pipeline is full.
const BUFFER_BYTES_MIN: u64 = 1 << 20;

pub(super) const CHECKS: &[Check] = &[
    Check::new(
        "RPS and XPS",
        steering,
        "receive steering hands work to another cpu by an interrupt: latency goes up, and CPU is charged elsewhere",
    ),
    Check::new(
        "irq accounting",
        irq_accounting,
        "with it on, soft interrupts inside a server's sends are not in its CPU per message, which looks too small",
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
];

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
            "the kernel does not tell",
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
        "{} for {}",
        counted(ports, "port"),
        counted(connections, "connection")
    );
    if ports < connections {
        fail(value, CURE)
    } else if ports < 2 * connections {
        warn(value, CURE)
    } else {
        pass(value)
    }
}
