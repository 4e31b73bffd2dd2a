//! Opening a worker's connections: a few at a time, each timed.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use echometer_host::{
    address::Address,
    sockets::{ConnectOptions, Connecting, connect_start},
};

use crate::recorder::{VALUE_NS_MAX, histogram};

/// How many connects all workers together have under way: few enough for a listener with the smallest usual backlog
/// (a SYN that finds its queue full is sent again a second later), enough to hide the round trip.
pub(crate) const CONNECTS_UNDER_WAY: usize = 16;

/// Connected sockets, and how long each took from before connect(2) until it was seen to be writable.
pub(crate) struct Connected {
    pub(crate) sockets: Vec<OwnedFd>,
    pub(crate) connect_ns: Histogram<u64>,
}

/// Opens `count` connections, `under_way` (1 or more) at a time.
///
/// # Errors
/// The first that fails, and then none is left open.
pub(crate) fn connect_all(
    address: &Address,
    count: usize,
    under_way: usize,
    options: &ConnectOptions,
) -> io::Result<Connected> {
    let mut connected = Connected {
        sockets: Vec::with_capacity(count),
        connect_ns: histogram(),
    };
    let mut pending: Vec<(Instant, Connecting)> = Vec::with_capacity(under_way);
    while connected.sockets.len() < count {
        while pending.len() < under_way && connected.sockets.len() + pending.len() < count {
            let begun = Instant::now();
            pending.push((begun, connect_start(address, options)?));
        }
        let ready = writable(&pending, options.time_limit)?;
        let now = Instant::now();
        // From the back, so that swapping the last into the place of one that is done moves none that is to come.
        for index in ready.into_iter().rev() {
            let (begun, connecting) = pending.swap_remove(index);
            connected.sockets.push(connecting.finish(now)?);
            let took_ns =
                u64::try_from(now.duration_since(begun).as_nanos()).unwrap_or(VALUE_NS_MAX);
            connected
                .connect_ns
                .saturating_record(took_ns.min(VALUE_NS_MAX));
        }
    }
    Ok(connected)
}

/// Which of `pending` (not empty) are done, after waiting for the first; ascending. Where the oldest has had its time,
/// that one is "done" too: finishing it gives the error.
fn writable(pending: &[(Instant, Connecting)], time_limit: Duration) -> io::Result<Vec<usize>> {
    loop {
        let oldest = pending
            .iter()
            .enumerate()
            .min_by_key(|(_, (begun, _))| *begun);
        let (oldest, (begun, _)) = oldest.expect("the caller has something pending");
        let left = (*begun + time_limit).saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(vec![oldest]);
        }
        let mut polled: Vec<PollFd<'_>> = pending
            .iter()
            .map(|(_, connecting)| PollFd::new(connecting, PollFlags::OUT))
            .collect();
        let limit = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut polled, Some(&limit)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => {
                let ready = polled
                    .iter()
                    .enumerate()
                    .filter(|(_, fd)| !fd.revents().is_empty());
                return Ok(ready.map(|(index, _)| index).collect());
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn all_are_connected_and_timed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let connected = connect_all(&address, 40, 7, &ConnectOptions::default()).unwrap();
        assert_eq!(
            (connected.sockets.len(), connected.connect_ns.len()),
            (40, 40)
        );
        assert!(0 < connected.connect_ns.min());
    }

    #[test]
    fn a_refusal_is_an_error() {
        let address = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            Address::Tcp(listener.local_addr().unwrap())
        };
        let error = connect_all(&address, 3, 2, &ConnectOptions::default())
            .map(|_| ())
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
