//! The server of an arm: how its command line is made, when it is ready (it has echoed a byte), and what it did where
//! it never got so far.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    io::{self, Read},
    iter,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::ChildStdout,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use echometer_host::{
    cpus::CpuList,
    limits,
    priority::{Priority, PriorityError},
    target::{Target, TargetError},
    threads,
};
use echometer_report::file::entries::ENGINES;

use crate::serve::{
    arm::{Arm, Spec},
    guard::Guard,
    process_group::{Output, Place, ProcessGroup, readable},
    ready::{PROBE, Silent, probe},
    stray::left_listening,
};

/// How long a server may take until it echoes its first byte.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the kernel may take to let go of a listener whose process has ended.
pub(crate) const LET_GO_TIMEOUT: Duration = Duration::from_secs(2);
/// How soon a program that put itself into the background listens: one that said that all is well, and any other.
const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(3);
const FAILED_TIMEOUT: Duration = Duration::from_millis(100);
/// How long to wait before a server that refuses connections is tried again.
const RETRY: Duration = Duration::from_millis(20);
/// The longest ready line that is read.
const READY_LINE_MAX: usize = 4096;

/// What the servers of a comparison have in common.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    /// The `echometer-server` binary.
    pub server_binary: PathBuf,
    /// Where every server runs.
    pub server_cpus: CpuList,
    /// Ends the servers should the bench die; without one they are stopped in the ordinary way only.
    pub guard: Option<Arc<Guard>>,
    /// How far every server that we start is raised.
    pub priority: Priority,
    /// How long a server may take to be ready: [`READY_TIMEOUT`].
    pub ready_timeout: Duration,
}

/// A server that has echoed a byte. Dropping it stops it, if it is ours.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    /// Where it listens.
    pub address: SocketAddr,
    /// The command line that started it; `None` for a server that was running already.
    pub command: Option<String>,
    /// What `echometer-server` says when it is ready; foreign servers have no such line.
    pub ready_line: Option<String>,
    /// `None` for a server that was running already.
    pub group: Option<ProcessGroup>,
}

/// Why a server can't be measured. Each is a sentence whose subject is the arm.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The program can't be run.
    #[error("can't be started: {program}: {source}{hint}")]
    Spawn {
        /// What was to be run.
        program: String,
        /// What the system said.
        source: io::Error,
        /// What to do about it; may be empty.
        hint: String,
    },
    /// It ended before it was ready.
    #[error("{ended} before it echoed a byte; {last_words}")]
    Ended {
        /// "exited with status 1".
        ended: String,
        /// The end of its stderr.
        last_words: String,
    },
    /// It can't be reached, and no waiting would change that.
    #[error("can't be reached: {what}{words}", words = last_words.as_ref().map(|words| format!("; {words}")).unwrap_or_default())]
    Unreachable {
        /// What is in the way, and the cure.
        what: String,
        /// The end of its stderr, where it is ours.
        last_words: Option<String>,
    },
    /// It lives, but does not echo.
    #[error("did not echo a byte within {waited:?}: {what}{words}", words = last_words.as_ref().map(|words| format!("; {words}")).unwrap_or_default())]
    NotReady {
        /// The time that it had.
        waited: Duration,
        /// What it did when it was last tried.
        what: String,
        /// The end of its stderr, where it is ours.
        last_words: Option<String>,
    },
    /// It answers, but with something else.
    #[error("is no echo server: it answered 0x{got:02x} to the byte 0x{PROBE:02x} at {address}")]
    NoEcho {
        /// Where.
        address: SocketAddr,
        /// The first byte of its answer.
        got: u8,
    },
    /// It failed, and left something behind that listens.
    #[error("{cause}; and it {stray}; start it in the foreground")]
    Left {
        /// How it failed.
        cause: Box<StartError>,
        /// What it left.
        stray: String,
    },
    /// The host of a `tcp:` arm is not known.
    #[error("can't be found: {0}")]
    Resolve(TargetError),
    /// No port of our own could be had.
    #[error("can't be started: no free port on 127.0.0.1: {0}")]
    Port(#[source] io::Error),
}

impl Launcher {
    /// Starts the server of an arm and waits until it has echoed a byte. What it writes to stderr (a foreign server's
    /// stdout too) goes into the file `log`.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing is left running, but for what [`StartError::Left`] names.
    pub(crate) fn start(&self, arm: &Arm, log: &Path) -> Result<ServerProcess, StartError> {
        let deadline = Instant::now() + self.ready_timeout;
        match &arm.spec {
            Spec::Remote { host, port } => self.join(host, *port, deadline),
            Spec::Engine { engine, flags } => self.start_engine(engine, flags, log, deadline),
            Spec::Command { words } => self.start_command(words, log, deadline),
        }
    }

    /// What starts the servers of `arms`: ours lies next to this very program.
    ///
    /// # Errors
    /// An arm is one of our engines, and `echometer-server` is not there.
    pub(crate) fn beside_this_program(
        arms: &[Arm],
        server_cpus: &CpuList,
    ) -> anyhow::Result<Launcher> {
        let program = env::current_exe().context("cannot find this very program")?;
        let server_binary = program.with_file_name("echometer-server");
        let needed = arms
            .iter()
            .any(|arm| matches!(arm.spec, Spec::Engine { .. }));
        ensure!(
            !needed || server_binary.is_file(),
            "there is no {}, which serves our own engines: build it with `cargo build --release --workspace`, or put it there",
            server_binary.display(),
        );
        // Without a guard a measurement is as good as with one, as long as it is not killed.
        let guard = Guard::start(&program).ok().map(Arc::new);
        Ok(Launcher {
            server_binary,
            server_cpus: server_cpus.clone(),
            priority: Priority::None,
            guard,
            ready_timeout: READY_TIMEOUT,
        })
    }

    /// The command line of one of our engines. It runs on all the servers' cpus, one worker per cpu, unless the arm
    /// says otherwise.
    #[must_use]
    pub(crate) fn engine_command(&self, engine: &str, flags: &[String]) -> Vec<String> {
        let mut words: Vec<String> = vec![self.server_binary.display().to_string()];
        words.extend(["--listen", "127.0.0.1:0", "--engine", engine].map(str::to_owned));
        let places_itself = flags.iter().any(|flag| {
            let name = flag.split_once('=').map_or(flag.as_str(), |(name, _)| name);
            matches!(name, "--cpus" | "--threads")
        });
        if !places_itself {
            words.extend(["--cpus".to_owned(), self.server_cpus.to_string()]);
        }
        words.extend_from_slice(flags);
        words
    }

    fn start_engine(
        &self,
        engine: &str,
        flags: &[String],
        log: &Path,
        deadline: Instant,
    ) -> Result<ServerProcess, StartError> {
        let words = self.engine_command(engine, flags);
        let hint = "; build it with `cargo build --release --workspace`, it belongs next to the echometer binary";
        let (mut group, stdout) = self.spawn(&words, log, Output::Piped, hint)?;
        let stdout = stdout.expect("its stdout was asked to be a pipe");
        let ready_line = self.read_ready_line(&mut group, stdout, deadline)?;
        // "listening on 127.0.0.1:40213 engine=uring ..."
        let address: Option<SocketAddr> = ready_line
            .strip_prefix("listening on ")
            .and_then(|rest| rest.split(' ').next()?.parse().ok());
        let Some(address) = address else {
            let what = format!("its first line is not that of echometer-server: '{ready_line}'");
            return Err(self.not_ready(what, Some(&group)));
        };
        self.wait_for_echo(&Target::from(address), Some(&mut group), deadline, "")?;
        // Results travel: where this machine keeps its binaries is nobody's business.
        let named = iter::once("echometer-server").chain(words[1..].iter().map(String::as_str));
        let command = Some(shell_words::join(named));
        Ok(ServerProcess {
            address,
            command,
            ready_line: Some(ready_line),
            group: Some(group),
        })
    }

    fn start_command(
        &self,
        words: &[String],
        log: &Path,
        deadline: Instant,
    ) -> Result<ServerProcess, StartError> {
        let port = free_port().map_err(StartError::Port)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let has_port = words.iter().any(|word| word.contains("{port}"));
        let cpus = self.server_cpus.to_string();
        let words: Vec<String> = words
            .iter()
            .map(|word| {
                word.replace("{port}", &port.to_string())
                    .replace("{cpus}", &cpus)
            })
            .collect();
        let mut hint = String::new();
        if !words[0].contains('/') {
            let _ = write!(hint, " (it is no engine either: {})", ENGINES.join(", "));
        }
        let (mut group, _) = self.spawn(&words, log, Output::Logged, &hint)?;
        let hint = if has_port {
            ""
        } else {
            " (its command has no {port}: put it where the port number goes)"
        };
        if let Err(error) =
            self.wait_for_echo(&Target::from(address), Some(&mut group), deadline, hint)
        {
            drop(group);
            return Err(match background_listener(address, &error) {
                Some(stray) => StartError::Left {
                    cause: Box::new(error),
                    stray,
                },
                None => error,
            });
        }
        let command = Some(shell_words::join(&words));
        Ok(ServerProcess {
            address,
            command,
            ready_line: None,
            group: Some(group),
        })
    }

    fn join(&self, host: &str, port: u16, deadline: Instant) -> Result<ServerProcess, StartError> {
        let target = remote_target(host, port).map_err(StartError::Resolve)?;
        let address = self.wait_for_echo(&target, None, deadline, "")?;
        Ok(ServerProcess {
            address,
            command: None,
            ready_line: None,
            group: None,
        })
    }

    fn spawn(
        &self,
        words: &[String],
        log: &Path,
        output: Output,
        hint: &str,
    ) -> Result<(ProcessGroup, Option<ChildStdout>), StartError> {
        let place = Place {
            cpus: &self.server_cpus,
            priority: self.priority,
        };
        ProcessGroup::spawn(words, place, log, output, self.guard.clone()).map_err(|source| {
            let raising = source
                .get_ref()
                .is_some_and(<dyn Error + Send + Sync>::is::<PriorityError>);
            let hint = if source.kind() == io::ErrorKind::NotFound {
                hint.to_owned()
            } else if raising {
                String::new()
            } else {
                // A process meets the limits that a thread does.
                limits::hint(&source) + &threads::hint(&source)
            };
            StartError::Spawn {
                program: words[0].clone(),
                source,
                hint,
            }
        })
    }

    fn read_ready_line(
        &self,
        group: &mut ProcessGroup,
        mut stdout: ChildStdout,
        deadline: Instant,
    ) -> Result<String, StartError> {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") && line.len() < READY_LINE_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(
                    self.not_ready("it did not say that it was ready".to_owned(), Some(group))
                );
            }
            if !readable(stdout.as_fd(), left) {
                continue;
            }
            let mut byte = [0];
            match stdout.read(&mut byte) {
                Ok(1) => line.push(byte[0]),
                // End of file: it has ended, or soon will.
                _ => {
                    return Err(match group.ended(left) {
                        Some(ended) => StartError::Ended {
                            ended,
                            last_words: group.last_words(),
                        },
                        None => self.not_ready("it closed its stdout".to_owned(), Some(group)),
                    });
                }
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Tries until a byte comes back, the server ends or the time is up; gives the address that echoed.
    fn wait_for_echo(
        &self,
        target: &Target,
        mut group: Option<&mut ProcessGroup>,
        deadline: Instant,
        hint: &str,
    ) -> Result<SocketAddr, StartError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match probe(target, left.max(RETRY)) {
                Ok(address) => return Ok(address),
                Err(Silent::NoEcho { address, got }) => {
                    return Err(StartError::NoEcho { address, got });
                }
                Err(Silent::Never(what)) => {
                    let last_words = group.as_deref().map(ProcessGroup::last_words);
                    return Err(StartError::Unreachable { what, last_words });
                }
                Err(Silent::NotNow(_)) if RETRY < left => (),
                Err(Silent::NotNow(what)) => {
                    return Err(self.not_ready(format!("{what}{hint}"), group.as_deref()));
                }
            }
            // The pause, during which its end is noticed at once.
            let Some(group) = &mut group else {
                thread::sleep(RETRY);
                continue;
            };
            if let Some(ended) = group.ended(RETRY) {
                return Err(StartError::Ended {
                    ended,
                    last_words: group.last_words(),
                });
            }
        }
    }

    fn not_ready(&self, what: String, group: Option<&ProcessGroup>) -> StartError {
        let last_words = group.map(ProcessGroup::last_words);
        StartError::NotReady {
            waited: self.ready_timeout,
            what,
            last_words,
        }
    }
}

impl ServerProcess {
    /// How it ended, with its last words; `None` while it lives, and for a server that is not ours.
    pub(crate) fn ended(&mut self, patience: Duration) -> Option<String> {
        let group = self.group.as_mut()?;
        let ended = group.ended(patience)?;
        Some(format!(
            "{ended} while it was measured; {}",
            group.last_words()
        ))
    }
}

/// What a program that ended too early has left at the port that it was given. One that daemonised may need a moment
/// until it listens.
fn background_listener(address: SocketAddr, failure: &StartError) -> Option<String> {
    let patience = match failure {
        StartError::Ended { ended, .. } if ended == "exited with status 0" => BACKGROUND_TIMEOUT,
        _ => FAILED_TIMEOUT,
    };
    let deadline = Instant::now() + patience;
    loop {
        let left = left_listening(address, Duration::ZERO);
        if left.is_some() || deadline <= Instant::now() {
            return left;
        }
        thread::sleep(RETRY);
    }
}

/// Where a server is that is running already.
///
/// # Errors
/// The host is not known.
pub(crate) fn remote_target(host: &str, port: u16) -> Result<Target, TargetError> {
    match host.contains(':') {
        true => Target::resolve(&format!("[{host}]:{port}")),
        false => Target::resolve(&format!("{host}:{port}")),
    }
}

/// A port that nobody listens on just now. Another process may take it before the server does; the server then says so.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

#[cfg(test)]
mod tests;
