//! The files that a ring holds, one a slot, and what is in flight on each of them.

use std::os::fd::OwnedFd;

use crate::event::Payload;
use crate::token::Op;

/// Where a ring keeps one file: a socket, a listener, an eventfd. Below 2^24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub(crate) u32);

impl Slot {
    /// The highest number that fits the token's 24 bits.
    pub(crate) const MAX: u32 = 0x00ff_ffff;

    /// The slot's number, for tables beside the ring: dense, from 0, below the `slots` of the configuration.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A slot's life. A slot is `Closing` from the call of `close` until nothing of it is in flight and the kernel was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Vacant,
    Open,
    Closing,
}

/// One slot: small, because a server holds one for each connection that it may ever have.
pub(crate) struct State {
    pub(crate) generation: u32,
    /// Operations of this generation that have not had their last completion.
    pub(crate) in_flight: u16,
    pub(crate) life: Life,
    /// The receive, accept or poll that is armed: one at a time.
    pub(crate) armed: Option<Op>,
    /// The armed one was told to end, and its last completion is not here yet.
    pub(crate) cancelling: bool,
    /// The slot's number was our choice and not the kernel's, so that it is ours to hand out again.
    chosen_here: bool,
    /// The plain descriptor, where direct ones are off.
    pub(crate) file: Option<OwnedFd>,
    /// The bytes that the kernel is sending: one send at a time, because two on one socket corrupt its stream (a short
    /// first send is followed by the second's bytes).
    pub(crate) sending: Option<Payload>,
}

impl State {
    pub(crate) fn vacant() -> State {
        State {
            generation: 0,
            in_flight: 0,
            life: Life::Vacant,
            armed: None,
            chosen_here: false,
            cancelling: false,
            file: None,
            sending: None,
        }
    }

    /// A new file takes the slot: the generation moves on, so that completions of the last one are strangers.
    pub(crate) fn open(&mut self, file: Option<OwnedFd>) {
        self.generation = self.generation.wrapping_add(1);
        self.in_flight = 0;
        self.chosen_here = false;
        self.life = Life::Open;
        self.armed = None;
        self.cancelling = false;
        self.file = file;
        self.sending = None;
    }
}

/// All slots of a ring. Grows up to its limit as slots are first used, so that an idle server stays small.
pub(crate) struct Slots {
    states: Vec<State>,
    limit: u32,
    /// Slots that were used and are vacant again; only those of our own choice.
    vacant: Vec<u32>,
}

impl Slots {
    pub(crate) fn new(limit: u32) -> Slots {
        Slots {
            states: Vec::new(),
            limit,
            vacant: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn state(&mut self, slot: Slot) -> &mut State {
        &mut self.states[slot.index()]
    }

    #[inline]
    pub(crate) fn try_state(&mut self, slot: Slot) -> Option<&mut State> {
        self.states.get_mut(slot.index())
    }

    /// Takes a vacant slot of our own choice, or `None` at the limit.
    pub(crate) fn take(&mut self, file: Option<OwnedFd>) -> Option<Slot> {
        let index = match self.vacant.pop() {
            Some(index) => index,
            None if (self.states.len() as u32) < self.limit => self.states.len() as u32,
            None => return None,
        };
        self.occupy(Slot(index), file);
        self.state(Slot(index)).chosen_here = true;
        Some(Slot(index))
    }

    /// Marks a slot that the kernel chose (a direct descriptor) as taken.
    pub(crate) fn occupy(&mut self, slot: Slot, file: Option<OwnedFd>) {
        while self.states.len() <= slot.index() {
            self.states.push(State::vacant());
        }
        self.state(slot).open(file);
    }

    /// The file of a slot is closed, and the kernel said so: a number of our choice may be handed out again. (Earlier
    /// it may not: the close of a direct descriptor would hit the file that took its place.)
    pub(crate) fn closed(&mut self, slot: Slot) {
        let state = self.state(slot);
        if std::mem::take(&mut state.chosen_here) {
            self.vacant.push(slot.0);
        }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut State)> {
        self.states
            .iter_mut()
            .enumerate()
            .map(|(index, state)| (Slot(index as u32), state))
    }
}
