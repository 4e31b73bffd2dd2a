//! `echometer selftest` as its users run it: a real calibration server, and one truth that any machine shows, however
//! busy it is. (All of them are for a machine that is left alone: run the command itself.)

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

/// Our server, next to the bench: Cargo builds it for this test only where the whole workspace is tested.
fn build_server(bench: &Path) {
    let folder = bench.parent().expect("a binary lies in a folder");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "test",
        Some(profile) => profile,
    };
    let target = folder
        .parent()
        .expect("a profile's folder lies in the target folder");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "echometer-server"])
        .args(["--bin", "echometer-server", "--profile", profile])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg("--target-dir")
        .arg(target)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "echometer-server can't be built");
}

#[test]
fn the_hidden_tail_is_warned_of_and_the_file_says_so() {
    let bench = Path::new(env!("CARGO_BIN_EXE_echometer"));
    build_server(bench);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out");
    let mut command = Command::new(bench);
    command
        .args([
            "--color", "always", "selftest", "--quick", "--only", "omission",
        ])
        .arg("--out")
        .arg(&out)
        .stdin(Stdio::null());
    let allowed = echometer_host::cpus::allowed().expect("a mask");
    if allowed.len() < 2 {
        let only = allowed.to_string();
        command.args(["--server-cpus", &only, "--client-cpus", &only]);
    }
    let output = command.output().expect("the bench starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    let (green, plain) = ("\x1b[32m", "\x1b[0m");
    assert!(
        stdout.contains(&format!("  {green}pass{plain}\n")),
        "{stdout}"
    );
    let stdout = stdout.replace(green, "").replace(plain, "");
    assert!(
        stdout.contains("coordinated omission") && stdout.contains("PASS"),
        "{stdout}"
    );
    assert!(
        stdout
            .lines()
            .all(|line| line.chars().count() <= 80 || line.starts_with("open:"))
    );
    assert!(stderr.starts_with("[1/1] frozen 200 ms"), "{stderr}");

    let json = fs::read_to_string(out.join("selftest.json")).expect("it was written");
    let selftest: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(selftest["schema"], "echometer.selftest/1");
    assert_eq!(selftest["passed"], true);
    let outcome = &selftest["truths"][0];
    assert_eq!(outcome["checks"][0]["kind"], "warning");
    // The raw run lies beside it, with the verdict that was judged.
    let run = out.join(outcome["folders"][0].as_str().expect("a folder"));
    let run = fs::read_to_string(run.join("run.json")).expect("it was written");
    assert!(run.contains("coordinated omission"), "{run}");

    // A result is never overwritten.
    let again = Command::new(bench)
        .args(["selftest", "--quick", "--only", "omission", "--out"])
        .arg(&out)
        .output()
        .expect("the bench starts");
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("never overwritten"));
}
