//! A server that left its group (it daemonised) can't be timed and is not ended with the group. So that nobody is misled
//! and none is left behind without a word: who listens at the port of a command that we started, and after its stop?

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, getpgid};

use echometer_host::{process::descendants, sockets::Holder};

/// How often is looked whether the kernel has let go of a listener that no process has any more.
const PAUSE: Duration = Duration::from_millis(10);

/// Whether the listener at `address` is known to be a process outside of the group that `leader` leads and of its
/// descendants: then their CPU time and memory are not the server's.
#[must_use]
pub(crate) fn listens_outside(address: SocketAddr, leader: u32) -> bool {
    let Holder::Listener(process) = Holder::of(&address.into()) else {
        // Who listens can't be seen: that it is another one isn't known either.
        return false;
    };
    let in_group = || {
        let pid = Pid::from_raw(process.pid.try_into().ok()?)?;
        Some(getpgid(Some(pid)).ok()?.as_raw_pid().cast_unsigned() == leader)
    };
    process.pid != leader
        && in_group() != Some(true)
        && !descendants(leader).is_ok_and(|found| found.contains(&process.pid))
}

/// Who still listens at `address` after the stop of the server that was told to; `None` if nobody does. A listener that
/// no process has is waited for up to `patience`: the kernel may let go of it a little later.
#[must_use]
pub(crate) fn left_listening(address: SocketAddr, patience: Duration) -> Option<String> {
    let deadline = Instant::now() + patience;
    loop {
        match Holder::of(&address.into()) {
            Holder::Listener(process) => {
                return Some(format!(
                    "left a server behind, which has left its process group: {process} still listens at {address} \
                     (kill {} ends it)",
                    process.pid
                ));
            }
            Holder::Unseen { .. } | Holder::Dying(_) if Instant::now() < deadline => {
                thread::sleep(PAUSE);
            }
            Holder::Unseen { .. } | Holder::Dying(_) => {
                return Some(format!(
                    "left a server behind: {address} is still listened at, by a process that can't be seen from here \
                     (as root, ss --listening --tcp --processes names it)"
                ));
            }
            _ => return None,
        }
    }
}
