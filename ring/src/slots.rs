//! The files that a ring holds, one a slot, and what is in flight on each of them.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::event::{Event, Payload};
use crate::pools::Group;
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

/// Where the armed receive of a connection with much to bring stands: it is watched for, it waits for its turn, it
/// receives (see [`Turns`](crate::turns::Turns)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It takes no turns, or none is armed.
    None,
    /// There is nothing to receive: the watch will say when.
    Watched,
    /// There is something, and it is another's turn.
    Waiting,
    /// A receive that doesn't wait is in flight.
    Receiving,
    /// None is armed, and the last one left something in the socket.
    More,
}

/// The poll that says when there is something to receive, time after time: for receives that take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    None,
    InFlight,
    /// It was told to end, because the connection has little to bring.
    Ending,
}

/// One slot: one cache line, because a server holds one for each connection that it may ever have, and at thousands of
/// them each line that a message touches is fetched anew.
#[repr(align(64))]
pub(crate) struct State {
    pub(crate) generation: u32,
    /// Operations of this generation that have not had their last completion.
    pub(crate) in_flight: u16,
    pub(crate) life: Life,
    /// The receive, accept or poll that is armed: one at a time.
    pub(crate) armed: Option<Op>,
    /// The armed one was told to end, and its last completion is not here yet.
    pub(crate) cancelling: bool,
    /// A connect is in flight.
    pub(crate) connecting: bool,
    /// For so many receives more the connection is taken to bring more at a time than a small buffer holds.
    pub(crate) much: u8,
    /// Where its receive stands, if that takes turns.
    pub(crate) stage: Stage,
    pub(crate) watch: Watch,
    /// There may be something to receive that the watch won't speak of again.
    pub(crate) readable: bool,
    /// Which buffers the armed receive picks from.
    pub(crate) group: Group,
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
    pub(crate) fn vacant() -> State {
        State {
            generation: 0,
            in_flight: 0,
            life: Life::Vacant,
            armed: None,
            connecting: false,
            much: 0,
            stage: Stage::None,
            watch: Watch::None,
            readable: true,
            group: Group::Small,
            chosen_here: false,
            closing_file: false,
            cancelling: false,
            file: None,
            sending: None,
            notifying: false,
            outcome: 0,
            ticket: 0,
        }
    }

    /// A new file takes the slot: the generation moves on, so that completions of the last one are strangers.
    pub(crate) fn open(&mut self, file: Option<OwnedFd>) {
        self.generation = self.generation.wrapping_add(1);
        self.in_flight = 0;
        self.connecting = false;
        self.much = 0;
        self.stage = Stage::None;
        self.watch = Watch::None;
        self.readable = true;
        self.group = Group::Small;
        self.chosen_here = false;
        self.closing_file = false;
        self.life = Life::Open;
        self.armed = None;
        self.cancelling = false;
        self.file = file;
        self.sending = None;
        self.notifying = false;
        self.ticket = 0;
    }

    /// The receive that takes turns has ended without having received: it was cancelled, or can't be watched for.
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
        self.in_flight == u16::from(self.notifying)
    }
}

/// All slots of a ring. Grows up to its limit as slots are first used, so that an idle server stays small.
pub(crate) struct Slots {
    states: Vec<State>,
    limit: u32,
    /// Slots of our own choice that were left, the last one last: where to look first.
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

    /// Takes a vacant slot of our own choice, or `None` when there is none.
    pub(crate) fn take(&mut self, file: Option<OwnedFd>) -> Option<Slot> {
        let slot = match self.vacant.pop() {
            Some(index) if self.is_vacant(index) => Slot(index),
            _ if (self.states.len() as u32) < self.limit => Slot(self.states.len() as u32),
            // The list is only a hint: the kernel takes and leaves slots too.
            _ => Slot((0..self.limit).find(|index| self.is_vacant(*index))?),
        };
        self.occupy(slot, file);
        self.state(slot).chosen_here = true;
        Some(slot)
    }

    fn is_vacant(&self, index: u32) -> bool {
        let state = &self.states[index as usize];
        state.life == Life::Vacant && !state.closing_file
    }

    /// A slot has no file any more, from the moment that its close is asked for.
    pub(crate) fn vacate(&mut self, slot: Slot) {
        let state = self.state(slot);
        state.generation = state.generation.wrapping_add(1);
        state.life = Life::Vacant;
        state.file = None;
        state.closing_file = true;
    }

    /// The close is done, and the slot may be taken again.
    pub(crate) fn closed(&mut self, slot: Slot) {
        let state = self.state(slot);
        if std::mem::take(&mut state.closing_file) && state.chosen_here {
            self.vacant.push(slot.0);
        }
    }

    /// Marks a slot that the kernel chose (a direct descriptor) as taken.
    pub(crate) fn occupy(&mut self, slot: Slot, file: Option<OwnedFd>) {
        while self.states.len() <= slot.index() {
            self.states.push(State::vacant());
        }
        self.state(slot).open(file);
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut State)> {
        self.states
            .iter_mut()
            .enumerate()
            .map(|(index, state)| (Slot(index as u32), state))
    }
}
