//! The command line: what it says of a run, and how it exits by that.

use echometer_loadgen::file::RunFile;

use crate::support::{Server, output, unwrapped};

#[test]
fn thresholds_are_judged_and_shown() {
    let server = Server::start("none");
    let name = server.name();
    let run = |expressions: &[&str]| {
        let flags = ["-c", "4", "-d", "300ms", "-w", "50ms", "--json"];
        let expressions = expressions.iter().flat_map(|text| ["--fail-if", text]);
        let words: Vec<&str> = [name.as_str()]
            .into_iter()
            .chain(flags)
            .chain(expressions)
            .collect();
        let (code, stdout, stderr) = output(&words);
        let run: RunFile = serde_json::from_str(&stdout).expect(&stderr);
        (code, run)
    };
    // A run that is not valid says so first: 3 comes before 99.
    let (code, held) = run(&["p50<10s", "rate>1", "errors==0"]);
    assert!(matches!(code, Some(0 | 3)), "{code:?}");
    assert!(held.thresholds.len() == 3 && held.thresholds.iter().all(|held| held.holds));
    let (code, failed) = run(&["p50<10s", "p50<1ns"]);
    assert!(matches!(code, Some(99 | 3)), "{code:?}");
    assert_eq!(
        (code == Some(99)),
        (failed.verdict.status.name() == "valid")
    );
    let holds: Vec<bool> = failed.thresholds.iter().map(|held| held.holds).collect();
    assert_eq!(holds, [true, false]);
    assert_eq!(failed.thresholds[1].expression, "p50<1ns");
    assert_eq!(
        failed.thresholds[1].value,
        failed.end.latency_ns.p50.map(|ns| ns as f64)
    );

    let (_, stdout, _) = output(&[&name, "-d", "200ms", "-w", "0s", "--fail-if", "max<1ns"]);
    assert!(stdout.contains("fail-if   max<1ns: FAILED, "), "{stdout}");
    let (code, _, stderr) = output(&[&name, "--fail-if", "p99<200"]);
    assert_eq!(code, Some(2), "{stderr}");
}

#[test]
fn an_overload_is_named_and_not_shown_without_a_word() {
    // 500 us of work per message: twice as many are due as can be done.
    let server = Server::start("busy:500us");
    let (code, stdout, _) = output(&[
        &server.name(),
        "-R",
        "4k",
        "--pipeline",
        "1",
        "--wait",
        "block",
        "-d",
        "600ms",
        "-w",
        "100ms",
    ]);
    assert_eq!(code, Some(3), "{stdout}");
    let said = unwrapped(&stdout);
    assert!(
        said.contains("verdict: not valid") && said.contains("lower -R"),
        "{stdout}"
    );
    assert!(
        said.contains("grew from") || said.contains("messages due were answered"),
        "{stdout}"
    );
}

#[test]
fn a_freeze_in_closed_loop_is_warned_of() {
    let server = Server::start("freeze:40ms/200ms");
    let (_, stdout, _) = output(&[&server.name(), "-c", "8", "-d", "1s", "-w", "0s"]);
    let said = unwrapped(&stdout);
    assert!(said.contains("note: coordinated omission: "), "{stdout}");
    assert!(
        said.contains("no latency under load; for that use -R"),
        "{stdout}"
    );
}
