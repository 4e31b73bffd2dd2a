//! How many connections wait to be accepted? The kernel is asked over `sock_diag(7)`, as `ss -ltn` does, so that a
//! listener need not be ours, and no descriptor of it is held.

use std::io;

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
        socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

/// The queue of one listening TCP socket. `getsockopt(TCP_INFO)` calls the two numbers `unacked` and `sacked`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenQueue {
    /// Whose it is; see [`Listener::inode`](super::Listener::inode).
    pub inode: u64,
    /// Connections that wait to be accepted now.
    pub waiting: u32,
    /// What the backlog came to. One more than this may wait.
    pub limit: u32,
}

/// The queues of all TCP sockets of this network namespace that listen on `port`, v4 and v6.
///
/// # Errors
/// The kernel or a sandbox has no `sock_diag` for TCP (`ENOENT`, `EPROTONOSUPPORT`, `EPERM`), or no descriptor is left.
pub fn listen_queues(port: u16) -> io::Result<Vec<ListenQueue>> {
    let mut queues = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        queues.extend(dump(family, port)?);
    }
    Ok(queues)
}

fn dump(family: AddressFamily, port: u16) -> io::Result<Vec<ListenQueue>> {
    let kernel = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    // It answers at once; the limit is for one that is emulated and does not.
    set_socket_timeout(
        &kernel,
        Timeout::Recv,
        Some(std::time::Duration::from_secs(1)),
    )?;
    send(&kernel, &request(family, port), SendFlags::empty())?;
    let mut queues = Vec::new();
    // netlink(7): what is larger than 16 KiB comes in several messages.
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let (_, n) = recv(&kernel, &mut buffer[..], RecvFlags::empty())?;
        if n == 0 || parse(&buffer[..n], &mut queues)? {
            return Ok(queues);
        }
    }
}

/// The layouts below are those of `linux/netlink.h`, `linux/sock_diag.h` and `linux/inet_diag.h`: part of the kernel's
/// stable interface, in the machine's own byte order but for ports.
const HEADER: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u32 = 10;

/// `nlmsghdr`, then `inet_diag_req_v2` for the listeners on a port.
fn request(family: AddressFamily, port: u16) -> Vec<u8> {
    const LENGTH: usize = HEADER + 56;
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.extend((LENGTH as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    // Sequence number and port id: one request per socket needs neither.
    bytes.extend([0; 8]);
    bytes.extend([family.as_raw() as u8, IPPROTO_TCP, 0, 0]);
    bytes.extend((1_u32 << TCP_LISTEN).to_ne_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.resize(LENGTH, 0);
    bytes
}

/// Reads the answers of one datagram. Says whether it was the last.
fn parse(mut bytes: &[u8], queues: &mut Vec<ListenQueue>) -> io::Result<bool> {
    while HEADER <= bytes.len() {
        let length = u32_at(bytes, 0).unwrap_or(0) as usize;
        if length < HEADER || bytes.len() < length {
            return Err(damaged());
        }
        let (message, kind) = (
            &bytes[HEADER..length],
            u16::from_ne_bytes([bytes[4], bytes[5]]),
        );
        match kind {
            // It ends with how the dump went: that is where a kernel without `tcp_diag` says that it can't tell
            // (ENOENT), and nothing else of it says so.
            NLMSG_DONE => {
                let errno = u32_at(message, 0).unwrap_or(0) as i32;
                return match errno {
                    0.. => Ok(true),
                    _ => Err(Errno::from_raw_os_error(errno.wrapping_neg()).into()),
                };
            }
            NLMSG_ERROR => {
                let errno = u32_at(message, 0).ok_or_else(damaged)? as i32;
                return Err(Errno::from_raw_os_error(errno.wrapping_neg()).into());
            }
            // `inet_diag_msg`: family and state, the socket's id, then expires, rqueue, wqueue, uid, inode.
            SOCK_DIAG_BY_FAMILY => {
                let field = |offset| u32_at(message, offset).ok_or_else(damaged);
                queues.push(ListenQueue {
                    waiting: field(56)?,
                    limit: field(60)?,
                    inode: u64::from(field(68)?),
                });
            }
            _ => {}
        }
        // Messages begin at multiples of four.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(false)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let four = bytes.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes(
        four.try_into().expect("four bytes are four"),
    ))
}

fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the kernel's answer about listeners is not written as sock_diag(7) says",
    )
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpStream,
        time::{Duration, Instant},
    };

    use proptest::prelude::*;

    use super::*;
    use crate::sockets::{ListenOptions, listen};

    #[test]
    fn who_waits_is_counted_by_listener() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let options = ListenOptions {
                backlog: 16,
                ..ListenOptions::default()
            };
            let listeners = listen(&address.parse().unwrap(), 2, &options).unwrap();
            let port = listeners[0].local_addr().port().unwrap();
            let to = address.replace(":0", &format!(":{port}"));
            let _clients = [0; 5].map(|_| TcpStream::connect(&to).unwrap());

            // The last of the handshake may still be on its way when connect returns.
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let queues = listen_queues(port).unwrap();
                assert_eq!(queues.len(), 2);
                assert!(queues.iter().all(|queue| queue.limit == 16), "{queues:?}");
                for listener in &listeners {
                    let inode = listener.inode().unwrap();
                    assert!(queues.iter().any(|queue| queue.inode == inode));
                }
                if queues.iter().map(|queue| queue.waiting).sum::<u32>() == 5 {
                    break;
                }
                assert!(Instant::now() < deadline, "{queues:?}");
            }
        }
    }

    #[test]
    fn a_port_that_nobody_listens_on_has_no_queues() {
        // Bound and not listening: so nobody else can listen on it meanwhile.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: std::net::SocketAddr = "0.0.0.0:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        assert_eq!(listen_queues(port).unwrap(), []);
    }

    #[test]
    fn a_kernel_that_cannot_tell_is_not_one_without_queues() {
        let done = |errno: i32| {
            let mut bytes = 20_u32.to_ne_bytes().to_vec();
            bytes.extend(NLMSG_DONE.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(errno.to_ne_bytes());
            parse(&bytes, &mut Vec::new())
        };
        assert!(done(0).unwrap());
        assert_eq!(done(-2).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn an_error_is_passed_on() {
        let mut bytes = 20_u32.to_ne_bytes().to_vec();
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend((-2_i32).to_ne_bytes());
        let error = parse(&bytes, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in proptest::collection::vec(prop_oneof![Just(0_u8), Just(20), Just(88), any::<u8>()], 0..200)) {
            let _ = parse(&bytes, &mut Vec::new());
        }
    }
}
