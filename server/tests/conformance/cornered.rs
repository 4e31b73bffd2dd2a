//! What came of driving servers into corners: promises that are not those of every engine, or of no engine at all.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::support::{Pattern, connect_to, echo};

/// Nor one that meets a limit and has something to say of it.
#[test]
fn a_log_that_nobody_reads_harms_no_server() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 40 && exec \"$@\"", "sh"]);
    command.arg(env!("CARGO_BIN_EXE_echometer-server"));
    command.args(["--engine", "epoll", "--threads", "1", "--listen"]);
    let mut child = command
        .arg("127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(writer)
        .spawn()
        .expect("the binary is built");
    let mut ready_line = String::new();
    let stdout = child.stdout.as_mut().expect("piped");
    let read = BufReader::new(stdout).read_line(&mut ready_line);
    let address = ready_line.split(' ').nth(2).map(str::parse);
    let served = address.map(|address| {
        let address = address.expect("an address");
        let mut streams: Vec<TcpStream> = (0..60).map(|_| connect_to(address)).collect();
        echo(&mut streams[0], &Pattern::new(1).next(1000));
        drop(streams.split_off(1));
        // Whoever waited is let in by now, so the limit was met.
        echo(&mut connect_to(address), b"and others");
    });
    let _ = child.kill();
    let status = child.wait().expect("our child");
    assert!(read.is_ok() && served.is_some(), "it ended: {status}");
}

#[test]
fn a_cause_is_named_once_and_with_its_cure() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let binary = env!("CARGO_BIN_EXE_echometer-server");
    let run = |shell: &str, flags: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{shell} exec \"$@\""), "sh", binary]);
        let output = command
            .args(["--listen", "127.0.0.1:0", "--engine", "epoll"])
            .args(flags)
            .output()
            .expect("the binary is built");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    let metrics = run("", &["--metrics", &address]);
    assert_eq!(metrics.matches("os error 98").count(), 1, "{metrics}");
    assert!(metrics.contains("\nhint: "), "{metrics}");
    // One has no descriptor for its listeners, the other one for its epoll sets.
    for threads in ["100", "25"] {
        let text = run("ulimit -n 40 &&", &["--threads", threads]);
        assert_eq!(text.matches("os error 24").count(), 1, "{text}");
        assert!(text.contains("ulimit -n"), "{text}");
    }
}
