//! What this kernel does, found by trying: before the first ring of its kind, a process rehearses what a server does with
//! each feature, on sockets of its own. Nothing is decided by a version, but for the table of kernels whose bundles are
//! known to corrupt streams.
//!
//! A feature whose trial fails is not used. Where a trial fails that there is no doing without, there is no ring.

mod rehearsals;
mod scene;

use std::sync::{Mutex, OnceLock, PoisonError};

use crate::features::{Extras, Feature, Features};
use crate::ring::Ring;
use crate::setup::{Config, SetupError};

use self::scene::Fault;

/// Bytes of the byte check before a ring is made: enough to fill buffers in every order many times.
const START_CHECK_BYTES: usize = 256 << 10;

/// One trial.
struct Trial {
    name: &'static str,
    /// What is given up where it fails, in this order, until it succeeds or can be left out.
    gives_up: &'static [Feature],
    /// There is no doing without what it tries, even with none of those features.
    required: bool,
    run: fn(Way) -> Result<(), Fault>,
}

/// What a trial's rings use.
#[derive(Clone, Copy, Debug)]
struct Way {
    features: Features,
    extras: Extras,
}

/// In the order in which they are run: each rests on those before it.
const TRIALS: [Trial; 10] = [
    Trial {
        name: "accept",
        gives_up: &[Feature::MultishotAccept, Feature::Direct],
        required: true,
        run: rehearsals::accept,
    },
    Trial {
        name: "close",
        gives_up: &[Feature::Direct],
        required: true,
        run: rehearsals::close,
    },
    Trial {
        name: "reset",
        gives_up: &[Feature::Direct],
        required: true,
        run: rehearsals::reset,
    },
    Trial {
        name: "receive",
        gives_up: &[Feature::MultishotRecv],
        required: true,
        run: rehearsals::receive,
    },
    Trial {
        name: "send",
        gives_up: &[Feature::SkipSuccess],
        required: true,
        run: |way| rehearsals::send(way, false),
    },
    Trial {
        name: "gather",
        gives_up: &[Feature::Gather],
        required: false,
        run: |way| rehearsals::send(way, true),
    },
    Trial {
        name: "bulk",
        gives_up: &[Feature::BulkRecv],
        required: false,
        run: rehearsals::bulk,
    },
    Trial {
        name: "bytes",
        gives_up: &[Feature::Bundle],
        required: false,
        run: |way| match bundles_are_known_bad() {
            true => Err("this kernel's bundles corrupt streams (6.13.11 to 6.14.8)".into()),
            false => rehearsals::receive_and_compare(way, START_CHECK_BYTES),
        },
    },
    Trial {
        name: "zero-copy",
        gives_up: &[Feature::SendZc],
        required: false,
        run: rehearsals::zero_copy,
    },
    Trial {
        name: "listen",
        gives_up: &[Feature::BindListen],
        required: false,
        run: |_| rehearsals::listen(),
    },
];

/// The trial of what is no feature: whether a multishot receive can be bounded (6.17). Bundles are not used where it can't,
/// because one would let a connection take all buffers at once.
const RECV_LIMIT: &str = "recv-limit";
/// Another: whether an accept may look first whether anybody waits (6.10).
const ACCEPT_POLL_FIRST: &str = "accept-poll-first";

/// What the trials found for one set of features.
#[derive(Clone, Debug)]
struct Findings {
    /// What passed.
    features: Features,
    extras: Extras,
    /// What didn't, and why.
    given_up: Vec<(Feature, String)>,
}

impl Ring {
    /// Sets a ring up: queues, table of direct descriptors, buffers.
    ///
    /// The first call of a process for a set of features takes some milliseconds more: it tries on sockets of its own, and
    /// on a thread of its own, whether the kernel does what each of them promises. [`Ring::features`] says what is in use.
    ///
    /// # Errors
    /// [`SetupError`] says which limit or which rule forbids it, and what helps.
    pub fn new(config: &Config) -> Result<Ring, SetupError> {
        let findings = findings(config)?;
        let config = Config {
            features: findings.features,
            ..config.clone()
        };
        Ring::assemble(&config, findings.extras)
    }
}

/// Whether a ring can be had, and what would be in use: makes one, on a thread of its own, and ends it. When a ring ends,
/// the kernel interrupts the thread that used it some time later, and a blocking call that the caller is in by then would
/// fail with `EINTR`.
///
/// # Errors
/// Those of [`Ring::new`].
pub fn try_out(config: &Config) -> Result<Features, SetupError> {
    let config = config.clone();
    on_a_thread(move || Ring::new(&config).map(|ring| ring.features()))?
}

/// Whether socket, bind and listen can be io_uring operations here ([`listen`](crate::listen())). Tried once a process.
pub fn can_listen() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| on_a_thread(rehearsals::listen).is_ok_and(|tried| tried.is_ok()))
}

/// Pushes `bytes` random bytes in random chunks through a connection that is received from with these features, and
/// compares every one.
///
/// # Errors
/// The first difference, or why it could not be tried.
pub fn check_bytes(features: Features, bytes: usize) -> Result<(), String> {
    on_a_thread(move || {
        let recv_limit =
            features.has(Feature::MultishotRecv) && rehearsals::limited_receive(features).is_ok();
        let extras = Extras {
            recv_limit,
            ..Extras::default()
        };
        let way = Way { features, extras };
        rehearsals::receive_and_compare(way, bytes).map_err(|fault| match fault {
            Fault::Wrong(why) => why,
            Fault::Lacking(error) => error.to_string(),
        })
    })
    .map_err(|error| error.to_string())?
}

/// How one feature stands on this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// Which.
    pub feature: Feature,
    /// Whether the kernel has it, allows it to this process, and does what it promises.
    pub offered: bool,
    /// Whether it is used without being asked for.
    pub used: bool,
    /// Why it is not offered, where a trial failed.
    pub why: Option<String>,
}

/// What this kernel offers, each feature tried as a ring would use it, and what a ring would use. `failing_trials` as in the
/// configuration.
///
/// # Errors
/// There is no ring at all here.
pub fn offers(failing_trials: &[String]) -> Result<Vec<Offer>, SetupError> {
    let with = |features| Config {
        features,
        large_buffers: 2,
        large_buffer_size: 64 * 1024,
        failing_trials: failing_trials.to_vec(),
        ..scene::small(features)
    };
    let default = findings(&with(Features::default()))?;
    let used = try_out(&with(Features::default()))?;
    let offer = |feature| {
        if used.has(feature) {
            return (true, None);
        }
        let given_up = |findings: &Findings| {
            let found = findings.given_up.iter().find(|(of, _)| *of == feature);
            found.map(|(_, why)| why.clone())
        };
        if let Some(why) = given_up(&default) {
            return (false, Some(why));
        }
        if Features::default().has(feature) {
            return (false, None);
        }
        // It is off unless asked for: what it can't be tried without comes with it.
        let config = with(Features::NONE.with(feature));
        match (findings(&config), try_out(&config)) {
            (Ok(found), Ok(got)) => (got.has(feature), given_up(&found)),
            _ => (false, None),
        }
    };
    Ok(Feature::ALL
        .into_iter()
        .map(|feature| {
            let (offered, why) = offer(feature);
            Offer {
                feature,
                offered,
                used: used.has(feature),
                why,
            }
        })
        .collect())
}

/// What the trials found for the features of `config`. Tried once a process.
fn findings(config: &Config) -> Result<Findings, SetupError> {
    type Key = (Features, Vec<String>);
    static KNOWN: Mutex<Vec<(Key, Findings)>> = Mutex::new(Vec::new());
    let mut wanted = config.features;
    if config.large_buffers == 0 {
        wanted = wanted.without(Feature::BulkRecv);
    }
    let key = (wanted, config.failing_trials.clone());
    // Held while trying: workers that start together wait for the one answer.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, findings)) = known.iter().find(|(of, _)| *of == key) {
        return Ok(findings.clone());
    }
    let failing = config.failing_trials.clone();
    let findings = on_a_thread(move || try_all(wanted, &failing))?;
    let findings = findings.map_err(|error| error.of_ring(config))?;
    known.push((key, findings.clone()));
    Ok(findings)
}

fn try_all(wanted: Features, failing: &[String]) -> Result<Findings, SetupError> {
    // A restricted ring takes no files any more, and a polling thread changes nothing that is tried but the time it takes.
    let aside = [Feature::Restrictions, Feature::Sqpoll, Feature::Napi];
    let tried = aside.into_iter().fold(wanted, Features::without);
    // What the kernel refuses by itself is not there to be tried. Its refusal of the rest is the caller's error.
    let all = Extras {
        recv_limit: true,
        accept_poll_first: true,
    };
    let mut features = Ring::assemble(&scene::small(tried), all)?.features();
    if tried.has(Feature::BulkRecv) {
        features = features.with(Feature::BulkRecv);
    }
    let mut given_up = Vec::new();
    let fails = |name: &str| failing.iter().any(|of| of == name);
    let made_to_fail = || Err(Fault::from("made to fail, for a test"));
    // What is lacking is the caller's error; what is wrong is a finding.
    let finding = |result| match result {
        Ok(()) => Ok(Ok(())),
        Err(Fault::Wrong(why)) => Ok(Err(why)),
        Err(Fault::Lacking(error)) => Err(error),
    };
    let limited = finding(match fails(RECV_LIMIT) {
        true => made_to_fail(),
        false => rehearsals::limited_receive(features),
    })?;
    let looked = finding(match fails(ACCEPT_POLL_FIRST) {
        true => made_to_fail(),
        false => rehearsals::accept_after_a_look(features),
    })?;
    let mut extras = Extras {
        recv_limit: features.has(Feature::MultishotRecv) && limited.is_ok(),
        accept_poll_first: looked.is_ok(),
    };
    if features.has(Feature::Bundle)
        && let Err(why) = limited
    {
        features = features.without(Feature::Bundle);
        let why = format!("a bundle would take all buffers, because it can't be bounded: {why}");
        given_up.push((Feature::Bundle, why));
    }
    for trial in &TRIALS {
        loop {
            let mut candidates = trial.gives_up.iter().copied();
            let first = candidates.find(|feature| features.has(*feature));
            if first.is_none() && !trial.required {
                break;
            }
            let result = if fails(trial.name) || first.is_some_and(|f| fails(f.name())) {
                made_to_fail()
            } else {
                (trial.run)(Way { features, extras })
            };
            let Err(why) = finding(result)? else { break };
            let Some(feature) = first else {
                return Err(SetupError::Unavailable {
                    what: format!("trial '{}': {why}", trial.name),
                });
            };
            features = features.without(feature);
            given_up.push((feature, why));
        }
    }
    if features.has(Feature::Bundle) && !features.has(Feature::MultishotRecv) {
        features = features.without(Feature::Bundle);
        given_up.push((Feature::Bundle, "it takes multishot receives".to_owned()));
    }
    for feature in aside {
        if wanted.has(feature) {
            features = features.with(feature);
        }
    }
    extras.recv_limit &= features.has(Feature::MultishotRecv);
    Ok(Findings {
        features,
        extras,
        given_up,
    })
}

/// Streams corrupted by multishot receives in bundles: 6.13.11 to 6.14.8 (liburing #1409, #1411, #1423).
fn bundles_are_known_bad() -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    release_is_bad(&release)
}

fn release_is_bad(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0u32));
    let version = [(); 3].map(|()| numbers.next().unwrap_or(0));
    ([6, 13, 11]..=[6, 14, 8]).contains(&version)
}

/// On a thread of its own: see [`try_out`].
fn on_a_thread<T: Send + 'static>(
    trial: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SetupError> {
    let failed = |source| SetupError::Other {
        step: "starting a thread to try it",
        source,
    };
    let thread = std::thread::Builder::new()
        .name("uring-trial".into())
        .spawn(trial)
        .map_err(failed)?;
    thread.join().map_err(|_| SetupError::Unavailable {
        what: "a trial panicked".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_receive_keeps_the_bytes_in_order() {
        let multishot = Features::NONE.with(Feature::MultishotRecv);
        for features in [
            Features::NONE,
            multishot,
            multishot.with(Feature::Bundle),
            Features::default(),
        ] {
            assert_eq!(check_bytes(features, 1 << 20), Ok(()), "{features:?}");
        }
    }

    #[test]
    fn the_kernels_with_the_known_fault_are_told_from_their_neighbours() {
        for bad in ["6.13.11", "6.14.0-rc1", "6.14.8-300.fc42.x86_64"] {
            assert!(release_is_bad(bad), "{bad}");
        }
        for good in ["6.13.10", "6.14.9", "6.18.44-custom", "7.0.0", "odd", ""] {
            assert!(!release_is_bad(good), "{good}");
        }
    }

    #[test]
    fn what_is_used_is_offered() {
        let offers = offers(&[]).expect("a ring");
        assert_eq!(offers.len(), Feature::ALL.len());
        assert!(offers.iter().all(|offer| offer.offered || !offer.used));
        assert!(offers.iter().any(|offer| offer.used));
        assert!(
            offers
                .iter()
                .all(|offer| offer.why.is_none() || !offer.offered)
        );
    }

    /// Two sets, because zero-copy sends exclude silent and gathered ones.
    fn sets() -> [Features; 2] {
        let zero_copy = Features::default()
            .without(Feature::SkipSuccess)
            .without(Feature::Gather)
            .with(Feature::SendZc);
        [Features::default(), zero_copy]
    }

    fn failing(features: Features, name: &str) -> Result<Features, SetupError> {
        try_out(&Config {
            large_buffers: 2,
            failing_trials: vec![name.to_owned()],
            ..scene::small(features)
        })
    }

    #[test]
    fn a_feature_whose_trial_fails_is_given_up_and_the_others_stay() {
        for set in sets() {
            let all = failing(set, "none").expect("a ring");
            for feature in all.iter() {
                let tried = TRIALS.iter().any(|trial| trial.gives_up.contains(&feature));
                let expected = match feature {
                    Feature::MultishotRecv => all.without(feature).without(Feature::Bundle),
                    _ if tried => all.without(feature),
                    _ => all,
                };
                assert_eq!(failing(set, feature.name()).expect("a ring"), expected);
            }
        }
        let unbounded = failing(Features::default(), RECV_LIMIT).expect("a ring");
        assert!(!unbounded.has(Feature::Bundle));
    }

    #[test]
    fn a_trial_that_there_is_no_doing_without_says_which_it_is() {
        for set in sets() {
            for trial in &TRIALS {
                match failing(set, trial.name) {
                    Ok(features) => {
                        assert!(!trial.required, "{}", trial.name);
                        assert!(!features.has(trial.gives_up[0]), "{}", trial.name);
                    }
                    Err(error) => {
                        assert!(trial.required, "{}: {error}", trial.name);
                        let text = error.to_string();
                        assert!(
                            text.contains(trial.name) && error.is_unavailable(),
                            "{text}"
                        );
                    }
                }
            }
        }
    }
}
