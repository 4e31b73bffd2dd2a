//! What else ran on the chosen cpus while they were watched?

use super::{Check, Judgement, Needs, fail, pass, unknown, warn};
use crate::{counters::CpuTimes, fitness::Seen};

/// Steal, or work of others, above this share is warned of.
const NOISE_MAX: f64 = 0.01;
/// Above this share the latency can't be called the server's.
const NOISE_FAIL: f64 = 0.25;
/// Device interrupts per second on the chosen cpus: each takes some microseconds from whoever runs.
const INTERRUPTS_PER_S_MAX: f64 = 200.0;

pub(super) const CHECKS: &[Check] = &[
    Check::new(
        "steal",
        steal,
        "the hypervisor ran another guest: messages wait that long, whatever server and client do",
    )
    .needs(Needs::Watching),
    Check::new(
        "cpu pressure",
        pressure,
        "a task was ready to run and had no cpu: with more tasks than cpus, latency is the scheduler's",
    )
    .needs(Needs::Watching),
    Check::new(
        "other load",
        other_load,
        "other work on the chosen cpus takes time from server and client: noise in every figure",
    )
    .needs(Needs::Watching),
    Check::new(
        "interrupts",
        interrupts,
        "each interrupt of a device takes some microseconds from the server or client that it hits",
    )
    .needs(Needs::Watching),
];

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
            "end what else runs: `echometer jitter` names it; compare with --priority nice or rt keeps it off the servers' cpu",
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
        "end what else runs (`echometer jitter` names it), choose idle cpus with --cpus, or raise the servers above it \
         (--priority nice or rt)",
    )
}

fn interrupts(seen: &Seen) -> Judgement {
    let activity = seen.activity.as_ref();
    let Some(rate) = activity.and_then(|activity| activity.interrupts_per_s(&seen.cpus)) else {
        return unknown("/proc/interrupts can't be read", "mount /proc");
    };
    let value = format!(
        "{rate:.0} device interrupts per second on cpu {}",
        seen.cpus
    );
    if rate <= INTERRUPTS_PER_S_MAX {
        return pass(value);
    }
    warn(
        value,
        "# systemctl stop irqbalance; echo OTHER_CPUS > /proc/irq/NUMBER/smp_affinity_list \
         (/proc/interrupts has the numbers)",
    )
}

fn watched(seen: &Seen) -> Option<CpuTimes> {
    let activity = seen.activity.as_ref()?;
    let times = activity.of(&seen.cpus)?;
    (0 < times.total_ns()).then_some(times)
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

fn no_account() -> Judgement {
    unknown("/proc/stat does not account for these cpus", "mount /proc")
}
