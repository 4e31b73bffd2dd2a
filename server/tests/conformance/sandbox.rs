//! Where calls are forbidden, as sandboxes do: a server falls back, or says who forbids what, and what helps.
//!
//! The filters are set on a thread of the test's own. What it starts inherits them, and they go with it.

use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use echometer_host::signals::Stop;
use echometer_server::config::{Config, EngineChoice};
use echometer_server::engine::ENGINES;
use echometer_server::running::start;
use rustix::process::Signal;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::process::run;
use crate::support::{Process, connect_to, echo, read_stats};

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

/// What fails over and over costs neither a cpu nor a log, and a stop is heard. The ring accepts without the call.
#[test]
fn an_accept_that_fails_for_ever_costs_little() {
    let folder = tempfile::tempdir().expect("a folder");
    let engines = ["epoll", "blocking"].into_iter();
    for engine in engines.chain(cfg!(feature = "tokio").then_some("tokio")) {
        for (errno, kind) in [
            (libc::EPERM, "aborted"),
            (libc::ECONNABORTED, "aborted"),
            (libc::EMFILE, "process_limit"),
            (libc::ENOBUFS, "no_memory"),
        ] {
            let path = folder.path().join(format!("{engine}-{errno}.json"));
            let flags = ["--threads", "1", "--stats", path.to_str().expect("text")];
            let denials = [(libc::SYS_accept, errno), (libc::SYS_accept4, errno)];
            let server = denying(&denials, || Process::start(engine, &flags));
            let clients: Vec<_> = (0..3).map(|_| connect_to(server.address)).collect();
            let began = Instant::now();
            // The first ones are tried at once.
            thread::sleep(Duration::from_millis(200));
            let before = server.cpu_time();
            thread::sleep(Duration::from_millis(600));
            let used = server.cpu_time() - before;
            assert!(
                used <= Duration::from_millis(60),
                "{engine}, error {errno}: {used:?} of CPU in 600 ms"
            );
            let tenths = began.elapsed().as_millis() as u64 / 100;
            server.signal(Signal::TERM);
            let (status, stderr) = server.wait();
            assert!(status.success(), "{engine}, error {errno}: {stderr}");
            assert_eq!(stderr.matches("note: worker 0 ").count(), 1, "{stderr}");
            let stats = read_stats(&path);
            assert_eq!(stats.total.accepted, 0);
            let failed = stats.total.accept_errors[kind];
            // Sixteen at once, one each tenth of a second, and some at the stop.
            assert!(
                (2..tenths + 60).contains(&failed),
                "{engine}, error {errno}: {failed} in {tenths} tenths of a second"
            );
            drop(clients);
        }
    }
}

fn engines() -> impl Iterator<Item = &'static str> {
    ENGINES.iter().map(|engine| engine.name)
}

/// The filter can't count: it refuses every thread, and the first one that is wanted ends the start.
#[test]
fn without_threads_a_start_ends_with_the_limits_named() {
    let new_thread = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64),
        libc::CLONE_THREAD as u64,
    );
    let rule = new_thread.and_then(|condition| SeccompRule::new(vec![condition]));
    // The arguments of clone3 lie in memory, where no filter sees them; without it the C library uses clone.
    let denials = [
        (libc::SYS_clone3, libc::ENOSYS, Vec::new()),
        (libc::SYS_clone, libc::EAGAIN, vec![rule.expect("a rule")]),
    ];
    for engine in engines() {
        let output = confined(denials.clone(), || {
            run(&["--engine", engine, "--listen", "127.0.0.1:0"])
        });
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{engine}: {stderr}");
        assert!(
            stderr.contains("cannot start a thread: "),
            "{engine}: {stderr}"
        );
        assert!(stderr.contains("kernel.threads-max"), "{engine}: {stderr}");
        assert!(!stderr.contains("panicked"), "{engine}: {stderr}");
        // The same without the thread that waits for signals, which the binary wants first.
        for metrics in [None, Some(([127, 0, 0, 1], 0).into())] {
            let config = Config {
                listen: "127.0.0.1:0".parse().expect("an address"),
                engine: EngineChoice::Named(engine.into()),
                metrics,
                ..Config::default()
            };
            let stop = Stop::new().expect("a pipe");
            let error = confined(denials.clone(), || start(config, &stop).map(drop));
            let text = error.expect_err("no thread").to_string();
            assert!(
                text.contains("thread") && text.contains("\nhint: "),
                "{engine}: {text}"
            );
        }
    }
}

#[test]
fn a_pin_that_is_forbidden_is_called_that() {
    let denials = [(libc::SYS_sched_setaffinity, libc::EPERM)];
    for engine in engines() {
        let args = ["--engine", engine, "--listen", "127.0.0.1:0", "--cpus", "0"];
        let output = denying(&denials, || run(&args));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{engine}: {stderr}");
        assert!(
            stderr.contains("Operation not permitted") && stderr.contains("--threads N"),
            "{engine}: {stderr}"
        );
        // And the cure is one.
        let server = denying(&denials, || Process::start(engine, &["--threads", "1"]));
        echo(&mut connect_to(server.address), b"not pinned");
    }
}

/// Whatever it is that lacks a descriptor, the error says how to have more; and no engine is given up for it.
#[test]
fn too_few_descriptors_are_called_that() {
    let uring_is_usual = Process::start("auto", &["--threads", "1"])
        .ready_line
        .contains(" engine=uring ");
    for engine in engines().chain(["auto"]) {
        for nofile in 6..40 {
            let flags = ["--threads", "2", "--metrics", "127.0.0.1:0"];
            match Process::try_start_limited(engine, nofile, &flags) {
                Ok(server) => assert!(
                    engine != "auto"
                        || !uring_is_usual
                        || server.ready_line.contains("engine=uring"),
                    "{nofile} descriptors: {}",
                    server.ready_line
                ),
                Err(stderr) => assert!(
                    stderr.contains("ulimit -n"),
                    "{engine}, {nofile} descriptors: {stderr}"
                ),
            }
        }
    }
}

/// A file that the limit on file sizes cuts is an error, and leaves nothing behind.
#[test]
fn counters_that_do_not_fit_the_limit_are_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stats.json");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 0 && exec \"$@\"", "sh"]);
    command.arg(env!("CARGO_BIN_EXE_echometer-server"));
    let flags = ["--threads", "1", "--stats", path.to_str().expect("text")];
    let server = Process::spawn(command, &flags);
    echo(&mut connect_to(server.address), b"hello");
    server.signal(Signal::TERM);
    let (status, stderr) = server.wait();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("File too large") && stderr.contains("ulimit -f"),
        "{stderr}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 0);
}
