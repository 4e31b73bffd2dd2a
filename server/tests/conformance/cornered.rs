//! What came of driving servers into corners: promises that are not those of every engine, or of no engine at all.

use std::process::Command;

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
