//! On which cpus the two sides of a comparison run: as the user says, else as the machine's topology suggests.

use std::cmp::Reverse;

use anyhow::Context;

use echometer_host::{
    cpus::{self, CpuList},
    topology::{Cpu, Topology},
};

/// Where the two sides run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The servers' cpus; empty where none of them is started here.
    pub server: CpuList,
    /// The client's, one thread each.
    pub client: CpuList,
}

impl Placement {
    /// The servers' cpus, if any of them is started here.
    #[must_use]
    pub(crate) fn server_cpus(&self) -> Option<CpuList> {
        Some(self.server.clone()).filter(|cpus| !cpus.is_empty())
    }
}

/// Places both sides on this machine. `local` says whether any server is started here.
///
/// # Errors
/// A cpu that this process may not use, or only one cpu to be had: with the cure.
pub(crate) fn place(
    server: Option<&CpuList>,
    client: Option<&CpuList>,
    local: bool,
) -> anyhow::Result<Placement> {
    let allowed = cpus::allowed().context("cannot read this process's cpu mask")?;
    let topology = Topology::read_or(&allowed);
    place_on(&topology, &allowed, server, client, local)
}

/// The cpu for a single thread: the one that a server would get, or the only one there is.
///
/// # Errors
/// This process's mask can't be read.
pub(crate) fn lone() -> anyhow::Result<u32> {
    let allowed = cpus::allowed().context("cannot read this process's cpu mask")?;
    let topology = Topology::read_or(&allowed);
    let pair = topology.pick_pair(&allowed).ok();
    pair.map(|pair| pair.server)
        .or_else(|| allowed.first())
        .context("this process may use no cpu at all")
}

fn place_on(
    topology: &Topology,
    allowed: &CpuList,
    server: Option<&CpuList>,
    client: Option<&CpuList>,
    local: bool,
) -> anyhow::Result<Placement> {
    for (flag, asked) in [("--server-cpus", server), ("--client-cpus", client)] {
        let outside = asked
            .map(|asked| asked.difference(allowed))
            .unwrap_or_default();
        anyhow::ensure!(
            outside.is_empty(),
            "{flag}: cpu {outside} is offline or outside this process's mask; it may use {allowed}"
        );
    }
    let one = |cpu: u32| CpuList::from_iter([cpu]);
    let first = || {
        allowed
            .first()
            .map(one)
            .context("this process may use no cpu at all")
    };
    let beside = |taken: &CpuList, flag: &str| {
        partner(topology, allowed, taken).map(one).with_context(|| {
            format!("no cpu is left for the other side beside {taken}: this process may use {allowed}; name it with {flag}")
        })
    };
    let placement = match (server, client) {
        (Some(server), Some(client)) => Placement {
            server: server.clone(),
            client: client.clone(),
        },
        (None, client) if !local => Placement {
            server: CpuList::default(),
            client: client.cloned().map_or_else(first, Ok)?,
        },
        (Some(server), None) => Placement {
            server: server.clone(),
            client: beside(server, "--client-cpus")?,
        },
        (None, Some(client)) => Placement {
            server: beside(client, "--server-cpus")?,
            client: client.clone(),
        },
        (None, None) => {
            let pair = topology.pick_pair(allowed)?;
            Placement {
                server: one(pair.server),
                client: one(pair.client),
            }
        }
    };
    Ok(placement)
}

/// The best cpu for the side that was not placed: not a thread of a core that is taken, of the same kind, near the same
/// cache.
pub(crate) fn partner(topology: &Topology, allowed: &CpuList, taken: &CpuList) -> Option<u32> {
    let others: Vec<&Cpu> = taken.iter().filter_map(|cpu| topology.cpu(cpu)).collect();
    let free = topology
        .cpus
        .iter()
        .filter(|cpu| allowed.contains(cpu.id) && !taken.contains(cpu.id));
    let strain = |cpu: &Cpu| {
        let shares_core = others.iter().any(|other| other.siblings.contains(cpu.id));
        let is_unlike = !others.iter().any(|other| other.kind == cpu.kind);
        let far_cache = !others
            .iter()
            .any(|other| other.l3.is_some() && other.l3 == cpu.l3);
        let far_node = !others
            .iter()
            .any(|other| other.node.is_some() && other.node == cpu.node);
        let weakness = Reverse(cpu.kind.strength());
        (
            shares_core,
            is_unlike,
            weakness,
            far_cache,
            far_node,
            cpu.id,
        )
    };
    free.min_by_key(|cpu| strain(cpu)).map(|cpu| cpu.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two packages of two cores of two threads; a cache a package. Threads of a core are n and n + 4.
    fn topology() -> Topology {
        let cpu = |id: u32| Cpu {
            id,
            core: Some(id % 4),
            package: Some(id % 4 / 2),
            node: Some(id % 4 / 2),
            l3: Some(id % 4 / 2),
            siblings: [id % 4, id % 4 + 4].into_iter().collect(),
            ..Cpu::unknown(id)
        };
        Topology {
            cpus: (0..8).map(cpu).collect(),
        }
    }

    fn list(text: &str) -> CpuList {
        text.parse().expect("a test's list")
    }

    fn placed(
        allowed: &str,
        server: Option<&str>,
        client: Option<&str>,
        local: bool,
    ) -> Result<(String, String), String> {
        let (server, client) = (server.map(list), client.map(list));
        placed_on(
            &topology(),
            allowed,
            server.as_ref(),
            client.as_ref(),
            local,
        )
    }

    fn placed_on(
        topology: &Topology,
        allowed: &str,
        server: Option<&CpuList>,
        client: Option<&CpuList>,
        local: bool,
    ) -> Result<(String, String), String> {
        place_on(topology, &list(allowed), server, client, local)
            .map(|placement| (placement.server.to_string(), placement.client.to_string()))
            .map_err(|error| format!("{error:#}"))
    }

    fn ok(server: &str, client: &str) -> Result<(String, String), String> {
        Ok((server.to_owned(), client.to_owned()))
    }

    #[test]
    fn what_was_named_is_taken() {
        assert_eq!(placed("0-7", Some("0,2"), Some("5"), true), ok("0,2", "5"));
        assert_eq!(placed("0-7", Some("1"), Some("1"), true), ok("1", "1"));
    }

    #[test]
    fn the_other_side_shares_a_cache_and_no_core() {
        assert_eq!(placed("0-7", Some("2"), None, true), ok("2", "3"));
        assert_eq!(placed("0-7", None, Some("7"), true), ok("2", "7"));
        assert_eq!(
            placed("0-7", Some("0-1"), None, true),
            ok("0-1", "2"),
            "another cache rather than a sibling"
        );
        assert_eq!(
            placed("0,4", Some("0"), None, true),
            ok("0", "4"),
            "a sibling rather than nothing"
        );
    }

    #[test]
    fn the_other_side_is_of_the_same_kind() {
        let mut topology = topology();
        // Cpus 1 to 3 and their siblings are weak.
        for cpu in &mut topology.cpus {
            cpu.kind.capacity = Some(if cpu.id % 4 == 0 { 1_024 } else { 446 });
        }
        let beside = |server| placed_on(&topology, "0-3", Some(&list(server)), None, true);
        assert_eq!(beside("1"), ok("1", "2"), "not 0, which shares the cache");
        topology.cpus[3].kind.capacity = Some(1_024);
        let beside = |server| placed_on(&topology, "0-3", Some(&list(server)), None, true);
        assert_eq!(beside("0"), ok("0", "3"), "not 1, which shares the cache");
    }

    #[test]
    fn without_a_word_the_topology_decides() {
        let (server, client) = placed("0-7", None, None, true).expect("there are cpus");
        assert_ne!(
            list(&server).first().map(|cpu| cpu % 4),
            list(&client).first().map(|cpu| cpu % 4)
        );
    }

    #[test]
    fn servers_elsewhere_need_no_cpu_here() {
        assert_eq!(placed("3", None, None, false), ok("", "3"));
        assert_eq!(placed("0-7", None, Some("2"), false), ok("", "2"));
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        let error = placed("0-3", Some("2,5-6"), None, true).expect_err("outside");
        assert!(
            error.contains("--server-cpus: cpu 5-6") && error.contains("0-3"),
            "{error}"
        );
        let error = placed("2", Some("2"), None, true).expect_err("nothing left");
        assert!(error.contains("no cpu is left"), "{error}");
        let error = placed("2", None, None, true).expect_err("one cpu");
        assert!(error.contains("needs two cpus"), "{error}");
    }
}
