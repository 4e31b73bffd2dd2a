//! One worker drives one stretch of load on its connections: what is due is written, what came back is harvested,
//! until the window is over and everything is answered or the time for that is up.
//!
//! A turn: take what is due; stamp and write it; wait; stamp and harvest. The clock is read just before a batch of
//! writes goes to the kernel and just after the kernel said that there is something to harvest (with epoll: before
//! the receives). So a latency holds the client's own send and none of its bookkeeping.

use std::{collections::VecDeque, io, time::Duration};

use echometer_host::signals::Stop;

use self::{harvest::Harvest, redial::DIAL_BATCH, stretch::Stretch};
use crate::{
    dial::Dialing,
    engine::{Closing, Engine, Sending},
    flow::{Flow, Origin},
    lives::Lives,
    payload::Payload,
    plan::{Load, Plan, Wait},
    segment::Segment,
};

pub(crate) use self::stretch::{Job, Outcome};

mod end;
mod harvest;
mod redial;
mod stretch;

/// Messages are stamped and handed over in batches of this many sends: with more, those at the end of a batch would
/// wait for the sends before them (3-4 us each) with the clock already running; with fewer, the calls into the kernel
/// would show.
const BATCH: usize = 64;

/// A waiting worker looks this often whether it is to stop early.
const NAP_NS: u64 = 100_000_000;

/// One worker's connections to one server, and the engine that moves their bytes.
pub(crate) struct Session<E> {
    engine: E,
    connections: Connections,
    dialing: Dialing,
    /// The kernel tells when it received something.
    stamped: bool,
    /// Connections of one batch of dials.
    batch: Vec<u32>,
}

/// What is known of the connections apart from their sockets.
struct Connections {
    flow: Flow,
    payload: Payload,
    /// The plan's index of this worker's first connection.
    first_connection: usize,
    /// How far each connection's stream was compared with what was sent; empty unless that was asked for.
    verified_bytes: Vec<u64>,
    received_bytes: u64,
    /// Where connections are made while load is driven.
    lives: Option<Lives>,
    /// Closed loop: when a connection that thinks sends its next message. Ascending, because all think equally long.
    thinking: VecDeque<(u64, u32)>,
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
        let verified_bytes = if plan.verify {
            vec![0; connections as usize]
        } else {
            Vec::new()
        };
        Session {
            engine,
            connections: Connections {
                flow,
                payload,
                first_connection,
                verified_bytes,
                received_bytes: 0,
                lives,
                thinking: VecDeque::new(),
            },
            dialing,
            stamped: plan.is_stamped(),
            batch: Vec::with_capacity(DIAL_BATCH),
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
        self.connections.flow.begin_stretch();
        let mut stretch = Stretch::begin(job, empty, self.stamped, hand_over);
        self.connections.begin(job);
        let now_ns = stretch.elapsed_ns();
        stretch.is_at(now_ns);
        loop {
            let asked_to_stop = job.stop.as_ref().is_some_and(Stop::requested);
            if stretch.loading && (asked_to_stop || self.connections.flow.alive() == 0) {
                stretch.stop_early();
            }
            if job.once && asked_to_stop {
                stretch.stopped_early = true;
                break;
            }
            if !stretch.loading && !stretch.load_ended {
                stretch.load_ended = true;
                self.connections.end_load(!stretch.closed_loop || job.once);
            }
            self.connections.take_due(&mut stretch);
            let dialed = self.dial(&mut stretch)?;
            self.write_due(&mut stretch)?;
            if self.connections.is_over(&stretch) {
                break;
            }
            match job.wait {
                Wait::Spin => {
                    self.engine.poll()?;
                    self.settle(&mut stretch, dialed, None);
                }
                Wait::Block => {
                    let limit_ns = self.connections.wait_limit(&stretch);
                    let from_ns = stretch.elapsed_ns();
                    let limit_ns = limit_ns.saturating_sub(from_ns);
                    self.engine.wait(Duration::from_nanos(limit_ns))?;
                    self.settle(&mut stretch, dialed, Some(from_ns));
                }
            }
        }
        Ok(self.finish(stretch))
    }

    /// Writes what can be written, in batches; each is stamped just before it goes to the kernel.
    #[inline]
    fn write_due(&mut self, stretch: &mut Stretch<'_>) -> io::Result<()> {
        while self.connections.flow.has_writable() {
            let written_ns = stretch.elapsed_ns();
            for _ in 0..BATCH {
                let Connections {
                    flow,
                    payload,
                    first_connection,
                    ..
                } = &mut self.connections;
                let recorder = &mut stretch.recorder;
                let run = flow.next_run(payload.run_bytes_max(), written_ns, |message| {
                    recorder.written(message);
                });
                let Some(run) = run else {
                    break;
                };
                let range =
                    payload.range(*first_connection + run.connection, run.offset, run.bytes);
                match self.engine.send(run.connection, range) {
                    Sending::InFlight => {}
                    Sending::Blocked => flow.blocked(run.connection),
                    Sending::Complete => flow.sent(run.connection, written_ns),
                    Sending::Failed(failure) => {
                        self.engine.close(run.connection, Closing::Fin);
                        self.connections
                            .fail(stretch, run.connection, failure, written_ns);
                    }
                }
            }
            if self.connections.flow.has_writable() {
                self.engine.flush()?;
            }
        }
        Ok(())
    }

    /// Stamps and settles what the wait has found, which began at `waited_from_ns` if it was one.
    #[inline]
    fn settle(&mut self, stretch: &mut Stretch<'_>, dialed: bool, waited_from_ns: Option<u64>) {
        let now_ns = stretch.elapsed_ns();
        stretch.is_at(now_ns);
        let flow = &mut self.connections.flow;
        flow.begin_turn();
        stretch.recorder.begin_turn(
            now_ns,
            waited_from_ns.unwrap_or(now_ns),
            flow.unanswered(),
            &mut *stretch.hand_over,
        );
        if let Some(kernel_time) = &mut stretch.kernel_time {
            kernel_time.keep(now_ns);
        }
        let mut harvest = Harvest {
            connections: &mut self.connections,
            stretch,
            replies: 0,
        };
        let any = self.engine.harvest(&mut harvest);
        let replies = harvest.replies;
        stretch.recorder.end_turn(replies, now_ns);
        self.hang_up(now_ns);
        let nothing_due = stretch
            .schedule
            .as_ref()
            .is_none_or(|schedule| now_ns < schedule.next_at_ns());
        stretch.meter.turn(now_ns, !any && !dialed && nothing_due);
    }

    fn finish(&mut self, mut stretch: Stretch<'_>) -> Outcome {
        if stretch.job.once {
            stretch.recorder.cut_short(stretch.now_ns);
        }
        let outstanding = self.abandon(&mut stretch);
        let connections = &self.connections;
        let (opened, reopened) = match &connections.lives {
            Some(lives) => lives.opened(),
            None => (connections.flow.connections() as u64, 0),
        };
        let window = stretch.recorder.window();
        Outcome {
            usage: stretch.meter.finish(window),
            last_segment: stretch.recorder.finish(),
            counts: connections.flow.counts(),
            outstanding,
            failures: stretch.failures,
            mismatch: stretch.mismatch,
            alive: connections.flow.alive(),
            window,
            stopped_early: stretch.stopped_early,
            sent_bytes: self.engine.sent_bytes(),
            received_bytes: connections.received_bytes,
            opened,
            reopened,
        }
    }
}

impl Connections {
    /// A stretch begins: in closed loop all connections are to send, and whoever is closed is to be dialed.
    fn begin(&mut self, job: &Job) {
        if job.is_closed_loop() {
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
    }

    /// Gives what is due by now to its connection: from the schedule, and from those who have thought long enough.
    #[inline]
    fn take_due(&mut self, stretch: &mut Stretch<'_>) {
        let now_ns = stretch.now_ns;
        if let Some(schedule) = &mut stretch.schedule {
            let due_ns = now_ns.min(stretch.stop_ns.saturating_sub(1));
            while 0 < stretch.stop_ns && self.flow.has_room() {
                let Some(due) = schedule.take_due(due_ns) else {
                    break;
                };
                if !self.flow.due(due.connection, due.at_ns) {
                    stretch.recorder.unsent(due.at_ns, now_ns);
                }
            }
        }
        while let Some((at_ns, connection)) = self.thinking.front().copied()
            && at_ns <= now_ns
            && stretch.loading
        {
            self.thinking.pop_front();
            // Of one that was lost meanwhile nobody takes the place: it would think no more.
            if self.flow.is_alive(connection as usize) {
                self.flow.due(connection, at_ns);
            }
        }
    }

    /// Whether the load has ended, and nothing is left to wait for or the time for that is up.
    #[inline]
    fn is_over(&self, stretch: &Stretch<'_>) -> bool {
        if stretch.loading {
            return false;
        }
        let unsettled = self.lives.as_ref().is_some_and(Lives::is_unsettled);
        (self.flow.unanswered() == 0 && !stretch.is_behind() && !unsettled)
            || stretch.give_up_ns() <= stretch.now_ns
            || self.flow.alive() == 0
    }

    /// The instant at which a worker that sleeps must be awake again, whatever comes in.
    #[inline]
    fn wait_limit(&self, stretch: &Stretch<'_>) -> u64 {
        let Stretch {
            now_ns, loading, ..
        } = *stretch;
        let end_ns = if loading {
            stretch.stop_ns
        } else {
            stretch.give_up_ns()
        };
        let mut until_ns = end_ns.min(now_ns + NAP_NS);
        if let Some(schedule) = &stretch.schedule
            && self.flow.has_room()
            && loading
        {
            until_ns = until_ns.min(schedule.next_at_ns());
        }
        let from_ns = stretch.job.window.from_ns;
        if now_ns < from_ns {
            until_ns = until_ns.min(from_ns);
        }
        if let Some(lives) = &self.lives {
            until_ns = until_ns.min(lives.next_at_ns());
        }
        if let Some((at_ns, _)) = self.thinking.front() {
            until_ns = until_ns.min(*at_ns);
        }
        until_ns
    }
}
