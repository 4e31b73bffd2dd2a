//! What this kernel can, found by trying: nothing here is decided by a version, but for the table of kernels whose faults
//! are known.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::event::Event;
use crate::features::{Feature, Features};
use crate::ring::Ring;
use crate::setup::{self, Config, SetupError};

/// How long a trial may take. The slowest pushes some megabytes through loopback.
const TRIAL_LIMIT: Duration = Duration::from_secs(5);

/// Bytes of a byte check at a server's start: enough to fill buffers in every order many times.
const START_CHECK_BYTES: usize = 1 << 20;

thread_local! {
    /// A trial runs on this thread: its own rings must not start another.
    static TRYING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this kernel bounds what a multishot receive takes (6.17). Tried once a process.
pub(crate) fn recv_can_be_limited() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    if TRYING.get() {
        return true;
    }
    *ANSWER.get_or_init(|| {
        on_a_thread(|| {
            let features = Features::NONE.with(Feature::MultishotRecv);
            Ring::new(&small(features)).is_ok_and(|mut ring| limited_recv_works(&mut ring))
        })
        .unwrap_or(false)
    })
}

/// Whether bundles deliver every byte in its place. Tried once a process: the known faults are of some kernels only, but
/// what they do to a stream is not to be borne.
pub(crate) fn bundles_are_sound() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    if TRYING.get() {
        return true;
    }
    *ANSWER.get_or_init(|| {
        let features = Features::default();
        !bundles_are_known_bad() && check_bytes(features, START_CHECK_BYTES).is_ok()
    })
}

/// Pushes `bytes` random bytes in random chunks through a connection that is received from with these features, and
/// compares every one.
///
/// # Errors
/// The first difference, or why it could not be tried.
pub fn check_bytes(features: Features, bytes: usize) -> Result<(), String> {
    on_a_thread(move || receive_and_compare(features, bytes))
        .unwrap_or_else(|| Err("the check panicked".into()))
}

/// One thing that this kernel was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What.
    pub feature: Feature,
    /// Whether the kernel has it and allows it to this process.
    pub offered: bool,
    /// Whether it would be used without being asked for.
    pub used: bool,
}

/// What this kernel offers, each feature tried by itself, and what would be used.
///
/// # Errors
/// There is no ring at all here.
pub fn offers() -> Result<Vec<Offer>, SetupError> {
    let used = on_a_thread(|| Ring::new(&small(Features::default())).map(|ring| ring.features()));
    let used = used.unwrap_or(Ok(Features::NONE))?;
    Ok(Feature::ALL
        .into_iter()
        .map(|feature| Offer {
            feature,
            offered: used.has(feature) || is_offered(feature),
            used: used.has(feature),
        })
        .collect())
}

fn is_offered(feature: Feature) -> bool {
    if feature == Feature::Bundle && !bundles_are_sound() {
        return false;
    }
    // What it can't be tried without comes with it.
    let features = match feature {
        Feature::Bundle => Features::NONE.with(Feature::MultishotRecv).with(feature),
        _ => Features::NONE.with(feature),
    };
    on_a_thread(move || {
        let config = small(features);
        Ring::new(&config).is_ok_and(|ring| ring.features().has(feature))
            && setup::operations_exist(feature)
    })
    .unwrap_or(false)
}

/// Streams corrupted by multishot receives in bundles: 6.13.11 to 6.14.8 (liburing #1409, #1411, #1423).
fn bundles_are_known_bad() -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    release_is_bad(&release)
}

fn release_is_bad(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0u32));
    let version = [(); 3].map(|()| numbers.next().unwrap_or(0));
    ([6, 13, 11]..=[6, 14, 8]).contains(&version)
}

/// On a thread of its own: when a ring ends, the kernel interrupts the thread that used it, some time later.
fn on_a_thread<T: Send + 'static>(trial: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let thread = std::thread::spawn(|| {
        TRYING.set(true);
        trial()
    });
    thread.join().ok()
}

fn small(features: Features) -> Config {
    Config {
        entries: 8,
        cq_entries: 64,
        slots: 4,
        buffers: 64,
        buffer_size: 512,
        features,
        ..Config::default()
    }
}

fn limited_recv_works(ring: &mut Ring) -> bool {
    let pair = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    );
    let Ok((near, far)) = pair else {
        return false;
    };
    let Ok(slot) = ring.install(near.as_fd()) else {
        return false;
    };
    ring.recv(slot);
    // The far end's close ends the receive, whatever the kernel can.
    drop(far);
    let deadline = Instant::now() + TRIAL_LIMIT;
    while Instant::now() < deadline {
        if ring
            .submit_and_wait(Some(Duration::from_millis(100)))
            .is_err()
        {
            return false;
        }
        if let Some(Event::Recv { result, .. }) = ring.next_event() {
            return result.is_ok();
        }
    }
    false
}

fn receive_and_compare(features: Features, bytes: usize) -> Result<(), String> {
    let text = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let mut ring = Ring::new(&small(features)).map_err(|error| error.to_string())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text("bind"))?;
    let address = listener.local_addr().map_err(text("bind"))?;
    let sender = TcpStream::connect(address).map_err(text("connect"))?;
    let (receiver, _) = listener.accept().map_err(text("accept"))?;
    let slot = ring.install(receiver.as_fd()).map_err(text("install"))?;
    let sending = std::thread::spawn(move || send_chunks(sender, bytes));

    let mut expected = Noise::new();
    let mut received = 0;
    let deadline = Instant::now() + TRIAL_LIMIT;
    ring.recv(slot);
    while received < bytes {
        if deadline < Instant::now() {
            return Err(format!(
                "{received} of {bytes} bytes came within {TRIAL_LIMIT:?}"
            ));
        }
        let waited = ring.submit_and_wait(Some(Duration::from_millis(100)));
        waited.map_err(text("wait"))?;
        while let Some(event) = ring.next_event() {
            let Event::Recv { result, more, .. } = event else {
                continue;
            };
            match result {
                Ok(Some(buffer)) => {
                    for (i, byte) in ring.bytes(&buffer).iter().enumerate() {
                        if *byte != expected.next_byte() {
                            return Err(format!(
                                "byte {} is not the one that was sent",
                                received + i
                            ));
                        }
                    }
                    received += buffer.len();
                    ring.release(buffer);
                }
                Ok(None) if received == bytes => {}
                Ok(None) => return Err(format!("the stream ended after {received} bytes")),
                Err(Errno::NOBUFS) => {}
                Err(error) => return Err(format!("receive: {error}")),
            }
            if !more && received < bytes {
                ring.recv(slot);
            }
        }
    }
    match sending.join() {
        Ok(sent) => sent.map_err(text("send")),
        Err(_) => Err("the sender panicked".into()),
    }
}

/// Sends in chunks of 1 to 4,000 bytes, so that buffers are filled in part and bundles begin anywhere.
fn send_chunks(mut stream: TcpStream, bytes: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut noise = Noise::new();
    let mut sizes = Noise { state: 42 };
    let mut left = bytes;
    while 0 < left {
        let size = (1 + sizes.next_word() as usize % 4_000).min(left);
        let chunk: Vec<u8> = (0..size).map(|_| noise.next_byte()).collect();
        stream.write_all(&chunk)?;
        left -= size;
    }
    Ok(())
}

/// Bytes that don't repeat where a buffer is mistaken for another: xorshift (Marsaglia 2003).
struct Noise {
    state: u64,
}

impl Noise {
    fn new() -> Noise {
        Noise {
            state: 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn next_word(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn next_byte(&mut self) -> u8 {
        (self.next_word() >> 32) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_receive_keeps_the_bytes_in_order() {
        let multishot = Features::NONE.with(Feature::MultishotRecv);
        for features in [
            Features::NONE,
            multishot,
            multishot.with(Feature::Bundle),
            Features::default(),
        ] {
            assert_eq!(check_bytes(features, 1 << 20), Ok(()), "{features:?}");
        }
    }

    #[test]
    fn the_kernels_with_the_known_fault_are_told_from_their_neighbours() {
        for bad in ["6.13.11", "6.14.0-rc1", "6.14.8-300.fc42.x86_64"] {
            assert!(release_is_bad(bad), "{bad}");
        }
        for good in ["6.13.10", "6.14.9", "6.18.44-custom", "7.0.0", "odd", ""] {
            assert!(!release_is_bad(good), "{good}");
        }
    }

    #[test]
    fn what_is_used_is_offered() {
        let offers = offers().expect("a ring");
        assert_eq!(offers.len(), Feature::ALL.len());
        assert!(offers.iter().all(|offer| offer.offered || !offer.used));
        assert!(offers.iter().any(|offer| offer.used));
    }
}
