//! The parts of io_uring that can be switched, each by its name, so that a gain can be attributed to it.

use std::fmt;
use std::str::FromStr;

/// One part of io_uring that the ring can do with or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Feature {
    /// One accept request that yields connection after connection (5.19). It takes all that wait in the listen queue at once,
    /// and everybody else waits meanwhile: without it, a few are accepted at a time.
    MultishotAccept,
    /// One receive request a connection that yields piece after piece (6.0).
    MultishotRecv,
    /// One receive that fills several buffers where more has arrived than one holds (6.10).
    Bundle,
    /// Large messages are received into large buffers, one connection after the other (5.19). It takes large buffers:
    /// `Config::large_buffers`.
    BulkRecv,
    /// Several pieces for one connection leave as one `sendmsg`.
    Gather,
    /// Sends that go out at once, whole, say nothing: no completion is written or read for them (5.17).
    SkipSuccess,
    /// Direct descriptors: files known to the ring alone (5.19 for allocation by the kernel). Before 6.13 one that is closed
    /// is let go only when all requests are over that began before, an armed accept too; there they are not used.
    Direct,
    /// Completions are worked off when the ring's own thread asks, not by interrupting it (6.1).
    DeferTaskrun,
    /// The ring's own descriptor is registered, which saves its look-up on each enter (5.18).
    RegisteredRing,
    /// No index array between the kernel and the submission queue (6.6).
    NoSqarray,
    /// The server's socket, bind and listen are operations too (6.11).
    BindListen,
    /// Zero-copy sends (6.0). On loopback the kernel copies all the same: a gain seen there is none. A slow reader keeps
    /// the buffers of what was sent to it, so that the pool should be large.
    SendZc,
    /// Busy polling of the network card's queue while waiting (6.9). Loopback has none.
    Napi,
    /// A kernel thread takes what is submitted (5.11 for ordinary files and users).
    Sqpoll,
    /// The ring is confined to what a server needs (5.10): a hole in the server is then no door to the rest of io_uring.
    Restrictions,
}

impl Feature {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Feature; 15] = [
        Feature::MultishotAccept,
        Feature::MultishotRecv,
        Feature::Bundle,
        Feature::BulkRecv,
        Feature::Gather,
        Feature::SkipSuccess,
        Feature::Direct,
        Feature::DeferTaskrun,
        Feature::RegisteredRing,
        Feature::NoSqarray,
        Feature::BindListen,
        Feature::SendZc,
        Feature::Napi,
        Feature::Sqpoll,
        Feature::Restrictions,
    ];

    /// The name on the command line, in the ready line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Feature::MultishotAccept => "multishot-accept",
            Feature::MultishotRecv => "multishot-recv",
            Feature::Bundle => "bundle",
            Feature::BulkRecv => "bulk-recv",
            Feature::Gather => "gather",
            Feature::SkipSuccess => "skip-success",
            Feature::Direct => "direct",
            Feature::DeferTaskrun => "defer-taskrun",
            Feature::RegisteredRing => "registered-ring",
            Feature::NoSqarray => "no-sqarray",
            Feature::BindListen => "bind-listen",
            Feature::SendZc => "send-zc",
            Feature::Napi => "napi",
            Feature::Sqpoll => "sqpoll",
            Feature::Restrictions => "restrictions",
        }
    }

    fn bit(self) -> u32 {
        1 << self as u8
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no feature's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown ring feature '{name}'; known are {}", Feature::ALL.map(Feature::name).join(", "))]
pub struct UnknownFeature {
    name: String,
}

impl FromStr for Feature {
    type Err = UnknownFeature;

    fn from_str(name: &str) -> Result<Feature, UnknownFeature> {
        Feature::ALL
            .into_iter()
            .find(|feature| feature.name() == name)
            .ok_or_else(|| UnknownFeature { name: name.into() })
    }
}

/// Two features that exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "ring features {one} and {other} exclude each other ({why}); switch one of them off: -{one} or -{other}"
)]
pub struct Contradiction {
    one: Feature,
    other: Feature,
    why: &'static str,
}

/// Which exclude each other, and why.
const CONTRADICTIONS: [Contradiction; 4] = [
    Contradiction {
        one: Feature::Sqpoll,
        other: Feature::DeferTaskrun,
        why: "the kernel answers EINVAL: with a polling thread there is no thread to defer to",
    },
    Contradiction {
        one: Feature::Sqpoll,
        other: Feature::SkipSuccess,
        why: "a silent send's success is known when the submit returns, and the polling thread sends later",
    },
    Contradiction {
        one: Feature::SendZc,
        other: Feature::SkipSuccess,
        why: "a zero-copy send must say when its buffer is free",
    },
    Contradiction {
        one: Feature::SendZc,
        other: Feature::Gather,
        why: "a gathered send is a sendmsg, and this engine's zero-copy send is a send",
    },
];

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Features(u32);

impl Features {
    /// None of them: one request per operation.
    pub const NONE: Features = Features(0);

    /// Every one, contradictions included.
    fn all() -> Features {
        Feature::ALL
            .into_iter()
            .fold(Features::NONE, Features::with)
    }

    /// Whether `feature` is in the set.
    #[inline]
    pub fn has(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// The set with `feature` in it.
    #[must_use]
    pub fn with(self, feature: Feature) -> Features {
        Features(self.0 | feature.bit())
    }

    /// The set without `feature`.
    #[must_use]
    pub fn without(self, feature: Feature) -> Features {
        Features(self.0 & !feature.bit())
    }

    /// Whether all in the set can be used together.
    ///
    /// # Errors
    /// The first two that can't.
    pub fn check(self) -> Result<(), Contradiction> {
        CONTRADICTIONS
            .into_iter()
            .find(|pair| self.has(pair.one) && self.has(pair.other))
            .map_or(Ok(()), Err)
    }

    /// Those in the set, in the order in which they are shown.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.into_iter().filter(move |f| self.has(*f))
    }
}

impl Default for Features {
    /// What pays, or costs nothing, on a kernel that has it all.
    fn default() -> Features {
        [
            Feature::MultishotAccept,
            Feature::SendZc,
            Feature::Napi,
            Feature::Sqpoll,
            Feature::Restrictions,
        ]
        .into_iter()
        .fold(Features::all(), Features::without)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(Feature::name))
            .finish()
    }
}

/// What a kernel can beside its features, each found out by a trial.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras {
    /// It bounds what a multishot receive takes (6.17).
    pub(crate) recv_limit: bool,
    /// An accept may look first whether anybody waits, which spares it the making of a socket for nobody (6.10).
    pub(crate) accept_poll_first: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for feature in Feature::ALL {
            assert_eq!(feature.name().parse(), Ok(feature));
        }
    }

    #[test]
    fn an_unknown_name_gets_the_list() {
        let error = "warp".parse::<Feature>().unwrap_err().to_string();
        assert!(
            error.contains("'warp'") && error.contains("multishot-recv"),
            "{error}"
        );
    }

    #[test]
    fn contradictions_are_named_with_their_cure() {
        assert_eq!(Features::default().check(), Ok(()));
        assert_eq!(Features::NONE.check(), Ok(()));
        let error = Features::default().with(Feature::Sqpoll).check();
        let error = error.unwrap_err().to_string();
        assert!(error.contains("-defer-taskrun"), "{error}");
        let quiet = Features::default()
            .with(Feature::SendZc)
            .without(Feature::SkipSuccess);
        assert!(quiet.check().unwrap_err().to_string().contains("gather"));
        assert_eq!(quiet.without(Feature::Gather).check(), Ok(()));
    }

    #[test]
    fn sets_add_and_remove() {
        let set = Features::NONE
            .with(Feature::Direct)
            .with(Feature::DeferTaskrun);
        assert!(set.has(Feature::Direct) && !set.has(Feature::MultishotRecv));
        assert!(!set.without(Feature::Direct).has(Feature::Direct));
    }
}
