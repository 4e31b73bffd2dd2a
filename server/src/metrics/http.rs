//! As much HTTP as a scraper needs: one GET per connection, answered and closed, one connection at a time, on a thread
//! of its own. A client that is slow, talks too much or says nothing is cut off after [`PATIENCE`], so it cannot hold
//! up the next.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use echometer_host::limits;
use echometer_host::signals::Stop;
use echometer_host::threads;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::log;

/// The longest that one client may take, from its connect to the last byte of its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of a request's head; a scraper's has a few hundred.
const HEAD_MAX: usize = 8 * 1024;

/// How long to wait after a failed accept: it fails again at once while descriptors are lacking.
const ACCEPT_REST: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// The thread that answers. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Responder {
    address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Answers `GET /metrics` (and `/`) on `address` with what `text` gives at that time.
    ///
    /// # Errors
    /// The address cannot be had, or no descriptor or thread.
    pub(crate) fn start(
        address: SocketAddr,
        text: impl Fn() -> String + Send + 'static,
    ) -> io::Result<Responder> {
        Responder::start_patiently(address, PATIENCE, text)
    }

    fn start_patiently(
        address: SocketAddr,
        patience: Duration,
        text: impl Fn() -> String + Send + 'static,
    ) -> io::Result<Responder> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Stop::new()?;
        let stopped = stop.clone();
        let answer = move || answer_until(&listener, &stopped, patience, &text);
        let thread = threads::spawn("metrics", answer)
            .map_err(|error| io::Error::new(error.cause.kind(), error))?;
        Ok(Responder {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it answers; the port is the real one.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so on stderr; the echo goes on without metrics.
            let _ = thread.join();
        }
    }
}

fn answer_until(
    listener: &TcpListener,
    stop: &Stop,
    patience: Duration,
    text: &impl Fn() -> String,
) {
    let mut log = log::Seldom::default();
    while !stop.requested() {
        match listener.accept() {
            // What becomes of one client is of no interest to the next.
            Ok((stream, _)) => drop(answer(stream, stop, Instant::now() + patience, text)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let stop = stop.fd();
                let mut waiting = [
                    PollFd::new(listener, PollFlags::IN),
                    PollFd::from_borrowed_fd(stop, PollFlags::IN),
                ];
                // EINTR leads back here.
                let _ = poll(&mut waiting, None);
            }
            Err(error) => {
                let hint = limits::hint(&error);
                log.line(format_args!(
                    "note: cannot accept who asks for metrics: {error}{hint}"
                ));
                let stop = PollFd::from_borrowed_fd(stop.fd(), PollFlags::IN);
                let _ = poll(&mut [stop], Some(&ACCEPT_REST));
            }
        }
    }
}

fn answer(
    stream: TcpStream,
    stop: &Stop,
    deadline: Instant,
    text: &impl Fn() -> String,
) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let client = Client {
        stream,
        stop,
        deadline,
    };
    let head = client.read_head()?;
    let (status, body) = match target(&head) {
        Target::Metrics => ("200 OK", text()),
        Target::Elsewhere => (
            "404 Not Found",
            "there is nothing here but /metrics\n".into(),
        ),
        Target::OtherMethod => ("405 Method Not Allowed", "only GET is answered\n".into()),
        Target::Garbage => ("400 Bad Request", "this is no HTTP request\n".into()),
    };
    let kind = if status.starts_with("200") {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; charset=utf-8"
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    client.write(head.as_bytes())?;
    client.write(body.as_bytes())
}

/// One client and the bounds of its turn: its time, and the stop of the server, which waits for no scraper.
struct Client<'a> {
    stream: TcpStream,
    stop: &'a Stop,
    deadline: Instant,
}

impl Client<'_> {
    /// The request up to its empty line, or all that came.
    fn read_head(&self) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        let mut piece = [0; 1024];
        while head.len() < HEAD_MAX && !head.windows(4).any(|end| end == b"\r\n\r\n") {
            self.wait(PollFlags::IN)?;
            match (&self.stream).read(&mut piece) {
                Ok(0) => break,
                Ok(n) => head.extend(&piece[..n]),
                Err(error) if is_to_be_repeated(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(head)
    }

    fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.wait(PollFlags::OUT)?;
            match (&self.stream).write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if is_to_be_repeated(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the stream is ready. The error is that the turn is over.
    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Errno::TIMEDOUT.into());
            }
            let limit = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut waiting = [
                PollFd::new(&self.stream, flags),
                PollFd::from_borrowed_fd(self.stop.fd(), PollFlags::IN),
            ];
            match poll(&mut waiting, Some(&limit)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if self.stop.requested() {
                return Err(Errno::CANCELED.into());
            }
            if !waiting[0].revents().is_empty() {
                return Ok(());
            }
        }
    }
}

fn is_to_be_repeated(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Metrics,
    Elsewhere,
    OtherMethod,
    Garbage,
}

/// Reads the request line: method, target, version.
fn target(head: &[u8]) -> Target {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or(&[]);
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    match words[..] {
        [method, target, version] if version.starts_with(b"HTTP/1.") => {
            let path = target.split(|&byte| byte == b'?').next().unwrap_or(target);
            match (method, path) {
                (b"GET", b"/metrics" | b"/") => Target::Metrics,
                (b"GET", _) => Target::Elsewhere,
                _ => Target::OtherMethod,
            }
        }
        _ => Target::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use echometer_host::sockets::listen_queues;

    use super::*;

    fn responder() -> Responder {
        Responder::start(([127, 0, 0, 1], 0).into(), || "some 1\n".into()).expect("a free port")
    }

    fn ask(responder: &Responder, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(responder.address()).expect("it listens");
        stream.write_all(request).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }

    #[test]
    fn a_scraper_is_answered() {
        let responder = responder();
        for path in ["/metrics", "/", "/metrics?name=x"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n");
            let answer = ask(&responder, request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains("\r\nContent-Length: 7\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\nsome 1\n"), "{answer}");
        }
    }

    #[test]
    fn whoever_asks_for_something_else_is_told() {
        let responder = responder();
        for (request, status) in [
            ("GET /other HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("hello\r\n\r\n", "400"),
            ("GET /metrics\r\n\r\n", "400"),
        ] {
            let answer = ask(&responder, request.as_bytes());
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
        }
    }

    #[test]
    fn a_silent_client_does_not_keep_the_next_one_waiting_for_ever() {
        let responder = responder();
        let _silent = TcpStream::connect(responder.address()).expect("it listens");
        let began = Instant::now();
        assert!(ask(&responder, b"GET / HTTP/1.0\r\n\r\n").contains("200 OK"));
        assert!(began.elapsed() < 10 * PATIENCE);
    }

    #[test]
    fn a_silent_client_does_not_hold_up_the_stop() {
        let minute = Duration::from_secs(60);
        let responder = Responder::start_patiently(([127, 0, 0, 1], 0).into(), minute, String::new)
            .expect("a free port");
        let _silent = TcpStream::connect(responder.address()).expect("it listens");
        let deadline = Instant::now() + Duration::from_secs(30);
        let port = responder.address().port();
        // From then on the silent one has its turn.
        while 0 < listen_queues(port).expect("sock_diag")[0].waiting {
            assert!(Instant::now() < deadline, "nobody accepts");
        }
        let began = Instant::now();
        drop(responder);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(30), "{took:?}");
    }

    #[test]
    fn it_ends_when_it_is_dropped() {
        let responder = responder();
        let address = responder.address();
        drop(responder);
        let again = TcpListener::bind(address);
        assert!(again.is_ok(), "the port is free again: {again:?}");
    }

    #[test]
    fn a_request_in_pieces_is_one() {
        let responder = responder();
        let mut stream = TcpStream::connect(responder.address()).expect("it listens");
        stream.set_nodelay(true).expect("a TCP stream");
        for byte in b"GET /metrics HTTP/1.1\r\n\r\n" {
            stream.write_all(&[*byte]).expect("sent");
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.contains("200 OK"));
    }
}
