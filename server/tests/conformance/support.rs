//! Servers to test, in this process and as processes of their own, and the clients' helpers.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use echometer_host::address::Address;
use echometer_host::signals::Stop;
use echometer_host::units::show_duration;
use echometer_server::config::{Config, EngineChoice};
use echometer_server::running::{Running, start};
use echometer_server::stats::Stats;
use rustix::process::{Pid, Signal, kill_process};
use socket2::SockRef;

/// Longer than anything here takes on a loaded machine, shorter than anybody's patience.
pub(crate) fn limit() -> Duration {
    slow(Duration::from_secs(30))
}

/// A time that a test gives the server, or itself, longer by `ECHOMETER_SLOW` where that is set: 10 on an emulated
/// machine. What a server must not do sooner, or a share of CPU, is the same everywhere.
pub(crate) fn slow(time: Duration) -> Duration {
    static FACTOR: LazyLock<u32> = LazyLock::new(|| match std::env::var("ECHOMETER_SLOW") {
        Ok(factor) => factor.parse().expect("ECHOMETER_SLOW is a whole number"),
        Err(_) => 1,
    });
    time * *FACTOR
}

/// [`slow`], as flags have it.
pub(crate) fn slow_text(time: Duration) -> String {
    show_duration(slow(time))
}

/// A server in this process, on a port of its own.
pub(crate) fn serve(engine: &str, change: impl FnOnce(&mut Config)) -> Running {
    let mut config = Config {
        listen: "127.0.0.1:0".parse().expect("an address"),
        engine: EngineChoice::Named(base_engine(engine).into()),
        uring: ring_features(engine),
        ..Config::default()
    };
    change(&mut config);
    start(config, &Stop::new().expect("a pipe")).expect("the server starts")
}

/// The io_uring engine stands in the suite several times, as kernels of several ages have it (docs/kernels.md).
const RINGS: [(&str, &str); 5] = [
    (
        "uring_none",
        "-multishot-accept,-multishot-recv,-bundle,-bulk-recv,-gather,-skip-success,-direct,-defer-taskrun,-registered-ring,-no-sqarray,-bind-listen",
    ),
    ("uring_6_1", "-bundle,-direct,-no-sqarray,-bind-listen"),
    ("uring_6_12", "-bundle,-direct"),
    ("uring_all", "+restrictions,+napi"),
    // Zero-copy excludes two of the others.
    ("uring_zc", "+send-zc,-skip-success,-gather"),
];

/// The engine's name without what is said of its features.
pub(crate) fn base_engine(engine: &str) -> &str {
    if RINGS.iter().any(|(name, _)| *name == engine) {
        "uring"
    } else {
        engine
    }
}

fn features_text(engine: &str) -> Option<&'static str> {
    let ring = RINGS.iter().find(|(name, _)| *name == engine)?;
    Some(ring.1)
}

fn ring_features(engine: &str) -> Vec<(bool, String)> {
    let switches = features_text(engine)
        .into_iter()
        .flat_map(|text| text.split(','));
    switches
        .map(|switch| (switch.starts_with('+'), switch[1..].to_owned()))
        .collect()
}

fn engine_flags(engine: &str) -> Vec<String> {
    let mut flags = vec!["--engine".into(), base_engine(engine).into()];
    flags.extend(features_text(engine).map(|text| format!("--uring={text}")));
    flags
}

/// Stops a server whose clients are gone, and gives its last counters.
pub(crate) fn finish(server: Running) -> Stats {
    server.stop();
    let (stats, result) = server.wait();
    result.expect("no worker failed");
    assert_eq!(stats.total.open, 0);
    stats
}

pub(crate) fn connect(server: &Running) -> TcpStream {
    let Address::Tcp(address) = server.address() else {
        panic!("these tests speak TCP")
    };
    connect_to(*address)
}

/// Connects; no call on the stream waits longer than [`limit`].
pub(crate) fn connect_to(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect_timeout(&address, limit()).expect("the server listens"))
}

/// No call on the stream waits longer than [`limit`], and none of its bytes waits for others.
pub(crate) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).expect("a TCP stream");
    stream
        .set_read_timeout(Some(limit()))
        .expect("a valid time");
    stream
        .set_write_timeout(Some(limit()))
        .expect("a valid time");
    stream
}

/// Sends `bytes` and waits for them.
pub(crate) fn echo(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("sent");
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("echoed");
    assert!(back == bytes, "what came back is not what was sent");
}

/// Writes until nothing more fits, that is, until the server has not made room for a while. Gives the number of bytes.
pub(crate) fn stuff(stream: &TcpStream, pattern: &mut Pattern) -> u64 {
    stream
        .set_write_timeout(Some(slow(Duration::from_millis(400))))
        .expect("a valid time");
    let mut written = 0;
    let deadline = Instant::now() + limit();
    loop {
        assert!(
            Instant::now() < deadline,
            "the server takes in without end: {written} bytes so far"
        );
        let chunk = pattern.peek(64 * 1024);
        match uninterrupted(|| (&*stream).write(&chunk)) {
            Ok(n) => {
                pattern.skip(n);
                written += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("a full socket is no error: {error}"),
        }
    }
    stream
        .set_write_timeout(Some(limit()))
        .expect("a valid time");
    written
}

/// Reads to EOF, comparing with `pattern`, and gives the number of bytes.
pub(crate) fn read_to_eof(stream: &TcpStream, pattern: &mut Pattern) -> u64 {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        let n = uninterrupted(|| (&*stream).read(&mut buffer)).expect("EOF, and no reset");
        if n == 0 {
            return total;
        }
        assert!(
            pattern.next(n) == buffer[..n],
            "wrong bytes within {n} after {total}"
        );
        total += n as u64;
    }
}

/// Closes a client's side and waits for the server's EOF.
pub(crate) fn close(stream: &mut TcpStream) {
    stream.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(
        uninterrupted(|| stream.read(&mut [0; 1])).expect("EOF, and no reset"),
        0,
        "bytes that nobody sent"
    );
}

/// Closes with a reset instead of a FIN.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("a socket");
    drop(stream);
}

/// A call, made again when a signal cut it short: one with a time limit is not restarted by the kernel (signal(7)).
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit();
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "waited {:?} for this: {what}",
            limit()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes without end, different for each seed and without a short period: a lost, doubled or foreign piece shows.
#[derive(Clone)]
pub(crate) struct Pattern {
    seed: u64,
    at: u64,
}

impl Pattern {
    pub(crate) fn new(seed: u64) -> Pattern {
        Pattern { seed, at: 0 }
    }

    pub(crate) fn next(&mut self, n: usize) -> Vec<u8> {
        let bytes = self.peek(n);
        self.skip(n);
        bytes
    }

    pub(crate) fn skip(&mut self, n: usize) {
        self.at += n as u64;
    }

    pub(crate) fn peek(&self, n: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(n + 8);
        let mut word = self.at / 8;
        while bytes.len() < n + (self.at % 8) as usize {
            // splitmix64's mixing of the position.
            let mut z = (self.seed << 40)
                .wrapping_add(word)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
            word += 1;
        }
        bytes.drain(..(self.at % 8) as usize);
        bytes.truncate(n);
        bytes
    }
}

/// A server as a process of its own: the real binary.
pub(crate) struct Process {
    child: Child,
    pub(crate) ready_line: String,
    pub(crate) address: SocketAddr,
}

impl Process {
    pub(crate) fn start(engine: &str, args: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_echometer-server"));
        command.args(engine_flags(engine));
        Process::spawn(command, args)
    }

    /// The same, with at most `nofile` descriptors.
    pub(crate) fn start_limited(engine: &str, nofile: u32, args: &[&str]) -> Process {
        Process::try_start_limited(engine, nofile, args).unwrap_or_else(|stderr| {
            panic!("no ready line, and on stderr:\n{stderr}");
        })
    }

    /// The same. The error is what a server that does not start says.
    pub(crate) fn try_start_limited(
        engine: &str,
        nofile: u32,
        args: &[&str],
    ) -> Result<Process, String> {
        let script = format!("ulimit -n {nofile} && exec \"$@\"");
        Process::try_start_by(engine, &script, args)
    }

    /// The same, started by a shell script that ends in `exec "$@"`.
    pub(crate) fn start_by(engine: &str, script: &str, args: &[&str]) -> Process {
        Process::try_start_by(engine, script, args).unwrap_or_else(|stderr| {
            panic!("no ready line, and on stderr:\n{stderr}");
        })
    }

    fn try_start_by(engine: &str, script: &str, args: &[&str]) -> Result<Process, String> {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]);
        command.arg(env!("CARGO_BIN_EXE_echometer-server"));
        command.args(engine_flags(engine));
        Process::try_spawn(command, args)
    }

    /// The same, started by a command of the caller's, to which the flags are added.
    pub(crate) fn spawn(command: Command, args: &[&str]) -> Process {
        Process::try_spawn(command, args).unwrap_or_else(|stderr| {
            panic!("no ready line, and on stderr:\n{stderr}");
        })
    }

    /// The same. The error is what a server that does not start says.
    pub(crate) fn try_spawn(mut command: Command, args: &[&str]) -> Result<Process, String> {
        if !args.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let mut ready_line = String::new();
        let stdout = child.stdout.as_mut().expect("piped");
        BufReader::new(stdout)
            .read_line(&mut ready_line)
            .expect("text");
        let address = ready_line.split_whitespace().nth(2).and_then(|address| {
            match address.starts_with("unix:") {
                // There is no such address to connect to: the test knows the path.
                true => Some(SocketAddr::from(([0; 4], 0))),
                false => address.parse().ok(),
            }
        });
        let Some(address) = address else {
            let output = child.wait_with_output().expect("it ends");
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        };
        Ok(Process {
            child,
            ready_line,
            address,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Stops it as a debugger would, until SIGCONT, and waits until it stands. A thread goes on until it has heard of the
    /// signal, and one that is busy on another cpu could accept several connections until then.
    pub(crate) fn halt(&self) {
        self.signal(Signal::STOP);
        until("all of its threads to stand", || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("it runs");
            tasks.flatten().all(|task| {
                // A thread that ends meanwhile has no such file any more, and is asked about again.
                std::fs::read_to_string(task.path().join("stat"))
                    .is_ok_and(|stat| fields_after_name(&stat)[0] == "T")
            })
        });
    }

    /// Waits for its end. Gives its status and what it said on stderr.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let mut status = None;
        until("the server's end", || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        });
        let mut stderr = String::new();
        self.child
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut stderr)
            .expect("text");
        (status.expect("waited for"), stderr)
    }

    /// Stops it in order, and reads the counters that it was told to write.
    pub(crate) fn finish(self, stats: &Path) -> Stats {
        self.signal(Signal::TERM);
        let (status, stderr) = self.wait();
        assert!(status.success(), "{status}: {stderr}");
        read_stats(stats)
    }

    /// CPU time used so far, in the kernel's ticks of 10 ms.
    pub(crate) fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).expect("it runs");
        // State, the first after the name, is field 3; utime and stime are 14 and 15 (proc(5)).
        let fields = fields_after_name(&stat);
        let ticks: u64 = [fields[11], fields[12]]
            .iter()
            .map(|field| field.parse::<u64>().expect("ticks"))
            .sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After `wait` it is gone, and both calls do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The fields of a `stat` file of proc(5) after the program's name, which may hold anything.
fn fields_after_name(stat: &str) -> Vec<&str> {
    let (_, after) = stat.rsplit_once(')').expect("a name");
    after.split_whitespace().collect()
}

pub(crate) fn read_stats(path: &Path) -> Stats {
    let text = std::fs::read_to_string(path).expect("the counters were written");
    serde_json::from_str(&text).expect("the counters are of the schema")
}

/// Memory of the process that is its own (`RssAnon`), in bytes.
pub(crate) fn anonymous_bytes(server: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .expect("Linux 4.5 or newer");
    let kibibytes = line.trim().trim_end_matches(" kB").parse::<u64>();
    kibibytes.expect("a number") * 1024
}
