//! How is a thread got out of a call that blocks? By a signal that does nothing: the call returns `EINTR`, and the thread
//! looks at what has changed. The kernel restarts a socket call instead unless the socket has a time limit
//! (`SO_RCVTIMEO`, `SO_SNDTIMEO`; signal(7)), however long.

use std::{
    io,
    os::unix::thread::JoinHandleExt as _,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    thread::JoinHandle,
};

use nix::sys::{pthread::pthread_kill, signal::Signal};
use signal_hook::{consts::SIGURG, flag};

/// The right to interrupt threads: made once the process survives it.
#[derive(Clone, Copy, Debug)]
pub struct Interrupts(());

impl Interrupts {
    /// Takes SIGURG for this: nobody sends it by hand, and where no handler is installed it is ignored.
    ///
    /// The handler stays for the life of the process; any number of calls install it once.
    ///
    /// # Errors
    /// The handler cannot be installed.
    pub fn install() -> io::Result<Interrupts> {
        static INSTALLED: OnceLock<()> = OnceLock::new();
        if INSTALLED.get().is_none() {
            // A signal needs a handler to interrupt anything. What this one sets is of no interest. That two threads
            // might install it at once does no harm: both set their flag.
            flag::register(SIGURG, Arc::new(AtomicBool::new(false)))?;
            INSTALLED.get_or_init(|| ());
        }
        Ok(Interrupts(()))
    }

    /// Interrupts the call that `thread` blocks in, if it does now. It may be about to begin one, and misses this then:
    /// repeat it until the thread is seen to have noticed.
    pub fn interrupt<T>(self, thread: &JoinHandle<T>) {
        // A handle that was not joined names its thread even when that has ended, which is the only error there is.
        let _ = pthread_kill(thread.as_pthread_t(), Signal::SIGURG);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        os::unix::net::UnixStream,
        sync::atomic::Ordering,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_thread_that_blocks_is_woken() {
        let interrupts = Interrupts::install().unwrap();
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        let hour = Duration::from_secs(3600);
        ours.set_read_timeout(Some(hour)).unwrap();
        let leave = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&leave);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let error = ours.read(&mut [0]).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::Interrupted);
            }
        });
        leave.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !thread.is_finished() {
            assert!(Instant::now() < deadline, "it blocks on");
            interrupts.interrupt(&thread);
            thread::yield_now();
        }
        // One that has ended is no trouble.
        interrupts.interrupt(&thread);
        thread.join().unwrap();
    }
}
