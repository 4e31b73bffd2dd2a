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
}

/// A cpu for the server and another for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Where the server runs.
    pub server: u32,
    /// Where the client runs.
    pub client: u32,
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

    /// Reads a topology from a folder laid out as `/sys/devices/system`.
    ///
    /// # Errors
    /// As for [`Topology::read`]. A cpu whose files are missing or odd is not an error: what they would
    /// have said is `None`.
    pub fn read_from(system: &Path) -> io::Result<Topology> {
        let online = online_cpus(&system.join("cpu"))?;
        let nodes = nodes(&system.join("node"));
        let cpus = online
            .iter()
            .map(|id| Cpu::read(&system.join(format!("cpu/cpu{id}")), id, &nodes))
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
    /// so each would measure the other), the same level-3 cache (else every message crosses the
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
fn fitness(server: &Cpu, client: &Cpu) -> (bool, bool, bool, bool, bool) {
    let same = |left: Option<u32>, right: Option<u32>| left.is_some() && left == right;
    (
        !server.siblings.contains(client.id),
        same(server.l3, client.l3),
        same(server.node, client.node),
        same(server.package, client.package),
        !server.siblings.contains(0) && !client.siblings.contains(0),
    )
}

impl Cpu {
    fn read(folder: &Path, id: u32, nodes: &[(u32, CpuList)]) -> Cpu {
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
        }
    }
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
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A machine on paper, written out as sysfs would.
    struct Paper {
        folder: TempDir,
    }

    impl Paper {
        fn new(online: &str) -> Paper {
            let paper = Paper {
                folder: tempfile::tempdir().expect("a temporary folder"),
            };
            paper.write("cpu/online", &format!("{online}\n"));
            paper
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a file has a folder")).unwrap();
            fs::write(path, text).unwrap();
        }

        fn cpu(&self, id: u32, core: u32, package: u32, siblings: &str, l3: &str) {
            let cpu = format!("cpu/cpu{id}");
            self.write(&format!("{cpu}/topology/core_id"), &format!("{core}\n"));
            self.write(
                &format!("{cpu}/topology/physical_package_id"),
                &format!("{package}\n"),
            );
            self.write(
                &format!("{cpu}/topology/core_cpus_list"),
                &format!("{siblings}\n"),
            );
            for (index, level, shared) in [
                (0, 1, siblings),
                (1, 1, siblings),
                (2, 2, siblings),
                (3, 3, l3),
            ] {
                self.write(
                    &format!("{cpu}/cache/index{index}/level"),
                    &format!("{level}\n"),
                );
                self.write(
                    &format!("{cpu}/cache/index{index}/shared_cpu_list"),
                    &format!("{shared}\n"),
                );
            }
        }

        fn node(&self, node: u32, cpus: &str) {
            self.write(&format!("node/node{node}/cpulist"), &format!("{cpus}\n"));
        }

        fn read(&self) -> Topology {
            Topology::read_from(self.folder.path()).expect("the paper machine has cpus")
        }
    }

    /// Two packages, each a node with four cores of two threads and two caches of two cores: the threads
    /// of core n are cpus n and n + 8.
    fn two_sockets() -> Paper {
        let paper = Paper::new("0-15");
        for cpu in 0..16 {
            let core = cpu % 8;
            let l3 = core / 2 * 2;
            let shared = format!("{}-{},{}-{}", l3, l3 + 1, l3 + 8, l3 + 9);
            paper.cpu(
                cpu,
                core % 4,
                core / 4,
                &format!("{core},{}", core + 8),
                &shared,
            );
        }
        paper.node(0, "0-3,8-11");
        paper.node(1, "4-7,12-15");
        paper
    }

    fn pick(topology: &Topology, allowed: &str) -> (u32, u32) {
        let pair = topology
            .pick_pair(&allowed.parse().expect("a cpu list"))
            .expect("two cpus");
        (pair.server, pair.client)
    }

    #[test]
    fn reads_a_machine_with_two_sockets() {
        let topology = two_sockets().read();
        assert_eq!(topology.online().to_string(), "0-15");
        let counts = (
            topology.packages(),
            topology.cores(),
            topology.l3_caches(),
            topology.nodes(),
        );
        assert_eq!(counts, (Some(2), Some(8), Some(4), Some(2)));
        assert!(topology.has_smt());
        let expected = Cpu {
            id: 13,
            core: Some(1),
            package: Some(1),
            node: Some(1),
            l3: Some(4),
            siblings: "5,13".parse().unwrap(),
        };
        assert_eq!(topology.cpu(13), Some(&expected));
    }

    #[test]
    fn picks_two_cores_of_one_cache_away_from_cpu_0() {
        assert_eq!(pick(&two_sockets().read(), "0-15"), (2, 3));
    }

    #[test]
    fn picks_the_least_bad_pair_that_is_left() {
        let topology = two_sockets().read();
        // The same cache with cpu 0 before another cache without it.
        assert_eq!(pick(&topology, "0,1,2"), (0, 1));
        // Another cache before a thread of the same core.
        assert_eq!(pick(&topology, "1,9,3"), (1, 3));
        // The same node before another one.
        assert_eq!(pick(&topology, "1,3,5"), (1, 3));
        // Another node before a thread of the same core.
        assert_eq!(pick(&topology, "1,9,5"), (1, 5));
        // Siblings, if there is nothing else.
        assert_eq!(pick(&topology, "1,9"), (1, 9));
    }

    #[test]
    fn one_cpu_is_an_error_that_says_what_to_do() {
        let topology = two_sockets().read();
        let allowed: CpuList = "3".parse().unwrap();
        let error = topology.pick_pair(&allowed).unwrap_err();
        assert_eq!(
            error,
            PickError::OneCpuAllowed {
                allowed,
                online: topology.online()
            }
        );
        assert!(
            error.to_string().contains("taskset --cpu-list 0-15"),
            "{error}"
        );

        let single = Paper::new("0").read();
        assert_eq!(
            single.pick_pair(&"0".parse().unwrap()),
            Err(PickError::OneCpuOnline)
        );
    }

    #[test]
    fn what_sysfs_does_not_say_is_unknown_and_a_pair_is_found_all_the_same() {
        let bare = Paper::new("0-1").read();
        for cpu in &bare.cpus {
            let itself = [cpu.id].into_iter().collect();
            let unknown = Cpu {
                id: cpu.id,
                core: None,
                package: None,
                node: None,
                l3: None,
                siblings: itself,
            };
            assert_eq!(cpu, &unknown);
        }
        assert_eq!(
            (
                bare.cores(),
                bare.packages(),
                bare.nodes(),
                bare.l3_caches()
            ),
            (None, None, None, None)
        );
        assert_eq!(pick(&bare, "0-1"), (0, 1));
    }

    #[test]
    fn odd_contents_are_unknown_too() {
        let paper = Paper::new("0-1");
        paper.write("cpu/cpu0/topology/core_id", "-1\n");
        paper.write("cpu/cpu0/topology/physical_package_id", "");
        paper.write("cpu/cpu0/topology/core_cpus_list", "gibberish");
        paper.write("cpu/cpu0/cache/index9/level", "3");
        paper.write("cpu/cpu0/cache/index9/shared_cpu_list", "");
        paper.write("cpu/cpu0/cache/indexical/level", "3");
        paper.write("node/node0/cpulist", "\n");
        // A list of siblings without the cpu itself cannot be right.
        paper.write("cpu/cpu1/topology/core_cpus_list", "0");
        let topology = paper.read();
        assert_eq!(topology, Paper::new("0-1").read());
    }

    #[test]
    fn an_older_kernel_names_siblings_otherwise_and_may_lack_the_online_file() {
        let paper = Paper::new("0");
        fs::remove_file(paper.folder.path().join("cpu/online")).unwrap();
        for cpu in [0, 1] {
            paper.write(
                &format!("cpu/cpu{cpu}/topology/thread_siblings_list"),
                "0-1",
            );
        }
        paper.write("cpu/cpufreq/ignored", "");
        let topology = paper.read();
        assert_eq!(topology.online().to_string(), "0-1");
        assert!(topology.has_smt());
    }

    #[test]
    fn no_sysfs_is_an_error() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(
            Topology::read_from(empty.path()).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn this_machine_can_be_read() {
        let topology = Topology::read().unwrap();
        assert_eq!(topology.online(), crate::cpus::online().unwrap());
        let allowed = crate::cpus::allowed().unwrap();
        match topology.pick_pair(&allowed) {
            Ok(pair) => {
                assert_ne!(pair.server, pair.client);
                assert!(allowed.contains(pair.server) && allowed.contains(pair.client));
            }
            Err(_) => assert_eq!(allowed.len(), 1),
        }
    }
}
