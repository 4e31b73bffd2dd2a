//! What happened in the network stack? The counters of `/proc/net/netstat` and `/proc/net/snmp`, by the
//! names that the kernel gives them.

use std::{collections::BTreeMap, io};

use super::read;

/// Reads the network counters of this network namespace.
///
/// # Errors
/// `/proc/net/netstat` or `/proc/net/snmp` cannot be read.
pub fn netstat() -> io::Result<NetCounters> {
    let mut counters = NetCounters::default();
    for file in ["/proc/net/snmp", "/proc/net/netstat"] {
        counters.add(&read(file)?);
    }
    Ok(counters)
}

/// A snapshot of network counters. They count events since boot and belong to the whole namespace, so
/// another program's connections are in them too.
///
/// A kernel that lacks a counter gives `None`, which is not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetCounters(BTreeMap<String, u64>);

impl NetCounters {
    /// The counter `name` of `group`, as in `value("TcpExt", "ListenOverflows")`.
    #[must_use]
    pub fn value(&self, group: &str, name: &str) -> Option<u64> {
        self.0.get(&format!("{group}.{name}")).copied()
    }

    /// Connections turned away because a listener's accept queue was full.
    #[must_use]
    pub fn listen_overflows(&self) -> Option<u64> {
        self.value("TcpExt", "ListenOverflows")
    }

    /// SYNs and last ACKs that a listener dropped, for a full queue or another reason.
    #[must_use]
    pub fn listen_drops(&self) -> Option<u64> {
        self.value("TcpExt", "ListenDrops")
    }

    /// Retransmission timers that ran out: on loopback mostly SYNs sent again.
    #[must_use]
    pub fn tcp_timeouts(&self) -> Option<u64> {
        self.value("TcpExt", "TCPTimeouts")
    }

    /// SYNs and SYN-ACKs sent again.
    #[must_use]
    pub fn syn_retransmits(&self) -> Option<u64> {
        self.value("TcpExt", "TCPSynRetrans")
    }

    /// Segments sent again.
    #[must_use]
    pub fn retransmits(&self) -> Option<u64> {
        self.value("Tcp", "RetransSegs")
    }

    /// How much each counter grew since `earlier`; those that either snapshot lacks are left out.
    #[must_use]
    pub fn since(&self, earlier: &NetCounters) -> NetCounters {
        let growth = |(name, now): (&String, &u64)| {
            Some((name.clone(), now.saturating_sub(*earlier.0.get(name)?)))
        };
        NetCounters(self.0.iter().filter_map(growth).collect())
    }

    /// Both files come in pairs of lines, `Group: name name ...` and `Group: value value ...`. What is
    /// written otherwise (MaxConn is -1) is left out.
    fn add(&mut self, text: &str) {
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.chunks_exact(2) {
            let (Some((group, names)), Some((same_group, values))) =
                (pair[0].split_once(':'), pair[1].split_once(':'))
            else {
                continue;
            };
            if group != same_group {
                continue;
            }
            for (name, value) in names
                .split_ascii_whitespace()
                .zip(values.split_ascii_whitespace())
            {
                if let Ok(value) = value.parse() {
                    self.0.insert(format!("{group}.{name}"), value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "Tcp: RtoMin MaxConn RetransSegs\nTcp: 200 -1 17\n\
                        TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 565 570\n";

    fn parsed(text: &str) -> NetCounters {
        let mut counters = NetCounters::default();
        counters.add(text);
        counters
    }

    #[test]
    fn names_and_values_are_joined() {
        let counters = parsed(TEXT);
        assert_eq!(
            (counters.listen_overflows(), counters.listen_drops()),
            (Some(565), Some(570))
        );
        assert_eq!(
            (counters.retransmits(), counters.value("Tcp", "RtoMin")),
            (Some(17), Some(200))
        );
        assert_eq!(
            (counters.value("Tcp", "MaxConn"), counters.tcp_timeouts()),
            (None, None)
        );
    }

    #[test]
    fn growth_is_counted_by_name() {
        let earlier = parsed("TcpExt: ListenDrops ListenOverflows\nTcpExt: 70 600\n");
        let growth = parsed(TEXT).since(&earlier);
        assert_eq!(
            (growth.listen_drops(), growth.listen_overflows()),
            (Some(500), Some(0))
        );
        assert_eq!(growth.retransmits(), None);
    }

    #[test]
    fn this_kernel_counts_overflows_of_a_listener() {
        use std::time::{Duration, Instant};

        use crate::{address::Address, sockets};

        let loopback: Address = "127.0.0.1:0".parse().unwrap();
        let options = sockets::ListenOptions {
            backlog: 1,
            ..Default::default()
        };
        let listener = sockets::listen(&loopback, 1, &options).unwrap().remove(0);
        let before = netstat().unwrap();
        // Two fit (one more than the backlog); the third is turned away, and its SYN with it.
        let client = sockets::ConnectOptions::default();
        let _clients: Vec<_> = (0..4)
            .map(|_| sockets::connect_start(listener.local_addr(), &client).unwrap())
            .collect();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let growth = netstat().unwrap().since(&before);
            if 0 < growth.listen_overflows().unwrap() && 0 < growth.listen_drops().unwrap() {
                break;
            }
            assert!(Instant::now() < deadline, "no overflow was counted");
        }
    }

    proptest! {
        #[test]
        fn no_contents_make_it_panic(text in "(TcpExt:|Tcp:| |-|[0-9]{1,25}|[A-Za-z]{1,9}|\\n|\\PC){0,40}") {
            let counters = parsed(&text);
            let _ = counters.since(&parsed(TEXT));
        }
    }
}
