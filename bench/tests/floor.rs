//! `echometer floor` as its users run it.

use std::{
    fs,
    process::{Command, Stdio},
};

use serde_json::Value;

fn floor(folder: &std::path::Path, flags: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_echometer"))
        .current_dir(folder)
        .arg("floor")
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .expect("it starts")
}

#[test]
fn the_floor_is_shown_and_saved() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let flags = [
        "-c",
        "1,20",
        "-s",
        "1KiB",
        "-d",
        "5ms",
        "--blocks",
        "6",
        "--machine",
        "here",
    ];
    let output = floor(folder.path(), &flags);
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.lines()
            .filter(|line| !line.starts_with("open: "))
            .all(|line| line.chars().count() <= 80),
        "{text}"
    );
    // Where its lines break depends on what this machine is called.
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("an echo of 1 KiB costs"), "{text}");
    let day = fs::read_dir(folder.path().join("results"))
        .expect("results")
        .next()
        .expect("a day")
        .expect("it is readable");
    let saved = day.path().join("here/floor-001");
    let report = fs::read_to_string(saved.join("report.txt")).expect("it is saved");
    assert!(text.starts_with(&report), "{text}\n---\n{report}");
    assert!(!saved.join("blocks").exists(), "it has no files per block");
    let file: Value =
        serde_json::from_slice(&fs::read(saved.join("floor.json")).expect("it is saved"))
            .expect("it is JSON");
    assert_eq!(file["schema"], "echometer.floor/1");
    let rows = file["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    for row in rows {
        let value = |name: &str| {
            row[name]
                .as_f64()
                .unwrap_or_else(|| panic!("{name} in {row}"))
        };
        assert!(
            value("ci_low") <= value("cpu_ns_per_message")
                && value("cpu_ns_per_message") <= value("ci_high"),
            "{row}"
        );
        assert!(0.0 < value("two_syscalls_ns"), "{row}");
    }
}

#[test]
fn few_blocks_have_no_interval_and_exit_3() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let flags = ["-c", "1", "-d", "1ms", "--blocks", "2", "--json"];
    let output = floor(folder.path(), &flags);
    assert_eq!(output.status.code(), Some(3));
    let file: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(file["rows"][0]["ci_low"], Value::Null);
}

#[test]
fn a_cpu_that_is_not_there_is_an_error_with_its_cure() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = floor(folder.path(), &["--cpu", "4000"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.starts_with("error: cpu 4000 does not exist"), "{text}");
    assert!(
        !folder.path().join("results").exists(),
        "nothing is left behind"
    );
}
