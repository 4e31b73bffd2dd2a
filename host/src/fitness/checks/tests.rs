//! The checks over machines that are made up: each fault is found, and what is absent is never fine.

use std::collections::BTreeMap;

use super::*;
use crate::{
    counters::{CpuTimes, IrqTimeAccounting},
    cpus::CpuList,
    fitness::{Activity, CpuQuota, IdleState, Steering, UringTrial},
    machine::{Facts, LimitFact},
    topology::{CoreKind, Cpu, Topology},
};

fn all() -> impl Iterator<Item = &'static Check> {
    CHECKS.into_iter().flatten()
}

fn list(text: &str) -> CpuList {
    text.parse().expect("a test's list")
}

fn cpu(id: u32) -> Cpu {
    Cpu {
        id,
        core: Some(id),
        package: Some(0),
        node: Some(0),
        l3: Some(0),
        siblings: [id].into_iter().collect(),
        kind: CoreKind {
            capacity: Some(1_024),
            counters: None,
        },
    }
}

/// A machine on which everything is as it should be, and which was watched.
fn fit() -> Seen {
    let unlimited = LimitFact {
        soft: None,
        hard: None,
    };
    let idle = CpuTimes {
        idle_ns: 1_000_000_000,
        ..CpuTimes::default()
    };
    Seen {
        facts: Facts {
            cpus_online: Some(list("0-3")),
            cpus_allowed: Some(list("0-3")),
            cpus_isolated: Some(list("2-3")),
            cpus_nohz_full: Some(list("2-3")),
            hypervisor: Some("none".into()),
            kernel: Some("6.18.2".into()),
            mitigations: BTreeMap::from([("meltdown".into(), "Not affected".into())]),
            governor: Some("performance (intel_pstate)".into()),
            boost: Some(false),
            clocksource: Some("tsc".into()),
            transparent_hugepages: Some("madvise".into()),
            irq_time_accounting: Some(IrqTimeAccounting::Off),
            somaxconn: Some(4_096),
            tcp_max_syn_backlog: Some(4_096),
            tcp_congestion_control: Some("cubic".into()),
            tcp_rmem: Some("4096 131072 6291456".into()),
            tcp_wmem: Some("4096 16384 4194304".into()),
            busy_poll_us: Some(0),
            port_range: Some((32_768, 60_999)),
            io_uring_disabled: Some(0),
            nofile: Some(unlimited),
            memlock_bytes: Some(unlimited),
            ..Facts::default()
        },
        proc_mounted: Some(true),
        sys_mounted: Some(true),
        topology: Some(Topology {
            cpus: (0..4).map(cpu).collect(),
        }),
        cpus: list("2-3"),
        cpus_min: 2,
        connections: Some(1_000),
        engine: Use::Uring,
        idle_states: Some(vec![IdleState {
            name: "C1".into(),
            exit_us: 2,
        }]),
        cpu_quota: Some(CpuQuota::Unlimited),
        steering: Some(Vec::new()),
        uring: Some(UringTrial::Works),
        activity: Some(Activity {
            watched_ns: 1_000_000_000,
            cpus: Some([(2, idle), (3, idle)].into()),
            cpu_pressure: Some(0.0),
            device_interrupts: Some([(2, 10), (3, 0)].into()),
        }),
    }
}

/// The grade of one check on a machine that was changed.
fn grade(check: &str, change: impl FnOnce(&mut Seen)) -> Grade {
    let mut seen = fit();
    change(&mut seen);
    let findings = judge(&seen);
    let found = findings.iter().find(|finding| finding.check == check);
    found
        .unwrap_or_else(|| panic!("there is no check '{check}'"))
        .grade
}

fn busy(seen: &mut Seen, times: CpuTimes) {
    let activity = seen.activity.as_mut().expect("it was watched");
    activity.cpus = Some([(2, times), (3, times)].into());
}

#[test]
fn a_fit_machine_passes_everything() {
    let findings = judge(&fit());
    assert_eq!(findings.len(), all().count());
    for finding in findings {
        assert_eq!(finding.grade, Grade::Pass, "{finding:?}");
        assert_eq!(finding.cure, None, "{finding:?}");
    }
}

#[test]
fn a_machine_of_which_nothing_is_known_passes_nothing() {
    let seen = Seen {
        activity: Some(Activity::default()),
        connections: Some(1),
        ..Seen::default()
    };
    for finding in judge(&seen) {
        assert_eq!(finding.grade, Grade::Unknown, "{finding:?}");
        assert!(finding.cure.is_some() && !finding.value.is_empty());
    }
}

#[test]
fn each_fault_is_found() {
    use Grade::{Fail, Pass, Unknown, Warn};
    type Change = fn(&mut Seen);
    let cases: [(&str, Grade, Change); 51] = [
        ("cpus", Fail, |seen| seen.cpus = list("2")),
        ("cpus", Fail, |seen| seen.cpus = list("2,9")),
        ("SMT siblings", Warn, |seen| {
            let topology = seen.topology.as_mut().expect("there is one");
            topology.cpus[2].siblings = list("0,2");
        }),
        ("SMT siblings", Pass, |seen| {
            let topology = seen.topology.as_mut().expect("there is one");
            // Its sibling is offline.
            topology.cpus[2].siblings = list("2,6");
        }),
        ("like cpus", Warn, |seen| {
            let topology = seen.topology.as_mut().expect("there is one");
            topology.cpus[2].kind.capacity = Some(446);
        }),
        ("like cpus", Warn, |seen| {
            for (cpu, kind) in [(2, "core"), (3, "atom")] {
                let cpu = &mut seen.topology.as_mut().expect("there is one").cpus[cpu];
                cpu.kind = CoreKind {
                    capacity: None,
                    counters: Some(kind.into()),
                };
            }
        }),
        ("like cpus", Unknown, |seen| {
            seen.topology.as_mut().expect("there is one").cpus[3].kind = CoreKind::default();
        }),
        ("/proc", Fail, |seen| seen.proc_mounted = Some(false)),
        ("/sys", Warn, |seen| seen.sys_mounted = Some(false)),
        ("shared cache", Warn, |seen| {
            seen.topology.as_mut().expect("there is one").cpus[3].l3 = Some(3);
        }),
        ("shared cache", Unknown, |seen| {
            seen.topology.as_mut().expect("there is one").cpus[3].l3 = None;
        }),
        ("NUMA node", Warn, |seen| {
            seen.topology.as_mut().expect("there is one").cpus[3].node = Some(1);
        }),
        ("isolcpus", Warn, |seen| {
            seen.facts.cpus_isolated = Some(list("3"));
        }),
        ("isolcpus", Unknown, |seen| seen.facts.cpus_isolated = None),
        ("nohz_full", Warn, |seen| {
            seen.facts.cpus_nohz_full = Some(CpuList::default());
        }),
        ("governor", Warn, |seen| {
            seen.facts.governor = Some("performance (a), powersave (a)".into());
        }),
        ("boost", Warn, |seen| seen.facts.boost = Some(true)),
        ("C-states", Warn, |seen| {
            seen.idle_states.as_mut().expect("some")[0].exit_us = 133;
        }),
        ("clocksource", Fail, |seen| {
            seen.facts.clocksource = Some("hpet".into());
        }),
        ("clocksource", Warn, |seen| {
            seen.facts.clocksource = Some("xen".into());
        }),
        ("mitigations", Warn, |seen| {
            let state = "Mitigation: PTI".to_owned();
            seen.facts.mitigations.insert("meltdown".into(), state);
        }),
        ("mitigations", Pass, |seen| {
            let state = "Mitigation: Enhanced / Automatic IBRS".to_owned();
            seen.facts.mitigations.insert("spectre_v2".into(), state);
        }),
        ("huge pages", Warn, |seen| {
            seen.facts.transparent_hugepages = Some("always".into());
        }),
        ("cpu quota", Fail, |seen| {
            seen.cpu_quota = Some(CpuQuota::Cpus(1.5));
        }),
        ("cpu quota", Pass, |seen| {
            seen.cpu_quota = Some(CpuQuota::Cpus(2.0));
        }),
        ("steal", Warn, |seen| {
            let times = CpuTimes {
                idle_ns: 900,
                steal_ns: 100,
                ..CpuTimes::default()
            };
            busy(seen, times);
        }),
        ("steal", Fail, |seen| {
            let times = CpuTimes {
                idle_ns: 700,
                steal_ns: 300,
                ..CpuTimes::default()
            };
            busy(seen, times);
        }),
        ("cpu pressure", Warn, |seen| {
            seen.activity.as_mut().expect("watched").cpu_pressure = Some(0.9);
        }),
        ("other load", Warn, |seen| {
            let times = CpuTimes {
                idle_ns: 900,
                user_ns: 100,
                ..CpuTimes::default()
            };
            busy(seen, times);
        }),
        ("other load", Fail, |seen| {
            let times = CpuTimes {
                user_ns: 100,
                ..CpuTimes::default()
            };
            busy(seen, times);
        }),
        ("other load", Unknown, |seen| {
            seen.activity.as_mut().expect("watched").cpus = Some(BTreeMap::new());
        }),
        ("interrupts", Warn, |seen| {
            let activity = seen.activity.as_mut().expect("watched");
            activity.device_interrupts = Some([(2, 5_000)].into());
        }),
        ("interrupts", Pass, |seen| {
            let activity = seen.activity.as_mut().expect("watched");
            // Those of other cpus are no matter.
            activity.device_interrupts = Some([(0, 5_000)].into());
        }),
        ("RPS and XPS", Warn, |seen| {
            seen.steering = Some(vec![Steering {
                queue: "lo rx-0".into(),
                receives: true,
                cpus: list("1"),
            }]);
        }),
        ("RPS and XPS", Pass, |seen| {
            seen.steering = Some(vec![Steering {
                queue: "eth0 tx-0".into(),
                receives: false,
                cpus: list("1"),
            }]);
        }),
        ("irq accounting", Warn, |seen| {
            seen.facts.irq_time_accounting = Some(IrqTimeAccounting::On);
        }),
        ("busy_poll", Warn, |seen| seen.facts.busy_poll_us = Some(50)),
        ("congestion", Warn, |seen| {
            seen.facts.tcp_congestion_control = Some("bbr".into());
        }),
        ("socket buffers", Warn, |seen| {
            seen.facts.tcp_wmem = Some("4096 16384 65536".into());
        }),
        ("somaxconn", Warn, |seen| seen.facts.somaxconn = Some(128)),
        ("SYN backlog", Warn, |seen| {
            seen.facts.tcp_max_syn_backlog = Some(128);
        }),
        ("port range", Fail, |seen| seen.connections = Some(30_000)),
        ("port range", Warn, |seen| seen.connections = Some(20_000)),
        ("open files", Fail, |seen| {
            seen.facts.nofile = Some(LimitFact {
                soft: Some(1_024),
                hard: Some(1_024),
            });
        }),
        ("open files", Pass, |seen| {
            seen.facts.nofile = Some(LimitFact {
                soft: Some(1_024),
                hard: Some(4_096),
            });
        }),
        ("locked memory", Warn, |seen| {
            seen.facts.memlock_bytes = Some(LimitFact {
                soft: Some(65_536),
                hard: None,
            });
        }),
        ("io_uring", Fail, |seen| {
            seen.uring = Some(UringTrial::Refused("seccomp forbids it".into()));
        }),
        ("hypervisor", Warn, |seen| {
            seen.facts.hypervisor = Some("KVM".into());
        }),
        ("kernel", Fail, |seen| {
            seen.facts.kernel = Some("5.15.0".into());
        }),
        ("kernel", Fail, |seen| {
            seen.facts.kernel = Some("6.0.9".into());
        }),
        ("kernel", Pass, |seen| {
            seen.facts.kernel = Some("6.1.0".into());
        }),
    ];
    for (check, expected, change) in cases {
        assert_eq!(grade(check, change), expected, "{check}");
    }
}

#[test]
fn an_untried_ring_is_judged_by_its_sysctl() {
    for (disabled, expected) in [
        (Some(2), Grade::Fail),
        (Some(1), Grade::Warn),
        (Some(0), Grade::Pass),
        (None, Grade::Unknown),
    ] {
        let found = grade("io_uring", |seen| {
            seen.uring = None;
            seen.facts.io_uring_disabled = disabled;
        });
        assert_eq!(found, expected, "{disabled:?}");
    }
}

#[test]
fn what_was_not_asked_for_is_left_out() {
    let mut seen = fit();
    seen.engine = Use::Epoll;
    seen.activity = None;
    seen.connections = None;
    let names: Vec<String> = judge(&seen)
        .into_iter()
        .map(|finding| finding.check)
        .collect();
    for absent in ["io_uring", "kernel", "steal", "other load", "port range"] {
        assert!(!names.iter().any(|name| name == absent), "{absent}");
    }
    assert_eq!(names.len(), all().count() - 9);
}

#[test]
fn every_cure_is_a_sentence_and_every_name_is_unique() {
    let mut names: Vec<&str> = all().map(|check| check.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all().count());
    assert!(all().all(|check| 40 < check.why.len()));
}
