//! `echometer` where things are scarce or odd: no thread, no descriptor, a small stack, a full disk, a reader that has
//! left, a network namespace without its loopback, a name with two addresses.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

const BENCH: &str = env!("CARGO_BIN_EXE_echometer");

/// Runs `script` with sh, where `$0` is the bench, in a folder of its own; never ends by a panic or a crash.
fn sh(script: &str) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new("sh")
        .args(["-c", script, BENCH])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("sh runs");
    said(&output)
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        !stderr.contains("panicked") && !stderr.contains("overflow"),
        "{stderr}"
    );
    (output.status.code(), stdout, stderr)
}

#[test]
fn help_that_nobody_gets_is_a_failure_and_a_reader_who_leaves_is_none() {
    for words in [
        "--help",
        "--version",
        "compare --help",
        "man",
        "completions bash",
    ] {
        let (code, _, stderr) = sh(&format!("\"$0\" {words} > /dev/full"));
        assert_eq!(code, Some(1), "{words}: {stderr}");
        assert!(
            stderr.contains("cannot write to stdout: No space left"),
            "{stderr}"
        );
        let (code, _, stderr) = sh(&format!("{{ \"$0\" {words}; echo $? >&2; }} | true"));
        assert_eq!((code, stderr.as_str()), (Some(0), "0\n"), "{words}");
    }
}

#[test]
fn a_terminal_without_a_name_gets_no_colour() {
    // clap colours its usage errors; script(1) gives it a terminal.
    let (_, coloured, _) = sh("TERM=xterm script -qec \"'$0' compare --nonsense\" /dev/null");
    let (_, plain, _) = sh("TERM= script -qec \"'$0' compare --nonsense\" /dev/null");
    assert!(
        plain.contains("--nonsense") && !plain.contains('\x1b'),
        "{plain:?}"
    );
    assert!(
        coloured.contains('\x1b'),
        "else this test tells nothing: {coloured:?}"
    );
}

#[test]
fn a_small_stack_is_enough() {
    for words in ["doctor --json", "trace epoll", "man", "--help"] {
        let (code, stdout, stderr) = sh(&format!("ulimit -s 64; \"$0\" {words}"));
        assert!(matches!(code, Some(0 | 3)), "{words}: {code:?} {stderr}");
        assert!(100 < stdout.len(), "{words}: {stdout}");
    }
}

/// The limit counts a user's threads, and root's are not limited: in a user namespace we are somebody else.
#[test]
fn without_a_thread_each_command_says_which_limit_it_met() {
    for words in [
        "trace uring",
        "floor -d 100ms --json",
        "compare epoll uring --quick",
        "selftest --quick --only omission",
    ] {
        let script = format!(
            "setpriv --reuid 65533 --clear-groups prlimit --nproc=1 \"$0\" {words} --out o"
        );
        let script = match words.starts_with("trace") {
            true => script.replace(" --out o", ""),
            false => script,
        };
        let (code, _, stderr) = sh_as_nobody(&script);
        assert_eq!(code, Some(1), "{words}: {stderr}");
        assert!(
            stderr.contains("cannot start a thread: ") && stderr.contains("ulimit -u"),
            "{words}: {stderr}"
        );
        assert_eq!(
            stderr.matches("cannot start a thread").count(),
            1,
            "{stderr}"
        );
    }
}

/// As [`sh`], of a bench that everybody can reach, in a folder that everybody can write to.
fn sh_as_nobody(script: &str) -> (Option<i32>, String, String) {
    let folder = tempfile::Builder::new()
        .prefix("edges")
        .tempdir_in("/tmp")
        .expect("a folder");
    let bench = folder.path().join("echometer");
    fs::copy(BENCH, &bench).expect("copied");
    let beside = Path::new(BENCH).with_file_name("echometer-server");
    fs::copy(beside, folder.path().join("echometer-server")).expect("copied");
    open_to_all(folder.path());
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(&bench)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("sh runs");
    said(&output)
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("it is ours");
}

#[test]
fn a_limit_on_file_sizes_is_an_error_and_leaves_no_half_of_a_file() {
    // The limit is in blocks of 512 bytes: the pages are larger.
    let (code, _, stderr) =
        sh("ulimit -f 2; \"$0\" man --out pages; code=$?; ls pages >&2; exit $code");
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("error: cannot write pages/")
            && stderr.contains("hint: ")
            && stderr.contains("ulimit -f"),
        "{stderr}"
    );
    assert!(!stderr.contains(".tmp"), "{stderr}");
}

#[test]
fn a_message_is_said_once() {
    let (code, _, stderr) = sh("\"$0\" floor --cpu 99999");
    assert!(matches!(code, Some(1 | 2)), "{stderr}");
    assert_eq!(stderr.matches("99999").count(), 1, "{stderr}");
    assert_eq!(stderr.matches("does not exist").count(), 1, "{stderr}");
}

/// A sandbox that forbids to choose cpus: it is the call that is named, and who forbids it, and no cpu is blamed.
#[test]
fn a_denied_affinity_is_called_so() {
    let filter = seccompiler::SeccompFilter::new(
        [(libc::SYS_sched_setaffinity, Vec::new())].into(),
        seccompiler::SeccompAction::Allow,
        seccompiler::SeccompAction::Errno(libc::EPERM as u32),
        std::env::consts::ARCH.try_into().expect("an architecture"),
    );
    let filter: seccompiler::BpfProgram = filter.and_then(TryInto::try_into).expect("a filter");
    for words in [
        "floor -d 100ms --out o",
        "compare 'cat {port}' epoll --quick --out o",
    ] {
        let filter = &filter;
        let (code, _, stderr) = thread::scope(|scope| {
            let confined = scope.spawn(move || {
                seccompiler::apply_filter(filter).expect("this thread confines itself");
                sh(&format!("\"$0\" {words}"))
            });
            confined.join().expect("sh does not panic")
        });
        assert_eq!(code, Some(1), "{words}: {stderr}");
        assert!(
            stderr.contains("Operation not permitted")
                && stderr.contains("forbids sched_setaffinity"),
            "{words}: {stderr}"
        );
    }
}

#[test]
fn few_descriptors_are_named() {
    // With fewer the program's libraries can't be loaded.
    for count in [6, 7, 8, 12] {
        let (code, stdout, stderr) = sh(&format!("ulimit -n {count}; \"$0\" trace epoll"));
        if code != Some(0) {
            assert_eq!(code, Some(1), "{stderr}");
            let all = stdout + &stderr;
            assert!(all.contains("ulimit -n"), "{count}: {all}");
        }
    }
    let (code, _, stderr) = sh("ulimit -n 16; \"$0\" compare epoll uring --quick --out o");
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("ulimit -n") || stderr.contains("nofile"),
        "{stderr}"
    );
}

/// Runs the test `name` again in a network namespace of its own, after `setup` in a shell there; `true` within it.
fn in_a_namespace(name: &str, setup: &str) -> bool {
    const INSIDE: &str = "ECHOMETER_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        return true;
    }
    if std::env::var_os("ECHOMETER_NO_NAMESPACES").is_some() {
        println!("skipped: ECHOMETER_NO_NAMESPACES is set");
        return false;
    }
    let program = std::env::current_exe().expect("this very program");
    let script = format!("set -e; {setup}; exec \"$0\" --exact \"$1\" --nocapture");
    let output = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--net",
            "--mount",
            "sh",
            "-c",
            &script,
        ])
        .arg(program)
        .arg(name)
        .env(INSIDE, name)
        .output()
        .expect("unshare (util-linux) is there");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "in a namespace: {stdout}{stderr}"
    );
    false
}

#[test]
fn a_name_is_tried_at_all_its_addresses() {
    let hosts = "ip link set lo up; hosts=$(mktemp); \
        printf '::1 two-faced\\n127.0.0.1 two-faced\\n' > $hosts; mount --bind $hosts /etc/hosts";
    if !in_a_namespace("a_name_is_tried_at_all_its_addresses", hosts) {
        return;
    }
    echo_on("127.0.0.1:7777");
    let (code, stdout, stderr) = sh("\"$0\" trace two-faced:7777");
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(
        stdout.contains("ECONNREFUSED") && stdout.contains("another address"),
        "{stdout}"
    );
    let (code, stdout, stderr) = sh("\"$0\" trace two-faced:7778");
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    let compared = sh(
        "\"$0\" compare tcp:two-faced:7777 b=tcp:127.0.0.1:7777 -c 2 --blocks 1 -d 100ms -w 0s --out o",
    );
    assert!(matches!(compared.0, Some(0 | 3)), "{compared:?}");
    assert!(!compared.2.contains("did not echo"), "{compared:?}");
}

#[test]
fn a_client_that_meets_itself_has_no_server() {
    let one_port = "ip link set lo up; echo 40000 40000 > /proc/sys/net/ipv4/ip_local_port_range";
    if !in_a_namespace("a_client_that_meets_itself_has_no_server", one_port) {
        return;
    }
    let (code, stdout, stderr) = sh("\"$0\" trace 127.0.0.1:40000");
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(
        stdout.contains("connected to itself: nobody listens"),
        "{stdout}"
    );
    let at = "tcp:[::1]:40000";
    let (code, _, stderr) = sh(&format!("\"$0\" compare a={at} b={at} --quick --out o"));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("connected to itself: nobody listens"),
        "{stderr}"
    );
}

#[test]
fn without_a_loopback_nothing_is_waited_for() {
    if !in_a_namespace("without_a_loopback_nothing_is_waited_for", "true") {
        return;
    }
    for words in [
        "trace uring",
        "trace epoll",
        "trace 127.0.0.1:7777",
        "trace tokio",
    ] {
        let (code, stdout, stderr) = sh(&format!("\"$0\" {words}"));
        assert_eq!(code, Some(1), "{words}: {stdout}{stderr}");
        let all = stdout + &stderr;
        assert!(all.contains("ip link set lo up"), "{words}: {all}");
    }
    for arms in [
        "tcp:127.0.0.1:7777 tcp:127.0.0.1:7778",
        "epoll uring",
        "'python3 -c 0 {port}' epoll",
    ] {
        let began = Instant::now();
        let (code, _, stderr) = sh(&format!("\"$0\" compare {arms} --quick --out o"));
        assert_eq!(code, Some(1), "{arms}: {stderr}");
        assert!(began.elapsed() < Duration::from_secs(8), "{arms}: {stderr}");
        assert!(
            stderr.contains("ip link set lo up") || stderr.contains("before it echoed"),
            "{arms}: {stderr}"
        );
    }
}

/// A terminal that goes, in the middle: what was measured is kept. `nohup` stays what it is.
#[test]
fn a_hangup_keeps_what_was_measured() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let (mut bench, began) = start_floor(&[BENCH], &out);
    kill_process(Pid::from_child(&bench), Signal::HUP).expect("it lives");
    let code = bench.wait().expect("it ends").code();
    assert!(began.elapsed() < Duration::from_secs(30));
    let text = fs::read_to_string(out.join("floor.json")).expect("it was written");
    assert!(matches!(code, Some(0 | 3)), "{code:?} {text}");
    assert!(text.contains("\"cut_short\": true"), "{text}");

    let out = folder.path().join("nohup");
    let (mut bench, _) = start_floor(&["nohup", BENCH], &out);
    kill_process(Pid::from_child(&bench), Signal::HUP).expect("it lives");
    thread::sleep(Duration::from_millis(700));
    assert!(bench.try_wait().expect("it can be asked").is_none());
    kill_process(Pid::from_child(&bench), Signal::INT).expect("it lives");
    bench.wait().expect("it ends");
}

/// Stopped after the first of two truths: nothing is proven.
#[test]
fn a_selftest_that_is_cut_short_proves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let mut command = Command::new(BENCH);
    command
        .args([
            "selftest", "--quick", "--only", "omission", "--only", "busy", "--out",
        ])
        .arg(&out)
        .args(on_one_cpu())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let bench = command.spawn().expect("the bench starts");
    wait_for(&out.join("selftest.json"));
    kill_process(Pid::from_child(&bench), Signal::INT).expect("it lives");
    let (code, stdout, _) = said(&bench.wait_with_output().expect("it ends"));
    assert_eq!(code, Some(3), "{stdout}");
    assert!(
        stdout.contains("Cut short. Nothing is proven: only 1 truth was looked at")
            && !stdout.contains("PASS"),
        "{stdout}"
    );
    let json = fs::read_to_string(out.join("selftest.json")).expect("it was written");
    assert!(
        json.contains("\"passed\": false,\n  \"sentence\": \"Cut short."),
        "{json}"
    );
}

fn start_floor(program: &[&str], out: &Path) -> (Child, Instant) {
    let mut command = Command::new(program[0]);
    command
        .args(&program[1..])
        .args(["floor", "-d", "100ms", "--blocks", "200", "--out"])
        .arg(out)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let bench = command.spawn().expect("the bench starts");
    // Its signals are watched by then.
    wait_for(out);
    thread::sleep(Duration::from_millis(700));
    (bench, Instant::now())
}

fn on_one_cpu() -> Vec<String> {
    let allowed = echometer_host::cpus::allowed().expect("a mask");
    match allowed.len() {
        1 => ["--server-cpus", "--client-cpus"]
            .iter()
            .flat_map(|flag| [(*flag).to_owned(), allowed.to_string()])
            .collect(),
        _ => Vec::new(),
    }
}

fn wait_for(path: &Path) {
    let began = Instant::now();
    while !path.exists() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{}",
            path.display()
        );
        thread::sleep(Duration::from_millis(5));
    }
}

fn echo_on(address: &str) {
    let listener = TcpListener::bind(address).expect("it is free");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || echo(stream));
        }
    });
}

fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
}
