//! A made-up world: servers of known cost, a load generator that counts, a clock that moves only when somebody works.

use std::{cell::RefCell, collections::BTreeMap, net::SocketAddr, rc::Rc, time::Duration};

use hdrhistogram::Histogram;

use echometer_loadgen::{
    OpenLoop,
    verdict::{Status, Verdict},
};

use crate::measure::{
    floor::FloorSlice,
    sides::{Arms, Client, CpuTimes, Judged, OpenSlice, Started, Stretch, Usage, WholeRun},
};

/// A server of the made-up world.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// What a message costs it, in ns; it is the bottleneck, so this is the time between replies too.
    pub(crate) message_ns: u64,
    /// By how much of that it differs from one stretch to the next, at most.
    pub(crate) scatter: f64,
    /// The share of its resting time that it spends computing.
    pub(crate) restless: f64,
    /// Whether its CPU time can be read.
    pub(crate) remote: bool,
    /// It dies in this stretch of load, counted from its first start on.
    pub(crate) dies_at: Option<usize>,
    /// It loses a message in this stretch.
    pub(crate) loses_at: Option<usize>,
    /// It ends instead of starting, at this start of its own.
    pub(crate) refuses_start: Option<usize>,
    /// It answers nothing.
    pub(crate) silent: bool,
    /// It answers with other bytes, in this stretch.
    pub(crate) corrupts_at: Option<usize>,
    /// What the load generator says of each of its whole runs.
    pub(crate) judged: Status,
    /// Open loop: what a message waits, in ns, besides the time that it costs.
    pub(crate) latency_ns: u64,
    /// Open loop: what is due comes, messages wait so much / (1 - load), and above its capacity it does not keep up.
    pub(crate) queues: bool,
    /// Open loop: it does not keep up in this and all later stretches.
    pub(crate) overloaded_from: Option<usize>,
}

/// What an echo costs the kernel of the made-up world, syscalls and all.
pub(crate) const FLOOR_ECHO_NS: u64 = 8_000;

/// Nothing is wrong with it.
pub(crate) const GOOD: Server = Server {
    message_ns: 10_000,
    scatter: 0.0,
    restless: 0.0,
    remote: false,
    dies_at: None,
    loses_at: None,
    refuses_start: None,
    silent: false,
    corrupts_at: None,
    judged: Status::Valid,
    latency_ns: 0,
    queues: false,
    overloaded_from: None,
};

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) now_ns: u64,
    pub(crate) cpu_ns: Vec<u64>,
    pub(crate) running: Vec<bool>,
    pub(crate) open: Vec<bool>,
    pub(crate) dead: Vec<bool>,
    pub(crate) stretches: Vec<usize>,
    /// Every stretch: arm, ramp, length.
    pub(crate) driven: Vec<(usize, Duration, Duration)>,
    /// Every slice of an open loop.
    pub(crate) open_slices: Vec<(usize, OpenSlice)>,
    /// Every pause.
    pub(crate) pauses: Vec<Duration>,
    /// How many slices the floor had, and in which of them (from 1) it breaks.
    pub(crate) floor_slices: usize,
    pub(crate) floor_breaks_at: Option<usize>,
    /// How often each was started.
    pub(crate) starts: Vec<usize>,
    /// How each was started last.
    pub(crate) started: Vec<Option<Started>>,
}

/// Both sides of the world share their state, as both sides of a real one share a machine.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) servers: Vec<Server>,
    pub(crate) state: Rc<RefCell<State>>,
}

impl World {
    pub(crate) fn of(servers: &[Server]) -> Self {
        let n = servers.len();
        let state = State {
            cpu_ns: vec![0; n],
            running: vec![false; n],
            open: vec![false; n],
            dead: vec![false; n],
            stretches: vec![0; n],
            starts: vec![0; n],
            started: vec![None; n],
            ..State::default()
        };
        Self {
            servers: servers.to_vec(),
            state: Rc::new(RefCell::new(state)),
        }
    }

    /// Whether a server or a connection was left behind.
    pub(crate) fn is_tidy(&self) -> bool {
        let state = self.state.borrow();
        !state.running.contains(&true) && !state.open.contains(&true)
    }
}

impl Client for World {
    fn open(&mut self, arm: usize, address: SocketAddr) -> Result<(), String> {
        assert_eq!(
            usize::from(address.port()),
            1 + arm,
            "the address of this arm"
        );
        self.state.borrow_mut().open[arm] = true;
        Ok(())
    }

    fn drive(&mut self, arm: usize, ramp: Duration, length: Duration) -> Result<Stretch, String> {
        let mut state = self.state.borrow_mut();
        assert!(
            state.running[arm] && state.open[arm],
            "only a started arm can be driven"
        );
        state.driven.push((arm, ramp, length));
        let server = &self.servers[arm];
        let stretch = state.stretches[arm];
        state.stretches[arm] += 1;
        // Up and down without a pattern that has to do with cycles, and the same in every test run.
        let phase = stretch * 7 + state.starts[arm] * 5 + arm * 3;
        let wave = (phase % 11) as f64 / 5.0 - 1.0;
        let message_ns = (server.message_ns as f64 * (1.0 + server.scatter * wave)) as u64;
        let length_ns = length.as_nanos() as u64;
        state.now_ns += length_ns;
        if server.dies_at == Some(stretch) {
            state.dead[arm] = true;
            return Err("connection reset".to_owned());
        }
        let messages = if server.silent {
            0
        } else {
            length_ns / message_ns
        };
        state.cpu_ns[arm] += messages * message_ns;
        for (other, resting) in self
            .servers
            .iter()
            .enumerate()
            .filter(|&(other, _)| other != arm)
        {
            state.cpu_ns[other] += (length_ns as f64 * resting.restless) as u64;
        }
        let span_ns = (length - ramp).as_nanos() as u64;
        let recorded = if server.silent {
            0
        } else {
            span_ns / message_ns
        };
        let mut latency = Histogram::new(3).expect("digits");
        latency
            .record_n(message_ns + server.latency_ns, recorded)
            .expect("in range");
        let faults = if server.loses_at == Some(stretch) {
            [("lost".to_owned(), 3)].into()
        } else {
            BTreeMap::new()
        };
        Ok(Stretch {
            latency,
            open: None,
            overload: Vec::new(),
            recorded,
            recorded_span_ns: span_ns,
            messages,
            faults,
            wrong: (server.corrupts_at == Some(stretch)).then(|| "byte 7".to_owned()),
            client_cpu_ns: Some(messages * 5_000),
            client_busiest: 0.5,
            client_run_delay: 0.0,
        })
    }

    fn run(&mut self, arm: usize, ramp: Duration, length: Duration) -> Result<WholeRun, String> {
        let stretch = self.drive(arm, ramp, length)?;
        let status = self.servers[arm].judged;
        let reasons = match status {
            Status::Valid => Vec::new(),
            status => vec![format!("made up to be {}", status.name())],
        };
        Ok(WholeRun {
            stretch,
            judged: Judged {
                verdict: Verdict {
                    status,
                    reasons,
                    warnings: Vec::new(),
                },
                offered_per_s: None,
                censored_from_ns: None,
            },
            cut_short: false,
        })
    }

    fn open_slice(&mut self, arm: usize, slice: &OpenSlice) -> Result<Stretch, String> {
        let number = self.state.borrow().stretches[arm];
        let mut stretch = self.drive(arm, slice.ramp, slice.stop)?;
        self.state.borrow_mut().open_slices.push((arm, *slice));
        let overloaded_from = self.servers[arm].overloaded_from;
        if overloaded_from.is_some_and(|from| from <= number) {
            stretch.overload = vec!["made up not to keep up".to_owned()];
        }
        if self.servers[arm].queues {
            let load = slice.rate_per_s * self.servers[arm].message_ns as f64 / 1e9;
            if 1.0 < load {
                stretch.overload = vec!["made up to have too much to do".to_owned()];
            }
            let wait_ns = self.servers[arm].latency_ns as f64 / (1.0 - load.min(0.999));
            let span_s = (slice.stop - slice.ramp).as_secs_f64();
            stretch.recorded = (slice.rate_per_s.min(1e5) * span_s) as u64;
            stretch.latency.reset();
            stretch
                .latency
                .record_n(wait_ns as u64, stretch.recorded)
                .expect("in range");
        }
        // The client is late by a tenth of it all on either side.
        let latency = stretch.latency.clone();
        let scaled = |share: f64| {
            let mut part = echometer_loadgen::histogram();
            let value = (latency.max() as f64 * share) as u64;
            part.record_n(value, latency.len()).expect("in range");
            part
        };
        let mut open = OpenLoop::default();
        open.service = scaled(0.9);
        open.service_least = scaled(0.8);
        open.queue = scaled(0.0);
        open.send_lag = scaled(0.1);
        stretch.open = Some(open);
        Ok(stretch)
    }

    fn pause(&mut self, length: Duration) {
        let mut state = self.state.borrow_mut();
        state.now_ns += length.as_nanos() as u64;
        state.pauses.push(length);
    }

    fn close(&mut self, arm: usize) {
        self.state.borrow_mut().open[arm] = false;
    }

    fn floor(&mut self, length: Duration) -> Result<FloorSlice, String> {
        let mut state = self.state.borrow_mut();
        let length_ns = length.as_nanos() as u64;
        state.now_ns += length_ns;
        state.floor_slices += 1;
        if state.floor_breaks_at == Some(state.floor_slices) {
            return Err("a loopback connection failed".to_owned());
        }
        for (arm, resting) in self.servers.iter().enumerate() {
            state.cpu_ns[arm] += (length_ns as f64 * resting.restless) as u64;
        }
        Ok(FloorSlice {
            echoes: length_ns / FLOOR_ECHO_NS,
            cpu_ns: length_ns,
            span_ns: length_ns,
            two_syscalls_ns: 250.0,
        })
    }
}

impl Arms for World {
    fn start(&mut self, _block: usize, arm: usize) -> Result<SocketAddr, String> {
        let mut state = self.state.borrow_mut();
        let start = state.starts[arm];
        state.starts[arm] += 1;
        state.dead[arm] = false;
        if self.servers[arm].refuses_start == Some(start) {
            return Err("exited with status 1".to_owned());
        }
        state.running[arm] = true;
        let ready_line = Some(format!("listening on 127.0.0.1:{}", 1 + arm));
        state.started[arm] = Some(Started {
            remarks: Vec::new(),
            command: Some(format!("server-{arm}")),
            ready_line,
        });
        Ok(SocketAddr::from(([127, 0, 0, 1], 1 + arm as u16)))
    }

    fn ended(&mut self, arm: usize, _patience: Duration) -> Option<String> {
        self.state.borrow().dead[arm].then(|| "was killed by signal 9".to_owned())
    }

    fn cpu_ns(&mut self, arm: usize) -> Option<u64> {
        (!self.servers[arm].remote).then(|| self.state.borrow().cpu_ns[arm])
    }

    fn usage(&mut self, arm: usize) -> Option<Usage> {
        let switches = self.state.borrow().driven.len() as u64;
        (!self.servers[arm].remote).then_some(Usage {
            context_switches: switches,
            rss_bytes: 1 << 20,
        })
    }

    fn server_cpus(&mut self) -> CpuTimes {
        let state = self.state.borrow();
        CpuTimes {
            busy_ns: state.cpu_ns.iter().sum(),
            softirq_ns: state.now_ns / 4,
            steal_ns: 0,
        }
    }

    fn stop(&mut self, arm: usize) {
        self.state.borrow_mut().running[arm] = false;
    }

    fn started(&self, arm: usize) -> Option<Started> {
        self.state.borrow().started[arm].clone()
    }

    fn now_ns(&mut self) -> u64 {
        self.state.borrow().now_ns
    }
}
