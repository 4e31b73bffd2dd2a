//! Machines on paper, and what is read of them.

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
        let path = self.system().join(path);
        fs::create_dir_all(path.parent().expect("a file has a folder")).unwrap();
        fs::write(path, text).unwrap();
    }

    fn system(&self) -> PathBuf {
        self.folder.path().join("system")
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
        Topology::read_from(&self.system()).expect("the paper machine has cpus")
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
        kind: CoreKind::default(),
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

/// Four cores of one package under one cache, none of two threads.
fn four_cores() -> Paper {
    let paper = Paper::new("0-3");
    for cpu in 0..4 {
        paper.cpu(cpu, cpu, 0, &cpu.to_string(), "0-3");
    }
    paper
}

#[test]
fn unlike_cpus_are_told_apart_and_strong_ones_of_one_kind_are_picked() {
    // By capacity: the two weak ones come first, and the strongest is alone.
    let paper = four_cores();
    for (cpu, capacity) in [(0, 446), (1, 446), (2, 871), (3, 871)] {
        paper.write(
            &format!("cpu/cpu{cpu}/cpu_capacity"),
            &format!("{capacity}\n"),
        );
    }
    let topology = paper.read();
    assert_eq!(pick(&topology, "0-3"), (2, 3));
    assert_eq!(pick(&topology, "0,1,3"), (0, 1), "alike before strong");
    assert_eq!(
        pick(&topology, "0,3"),
        (0, 3),
        "unlike, if there is nothing else"
    );
    let kind = |cpu: u32| topology.cpu(cpu).expect("online").kind.describe();
    assert_eq!(kind(0).as_deref(), Some("capacity 446"));

    // By their counters: one core of two threads and two lesser cores.
    let paper = four_cores();
    for cpu in 0..2 {
        paper.cpu(cpu, 0, 0, "0-1", "0-3");
    }
    paper.write("../cpu_core/cpus", "0-1\n");
    paper.write("../cpu_atom/cpus", "2-3\n");
    let topology = paper.read();
    assert_eq!(
        pick(&topology, "0-3"),
        (2, 3),
        "alike, and no threads of one core"
    );
    let kind = |cpu: u32| topology.cpu(cpu).expect("online").kind.describe();
    assert_eq!(kind(1).as_deref(), Some("core"));
    assert_eq!(kind(3).as_deref(), Some("atom"));
}

#[test]
fn a_machine_with_one_kind_of_counters_has_one_kind_of_cpus() {
    let paper = four_cores();
    assert_eq!(paper.read().cpus[0].kind, CoreKind::default());
    paper.write("../cpu/type", "4\n");
    for cpu in paper.read().cpus {
        assert_eq!(cpu.kind.describe().as_deref(), Some("cpu"));
    }
}

#[test]
fn without_sysfs_the_mask_gives_a_pair() {
    let empty = tempfile::tempdir().unwrap();
    let topology = Topology::read_from_or(empty.path(), &"2,5,7".parse().unwrap());
    assert_eq!(topology.online().to_string(), "2,5,7");
    assert_eq!(pick(&topology, "2,5,7"), (2, 5));
    // What can be read is read.
    let paper = two_sockets();
    let read = Topology::read_from_or(&paper.system(), &"3".parse().unwrap());
    assert_eq!(read, paper.read());
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
        assert_eq!(cpu, &Cpu::unknown(cpu.id));
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
    fs::remove_file(paper.system().join("cpu/online")).unwrap();
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
