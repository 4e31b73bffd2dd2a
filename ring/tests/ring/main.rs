//! The ring against real sockets: each pitfall of io_uring that the ring takes on itself is provoked here.

mod bulk;
mod queues;
mod receive;
mod send;
mod slots;
mod support;
mod zero_copy;
