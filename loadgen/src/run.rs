//! One whole run: open the connections, drive one stretch, judge it, and write the files.

use std::{
    env, fs,
    io::{self, LineWriter},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use echometer_host::{
    clock::DateTime,
    counters::Steal,
    cpus,
    files::{NewFile, WriteError, write_whole},
    fitness::{self, Purpose, Use},
    machine::Facts,
    signals::Stop,
    sockets::syn_schedule,
    target::Target,
};
use hdrhistogram::{
    Histogram,
    serialization::{V2DeflateSerializer, interval_log::IntervalLogWriter},
};

use crate::{
    connect_times::ConnectTimes,
    cuts::{Membership, Window},
    fail_if::{Figures, Held},
    file::{Client, End, IntervalRow, Life, RunFile, SCHEMA, Server, SynRetransmits},
    fleet::{DriveError, Fleet, FleetError, OpenError},
    histogram_log,
    plan::{Engine, Load, Plan},
    segment::OpenLoop,
    source::Sources,
    summary::Summary,
    tally::{Interval, Phase, Tally},
    verdict::{Evidence, judge},
};

/// How long after the end of the load answers are waited for: a hard stop.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// What a run leaves behind.
#[derive(Debug)]
pub struct Run {
    /// The run file, written already if a folder was given.
    pub file: RunFile,
    /// The latency, for the spectrum.
    pub latency: Histogram<u64>,
    /// Its parts; `None` in closed loop.
    pub open: Option<OpenLoop>,
    /// The first byte that came back wrong, if bytes were compared.
    pub mismatch: Option<crate::payload::Difference>,
    /// The first file that could not be written after the load had begun: what was measured is all here.
    pub unwritten: Option<RunError>,
}

/// Why there is no run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The client can't start.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The server can't be reached.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The client failed.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// A file can't be written.
    #[error(transparent)]
    File(#[from] WriteError),
}

/// Runs `plan` against `target` and writes the files into `out`, where one is given. `progress` hears of each interval.
///
/// A request on `stop` ends the load early; what was measured until then is a run all the same.
///
/// # Errors
/// The server can't be reached, the client can't start, or a file can't be begun. A server that fails later is no
/// error, but the run's verdict; a file that fails later is in the run.
pub fn run(
    plan: &Plan,
    target: &Target,
    out: Option<&Path>,
    stop: &Stop,
    progress: &mut dyn FnMut(&IntervalRow),
) -> Result<Run, RunError> {
    if let Some(out) = out {
        // First of all: nobody wants to learn after the run that it can't be kept.
        fs::create_dir_all(out).map_err(|source| unwritten_at(out, source))?;
    }
    let mut fleet = Fleet::start(plan)?;
    fleet.stop_on(stop.clone());
    let opening = SystemTime::now();
    let session = fleet.open(target)?;
    let opening = opening.elapsed().unwrap_or_default();
    let connected = Connected {
        before: fleet.connects(session).cloned().unwrap_or_default(),
        sources: fleet.sources(session),
    };

    let phase = Phase {
        greeting: Duration::ZERO,
        record_after: plan.warmup,
        stop_after: plan.warmup + plan.duration,
        give_up_after: GIVE_UP_AFTER,
        membership: Membership::ByStart,
        intervals: Some(plan.interval),
    };
    let window_at = SystemTime::now() + plan.warmup;
    let mut sinks = LogFile::create(out)?;
    let mut serializer = V2DeflateSerializer::new();
    let mut log = sinks.begin(&mut serializer, window_at)?;
    let before = &connected.before.connect_ns;
    if !before.is_empty() {
        log.write("connect", before, Duration::ZERO, opening);
    }

    let steal = Steal::begin(cpus_of(plan));
    let mut intervals = Vec::new();
    let tally = fleet.drive_watched(session, &phase, &mut |interval| {
        let row = interval_row(&interval, phase.window());
        let (start, length) = (
            Duration::from_nanos(row.start_ns),
            Duration::from_nanos(row.end_ns - row.start_ns),
        );
        log.write("latency", &interval.segment.latency, start, length);
        log.write("service", interval.segment.service().0, start, length);
        if let Some(lags) = &interval.segment.recv_lag {
            log.write("recv_lag", lags, start, length);
        }
        if let Some(connects) = &interval.segment.connects {
            log.write("connect", &connects.connect_ns, start, length);
            log.write("first_echo", &connects.first_echo_ns, start, length);
        }
        progress(&row);
        intervals.push(row);
    })?;
    let steal_ratio = steal.ratio();
    let logged = log.finish();
    let mut unwritten = logged.and_then(|()| sinks.finish()).err();
    fleet.close(session);

    let connects = connected.measured(&tally);
    let open = plan.load != Load::Closed;
    let mut verdict = judge(&Evidence {
        tally: &tally,
        open,
        steal_ratio,
        fallback: fleet.fallback(),
    });
    let machine = Facts::read();
    let doctor = fitness::at_a_glance(&machine, purpose(plan));
    verdict.object(fitness::objections(&doctor));
    let file = RunFile {
        schema: SCHEMA.to_owned(),
        started_at: rfc3339(window_at),
        command: command_line(),
        plan: plan.clone(),
        machine,
        doctor,
        server: Server {
            target: target.name().to_owned(),
        },
        intervals,
        end: end(
            plan,
            &fleet,
            &tally,
            &connects,
            connected.sources,
            steal_ratio,
        ),
        verdict,
        thresholds: thresholds(plan, &tally, &connects),
        // A run that ended because no connection was left is short too, but that is the verdict's business.
        cut_short: tally.stopped_early && stop.requested(),
    };
    // After a failure nothing more is written: run.json says that the others are whole.
    if let Some(out) = out
        && unwritten.is_none()
    {
        unwritten = write_files(out, &file, &tally).err();
    }
    Ok(Run {
        file,
        open: tally.open.clone(),
        latency: tally.latency,
        mismatch: tally.mismatch,
        unwritten,
    })
}

fn write_files(out: &Path, file: &RunFile, tally: &Tally) -> Result<(), RunError> {
    let spectrum = histogram_log::spectrum(&tally.latency);
    write_whole(&out.join("run.hgrm"), spectrum.as_bytes())?;
    // Last, because its presence says that the others are whole.
    file.write(&out.join("run.json"))?;
    Ok(())
}

/// How the session's connections came to be.
struct Connected {
    before: ConnectTimes,
    sources: Option<Sources>,
}

impl Connected {
    /// All connects: those before the load, and those of the window.
    fn measured(&self, tally: &Tally) -> ConnectTimes {
        let mut connects = self.before.clone();
        if let Some(of_window) = &tally.connects {
            connects.add(of_window);
        }
        connects
    }
}

/// What was to hold, and whether it did.
fn thresholds(plan: &Plan, tally: &Tally, connects: &ConnectTimes) -> Vec<Held> {
    let open = tally.open.as_ref();
    let figures = Figures {
        latency: (&tally.latency, tally.window.censored_from_ns),
        service: tally.service(),
        queue: open.map(|open| (&open.queue, None)),
        send_lag: open.map(|open| (&open.send_lag, None)),
        recv_lag: tally.recv_lag.as_ref().map(|lags| (lags, None)),
        connect: (&connects.connect_ns, None),
        first_echo: (&connects.first_echo_ns, None),
        rate_per_s: tally.replies as f64 * 1e9 / tally.recorded_span_ns.max(1) as f64,
        errors: tally.errors.total(),
        lost: tally.window.censored(),
    };
    plan.fail_if
        .iter()
        .map(|threshold| threshold.judge(&figures))
        .collect()
}

/// This program's command line as a shell would take it, the program by its name alone: where it lies is its user's
/// business.
#[must_use]
pub fn command_line() -> String {
    let mut words: Vec<String> = env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if let Some(program) = words.first_mut() {
        let name = Path::new(program.as_str()).file_name();
        *program = name.map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    }
    shell_words::join(words)
}

/// What the client's side of the machine must be fit for. The server may be elsewhere, so that one cpu is enough.
fn purpose(plan: &Plan) -> Purpose {
    Purpose {
        cpus: plan.workers.iter().flatten().copied().collect(),
        cpus_min: 1,
        connections: None,
        engine: match plan.engine {
            Engine::Uring => Use::Uring,
            Engine::Epoll | Engine::Auto => Use::Epoll,
        },
    }
}

fn end(
    plan: &Plan,
    fleet: &Fleet,
    tally: &Tally,
    connects: &ConnectTimes,
    sources: Option<Sources>,
    steal_ratio: Option<f64>,
) -> End {
    let counts = tally.window;
    let seconds = tally.recorded_span_ns.max(1) as f64 / 1e9;
    let (service, service_censored) = tally.service();
    let part = |of: fn(&OpenLoop) -> &Histogram<u64>| {
        tally
            .open
            .as_ref()
            .map_or_else(Summary::default, |open| Summary::of(of(open), None))
    };
    End {
        messages: counts.answered,
        sent: counts.sent,
        answered: counts.answered,
        lost: counts.lost,
        outstanding: counts.outstanding,
        unsent: counts.unsent,
        censored: counts.censored(),
        clipped: counts.clipped,
        window_ns: tally.recorded_span_ns,
        connections_opened: tally.life_opened,
        reconnects: tally.life_reopened,
        rate_per_s: tally.replies as f64 / seconds,
        offered_per_s: (plan.load != Load::Closed)
            .then(|| (counts.sent + counts.unsent) as f64 / seconds),
        latency_ns: Summary::of(&tally.latency, counts.censored_from_ns),
        service_ns: Summary::of(service, service_censored),
        service_least_ns: part(|open| &open.service_least),
        queue_ns: part(|open| &open.queue),
        send_lag_ns: part(|open| &open.send_lag),
        recv_lag_ns: tally
            .recv_lag
            .as_ref()
            .map_or_else(Summary::default, |lags| Summary::of(lags, None)),
        connect_ns: Summary::of(&connects.connect_ns, None),
        first_echo_ns: Summary::of(&connects.first_echo_ns, None),
        syn_retransmits: SynRetransmits::rows(connects, syn_schedule()),
        errors: tally
            .errors
            .iter()
            .map(|(kind, count)| (kind.name().to_owned(), count))
            .collect(),
        client: Client {
            engine: fleet.engine(),
            sources,
            cpu_ns_per_message: tally
                .client_cpu_ns
                .filter(|_| tally.messages != 0)
                .map(|cpu_ns| cpu_ns as f64 / tally.messages as f64),
            busiest_thread: tally.busiest_thread,
            run_delay_ns: tally.run_delay_ns,
            steal_ratio,
        },
        life: Life {
            sent: tally.sent,
            answered: tally.messages,
            lost: tally.lost,
            outstanding: tally.outstanding,
            sent_bytes: tally.life_sent_bytes,
            received_bytes: tally.life_received_bytes,
        },
    }
}

fn interval_row(interval: &Interval<'_>, window: Window) -> IntervalRow {
    let segment = interval.segment;
    let (service, service_censored) = segment.service();
    let seconds = interval.window.length_ns().max(1) as f64 / 1e9;
    IntervalRow {
        start_ns: interval.window.from_ns - window.from_ns,
        end_ns: interval.window.until_ns - window.from_ns,
        sent: segment.sent,
        answered: segment.answered,
        rate_per_s: segment.replies as f64 / seconds,
        latency_ns: Summary::of(&segment.latency, segment.censored_from_ns),
        service_ns: Summary::of(service, service_censored),
    }
}

fn unwritten_at(path: &Path, source: io::Error) -> RunError {
    RunError::File(WriteError {
        path: path.to_owned(),
        source,
    })
}

/// Where the interval log goes: a file, or nowhere. It has its name when it is whole: a log that was cut short by a full
/// disk or a kill reads like one of a shorter run.
struct LogFile {
    file: Option<(PathBuf, LineWriter<NewFile>)>,
}

struct Log<'a, 'b> {
    path: PathBuf,
    writer: Option<IntervalLogWriter<'a, 'b, LineWriter<NewFile>, V2DeflateSerializer>>,
    /// The first error: intervals come from a callback, which has no one to tell.
    error: Option<io::Error>,
}

impl LogFile {
    fn create(out: Option<&Path>) -> Result<LogFile, RunError> {
        let Some(out) = out else {
            return Ok(LogFile { file: None });
        };
        // What an earlier run left here would pass for this one's, should this one come to no end.
        for name in ["run.json", "run.hgrm", "run.hlog"] {
            let path = out.join(name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(unwritten_at(&path, source));
                }
                _ => {}
            }
        }
        let path = out.join("run.hlog");
        let file = NewFile::create(&path)?;
        Ok(LogFile {
            file: Some((path, LineWriter::new(file))),
        })
    }

    fn begin<'a, 'b>(
        &'a mut self,
        serializer: &'b mut V2DeflateSerializer,
        base: SystemTime,
    ) -> Result<Log<'a, 'b>, RunError> {
        let Some((path, file)) = &mut self.file else {
            return Ok(Log {
                path: PathBuf::new(),
                writer: None,
                error: None,
            });
        };
        let path = path.clone();
        match histogram_log::begin(file, serializer, base) {
            Ok(writer) => Ok(Log {
                path,
                writer: Some(writer),
                error: None,
            }),
            Err(source) => Err(unwritten_at(&path, source)),
        }
    }

    /// All is in it: from now on it has its name.
    fn finish(self) -> Result<(), RunError> {
        let Some((path, file)) = self.file else {
            return Ok(());
        };
        let whole = file
            .into_inner()
            .map_err(|error| unwritten_at(&path, error.into_error()))?;
        Ok(whole.finish()?)
    }
}

impl Log<'_, '_> {
    fn write(&mut self, tag: &str, histogram: &Histogram<u64>, start: Duration, length: Duration) {
        if let Some(writer) = &mut self.writer
            && self.error.is_none()
        {
            self.error = histogram_log::write(writer, tag, histogram, start, length).err();
        }
    }

    fn finish(self) -> Result<(), RunError> {
        match self.error {
            Some(source) => Err(unwritten_at(&self.path, source)),
            None => Ok(()),
        }
    }
}

/// The cpus that the client's threads run on.
fn cpus_of(plan: &Plan) -> Vec<u32> {
    let pinned: Option<Vec<u32>> = plan.workers.iter().copied().collect();
    pinned
        .or_else(|| cpus::allowed().ok().map(|cpus| cpus.iter().collect()))
        .unwrap_or_default()
}

fn rfc3339(at: SystemTime) -> String {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    DateTime::from_unix_s(since.as_secs()).to_string()
}
