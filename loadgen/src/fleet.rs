//! The fleet: the client's worker threads, started once, and the sessions that they hold.
//!
//! A session is the plan's connections to one server. A fleet may hold several; one is driven at a time, and the
//! others rest without using CPU. Rings, buffers and histograms live as long as the fleet or the session, so that
//! driving a short slice costs little more than waking the workers.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use echometer_host::{
    address::Address,
    clock, limits,
    pinning::PinError,
    signals::Stop,
    sockets::{ConnectOptions, close_trial, local_ports},
    target::Target,
    threads::{self, ThreadError},
};
use echometer_ring::{Config, Feature, Features, SetupError};
use hdrhistogram::Histogram;

use crate::{
    connect_times::ConnectTimes,
    cuts::Cuts,
    dial::{CONNECTS_UNDER_WAY, Route, connect_all},
    drive::{Job, Outcome},
    failure::connect_hint,
    payload::Payload,
    plan::{Engine, Load, Plan},
    schedule::Share,
    segment::Segment,
    source::Sources,
    tally::{Collector, Interval, Phase, Tally},
    worker::{Answer, Birth, Command, DriveFailure, OpenFailure, Opening, live},
};

/// How far ahead a stretch of several workers is started, so that all are awake by then.
const START_LEAD_NS: u64 = 150_000;

/// How often the fleet looks whether a worker that says nothing is still there.
const CHECK: Duration = Duration::from_secs(1);

/// The client's worker threads. Dropping it closes all connections and ends the threads.
pub struct Fleet {
    plan: Arc<Plan>,
    /// The plan's, or at another rate.
    load: Load,
    engine: Engine,
    fallback: Option<String>,
    workers: Vec<Worker>,
    answers: Receiver<(usize, Answer)>,
    sessions: Vec<Option<Opened>>,
    opening: Opening,
    /// How long a connect may take.
    connect_limit: Duration,
    /// How many stretches were driven: each has its own arrivals.
    stretches: u64,
    stop: Option<Stop>,
}

/// An open session.
struct Opened {
    connects: Box<ConnectTimes>,
    sources: Option<Sources>,
}

/// Names an open session of one fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(u32);

struct Worker {
    commands: Option<Sender<Command>>,
    emptied: Sender<Box<Segment>>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no fleet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// A worker can't be pinned where the plan says.
    #[error("{0}")]
    Pin(PinError),
    /// The engine asked for is not available here.
    #[error("{}{}", .0, ring_hint(.0))]
    Engine(SetupError),
    /// No thread could be started.
    #[error("{0}")]
    Thread(ThreadError),
    /// A fault of ours: a worker has ended without a word.
    #[error("a worker thread has died; please report this with the command that you ran")]
    WorkerDied,
}

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Nobody answered at any of the target's addresses; this is the last one's error.
    #[error("cannot connect to {address}: {cause}; {hint}")]
    Connect {
        /// The address tried last.
        address: String,
        /// What the kernel said.
        cause: io::Error,
        /// The likely cause.
        hint: &'static str,
    },
    /// [`Fleet::stop_on`] was requested before all connections were made.
    #[error("stopped before the connections were made")]
    Stopped,
    /// The limit on descriptors is too low.
    #[error("{0}")]
    Limit(limits::RaiseError),
    /// No ring for the connections.
    #[error("{}{}", .0, ring_hint(.0))]
    Ring(SetupError),
    /// No epoll set for the connections.
    #[error("cannot set up epoll: {}{}", .0, limits::hint(.0))]
    Epoll(io::Error),
    /// A fault of ours: a worker has ended without a word.
    #[error("a worker thread has died; please report this with the command that you ran")]
    WorkerDied,
}

/// Why a stretch came to nothing. (A connection or a server that fails is no such reason: that is counted.)
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriveError {
    /// The session was closed, or never opened.
    #[error("the session is not open")]
    NoSuchSession,
    /// The engine itself failed.
    #[error("the client's engine failed: {0}")]
    Engine(io::Error),
    /// A fault of ours: a worker has ended without a word.
    #[error("a worker thread has died; please report this with the command that you ran")]
    WorkerDied,
}

impl Fleet {
    /// Starts the plan's worker threads, each pinned where the plan says. The plan must be valid.
    ///
    /// # Errors
    /// A cpu that can't be had, an engine that can't be had, or no threads.
    pub fn start(plan: &Plan) -> Result<Fleet, FleetError> {
        let opening = match (plan.requests_per_connection, plan.reconnect) {
            (0, false) => Opening::Before,
            (0, true) => Opening::BeforeAndAgain,
            _ => Opening::Churn,
        };
        let limit = ConnectOptions::default().time_limit;
        Fleet::start_for(plan, opening, limit)
    }

    /// As [`Fleet::start`], for sessions whose connections are all made while load is driven, each once, within
    /// `connect_limit`, and send one message each.
    pub(crate) fn start_for_storm(
        plan: &Plan,
        connect_limit: Duration,
    ) -> Result<Fleet, FleetError> {
        Fleet::start_for(plan, Opening::Once, connect_limit)
    }

    fn start_for(
        plan: &Plan,
        opening: Opening,
        connect_limit: Duration,
    ) -> Result<Fleet, FleetError> {
        let (engine, fallback) = choose_engine(plan)?;
        let plan = Arc::new(plan.clone());
        let payload = Payload::new(plan.message_size, plan.seed);
        let (answer_sender, answers) = channel();
        let mut workers = Vec::with_capacity(plan.workers.len());
        for index in 0..plan.workers.len() {
            let (command_sender, commands) = channel();
            let (emptied_sender, emptied) = channel();
            let birth = Birth {
                index,
                plan: Arc::clone(&plan),
                engine,
                payload: payload.clone(),
                dials: opening != Opening::Before,
                commands,
                answers: answer_sender.clone(),
                emptied,
            };
            let thread = threads::spawn(format!("load-{index}"), move || live(&birth))
                .map_err(FleetError::Thread)?;
            workers.push(Worker {
                commands: Some(command_sender),
                emptied: emptied_sender,
                thread: Some(thread),
            });
        }
        let fleet = Fleet {
            load: plan.load,
            plan,
            engine,
            fallback,
            workers,
            answers,
            sessions: Vec::new(),
            opening,
            connect_limit,
            stretches: 0,
            stop: None,
        };
        for _ in 0..fleet.workers.len() {
            match fleet.answer() {
                Some((_, Answer::Ready(ready))) => ready.map_err(FleetError::Pin)?,
                _ => return Err(FleetError::WorkerDied),
            }
        }
        Ok(fleet)
    }

    /// The plan that it was started with.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Open loop: the stretches from now on have this rate, above 0, instead of the plan's. A closed loop has none. Memory
    /// for a second of messages is there only up to the plan's rate.
    pub fn set_rate(&mut self, per_s: f64) {
        if let Load::Open { rate_per_s, .. } = &mut self.load {
            *rate_per_s = per_s;
        }
    }

    /// The engine in use: never [`Engine::Auto`].
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Why `auto` fell back to epoll, if it did.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Ends the load of every stretch early once `stop` is requested; what is in flight is still waited for. Connections
    /// that are being made then are given up.
    pub fn stop_on(&mut self, stop: Stop) {
        self.stop = Some(stop);
    }

    /// Opens the plan's connections to `target`, each worker its share, and keeps them. Where the plan makes connections
    /// while load is driven, one is made and closed, to see that the target is there.
    ///
    /// # Errors
    /// No address of the target answers, a limit is too low, or it was stopped; nothing stays open then.
    pub fn open(&mut self, target: &Target) -> Result<SessionId, OpenError> {
        let open = self.sessions.iter().flatten().count() as u64 + 1;
        // A few more for files, epoll sets and rings. Direct descriptors aren't counted, but a ring's table of them is
        // bounded by the same limit.
        let each = if self.opening == Opening::Before {
            1
        } else {
            2
        };
        let needed = open * each * u64::from(self.plan.connections) + 128;
        limits::raise_nofile(needed).map_err(OpenError::Limit)?;
        let session = self.sessions.len() as u32;
        let mut last = None;
        for address in target.addresses() {
            match self.open_at(session, address) {
                Ok(opened) => {
                    self.sessions.push(Some(opened));
                    return Ok(SessionId(session));
                }
                // Whoever answered this address also has the others' error to give.
                Err(error @ OpenError::Connect { .. }) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.expect("a target has at least one address"))
    }

    /// How long each connect took that opened a session, ns; `None` once it is closed. Connects that were made while
    /// load was driven are in [`Tally::connects`].
    pub fn connect_ns(&self, id: SessionId) -> Option<&Histogram<u64>> {
        Some(&self.connects(id)?.connect_ns)
    }

    /// The connects that opened a session; `None` once it is closed.
    pub fn connects(&self, id: SessionId) -> Option<&ConnectTimes> {
        Some(&self.sessions.get(id.0 as usize)?.as_ref()?.connects)
    }

    /// The addresses that a session connects from; `None` where the kernel chooses.
    pub fn sources(&self, id: SessionId) -> Option<Sources> {
        self.sessions.get(id.0 as usize)?.as_ref()?.sources
    }

    /// Drives one stretch of load over a session. It ends drained, nothing in flight; where that takes too long, the
    /// messages left are counted as outstanding and their connections closed.
    ///
    /// # Errors
    /// The session is not open, or the client itself failed. Failing connections are counted in the tally.
    pub fn drive(&mut self, id: SessionId, phase: &Phase) -> Result<Tally, DriveError> {
        self.drive_watched(id, phase, &mut |_| {})
    }

    /// As [`Fleet::drive`], and tells `watch` of each interval as soon as it is complete.
    ///
    /// # Errors
    /// As [`Fleet::drive`].
    pub fn drive_watched(
        &mut self,
        id: SessionId,
        phase: &Phase,
        watch: &mut dyn FnMut(Interval<'_>),
    ) -> Result<Tally, DriveError> {
        if self.connect_ns(id).is_none() {
            return Err(DriveError::NoSuchSession);
        }
        self.stretches += 1;
        let window = phase.window();
        let cuts = Cuts::new(window, phase.intervals);
        let start_ns = (1 < self.workers.len()).then(|| clock::now_ns() + START_LEAD_NS);
        for (index, worker) in self.workers.iter().enumerate() {
            let share = Share {
                worker: index as u32,
                workers: self.workers.len() as u32,
                connections: self.plan.connections_of(index),
            };
            let job = Box::new(Job {
                start_ns,
                cuts: cuts.clone(),
                window,
                membership: phase.membership,
                greeting_ns: u64::try_from(phase.greeting.as_nanos()).unwrap_or(u64::MAX / 4),
                give_up_after_ns: u64::try_from(phase.give_up_after.as_nanos()).unwrap_or(u64::MAX),
                load: self.load,
                ramp_to_per_s: self.plan.ramp_to_per_s,
                think_ns: u64::try_from(self.plan.think.as_nanos()).unwrap_or(u64::MAX),
                once: self.opening == Opening::Once,
                wait: self.plan.wait,
                pipeline: self.plan.pipeline,
                share,
                seed: self
                    .plan
                    .seed
                    .wrapping_add(self.stretches.wrapping_mul(0xD134_2543_DE82_EF95)),
                stop: self.stop.clone(),
            });
            worker
                .command(Command::Drive { session: id.0, job })
                .map_err(|_| DriveError::WorkerDied)?;
        }
        let dials = self.opening != Opening::Before;
        let mut collector = Collector::new(cuts, &self.plan, dials);
        let mut outcomes: Vec<Box<Outcome>> = Vec::with_capacity(self.workers.len());
        let mut failed = None;
        let mut left = self.workers.len();
        while 0 < left {
            match self.answer() {
                Some((worker, Answer::Segment(segment))) => {
                    collector.add(&segment);
                    self.workers[worker].give_back(segment);
                    collector.tell(watch);
                }
                Some((_, Answer::Driven(Ok(outcome)))) => {
                    collector.end(&outcome.last_segment);
                    outcomes.push(outcome);
                    left -= 1;
                }
                // The others are heard out, so that none of their answers is taken for a later stretch's.
                Some((_, Answer::Driven(Err(failure)))) => {
                    failed = Some(failure);
                    left -= 1;
                }
                _ => return Err(DriveError::WorkerDied),
            }
        }
        match failed {
            Some(DriveFailure::NoSuchSession) => return Err(DriveError::NoSuchSession),
            Some(DriveFailure::Engine(error)) => return Err(DriveError::Engine(error)),
            None => {}
        }
        let tally = collector.finish(&outcomes, watch);
        for (worker, outcome) in self.workers.iter().zip(outcomes) {
            worker.give_back(outcome.last_segment);
        }
        Ok(tally)
    }

    /// Closes a session's connections. One that is not open stays so.
    pub fn close(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id.0 as usize)
            && session.take().is_some()
        {
            for worker in &self.workers {
                // A worker that has died has closed its connections.
                let _ = worker.command(Command::Close { session: id.0 });
            }
        }
    }

    fn open_at(&mut self, session: u32, address: &Address) -> Result<Opened, OpenError> {
        let ports = local_ports().map_or(u32::from(u16::MAX), |ports| ports.len() as u32);
        let sources = self.plan.sources_for(address, ports);
        let options = ConnectOptions {
            nodelay: !self.plan.nagle,
            sndbuf: self.plan.sndbuf.map(|bytes| bytes as usize),
            rcvbuf: self.plan.rcvbuf.map(|bytes| bytes as usize),
            source: sources.map(|sources| sources.nth(0)),
            time_limit: self.connect_limit,
        };
        let refused = |cause: io::Error| OpenError::Connect {
            address: address.to_string(),
            hint: connect_hint(&cause),
            cause,
        };
        let route = Route {
            address: address.clone(),
            options,
            sources,
            rate_per_s: self.plan.connect_rate_per_s / self.workers.len() as f64,
        };
        let failed = |failure| match failure {
            OpenFailure::Connect(cause) => refused(cause),
            OpenFailure::Stopped => OpenError::Stopped,
            OpenFailure::Ring(error) => OpenError::Ring(error),
            OpenFailure::Epoll(error) => OpenError::Epoll(error),
        };
        if self.opening == Opening::Churn {
            let there = connect_all(1, 1, &route, 0, self.stop.as_ref())
                .map_err(|unconnected| failed(unconnected.into()))?;
            // The port that it came from is one of the load's.
            there.sockets.into_iter().for_each(close_trial);
        }
        let under_way = (CONNECTS_UNDER_WAY / self.workers.len()).max(1);
        for worker in &self.workers {
            worker
                .command(Command::Open {
                    session,
                    route: route.clone(),
                    under_way,
                    opening: self.opening,
                    stop: self.stop.clone(),
                })
                .map_err(|_| OpenError::WorkerDied)?;
        }
        let mut connects = Box::<ConnectTimes>::default();
        let mut failure = None;
        for _ in 0..self.workers.len() {
            match self.answer() {
                Some((_, Answer::Opened(Ok(part)))) => connects.add(&part),
                Some((_, Answer::Opened(Err(of_worker)))) => failure = Some(of_worker),
                _ => return Err(OpenError::WorkerDied),
            }
        }
        let Some(failure) = failure else {
            return Ok(Opened { connects, sources });
        };
        for worker in &self.workers {
            let _ = worker.command(Command::Close { session });
        }
        Err(failed(failure))
    }

    /// The next answer; `None` when a worker has died.
    fn answer(&self) -> Option<(usize, Answer)> {
        loop {
            match self.answers.recv_timeout(CHECK) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    let died = |worker: &Worker| {
                        worker.thread.as_ref().is_none_or(JoinHandle::is_finished)
                    };
                    if self.workers.iter().any(died) {
                        // What it said before it died comes first.
                        return self.answers.try_recv().ok();
                    }
                }
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.commands = None;
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                // One that panicked has said so on stderr.
                let _ = thread.join();
            }
        }
    }
}

impl Worker {
    fn command(&self, command: Command) -> Result<(), ()> {
        let commands = self.commands.as_ref().ok_or(())?;
        commands.send(command).map_err(|_| ())
    }

    fn give_back(&self, mut segment: Box<Segment>) {
        segment.clear();
        // A worker that has died needs none.
        let _ = self.emptied.send(segment);
    }
}

/// The cure where a limit of this process keeps it from having a ring.
fn ring_hint(error: &SetupError) -> String {
    match error {
        SetupError::Other { source, .. } => limits::hint(source) + &threads::hint(source),
        _ => String::new(),
    }
}

/// Finds out by trying whether io_uring is available. Only "missing or forbidden" makes `auto` fall back: a limit
/// that is too low is the user's to raise.
fn choose_engine(plan: &Plan) -> Result<(Engine, Option<String>), FleetError> {
    let asked = plan.engine;
    if asked == Engine::Epoll {
        return Ok((Engine::Epoll, None));
    }
    let smallest = Config {
        entries: 8,
        cq_entries: 16,
        slots: 1,
        buffers: 1,
        buffer_size: 64,
        features: Features::default().without(Feature::Bundle),
        ..Config::default()
    };
    let fits = echometer_ring::try_out(&smallest).and_then(|features| {
        if plan.is_stamped() && !features.has(Feature::MultishotRecv) {
            return Err(SetupError::Unavailable {
                what: "no multishot receive, which the kernel's times come with".into(),
            });
        }
        Ok(())
    });
    match fits {
        Ok(()) => Ok((Engine::Uring, None)),
        Err(error) if asked == Engine::Auto && error.is_unavailable() => {
            Ok((Engine::Epoll, Some(error.to_string())))
        }
        Err(error) => Err(FleetError::Engine(error)),
    }
}
