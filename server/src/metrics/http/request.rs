//! The head of an HTTP request: where it ends, and what it asks for. No socket and no clock.

/// Bytes of a head at most; a scraper's has a few hundred.
pub(super) const HEAD_MAX: usize = 8 * 1024;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// The counters.
    Metrics(Body),
    /// Something that is not here.
    Elsewhere(Body),
    /// It is no GET and no HEAD.
    OtherMethod,
    /// More than [`HEAD_MAX`] bytes.
    TooLong,
    /// It is no HTTP/1 request.
    Garbage,
}

/// Whether the answer has a body. The answer to HEAD has none, and its head is that of GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Sent,
    Withheld,
}

/// What the bytes that came so far ask for; `None` if the head isn't over and may yet be one. `at_end` says that no
/// more will come.
///
/// A line may end in LF alone, as RFC 9112 (2.2) allows. What can't be the start of a request is found as soon as it
/// shows, so that nobody waits for the rest of it.
pub(super) fn read(came: &[u8], at_end: bool) -> Option<Request> {
    // Empty lines before the request line are left out (the same section).
    let start = came
        .iter()
        .position(|byte| !matches!(byte, b'\r' | b'\n'))
        .unwrap_or(came.len());
    let head = &came[start..];
    match head.iter().position(|&byte| byte == b'\n') {
        None if head.iter().any(|&byte| is_foreign(byte)) => Some(Request::Garbage),
        None if HEAD_MAX <= came.len() => Some(Request::TooLong),
        None => at_end.then_some(Request::Garbage),
        Some(end) => match asked_by(trim_cr(&head[..end])) {
            Request::Garbage => Some(Request::Garbage),
            asked if is_over(&head[end..]) => Some(asked),
            _ if HEAD_MAX <= came.len() => Some(Request::TooLong),
            _ => at_end.then_some(Request::Garbage),
        },
    }
}

/// Whether an empty line follows; `rest` begins with the end of the request line.
fn is_over(rest: &[u8]) -> bool {
    rest.windows(2).any(|end| end == b"\n\n") || rest.windows(3).any(|end| end == b"\n\r\n")
}

/// A request line has no control characters (but for its end) and is ASCII. TLS and binary protocols show this way.
fn is_foreign(byte: u8) -> bool {
    !byte.is_ascii() || (byte.is_ascii_control() && byte != b'\r')
}

fn trim_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Reads the request line: method, target, version.
fn asked_by(line: &[u8]) -> Request {
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return Request::Garbage;
    };
    if !version.starts_with(b"HTTP/1.") || method.is_empty() || line.iter().any(|&b| is_foreign(b))
    {
        return Request::Garbage;
    }
    let body = match method {
        b"GET" => Body::Sent,
        b"HEAD" => Body::Withheld,
        _ => return Request::OtherMethod,
    };
    match path(target) {
        b"/metrics" | b"/" => Request::Metrics(body),
        _ => Request::Elsewhere(body),
    }
}

/// The path of a target. A proxy names the whole address: `http://host/metrics?name=x`.
fn path(target: &[u8]) -> &[u8] {
    let path = target.split(|&byte| byte == b'?').next().unwrap_or(target);
    match path.strip_prefix(b"http://") {
        None => path,
        Some(rest) => match rest.iter().position(|&byte| byte == b'/') {
            Some(slash) => &rest[slash..],
            None => b"/",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_understood_whichever_way_their_lines_end() {
        let metrics = Some(Request::Metrics(Body::Sent));
        for (head, asked) in [
            ("GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n", metrics),
            ("GET /metrics HTTP/1.1\nHost: here\n\n", metrics),
            ("GET / HTTP/1.0\n\r\n", metrics),
            ("\r\nGET /metrics?name=x HTTP/1.1\r\n\r\n", metrics),
            ("GET http://here:9000/metrics HTTP/1.1\r\n\r\n", metrics),
            ("GET http://here HTTP/1.1\r\n\r\n", metrics),
            (
                "HEAD / HTTP/1.1\r\n\r\n",
                Some(Request::Metrics(Body::Withheld)),
            ),
            (
                "GET /other HTTP/1.1\r\n\r\n",
                Some(Request::Elsewhere(Body::Sent)),
            ),
            (
                "POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
                Some(Request::OtherMethod),
            ),
            ("OPTIONS * HTTP/1.1\r\n\r\n", Some(Request::OtherMethod)),
        ] {
            assert_eq!(read(head.as_bytes(), false), asked, "{head}");
        }
    }

    #[test]
    fn what_is_no_request_is_found_as_soon_as_it_shows() {
        for head in [
            &b"hello\r\n"[..],
            b"GET /metrics\n",
            b"GET  /metrics HTTP/1.1\r\n",
            b" / HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n",
            b"\x16\x03\x01\x02\x00\x01",
            b"\0",
        ] {
            assert_eq!(read(head, false), Some(Request::Garbage), "{head:?}");
        }
    }

    #[test]
    fn a_head_that_is_not_over_is_waited_for_up_to_its_limit() {
        for head in ["", "\r\n", "GE", "GET / HTTP/1.1\r\nHost: h\r\n"] {
            assert_eq!(read(head.as_bytes(), false), None, "{head}");
            assert_eq!(read(head.as_bytes(), true), Some(Request::Garbage));
        }
        for start in ["", "GET / HTTP/1.1\r\nX: "] {
            let long = start.to_owned() + &"a".repeat(HEAD_MAX);
            assert_eq!(read(long.as_bytes(), false), Some(Request::TooLong));
        }
    }
}
