//! A look at a connection that seems idle: what the kernel knows of it that no event has told.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::idle::Look;

const NO_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

impl Look {
    /// Looks at a socket, with two system calls. `reads`: it would be received from if anything came. `wants_room`: something
    /// waits for room in it.
    pub fn at(socket: impl AsFd, reads: bool, wants_room: bool) -> Look {
        let mut wanted = PollFlags::empty();
        if reads {
            wanted |= PollFlags::IN;
        }
        if wants_room {
            wanted |= PollFlags::OUT;
        }
        // A poll that fails says nothing for the connection.
        let ready = poll(&mut [PollFd::new(&socket, wanted)], Some(&NO_WAIT));
        if ready.is_ok_and(|ready| 0 < ready) {
            return Look::Moves;
        }
        match echometer_ring::unsent(socket.as_fd()) {
            Ok(unsent) => Look::Stands { unsent },
            Err(_) => Look::Unknown,
        }
    }
}
