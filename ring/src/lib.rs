//! How do we speak to io_uring safely?
//!
//! This crate is the only one of the workspace that holds `unsafe`. It offers a [`Ring`] whose users can't break
//! memory safety whatever they do: the ring owns every byte and every file that the kernel may touch, gives received
//! bytes out as [`Buffer`] leases, takes bytes to send as a [`Payload`] and hands them back with the completion, and
//! on drop cancels what is in flight and reaps the last completion before any memory is freed.
//!
//! Files live in [`Slot`]s. Behind a slot stands a direct descriptor (a file known to this ring alone, which saves the
//! kernel a reference count on a shared table for each operation) or, where those are switched off, a plain one. Every
//! operation carries a token of `{operation, slot, generation}`, so that a completion which outlived its connection is
//! recognised and swallowed here, and never reaches the connection that has the slot by then.

/// The README's example runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod buffers;
mod bulk;
mod event;
mod faces;
mod features;
mod listener;
mod payload;
mod pools;
mod receive_time;
mod rights;
mod ring;
mod setup;
mod single;
mod slot;
mod slots;
mod tcp_info;
mod token;
mod trials;
mod unsent;

pub use buffers::Buffer;
pub use event::{Errno, Event};
pub use features::{Contradiction, Feature, Features, UnknownFeature};
pub use listener::listen;
pub use payload::{Gather, Payload};
pub use receive_time::{recv_stamped, stamp_receives};
pub use rights::refuse_descriptors;
pub use ring::{Counts, Ring};
pub use setup::{Config, SetupError, plain_ring_is_allowed};
pub use single::Single;
pub use slot::Slot;
pub use tcp_info::tcp_retransmits;
pub use trials::{Offer, can_listen, check_bytes, offers, try_out};
pub use unsent::unsent;
