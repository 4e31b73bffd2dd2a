//! One worker drives one stretch of load on its connections: what is due is written, what came back is harvested,
//! until the window is over and everything is answered or the time for that is up.
//!
//! A turn: take what is due; stamp and write it; wait; stamp and harvest. The clock is read just before a batch of
//! writes goes to the kernel and just after the kernel said that there is something to harvest (with epoll: before
//! the receives). So a latency holds the client's own send and none of its bookkeeping.

use std::{collections::VecDeque, io, time::Duration};

use echometer_host::{clock, signals::Stop};

use crate::{
    connect_times::RETRANSMIT_NS_MIN,
    cuts::{Cuts, Membership, Window},
    dial::Dialing,
    engine::{Closing, Engine, Sending, Sink, Then},
    failure::{Failure, Failures},
    flow::{Counts, End, Flow, Message, Origin},
    kernel_time::KernelTime,
    lives::{Lives, Unfinished},
    meter::{Meter, Usage},
    payload::{Difference, Payload},
    plan::{Close, Load, Plan, Wait},
    recorder::Recorder,
    schedule::{Ramp, Schedule, Share},
    segment::Segment,
};

/// Messages are stamped and handed over in batches of this many sends: with more, those at the end of a batch would
/// wait for the sends before them (3-4 us each) with the clock already running; with fewer, the calls into the kernel
/// would show.
const BATCH: usize = 64;

/// Connects are stamped and handed over in batches of this many: one costs the kernel ten times what a send does.
const DIAL_BATCH: usize = 8;

/// So many messages that were due and never sent are gone through at the end; beyond, they are only counted. With a rate
/// that nobody can deliver there may be a thousand million of them.
const REPLAYED_MAX: u64 = 4 << 20;

/// A waiting worker looks this often whether it is to stop early.
const NAP_NS: u64 = 100_000_000;

/// One worker's connections to one server.
pub(crate) struct Session<E> {
    engine: E,
    flow: Flow,
    payload: Payload,
    /// The plan's index of this worker's first connection.
    first_connection: usize,
    /// How far each connection's stream was compared with what was sent; empty unless that was asked for.
    verified_bytes: Vec<u64>,
    received_bytes: u64,
    /// Where connections are made while load is driven.
    lives: Option<Lives>,
    dialing: Dialing,
    /// The kernel tells when it received something.
    stamped: bool,
    /// Connections of one batch of dials.
    batch: Vec<u32>,
    /// Closed loop: when a connection that thinks sends its next message. Ascending, because all think equally long.
    thinking: VecDeque<(u64, u32)>,
}

/// What is to be done in a stretch. Instants are ns since its start.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The start, on the clock of [`clock::now_ns`]; `None` for a lone worker, which starts when it is awake.
    pub(crate) start_ns: Option<u64>,
    pub(crate) cuts: Cuts,
    pub(crate) window: Window,
    pub(crate) membership: Membership,
    /// How long after the end of the load answers are waited for.
    pub(crate) give_up_after_ns: u64,
    pub(crate) load: Load,
    /// The rate changes over the window.
    pub(crate) ramp_to_per_s: Option<f64>,
    /// Closed loop: how long after an answer the next message is due.
    pub(crate) think_ns: u64,
    /// One message a connection, and the end when all are answered: a storm.
    pub(crate) once: bool,
    pub(crate) wait: Wait,
    pub(crate) pipeline: u32,
    pub(crate) share: Share,
    pub(crate) seed: u64,
    /// Ends the load early.
    pub(crate) stop: Option<Stop>,
}

/// What became of a stretch, beside its segments.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) last_segment: Box<Segment>,
    /// Over the whole stretch, ramp and drain included.
    pub(crate) counts: Counts,
    pub(crate) outstanding: u64,
    pub(crate) failures: Failures,
    pub(crate) mismatch: Option<Difference>,
    pub(crate) alive: usize,
    /// The window as it was in the end: shorter than planned if the load stopped early.
    pub(crate) window: Window,
    pub(crate) stopped_early: bool,
    pub(crate) usage: Usage,
    /// Since the session was opened.
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// Connections made since the session was opened, and how many of them after a failure.
    pub(crate) opened: u64,
    pub(crate) reopened: u64,
}

impl Job {
    fn schedule(&self) -> Option<Schedule> {
        let Load::Open {
            rate_per_s,
            arrivals,
        } = self.load
        else {
            return None;
        };
        Some(match self.ramp_to_per_s {
            None => Schedule::new(rate_per_s, arrivals, self.share, self.seed),
            Some(to_per_s) => {
                let ramp = Ramp {
                    from_per_s: rate_per_s,
                    to_per_s,
                    from_ns: self.window.from_ns,
                    until_ns: self.window.until_ns,
                };
                Schedule::ramp(ramp, arrivals, self.share, self.seed)
            }
        })
    }
}

impl<E: Engine> Session<E> {
    pub(crate) fn new(
        plan: &Plan,
        engine: E,
        payload: Payload,
        connections: u32,
        first_connection: usize,
        lives: Option<Lives>,
        dialing: Dialing,
    ) -> Session<E> {
        let origin = match plan.load {
            Load::Closed => Origin::Write,
            Load::Open { .. } => Origin::Due,
        };
        let mut flow = Flow::new(
            connections,
            first_connection as u32,
            plan.sizes(),
            plan.pipeline,
            origin,
        );
        // What comes due while this machine or the server stands still for a second.
        if let Some(rate_per_s) = plan.rate_max_per_s() {
            let share = f64::from(connections) / f64::from(plan.connections);
            flow.reserve((rate_per_s * share).ceil() as u64);
        }
        if let Some(lives) = &lives {
            for connection in 0..connections as usize {
                if !lives.is_open(connection) {
                    flow.begin_closed(connection);
                }
            }
        }
        Session {
            engine,
            flow,
            payload,
            first_connection,
            verified_bytes: if plan.verify {
                vec![0; connections as usize]
            } else {
                Vec::new()
            },
            received_bytes: 0,
            lives,
            dialing,
            stamped: plan.is_stamped(),
            batch: Vec::with_capacity(DIAL_BATCH),
            thinking: VecDeque::new(),
        }
    }

    /// Drives one stretch. `hand_over` takes full segments and puts empty ones in their place.
    ///
    /// # Errors
    /// The engine itself failed; a failing connection is no error, but is counted.
    pub(crate) fn drive(
        &mut self,
        job: &Job,
        empty: Box<Segment>,
        hand_over: &mut dyn FnMut(&mut Box<Segment>),
    ) -> io::Result<Outcome> {
        let open = matches!(job.load, Load::Open { .. });
        let mut schedule = job.schedule();
        let mut recorder = Recorder::new(job.cuts.clone(), job.membership, empty);
        let mut failures = Failures::default();
        let mut mismatch = None;
        let mut stopped_early = false;

        self.flow.begin_stretch();
        let mut meter = Meter::begin(job.wait, job.window, 1 < job.cuts.segments());
        let start_ns = match job.start_ns {
            Some(start_ns) => {
                while clock::now_ns() < start_ns {
                    std::hint::spin_loop();
                }
                start_ns
            }
            None => clock::now_ns(),
        };
        let elapsed_ns = || clock::now_ns().saturating_sub(start_ns);
        let mut kernel_time = self.stamped.then(|| KernelTime::new(start_ns));
        if !open {
            for connection in 0..job.share.connections {
                if self.flow.is_alive(connection as usize) {
                    (0..job.pipeline).for_each(|_| {
                        self.flow.due(connection, 0);
                    });
                }
            }
        }
        if let Some(lives) = &mut self.lives {
            lives.begin_stretch(job.share.worker, job.share.workers);
        }
        let mut stop_ns = if job.once { 0 } else { job.window.until_ns };
        let mut load_ended = false;
        let mut now_ns = elapsed_ns();
        loop {
            let asked_to_stop = job.stop.as_ref().is_some_and(Stop::requested);
            if now_ns < stop_ns && (asked_to_stop || self.flow.alive() == 0) {
                stopped_early = true;
                stop_ns = now_ns;
                recorder.cut_short(now_ns);
                meter.cut_short(now_ns);
            }
            if job.once && asked_to_stop {
                stopped_early = true;
                break;
            }
            let loading = now_ns < stop_ns;
            if !loading && !load_ended {
                load_ended = true;
                self.thinking.clear();
                self.end_load(open || job.once);
            }

            if let Some(schedule) = &mut schedule {
                let due_ns = now_ns.min(stop_ns.saturating_sub(1));
                while 0 < stop_ns && self.flow.has_room() {
                    let Some(due) = schedule.take_due(due_ns) else {
                        break;
                    };
                    if !self.flow.due(due.connection, due.at_ns) {
                        recorder.unsent(due.at_ns, now_ns);
                    }
                }
            }

            while let Some((at_ns, connection)) = self.thinking.front().copied()
                && at_ns <= now_ns
                && loading
            {
                self.thinking.pop_front();
                // Of one that was lost meanwhile nobody takes the place: it would think no more.
                if self.flow.is_alive(connection as usize) {
                    self.flow.due(connection, at_ns);
                }
            }

            let dialed = self.lives.is_some()
                && self.dial(loading, &mut failures, &mut recorder, &elapsed_ns)?;

            while self.flow.has_writable() {
                let written_ns = elapsed_ns();
                for _ in 0..BATCH {
                    let run_max = self.payload.run_bytes_max();
                    let Some(run) = self
                        .flow
                        .next_run(run_max, written_ns, |message| recorder.written(message))
                    else {
                        break;
                    };
                    let range = self.payload.range(
                        self.first_connection + run.connection,
                        run.offset,
                        run.bytes,
                    );
                    match self.engine.send(run.connection, range) {
                        Sending::InFlight => {}
                        Sending::Blocked => self.flow.blocked(run.connection),
                        Sending::Complete => self.flow.sent(run.connection, written_ns),
                        Sending::Failed(failure) => {
                            self.engine.close(run.connection, Closing::Fin);
                            failures.count(failure);
                            let mut losing = Losing {
                                flow: &mut self.flow,
                                lives: &mut self.lives,
                                recorder: &mut recorder,
                                again: !open && loading,
                            };
                            losing.lose(run.connection, written_ns);
                        }
                    }
                }
                if self.flow.has_writable() {
                    self.engine.flush()?;
                }
            }

            let give_up_ns = stop_ns.saturating_add(job.give_up_after_ns);
            // What did not fit the flow is still in the schedule, due before the end.
            let behind = schedule
                .as_ref()
                .is_some_and(|schedule| schedule.next_at_ns() < stop_ns);
            let unsettled = self.lives.as_ref().is_some_and(Lives::is_unsettled);
            if !loading
                && ((self.flow.unanswered() == 0 && !behind && !unsettled)
                    || give_up_ns <= now_ns
                    || self.flow.alive() == 0)
            {
                break;
            }

            match job.wait {
                Wait::Spin => self.engine.poll()?,
                Wait::Block => {
                    let mut until_ns =
                        if loading { stop_ns } else { give_up_ns }.min(now_ns + NAP_NS);
                    if let Some(schedule) = &schedule
                        && self.flow.has_room()
                        && loading
                    {
                        until_ns = until_ns.min(schedule.next_at_ns());
                    }
                    if now_ns < job.window.from_ns {
                        until_ns = until_ns.min(job.window.from_ns);
                    }
                    if let Some(lives) = &self.lives {
                        until_ns = until_ns.min(lives.next_at_ns());
                    }
                    if let Some((at_ns, _)) = self.thinking.front() {
                        until_ns = until_ns.min(*at_ns);
                    }
                    self.engine
                        .wait(Duration::from_nanos(until_ns.saturating_sub(elapsed_ns())))?;
                }
            }
            now_ns = elapsed_ns();
            self.flow.begin_turn();
            recorder.begin_turn(now_ns, self.flow.unanswered(), &mut *hand_over);
            if let Some(kernel_time) = &mut kernel_time {
                kernel_time.keep(now_ns);
            }
            let mut turn = Turn {
                flow: &mut self.flow,
                recorder: &mut recorder,
                payload: &self.payload,
                first_connection: self.first_connection,
                verified_bytes: &mut self.verified_bytes,
                received_bytes: &mut self.received_bytes,
                failures: &mut failures,
                mismatch: &mut mismatch,
                now_ns,
                kernel_time,
                again: !open && now_ns < stop_ns,
                replies: 0,
                lives: &mut self.lives,
                think_ns: job.think_ns,
                thinking: &mut self.thinking,
            };
            let any = self.engine.harvest(&mut turn);
            let replies = turn.replies;
            recorder.end_turn(replies, now_ns);
            self.hang_up(now_ns);
            let idle = !any
                && !dialed
                && schedule
                    .as_ref()
                    .is_none_or(|schedule| now_ns < schedule.next_at_ns());
            meter.turn(now_ns, idle);
        }

        if job.once {
            recorder.cut_short(now_ns);
        }
        let outstanding =
            self.abandon(&mut recorder, &mut schedule, &mut failures, stop_ns, now_ns);
        let (opened, reopened) = match &self.lives {
            Some(lives) => lives.opened(),
            None => (self.flow.connections() as u64, 0),
        };
        let window = recorder.window();
        let usage = meter.finish(window);
        Ok(Outcome {
            last_segment: recorder.finish(),
            counts: self.flow.counts(),
            outstanding,
            failures,
            mismatch,
            alive: self.flow.alive(),
            window,
            stopped_early,
            usage,
            sent_bytes: self.engine.sent_bytes(),
            received_bytes: self.received_bytes,
            opened,
            reopened,
        })
    }

    /// The load has ended, and what remains is to be answered. In closed loop (not `keep_queued`) no message waits any
    /// more: what was to be sent next was not due. Connections are made from now on only for messages that still wait.
    fn end_load(&mut self, keep_queued: bool) {
        if !keep_queued {
            (0..self.flow.connections()).for_each(|connection| self.flow.withdraw(connection));
        }
        if let Some(lives) = &mut self.lives {
            lives.drop_waiting(|connection| self.flow.has_queued(connection));
        }
    }

    /// Begins the connects that are due, a batch of them at most, and ends those that have had their time. Whether there
    /// was any of either.
    fn dial(
        &mut self,
        loading: bool,
        failures: &mut Failures,
        recorder: &mut Recorder,
        elapsed_ns: &impl Fn() -> u64,
    ) -> io::Result<bool> {
        let Some(lives) = &mut self.lives else {
            return Ok(false);
        };
        let now_ns = elapsed_ns();
        let mut any = false;
        while let Some(connection) = lives.expired(now_ns) {
            any = true;
            self.engine.close(connection as usize, Closing::Fin);
            let failed = (connection as usize, Failure::ConnectTimedOut);
            fail_to_connect(&mut self.flow, lives, recorder, failures, failed, now_ns);
        }
        self.batch.clear();
        while self.batch.len() < DIAL_BATCH
            && let Some(connection) = lives.next(now_ns, |connection| {
                loading || self.flow.has_queued(connection)
            })
        {
            any = true;
            match self.engine.dial(connection as usize, &mut self.dialing) {
                Ok(()) => self.batch.push(connection),
                Err(failure) => {
                    let failed = (connection as usize, failure);
                    fail_to_connect(&mut self.flow, lives, recorder, failures, failed, now_ns);
                }
            }
        }
        for connection in self.batch.drain(..) {
            let begun_ns = elapsed_ns();
            lives.begun(connection, begun_ns);
            if let Err(failure) = self.engine.connect(connection as usize, &self.dialing) {
                let failed = (connection as usize, failure);
                fail_to_connect(&mut self.flow, lives, recorder, failures, failed, begun_ns);
            }
        }
        if any {
            self.engine.flush()?;
        }
        Ok(any)
    }

    /// Closes the connections whose life is over.
    #[inline]
    fn hang_up(&mut self, now_ns: u64) {
        let Some(lives) = &mut self.lives else {
            return;
        };
        let how = match lives.terms().close {
            Close::Rst => Closing::Reset,
            Close::Fin | Close::Server => Closing::Fin,
        };
        while let Some(connection) = lives.take_spent(now_ns) {
            self.engine.close(connection as usize, how);
        }
    }

    /// The end of the waiting: whoever is not answered by now is outstanding, and its connection is of no use to a
    /// later stretch, because the answer may still come. Gives how many those are.
    fn abandon(
        &mut self,
        recorder: &mut Recorder,
        schedule: &mut Option<Schedule>,
        failures: &mut Failures,
        stop_ns: u64,
        now_ns: u64,
    ) -> u64 {
        let mut outstanding = 0;
        for connection in 0..self.flow.connections() {
            let unfinished = self
                .lives
                .as_ref()
                .and_then(|lives| lives.unfinished(connection));
            match unfinished {
                Some(Unfinished::Connect) => failures.count(Failure::ConnectTimedOut),
                Some(Unfinished::Close) => failures.count(Failure::NotClosed),
                None => {}
            }
            let idle = self.flow.is_idle(connection);
            if idle && unfinished.is_none() {
                continue;
            }
            self.engine.close(connection, Closing::Fin);
            let on_end = |end, message: Message| match end {
                End::Written => recorder.unanswered(message, true, now_ns),
                End::Unsent => recorder.unsent(message.due_ns, now_ns),
            };
            outstanding += match &mut self.lives {
                Some(lives) => {
                    lives.abandoned(connection);
                    self.flow.interrupt_waiting(connection, on_end)
                }
                None => self.flow.abandon(connection, on_end),
            };
        }
        if let Some(schedule) = schedule
            && 0 < stop_ns
        {
            // One by one as long as that takes no time to speak of, so that with a seed the same messages are due.
            for _ in 0..REPLAYED_MAX {
                let Some(due) = schedule.take_due(stop_ns - 1) else {
                    break;
                };
                self.flow.never_due(1);
                recorder.unsent(due.at_ns, now_ns);
            }
            while schedule.next_at_ns() < stop_ns {
                let due_ns = schedule.next_at_ns();
                let end_ns = recorder.alike_until(due_ns, now_ns).min(stop_ns);
                let count = schedule.count_due(end_ns);
                self.flow.never_due(count);
                recorder.unsent_alike(due_ns, now_ns, count);
            }
        }
        outstanding
    }
}

/// One harvest, as the engine sees it.
struct Turn<'a> {
    flow: &'a mut Flow,
    recorder: &'a mut Recorder,
    payload: &'a Payload,
    first_connection: usize,
    verified_bytes: &'a mut [u64],
    received_bytes: &'a mut u64,
    failures: &'a mut Failures,
    mismatch: &'a mut Option<Difference>,
    now_ns: u64,
    /// Where the kernel tells when it received something.
    kernel_time: Option<KernelTime>,
    /// Closed loop, and the load goes on: an answer makes the next message.
    again: bool,
    replies: u64,
    lives: &'a mut Option<Lives>,
    think_ns: u64,
    thinking: &'a mut VecDeque<(u64, u32)>,
}

impl Turn<'_> {
    /// A life may be over. What is to become of the connection then.
    #[inline]
    fn look_at_life(&mut self, connection: usize) -> Then {
        match self.lives {
            Some(lives) if self.flow.is_spent(connection) => {
                if lives.spent(connection) {
                    Then::Receive
                } else {
                    Then::Stop
                }
            }
            _ => Then::Receive,
        }
    }
}

impl Sink for Turn<'_> {
    #[inline]
    fn received(
        &mut self,
        connection: usize,
        bytes: &[u8],
        stamp_ns: Option<u64>,
    ) -> Result<Then, Failure> {
        *self.received_bytes += bytes.len() as u64;
        if let Some(offset) = self.verified_bytes.get_mut(connection) {
            // What is not owed is a surplus, whatever it says.
            let owed = self.flow.stream_sent(connection) - *offset;
            let bytes = &bytes[..bytes.len().min(owed as usize)];
            if let Err(difference) =
                self.payload
                    .verify(self.first_connection + connection, *offset, bytes)
            {
                self.mismatch.get_or_insert(difference);
                return Err(Failure::Mismatch);
            }
            *offset += bytes.len() as u64;
        }
        let (recorder, now_ns) = (&mut *self.recorder, self.now_ns);
        let lag_ns = match (stamp_ns, &self.kernel_time) {
            (Some(stamp_ns), Some(time)) => Some(time.lag_ns(stamp_ns, now_ns)),
            _ => None,
        };
        let mut answers = 0;
        let received = self
            .flow
            .received(connection, bytes.len(), now_ns, |message| {
                answers += 1;
                recorder.answered(message, now_ns, lag_ns);
            });
        self.replies += answers;
        received.map_err(|_surplus| Failure::Surplus)?;
        if self.again {
            for _ in 0..answers {
                if self.think_ns == 0 {
                    self.flow.due(connection as u32, now_ns);
                } else {
                    let at_ns = now_ns + self.think_ns;
                    self.thinking.push_back((at_ns, connection as u32));
                }
            }
        }
        if let Some(lives) = self.lives
            && answers != 0
            && let Some(begun_ns) = lives.first_echo(connection)
        {
            self.recorder.first_echo(begun_ns, now_ns);
        }
        Ok(self.look_at_life(connection))
    }

    #[inline]
    fn sent(&mut self, connection: usize) {
        self.flow.sent(connection, self.now_ns);
        self.look_at_life(connection);
    }

    fn ended(&mut self, connection: usize) {
        match self.lives {
            Some(lives) if self.flow.owes_nothing(connection) => {
                lives.ended(connection, self.now_ns);
                self.flow.interrupt(connection, |_, _| {});
            }
            _ => self.failed(connection, Failure::ClosedByPeer),
        }
    }

    fn failed(&mut self, connection: usize, failure: Failure) {
        self.failures.count(failure);
        let mut losing = Losing {
            flow: self.flow,
            lives: self.lives,
            recorder: self.recorder,
            again: self.again,
        };
        losing.lose(connection, self.now_ns);
    }

    fn connected(&mut self, connection: usize, syn_retransmits: impl FnOnce() -> u32) {
        let Some(lives) = self.lives else {
            return;
        };
        let begun_ns = lives.connected(connection);
        let took_ns = self.now_ns.saturating_sub(begun_ns);
        let again = if took_ns < RETRANSMIT_NS_MIN {
            0
        } else {
            syn_retransmits()
        };
        self.recorder.connected(begun_ns, self.now_ns, again);
        self.flow
            .opened(connection, lives.terms().life, self.now_ns);
        if let Some(offset) = self.verified_bytes.get_mut(connection) {
            // What a failed life still owed will not come.
            *offset = self.flow.stream_sent(connection);
        }
    }

    fn not_connected(&mut self, connection: usize, failure: Failure) {
        if let Some(lives) = self.lives {
            let failed = (connection, failure);
            fail_to_connect(
                self.flow,
                lives,
                self.recorder,
                self.failures,
                failed,
                self.now_ns,
            );
        }
    }
}

/// A connection that could not be made: it is tried again, or what waits for it is unsent.
#[cold]
fn fail_to_connect(
    flow: &mut Flow,
    lives: &mut Lives,
    recorder: &mut Recorder,
    failures: &mut Failures,
    (connection, failure): (usize, Failure),
    now_ns: u64,
) {
    failures.count(failure);
    if !lives.not_connected(connection, now_ns) {
        flow.lose(connection, |_, message| {
            recorder.unsent(message.due_ns, now_ns);
        });
    }
}

/// Whom the failure of an open connection concerns.
struct Losing<'a> {
    flow: &'a mut Flow,
    lives: &'a mut Option<Lives>,
    recorder: &'a mut Recorder,
    /// Closed loop, and the load goes on.
    again: bool,
}

impl Losing<'_> {
    #[cold]
    fn lose(&mut self, connection: usize, now_ns: u64) {
        let dialed_again = self
            .lives
            .as_mut()
            .is_some_and(|lives| lives.failed(connection, now_ns));
        let recorder = &mut *self.recorder;
        let mut lost = 0;
        let on_end = |end, message: Message| match end {
            End::Written => {
                lost += 1;
                recorder.unanswered(message, false, now_ns);
            }
            End::Unsent => recorder.unsent(message.due_ns, now_ns),
        };
        if !dialed_again {
            self.flow.lose(connection, on_end);
            return;
        }
        self.flow.interrupt(connection, on_end);
        if self.again {
            // A closed loop has as much to send as ever.
            for _ in 0..lost {
                self.flow.due(connection as u32, now_ns);
            }
        }
    }
}
