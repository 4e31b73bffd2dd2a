//! How often did the kernel send something again on a connection? `TCP_INFO`, which no safe wrapper among our
//! dependencies offers. It has nothing to do with rings; it stands here because `unsafe` does.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Segments that were sent again on a TCP connection so far (`tcpi_total_retrans`). Of one that has just been connected
/// these are all SYNs: nothing else was sent yet.
///
/// # Errors
/// What the kernel said: `EOPNOTSUPP` or `ENOPROTOOPT` of a socket that is not TCP's.
pub fn tcp_retransmits(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the pointer is to `length` writable bytes, and the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all fields are integers, for which zeroes (where an older kernel wrote less) are values too.
    let info = unsafe { info.assume_init() };
    Ok(info.tcpi_total_retrans)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_fresh_connection_has_sent_nothing_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(tcp_retransmits(stream.as_fd()).unwrap(), 0);
    }

    #[test]
    fn what_is_not_tcp_is_an_error() {
        let (stream, _peer) = UnixStream::pair().unwrap();
        assert!(tcp_retransmits(stream.as_fd()).is_err());
    }
}
