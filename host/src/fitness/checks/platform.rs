//! Which kernel and machine are beneath: is there io_uring, and is it a guest?

use super::{Check, Judgement, Needs, fail, pass, unknown, warn};
use crate::fitness::{Seen, UringTrial};

/// The oldest kernel on which our ring can be used.
const URING_KERNEL_MIN: (u32, u32) = (6, 1);

pub(super) const CHECKS: &[Check] = &[
    Check::new(
        "/proc",
        proc,
        "CPU time of servers, steal and other load are read there: without it a result can't be trusted",
    ),
    Check::new(
        "/sys",
        sys,
        "what cpus share, and how their clock is governed, is read there: without it they are chosen blindly",
    ),
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
        "our ring needs Linux 6.1 or later; what makes an echo cheap came with kernels up to 6.17",
    )
    .needs(Needs::Uring),
];

fn proc(seen: &Seen) -> Judgement {
    const CURE: &str = "# mount -t proc proc /proc";
    match seen.proc_mounted {
        None => unknown("nobody looked", CURE),
        Some(true) => pass("mounted"),
        Some(false) => fail("it is not mounted, or tells nothing of processes", CURE),
    }
}

fn sys(seen: &Seen) -> Judgement {
    const CURE: &str = "# mount -t sysfs sysfs /sys";
    match seen.sys_mounted {
        None => unknown("nobody looked", CURE),
        Some(true) => pass("mounted"),
        Some(false) => warn("it is not mounted, or tells nothing of cpus", CURE),
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
        Some(version) if version < URING_KERNEL_MIN => fail(
            release.clone(),
            "boot Linux 6.1 or later, or measure with --for epoll",
        ),
        Some(_) => pass(release.clone()),
    }
}
