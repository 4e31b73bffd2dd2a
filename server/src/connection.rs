//! What a connection owes its peer: order, back pressure, half-close, reset and the lingering close at a stop.
//! Events go in, decisions come out; no socket, no clock and no byte is in here, so every engine shares it and
//! its tests need neither network nor time.

mod close_reason;

pub use close_reason::CloseReason;

/// The state of one echoed connection: 16 bytes, whatever the engine.
///
/// The engine reports what happened ([`received`](Self::received), [`sent`](Self::sent),
/// [`peer_closed`](Self::peer_closed), [`failed`](Self::failed), [`stop`](Self::stop),
/// [`receive_ended`](Self::receive_ended), [`shutdown_issued`](Self::shutdown_issued),
/// [`drain_expired`](Self::drain_expired)) and then asks what to do ([`receive`](Self::receive),
/// [`owed`](Self::owed), [`shutdown_due`](Self::shutdown_due), [`close_due`](Self::close_due)). All questions are
/// a few loads; asking after every event is the intended use.
///
/// The bytes themselves, and so their order, are the engine's: it echoes first-in first-out.
///
/// Life of a connection:
///
/// ```text
///            EOF                          nothing owed
/// Echoing ---------> AtEof ------------------------------------------> close
///    | stop()
///    v      receive_ended()            nothing owed: SHUT_WR            EOF, or the drain time
/// Stopping ------------> Flushing ---------------------> Lingering ---------------------------> close
///            (EOF while Stopping or Flushing -> AtEof; a failure anywhere -> close at once)
/// ```
///
/// After an EOF there is no SHUT_WR of its own: the peer has nothing left to say, so nothing unread can turn the
/// close into a reset, and close(2) itself sends the FIN behind the last echoed byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    owed: u32,
    /// Memory that it takes for what is owed, beside the bytes.
    beside: u32,
    owed_max: u32,
    phase: Phase,
    paused: bool,
    /// Stop was requested before the end was known: the close is then a drained one.
    stopping: bool,
    close: Option<CloseReason>,
}

/// What the engine shall do about receiving now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receive {
    /// Receive, and echo what comes.
    Echo,
    /// Receive, and throw away what comes: our side is shut, and only the peer's EOF is awaited. Reading on is
    /// what keeps the kernel from answering the peer's data with a reset, which would destroy echoes on their way.
    Discard,
    /// Do not receive: the peer owes us some reading first, or nothing that came could be of use.
    Pause,
}

/// What becomes of bytes that were received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Fate {
    /// They are owed to the peer now (and count as `bytes_in`).
    Echo,
    /// They are thrown away (and count as `bytes_dropped`).
    Drop,
}

impl Connection {
    /// A connection just accepted. At `owed_max` bytes owed (1 or more) it asks not to be received from, until it
    /// owes at most half of that.
    ///
    /// An engine that receives at most `b` bytes at a time then never owes more than `owed_max - 1 + b`; one whose
    /// receives stay armed adds what arrives until it has cancelled them.
    ///
    /// # Panics
    /// If `owed_max` is 0, which would never receive anything, or above 2^31.
    pub fn new(owed_max: u32) -> Connection {
        assert!(
            0 < owed_max && owed_max <= 1 << 31,
            "a connection must be allowed to owe a byte, and not without bound"
        );
        Connection {
            owed: 0,
            beside: 0,
            owed_max,
            phase: Phase::Echoing,
            paused: false,
            stopping: false,
            close: None,
        }
    }

    /// `n` bytes (2^30 at most) came in. Says what becomes of them. Data that still arrives between [`stop`](Self::stop) and
    /// [`receive_ended`](Self::receive_ended) was taken in and is echoed.
    #[inline]
    pub fn received(&mut self, n: usize) -> Fate {
        let echoing = matches!(self.phase, Phase::Echoing | Phase::Stopping);
        if !echoing || self.close.is_some() {
            return Fate::Drop;
        }
        self.owed = self.owed.saturating_add(n as u32);
        if self.owed_max <= self.owed.saturating_add(self.beside) {
            self.paused = true;
        }
        Fate::Echo
    }

    /// `n` bytes of those owed were handed to the kernel.
    ///
    /// # Panics
    /// In debug builds, if more was sent than is owed: then the engine sent bytes twice.
    #[inline]
    pub fn sent(&mut self, n: usize) {
        debug_assert!(n as u64 <= self.owed(), "sent {n} of {} owed", self.owed);
        self.owed = self.owed.saturating_sub(n as u32);
        if self.owed.saturating_add(self.beside) <= self.owed_max / 2 {
            self.paused = false;
        }
        self.settle();
    }

    /// What is owed takes `bytes` of memory beside itself, for a place in a queue: they count as if they were owed too, so
    /// that small pieces take no more memory than large ones.
    pub fn hold(&mut self, bytes: u32) {
        self.beside = self.beside.saturating_add(bytes);
        if self.owed_max <= self.owed.saturating_add(self.beside) {
            self.paused = true;
        }
    }

    /// That memory is given back.
    pub fn let_go(&mut self, bytes: u32) {
        debug_assert!(bytes <= self.beside, "{bytes} of {}", self.beside);
        self.beside = self.beside.saturating_sub(bytes);
        if self.owed.saturating_add(self.beside) <= self.owed_max / 2 {
            self.paused = false;
        }
    }

    /// The peer's FIN was read. The engine must have nothing more to receive: an EOF ends receiving by itself.
    pub fn peer_closed(&mut self) {
        self.phase = match self.phase {
            Phase::Echoing | Phase::Stopping | Phase::Flushing | Phase::AtEof => Phase::AtEof,
            // Everything was flushed before our side was shut.
            Phase::Lingering => {
                self.close_for(CloseReason::Drained);
                Phase::AtEof
            }
        };
        self.settle();
    }

    /// The connection failed: it is closed at once, and what is owed is lost. The first failure is the one that counts.
    pub fn failed(&mut self, reason: CloseReason) {
        self.close_for(reason);
    }

    /// The server is stopping: no new receive may be started. Follow with [`receive_ended`](Self::receive_ended)
    /// when the last receive already under way is over (at once for an engine with none).
    pub fn stop(&mut self) {
        if self.phase == Phase::Echoing {
            self.phase = Phase::Stopping;
            self.stopping = true;
        }
    }

    /// No receive is under way any more (for a multishot receive: its last completion is in). It matters only while
    /// stopping, so an engine may report it whenever a receive ends.
    pub fn receive_ended(&mut self) {
        if self.phase == Phase::Stopping {
            self.phase = Phase::Flushing;
        }
    }

    /// SHUT_WR was given to the kernel, done or on its way. What comes in from now on is dropped.
    ///
    /// # Panics
    /// In debug builds, if it was not due.
    pub fn shutdown_issued(&mut self) {
        debug_assert!(self.shutdown_due(), "a shutdown that was not due: {self:?}");
        if self.phase == Phase::Flushing {
            self.phase = Phase::Lingering;
        }
    }

    /// The drain time is over: the connection is closed, whatever it still owes.
    pub fn drain_expired(&mut self) {
        self.close_for(CloseReason::DrainExpired);
    }

    /// What to do about receiving now.
    #[inline]
    pub fn receive(&self) -> Receive {
        if self.close.is_some() {
            return Receive::Pause;
        }
        match self.phase {
            Phase::Echoing if !self.paused => Receive::Echo,
            Phase::Lingering => Receive::Discard,
            _ => Receive::Pause,
        }
    }

    /// Bytes taken in and not yet handed to the kernel.
    #[inline]
    pub fn owed(&self) -> u64 {
        u64::from(self.owed)
    }

    /// Whether SHUT_WR is to be issued now (once: see [`shutdown_issued`](Self::shutdown_issued)). Never before
    /// all that is owed was sent.
    #[inline]
    pub fn shutdown_due(&self) -> bool {
        self.phase == Phase::Flushing && self.owed == 0 && self.close.is_none()
    }

    /// Whether the connection is to be closed now, and why. Once it is, it stays so, for the same reason.
    #[inline]
    pub fn close_due(&self) -> Option<CloseReason> {
        self.close
    }

    fn close_for(&mut self, reason: CloseReason) {
        self.close.get_or_insert(reason);
    }

    /// After an EOF, the last byte sent is the end.
    #[inline]
    fn settle(&mut self) {
        if self.phase == Phase::AtEof && self.owed == 0 {
            let reason = if self.stopping {
                CloseReason::Drained
            } else {
                CloseReason::PeerClosed
            };
            self.close_for(reason);
        }
    }
}

/// Where a connection stands; see the drawing at [`Connection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Bytes are taken in and echoed.
    Echoing,
    /// Stop was requested, and a receive may still be under way.
    Stopping,
    /// Nothing comes in any more for echoing; what is owed is sent, and then SHUT_WR.
    Flushing,
    /// Our side is shut; what comes is dropped until the peer's EOF.
    Lingering,
    /// The peer's FIN was read; what is owed is sent, and then the close.
    AtEof,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWED_MAX: u32 = 64 * 1024;
    const PIECE_MAX: usize = 4096;

    #[test]
    fn it_is_small() {
        assert!(size_of::<Connection>() <= 16);
    }

    #[test]
    fn a_half_close_flushes_and_closes() {
        let mut connection = Connection::new(OWED_MAX);
        assert_eq!(connection.received(100), Fate::Echo);
        connection.peer_closed();
        assert_eq!(connection.receive(), Receive::Pause);
        connection.sent(60);
        assert_eq!(connection.close_due(), None);
        connection.sent(40);
        assert_eq!(connection.close_due(), Some(CloseReason::PeerClosed));
        assert!(!connection.shutdown_due());
    }

    #[test]
    fn a_slow_reader_is_paused_and_resumed_with_hysteresis() {
        let mut connection = Connection::new(1000);
        assert_eq!(connection.received(999), Fate::Echo);
        assert_eq!(connection.receive(), Receive::Echo);
        assert_eq!(connection.received(1), Fate::Echo);
        assert_eq!(connection.receive(), Receive::Pause);
        connection.sent(499);
        assert_eq!(connection.receive(), Receive::Pause);
        connection.sent(1);
        assert_eq!(connection.receive(), Receive::Echo);
    }

    #[test]
    fn memory_beside_the_bytes_counts_like_bytes() {
        let mut connection = Connection::new(1000);
        assert_eq!(connection.received(10), Fate::Echo);
        connection.hold(989);
        assert_eq!(connection.receive(), Receive::Echo);
        connection.hold(1);
        assert_eq!(connection.receive(), Receive::Pause);
        connection.let_go(490);
        assert_eq!(connection.receive(), Receive::Pause);
        connection.sent(10);
        assert_eq!(connection.receive(), Receive::Echo);
        assert_eq!(connection.owed(), 0);
    }

    #[test]
    fn a_cap_of_one_byte_means_one_piece_at_a_time() {
        let mut connection = Connection::new(1);
        assert_eq!(connection.received(4096), Fate::Echo);
        connection.sent(4095);
        assert_eq!(connection.receive(), Receive::Pause);
        connection.sent(1);
        assert_eq!(connection.receive(), Receive::Echo);
    }

    #[test]
    fn a_stop_echoes_what_still_arrives_then_shuts_lingers_and_closes() {
        let mut connection = Connection::new(OWED_MAX);
        connection.stop();
        assert_eq!(connection.receive(), Receive::Pause);
        assert_eq!(connection.received(10), Fate::Echo);
        assert!(!connection.shutdown_due());
        connection.receive_ended();
        assert!(!connection.shutdown_due(), "10 bytes are owed");
        assert_eq!(connection.received(5), Fate::Drop);
        connection.sent(10);
        assert!(connection.shutdown_due());
        connection.shutdown_issued();
        assert!(!connection.shutdown_due());
        assert_eq!(connection.receive(), Receive::Discard);
        assert_eq!(connection.received(7), Fate::Drop);
        assert_eq!(connection.close_due(), None);
        connection.peer_closed();
        assert_eq!(connection.close_due(), Some(CloseReason::Drained));
    }

    #[test]
    fn an_eof_during_a_stop_still_flushes_first() {
        let mut connection = Connection::new(OWED_MAX);
        assert_eq!(connection.received(10), Fate::Echo);
        connection.stop();
        connection.peer_closed();
        assert_eq!(connection.close_due(), None);
        connection.sent(10);
        assert_eq!(connection.close_due(), Some(CloseReason::Drained));
    }

    #[test]
    fn a_receive_that_ends_without_a_stop_changes_nothing() {
        let mut connection = Connection::new(OWED_MAX);
        connection.receive_ended();
        assert_eq!(connection.receive(), Receive::Echo);
        assert_eq!(connection.received(3), Fate::Echo);
    }

    #[test]
    fn the_first_failure_counts() {
        let mut connection = Connection::new(OWED_MAX);
        assert_eq!(connection.received(10), Fate::Echo);
        connection.failed(CloseReason::Reset);
        connection.failed(CloseReason::Error);
        connection.drain_expired();
        connection.peer_closed();
        assert_eq!(connection.close_due(), Some(CloseReason::Reset));
        assert_eq!(connection.receive(), Receive::Pause);
        assert_eq!(connection.received(1), Fate::Drop);
    }

    /// What the world does to a connection. The amounts are shares of what is possible at that moment.
    #[derive(Debug, Clone)]
    enum Step {
        /// The engine receives a piece, if the connection asks for it.
        Receive(usize),
        /// A piece that was already on its way arrives although the connection asked for a pause.
        Straggler(usize),
        /// The kernel takes a share (of 255) of what is owed.
        Send(u8),
        Eof,
        Fail,
        Stop,
        ReceiveEnded,
        DrainExpired,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (1..=PIECE_MAX).prop_map(Step::Receive),
            1 => (1..=PIECE_MAX).prop_map(Step::Straggler),
            6 => any::<u8>().prop_map(Step::Send),
            1 => Just(Step::Eof),
            1 => Just(Step::Fail),
            1 => Just(Step::Stop),
            1 => Just(Step::ReceiveEnded),
            1 => Just(Step::DrainExpired),
        ];
        proptest::collection::vec(step, 0..200)
    }

    /// The naive model: plain sums, and flags for what has happened.
    #[derive(Default)]
    struct Model {
        taken_in: u64,
        sent: u64,
        dropped: u64,
        stragglers: u64,
        eof: bool,
        failed: bool,
        stopped: bool,
        receive_over: bool,
        shut: bool,
        expired: bool,
        close: Option<CloseReason>,
    }

    impl Model {
        fn may_echo(&self) -> bool {
            !self.eof && !self.receive_over && self.close.is_none()
        }

        fn owed(&self) -> u64 {
            self.taken_in - self.sent
        }

        fn expected_close(&self) -> Option<CloseReason> {
            if self.close.is_some() {
                self.close
            } else if self.failed {
                Some(CloseReason::Reset)
            } else if self.expired {
                Some(CloseReason::DrainExpired)
            } else if self.eof && self.owed() == 0 {
                Some(if self.stopped {
                    CloseReason::Drained
                } else {
                    CloseReason::PeerClosed
                })
            } else {
                None
            }
        }
    }

    fn apply(connection: &mut Connection, model: &mut Model, step: &Step) {
        match *step {
            Step::Receive(_) if model.eof || (model.receive_over && !model.shut) => {}
            Step::Receive(n) => {
                if connection.receive() != Receive::Pause {
                    take_in(connection, model, n);
                }
            }
            Step::Straggler(n) => {
                if !model.eof && !model.receive_over {
                    model.stragglers += n as u64;
                    take_in(connection, model, n);
                }
            }
            Step::Send(share) => {
                let n = model.owed() * u64::from(share) / 255;
                if n > 0 && model.close.is_none() {
                    model.sent += n;
                    connection.sent(n as usize);
                }
            }
            Step::Eof => {
                model.eof = true;
                connection.peer_closed();
            }
            Step::Fail => {
                model.failed = true;
                connection.failed(CloseReason::Reset);
            }
            Step::Stop => {
                model.stopped |= !model.eof;
                connection.stop();
            }
            Step::ReceiveEnded => {
                model.receive_over |= model.stopped;
                connection.receive_ended();
            }
            Step::DrainExpired => {
                model.expired = true;
                connection.drain_expired();
            }
        }
        if connection.shutdown_due() {
            assert_eq!(model.owed(), 0, "no shutdown before all is sent");
            assert!(
                model.receive_over && !model.shut,
                "one shutdown, after the last receive"
            );
            model.shut = true;
            connection.shutdown_issued();
        }
        model.close = model.expected_close();
    }

    fn take_in(connection: &mut Connection, model: &mut Model, n: usize) {
        match connection.received(n) {
            Fate::Echo => {
                assert!(
                    model.may_echo(),
                    "bytes echoed that nobody should have taken in"
                );
                model.taken_in += n as u64;
            }
            Fate::Drop => {
                assert!(!model.may_echo(), "bytes lost");
                model.dropped += n as u64;
            }
        }
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_doubled_or_hoarded(steps in steps()) {
            let mut connection = Connection::new(OWED_MAX);
            let mut model = Model::default();
            for step in &steps {
                apply(&mut connection, &mut model, step);
                prop_assert_eq!(connection.owed(), model.owed());
                let bound = u64::from(OWED_MAX) - 1 + PIECE_MAX as u64 + model.stragglers;
                prop_assert!(connection.owed() <= bound);
                prop_assert_eq!(connection.close_due(), model.close);
                if model.close.is_some() {
                    prop_assert_eq!(connection.receive(), Receive::Pause);
                    prop_assert!(!connection.shutdown_due());
                }
            }
        }

        #[test]
        fn every_history_can_be_ended_by_a_stop(steps in steps()) {
            let mut connection = Connection::new(OWED_MAX);
            let mut model = Model::default();
            for step in &steps {
                apply(&mut connection, &mut model, step);
            }
            for step in [Step::Stop, Step::ReceiveEnded, Step::Send(255), Step::Eof] {
                prop_assert!(connection.close_due().is_none() || model.close.is_some());
                apply(&mut connection, &mut model, &step);
            }
            prop_assert!(connection.close_due().is_some());
            prop_assert_eq!(connection.close_due(), model.close);
        }

        #[test]
        fn an_echoing_connection_never_waits_for_nothing(steps in steps()) {
            // Liveness: a live connection that owes nothing always has something to wait for.
            let mut connection = Connection::new(OWED_MAX);
            let mut model = Model::default();
            for step in &steps {
                apply(&mut connection, &mut model, step);
                if connection.owed() == 0 && connection.close_due().is_none() {
                    let stopping = model.stopped && !model.receive_over;
                    prop_assert!(connection.receive() != Receive::Pause || stopping);
                }
            }
        }
    }
}
