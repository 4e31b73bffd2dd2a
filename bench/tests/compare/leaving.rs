//! What leaves: a server its process group, a folder its place.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::{SERVER, bench, folder, parsed, run, text};

/// One block of two arms into the folder `r`.
const ONE_BLOCK: &[&str] = &[
    "-c", "4", "-d", "120ms", "-w", "20ms", "--slice", "20ms", "--blocks", "1", "--out", "r",
];

#[test]
fn a_server_that_leaves_its_group_is_not_timed_and_not_left_without_a_word() {
    let folder = folder();
    // A daemon: a session of its own, and no parent that is ours.
    let daemon = format!(
        "d=sh -c '(setsid {} --listen 127.0.0.1:{{port}} --engine epoll --threads 1 &); exec sleep 600'",
        SERVER.display()
    );
    let (output, _) = run(bench(folder.path(), &["epoll", &daemon], ONE_BLOCK));
    let said = text(&output.stderr);
    let pid = said
        .split("d left a server behind, which has left its process group: process ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .and_then(Pid::from_raw)
        .unwrap_or_else(|| panic!("nobody is named: {said}"));
    let was_there = kill_process(pid, Signal::KILL);
    assert!(was_there.is_ok(), "{said}");
    let file = parsed(&fs::read(folder.path().join("r/compare.json")).expect("it was saved"));
    let arms = &file["blocks"][0]["arms"];
    assert!(arms["epoll"]["server_cpu_ns_per_message"].is_number());
    for unknown in ["server_cpu_ns_per_message", "server_busy", "rss_bytes"] {
        assert!(arms["d"][unknown].is_null(), "{unknown}: {arms}");
    }
    let warnings = file["verdict"]["warnings"].to_string();
    assert!(warnings.contains("left a server behind"), "{warnings}");
}

#[test]
fn what_goes_into_the_background_and_ends_is_named_too() {
    let folder = folder();
    let script = folder.path().join("daemon.sh");
    let server = SERVER.display();
    // It ends when the server has left its group, or the server would be ended with the group.
    let lines = format!(
        "setsid {server} --listen 127.0.0.1:$1 --engine epoll --threads 1 &\n\
         until [ \"$(cut -d ' ' -f 6 /proc/$!/stat)\" = $! ]; do :; done\n"
    );
    fs::write(&script, lines).expect("it is written");
    let arm = format!("d=sh {} {{port}}", script.display());
    let (output, _) = run(bench(folder.path(), &[&arm, "epoll"], ONE_BLOCK));
    let said = text(&output.stderr);
    let pid = said
        .split("(kill ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .and_then(Pid::from_raw)
        .unwrap_or_else(|| panic!("nobody is named: {said}"));
    assert!(kill_process(pid, Signal::KILL).is_ok(), "{said}");
    // It may have echoed before its parent was seen to end: then its block does not count.
    assert!(matches!(output.status.code(), Some(1 | 3)), "{said}");
}

#[test]
fn figures_are_shown_though_the_folder_has_gone() {
    let folder = folder();
    // In the second block it takes the folder away.
    let arm = format!(
        "d=sh -c 'test -e mark && rm -r r; touch mark; exec {} --listen 127.0.0.1:{{port}} --engine epoll --threads 1'",
        SERVER.display()
    );
    let flags: Vec<&str> = ONE_BLOCK
        .iter()
        .map(|&word| if word == "1" { "2" } else { word })
        .collect();
    let (output, _) = run(bench(folder.path(), &["epoll", &arm], &flags));
    let (shown, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: cannot write"), "{said}");
    assert!(
        shown.contains("epoll") && shown.contains("server busy"),
        "{shown}"
    );
    assert!(!shown.contains("open: "), "{shown}");
}
