//! Servers that start, and all the ways in which they do not.

use std::io::Write as _;

use super::*;
use crate::serve::arm::parse_arms;

fn launcher(ready_timeout: Duration) -> Launcher {
    Launcher {
        server_binary: PathBuf::from("/bin/echo"),
        server_cpus: echometer_host::cpus::allowed().expect("a mask"),
        priority: Priority::None,
        guard: None,
        ready_timeout,
    }
}

fn start(arm: &str, ready_timeout: Duration) -> Result<ServerProcess, StartError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let arms = parse_arms(&[arm]).expect("a valid arm");
    launcher(ready_timeout).start(&arms[0], &folder.path().join("log"))
}

fn failure(arm: &str) -> String {
    start(arm, Duration::from_secs(30))
        .expect_err("it is no server")
        .to_string()
}

/// Answers each first byte with `answer` of it, on a thread that lives as long as the test run.
fn answering(answer: fn(u8) -> Option<u8>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_ok()
                && let Some(answer) = answer(byte[0])
            {
                let _ = stream.write_all(&[answer]);
            }
        }
    });
    address
}

#[test]
fn a_program_that_ends_early_is_quoted() {
    assert_eq!(
        failure("a=false"),
        "exited with status 1 before it echoed a byte; it wrote nothing to stderr"
    );
    let said = failure("a=sh -c 'echo no such device >&2; exit 7'");
    assert_eq!(
        said,
        "exited with status 7 before it echoed a byte; last lines of its stderr: no such device"
    );
}

#[test]
fn a_word_that_is_neither_engine_nor_program_is_told_the_engines() {
    let said = failure("urign");
    assert!(
        said.contains("can't be started: urign") && said.contains("uring, epoll"),
        "{said}"
    );
    let said = failure("./no/such/server {port}");
    assert!(
        said.contains("./no/such/server") && !said.contains("engine"),
        "{said}"
    );
}

#[test]
fn a_program_that_never_listens_is_given_up() {
    let error = start("sleep 600", Duration::from_millis(200)).expect_err("it is no server");
    let StartError::NotReady {
        ref what,
        ref last_words,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert!(
        what.contains("Connection refused") && what.contains("has no {port}"),
        "{what}"
    );
    assert_eq!(last_words.as_deref(), Some("it wrote nothing to stderr"));
    let error =
        start("sh -c 'sleep 600' {port}", Duration::from_millis(100)).expect_err("it is no server");
    assert!(!error.to_string().contains("has no"), "{error}");
}

#[test]
fn running_servers_are_probed() {
    let echo = answering(Some);
    let server = start(&format!("tcp:{echo}"), Duration::from_secs(30)).expect("it echoes");
    assert_eq!(
        (
            server.address,
            server.command.as_deref(),
            server.ready_line.as_deref()
        ),
        (echo, None, None)
    );

    let wrong = start(
        &format!("tcp:{}", answering(|_| Some(b'H'))),
        Duration::from_secs(30),
    );
    assert!(
        matches!(wrong, Err(StartError::NoEcho { got: b'H', .. })),
        "{wrong:?}"
    );

    let closing = start(
        &format!("tcp:{}", answering(|_| None)),
        Duration::from_millis(200),
    );
    assert!(
        closing
            .expect_err("no echo")
            .to_string()
            .contains("closed the connection")
    );
}

#[test]
fn an_unknown_host_is_named() {
    let said = failure("tcp:no-such-host.invalid:7777");
    assert!(
        said.starts_with("can't be found: cannot resolve no-such-host.invalid:7777: "),
        "{said}"
    );
}

#[test]
fn a_foreign_ready_line_is_refused() {
    let said = failure("uring:--nagle");
    assert!(
        said.contains("its first line is not that of echometer-server: '--listen 127.0.0.1:0"),
        "{said}"
    );
}

#[test]
fn an_arm_may_choose_its_own_cpus() {
    let launcher = Launcher {
        server_cpus: "2-3".parse().expect("a list"),
        ..launcher(READY_TIMEOUT)
    };
    let words = |flags: &[&str]| {
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        launcher.engine_command("uring", &flags).join(" ")
    };
    assert_eq!(
        words(&["--nagle"]),
        "/bin/echo --listen 127.0.0.1:0 --engine uring --cpus 2-3 --nagle"
    );
    assert_eq!(
        words(&["--cpus=2"]),
        "/bin/echo --listen 127.0.0.1:0 --engine uring --cpus=2"
    );
    assert_eq!(
        words(&["--threads", "1"]),
        "/bin/echo --listen 127.0.0.1:0 --engine uring --threads 1"
    );
}
