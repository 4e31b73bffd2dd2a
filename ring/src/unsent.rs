//! How much of what was sent is still here? `SIOCOUTQ`, which no safe wrapper among our dependencies offers. It has nothing
//! to do with rings; it stands here because `unsafe` does.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes in a socket's send queue: of TCP those that the peer has not acknowledged, of a unix socket the memory of what the
/// peer has not read.
///
/// # Errors
/// What the kernel said: `ENOTTY` of what is no socket, `EINVAL` of a listener.
pub fn unsent(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut bytes = MaybeUninit::<libc::c_int>::zeroed();
    // SAFETY: the call writes one `int`, and there is room for it.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ as _, bytes.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was zeroed, and any `int` is a value.
    Ok(u32::try_from(unsafe { bytes.assume_init() }).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_was_not_read_is_in_the_queue() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        assert_eq!(unsent(here.as_fd()).unwrap(), 0);
        here.write_all(&[0; 1_000]).unwrap();
        assert!(1_000 <= unsent(here.as_fd()).unwrap());
        there.read_exact(&mut [0; 1_000]).unwrap();
        assert_eq!(unsent(here.as_fd()).unwrap(), 0);
    }

    #[test]
    fn what_is_no_socket_is_an_error() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(unsent(file.as_fd()).is_err());
    }
}
