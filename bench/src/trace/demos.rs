//! Four things that go wrong with connections, made to happen for real, with what each side sees of them.

use std::{io, os::fd::AsFd, time::Duration};

use clap::ValueEnum;
use rustix::{event::PollFlags, net::sockopt};
use serde::{Deserialize, Serialize};

use echometer_host::{clock, counters::netstat, units::show_ns};

use crate::trace::{
    hands::{PATIENCE, wait_for},
    steps::{Broken, Kind, Side, file},
    walk::{Pair, connect, queue},
};

/// How long an answer to a SYN is waited for, before it is said that none came. Well below the second after which the
/// kernel sends it again.
const ANSWER: Duration = Duration::from_millis(200);

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Demo {
    /// A second server on the same port
    PortInUse,
    /// More connects than the listener's queue holds
    BacklogFull,
    /// A client that breaks off instead of closing
    PeerReset,
    /// A client that stops sending and still reads
    HalfClose,
}

impl Demo {
    /// Plays it. What is to be learnt comes back.
    pub(super) fn play(self, pair: &mut Pair) -> Result<String, Broken> {
        match self {
            Self::PortInUse => port_in_use(pair),
            Self::BacklogFull => backlog_full(pair),
            Self::PeerReset => peer_reset(pair),
            Self::HalfClose => half_close(pair),
        }
    }
}

fn port_in_use(pair: &mut Pair) -> Result<String, Broken> {
    let (first, address) = pair.open(128)?;
    let second = pair.server_socket(address)?;
    let refused = pair.bind(&second, address).is_err();
    pair.recorder.remark("the first server listens there");
    let client = pair.client_socket(address)?;
    pair.connect(&client, address)?;
    let server = pair.accept(&first)?;
    pair.end(client, server)?;
    pair.unlisten(first)?;
    let bound = pair.bind(&second, address).map_err(|_| Broken);
    pair.recorder.remark("free again");
    bound?;
    pair.close(Side::Server, Kind::Close, second)?;
    Ok(match refused {
        true => "A port has one server. The second is refused at bind with EADDRINUSE, clients notice nothing, and once \
                 the first has stopped the port can be had at once."
            .to_owned(),
        false => "The second server was not refused: this kernel shares ports in a way that is not expected.".to_owned(),
    })
}

fn backlog_full(pair: &mut Pair) -> Result<String, Broken> {
    let drops_before = drops();
    let (listener, address) = pair.open(1)?;
    // A backlog of 1 holds two.
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let client = pair.client_socket(address)?;
        pair.connect(&client, address)?;
        waiting.push(client);
    }
    pair.see_handshake(address)?;
    let late = pair.client_socket(address)?;
    pair.client.set_limit(ANSWER);
    let Pair {
        recorder, client, ..
    } = pair;
    let asked_ns = clock::now_ns();
    let unanswered = connect(recorder, client, &late, address).is_err();
    recorder.remark("the queue is full and the SYN was dropped");
    pair.client.set_limit(PATIENCE);
    let server = pair.accept(&listener)?;
    let act = || wait_for(late.as_fd(), PollFlags::OUT, PATIENCE);
    let saw = |(): &()| "connected".to_owned();
    let by = ("poll", file(&late));
    pair.recorder
        .step((Side::Client, Kind::Connect), by, act, saw)?;
    let since_ns = clock::now_ns().saturating_sub(asked_ns);
    pair.recorder.remark(&format!(
        "{} after it was asked for, when its kernel sent the SYN again",
        show_ns(since_ns)
    ));
    let act = || Ok(drops().zip(drops_before));
    let saw = |dropped: &Option<(u64, u64)>| {
        let queue = queue(address).map_or("the queue is unknown".to_owned(), |(now, limit)| {
            format!("{now} wait, limit {limit}")
        });
        let dropped = dropped.map_or("unknown".to_owned(), |(now, before)| {
            format!("+{}", now.saturating_sub(before))
        });
        format!("{queue}; ListenDrops of this machine {dropped}")
    };
    pair.recorder.step(
        (Side::Kernel, Kind::Handshake),
        ("sock_diag, netstat", None),
        act,
        saw,
    )?;
    let second = pair.accept(&listener)?;
    let third = pair.accept(&listener)?;
    drop((waiting, late, server, second, third));
    pair.unlisten(listener)?;
    Ok(match unanswered {
        true => "A full queue makes no error: the client just waits, here a second, until its kernel repeats the SYN. \
                 That is what a backlog that is too small looks like: connects of whole seconds, and ListenDrops."
            .to_owned(),
        false => "The third connect was answered: this kernel's queue holds more than its backlog and one.".to_owned(),
    })
}

fn peer_reset(pair: &mut Pair) -> Result<String, Broken> {
    let (listener, address) = pair.open(128)?;
    let client = pair.client_socket(address)?;
    pair.connect(&client, address)?;
    let server = pair.accept(&listener)?;
    pair.echo(&client, &server)?;
    let lingered = sockopt::set_socket_linger(&client, Some(Duration::ZERO));
    lingered.map_err(|_| Broken)?;
    pair.close(Side::Client, Kind::Reset, client)?;
    let first = pair.receive((Side::Server, Kind::Receive), &server);
    pair.recorder
        .remark("said once, to whatever the server does first");
    let hands = &mut pair.server;
    let name = hands.name("send", "SEND");
    let act = || hands.send(&server, b"too late");
    let second = pair.recorder.attempt(
        (Side::Server, Kind::Echo),
        (&name, file(&server)),
        act,
        |_| "sent".to_owned(),
    );
    pair.recorder.remark("no SIGPIPE, for MSG_NOSIGNAL is set");
    pair.close(Side::Server, Kind::Close, server)?;
    // Only that connection died.
    let client = pair.client_socket(address)?;
    pair.connect(&client, address)?;
    let server = pair.accept(&listener)?;
    pair.echo(&client, &server)?;
    pair.end(client, server)?;
    pair.unlisten(listener)?;
    let names = [first.map(drop), second.map(drop)].map(|result| said(&result));
    Ok(format!(
        "A reset ends one connection and no other: the server sees {} at its first call and {} at the next, closes, and \
         goes on. What was on its way is lost.",
        names[0], names[1]
    ))
}

fn half_close(pair: &mut Pair) -> Result<String, Broken> {
    let (listener, address) = pair.open(128)?;
    let client = pair.client_socket(address)?;
    pair.connect(&client, address)?;
    let server = pair.accept(&listener)?;
    let hands = &mut pair.client;
    let name = hands.name("send", "SEND");
    let act = || hands.send(&client, b"the last words");
    let saw = |n: &usize| format!("{n} bytes");
    pair.recorder
        .step((Side::Client, Kind::Send), (&name, file(&client)), act, saw)?;
    pair.shutdown(&client)?;
    let words = pair
        .receive((Side::Server, Kind::Receive), &server)
        .map_err(|_| Broken)?;
    pair.receive((Side::Server, Kind::End), &server)
        .map_err(|_| Broken)?;
    let hands = &mut pair.server;
    let name = hands.name("send", "SEND");
    let act = || hands.send(&server, &words);
    let saw = |n: &usize| format!("{n} bytes, after the client's end");
    pair.recorder
        .step((Side::Server, Kind::Echo), (&name, file(&server)), act, saw)?;
    let back = pair
        .receive((Side::Client, Kind::Return), &client)
        .map_err(|_| Broken)?;
    pair.close(Side::Server, Kind::Close, server)?;
    pair.receive((Side::Client, Kind::End), &client)
        .map_err(|_| Broken)?;
    pair.close(Side::Client, Kind::Close, client)?;
    pair.unlisten(listener)?;
    Ok(format!(
        "An end of stream is the end of one direction: all {} bytes came back after it. A server that closes at the \
         first 0 loses them.",
        back.len()
    ))
}

/// SYNs and connections that listeners of this machine have dropped.
fn drops() -> Option<u64> {
    netstat().ok().and_then(|counters| counters.listen_drops())
}

fn said(result: &io::Result<()>) -> String {
    match result {
        Ok(()) => "nothing".to_owned(),
        Err(error) => crate::trace::steps::error_name(error),
    }
}
