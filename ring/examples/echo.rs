//! A correct echo server on one thread: `cargo run --release --example echo -- 127.0.0.1:7777`.
//!
//! Correct means: all bytes come back in order, also to a peer that reads slowly, sends much at once, or ends its side
//! before it has read; a peer that doesn't read is not received from; and a failed connection is closed.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::net::TcpListener;
use std::os::fd::AsFd;

use echometer_ring::{Config, Errno, Event, Payload, Ring, Slot};

/// Pieces that a connection may owe before it is not received from.
const OWED_MAX: usize = 16;

/// One connection.
#[derive(Default)]
struct Peer {
    /// Received and not sent yet, the oldest first. What is being sent is with the ring.
    owed: VecDeque<Payload>,
    /// It has sent all it will.
    ended: bool,
    /// Its receive found no free buffer.
    starved: bool,
}

/// The slot of a closed connection names no other: it is simply not found.
type Peers = HashMap<Slot, Peer>;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:7777".into());
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    let mut ring = Ring::new(&Config::default())?;
    let listening = ring.install(listener.as_fd())?;
    ring.accept(listening);
    let mut peers = Peers::new();
    let mut starved: VecDeque<Slot> = VecDeque::new();
    loop {
        // The success of a silent send is known when a submit returns: while one is out, don't sleep.
        match ring.sends_unconfirmed() {
            0 => ring.submit_and_wait(None)?,
            _ => ring.submit()?,
        }
        while let Some(event) = ring.next_event() {
            match event {
                Event::Accept { result, more, .. } => {
                    if let Ok(slot) = result {
                        peers.insert(slot, Peer::default());
                        ring.recv(slot);
                    }
                    if !more {
                        ring.accept(listening);
                    }
                }
                Event::Recv { slot, result, .. } => {
                    let peer = peers.get_mut(&slot).expect("open as long as heard of");
                    match result {
                        Ok(Some(buffer)) => peer.owed.push_back(Payload::Buffer(buffer)),
                        Ok(None) => peer.ended = true,
                        Err(Errno::CANCELED) => {}
                        Err(Errno::NOBUFS) => {
                            peer.starved = true;
                            starved.push_back(slot);
                        }
                        Err(_) => close(&mut ring, &mut peers, slot),
                    }
                    proceed(&mut ring, &mut peers, slot);
                }
                Event::Sent { slot, .. } => proceed(&mut ring, &mut peers, slot),
                Event::Unsent { slot, result, rest } => match result {
                    // The socket was full: the rest waits in the kernel.
                    Ok(_) | Err(Errno::AGAIN) => ring.send(slot, rest),
                    Err(_) => {
                        ring.take_back(rest);
                        close(&mut ring, &mut peers, slot);
                    }
                },
                _ => {}
            }
        }
        for slot in starved.drain(..starved.len().min(ring.buffers_free())) {
            if let Some(peer) = peers.get_mut(&slot) {
                peer.starved = false;
                proceed(&mut ring, &mut peers, slot);
            }
        }
    }
}

/// Does what a connection wants next: send what it is owed, receive, or be closed.
fn proceed(ring: &mut Ring, peers: &mut Peers, slot: Slot) {
    let Some(peer) = peers.get_mut(&slot) else {
        return;
    };
    if !ring.is_sending(slot) {
        match peer.owed.pop_front() {
            Some(payload) => ring.send_now(slot, payload),
            None if peer.ended => return close(ring, peers, slot),
            None => {}
        }
    }
    if OWED_MAX <= peer.owed.len() {
        ring.cancel(slot);
    } else if !peer.ended && !peer.starved && !ring.is_armed(slot) {
        ring.recv(slot);
    }
}

/// Ends a connection: what it was owed goes back to the pool.
fn close(ring: &mut Ring, peers: &mut Peers, slot: Slot) {
    for piece in peers.remove(&slot).into_iter().flat_map(|peer| peer.owed) {
        ring.take_back(piece);
    }
    ring.close(slot);
}
