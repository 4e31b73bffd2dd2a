//! The files that a ring holds, one per slot, and what is in flight on each of them.

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::event::Event;
use crate::payload::Payload;
use crate::slot::{Naming, Slot, next_generation};
use crate::token::Op;

/// A slot's life. A slot is `Closing` from the call of `close` until nothing of it is in flight and the kernel was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Vacant,
    Open,
    Closing,
}

/// Where an armed bulk receive stands (see [`BulkQueue`](crate::bulk::BulkQueue)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No bulk receive is armed.
    None,
    /// The socket is empty: the readiness poll will say when it isn't.
    Polled,
    /// The socket has bytes, and another connection receives.
    Queued,
    /// A receive that doesn't wait is in flight.
    Receiving,
    /// None is armed, and the last one left bytes in the socket.
    More,
}

/// The multishot poll that says when a bulk receive would find bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    None,
    InFlight,
    /// It was told to end, because the connection sends small messages again.
    Ending,
}

/// One slot: one cache line, because a server holds one for each connection that it may ever have, and at thousands of
/// them each line that a message touches is fetched anew.
#[repr(align(64))]
pub(crate) struct State {
    pub(crate) generation: NonZeroU32,
    /// Operations of this generation that have not had their last completion. They are few: what is armed (an accept: up to
    /// [`ACCEPTS`](crate::Ring::ACCEPTS)), polls for readiness and room, a send, a connect, a shutdown, and the cancels of these.
    pub(crate) in_flight: u8,
    pub(crate) life: Life,
    /// The receive, accept or poll that is armed: one at a time.
    pub(crate) armed: Option<Op>,
    /// The armed one was told to end, and its last completion is not here yet.
    pub(crate) cancelling: bool,
    /// A connect is in flight.
    pub(crate) connecting: bool,
    /// A shutdown is in flight.
    pub(crate) shutting: bool,
    /// The poll for room is in flight.
    pub(crate) room: bool,
    /// A plain descriptor was asked for.
    pub(crate) opening: bool,
    /// The close is to be a reset.
    pub(crate) resetting: bool,
    /// Accepts in flight, and whether each is followed by another.
    pub(crate) accepts: u8,
    pub(crate) accepts_go_on: bool,
    /// How many receives more are taken for bulk receives.
    pub(crate) bulk_left: u8,
    /// Where its bulk receive stands.
    pub(crate) stage: Stage,
    pub(crate) readiness: Readiness,
    /// The socket may hold bytes that the readiness poll won't speak of again.
    pub(crate) readable: bool,
    /// The slot's number was our choice and not the kernel's.
    chosen_here: bool,
    /// The close of its last file was asked for and is not done: a new file put here now would be what it hits.
    closing_file: bool,
    /// The plain descriptor, where direct ones are off.
    pub(crate) file: Option<OwnedFd>,
    /// The bytes that the kernel is sending: one send at a time, because two on one socket corrupt its stream (a short
    /// first send is followed by the second's bytes).
    pub(crate) sending: Option<Payload>,
    /// A zero-copy send has said its `outcome`, and its buffer is the kernel's until the notification.
    pub(crate) notifying: bool,
    pub(crate) outcome: i32,
    /// That send says nothing when it succeeds: its ticket, which no other silent send of late has. 0: it will speak.
    pub(crate) ticket: u32,
}

const _: () = assert!(size_of::<State>() == 64);

impl State {
    fn vacant(generation: NonZeroU32) -> State {
        State {
            generation,
            in_flight: 0,
            life: Life::Vacant,
            armed: None,
            cancelling: false,
            connecting: false,
            shutting: false,
            room: false,
            opening: false,
            resetting: false,
            accepts: 0,
            accepts_go_on: false,
            bulk_left: 0,
            stage: Stage::None,
            readiness: Readiness::None,
            readable: true,
            chosen_here: false,
            closing_file: false,
            file: None,
            sending: None,
            notifying: false,
            outcome: 0,
            ticket: 0,
        }
    }

    /// A new file takes the slot: the generation moves on, so that completions of the last one are strangers.
    ///
    /// # Panics
    /// When the slot is not vacant: the kernel would then still work for its file.
    fn open(&mut self, file: Option<OwnedFd>) {
        assert!(
            self.life == Life::Vacant && self.sending.is_none(),
            "a slot is taken twice"
        );
        *self = State {
            life: Life::Open,
            file,
            ..State::vacant(next_generation(self.generation))
        };
    }

    /// The bulk receive has ended without having received: it was cancelled, or readiness can't be polled for.
    pub(crate) fn receive_failed(&mut self, slot: Slot, errno: Errno) -> Event {
        self.armed = None;
        self.cancelling = false;
        self.stage = Stage::None;
        Event::Recv {
            slot,
            result: Err(errno),
            more: false,
        }
    }

    /// Whether the file may be closed: nothing is in flight but the notification of a zero-copy send, which is no
    /// operation on the file and may take as long as the peer doesn't read.
    #[inline]
    pub(crate) fn may_close(&self) -> bool {
        self.in_flight == u8::from(self.notifying)
    }
}

/// All slots of a ring. Grows up to its limit as slots are first used, so that an idle server stays small.
pub(crate) struct Slots {
    states: Vec<State>,
    naming: Naming,
    limit: u32,
    /// The kernel takes and leaves slots too: those of accepted connections, with direct descriptors.
    shared: bool,
    /// Slots of our own choice that were left, the last one last: where to look first.
    vacant: Vec<u32>,
}

impl Slots {
    /// `limit` slots of the ring that is named so. `shared`: the kernel chooses slots too.
    ///
    /// The table never moves: memory that no slot has used yet is only an address range, where one that grew would copy
    /// megabytes between two messages and leave its former places behind.
    pub(crate) fn new(naming: Naming, limit: u32, shared: bool) -> Slots {
        Slots {
            states: Vec::with_capacity(limit as usize),
            naming,
            limit,
            shared,
            vacant: Vec::new(),
        }
    }

    /// The state of a slot that the ring itself knows to exist.
    #[inline]
    pub(crate) fn state(&mut self, slot: Slot) -> &mut State {
        &mut self.states[slot.index()]
    }

    /// The state of a slot that a user names.
    ///
    /// # Panics
    /// When it names no open file of this ring: the file was closed, or the slot is another ring's.
    #[inline]
    pub(crate) fn open(&mut self, slot: Slot) -> &mut State {
        self.find(slot)
            .expect("the slot's file is closed, or it is another ring's")
    }

    /// As [`Slots::open`]; `None` for a slot that names no open file of this ring.
    #[inline]
    pub(crate) fn find(&mut self, slot: Slot) -> Option<&mut State> {
        if slot.tag() != self.naming.tag {
            return None;
        }
        let state = self.states.get_mut(slot.index())?;
        (state.generation == slot.generation() && state.life == Life::Open).then_some(state)
    }

    /// The state of the place that a completion names, if any file was ever there, and the slot that it has now.
    #[inline]
    pub(crate) fn at(&mut self, number: u32) -> Option<(Slot, &mut State)> {
        let tag = self.naming.tag;
        let state = self.states.get_mut(number as usize)?;
        Some((Slot::new(tag, number, state.generation), state))
    }

    /// The slot that a file had which is gone by now, for its last event.
    pub(crate) fn former(&self, number: u32, generation: u32) -> Option<Slot> {
        let generation = NonZeroU32::new(generation)?;
        Some(Slot::new(self.naming.tag, number, generation))
    }

    /// A slot that is never open: for what belongs to no file.
    pub(crate) fn nowhere(&self) -> Slot {
        Slot::new(self.naming.tag, Slot::INDEX_MAX, NonZeroU32::MIN)
    }

    /// Takes a vacant slot of our own choice, or `None` when there is none.
    pub(crate) fn take(&mut self, file: Option<OwnedFd>) -> Option<Slot> {
        let number = match self.vacant.pop() {
            Some(number) if self.is_vacant(number) => number,
            _ if (self.states.len() as u32) < self.limit => self.states.len() as u32,
            // The list is only a hint then.
            _ if self.shared => (0..self.limit).find(|number| self.is_vacant(*number))?,
            _ => return None,
        };
        let slot = self.occupy(number, file);
        self.state(slot).chosen_here = true;
        Some(slot)
    }

    fn is_vacant(&self, number: u32) -> bool {
        let state = &self.states[number as usize];
        state.life == Life::Vacant && !state.closing_file
    }

    /// A slot has no file any more, from the moment that its close is asked for.
    pub(crate) fn vacate(&mut self, slot: Slot) {
        let state = self.state(slot);
        state.generation = next_generation(state.generation);
        state.life = Life::Vacant;
        state.file = None;
        state.closing_file = true;
    }

    /// The close is done, and the slot may be taken again.
    pub(crate) fn closed(&mut self, slot: Slot) {
        let state = self.state(slot);
        if std::mem::take(&mut state.closing_file) && state.chosen_here {
            self.vacant.push(slot.number());
        }
    }

    /// Marks a place that the kernel chose (a direct descriptor) as taken.
    ///
    /// # Panics
    /// When it is taken already.
    pub(crate) fn occupy(&mut self, number: u32, file: Option<OwnedFd>) -> Slot {
        while self.states.len() <= number as usize {
            self.states.push(State::vacant(self.naming.first));
        }
        let state = &mut self.states[number as usize];
        state.open(file);
        Slot::new(self.naming.tag, number, state.generation)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut State> {
        self.states.iter_mut()
    }
}
