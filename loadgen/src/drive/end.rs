//! How things end: a connection that fails, the load, and the waiting for answers after it.

use crate::{
    drive::{Connections, Session, stretch::Stretch},
    engine::{Closing, Engine},
    failure::Failure,
    flow::{End, Message},
    lives::Unfinished,
};

/// So many messages that were due and never sent are gone through at the end; beyond, they are only counted. With a rate
/// that nobody can deliver there may be a thousand million of them.
const REPLAYED_MAX: u64 = 4 << 20;

impl Connections {
    /// A connection that was open has failed, and is closed already: what was in flight is lost. It is dialed again where
    /// that was asked for; else what waits for it is unsent.
    #[cold]
    pub(super) fn fail(
        &mut self,
        stretch: &mut Stretch<'_>,
        connection: usize,
        failure: Failure,
        now_ns: u64,
    ) {
        stretch.failures.count(failure);
        let dialed_again = self
            .lives
            .as_mut()
            .is_some_and(|lives| lives.failed(connection, now_ns));
        let recorder = &mut stretch.recorder;
        let mut lost = 0;
        let on_end = |end, message: Message| match end {
            End::Written => {
                lost += 1;
                recorder.unanswered(message, false, now_ns);
            }
            End::Unsent => recorder.unsent(message.due_ns, now_ns),
        };
        if !dialed_again {
            self.flow.lose(connection, on_end);
            return;
        }
        self.flow.interrupt(connection, on_end);
        if stretch.answers_make_messages() {
            // A closed loop has as much to send as ever.
            for _ in 0..lost {
                self.flow.due(connection as u32, now_ns);
            }
        }
    }

    /// A connection could not be made, and is closed already: it is tried again, or what waits for it is unsent.
    #[cold]
    pub(super) fn fail_to_connect(
        &mut self,
        stretch: &mut Stretch<'_>,
        connection: usize,
        failure: Failure,
        now_ns: u64,
    ) {
        let Some(lives) = &mut self.lives else {
            return;
        };
        stretch.failures.count(failure);
        if !lives.not_connected(connection, now_ns) {
            self.flow.lose(connection, |_, message| {
                stretch.recorder.unsent(message.due_ns, now_ns);
            });
        }
    }

    /// The load has ended, and what remains is to be answered. In closed loop (not `keep_queued`) no message waits any
    /// more: what was to be sent next was not due. Connections are made from now on only for messages that still wait.
    pub(super) fn end_load(&mut self, keep_queued: bool) {
        self.thinking.clear();
        if !keep_queued {
            (0..self.flow.connections()).for_each(|connection| self.flow.withdraw(connection));
        }
        if let Some(lives) = &mut self.lives {
            lives.drop_waiting(|connection| self.flow.has_queued(connection));
        }
    }
}

impl<E: Engine> Session<E> {
    /// The end of the waiting: whoever is not answered by now is outstanding, and its connection is of no use to a
    /// later stretch, because the answer may still come. Gives how many those are.
    pub(super) fn abandon(&mut self, stretch: &mut Stretch<'_>) -> u64 {
        let now_ns = stretch.now_ns;
        let Connections { flow, lives, .. } = &mut self.connections;
        let recorder = &mut stretch.recorder;
        let mut outstanding = 0;
        for connection in 0..flow.connections() {
            let unfinished = lives
                .as_ref()
                .and_then(|lives| lives.unfinished(connection));
            match unfinished {
                Some(Unfinished::Connect) => stretch.failures.count(Failure::ConnectTimedOut),
                Some(Unfinished::Close) => stretch.failures.count(Failure::NotClosed),
                None => {}
            }
            if flow.is_idle(connection) && unfinished.is_none() {
                continue;
            }
            self.engine.close(connection, Closing::Fin);
            let on_end = |end, message: Message| match end {
                End::Written => recorder.unanswered(message, true, now_ns),
                End::Unsent => recorder.unsent(message.due_ns, now_ns),
            };
            outstanding += match lives {
                Some(lives) => {
                    lives.abandoned(connection);
                    flow.interrupt_waiting(connection, on_end)
                }
                None => flow.abandon(connection, on_end),
            };
        }
        self.connections.count_never_due(stretch);
        outstanding
    }
}

impl Connections {
    /// What the schedule still holds and was due before the end is unsent.
    fn count_never_due(&mut self, stretch: &mut Stretch<'_>) {
        let (stop_ns, now_ns) = (stretch.stop_ns, stretch.now_ns);
        let Some(schedule) = &mut stretch.schedule else {
            return;
        };
        if stop_ns == 0 {
            return;
        }
        // One by one as long as that takes no time to speak of, so that with a seed the same messages are due.
        for _ in 0..REPLAYED_MAX {
            let Some(due) = schedule.take_due(stop_ns - 1) else {
                break;
            };
            self.flow.never_due(1);
            stretch.recorder.unsent(due.at_ns, now_ns);
        }
        while schedule.next_at_ns() < stop_ns {
            let due_ns = schedule.next_at_ns();
            let end_ns = stretch.recorder.alike_until(due_ns, now_ns).min(stop_ns);
            let count = schedule.count_due(end_ns);
            self.flow.never_due(count);
            stretch.recorder.unsent_alike(due_ns, now_ns, count);
        }
    }
}
