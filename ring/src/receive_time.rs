//! When did the kernel receive what is read? `SO_TIMESTAMPING` and the control message that carries its answer, which no
//! safe wrapper among our dependencies offers.
//!
//! On a TCP stream the kernel keeps one time for each segment and tells, with a read, that of the last segment which the
//! read took bytes of (`tcp_recv_timestamp`). The times are of `CLOCK_REALTIME`. A segment that came before the kernel
//! began to stamp has none.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::types::RecvMsgOut;
use rustix::io::Errno;

/// Of asm-generic/socket.h: times of 64 bits on every machine (5.1). The control message has the option's number.
const SO_TIMESTAMPING_NEW: libc::c_int = 65;

/// The message is three times, of which the first is the software's; two 64-bit numbers each.
const TIMES_BYTES: usize = 3 * 16;

/// `CMSG_SPACE` of it. A length and two 32-bit numbers come first; all is aligned to a `usize`.
const CONTROL_BYTES: usize = HEADER_BYTES + TIMES_BYTES;
const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();
const ALIGNMENT: usize = size_of::<usize>();

/// What stands before the received bytes in a buffer of a receive with times: the lengths, then the control message.
pub(crate) const STAMP_BYTES: usize = 16 + CONTROL_BYTES;

/// Has the kernel stamp what `socket` receives from now on.
///
/// # Errors
/// What the kernel said: `ENOPROTOOPT` before 5.1.
pub fn stamp_receives(socket: BorrowedFd<'_>) -> io::Result<()> {
    let flags = libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
    // SAFETY: the pointer is to as many readable bytes as are said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_TIMESTAMPING_NEW,
            (&raw const flags).cast(),
            size_of_val(&flags) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// As recv(2), and the time at which the kernel received the last segment of what was read: `CLOCK_REALTIME`, ns.
///
/// # Errors
/// Those of recvmsg(2): `EAGAIN` where nothing has come.
#[inline]
pub fn recv_stamped(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Option<u64>), Errno> {
    let mut control = [0u64; CONTROL_BYTES / size_of::<u64>()];
    let mut vector = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut header = empty_header();
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES as _;
    // SAFETY: the header names one vector over `buffer` and the control bytes, all of which are ours alone and live until
    // the call is over.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    if received < 0 {
        let error = io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    // The kernel says how much of the control bytes it wrote.
    let said = header.msg_controllen.min(CONTROL_BYTES);
    let mut bytes = [0; CONTROL_BYTES];
    for (word, to) in control.iter().zip(bytes.chunks_exact_mut(size_of::<u64>())) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    Ok((received as usize, software_time(&bytes[..said])))
}

/// What a multishot receive with times is asked with: no vector (the buffer is chosen by the ring), no name, room for the
/// control message. The kernel copies it when it takes the request.
pub(crate) fn request() -> Box<libc::msghdr> {
    let mut header = Box::new(empty_header());
    header.msg_controllen = CONTROL_BYTES as _;
    header
}

fn empty_header() -> libc::msghdr {
    // SAFETY: all zeroes is a valid `msghdr`: null pointers with lengths of 0.
    unsafe { std::mem::zeroed() }
}

/// Takes the buffer of such a receive apart: the time, and the bytes that were received. None of either where the buffer
/// is too short to be one.
#[inline]
pub(crate) fn take_apart<'a>(buffer: &'a [u8], request: &libc::msghdr) -> (Option<u64>, &'a [u8]) {
    match RecvMsgOut::parse(buffer, request) {
        Ok(received) => {
            let time = software_time(received.control_data());
            let bytes = received.payload_data().len();
            (time, &buffer[STAMP_BYTES..][..bytes])
        }
        Err(()) => (None, &[]),
    }
}

/// The software's time in control messages, in ns; cmsg(3) says how they are laid out. What isn't whole is passed over.
fn software_time(control: &[u8]) -> Option<u64> {
    const NS_PER_S: u64 = 1_000_000_000;
    let mut rest = control;
    loop {
        let length = usize::from_ne_bytes(*rest.first_chunk()?);
        let level = i32::from_ne_bytes(*rest.get(ALIGNMENT..)?.first_chunk()?);
        let kind = i32::from_ne_bytes(*rest.get(ALIGNMENT + 4..)?.first_chunk()?);
        // A length counts its own header, and a message that is cut says more than there is.
        let data = rest.get(HEADER_BYTES..length)?;
        if (level, kind) == (libc::SOL_SOCKET, SO_TIMESTAMPING_NEW) {
            let seconds = u64::from_ne_bytes(*data.first_chunk()?);
            let ns = u64::from_ne_bytes(*data.get(8..)?.first_chunk()?);
            return match seconds.checked_mul(NS_PER_S)?.checked_add(ns)? {
                0 => None,
                time => Some(time),
            };
        }
        rest = rest.get(length.checked_next_multiple_of(ALIGNMENT)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = (HEADER_BYTES + data.len()).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    fn times(seconds: u64, ns: u64) -> Vec<u8> {
        let mut data = [seconds.to_ne_bytes(), ns.to_ne_bytes()].concat();
        data.resize(TIMES_BYTES, 0);
        message(libc::SOL_SOCKET, SO_TIMESTAMPING_NEW, &data)
    }

    proptest! {
        #[test]
        fn a_time_is_found_behind_whatever_else_was_said(
            others in prop::collection::vec((0i32..200, 0i32..60, prop::collection::vec(any::<u8>(), 0..40)), 0..5),
            seconds in 1u64..10_000_000_000,
            ns in 0u64..1_000_000_000,
        ) {
            let mut control = Vec::new();
            for (level, kind, data) in others {
                control.extend(message(level, kind, &data));
            }
            control.extend(times(seconds, ns));
            prop_assert_eq!(software_time(&control), Some(seconds * 1_000_000_000 + ns));
            // One that is cut is none, and nobody falls over it.
            let cut = control.len() - TIMES_BYTES;
            for end in cut..control.len() {
                prop_assert_eq!(software_time(&control[..end]), None);
            }
        }

        #[test]
        fn no_bytes_are_misread_as_more_than_there_are(control in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = software_time(&control);
            let _ = take_apart(&control, &request());
        }
    }

    #[test]
    fn a_time_of_zero_is_none() {
        assert_eq!(software_time(&times(0, 0)), None);
        assert_eq!(software_time(&[]), None);
    }

    #[test]
    fn the_time_is_when_it_came_and_not_when_it_was_read() {
        const WAIT: Duration = Duration::from_millis(30);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut writer = listener.accept().unwrap().0;
        stamp_receives(reader.as_fd()).unwrap();
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut buffer = [0; 64];
        // The kernel begins to stamp a moment after it was asked to.
        let limit = now() + Duration::from_secs(5);
        loop {
            let before = now();
            writer.write_all(b"echo").unwrap();
            let after = now();
            std::thread::sleep(WAIT);
            let (bytes, time) = recv_stamped(reader.as_fd(), &mut buffer).unwrap();
            assert_eq!(&buffer[..bytes], b"echo");
            if let Some(time) = time {
                let time = Duration::from_nanos(time);
                assert!(
                    before <= time && time < after + WAIT,
                    "{before:?} {time:?} {after:?}"
                );
                return;
            }
            assert!(now() < limit, "the kernel never stamped");
        }
    }
}
