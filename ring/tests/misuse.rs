//! Whatever a user does with the ring, a peer gets no bytes but those that were sent to it, a lease shows no bytes but
//! those of its own connection, and no operation reads memory that was freed. What is wrong to do is refused by a panic
//! that says why, and changes nothing.
//!
//! Every connection has a byte of its own: all that is sent to it and by it consists of that byte. Operations are done with
//! slots that are open, closing, closed, used again by another connection, or another ring's. Freed memory is written over
//! at once, with a byte that is nobody's.
//!
//! `scripts/sanitize.sh` runs this under AddressSanitizer.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use echometer_ring::{Buffer, Config, Errno, Event, Feature, Features, Payload, Ring, Slot};
use proptest::collection::vec;
use proptest::prelude::*;

/// What freed memory is written over with. Connections have other bytes.
const FREED: u8 = 0xee;

/// Refusals, each by a part of its words. Any other panic is a fault.
const REFUSALS: [&str; 12] = [
    "the slot's file is closed, or it is another ring's",
    "armed twice on one slot",
    "two sends in flight on one socket",
    "two connects in flight on one socket",
    "two shutdowns in flight on one socket",
    "an empty send",
    "room is awaited twice on one slot",
    "a descriptor is asked for twice",
    "the slot has a plain descriptor",
    "a buffer of another ring",
    "a receive with times is a multishot one",
    "out of range for slice",
];

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A new connection: a pair of unix or TCP sockets.
    Install {
        tcp: bool,
    },
    /// A new client of the listener.
    Dial,
    Accept(u8),
    AcceptOne(u8),
    AcceptNow(u8),
    Recv(u8),
    RecvStamped(u8),
    Poll(u8),
    Cancel(u8),
    Connect(u8),
    Shutdown(u8),
    Close(u8),
    Reset(u8),
    AwaitRoom(u8),
    OpenFile(u8),
    Send {
        slot: u8,
        how: How,
        now: bool,
    },
    Ask(u8),
    PeerWrites {
        slot: u8,
        kibibytes: u8,
    },
    PeerReads(u8),
    PeerEnds(u8),
    PeerGoes(u8),
    Submit,
    Wait,
    Drain(Keep),
    /// One lease that was kept.
    Lease {
        lease: u8,
        end: Keep,
    },
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
enum How {
    Nothing,
    Small,
    Large,
    Gathered,
    Shared,
    OutOfRange,
    /// A lease of the ring before this one, or of another.
    Foreign,
}

/// What becomes of a lease.
#[derive(Clone, Copy, Debug)]
enum Keep {
    Release,
    SendOn,
    TakeBack,
    Hold,
    Drop,
}

fn keep() -> impl Strategy<Value = Keep> {
    prop_oneof![
        4 => Just(Keep::Release),
        4 => Just(Keep::SendOn),
        1 => Just(Keep::TakeBack),
        2 => Just(Keep::Hold),
        1 => Just(Keep::Drop),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![
        1 => Just(How::Nothing),
        4 => Just(How::Small),
        3 => Just(How::Large),
        3 => Just(How::Gathered),
        2 => Just(How::Shared),
        1 => Just(How::OutOfRange),
        1 => Just(How::Foreign),
    ];
    prop_oneof![
        5 => any::<bool>().prop_map(|tcp| Step::Install { tcp }),
        3 => Just(Step::Dial),
        2 => any::<u8>().prop_map(Step::Accept),
        1 => any::<u8>().prop_map(Step::AcceptOne),
        1 => any::<u8>().prop_map(Step::AcceptNow),
        8 => any::<u8>().prop_map(Step::Recv),
        1 => any::<u8>().prop_map(Step::RecvStamped),
        1 => any::<u8>().prop_map(Step::Poll),
        2 => any::<u8>().prop_map(Step::Cancel),
        1 => any::<u8>().prop_map(Step::Connect),
        1 => any::<u8>().prop_map(Step::Shutdown),
        5 => any::<u8>().prop_map(Step::Close),
        1 => any::<u8>().prop_map(Step::Reset),
        2 => any::<u8>().prop_map(Step::AwaitRoom),
        1 => any::<u8>().prop_map(Step::OpenFile),
        9 => (any::<u8>(), how, any::<bool>())
            .prop_map(|(slot, how, now)| Step::Send { slot, how, now }),
        1 => any::<u8>().prop_map(Step::Ask),
        5 => (any::<u8>(), 0..64u8)
            .prop_map(|(slot, kibibytes)| Step::PeerWrites { slot, kibibytes }),
        3 => any::<u8>().prop_map(Step::PeerReads),
        1 => any::<u8>().prop_map(Step::PeerEnds),
        1 => any::<u8>().prop_map(Step::PeerGoes),
        6 => Just(Step::Submit),
        4 => Just(Step::Wait),
        9 => keep().prop_map(Step::Drain),
        2 => (any::<u8>(), keep()).prop_map(|(lease, end)| Step::Lease { lease, end }),
    ]
}

fn features() -> impl Strategy<Value = Features> {
    let all = Features::default();
    let mut sets = vec![all, Features::NONE, all.with(Feature::Restrictions)];
    sets.extend(all.iter().map(|feature| all.without(feature)));
    let zero_copy = all
        .without(Feature::SkipSuccess)
        .without(Feature::Gather)
        .with(Feature::SendZc);
    sets.push(zero_copy);
    proptest::sample::select(sets)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150),
        .. ProptestConfig::default()
    })]

    #[test]
    fn misuse_is_refused_and_reaches_no_other(features in features(), steps in vec(step(), 1..120)) {
        let mut world = World::new(features);
        for step in &steps {
            world.take(*step);
        }
        world.end();
    }
}

/// The far end of a connection.
enum Peer {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Peer {
    fn ends(&self) {
        let _ = match self {
            Peer::Unix(stream) => stream.shutdown(Shutdown::Write),
            Peer::Tcp(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}

impl Read for Peer {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Peer::Unix(stream) => stream.read(into),
            Peer::Tcp(stream) => stream.read(into),
        }
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Peer::Unix(stream) => stream.write(bytes),
            Peer::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct World {
    ring: Option<Ring>,
    /// Every slot that was ever seen, with the byte of its connection; those of another ring too.
    slots: Vec<(Slot, u8)>,
    byte_of: HashMap<Slot, u8>,
    peers: HashMap<u8, Peer>,
    listener: TcpListener,
    /// Bytes of the clients in the listen queue, in their order.
    dialed: Vec<u8>,
    leases: Vec<(Buffer, Slot)>,
    foreign: Vec<Buffer>,
    next: u8,
    said: Arc<Mutex<String>>,
}

impl World {
    fn new(features: Features) -> World {
        let said = listen_to_panics();
        let config = Config {
            entries: 8,
            cq_entries: 64,
            slots: 6,
            buffers: 8,
            buffer_size: 256,
            large_buffers: 2,
            large_buffer_size: 4_096,
            shared: Arc::from([0u8; 4_096]),
            features,
            ..Config::default()
        };
        // A lease of a ring that is gone, and a slot and a lease of another that is not this one.
        let mut gone = Ring::new(&config).expect("a ring");
        let (lease, stale) = one_lease(&mut gone);
        drop(gone);
        let mut ring = Ring::new(&config).expect("a ring");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        listener.set_nonblocking(true).expect("a listener");
        let listening = ring.install(listener.as_fd()).expect("a slot");
        World {
            ring: Some(ring),
            slots: vec![(stale, 0xfe), (listening, 0xfd)],
            byte_of: HashMap::from([(listening, 0xfd)]),
            peers: HashMap::new(),
            listener,
            dialed: Vec::new(),
            leases: Vec::new(),
            foreign: vec![lease],
            next: 1,
            said,
        }
    }

    fn ring(&mut self) -> &mut Ring {
        self.ring.as_mut().expect("there until the end")
    }

    fn slot(&self, number: u8) -> (Slot, u8) {
        self.slots[usize::from(number) % self.slots.len()]
    }

    /// Does what may be refused. Whether it was done.
    fn attempt(&mut self, what: impl FnOnce(&mut Ring)) -> bool {
        let said = Arc::clone(&self.said);
        let ring = self.ring();
        let done = catch_unwind(AssertUnwindSafe(|| what(ring))).is_ok();
        if !done {
            let said = said.lock().expect("a string");
            assert!(
                REFUSALS.iter().any(|refusal| said.contains(refusal)),
                "no refusal but a fault: {said}"
            );
        }
        write_over_freed_memory();
        done
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Install { tcp } => self.install(tcp),
            Step::Dial => self.dial(),
            Step::Accept(number) => self.with_slot(number, Ring::accept),
            Step::AcceptOne(number) => self.with_slot(number, Ring::accept_one),
            Step::AcceptNow(number) => self.with_slot(number, Ring::accept_now),
            Step::Recv(number) => self.with_slot(number, Ring::recv),
            Step::RecvStamped(number) => {
                // What it brings has a header of the kernel's in front of it, which is nobody's byte.
                let (slot, _) = self.slot(number);
                if !self.byte_of.contains_key(&slot) {
                    self.with_slot(number, Ring::recv_stamped);
                }
            }
            Step::Poll(number) => self.with_slot(number, Ring::poll),
            Step::Cancel(number) => self.with_slot(number, Ring::cancel),
            Step::Connect(number) => {
                let address = self.listener.local_addr().expect("bound").into();
                self.with_slot(number, |ring, slot| ring.connect(slot, &address));
            }
            Step::Shutdown(number) => self.with_slot(number, Ring::shutdown_write),
            Step::Close(number) => self.with_slot(number, Ring::close),
            Step::Reset(number) => self.with_slot(number, Ring::reset),
            Step::AwaitRoom(number) => self.with_slot(number, Ring::await_room),
            Step::OpenFile(number) => self.with_slot(number, Ring::open_file),
            Step::Send { slot, how, now } => self.send(slot, how, now),
            Step::Ask(number) => self.with_slot(number, |ring, slot| {
                let _ = (ring.is_armed(slot), ring.is_sending(slot));
                let _ = (ring.another_piece_follows(slot), ring.file(slot).is_some());
            }),
            Step::PeerWrites { slot, kibibytes } => {
                let (_, byte) = self.slot(slot);
                if let Some(peer) = self.peers.get_mut(&byte) {
                    let _ = peer.write(&vec![byte; 100 + 1_024 * usize::from(kibibytes)]);
                }
            }
            Step::PeerReads(number) => {
                let (_, byte) = self.slot(number);
                self.read_all(byte);
            }
            Step::PeerEnds(number) => {
                let (_, byte) = self.slot(number);
                if let Some(peer) = self.peers.get(&byte) {
                    peer.ends();
                }
            }
            Step::PeerGoes(number) => {
                let (_, byte) = self.slot(number);
                self.peers.remove(&byte);
            }
            Step::Submit => self.ring().submit().expect("a submit"),
            Step::Wait => {
                let limit = Some(Duration::from_millis(1));
                self.ring().submit_and_wait(limit).expect("a wait");
            }
            Step::Drain(keep) => self.drain(keep),
            Step::Lease { lease, end } => {
                if !self.leases.is_empty() {
                    let index = usize::from(lease) % self.leases.len();
                    let (buffer, slot) = self.leases.swap_remove(index);
                    self.end_lease(buffer, slot, end);
                }
            }
        }
    }

    fn with_slot(&mut self, number: u8, what: impl FnOnce(&mut Ring, Slot)) {
        let (slot, _) = self.slot(number);
        self.attempt(|ring| what(ring, slot));
    }

    fn new_byte(&mut self) -> u8 {
        let byte = self.next;
        self.next = if byte == 0xd0 { 1 } else { byte + 1 };
        byte
    }

    fn install(&mut self, tcp: bool) {
        let (near, far): (OwnedFd, Peer) = if tcp {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
            let far = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
            far.set_nonblocking(true).expect("a socket");
            let (near, _) = listener.accept().expect("accept");
            (near.into(), Peer::Tcp(far))
        } else {
            let (near, far) = UnixStream::pair().expect("a pair");
            far.set_nonblocking(true).expect("a socket");
            (near.into(), Peer::Unix(far))
        };
        // Full tables, armed accepts and restricted rings are errors, not panics.
        if let Ok(slot) = self.ring().adopt(near) {
            let byte = self.new_byte();
            self.know(slot, byte);
            self.peers.insert(byte, far);
        }
    }

    fn know(&mut self, slot: Slot, byte: u8) {
        let known = self.byte_of.insert(slot, byte);
        assert_eq!(known, None, "a slot is given out twice");
        self.slots.push((slot, byte));
    }

    fn dial(&mut self) {
        let address = self.listener.local_addr().expect("bound");
        let Ok(far) = TcpStream::connect(address) else {
            return;
        };
        far.set_nonblocking(true).expect("a socket");
        let byte = self.new_byte();
        self.dialed.push(byte);
        self.peers.insert(byte, Peer::Tcp(far));
    }

    fn send(&mut self, number: u8, how: How, now: bool) {
        let (slot, byte) = self.slot(number);
        let heap = |bytes: usize| Payload::Heap {
            bytes: vec![byte; bytes].into(),
            start: 0,
        };
        let payload = match how {
            How::Nothing => heap(0),
            How::Small => heap(600),
            How::Large => heap(400_000),
            How::Gathered => {
                let mut gather = self.ring().gather();
                for bytes in [1, 600, 70_000] {
                    gather.push(heap(bytes));
                }
                Payload::Gather(gather)
            }
            // All its bytes are 0: what a peer sees of it is told by that.
            How::Shared => Payload::Shared(0..4_096),
            How::OutOfRange => Payload::Shared(4_000..5_000),
            How::Foreign => match self.foreign.pop() {
                Some(lease) => Payload::Buffer(lease),
                None => return,
            },
        };
        self.attempt(|ring| {
            if now {
                ring.send_now(slot, payload);
            } else {
                ring.send(slot, payload);
            }
        });
    }

    fn drain(&mut self, keep: Keep) {
        while let Some(event) = self.ring().next_event() {
            match event {
                Event::Accept {
                    result: Ok(slot), ..
                } if !self.dialed.is_empty() => {
                    let byte = self.dialed.remove(0);
                    self.know(slot, byte);
                }
                // No slot was left, and the kernel has closed the client's connection.
                Event::Accept {
                    result: Err(Errno::NFILE),
                    ..
                } if !self.dialed.is_empty() => {
                    self.dialed.remove(0);
                }
                Event::Recv {
                    slot,
                    result: Ok(Some(buffer)),
                    ..
                } => {
                    let byte = self.byte_of[&slot];
                    self.check_lease(&buffer, byte);
                    self.end_lease(buffer, slot, keep);
                }
                Event::Unsent { result, rest, .. } => {
                    assert_ne!(
                        result,
                        Err(Errno::FAULT),
                        "the kernel was given a bad address"
                    );
                    self.ring().take_back(rest);
                }
                _ => {}
            }
            write_over_freed_memory();
        }
    }

    fn check_lease(&mut self, buffer: &Buffer, byte: u8) {
        let bytes = self.ring().bytes(buffer);
        assert!(
            bytes.iter().all(|at| *at == byte),
            "a lease of {byte:#x} shows {bytes:x?}"
        );
    }

    fn end_lease(&mut self, buffer: Buffer, slot: Slot, end: Keep) {
        let byte = self.byte_of[&slot];
        self.check_lease(&buffer, byte);
        match end {
            Keep::Release => self.ring().release(buffer),
            Keep::TakeBack => self.ring().take_back(Payload::Buffer(buffer)),
            Keep::Hold => self.leases.push((buffer, slot)),
            Keep::Drop => drop(buffer),
            Keep::SendOn => {
                self.attempt(|ring| ring.send_now(slot, Payload::Buffer(buffer)));
            }
        }
    }

    fn read_all(&mut self, byte: u8) {
        let Some(peer) = self.peers.get_mut(&byte) else {
            return;
        };
        let mut bytes = [0; 16 << 10];
        loop {
            match peer.read(&mut bytes) {
                Ok(0) => return,
                Ok(count) => {
                    let strange = bytes[..count].iter().find(|at| ![byte, 0].contains(at));
                    assert_eq!(
                        strange, None,
                        "the peer of {byte:#x} got another's byte, or freed memory ({FREED:#x})"
                    );
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // A connection that was reset.
                Err(_) => return,
            }
        }
    }

    /// The ring ends in whatever state it is, soon, and nothing strange is on its way.
    fn end(mut self) {
        let began = Instant::now();
        drop(self.ring.take());
        assert!(began.elapsed() < Duration::from_secs(5), "a ring ends soon");
        write_over_freed_memory();
        let bytes: Vec<u8> = self.peers.keys().copied().collect();
        for byte in bytes {
            self.read_all(byte);
        }
    }
}

/// A lease of bytes that came over a connection of this ring, and the slot of that, closed.
fn one_lease(ring: &mut Ring) -> (Buffer, Slot) {
    let (near, mut far) = UnixStream::pair().expect("a pair");
    let slot = ring.install(near.as_fd()).expect("a slot");
    ring.recv(slot);
    far.write_all(&[0xfe; 10]).expect("room");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        assert!(Instant::now() < deadline, "nothing comes");
        let wait = Some(Duration::from_millis(100));
        ring.submit_and_wait(wait).expect("a wait");
        while let Some(event) = ring.next_event() {
            if let Event::Recv {
                result: Ok(Some(buffer)),
                ..
            } = event
            {
                ring.close(slot);
                return (buffer, slot);
            }
        }
    }
}

/// Takes memory of the sizes that were just freed, writes over it, and frees it again.
fn write_over_freed_memory() {
    for size in [1, 600, 4_096, 70_000, 400_000] {
        let taken: Vec<Vec<u8>> = (0..2).map(|_| vec![FREED; size]).collect();
        std::hint::black_box(&taken);
    }
}

/// What the last panic of this thread said, instead of a page of back-trace for each refusal.
fn listen_to_panics() -> Arc<Mutex<String>> {
    let said = Arc::new(Mutex::new(String::new()));
    let hears = Arc::clone(&said);
    let this = std::thread::current().id();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == this {
            *hears.lock().expect("a string") = info.to_string();
        } else {
            eprintln!("{info}");
        }
    }));
    said
}
