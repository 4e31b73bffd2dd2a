//! Opening a worker's connections before the load: a few at a time, each timed. And what is needed to open one while
//! load is driven: [`Dialing`].

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::SocketAddrAny,
};

use echometer_host::{
    address::Address,
    signals::Stop,
    sockets::{
        ConnectOptions, Connecting, connect_start, for_calls, may_connect_to_itself, prepare_stream,
    },
};
use echometer_ring::tcp_retransmits;

use crate::{
    connect_times::{ConnectTimes, RETRANSMIT_NS_MIN},
    failure::Failure,
    source::{SourceTurn, Sources},
};

/// How many connects all workers together have under way: few enough for a listener with the smallest usual backlog
/// (a SYN that finds its queue full is sent again a second later), enough to hide the round trip.
pub(crate) const CONNECTS_UNDER_WAY: usize = 16;

/// Connected sockets, and how long each took from before connect(2) until it was seen to be writable.
pub(crate) struct Connected {
    pub(crate) sockets: Vec<OwnedFd>,
    pub(crate) connects: Box<ConnectTimes>,
}

/// To whom and how: the same for all connections of a worker.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) address: Address,
    /// The source is chosen anew for each connection.
    pub(crate) options: ConnectOptions,
    pub(crate) sources: Option<Sources>,
    /// Connects per second of this worker; 0 for as fast as can be.
    pub(crate) rate_per_s: f64,
}

/// A route that is used again and again.
#[derive(Debug)]
pub(crate) struct Dialing {
    route: Route,
    raw: SocketAddrAny,
    turn: SourceTurn,
    may_meet_itself: bool,
}

impl Dialing {
    /// `offset` sets workers apart, so that they don't all begin with the same source.
    ///
    /// # Errors
    /// A unix path that no socket address can hold.
    pub(crate) fn new(route: Route, offset: usize) -> io::Result<Dialing> {
        let raw = for_calls(&route.address)?;
        let turn = SourceTurn::new(route.sources, offset);
        let may_meet_itself = may_connect_to_itself(&route.address);
        Ok(Dialing {
            route,
            raw,
            turn,
            may_meet_itself,
        })
    }

    /// A socket for the next connection, not connected yet.
    pub(crate) fn socket(&mut self, nonblocking: bool) -> Result<OwnedFd, Failure> {
        self.route.options.source = self.turn.next();
        prepare_stream(&self.route.address, &self.route.options, nonblocking).map_err(|error| {
            Errno::from_io_error(&error).map_or(Failure::ConnectOther, Failure::from_connect_errno)
        })
    }

    /// Whether a connection may turn out to have nobody but itself at its other end: then each must be asked.
    pub(crate) fn may_meet_itself(&self) -> bool {
        self.may_meet_itself
    }

    /// Where it is to be connected to.
    pub(crate) fn address(&self) -> &SocketAddrAny {
        &self.raw
    }
}

/// Why not all connections are there.
#[derive(Debug)]
pub(crate) enum Unconnected {
    Failed(io::Error),
    /// On request.
    Stopped,
}

impl From<io::Error> for Unconnected {
    fn from(error: io::Error) -> Unconnected {
        Unconnected::Failed(error)
    }
}

/// Whoever waits for a connection, or for its turn, looks this often whether it is to stop.
const NAP: Duration = Duration::from_millis(100);

/// Opens `count` connections, `under_way` (1 or more) at a time. A request on `stop` ends it where it would wait.
///
/// # Errors
/// The first that fails, or the request; none is left open then.
pub(crate) fn connect_all(
    count: usize,
    under_way: usize,
    route: &Route,
    offset: usize,
    stop: Option<&Stop>,
) -> Result<Connected, Unconnected> {
    let mut connected = Connected {
        sockets: Vec::with_capacity(count),
        connects: Box::default(),
    };
    let mut options = route.options.clone();
    let mut sources = SourceTurn::new(route.sources, offset);
    let began = Instant::now();
    let mut pending: Vec<(Instant, Connecting)> = Vec::with_capacity(under_way);
    while connected.sockets.len() < count {
        let now = Instant::now();
        let so_far = connected.sockets.len() + pending.len();
        let mut until = now + NAP;
        if so_far < count && pending.len() < under_way {
            let due = if 0.0 < route.rate_per_s {
                began + Duration::from_secs_f64(so_far as f64 / route.rate_per_s)
            } else {
                began
            };
            if due <= now {
                options.source = sources.next();
                pending.push((now, connect_start(&route.address, &options)?));
                continue;
            }
            // Whoever is connected before that is seen at once: how long it took ends then.
            until = until.min(due);
        }
        let ready = writable(&pending, options.time_limit, until)?;
        if ready.is_empty() && stop.is_some_and(Stop::requested) {
            return Err(Unconnected::Stopped);
        }
        let now = Instant::now();
        // From the back, so that swapping the last into the place of one that is done moves none that is to come.
        for index in ready.into_iter().rev() {
            let (begun, connecting) = pending.swap_remove(index);
            let socket = connecting.finish(now)?;
            let took_ns = u64::try_from(now.duration_since(begun).as_nanos()).unwrap_or(u64::MAX);
            let again = if took_ns < RETRANSMIT_NS_MIN {
                0
            } else {
                tcp_retransmits(socket.as_fd()).unwrap_or(0)
            };
            connected.connects.connected(took_ns, again);
            connected.sockets.push(socket);
        }
    }
    Ok(connected)
}

/// Which of `pending` are done, after waiting for the first, or `until` then; ascending. Where the oldest has had its
/// time, that one is "done" too: finishing it gives the error.
fn writable(
    pending: &[(Instant, Connecting)],
    time_limit: Duration,
    until: Instant,
) -> io::Result<Vec<usize>> {
    let oldest = pending
        .iter()
        .enumerate()
        .min_by_key(|(_, (begun, _))| *begun);
    let mut limit = until;
    if let Some((oldest, (begun, _))) = oldest {
        let expiry = *begun + time_limit;
        if expiry <= Instant::now() {
            return Ok(vec![oldest]);
        }
        limit = limit.min(expiry);
    }
    let mut polled: Vec<PollFd<'_>> = pending
        .iter()
        .map(|(_, connecting)| PollFd::new(connecting, PollFlags::OUT))
        .collect();
    let left = limit.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).map_err(io::Error::other)?;
    match poll(&mut polled, Some(&left)) {
        Ok(0) | Err(Errno::INTR) => Ok(Vec::new()),
        Ok(_) => {
            let ready = polled
                .iter()
                .enumerate()
                .filter(|(_, fd)| !fd.revents().is_empty());
            Ok(ready.map(|(index, _)| index).collect())
        }
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, time::Duration};

    use super::*;

    fn route(address: Address) -> Route {
        Route {
            address,
            options: ConnectOptions::default(),
            sources: None,
            rate_per_s: 0.0,
        }
    }

    #[test]
    fn all_are_connected_and_timed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let connected = connect_all(40, 7, &route(address), 0, None).unwrap();
        let connects = &connected.connects.connect_ns;
        assert_eq!((connected.sockets.len(), connects.len()), (40, 40));
        assert!(0 < connects.min());
    }

    #[test]
    fn a_pace_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let route = Route {
            rate_per_s: 40.0,
            ..route(address)
        };
        let begun = Instant::now();
        let connected = connect_all(11, 4, &route, 0, None).unwrap();
        assert!(Duration::from_millis(250) <= begun.elapsed());
        // One that is made is not left waiting for those that come after it, 25 ms each: its time would show that.
        let connect_ns = &connected.connects.connect_ns;
        assert!(connect_ns.value_at_quantile(0.5) < 20_000_000);
    }

    #[test]
    fn sources_take_turns() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let route = Route {
            sources: Some("127.0.0.2-127.0.0.4".parse().unwrap()),
            ..route(Address::Tcp(listener.local_addr().unwrap()))
        };
        let _connected = connect_all(6, 1, &route, 1, None).unwrap();
        let seen: Vec<u8> = (0..6)
            .map(|_| match listener.accept().unwrap().1.ip() {
                std::net::IpAddr::V4(ip) => ip.octets()[3],
                std::net::IpAddr::V6(_) => panic!("a v4 listener"),
            })
            .collect();
        assert_eq!(seen, [3, 4, 2, 3, 4, 2]);
    }

    #[test]
    fn a_refusal_is_an_error() {
        let address = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            Address::Tcp(listener.local_addr().unwrap())
        };
        let error = connect_all(3, 2, &route(address), 0, None)
            .map(|_| ())
            .unwrap_err();
        let Unconnected::Failed(error) = error else {
            panic!("nobody stopped it");
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn who_waits_for_its_turn_hears_of_a_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let route = Route {
            rate_per_s: 1e-3,
            ..route(Address::Tcp(listener.local_addr().unwrap()))
        };
        let stop = Stop::new().unwrap();
        stop.request();
        // The second would come after 1,000 s.
        let stopped = connect_all(2, 2, &route, 0, Some(&stop)).map(|_| ());
        assert!(matches!(stopped, Err(Unconnected::Stopped)));
    }
}
