//! What the io_uring server does on kernels that lack something, or do it wrongly: each trial of the ring is made to fail
//! on this one. The server then serves with what is left, or says why it can't.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{Pattern, Process, connect_to};

/// A server for which these trials fail.
fn server(failing: &str, args: &[&str]) -> Result<Process, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echometer-server"));
    command.env("ECHOMETER_FAILING_TRIALS", failing);
    Process::try_spawn(command, &[&["--threads", "1"], args].concat())
}

fn features(server: &Process) -> Vec<String> {
    let listed = server.ready_line.split("features=").nth(1);
    let listed = listed.expect("a ready line names the features");
    listed.trim().split(',').map(str::to_owned).collect()
}

/// Small and large messages come back, a half-closed connection gets its rest, and its peer sees the end.
fn serves(server: &Process, what: &str) {
    let mut bytes = Pattern::new(7);
    for size in [1, 64, 20 << 10, 300 << 10, 1 << 20] {
        let mut client = connect_to(server.address);
        let message = bytes.next(size);
        let mut sender = client.try_clone().expect("a copy");
        let sent = message.clone();
        let sending = std::thread::spawn(move || {
            sender.write_all(&sent).expect("the server reads");
            sender.shutdown(Shutdown::Write).expect("connected");
        });
        let mut echoed = Vec::new();
        client
            .read_to_end(&mut echoed)
            .expect("the echo, and its end");
        sending.join().expect("sent");
        assert!(
            echoed == message,
            "{what}: {size} bytes come back as others"
        );
    }
}

#[test]
fn without_a_feature_it_serves_with_the_others() {
    let all = server("", &["--engine", "uring"]).expect("this kernel has all of them");
    let used = features(&all);
    serves(&all, "all");
    all.signal(Signal::TERM);
    all.wait();
    // What no trial of its own could fail: the kernel refuses it at set-up, or it is there.
    let untried = ["defer-taskrun", "registered-ring", "no-sqarray"];
    let tried: Vec<&String> = used
        .iter()
        .filter(|name| !untried.contains(&name.as_str()))
        .collect();
    // On 6.1 there are five.
    assert!(4 < tried.len(), "{used:?}");
    for feature in tried {
        let server = server(feature, &["--engine", "uring"]).expect(feature);
        let left = features(&server);
        assert!(!left.contains(feature), "{feature}: {}", server.ready_line);
        // With multishot receives go the bundles of them.
        assert!(used.len() <= left.len() + 2, "{feature}: {left:?}");
        serves(&server, feature);
        server.signal(Signal::TERM);
        let (status, stderr) = server.wait();
        assert!(status.success(), "{feature}: {stderr}");
    }
    let unbounded = server("recv-limit", &["--engine", "uring"]).expect("as below 6.17");
    assert!(!features(&unbounded).contains(&"bundle".to_owned()));
    serves(&unbounded, "recv-limit");
}

#[test]
fn on_a_kernel_as_old_as_its_floor_it_serves() {
    // What 6.1 has not, and what it does wrongly.
    let old = "direct,recv-limit,accept-poll-first,listen";
    let server = server(old, &["--engine", "uring"]).expect("as on 6.1");
    let left = features(&server);
    for gone in ["direct", "bundle", "bind-listen"] {
        assert!(!left.contains(&gone.to_owned()), "{left:?}");
    }
    serves(&server, old);
    let least = "direct,recv-limit,accept-poll-first,listen,multishot-accept,multishot-recv,skip-success,gather,bulk-recv";
    let server = self::server(least, &["--engine", "uring"]).expect("one request per operation");
    serves(&server, least);
}

#[test]
fn without_what_it_can_t_do_without_it_says_so_and_auto_falls_back() {
    for trial in ["accept", "close", "reset", "receive", "send"] {
        let refused = server(trial, &["--engine", "uring"]).err();
        let refused = refused.unwrap_or_else(|| panic!("{trial} is not to be done without"));
        assert!(
            refused.contains(&format!("trial '{trial}'")) && refused.contains("--engine epoll"),
            "{refused}"
        );
        let server = server(trial, &["--engine", "auto"]).expect("epoll is there");
        assert!(
            server.ready_line.contains(" engine=epoll "),
            "{}",
            server.ready_line
        );
        serves(&server, trial);
    }
}
