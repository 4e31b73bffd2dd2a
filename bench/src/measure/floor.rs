//! The floor: the least that an echo costs the kernel on this machine, measured by one pinned thread that holds both
//! ends of loopback connections. In a comparison it takes its turn among the servers, so that each server's CPU per
//! message can be told as a multiple of it: it shows how much there is left to win at all.
//!
//! [`pairs`] are the connections; what becomes of it in a comparison is said in `judge/multiples.rs`.

pub(crate) mod pairs;

use std::{
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use rustix::process::getppid;

use echometer_host::{
    clock, limits, pinning,
    threads::{self, ThreadError},
};
use echometer_loadgen::{Plan, plan::Load};

use crate::measure::floor::pairs::{Pairs, PairsPlan};

/// Beyond this many connections no floor is measured: each costs two more sockets and a port.
pub(crate) const PAIRS_MAX: u32 = 10_000;

/// So many empty syscalls are timed in each slice: some 50 us.
const SYSCALLS: u32 = 400;

/// A floor's thread with its pairs. Between slices it sleeps and uses no CPU.
#[derive(Debug)]
pub(crate) struct Floor {
    lengths: Option<Sender<Duration>>,
    slices: Receiver<io::Result<FloorSlice>>,
    thread: Option<JoinHandle<()>>,
}

/// One slice of the floor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FloorSlice {
    /// Echoes of either side: a message received and sent on. At least two.
    pub echoes: u64,
    /// CPU time that they took, syscalls and all, in ns.
    pub cpu_ns: u64,
    /// How long they took, in ns.
    pub span_ns: u64,
    /// What two empty syscalls cost in this slice, in ns.
    pub two_syscalls_ns: f64,
}

impl FloorSlice {
    /// CPU time per echo and side, minus two empty syscalls, in ns: a server needs the kernel's work, but not a syscall
    /// for each piece of it. `None` where nothing is left.
    #[must_use]
    pub(crate) fn ns_per_echo(&self) -> Option<f64> {
        let net = self.cpu_ns as f64 / self.echoes as f64 - self.two_syscalls_ns;
        (0.0 < net && net.is_finite()).then_some(net)
    }
}

/// Why there is no floor.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FloorError {
    /// The thread can't be where the servers are.
    #[error("{0}")]
    Pin(#[from] pinning::PinError),
    /// Each pair needs two descriptors.
    #[error("{0}")]
    Limit(#[from] limits::RaiseError),
    /// No thread could be started.
    #[error("{0}")]
    Thread(#[from] ThreadError),
    /// The connections can't be had.
    #[error("cannot open {pairs} loopback connections: {cause}{}", limits::hint(.cause))]
    Open {
        /// How many.
        pairs: u32,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl Floor {
    /// Opens the pairs and pins their thread to `cpu`. `descriptors` are those that this process needs besides.
    ///
    /// # Errors
    /// See [`FloorError`].
    pub(crate) fn start(cpu: u32, plan: &PairsPlan, descriptors: u64) -> Result<Self, FloorError> {
        limits::raise_nofile(descriptors + 2 * u64::from(plan.pairs) + 64)?;
        let open_error = |cause| FloorError::Open {
            pairs: plan.pairs,
            cause,
        };
        let (lengths, asked) = channel::<Duration>();
        let (done, slices) = channel();
        let (ready, is_ready) = channel();
        let opened = plan.clone();
        let thread = threads::spawn("floor", move || {
            // Opened here and after pinning, so that the sockets' memory is near the cpu.
            let pairs = pinning::pin_current_thread(cpu)
                .map_err(FloorError::from)
                .and_then(|()| {
                    Pairs::open(&opened).map_err(|cause| FloorError::Open {
                        pairs: opened.pairs,
                        cause,
                    })
                });
            let mut pairs = match pairs {
                Ok(pairs) => pairs,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            for length in asked {
                if done.send(slice(&mut pairs, length)).is_err() {
                    return;
                }
            }
        })?;
        let floor = Self {
            lengths: Some(lengths),
            slices,
            thread: Some(thread),
        };
        match is_ready.recv() {
            Ok(outcome) => outcome.map(|()| floor),
            Err(_) => Err(open_error(io::Error::other("its thread has died"))),
        }
    }

    /// Goes round for `length`, at least once. A first round, with cold caches, is not counted.
    ///
    /// # Errors
    /// A sentence that says what broke.
    pub(crate) fn slice(&mut self, length: Duration) -> Result<FloorSlice, String> {
        let died = || "the floor's thread has died".to_owned();
        let lengths = self.lengths.as_ref().expect("taken in drop only");
        lengths.send(length).map_err(|_| died())?;
        let slice = self.slices.recv().map_err(|_| died())?;
        slice.map_err(|error| format!("a loopback connection failed: {error}"))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.lengths = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn slice(pairs: &mut Pairs, length: Duration) -> io::Result<FloorSlice> {
    pairs.round()?;
    let length_ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    let (start_ns, start_cpu_ns) = (clock::now_ns(), clock::thread_cpu_ns());
    let mut rounds = 0;
    let span_ns = loop {
        pairs.round()?;
        rounds += 1;
        let passed_ns = clock::now_ns() - start_ns;
        if length_ns <= passed_ns {
            break passed_ns;
        }
    };
    let cpu_ns = clock::thread_cpu_ns() - start_cpu_ns;
    Ok(FloorSlice {
        echoes: rounds * pairs.echoes_a_round(),
        cpu_ns,
        span_ns,
        two_syscalls_ns: two_syscalls_ns(),
    })
}

/// What two syscalls that do nothing cost here and now: asking for the parent's number is the classic one.
fn two_syscalls_ns() -> f64 {
    let before_ns = clock::thread_cpu_ns();
    for _ in 0..SYSCALLS {
        std::hint::black_box(getppid());
    }
    2.0 * (clock::thread_cpu_ns() - before_ns) as f64 / f64::from(SYSCALLS)
}

/// The pairs that do what the load's connections do.
///
/// # Errors
/// Why no floor fits this load.
pub(crate) fn pairs_for(load: &Plan) -> Result<PairsPlan, String> {
    if load.requests_per_connection != 0 {
        return Err(
            "it holds its connections, and this load makes new ones all the time".to_owned(),
        );
    }
    if PAIRS_MAX < load.connections {
        return Err(format!(
            "it is measured with up to {PAIRS_MAX} connections, and here are {}",
            load.connections
        ));
    }
    Ok(PairsPlan {
        pairs: load.connections,
        message_size: load.message_size,
        nagle: load.nagle,
        sndbuf: load.sndbuf,
        rcvbuf: load.rcvbuf,
    })
}

/// What to know of the floor under this load.
#[must_use]
pub(crate) fn caveats(load: &Plan) -> Vec<String> {
    let mut caveats = Vec::new();
    if load.load == Load::Closed && 1 < load.pipeline {
        caveats.push(format!(
            "the floor is that of messages one by one: with {} in flight on a connection a server may take several at \
             once and lie below it",
            load.pipeline
        ));
    }
    if load.load != Load::Closed {
        caveats.push(
            "the floor is that of a busy thread: at a lower rate a server also pays for going to sleep and waking"
                .to_owned(),
        );
    }
    caveats
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> PairsPlan {
        PairsPlan {
            pairs: 3,
            message_size: 64,
            nagle: false,
            sndbuf: None,
            rcvbuf: None,
        }
    }

    fn any_cpu() -> u32 {
        let allowed = echometer_host::cpus::allowed().expect("a mask");
        allowed.first().expect("we run somewhere")
    }

    #[test]
    fn a_slice_costs_what_two_syscalls_and_the_kernel_cost() {
        let mut floor = Floor::start(any_cpu(), &small(), 64).expect("loopback");
        let slice = floor.slice(Duration::from_millis(5)).expect("it goes");
        assert!(
            0 < slice.echoes && slice.echoes.is_multiple_of(6),
            "{slice:?}"
        );
        assert!(5_000_000 <= slice.span_ns, "{slice:?}");
        // A thread can't compute for longer than it ran; clocks of two kinds differ by a little.
        assert!(slice.cpu_ns <= slice.span_ns + 100_000, "{slice:?}");
        assert!(1.0 < slice.two_syscalls_ns, "{slice:?}");
        let net = slice.ns_per_echo().expect("TCP is not free");
        let gross = slice.cpu_ns as f64 / slice.echoes as f64;
        assert!((gross - net - slice.two_syscalls_ns).abs() < 1e-6);
    }

    #[test]
    fn no_time_is_one_round() {
        let mut floor = Floor::start(any_cpu(), &small(), 64).expect("loopback");
        assert_eq!(floor.slice(Duration::ZERO).expect("it goes").echoes, 6);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_said() {
        let error = Floor::start(4_000, &small(), 64).expect_err("no such cpu");
        assert!(error.to_string().contains("4000"), "{error}");
    }

    #[test]
    fn loads_that_it_does_not_fit_are_refused_with_the_reason() {
        let many = Plan {
            connections: PAIRS_MAX + 1,
            ..Plan::default()
        };
        assert!(pairs_for(&many).expect_err("too many").contains("10000"));
        let churning = Plan {
            requests_per_connection: 1,
            ..Plan::default()
        };
        assert!(
            pairs_for(&churning)
                .expect_err("it churns")
                .contains("new ones")
        );
        let plan = pairs_for(&Plan::default()).expect("it fits");
        assert_eq!((plan.pairs, plan.message_size), (64, 64));
    }

    #[test]
    fn nothing_left_is_no_figure() {
        let slice = FloorSlice {
            echoes: 10,
            cpu_ns: 1_000,
            span_ns: 1_000,
            two_syscalls_ns: 100.0,
        };
        assert_eq!(slice.ns_per_echo(), None);
    }
}
