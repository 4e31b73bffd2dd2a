//! The program where something is scarce: threads, descriptors, room for files, a terminal, a reader.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::Duration,
};

use echometer_loadgen::file::RunFile;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Server, command};

/// Runs `script` with sh in a folder that everybody may write to; `$0` is the program, which everybody may run.
fn sh(script: &str) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir_in("/tmp").expect("a folder");
    let all = fs::Permissions::from_mode(0o777);
    fs::set_permissions(folder.path(), all).expect("it is ours");
    let program = folder.path().join("echometer-loadgen");
    fs::copy(env!("CARGO_BIN_EXE_echometer-loadgen"), &program).expect("copied");
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(&program)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("sh runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        !stderr.contains("panicked") && !stderr.contains("overflow"),
        "{stderr}"
    );
    (output.status.code(), stdout, stderr)
}

#[test]
fn without_a_thread_it_says_which_limit_it_met() {
    let server = Server::start("none");
    // Root is not limited.
    for limit in [1, 2, 3] {
        let (code, stdout, stderr) = sh(&format!(
            "[ $(id -u) != 0 ] || nobody='setpriv --reuid {} --clear-groups'; \
             $nobody prlimit --nproc={limit} \"$0\" {} -c 4 --threads 4 -d 100ms --engine epoll",
            64_000 + limit,
            server.name()
        ));
        assert_eq!(code, Some(1), "{limit}: {stdout}{stderr}");
        assert!(
            stderr.contains("cannot start a thread: ") && stderr.contains("ulimit -u"),
            "{limit}: {stderr}"
        );
    }
}

#[test]
fn a_small_stack_is_enough() {
    let server = Server::start("none");
    let name = server.name();
    for words in ["--help", &format!("{name} -c 4 -d 100ms -w 0s")] {
        let (code, _, stderr) = sh(&format!("ulimit -s 64; \"$0\" {words}"));
        assert!(matches!(code, Some(0 | 3)), "{words}: {code:?} {stderr}");
    }
}

/// The log grows during the run, and what is cut off by the limit may not pass for a whole one.
#[test]
fn a_limit_on_file_sizes_is_an_error_and_leaves_no_half_of_a_log() {
    let server = Server::start("none");
    let (code, stdout, stderr) = sh(&format!(
        "ulimit -f 2; \"$0\" {} -c 2 -d 1s -w 0s --interval 10ms --out out; code=$?; ls out >&2; exit $code",
        server.name()
    ));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("error: cannot write out/run.hlog: File too large")
            && stderr.contains("ulimit -f"),
        "{stderr}"
    );
    assert_eq!(
        stderr.matches("run.").count(),
        1,
        "nothing is left: {stderr}"
    );
    assert!(
        stdout.contains("round trip") && stdout.contains("verdict:"),
        "{stdout}"
    );
}

#[test]
fn help_that_nobody_gets_is_a_failure_and_a_reader_who_leaves_is_none() {
    let server = Server::start("none");
    let run = format!("{} -c 2 -d 100ms -w 0s", server.name());
    for words in ["--help", "--version", &run] {
        let (code, _, stderr) = sh(&format!("\"$0\" {words} > /dev/full"));
        assert_eq!(code, Some(1), "{words}: {stderr}");
        assert!(
            stderr.contains("cannot write to stdout: No space left"),
            "{stderr}"
        );
        let (_, _, stderr) = sh(&format!("{{ \"$0\" {words}; echo $? >&2; }} | true"));
        assert!(
            matches!(stderr.as_str(), "0\n" | "3\n"),
            "{words}: {stderr}"
        );
    }
}

#[test]
fn few_descriptors_are_named() {
    let server = Server::start("none");
    for count in [8, 16] {
        let script = format!("ulimit -n {count}; \"$0\" {} -c 2 -d 100ms", server.name());
        let (code, _, stderr) = sh(&script);
        assert_eq!(code, Some(1), "{count}: {stderr}");
        assert!(
            stderr.contains("nofile") || stderr.contains("ulimit -n"),
            "{count}: {stderr}"
        );
    }
}

/// The terminal goes: what was measured until then is a result all the same.
#[test]
fn a_hangup_keeps_what_was_measured() {
    let server = Server::start("none");
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("text");
    let child = command(&[
        &server.name(),
        "-c",
        "2",
        "-d",
        "60s",
        "-w",
        "0s",
        "--out",
        out,
    ])
    .spawn()
    .expect("it runs");
    std::thread::sleep(Duration::from_millis(1_500));
    kill_process(Pid::from_child(&child), Signal::HUP).expect("it lives");
    let ended = child.wait_with_output().expect("it ends");
    assert!(matches!(ended.status.code(), Some(0 | 3)), "{ended:?}");
    let run = RunFile::read(&folder.path().join("run.json")).expect("written");
    assert!(run.cut_short && 0 < run.end.answered);
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(!text.contains("verdict: valid"), "{text}");
}

/// A name of the abstract namespace is no file, on both sides.
#[test]
fn an_abstract_socket_is_loaded() {
    let name = format!("unix:@echometer-test-{}", std::process::id());
    let server = Server::start_on(&name, "none");
    for more in [
        &[][..],
        &["--requests-per-connection", "3"],
        &["--reconnect", "--engine", "epoll"],
    ] {
        let words = [&[&name, "-c", "2", "-d", "200ms", "-w", "0s"], more].concat();
        let (code, _, stderr) = crate::support::output(&words);
        assert!(matches!(code, Some(0 | 3)), "{more:?}: {stderr}");
    }
    assert!(3 < server.finish().total.bytes_in);
    let (code, _, stderr) = crate::support::output(&[&name, "-d", "100ms"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("Connection refused"), "{stderr}");
}
