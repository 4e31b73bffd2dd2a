//! Thousands of connections at once. The server is a process of its own, so that the descriptors of both sides don't
//! share one limit; where the hard limit is lower than the test wants, it runs at what fits and prints the number.

use std::net::TcpStream;

use echometer_host::limits;

use crate::support::{Process, anonymous_bytes, connect_to, echo};

/// What an idle connection may cost a server of its own memory, in bytes.
const IDLE_BYTES_MAX: u64 = 256;

pub(crate) fn ten_thousand_connections_are_served_and_cheap_while_idle(engine: &str) {
    let wanted = 10_000;
    let hard = limits::nofile().hard;
    // Other tests of this process need descriptors too.
    let fits = wanted.min(hard.saturating_sub(1_000) / 2);
    limits::raise_nofile((2 * fits + 1_000).min(hard)).expect("within the hard limit");
    if fits < wanted {
        println!("{fits} connections instead of {wanted}: the hard limit on descriptors is {hard}");
    }

    let before = {
        let alone = Process::start(engine, &["--threads", "1", "--max-connections", "1"]);
        anonymous_bytes(&alone)
    };
    let server = Process::start(engine, &["--threads", "1"]);
    let mut streams: Vec<TcpStream> = (0..fits).map(|_| connect_to(server.address)).collect();
    for stream in &mut streams {
        echo(stream, b"once");
    }
    let grown = anonymous_bytes(&server).saturating_sub(before);
    println!("{engine}: {} bytes an idle connection", grown / fits);
    let promised = crate::exception(engine, crate::IDLE_IS_SMALL).is_none();
    assert!(
        !promised || grown <= IDLE_BYTES_MAX * fits,
        "{grown} bytes for {fits} idle connections"
    );
}
