//! Which sockets take descriptors from their peers? None of ours: `SO_PASSRIGHTS`, which no safe wrapper among our
//! dependencies offers. It has nothing to do with rings; it stands here because `unsafe` does.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Lets nobody pass descriptors (SCM_RIGHTS) to a unix socket, or to those that are accepted on it (6.16). Who doesn't ask for
/// them gets none; but the kernel closes them in the thread that receives, and that may take as long as the peer likes: a TCP
/// socket lingers.
///
/// # Errors
/// What the kernel said: `ENOPROTOOPT` before 6.16, `EOPNOTSUPP` or `EINVAL` of what is no unix socket.
pub fn refuse_descriptors(socket: BorrowedFd<'_>) -> io::Result<()> {
    /// `SO_PASSRIGHTS` of `asm-generic/socket.h`, which our targets have.
    const SO_PASSRIGHTS: libc::c_int = 83;
    let off: libc::c_int = 0;
    // SAFETY: the pointer is to as many bytes as are said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const off).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_unix_sockets_can_refuse() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(refuse_descriptors(file.as_fd()).is_err());
        let (socket, _peer) = UnixStream::pair().unwrap();
        match refuse_descriptors(socket.as_fd()) {
            Ok(()) => {}
            // Before 6.16.
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT)),
        }
    }
}
