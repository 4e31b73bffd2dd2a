//! Pinning layouts: where a server and its client can stand to each other on this machine, from "no pinning at all" to
//! "on another NUMA node". Read from the topology; the server's cpu is the same in all of them, so that only the
//! distance to the client changes.

use std::{fmt, str::FromStr};

use echometer_host::{
    cpus::CpuList,
    topology::{Cpu, PickError, Topology},
};

/// How the two sides stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LayoutKind {
    /// Nobody is pinned: the scheduler decides, and may move both.
    Unpinned,
    /// Both on one cpu, in turns.
    SameCpu,
    /// On two threads of one core.
    Smt,
    /// On two cores under one level-3 cache.
    SameL3,
    /// On two cores of one NUMA node whose level-3 caches differ.
    OtherL3,
    /// On two NUMA nodes.
    OtherNode,
    /// On two cpus of which the machine doesn't say what they share.
    OtherCpu,
}

/// All kinds, from near to far.
pub(crate) const KINDS: [LayoutKind; 7] = [
    LayoutKind::Unpinned,
    LayoutKind::SameCpu,
    LayoutKind::Smt,
    LayoutKind::SameL3,
    LayoutKind::OtherL3,
    LayoutKind::OtherNode,
    LayoutKind::OtherCpu,
];

/// A layout on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Which.
    pub kind: LayoutKind,
    /// Where the server may run.
    pub server: CpuList,
    /// The cpu of the client; `None` for a client that is free to move.
    pub client: Option<u32>,
}

/// The layouts that this machine has among the cpus of `allowed`, in the order of [`KINDS`].
///
/// # Errors
/// Fewer than two cpus: there is nothing to choose.
pub(crate) fn layouts(topology: &Topology, allowed: &CpuList) -> Result<Vec<Layout>, PickError> {
    let server = topology.pick_pair(allowed)?.server;
    let home = topology
        .cpu(server)
        .expect("a cpu that was picked is part of the topology");
    let mut found = vec![
        Layout {
            kind: LayoutKind::Unpinned,
            server: allowed.clone(),
            client: None,
        },
        Layout {
            kind: LayoutKind::SameCpu,
            server: CpuList::from_iter([server]),
            client: Some(server),
        },
    ];
    for kind in &KINDS[2..] {
        let client = topology
            .cpus
            .iter()
            .filter(|cpu| cpu.id != server && allowed.contains(cpu.id))
            .filter(|cpu| distance(home, cpu) == *kind)
            // The first of the server's own kind of core, else the first.
            .min_by_key(|cpu| cpu.kind != home.kind);
        found.extend(client.map(|client| Layout {
            kind: *kind,
            server: CpuList::from_iter([server]),
            client: Some(client.id),
        }));
    }
    Ok(found)
}

/// How two different cpus stand to each other.
fn distance(one: &Cpu, other: &Cpu) -> LayoutKind {
    let differ = |one: Option<u32>, other: Option<u32>| Some(one? != other?);
    if one.siblings.contains(other.id) {
        return LayoutKind::Smt;
    }
    match (differ(one.node, other.node), differ(one.l3, other.l3)) {
        (Some(true), _) => LayoutKind::OtherNode,
        (_, Some(true)) => LayoutKind::OtherL3,
        (_, Some(false)) => LayoutKind::SameL3,
        (_, None) => LayoutKind::OtherCpu,
    }
}

impl LayoutKind {
    /// Its name on the command line and in files.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unpinned => "unpinned",
            Self::SameCpu => "same-cpu",
            Self::Smt => "smt",
            Self::SameL3 => "same-l3",
            Self::OtherL3 => "other-l3",
            Self::OtherNode => "other-node",
            Self::OtherCpu => "other-cpu",
        }
    }
}

impl fmt::Display for LayoutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LayoutKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        KINDS
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| {
                let known: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
                format!(
                    "a layout is auto (all that this machine has) or one of {}",
                    known.join(", ")
                )
            })
    }
}

impl Layout {
    /// In words for people: `server on cpu 0, client on cpu 1 (two cores under one L3 cache)`.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        let how = match self.kind {
            LayoutKind::Unpinned => return "nobody pinned".to_owned(),
            LayoutKind::SameCpu => "one cpu for both",
            LayoutKind::Smt => "two threads of one core",
            LayoutKind::SameL3 => "two cores under one L3 cache",
            LayoutKind::OtherL3 => "two L3 caches",
            LayoutKind::OtherNode => "two NUMA nodes",
            LayoutKind::OtherCpu => "two cpus, shared caches unknown",
        };
        let client = self.client.map_or_else(String::new, |cpu| cpu.to_string());
        format!(
            "server on cpu {}, client on cpu {client} ({how})",
            self.server
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> CpuList {
        text.parse().expect("a test's list")
    }

    /// Two nodes of two L3 caches of two cores of two threads: cpu n has its sibling at n + 8.
    fn big() -> Topology {
        let cpu = |id: u32| Cpu {
            id,
            core: Some(id % 8),
            package: Some(id % 8 / 4),
            node: Some(id % 8 / 4),
            l3: Some(id % 8 / 2 * 2),
            siblings: [id % 8, id % 8 + 8].into_iter().collect(),
            ..Cpu::unknown(id)
        };
        Topology {
            cpus: (0..16).map(cpu).collect(),
        }
    }

    fn kinds(layouts: &[Layout]) -> Vec<&'static str> {
        layouts.iter().map(|layout| layout.kind.name()).collect()
    }

    #[test]
    fn a_big_machine_has_every_distance_and_one_home() {
        let topology = big();
        let found = layouts(&topology, &list("0-15")).expect("many cpus");
        assert_eq!(
            kinds(&found),
            [
                "unpinned",
                "same-cpu",
                "smt",
                "same-l3",
                "other-l3",
                "other-node"
            ]
        );
        let home = found[1].server.first().expect("a cpu");
        for layout in &found[2..] {
            assert_eq!(layout.server.first(), Some(home));
            let client = layout.client.expect("pinned");
            assert_ne!(client, home);
            let cpu = |id| topology.cpu(id).expect("it is there");
            assert_eq!(distance(cpu(home), cpu(client)), layout.kind);
        }
        assert_eq!((found[0].server.len(), found[0].client), (16, None));
    }

    #[test]
    fn the_client_is_on_the_same_kind_of_core_where_there_is_one() {
        let mut topology = big();
        // On the second node the first core of each cache is weak.
        for cpu in &mut topology.cpus {
            let weak = [4, 6, 12, 14].contains(&cpu.id);
            cpu.kind.capacity = Some(if weak { 446 } else { 1_024 });
        }
        let found = layouts(&topology, &list("0-15")).expect("many cpus");
        let other_node = found.last().expect("some");
        assert_eq!(other_node.kind, LayoutKind::OtherNode);
        assert_eq!(other_node.client, Some(5));
    }

    #[test]
    fn only_cpus_that_may_be_used_are() {
        let found = layouts(&big(), &list("4,5,12")).expect("three cpus");
        assert_eq!(kinds(&found), ["unpinned", "same-cpu", "smt", "same-l3"]);
        assert_eq!(found[0].server, list("4,5,12"));
        assert!(layouts(&big(), &list("3")).is_err());
    }

    #[test]
    fn a_machine_that_says_nothing_of_its_caches_has_another_cpu_all_the_same() {
        let topology = Topology {
            cpus: (0..2).map(Cpu::unknown).collect(),
        };
        let found = layouts(&topology, &list("0-1")).expect("two cpus");
        assert_eq!(kinds(&found), ["unpinned", "same-cpu", "other-cpu"]);
        assert!(found[2].describe().contains("shared caches unknown"));
    }

    #[test]
    fn names_are_read_back() {
        for kind in KINDS {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!(
            "sideways"
                .parse::<LayoutKind>()
                .expect_err("no layout")
                .contains("same-cpu")
        );
    }
}
