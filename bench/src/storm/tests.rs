//! Whole storms against a made-up world: a kernel that loses what exceeds the backlog.

use std::{cell::RefCell, rc::Rc};

use echometer_host::{
    cpus::CpuList,
    fitness::{Finding, Grade},
    machine::Facts,
};
use echometer_loadgen::Plan;
use echometer_report::{
    file::{storm::Losses, sysctls::Sysctls},
    folder::ResultFolder,
};

use super::*;
use crate::{
    flags::{MachineSettings, OutputSettings},
    measure::world::{GOOD, Server, World},
    place::placement::Placement,
    serve::arm::parse_arms,
    storm::watch::{QueueSeen, Watch},
};

/// Who is stormed just now: the level whose server was started last.
type Current = Rc<RefCell<usize>>;

/// 1,000 connects, of which those that exceed the backlog come a second later.
struct MadeUp {
    backlogs: Vec<u32>,
    current: Current,
    /// The kernel drops last ACKs instead of SYNs.
    late_echoes: bool,
}

impl StormLoad for MadeUp {
    fn storm(&mut self, address: SocketAddr) -> Result<StormTally, StormError> {
        // The world's servers listen on port 1 and on.
        let level = usize::from(address.port()) - 1;
        *self.current.borrow_mut() = level;
        let lost = u64::from(1_000_u32.saturating_sub(self.backlogs[level]));
        let mut tally = StormTally::empty();
        tally.connects = 1_000;
        let slow = 1_030_000_000;
        let (slow_connect, slow_echo) = match self.late_echoes {
            true => (1_000_000, slow),
            false => (slow, slow),
        };
        let fast = 1_000 - lost;
        tally.connect.record_n(1_000_000, fast).expect("it grows");
        tally
            .first_echo
            .record_n(2_000_000, fast)
            .expect("it grows");
        tally
            .connect
            .record_n(slow_connect, lost)
            .expect("it grows");
        tally
            .first_echo
            .record_n(slow_echo, lost)
            .expect("it grows");
        if lost != 0 && !self.late_echoes {
            tally.syn_retransmits.insert(1, lost);
        }
        Ok(tally)
    }
}

impl Watch for MadeUp {
    fn begin(&mut self, port: u16) {
        assert_ne!(port, 0);
    }

    fn end(&mut self) -> (Option<Losses>, Option<QueueSeen>) {
        let limit = self.backlogs[*self.current.borrow()].min(4_096);
        let losses = Losses {
            listen_overflows: Some(0),
            listen_drops: Some(0),
            ..Losses::default()
        };
        let queue = QueueSeen {
            waiting_max: limit.min(1_000),
            limit,
            samples: 10,
        };
        (Some(losses), Some(queue))
    }
}

fn list(text: &str) -> CpuList {
    text.parse().expect("a test's list")
}

fn stormed(
    backlogs: &[u32],
    late_echoes: bool,
    world: &World,
    stop: &dyn Fn() -> bool,
) -> StormFile {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let arm = parse_arms(&["uring"]).expect("an arm").remove(0);
    let levels = backlogs.iter().map(|&backlog| StormLevel {
        arm: arm.name.clone(),
        backlog: Some(backlog),
        server: Arm {
            name: format!("uring-{backlog}"),
            ..arm.clone()
        },
    });
    let settings = StormSettings {
        levels: levels.collect(),
        load: Plan {
            connections: 1_000,
            ..Plan::default()
        },
        blocks: 3,
        machine: MachineSettings::default(),
        output: OutputSettings {
            quiet: true,
            ..OutputSettings::default()
        },
    };
    let sysctls = Sysctls {
        somaxconn: Some(4_096),
        tcp_abort_on_overflow: Some(0),
        tcp_syn_linear_timeouts: Some(4),
        tcp_syn_retries: Some(6),
        ..Sysctls::default()
    };
    let placement = Placement {
        server: list("0"),
        client: list("1"),
    };
    let result = ResultFolder::named(folder.path(), echometer_report::file::storm::FILE_NAME)
        .expect("it is free");
    let mut record = Record::new(
        &settings,
        &placement,
        settings.load.clone(),
        Facts::default(),
        sysctls,
        result,
        "echometer storm",
    );
    let made_up = |current: &Current| MadeUp {
        backlogs: backlogs.to_vec(),
        current: Rc::clone(current),
        late_echoes,
    };
    let current = Current::default();
    let (mut load, mut watch) = (made_up(&current), made_up(&current));
    run_blocks(
        &settings,
        &mut record,
        &mut load,
        &mut world.clone(),
        &mut watch,
        stop,
    )
    .expect("nothing fails");
    assert!(world.is_tidy(), "a server runs on");
    let saved =
        std::fs::read_to_string(folder.path().join(echometer_report::file::storm::FILE_NAME))
            .expect("it is there");
    let saved: StormFile = serde_json::from_str(&saved).expect("it is JSON");
    assert_eq!(saved, record.file);
    let text = echometer_report::text::storm::text(&saved);
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    saved
}

fn world(count: usize) -> World {
    World::of(&vec![GOOD; count])
}

#[test]
fn the_smallest_backlog_that_lost_none_is_named() {
    let file = stormed(&[16, 1_024, 4_096], false, &world(3), &|| false);
    let lost: Vec<Option<bool>> = file.levels.iter().map(|level| level.lost_none).collect();
    assert_eq!(lost, [Some(false), Some(true), Some(true)]);
    let small = &file.levels[0];
    assert_eq!((small.storms, small.connects), (3, 3_000));
    assert_eq!(small.syn_retransmits, BTreeMap::from([(1, 3 * 984)]));
    for words in [
        "uring lost none from a backlog of 1,024 on",
        "2,952 of 3,000 connects needed another SYN, the slowest took 1.03 s",
        "set --backlog 1024 (net.core.somaxconn, 4096, allows it)",
    ] {
        assert!(file.sentence.contains(words), "{words}: {}", file.sentence);
    }
    let text = echometer_report::text::storm::text(&file);
    for words in [
        "1, 2, 3, 4, 5, 7 s",
        "tcp_abort_on_overflow is 0",
        "2,952 once",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_lost_last_ack_counts_though_every_connect_was_fast() {
    let file = stormed(&[16, 1_024], true, &world(2), &|| false);
    assert_eq!(file.levels[0].lost_none, Some(false));
    assert!(file.levels[0].syn_retransmits.is_empty());
    assert!(
        file.sentence.contains("a first echo took 1.03 s"),
        "{}",
        file.sentence
    );
}

#[test]
fn a_foreign_server_is_not_told_to_take_our_flag() {
    let mut file = stormed(&[16, 1_024], false, &world(2), &|| false);
    for level in &mut file.levels {
        level.spec = "./serve --port={port}".to_owned();
    }
    let said = echometer_report::text::storm::sentence(&file);
    assert!(
        said.contains("set a backlog of 1024") && !said.contains("--backlog"),
        "{said}"
    );
}

#[test]
fn where_none_is_enough_it_says_what_to_try() {
    let file = stormed(&[16, 128], false, &world(2), &|| false);
    assert!(
        file.sentence
            .contains("lost some at every backlog tried, at 128 too")
            && file.sentence.contains("try --backlog 1000"),
        "{}",
        file.sentence
    );
}

#[test]
fn a_backlog_that_somaxconn_cuts_is_said() {
    let file = stormed(&[16, 100_000], false, &world(2), &|| false);
    assert_eq!(file.levels[1].effective_backlog, Some(4_096));
    assert!(
        file.sentence
            .contains("and net.core.somaxconn 100000 (it is 4096, so that only 4096 counted)"),
        "{}",
        file.sentence
    );
}

#[test]
fn a_full_queue_of_half_open_connections_is_cured_by_the_kernels_rule() {
    let mut file = stormed(&[16, 1_024], false, &world(2), &|| false);
    let said = |file: &StormFile| echometer_report::text::storm::sentence(file);
    let level = file.levels[1].clone();
    let with = |drops, full, cookies| echometer_report::file::storm::LevelEntry {
        listen_drops: Some(drops),
        counters: Some(Losses {
            syn_queue_full_drops: Some(full),
            syn_cookies: Some(cookies),
            ..Losses::default()
        }),
        ..level.clone()
    };
    // Never to lower it, and never where another limit is the one that was met.
    file.sysctls.tcp_max_syn_backlog = Some(2_048);
    for (cookies, entry) in [
        (1, with(0, 0, 9)),
        (2, with(0, 0, 9)),
        (0, with(9, 9, 0)),
        (0, with(9, 0, 0)),
    ] {
        file.sysctls.tcp_syncookies = Some(cookies);
        file.levels[1] = entry;
        assert!(
            !said(&file).contains("tcp_max_syn_backlog"),
            "{}",
            said(&file)
        );
    }
    // 1,000 half-open connections leave less than a quarter of 1,200 free; and of 1,335 they do not.
    file.sysctls.tcp_max_syn_backlog = Some(1_200);
    file.sysctls.tcp_syncookies = Some(0);
    assert!(
        said(&file).contains("net.ipv4.tcp_max_syn_backlog 1335 (it is 1200;"),
        "{}",
        said(&file)
    );
    file.sysctls.tcp_max_syn_backlog = Some(1_335);
    assert!(
        !said(&file).contains("tcp_max_syn_backlog"),
        "{}",
        said(&file)
    );
    // The queue is as long as the backlog that counts: 128 of 1,000.
    file.sysctls.tcp_syncookies = Some(1);
    file.levels[1] = with(0, 0, 9);
    assert!(!said(&file).contains("half-open"), "{}", said(&file));
    file.levels[1].effective_backlog = Some(128);
    assert!(
        said(&file)
            .contains("half-open connections, which is as long as the backlog: 1,000 holds all"),
        "{}",
        said(&file)
    );
}

#[test]
fn a_server_that_does_not_start_again_is_a_fault_and_not_the_end() {
    let world = World::of(&[
        GOOD,
        Server {
            refuses_start: Some(2),
            ..GOOD
        },
    ]);
    let file = stormed(&[16, 1_024], false, &world, &|| false);
    assert_eq!((file.levels[0].storms, file.levels[1].storms), (3, 2));
    assert_eq!(file.faults, ["block 3: uring-1024 exited with status 1"]);
}

#[test]
fn connects_without_an_echo_are_not_called_failed() {
    let mut file = stormed(&[16], false, &world(1), &|| false);
    let level = &mut file.levels[0];
    level.failed = 16;
    level.errors = [("no-echo".to_owned(), 13), ("timed_out".to_owned(), 3)].into();
    let text = echometer_report::text::storm::text(&file);
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected =
        "backlog 16: 16 connects failed or had no echo (13 without an echo, 3 timed out)";
    assert!(words(&text).contains(expected), "{text}");
}

#[test]
fn a_level_without_figures_or_an_unfit_machine_is_exit_3() {
    let mut file = stormed(&[1_024], false, &world(1), &|| false);
    assert_eq!(exit_code(&file), 0, "{:?}", file.doctor);
    file.doctor.push(Finding {
        check: "descriptors".into(),
        grade: Grade::Fail,
        value: "64".into(),
        why: "each connection is one".into(),
        cure: Some("raise it".into()),
    });
    assert_eq!(exit_code(&file), 3);
    let text = echometer_report::text::storm::text(&file);
    assert!(
        text.contains("- not valid: the machine is not fit (descriptors: 64)"),
        "{text}"
    );
    file.doctor.pop();
    file.faults.push("block 3: it died".into());
    assert_eq!(exit_code(&file), 3);
}

#[test]
fn a_stop_keeps_the_storms_that_are_whole() {
    let asked = std::cell::Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        3 < asked.get()
    };
    let file = stormed(&[16, 1_024], false, &world(2), &stop);
    assert!(file.cut_short);
    assert_eq!(
        file.levels.iter().map(|level| level.storms).sum::<usize>(),
        3
    );
    assert!(
        file.sentence.starts_with("Cut short. "),
        "{}",
        file.sentence
    );
}
