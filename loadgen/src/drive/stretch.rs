//! A stretch of load: what is to be done, what the steps of the loop share while it is under way, and what came of it.

use echometer_host::{clock, signals::Stop};

use crate::{
    cuts::{Cuts, Membership, Window},
    failure::Failures,
    flow::Counts,
    kernel_time::KernelTime,
    meter::{Meter, Usage},
    payload::Difference,
    plan::{Load, Wait},
    recorder::Recorder,
    schedule::{Ramp, Schedule, Share},
    segment::Segment,
};

/// What is to be done in a stretch. Instants are ns since its start.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The start, on the clock of [`clock::now_ns`]; `None` for a lone worker, which starts when it is awake.
    pub(crate) start_ns: Option<u64>,
    pub(crate) cuts: Cuts,
    pub(crate) window: Window,
    pub(crate) membership: Membership,
    /// Open loop: the time in which each connection gets one message, before the schedule begins. 0: none.
    pub(crate) greeting_ns: u64,
    /// How long after the end of the load answers are waited for.
    pub(crate) give_up_after_ns: u64,
    pub(crate) load: Load,
    /// The rate changes over the window.
    pub(crate) ramp_to_per_s: Option<f64>,
    /// Closed loop: how long after an answer the next message is due.
    pub(crate) think_ns: u64,
    /// One message per connection, and the end when all are answered: a storm.
    pub(crate) once: bool,
    pub(crate) wait: Wait,
    pub(crate) pipeline: u32,
    pub(crate) share: Share,
    pub(crate) seed: u64,
    /// Ends the load early.
    pub(crate) stop: Option<Stop>,
}

impl Job {
    pub(super) fn is_closed_loop(&self) -> bool {
        self.load == Load::Closed
    }

    fn schedule(&self) -> Option<Schedule> {
        let Load::Open {
            rate_per_s,
            arrivals,
        } = self.load
        else {
            return None;
        };
        let schedule = match self.ramp_to_per_s {
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
        };
        Some(match self.greeting_ns {
            0 => schedule,
            greeting_ns => schedule.after_greeting(greeting_ns),
        })
    }
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

/// A stretch under way: what the steps of the loop share. Instants are ns since its start.
pub(super) struct Stretch<'a> {
    pub(super) job: &'a Job,
    /// The start, on the clock of [`clock::now_ns`].
    start_ns: u64,
    /// What is due when; `None` in closed loop.
    pub(super) schedule: Option<Schedule>,
    pub(super) recorder: Recorder,
    pub(super) failures: Failures,
    pub(super) mismatch: Option<Difference>,
    pub(super) meter: Meter,
    /// Where the kernel tells when it received something.
    pub(super) kernel_time: Option<KernelTime>,
    /// Takes full segments and puts empty ones in their place.
    pub(super) hand_over: &'a mut dyn FnMut(&mut Box<Segment>),
    /// When the load ends.
    pub(super) stop_ns: u64,
    /// When the last harvest began; before the first, when the loop did.
    pub(super) now_ns: u64,
    /// As of `now_ns` the load goes on.
    pub(super) loading: bool,
    /// It was seen that the load has ended.
    pub(super) load_ended: bool,
    pub(super) stopped_early: bool,
    pub(super) closed_loop: bool,
}

impl<'a> Stretch<'a> {
    /// Waits for the start. `stamped` says that the kernel tells when it received something.
    pub(super) fn begin(
        job: &'a Job,
        empty: Box<Segment>,
        stamped: bool,
        hand_over: &'a mut dyn FnMut(&mut Box<Segment>),
    ) -> Stretch<'a> {
        let schedule = job.schedule();
        let recorder = Recorder::new(job.cuts.clone(), job.membership, empty);
        let meter = Meter::begin(job.wait, job.window, 1 < job.cuts.segments());
        let start_ns = match job.start_ns {
            Some(start_ns) => {
                while clock::now_ns() < start_ns {
                    std::hint::spin_loop();
                }
                start_ns
            }
            None => clock::now_ns(),
        };
        Stretch {
            job,
            start_ns,
            schedule,
            recorder,
            failures: Failures::default(),
            mismatch: None,
            meter,
            kernel_time: stamped.then(|| KernelTime::new(start_ns)),
            hand_over,
            stop_ns: if job.once { 0 } else { job.window.until_ns },
            now_ns: 0,
            loading: true,
            load_ended: false,
            stopped_early: false,
            closed_loop: job.is_closed_loop(),
        }
    }

    /// Reads the clock.
    #[inline]
    pub(super) fn elapsed_ns(&self) -> u64 {
        clock::now_ns().saturating_sub(self.start_ns)
    }

    /// Notes when a harvest begins, and whether the load goes on by then.
    #[inline]
    pub(super) fn is_at(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.loading = now_ns < self.stop_ns;
    }

    /// The load, which goes on, ends here.
    pub(super) fn stop_early(&mut self) {
        self.stopped_early = true;
        self.stop_ns = self.now_ns;
        self.loading = false;
        self.recorder.cut_short(self.now_ns);
        self.meter.cut_short(self.now_ns);
    }

    /// Closed loop, and the load goes on: an answer makes the next message.
    #[inline]
    pub(super) fn answers_make_messages(&self) -> bool {
        self.closed_loop && self.loading
    }

    /// Messages are still in the schedule that were due before the end: they did not fit the flow.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        let schedule = self.schedule.as_ref();
        schedule.is_some_and(|schedule| schedule.next_at_ns() < self.stop_ns)
    }

    /// When nobody waits for answers any more.
    #[inline]
    pub(super) fn give_up_ns(&self) -> u64 {
        self.stop_ns.saturating_add(self.job.give_up_after_ns)
    }
}
