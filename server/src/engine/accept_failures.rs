//! What follows from a failed accept, for all engines: it is counted, and either tried again, or tried again after a rest,
//! or it ends the worker. What fails over and over must cost neither a cpu nor a log.

use std::time::Duration;

use rustix::io::Errno;

use crate::counters::AcceptError;
use crate::engine::{ServeError, Worker};
use crate::log;
use echometer_host::units::counted;

/// How long accepting rests, unless a connection is closed sooner: what is lacking may be given back by another process,
/// and nothing says so.
pub(crate) const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Connections that may be gone before they are accepted, one after the other, until it is no longer taken for chance: a
/// security module or a filter forbids the call.
const ABORTED_IN_A_ROW: u32 = 16;

/// The failed accepts of a worker.
#[derive(Debug, Default)]
pub(crate) struct AcceptFailures {
    in_a_row: u32,
    log: log::Seldom,
}

/// What to do after a failed accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Accept the next one.
    Again,
    /// Not before [`ACCEPT_REST`] has passed, or a connection was closed.
    Rest,
}

impl AcceptFailures {
    /// To be called for each connection accepted.
    #[inline]
    pub(crate) fn succeeded(&mut self) {
        self.in_a_row = 0;
    }

    /// Counts a failure, and says now and then in the log what lasts.
    ///
    /// # Errors
    /// It is none that passes.
    pub(crate) fn failed(&mut self, errno: Errno, worker: &Worker) -> Result<Next, ServeError> {
        let kind = AcceptError::from_errno(errno);
        worker.counters.accept_error(kind);
        if kind == AcceptError::Other {
            return Err(ServeError::system("cannot accept connections")(errno));
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        if !kind.is_limit() && self.in_a_row < ABORTED_IN_A_ROW {
            return Ok(Next::Again);
        }
        let (index, open) = (worker.index, worker.counters.open());
        if kind == AcceptError::ProcessLimit {
            self.log.line(format_args!(
                "note: worker {index} is at the descriptor limit with {} open; more are let in as others \
                 leave (raise the limit with `ulimit -n`)",
                counted(open, "connection")
            ));
        } else {
            let errno = std::io::Error::from(errno);
            self.log.line(format_args!(
                "note: worker {index} cannot accept connections: {errno}; {open} are open, and it tries again every \
                 {ACCEPT_REST:?}"
            ));
        }
        Ok(Next::Rest)
    }

    /// The same for an error that went through std.
    ///
    /// # Errors
    /// As [`failed`](Self::failed).
    #[cfg(any(feature = "tokio", feature = "tokio-uring"))]
    pub(crate) fn failed_io(
        &mut self,
        error: &std::io::Error,
        worker: &Worker,
    ) -> Result<Next, ServeError> {
        match Errno::from_io_error(error) {
            Some(errno) => self.failed(errno, worker),
            None => {
                worker.counters.accept_error(AcceptError::Other);
                let error = std::io::Error::new(error.kind(), error.to_string());
                Err(ServeError::system("cannot accept connections")(error))
            }
        }
    }

    /// A connection was accepted, and there is nothing to serve it with: it was closed.
    pub(crate) fn cannot_serve(&mut self, what: &str, error: &std::io::Error, worker: &Worker) {
        self.log.line(format_args!(
            "note: worker {} {what}: {error}; connections are closed as they come, {} are open",
            worker.index,
            worker.counters.open()
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use echometer_host::signals::Stop;

    use super::*;

    #[test]
    fn what_lasts_rests_and_what_is_chance_does_not() {
        let counters = Arc::default();
        let worker = Worker {
            index: 0,
            cpu: None,
            stop: Stop::new().expect("a pipe"),
            counters: Arc::clone(&counters),
            everyone: Arc::from([counters]),
            gate: Arc::default(),
            news: std::sync::mpsc::channel().0,
        };
        let mut failures = AcceptFailures::default();
        let limit = failures.failed(Errno::MFILE, &worker);
        assert_eq!(limit.expect("it may pass"), Next::Rest);
        for errno in [Errno::PERM, Errno::CONNABORTED] {
            let mut failures = AcceptFailures::default();
            for _ in 1..ABORTED_IN_A_ROW {
                assert_eq!(
                    failures.failed(errno, &worker).expect("it may pass"),
                    Next::Again
                );
            }
            for _ in 0..3 {
                assert_eq!(
                    failures.failed(errno, &worker).expect("it may pass"),
                    Next::Rest
                );
            }
            failures.succeeded();
            assert_eq!(
                failures.failed(errno, &worker).expect("it may pass"),
                Next::Again
            );
        }
        AcceptFailures::default()
            .failed(Errno::BADF, &worker)
            .expect_err("a descriptor that is none stays none");
    }
}
