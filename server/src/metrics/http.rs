//! As much HTTP as a scraper needs: one request per connection, answered and closed. One thread serves up to
//! [`CLIENTS_MAX`] clients side by side and waits for none of them: a client that is slow, talks too much or says
//! nothing is cut off after [`PATIENCE`], and sooner if others need its place.

mod request;

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use echometer_host::limits;
use echometer_host::signals::Stop;
use echometer_host::threads;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::request::{Body, Request};
use crate::log;

/// The longest that one client may take, from its connect to the last byte of its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many clients are served side by side, each with a descriptor. Of more the oldest gives way.
const CLIENTS_MAX: usize = 16;

/// What is thrown away of what a client still sends after its answer. One that sends more gets a reset.
const DISCARDED_MAX: usize = 1024 * 1024;

/// How long to wait after a failed accept: it fails again at once while descriptors are lacking.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The thread that answers. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Responder {
    address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Answers GET and HEAD for `/metrics` (and `/`) on `address` with what `text` gives at that time.
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
    let mut clients: Vec<Client> = Vec::with_capacity(CLIENTS_MAX);
    let mut resting_until = Instant::now();
    while !stop.requested() {
        let now = Instant::now();
        let is_resting = now < resting_until;
        let wake = clients
            .iter()
            .map(|client| client.deadline)
            .chain(is_resting.then_some(resting_until))
            .min();
        // A wait of which the clock can't tell the end is none: the loop looks again.
        let limit =
            wake.and_then(|wake| Timespec::try_from(wake.saturating_duration_since(now)).ok());
        let mut waiting = vec![PollFd::from_borrowed_fd(stop.fd(), PollFlags::IN)];
        waiting.extend(
            clients
                .iter()
                .map(|client| PollFd::new(&client.stream, client.stage.awaits())),
        );
        if !is_resting {
            waiting.push(PollFd::new(listener, PollFlags::IN));
        }
        // An error (EINTR) leaves nobody ready, and leads back here.
        let _ = poll(&mut waiting, limit.as_ref());
        let is_ready: Vec<bool> = waiting[1..]
            .iter()
            .map(|fd| !fd.revents().is_empty())
            .collect();

        let now = Instant::now();
        let mut ready = is_ready.iter();
        clients.retain_mut(|client| {
            let is_ready = ready.next().is_some_and(|&ready| ready);
            // What becomes of one client is of no interest to the others.
            (!is_ready || client.go_on(text).is_ok()) && now < client.deadline
        });
        // The listener's turn comes last, so that whoever has asked was answered before it may have to give way.
        if ready.next() == Some(&true) {
            match listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    if clients.len() == CLIENTS_MAX {
                        clients.remove(dispensable(&clients));
                    }
                    clients.push(Client::new(stream, now + patience));
                }
                Ok(_) => {}
                Err(error) if is_to_be_repeated(&error) => {}
                Err(error) => {
                    let hint = limits::hint(&error);
                    log.line(format_args!(
                        "note: cannot accept who asks for metrics: {error}{hint}"
                    ));
                    resting_until = now + ACCEPT_REST;
                }
            }
        }
    }
}

/// Who gives way to a newcomer: who has the answer already, else who came first.
fn dispensable(clients: &[Client]) -> usize {
    let has_answer = |client: &Client| matches!(client.stage, Stage::Leaving { .. });
    clients.iter().position(has_answer).unwrap_or(0)
}

/// One client, and how far it is.
struct Client {
    stream: TcpStream,
    deadline: Instant,
    stage: Stage,
}

enum Stage {
    /// Its request is coming.
    Asking { came: Vec<u8> },
    /// The answer is going out.
    Answering { answer: Vec<u8>, sent: usize },
    /// It has the answer. What it still sends is read and thrown away until it closes: closing with bytes unread sends
    /// a reset, which can overtake the answer.
    Leaving { discarded: usize },
}

impl Stage {
    fn awaits(&self) -> PollFlags {
        match self {
            Stage::Asking { .. } | Stage::Leaving { .. } => PollFlags::IN,
            Stage::Answering { .. } => PollFlags::OUT,
        }
    }
}

impl Client {
    fn new(stream: TcpStream, deadline: Instant) -> Client {
        Client {
            stream,
            deadline,
            stage: Stage::Asking { came: Vec::new() },
        }
    }

    /// Does what can be done without waiting. The error is that it is over, well or not.
    fn go_on(&mut self, text: &impl Fn() -> String) -> io::Result<()> {
        let mut piece = [0; 4096];
        if let Stage::Asking { came } = &mut self.stage {
            let Some(n) = unless_later(self.stream.read(&mut piece))? else {
                return Ok(());
            };
            came.extend(&piece[..n]);
            let Some(request) = request::read(came, n == 0) else {
                return Ok(());
            };
            if came.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.stage = Stage::Answering {
                answer: answer_to(request, text),
                sent: 0,
            };
        }
        if let Stage::Answering { answer, sent } = &mut self.stage {
            while *sent < answer.len() {
                match unless_later(self.stream.write(&answer[*sent..]))? {
                    Some(n) => *sent += n,
                    None => return Ok(()),
                }
            }
            self.stream.shutdown(Shutdown::Write)?;
            self.stage = Stage::Leaving { discarded: 0 };
        }
        if let Stage::Leaving { discarded } = &mut self.stage {
            // One piece per turn, so that a talkative one does not keep the others waiting.
            match unless_later(self.stream.read(&mut piece))? {
                Some(n) if 0 < n && *discarded < DISCARDED_MAX => *discarded += n,
                Some(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
                None => {}
            }
        }
        Ok(())
    }
}

/// The whole answer, head and body.
fn answer_to(request: Request, text: &impl Fn() -> String) -> Vec<u8> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let plain = |body: &str| (PLAIN, body.to_owned());
    let (status, (kind, body)) = match request {
        Request::Metrics(_) => ("200 OK", (OPENMETRICS, text())),
        Request::Elsewhere(_) => (
            "404 Not Found",
            plain("there is nothing here but /metrics\n"),
        ),
        Request::OtherMethod => (
            // RFC 9110 (15.5.6) asks for what is allowed.
            "405 Method Not Allowed\r\nAllow: GET, HEAD",
            plain("only GET and HEAD are answered\n"),
        ),
        Request::TooLong => (
            "431 Request Header Fields Too Large",
            plain("a request has at most 8 KiB here\n"),
        ),
        Request::Garbage => ("400 Bad Request", plain("this is no HTTP/1 request\n")),
    };
    let length = body.len();
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    match request {
        Request::Metrics(Body::Withheld) | Request::Elsewhere(Body::Withheld) => {}
        _ => answer.push_str(&body),
    }
    answer.into_bytes()
}

/// `None` if it is to be tried again later.
fn unless_later(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(n) => Ok(Some(n)),
        Err(error) if is_to_be_repeated(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_to_be_repeated(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
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
            ("GET /metrics\n\n", "400"),
            ("hello\n", "400"),
            ("\x16\x03\x01", "400"),
        ] {
            let answer = ask(&responder, request.as_bytes());
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
        }
    }

    #[test]
    fn lines_that_end_in_lf_alone_are_understood() {
        let answer = ask(&responder(), b"GET /metrics HTTP/1.1\nHost: here\n\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }

    #[test]
    fn the_answer_to_head_is_that_to_get_without_its_body() {
        let responder = responder();
        for path in ["/", "/other"] {
            let [get, head] = ["GET", "HEAD"].map(|method| {
                let request = format!("{method} {path} HTTP/1.1\r\n\r\n");
                ask(&responder, request.as_bytes())
            });
            let end = get.find("\r\n\r\n").expect("a head") + 4;
            assert!(end < get.len());
            assert_eq!(head, get[..end]);
        }
    }

    #[test]
    fn whoever_gives_up_in_the_middle_of_its_request_is_told() {
        let responder = responder();
        let mut stream = TcpStream::connect(responder.address()).expect("it listens");
        stream.write_all(b"GET /metrics HT").expect("sent");
        stream.shutdown(Shutdown::Write).expect("connected");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }

    #[test]
    fn bytes_that_nobody_reads_do_not_turn_the_answer_into_a_reset() {
        let responder = responder();
        // More than what is read at once, and in one piece with the head.
        let body = "x".repeat(300_000);
        for request in [
            format!("POST /metrics HTTP/1.1\r\nContent-Length: 300000\r\n\r\n{body}"),
            format!("GET /metrics HTTP/1.1\r\n\r\n{body}"),
            format!("GET /{body} HTTP/1.1\r\n\r\n"),
        ] {
            let answer = ask(&responder, request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        }
    }

    #[test]
    fn silent_clients_hold_up_nobody_however_many_there_are() {
        let minute = Duration::from_secs(60);
        let responder = Responder::start_patiently(([127, 0, 0, 1], 0).into(), minute, String::new)
            .expect("a free port");
        let connect = || TcpStream::connect(responder.address()).expect("it listens");
        let silent: Vec<TcpStream> = (0..3 * CLIENTS_MAX).map(|_| connect()).collect();
        let began = Instant::now();
        for _ in 0..CLIENTS_MAX {
            assert!(ask(&responder, b"GET / HTTP/1.0\r\n\r\n").contains("200 OK"));
        }
        let took = began.elapsed();
        assert!(took < minute / 2, "{took:?}");
        // The first ones gave way, and not more of them than had to.
        let mut first = &silent[0];
        assert_eq!(first.read(&mut [0]).expect("closed"), 0);
        let mut last = silent.last().expect("some");
        last.set_nonblocking(true).expect("a socket");
        let still_there = last.read(&mut [0]).expect_err("open, and nothing came");
        assert_eq!(still_there.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_silent_client_is_cut_off() {
        let brief = Duration::from_millis(50);
        let responder = Responder::start_patiently(([127, 0, 0, 1], 0).into(), brief, String::new)
            .expect("a free port");
        let mut silent = TcpStream::connect(responder.address()).expect("it listens");
        let limit = Some(Duration::from_secs(30));
        silent.set_read_timeout(limit).expect("a socket");
        assert_eq!(silent.read(&mut [0]).expect("closed"), 0);
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
