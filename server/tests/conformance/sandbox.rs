//! Where calls are forbidden, as sandboxes do: a server falls back, or says who forbids what, and what helps.
//!
//! The filters are set on a thread of the test's own. What it starts inherits them, and they go with it.

use std::process::{Command, Output};
use std::thread;

use rustix::process::Signal;
use seccompiler::{SeccompAction, SeccompFilter, SeccompRule};

use crate::process::run;
use crate::support::{Process, connect_to, echo};

/// A call and what is answered to it.
pub(crate) type Denial = (i64, i32);

/// Runs `start` on a thread where these calls are answered with these errors. A child of it inherits that.
pub(crate) fn denying<T: Send>(denials: &[Denial], start: impl FnOnce() -> T + Send) -> T {
    confined(
        denials
            .iter()
            .map(|&(call, errno)| (call, errno, Vec::new())),
        start,
    )
}

/// The same, where a call is denied only by a rule. Without rules it is denied always.
pub(crate) fn confined<T: Send>(
    denials: impl IntoIterator<Item = (i64, i32, Vec<SeccompRule>)>,
    start: impl FnOnce() -> T + Send,
) -> T {
    let filters: Vec<seccompiler::BpfProgram> = denials
        .into_iter()
        .map(|(call, errno, rules)| {
            let filter = SeccompFilter::new(
                [(call, rules)].into_iter().collect(),
                SeccompAction::Allow,
                SeccompAction::Errno(errno as u32),
                std::env::consts::ARCH.try_into().expect("an architecture"),
            );
            filter.and_then(TryInto::try_into).expect("a filter")
        })
        .collect();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            for filter in &filters {
                seccompiler::apply_filter(filter).expect("this thread confines itself");
            }
            start()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

const RING_CALLS: [(&str, i64); 3] = [
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("io_uring_enter", libc::SYS_io_uring_enter),
];
const ERRORS: [(&str, i32); 3] = [
    ("EPERM", libc::EPERM),
    ("EACCES", libc::EACCES),
    ("ENOSYS", libc::ENOSYS),
];

#[test]
fn auto_falls_back_whichever_call_of_io_uring_is_denied() {
    for (call, number) in RING_CALLS {
        for (error, errno) in ERRORS {
            let server = denying(&[(number, errno)], || {
                let binary = Command::new(env!("CARGO_BIN_EXE_echometer-server"));
                Process::spawn(binary, &["--threads", "2"])
            });
            assert!(
                server.ready_line.contains(" engine=epoll "),
                "{call} {error}: {}",
                server.ready_line
            );
            echo(&mut connect_to(server.address), b"hello");
            server.signal(Signal::TERM);
            let (status, stderr) = server.wait();
            assert!(status.success(), "{call} {error}: {stderr}");
            let why = "note: serving with epoll: uring cannot be used: ";
            assert!(
                stderr.contains(why) && stderr.contains(call) && stderr.contains(error),
                "{call} {error}: {stderr}"
            );
        }
    }
}

#[test]
fn what_needs_the_denied_call_says_who_denies_it() {
    for (call, number) in RING_CALLS {
        for (error, errno) in ERRORS {
            let run = |args: &[&str]| denying(&[(number, errno)], || run(args));
            let refused = |output: &Output| {
                let stderr = String::from_utf8_lossy(&output.stderr);
                let stdout = String::from_utf8_lossy(&output.stdout);
                let all = format!("{stdout}{stderr}");
                assert_eq!(output.status.code(), Some(1), "{call} {error}: {all}");
                assert!(
                    all.contains(call) && all.contains(error) && !all.contains("panicked"),
                    "{call} {error}: {all}"
                );
                // An old kernel answers ENOSYS too, so that there are two causes to be named.
                assert!(
                    all.contains("seccomp") || (all.contains("sandbox") && error == "ENOSYS"),
                    "{call} {error}: {all}"
                );
                assert!(!all.contains("privileged"), "{call} {error}: {all}");
            };
            let listen = ["--listen", "127.0.0.1:0", "--threads", "1", "--engine"];
            let uring = run(&[&listen[..], &["uring"]].concat());
            refused(&uring);
            assert!(String::from_utf8_lossy(&uring.stderr).contains("--engine epoll"));
            refused(&run(&["probe"]));
            refused(&run(&["probe", "--json"]));
            if cfg!(feature = "tokio-uring") && call != "io_uring_register" {
                refused(&run(&[&listen[..], &["tokio-uring"]].concat()));
            }
        }
    }
}

/// The runtime registers nothing that this server uses.
#[cfg(feature = "tokio-uring")]
#[test]
fn tokio_uring_serves_without_registering() {
    for (_, errno) in ERRORS {
        let server = denying(&[(libc::SYS_io_uring_register, errno)], || {
            Process::start("tokio-uring", &["--threads", "1"])
        });
        echo(&mut connect_to(server.address), b"hello");
        server.signal(Signal::TERM);
        let (status, stderr) = server.wait();
        assert!(status.success(), "{stderr}");
    }
}
