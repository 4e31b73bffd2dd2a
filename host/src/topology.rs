//! How are the cpus joined? Cores, SMT siblings, shared last-level caches, packages and NUMA nodes from
//! sysfs, and the pair of cpus on which a server and its client disturb each other least.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::cpus::CpuList;

/// Where the kernel describes cpus and nodes.
const SYSTEM: &str = "/sys/devices/system";

/// The online cpus of a machine and how they are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// In rising order of their numbers.
    pub cpus: Vec<Cpu>,
}

/// One online cpu. What sysfs does not say (a container, an old kernel) is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub id: u32,
    /// Its core; unique within its package only.
    pub core: Option<u32>,
    /// Its package (socket).
    pub package: Option<u32>,
    /// Its NUMA node.
    pub node: Option<u32>,
    /// Its level-3 cache, named by the lowest cpu that shares it.
    pub l3: Option<u32>,
    /// The hardware threads of its core, itself included.
    pub siblings: CpuList,
    /// What kind of core it is on.
    pub kind: CoreKind,
}

/// What kind of core a cpu is on. Cpus of different kinds are different machines to whoever measures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreKind {
    /// Its capacity on the kernel's scale, where the strongest cpu of a machine has 1,024 (`cpu_capacity`).
    pub capacity: Option<u32>,
    /// What its performance counters are called where there are several kinds of them: `core` or `atom` (Intel); `cpu`
    /// where there is one kind.
    pub counters: Option<String>,
}

/// A cpu for the server and another for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Where the server runs.
    pub server: u32,
    /// Where the client runs.
    pub client: u32,
}

impl CoreKind {
    /// In words: `capacity 446`, `atom`. `None` where the kernel says nothing of it.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        match (self.capacity, &self.counters) {
            (Some(capacity), _) => Some(format!("capacity {capacity}")),
            (None, counters) => counters.clone(),
        }
    }

    /// Stronger kinds have more; only comparable within a machine.
    #[must_use]
    pub fn strength(&self) -> u32 {
        self.capacity.unwrap_or(match self.counters.as_deref() {
            Some("lowpower") => 0,
            Some("atom") => 1,
            _ => 2,
        })
    }
}

/// Why no pair of cpus could be picked; the text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// The machine has a single cpu.
    #[error(
        "this machine has one cpu online, and a comparison needs two: one for the server and one for the client, \
         or each would measure the other. Give the (virtual) machine a second cpu, or run the client on another \
         machine against a `tcp:HOST:PORT` arm"
    )]
    OneCpuOnline,
    /// There are more, but this process may use only one.
    #[error(
        "this process may use cpu {allowed} only, and a comparison needs two cpus: one for the server and one for \
         the client. Widen its affinity mask (taskset --cpu-list {online} ...) or the container's cpuset"
    )]
    OneCpuAllowed {
        /// What it may use.
        allowed: CpuList,
        /// What is online.
        online: CpuList,
    },
}

impl Topology {
    /// Reads this machine's topology.
    ///
    /// # Errors
    /// sysfs is not mounted or holds no cpu.
    pub fn read() -> io::Result<Topology> {
        Topology::read_from(Path::new(SYSTEM))
    }

    /// The same where it can be read, else `allowed`, of which nothing more is known: two cpus are enough to measure,
    /// and what they share is then unknown.
    #[must_use]
    pub fn read_or(allowed: &CpuList) -> Topology {
        Topology::read_from_or(Path::new(SYSTEM), allowed)
    }

    fn read_from_or(system: &Path, allowed: &CpuList) -> Topology {
        Topology::read_from(system).unwrap_or_else(|_| Topology {
            cpus: allowed.iter().map(Cpu::unknown).collect(),
        })
    }

    /// Reads a topology from a folder laid out as `/sys/devices/system`.
    ///
    /// # Errors
    /// As for [`Topology::read`]. A cpu whose files are missing or odd is not an error: what they would
    /// have said is `None`.
    pub fn read_from(system: &Path) -> io::Result<Topology> {
        let online = online_cpus(&system.join("cpu"))?;
        let nodes = nodes(&system.join("node"));
        let counters = system.parent().map(counters).unwrap_or_default();
        let cpus = online
            .iter()
            .map(|id| Cpu::read(&system.join(format!("cpu/cpu{id}")), id, &nodes, &counters))
            .collect();
        Ok(Topology { cpus })
    }

    /// The numbers of the online cpus.
    #[must_use]
    pub fn online(&self) -> CpuList {
        self.cpus.iter().map(|cpu| cpu.id).collect()
    }

    /// The cpu with number `id`, if it is online.
    #[must_use]
    pub fn cpu(&self, id: u32) -> Option<&Cpu> {
        self.cpus.iter().find(|cpu| cpu.id == id)
    }

    /// How many cores the online cpus make up; none if sysfs does not say for each of them.
    #[must_use]
    pub fn cores(&self) -> Option<usize> {
        count_distinct(
            self.cpus
                .iter()
                .map(|cpu| Some((cpu.package?, cpu.core?, cpu.siblings.first()?))),
        )
    }

    /// How many packages (sockets); none if unknown.
    #[must_use]
    pub fn packages(&self) -> Option<usize> {
        count_distinct(self.cpus.iter().map(|cpu| cpu.package))
    }

    /// How many NUMA nodes have an online cpu; none if unknown.
    #[must_use]
    pub fn nodes(&self) -> Option<usize> {
        count_distinct(self.cpus.iter().map(|cpu| cpu.node))
    }

    /// How many level-3 caches; none if unknown or if there is none.
    #[must_use]
    pub fn l3_caches(&self) -> Option<usize> {
        count_distinct(self.cpus.iter().map(|cpu| cpu.l3))
    }

    /// Whether any online core has more than one online thread.
    #[must_use]
    pub fn has_smt(&self) -> bool {
        let online = self.online();
        self.cpus
            .iter()
            .any(|cpu| 1 < cpu.siblings.intersection(&online).len())
    }

    /// Picks a cpu for a server and another for its client from `allowed`.
    ///
    /// In order of weight: not threads of one core (they would take turns at one set of execution units,
    /// so each would measure the other), the same kind of core, strong ones, the same level-3 cache (else every message crosses the
    /// interconnect), the same node, the same package, and neither of them on the core of cpu 0, which
    /// takes most machines' interrupts and housekeeping. Among equals the lowest numbers win, so that
    /// the same machine always gives the same pair.
    ///
    /// # Errors
    /// [`PickError`] where fewer than two cpus may be used.
    pub fn pick_pair(&self, allowed: &CpuList) -> Result<Pair, PickError> {
        let usable: Vec<&Cpu> = self
            .cpus
            .iter()
            .filter(|cpu| allowed.contains(cpu.id))
            .collect();
        let pairs = usable.iter().enumerate().flat_map(|(index, server)| {
            usable[index + 1..]
                .iter()
                .map(move |client| (*server, *client))
        });
        // `max_by_key` takes the last of equals and the pairs rise, so they are seen from behind.
        let best = pairs
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .max_by_key(|(server, client)| fitness(server, client));
        match best {
            Some((server, client)) => Ok(Pair {
                server: server.id,
                client: client.id,
            }),
            None if self.cpus.len() < 2 => Err(PickError::OneCpuOnline),
            None => Err(PickError::OneCpuAllowed {
                allowed: allowed.clone(),
                online: self.online(),
            }),
        }
    }
}

/// Compared from the left: the first difference decides. See [`Topology::pick_pair`].
fn fitness(server: &Cpu, client: &Cpu) -> (bool, bool, u32, bool, bool, bool, bool) {
    let same = |left: Option<u32>, right: Option<u32>| left.is_some() && left == right;
    (
        !server.siblings.contains(client.id),
        server.kind == client.kind,
        server.kind.strength().min(client.kind.strength()),
        same(server.l3, client.l3),
        same(server.node, client.node),
        same(server.package, client.package),
        !server.siblings.contains(0) && !client.siblings.contains(0),
    )
}

impl Cpu {
    /// A cpu of which only its number is known.
    #[must_use]
    pub fn unknown(id: u32) -> Cpu {
        Cpu {
            id,
            core: None,
            package: None,
            node: None,
            l3: None,
            siblings: [id].into_iter().collect(),
            kind: CoreKind::default(),
        }
    }

    fn read(
        folder: &Path,
        id: u32,
        nodes: &[(u32, CpuList)],
        counters: &[(String, Option<CpuList>)],
    ) -> Cpu {
        // `core_cpus_list` since Linux 5.5; `thread_siblings_list` is its older name.
        let siblings = ["topology/core_cpus_list", "topology/thread_siblings_list"]
            .iter()
            .find_map(|file| cpu_list(&folder.join(file)))
            .filter(|siblings| siblings.contains(id))
            .unwrap_or_else(|| [id].into_iter().collect());
        Cpu {
            id,
            core: number(&folder.join("topology/core_id")),
            package: number(&folder.join("topology/physical_package_id")),
            node: nodes
                .iter()
                .find(|(_, cpus)| cpus.contains(id))
                .map(|(node, _)| *node),
            l3: level_3_cache(&folder.join("cache")),
            siblings,
            kind: CoreKind {
                capacity: number(&folder.join("cpu_capacity")),
                counters: counters
                    .iter()
                    .find(|(_, cpus)| cpus.as_ref().is_none_or(|cpus| cpus.contains(id)))
                    .map(|(name, _)| name.clone()),
            },
        }
    }
}

/// The kinds of performance counters below `/sys/devices`, each with its cpus: `cpu_core` and `cpu_atom` on Intel's
/// hybrids, elsewhere `cpu`, which is everybody's.
fn counters(devices: &Path) -> Vec<(String, Option<CpuList>)> {
    let hybrid = ["core", "atom", "lowpower"].into_iter().filter_map(|kind| {
        let cpus = cpu_list(&devices.join(format!("cpu_{kind}/cpus")))?;
        Some((kind.to_owned(), Some(cpus)))
    });
    let plain = devices.join("cpu").is_dir();
    hybrid
        .chain(plain.then(|| ("cpu".to_owned(), None)))
        .collect()
}

/// The lowest cpu that shares the level-3 cache described in `cache/index*`.
fn level_3_cache(cache: &Path) -> Option<u32> {
    let is_level_3 = |index: &PathBuf| number(&index.join("level")) == Some(3);
    let index = numbered(cache, "index")
        .into_iter()
        .map(|(_, path)| path)
        .find(is_level_3)?;
    cpu_list(&index.join("shared_cpu_list"))?.first()
}

/// The `online` file, or, where there is none, every `cpuN` folder.
fn online_cpus(cpu: &Path) -> io::Result<CpuList> {
    let online = cpu_list(&cpu.join("online")).unwrap_or_else(|| {
        numbered(cpu, "cpu")
            .into_iter()
            .map(|(number, _)| number)
            .collect()
    });
    if online.is_empty() {
        let text = format!("{} describes no cpu: is sysfs mounted?", cpu.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(online)
}

/// Each NUMA node with its cpus; empty on kernels built without NUMA.
fn nodes(folder: &Path) -> Vec<(u32, CpuList)> {
    let read = |(node, path): (u32, PathBuf)| Some((node, cpu_list(&path.join("cpulist"))?));
    numbered(folder, "node")
        .into_iter()
        .filter_map(read)
        .collect()
}

/// The entries `<prefix>N` of a folder in the order of N; none for a folder that cannot be read.
fn numbered(folder: &Path, prefix: &str) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let number = |entry: fs::DirEntry| {
        let number = entry
            .file_name()
            .to_str()?
            .strip_prefix(prefix)?
            .parse()
            .ok()?;
        Some((number, entry.path()))
    };
    let mut found: Vec<_> = entries.flatten().filter_map(number).collect();
    found.sort();
    found
}

fn cpu_list(file: &Path) -> Option<CpuList> {
    let cpus = CpuList::from_kernel(&fs::read_to_string(file).ok()?).ok()?;
    (!cpus.is_empty()).then_some(cpus)
}

/// A file with one number. Some platforms write -1 for "unknown", which is none here.
fn number(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Distinct values, if there is a value for everyone.
fn count_distinct<T: Ord>(values: impl Iterator<Item = Option<T>>) -> Option<usize> {
    let distinct: Option<BTreeSet<T>> = values.collect();
    distinct
        .map(|values| values.len())
        .filter(|&count| 0 < count)
}

#[cfg(test)]
mod tests;
