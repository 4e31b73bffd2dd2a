//! The forms of a report, what is merged and exported, and what is said of files that can't be read.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use echometer_loadgen::Plan;
use echometer_report::saved::hlog::Log;

use crate::fixtures::{self, report};

fn echometer(arguments: &[&str], at: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_echometer"))
        .args(arguments)
        .current_dir(at)
        .output()
        .expect("the bench starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Compares with a file in `tests/golden`; `ECHOMETER_BLESS=1` writes it.
fn golden(name: &str, seen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("ECHOMETER_BLESS").is_some() {
        fs::write(&path, seen).expect("it can be written");
    }
    let expected =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        seen,
        expected,
        "{} (ECHOMETER_BLESS=1 writes it anew)",
        path.display()
    );
}

#[test]
fn a_runs_page_says_the_whole_load() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plan = Plan {
        connections: 1,
        message_size: 4_096,
        size_mix: Some("64:90%,4KiB:10%".parse().expect("a mix")),
        pipeline: 2,
        duration: Duration::from_millis(300),
        warmup: Duration::from_millis(50),
        ..Plan::default()
    };
    let run = fixtures::run_with(&plan, folder.path());
    let shown = report(&[run.as_os_str(), "--format".as_ref(), "markdown".as_ref()]);
    let load = "1 connection, 64 B (90 %) or 4 KiB (10 %), 2 in flight, closed loop, 300ms";
    assert!(shown.contains(load), "{shown}");
    let page = folder.path().join("page.html");
    report(&[run.as_os_str(), "-o".as_ref(), page.as_os_str()]);
    let page = fs::read_to_string(page).expect("it was written");
    assert!(page.contains(", 1 thread<"), "the client's threads");
}

#[test]
fn the_texts_are_as_they_were_and_fit_80_columns() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let results: [(&str, PathBuf); 10] = [
        ("compare", fixtures::compare()),
        ("runs", fixtures::runs()),
        ("sweep", fixtures::made_up(at, "sweep.json")),
        ("pinning", fixtures::saved("pinning.json")),
        ("curve", fixtures::made_up(at, "curve.json")),
        ("find-rate", fixtures::made_up(at, "find-rate.json")),
        ("storm", fixtures::storm(at)),
        ("floor", fixtures::made_up(at, "floor.json")),
        ("selftest", fixtures::made_up(at, "selftest.json")),
        ("log", fixtures::log(at)),
    ];
    for (name, path) in results {
        let shown = report(&[path.as_os_str(), "--format".as_ref(), "text".as_ref()]);
        let long = shown
            .lines()
            .find(|line| 80 < line.chars().count() && line.trim().contains(' '));
        assert_eq!(long, None, "{name}");
        assert!(!shown.contains('\x1b'), "no colour in a pipe");
        golden(&format!("report-{name}.txt"), &shown);
        let shown = report(&[path.as_os_str(), "--format".as_ref(), "markdown".as_ref()]);
        golden(&format!("report-{name}.md"), &shown);
        let shown = report(&[path.as_os_str(), "--format".as_ref(), "csv".as_ref()]);
        let columns = shown.lines().next().expect("a head").split(',').count();
        assert!(1 < columns && 1 < shown.lines().count(), "{name}: {shown}");
    }
}

#[test]
fn a_saved_comparison_is_shown_as_it_was_printed() {
    for path in [fixtures::compare(), fixtures::runs()] {
        let shown = report(&[path.as_os_str(), "--format".as_ref(), "text".as_ref()]);
        assert_eq!(
            shown,
            fs::read_to_string(path.join("report.txt")).expect("it is there")
        );
    }
    let path = fixtures::compare();
    let shown = report(&[path.as_os_str(), "--format".as_ref(), "json".as_ref()]);
    assert_eq!(
        shown,
        fs::read_to_string(path.join("compare.json")).expect("it is there")
    );
    let painted = report(&[
        path.as_os_str(),
        "--format".as_ref(),
        "text".as_ref(),
        "--color".as_ref(),
        "always".as_ref(),
    ]);
    assert!(painted.contains("\x1b[33mundecided\x1b[0m"), "{painted}");
}

#[test]
fn a_data_file_has_the_reason_of_every_verdict() {
    let csv = |path: PathBuf| report(&[path.as_os_str(), "--format".as_ref(), "csv".as_ref()]);
    let shown = csv(fixtures::runs());
    let mut lines = shown.lines();
    assert!(
        lines
            .next()
            .is_some_and(|head| head.ends_with(",verdict,reason")),
        "{shown}"
    );
    let invalid: Vec<&str> = lines.filter(|line| line.contains(",invalid,")).collect();
    assert!(
        !invalid.is_empty() && invalid.iter().all(|line| !line.ends_with(",invalid,")),
        "{shown}"
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let saved = fs::read_to_string(fixtures::saved("sweep.json")).expect("it is there");
    let mut sweep: serde_json::Value = serde_json::from_str(&saved).expect("it is JSON");
    let metrics = sweep["points"][0]["metrics"].as_array_mut();
    let judged = metrics
        .and_then(|metrics| {
            let mut of_arms = metrics.iter_mut();
            of_arms.find(|metric| metric["against_arm"].is_object())
        })
        .expect("two arms");
    judged["against_arm"]["verdict"] = "invalid".into();
    judged["against_arm"]["reason"] = "client-bound, \"surely\"".into();
    let path = folder.path().join("sweep.json");
    fs::write(&path, sweep.to_string()).expect("it can be written");
    let shown = csv(path);
    assert!(
        shown
            .lines()
            .next()
            .is_some_and(|head| head.ends_with(",verdict,reason"))
            && shown.contains(",invalid,\"client-bound, \"\"surely\"\"\"\n"),
        "{shown}"
    );
}

/// Texts of results that are free to say anything, with what a terminal would obey.
fn armed(value: &mut serde_json::Value) {
    const FREE: [&str; 15] = [
        "sentence",
        "reasons",
        "warnings",
        "remarks",
        "command",
        "spec",
        "started_at",
        "cpu_model",
        "kernel",
        "why",
        "cure",
        "ready_line",
        "faults",
        "label",
        "reason",
    ];
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let texts: Vec<&mut serde_json::Value> = match value {
                    serde_json::Value::Array(values) => values.iter_mut().collect(),
                    one => vec![one],
                };
                for text in texts {
                    match text {
                        serde_json::Value::String(text) if FREE.contains(&name.as_str()) => {
                            text.push_str("\u{1b}[2J\u{9b}31m\r\u{7}");
                        }
                        other => armed(other),
                    }
                }
            }
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(armed),
        _ => {}
    }
}

#[test]
fn what_a_foreign_file_says_does_not_reach_the_terminal_as_a_command() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let harmless = |name: &str, said: &str| {
        let obeyed = said.chars().find(|char| char.is_control() && *char != '\n');
        assert_eq!(obeyed, None, "{name}: {said:?}");
    };
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("../loadgen/tests/saved/run.json");
    for path in [
        fixtures::compare().join("compare.json"),
        fixtures::runs().join("compare.json"),
        fixtures::saved("sweep.json"),
        fixtures::saved("pinning.json"),
        fixtures::saved("curve.json"),
        fixtures::saved("find-rate.json"),
        fixtures::saved("storm.json"),
        fixtures::saved("floor.json"),
        fixtures::saved("selftest.json"),
        run,
    ] {
        let name = path.display().to_string();
        let saved = fs::read_to_string(&path).expect("it is there");
        // An arm's name is a field's name too; a selftest's is an engine's, one of a few words.
        let saved = match path.ends_with("selftest.json") {
            true => saved,
            false => saved
                .replace("\"uring\"", "\"ur\\u001bing\"")
                .replace("\"engine\": \"ur\\u001bing\"", "\"engine\": \"uring\""),
        };
        let mut value: serde_json::Value = serde_json::from_str(&saved).expect("it is JSON");
        armed(&mut value);
        let file = at.join(path.file_name().expect("a file"));
        let bytes = value.to_string();
        fs::write(&file, &bytes).expect("it can be written");
        for format in ["text", "csv", "markdown"] {
            let shown = report(&[file.as_os_str(), "--format".as_ref(), format.as_ref()]);
            harmless(&format!("{name} as {format}"), &shown);
            if format != "csv" {
                let escape = shown.replace("\\\\", "\\");
                assert!(escape.contains("\\u{1b}"), "{name}: it is shown: {shown}");
            }
        }
        let shown = report(&[file.as_os_str(), "--format".as_ref(), "json".as_ref()]);
        assert_eq!(shown, bytes, "{name}: data stay as they are");
    }
    // Errors quote what they refuse.
    fs::write(at.join("a.json"), r#"{"schema": "\u001b[2J/1"}"#).expect("it can be written");
    let output = echometer(&["report", "a.json"], at);
    harmless("a schema", &text(&output.stderr));
    assert!(text(&output.stderr).contains("\\u{1b}[2J/1"));
    fs::write(
        at.join("v.hlog"),
        "#[Histogram log format version 2.\u{1b}[2J]\n",
    )
    .expect("it can be written");
    harmless(
        "a version",
        &text(&echometer(&["report", "v.hlog"], at).stderr),
    );
    fs::write(at.join("job.toml"), "arms = [\u{1b}[2J").expect("it can be written");
    harmless(
        "a job",
        &text(&echometer(&["sweep", "job.toml"], at).stderr),
    );
    // A log's tags.
    fixtures::log(at);
    let log = fs::read_to_string(at.join("merged.hlog")).expect("it was written");
    fs::write(
        at.join("b.hlog"),
        log.replace("Tag=lat", "Tag=la\u{1b}[2Jt"),
    )
    .expect("it can be written");
    for format in ["text", "csv", "markdown"] {
        let shown = report(&[
            at.join("b.hlog").as_os_str(),
            "--format".as_ref(),
            format.as_ref(),
        ]);
        harmless(&format!("a log as {format}"), &shown);
    }
    let output = echometer(&["merge", "b.hlog", "-o", "c.hlog"], at);
    harmless("merge", &text(&output.stdout));
    assert!(
        text(&output.stdout).contains("la\\u{1b}[2Jtency 10,000"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn figures_are_written_as_svg_and_are_the_same_each_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let draw = |name: &str| {
        let into = folder.path().join(name);
        let listed = report(&[
            fixtures::compare().as_os_str(),
            "--svg".as_ref(),
            into.as_os_str(),
        ]);
        assert_eq!(listed.lines().count(), 4, "{listed}");
        fs::read_to_string(into.join("spectrum.svg")).expect("it was drawn")
    };
    assert_eq!(draw("one"), draw("two"));
}

#[test]
fn logs_are_merged_to_every_count() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    fixtures::log(at);
    let one = Log::read(&at.join("merged.hlog"), None).expect("it was written");
    let output = echometer(
        &["merge", "merged.hlog", "merged.hlog", "-o", "both.hlog"],
        at,
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        "both.hlog: 2 logs, 5 intervals; values: latency 20,000\n"
    );
    let both = Log::read(&at.join("both.hlog"), None).expect("it was written");
    assert_eq!(
        both.intervals.len(),
        one.intervals.len(),
        "the course over time is kept"
    );
    for (one, both) in one.intervals.iter().zip(&both.intervals) {
        let twice = both.histogram.histogram();
        for value in one.histogram.histogram().iter_recorded() {
            let at = value.value_iterated_to();
            assert_eq!(twice.count_at(at), 2 * value.count_at_value());
        }
    }
    let output = echometer(&["merge", "merged.hlog", "-o", "both.hlog"], at);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("never overwritten"));
}

#[test]
fn a_result_is_exported_for_other_tools() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out");
    let compare = fixtures::compare();
    let output = echometer(
        &["export", &compare.display().to_string(), "-o", "out"],
        folder.path(),
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let spectrum = fs::read_to_string(out.join("latency-uring.hgrm")).expect("it was written");
    assert!(spectrum.trim_start().starts_with("Value") && spectrum.contains("Total count"));
    let counts = fs::read_to_string(out.join("latency-uring.csv")).expect("it was written");
    let last = counts
        .lines()
        .last()
        .expect("a line")
        .rsplit(',')
        .next()
        .expect("a number");
    assert!(
        spectrum.contains(&format!("Total count    = {last:>12}")),
        "{last}"
    );
    assert!(out.join("table-blocks.csv").is_file());
    // Again: nothing is overwritten, and nothing else written either.
    fs::write(out.join("latency-uring.csv"), "kept").expect("it is writable");
    fs::remove_file(out.join("latency-uring.hgrm")).expect("it is there");
    let output = echometer(
        &["export", &compare.display().to_string(), "-o", "out"],
        folder.path(),
    );
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("is there already, and files are never overwritten")
            && said.contains("--out"),
        "{said}"
    );
    let kept = fs::read_to_string(out.join("latency-uring.csv")).expect("it is there");
    assert_eq!(kept, "kept");
    assert!(!out.join("latency-uring.hgrm").exists());
}

#[test]
fn every_arm_has_files_of_its_own_whatever_it_is_called() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let saved = fs::read_to_string(fixtures::compare().join("compare.json")).expect("it is there");
    let copied = |from: &str, to: &str| {
        let logs = fixtures::compare().join("blocks");
        fs::create_dir_all(at.join(to).join("blocks")).expect("it can be made");
        for log in fs::read_dir(logs).expect("logs") {
            let log = log.expect("it is readable");
            fs::copy(log.path(), at.join(to).join("blocks").join(log.file_name())).expect("a copy");
        }
        fs::write(at.join(to).join("compare.json"), from).expect("it can be written");
    };
    // Arms that differ in what a file's name leaves out.
    let alike = saved.replace("\"uring\"", "\"EPOLL\"");
    copied(&alike, "alike");
    let output = echometer(&["export", "alike", "-o", "out"], at);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let read = |name: &str| fs::read_to_string(at.join("out").join(name)).expect("it was written");
    assert_ne!(read("latency-epoll.csv"), read("latency-epoll-2.csv"));
    // And one that is a path.
    copied(&saved.replace("\"uring\"", "\"/../x\""), "path");
    let output = echometer(&["report", "path", "--svg", "drawn"], at);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        at.join("drawn/ratios-..-x.svg").is_file(),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn what_cannot_be_read_is_said_in_a_line_with_exit_code_1() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let whole = fs::read_to_string(fixtures::compare().join("compare.json")).expect("it is there");
    for (name, contents, reason) in [
        ("cut.json", whole[..whole.len() / 2].to_owned(), "truncated"),
        (
            "new.json",
            whole.replace("compare/1", "compare/7"),
            "newer than this program",
        ),
        (
            "foreign.json",
            "{\"schema\": \"k6/1\"}".to_owned(),
            "foreign",
        ),
        (
            "odd.json",
            whole.replace("\"blocks\"", "\"block\""),
            "damaged",
        ),
        ("foreign.hlog", "latency 5 ms\n".to_owned(), "foreign"),
    ] {
        fs::write(at.join(name), contents).expect("it can be written");
        for command in ["report", "export"] {
            let output = echometer(&[command, name], at);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{name}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(
                said.starts_with("error: ") && said.contains(name) && said.contains(reason),
                "{said}"
            );
        }
    }
    let output = echometer(&["report", "nowhere"], at);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("No such file"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn completions_and_man_pages_come_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for shell in ["bash", "zsh", "fish"] {
        let output = echometer(&["completions", shell], folder.path());
        assert!(
            output.status.success() && text(&output.stdout).contains("doctor"),
            "{shell}"
        );
    }
    let output = echometer(&["man", "-o", "man"], folder.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let page =
        fs::read_to_string(folder.path().join("man/echometer-compare.1")).expect("it was written");
    assert!(
        page.contains(".SH SYNOPSIS") && page.contains("echometer compare"),
        "{page}"
    );
    // What is wrong with flags is said by the command's whole name.
    let output = echometer(&["trace", "nonsense"], folder.path());
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("neither an engine") && said.contains("Usage: echometer trace "),
        "{said}"
    );
    let output = echometer(&["man", "nonsense"], folder.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no command 'nonsense'"));
}
