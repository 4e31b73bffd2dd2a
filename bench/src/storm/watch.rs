//! Watching the kernel during a storm: how far its counters moved, and how full the accept queue was, sampled by a
//! thread of its own over `sock_diag`, as `ss -ltn` does, so that any server can be watched.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use echometer_host::{
    counters::{NetCounters, netstat},
    sockets::listen_queues,
    threads,
};
use echometer_report::file::storm::Losses;

/// Short against the tens of milliseconds that a storm takes, long against the tens of microseconds of a look.
const PAUSE: Duration = Duration::from_millis(1);

/// Watches the kernel while a storm is made.
pub(crate) trait Watch {
    /// A storm on the listeners of `port` of this machine begins.
    fn begin(&mut self, port: u16);

    /// It has ended. `None` where something can't be read.
    fn end(&mut self) -> (Option<Losses>, Option<QueueSeen>);
}

fn between(before: &NetCounters, after: &NetCounters) -> Losses {
    let grown = after.since(before);
    Losses {
        listen_overflows: grown.listen_overflows(),
        listen_drops: grown.listen_drops(),
        tcp_timeouts: grown.tcp_timeouts(),
        syn_queue_full_drops: grown.value("TcpExt", "TCPReqQFullDrop"),
        syn_cookies: grown.value("TcpExt", "TCPReqQFullDoCookies"),
    }
}

/// What was seen of the accept queues of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QueueSeen {
    /// The longest that any listener's queue was when looked at.
    pub waiting_max: u32,
    /// What the backlog came to; of several listeners, the least.
    pub limit: u32,
    /// How often it was looked at.
    pub samples: u64,
}

impl QueueSeen {
    /// Both together: the fullest, the tightest.
    #[must_use]
    pub(crate) fn plus(self, other: QueueSeen) -> QueueSeen {
        QueueSeen {
            waiting_max: self.waiting_max.max(other.waiting_max),
            limit: self.limit.min(other.limit),
            samples: self.samples + other.samples,
        }
    }
}

/// This machine's kernel.
#[derive(Debug, Default)]
pub(crate) struct KernelWatch {
    before: Option<NetCounters>,
    sampler: Option<Sampler>,
}

#[derive(Debug)]
struct Sampler {
    finish: Arc<AtomicBool>,
    thread: JoinHandle<Option<QueueSeen>>,
}

impl Watch for KernelWatch {
    fn begin(&mut self, port: u16) {
        self.before = netstat().ok();
        let finish = Arc::new(AtomicBool::new(false));
        let finished = Arc::clone(&finish);
        let thread = threads::spawn("accept-queue", move || sample(port, &finished));
        // Without a thread there are no samples, and the storm's figures are as good.
        self.sampler = thread.ok().map(|thread| Sampler { finish, thread });
    }

    fn end(&mut self) -> (Option<Losses>, Option<QueueSeen>) {
        let after = netstat().ok();
        let queue = self.sampler.take().and_then(|sampler| {
            sampler.finish.store(true, Ordering::Relaxed);
            sampler.thread.join().ok().flatten()
        });
        let losses = self
            .before
            .take()
            .zip(after)
            .map(|(before, after)| between(&before, &after));
        (losses, queue)
    }
}

/// Looks again and again until told to finish. `None` where the queue can't be looked at even once.
fn sample(port: u16, finish: &AtomicBool) -> Option<QueueSeen> {
    let mut seen: Option<QueueSeen> = None;
    loop {
        // Asked before the look, so that there is one look at least.
        let last = finish.load(Ordering::Relaxed);
        let queues = listen_queues(port).ok()?;
        let look = queues.iter().fold(None, |look: Option<QueueSeen>, queue| {
            let one = QueueSeen {
                waiting_max: queue.waiting,
                limit: queue.limit,
                samples: 0,
            };
            Some(look.map_or(one, |look| look.plus(one)))
        });
        if let Some(look) = look {
            let look = QueueSeen { samples: 1, ..look };
            seen = Some(seen.map_or(look, |seen| seen.plus(look)));
        }
        if last {
            return seen;
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, TcpStream},
        time::Instant,
    };

    use echometer_host::sockets::{ListenOptions, listen};

    use super::*;

    #[test]
    fn a_queue_that_nobody_empties_is_seen_to_fill() {
        let options = ListenOptions {
            backlog: 7,
            ..ListenOptions::default()
        };
        let address = "127.0.0.1:0".parse().expect("an address");
        let listeners = listen(&address, 1, &options).expect("a free port");
        let port = match listeners[0].local_addr() {
            echometer_host::address::Address::Tcp(address) => address.port(),
            other @ echometer_host::address::Address::Unix(_) => panic!("it is TCP: {other}"),
        };
        let mut watch = KernelWatch::default();
        watch.begin(port);
        let clients: Vec<TcpStream> = (0..3)
            .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("there is room"))
            .collect();
        let (losses, queue) = watch.end();
        let queue = queue.expect("sock_diag answers");
        assert_eq!((queue.waiting_max, queue.limit), (3, 7));
        assert!(0 < queue.samples);
        assert!(losses.expect("counters").listen_overflows.is_some());
        drop(clients);
    }

    #[test]
    fn a_port_without_a_listener_has_no_queue() {
        let started = Instant::now();
        let mut watch = KernelWatch::default();
        // Port 1 is nobody's on a machine that runs tests.
        watch.begin(1);
        assert_eq!(watch.end().1, None);
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn sums_lack_what_a_part_lacks() {
        let one = Losses {
            listen_overflows: Some(2),
            listen_drops: Some(1),
            ..Losses::default()
        };
        let other = Losses {
            listen_overflows: Some(3),
            ..Losses::default()
        };
        assert_eq!(
            one.plus(other),
            Losses {
                listen_overflows: Some(5),
                ..Losses::default()
            }
        );
    }
}
