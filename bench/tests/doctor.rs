//! `echometer doctor` and `scripts/tune-host.sh` as their users run them.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;

fn doctor(flags: &[&str]) -> (Output, Duration) {
    let begun = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_echometer"))
        .arg("doctor")
        .args(flags)
        .output()
        .expect("the bench starts");
    (output, begun.elapsed())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_doctor_is_done_in_three_seconds_and_says_what_the_exit_code_says() {
    let (output, took) = doctor(&[]);
    let said = text(&output.stdout);
    assert!(took < Duration::from_secs(3), "{took:?}");
    let failed = said.lines().any(|line| line.starts_with("FAIL "));
    assert_eq!(
        output.status.code(),
        Some(if failed { 3 } else { 0 }),
        "{said}"
    );
    for check in [
        "clocksource:",
        "isolcpus:",
        "steal:",
        "somaxconn:",
        "io_uring:",
    ] {
        assert!(said.contains(check), "{check} is missing:\n{said}");
    }
    assert!(
        said.lines().all(|line| line.chars().count() <= 80),
        "{said}"
    );
    assert!(!said.contains('\x1b'), "no colour in a pipe");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn the_json_holds_every_finding_with_its_cure() {
    let (output, _) = doctor(&["--json", "--for", "epoll", "-c", "10"]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(json["schema"], "echometer.doctor/1");
    assert_eq!(
        (&json["for"], &json["connections"]),
        (&"epoll".into(), &10.into())
    );
    let findings = json["findings"].as_array().expect("a list");
    assert!(20 < findings.len());
    for finding in findings {
        let grade = finding["grade"].as_str().expect("a word");
        assert!(
            ["PASS", "WARN", "FAIL", "unknown"].contains(&grade),
            "{finding}"
        );
        assert_eq!(finding["cure"].is_null(), grade == "PASS", "{finding}");
        assert_ne!(finding["check"], "io_uring", "epoll was asked about");
    }
}

#[test]
fn a_cpu_that_is_not_there_fails_and_ports_are_counted() {
    let (output, _) = doctor(&["--cpus", "0,4095", "-c", "70k"]);
    assert_eq!(output.status.code(), Some(3));
    let said = text(&output.stdout);
    assert!(
        said.contains("FAIL     cpus: cpu 4095 is offline"),
        "{said}"
    );
    assert!(
        said.contains("FAIL     port range:"),
        "70,000 do not fit 65,536 ports:\n{said}"
    );
    assert!(
        said.contains("not fit to measure, because of cpus"),
        "{said}"
    );
}

#[test]
fn colour_is_had_where_it_is_asked_for() {
    let coloured = |flag: &str| text(&doctor(&["--color", flag]).0.stdout).contains('\x1b');
    assert!(coloured("always"));
    assert!(!coloured("never"));
}

/// A made-up machine below a folder, with two settings that the script would change and one that is well.
fn machine(root: &Path) {
    for (path, value) in [
        ("proc/sys/net/core/somaxconn", "128"),
        ("proc/sys/net/core/busy_poll", "0"),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "[always] madvise never",
        ),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        fs::write(path, format!("{value}\n")).expect("it can be written");
    }
}

#[test]
fn tuning_shows_applies_records_and_restores() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    machine(root);
    let somaxconn =
        || fs::read_to_string(root.join("proc/sys/net/core/somaxconn")).expect("it is there");
    let tune = |flags: &[&str]| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/tune-host.sh");
        let output = Command::new(script)
            .args(["--root", &root.display().to_string()])
            .args(["--state", &root.join("saved").display().to_string()])
            .args(flags)
            .output()
            .expect("bash is there");
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };

    let (code, shown, _) = tune(&[]);
    assert_eq!(code, Some(0));
    assert!(
        shown.contains("128 -> 4096") && shown.contains("always -> madvise"),
        "{shown}"
    );
    assert!(!shown.contains("busy_poll"), "that one is well:\n{shown}");
    assert_eq!(somaxconn(), "128\n", "showing changes nothing");

    assert_eq!(tune(&["--apply"]).0, Some(0));
    assert_eq!(somaxconn(), "4096\n");
    let (code, _, complaint) = tune(&["--apply"]);
    assert_eq!(code, Some(1), "what was there first must not be lost");
    assert!(complaint.contains("--restore"), "{complaint}");

    assert_eq!(tune(&["--restore"]).0, Some(0));
    assert_eq!(somaxconn(), "128\n");
    assert_eq!(
        tune(&["--restore"]).0,
        Some(1),
        "there is nothing left to restore"
    );
    assert_eq!(tune(&["--faster"]).0, Some(2));

    // What the kernel refused to change is as the record has it, and nobody has to put it back.
    let record = |line: &str| fs::write(root.join("saved"), line).expect("it can be written");
    record("/proc/sys/kernel/ostype|Linux\n");
    assert_eq!(tune(&["--restore"]).0, Some(0));
    record("/proc/sys/kernel/ostype|another\n");
    let (code, _, complaint) = tune(&["--restore"]);
    assert_eq!(code, Some(1), "{complaint}");
    assert!(root.join("saved").exists(), "the record stays");
}
