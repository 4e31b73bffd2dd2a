//! Comparisons under an open loop, in slices and in whole runs.

use super::*;

#[test]
fn whole_runs_end_in_an_answer_and_its_files() {
    let uneven = |share: f64| Server {
        scatter: 0.02,
        ..faster(share)
    };
    let mut trial = with_floor(Trial::of(
        "epoll uring -R 50k --design runs",
        &[uneven(1.0), uneven(0.8)],
    ));
    trial.run().expect("all goes well");
    let log = fs::read_to_string(trial.folder.join("blocks/001-uring.hlog")).expect("it is there");
    let lines = log
        .lines()
        .filter(|line| line.starts_with("Tag=latency"))
        .count();
    assert_eq!(lines, 2, "one per run: {log}");
    let state = Rc::clone(&trial.world.state);
    assert_eq!(state.borrow().starts, [12, 12], "two in each of six blocks");
    let finished = trial.finish();
    let primary = primary_of(&finished);
    assert_eq!(
        (primary.name, primary.verdict),
        (Metric::LatencyP99, Verdict::Better)
    );
    assert_eq!((primary.blocks_used, primary.confidence), (6, Some(0.95)));
    assert!(primary.p.is_some_and(|p| p < 0.001));
    let rate = finished
        .file
        .metrics
        .iter()
        .find(|metric| metric.name == Metric::Rate);
    let rate = rate.expect("there is one");
    assert_eq!(rate.reason.as_deref(), Some("open loop: -R sets the rate"));
    let floor = finished.file.floor.as_ref().expect("it was planned");
    assert!(
        floor
            .multiples
            .iter()
            .all(|multiple| multiple.ci_high.is_some())
    );
    assert!(
        finished
            .file
            .sentence
            .contains("lower latency at p99 than epoll")
    );
    assert_eq!(exit_code(&finished.file, true), 0);
    let text = echometer_report::text::compare::text(&finished.file);
    assert!(
        text.contains("6 of 6 blocks valid, runs of 2.00 s"),
        "{text}"
    );
    assert!(
        text.lines()
            .all(|line| line.chars().count() <= echometer_report::text::columns::COLUMNS),
        "{text}"
    );
}

#[test]
fn slices_of_an_open_loop_end_in_an_answer_about_the_tail() {
    let uneven = |share: f64| Server {
        scatter: 0.02,
        ..faster(share)
    };
    let mut trial = with_floor(Trial::of("epoll uring -R 50k", &[uneven(1.0), uneven(0.8)]));
    trial.run().expect("all goes well");
    let finished = trial.finish();
    let primary = primary_of(&finished);
    assert_eq!(
        (primary.name, primary.verdict, primary.blocks_used),
        (Metric::LatencyP99, Verdict::Better, 8)
    );
    // The made-up client is late by a tenth on either side, the same for both.
    let least = primary.least.expect("an open loop has two ends");
    assert!((least.ratio - 0.8).abs() < 0.01, "{least:?}");
    assert_eq!(least.verdict, Verdict::Better);
    assert!(
        finished
            .file
            .sentence
            .contains("lower latency at p99 than epoll"),
        "{}",
        finished.file.sentence
    );
    assert_eq!(exit_code(&finished.file, true), 0);
    let arm = &finished.file.blocks[0].arms["uring"];
    let open = arm.open.as_ref().expect("an open loop");
    assert_eq!((open.overloaded_slices, &open.overload), (0, &None));
    assert!(open.service_least_ns.p50 < open.service_ns.p50);
}

#[test]
fn a_server_that_falls_behind_in_its_slices_has_no_latency_to_compare() {
    let drowning = Server {
        overloaded_from: Some(0),
        ..faster(1.0)
    };
    let mut trial = Trial::of("epoll uring -R 50k", &[GOOD, drowning]);
    trial.run().expect("it is a finding");
    let finished = trial.finish();
    assert_eq!(primary_of(&finished).verdict, Verdict::Invalid);
    let said = &finished.file.sentence;
    assert!(
        said.contains("overloaded: 8 of 8 blocks of uring, first: made up not to keep up"),
        "{said}"
    );
    assert_eq!(exit_code(&finished.file, true), 3);
}

#[test]
fn a_server_too_slow_for_slices_ends_them_and_says_so() {
    let slow = Server {
        latency_ns: 30_000_000,
        ..faster(1.0)
    };
    let mut trial = Trial::of("epoll uring -R 50k", &[GOOD, slow]);
    let error = trial.run().expect_err("100 times 30 ms are more than 2 s");
    let GivesWay(reason) = error.downcast().expect("it gives way");
    assert!(
        reason.starts_with("uring had a p99 of 30.0 ms in its warm-up"),
        "{reason}"
    );
}

#[test]
fn an_overloaded_server_has_no_latency_to_compare() {
    let drowning = Server {
        judged: Judged::Overloaded,
        ..faster(3.0)
    };
    let mut trial = Trial::of("epoll uring -R 50k --design runs", &[GOOD, drowning]);
    trial.run().expect("it is a finding");
    let finished = trial.finish();
    assert_eq!(primary_of(&finished).verdict, Verdict::Invalid);
    let said = &finished.file.sentence;
    assert!(
        said.contains("overloaded: 12 of 12 runs of uring"),
        "{said}"
    );
    assert_eq!(exit_code(&finished.file, true), 3);
    let cpu = finished.file.metrics.iter();
    let cpu = cpu
        .clone()
        .find(|metric| metric.name == Metric::ServerCpuPerMessage);
    assert_eq!(
        cpu.expect("there is one").verdict,
        Verdict::Worse,
        "CPU is told all the same"
    );
}

#[test]
fn a_server_that_dies_in_a_run_costs_one_block() {
    let mortal = Server {
        dies_at: Some(5),
        ..faster(0.8)
    };
    let mut trial = Trial::of(
        "epoll uring -R 50k --design runs --blocks 7",
        &[GOOD, mortal],
    );
    trial.run().expect("it goes on");
    let finished = trial.finish();
    let invalid: Vec<usize> = finished
        .file
        .blocks
        .iter()
        .filter(|block| !block.valid)
        .map(|block| block.index)
        .collect();
    assert_eq!((invalid, exit_code(&finished.file, true)), (vec![2], 0));
    assert_eq!(primary_of(&finished).blocks_used, 6);
}
