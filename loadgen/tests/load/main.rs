//! The load generator against real servers over real sockets: our own echo server, and peers that break every promise.

mod accounting;
mod addresses;
mod breaking_peers;
mod churn;
mod command;
mod loads;
mod recv_lag;
mod scarce;
mod support;
mod truths;
mod verdicts;

/// Makes one test for each client engine out of a function over the engine.
macro_rules! for_each_engine {
    ($($(#[$attribute:meta])* fn $name:ident;)*) => {
        mod uring {
            $($(#[$attribute])* #[test] fn $name() { super::$name(echometer_loadgen::plan::Engine::Uring); })*
        }
        mod epoll {
            $($(#[$attribute])* #[test] fn $name() { super::$name(echometer_loadgen::plan::Engine::Epoll); })*
        }
    };
}
pub(crate) use for_each_engine;
