//! Getting a ring from this kernel: what to ask for, the steps down where it says no, and what a refusal means.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, Probe};
use rustix::io::Errno;

use crate::features::{Feature, Features};

/// What a ring is to be like. Begin with [`Config::default`], and set what differs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Entries of the submission queue, rounded up to a power of two by the kernel. A full one is submitted early.
    pub entries: u32,
    /// Entries of the completion queue. When it overflows nothing is lost, but time is.
    pub cq_entries: u32,
    /// Slots, that is files at most. Direct ones are bounded by RLIMIT_NOFILE.
    pub slots: u32,
    /// Buffers that received bytes land in; rounded up to a power of two, at most 32,768.
    pub buffers: u16,
    /// Bytes per buffer, 64 at least.
    pub buffer_size: u32,
    /// Large buffers besides, for bulk receives ([`Feature::BulkRecv`]): how many, rounded up as above; 0 for none, and
    /// then there are no bulk receives.
    pub large_buffers: u16,
    /// Bytes a large buffer.
    pub large_buffer_size: u32,
    /// Bytes that a multishot receive takes at most until it is armed again, where the kernel can bound it (6.17; where
    /// not, bundles are off): what a connection brings in before anybody can stop it.
    pub recv_bytes_max: u32,
    /// A receive that brings less than it asked for has emptied its socket: so it is with TCP. With a unix socket it may
    /// have stopped where a descriptor was passed.
    pub short_is_empty: bool,
    /// Bytes that sends may come from and that nobody changes: see `Payload::Shared`.
    pub shared: Arc<[u8]>,
    /// Kernel threads (io-wq) that may work for this ring at a time, for what can't be done without waiting; `None`: as many as
    /// the kernel likes, which may be one for each slow peer.
    pub workers_max: Option<u32>,
    /// What to use where the kernel has it, and where it does what it should: see [`Ring::new`](crate::Ring::new).
    pub features: Features,
    /// For tests: trials that fail whatever the kernel does, by the name of the trial or of the feature that it tries.
    #[doc(hidden)]
    pub failing_trials: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            entries: 256,
            cq_entries: 4_096,
            slots: 1_024,
            buffers: 1_024,
            buffer_size: 4_096,
            large_buffers: 0,
            large_buffer_size: 64 * 1024,
            recv_bytes_max: 256 * 1024,
            short_is_empty: false,
            shared: Arc::from([]),
            workers_max: None,
            features: Features::default(),
            failing_trials: Vec::new(),
        }
    }
}

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The kernel has no io_uring, or lacks what can't be done without, or does it wrongly.
    #[error("this kernel has no usable io_uring ({what}); it takes Linux 6.1 or newer")]
    Unavailable {
        /// What was asked for and missing.
        what: String,
    },
    /// io_uring is there and forbidden.
    #[error("io_uring is forbidden here: {cause}; {cure}")]
    Denied {
        /// Who forbids it.
        cause: String,
        /// What allows it.
        cure: &'static str,
    },
    /// The limit on locked memory is too low for the ring.
    #[error(
        "no memory for a ring of {entries} + {cq_entries} entries within the memlock limit (RLIMIT_MEMLOCK, {limit}): \
         about {need} bytes are needed; raise it with 'ulimit -l', LimitMEMLOCK= or --ulimit memlock, or make fewer rings"
    )]
    Memlock {
        /// Submission entries asked for.
        entries: u32,
        /// Completion entries asked for.
        cq_entries: u32,
        /// Bytes that they take.
        need: u64,
        /// The limit now, as text.
        limit: String,
    },
    /// The table of direct descriptors is larger than the limit on descriptors.
    #[error(
        "a ring of {slots} files does not fit the nofile limit (RLIMIT_NOFILE, {limit}): \
         raise it with 'ulimit -n {slots}', or ask for fewer connections"
    )]
    Nofile {
        /// Files asked for.
        slots: u32,
        /// The limit now, as text.
        limit: String,
    },
    /// Anything else.
    #[error("cannot set up io_uring: {step}: {source}")]
    Other {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SetupError {
    /// Whether another engine is the right answer: io_uring is missing or forbidden. A limit that is too low is not
    /// that; it is to be raised.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            SetupError::Unavailable { .. } | SetupError::Denied { .. }
        )
    }

    /// The error of a trial, as one of the ring that it was made for: where a small ring lacks memory, that one does too.
    pub(crate) fn of_ring(self, config: &Config) -> SetupError {
        match self {
            SetupError::Memlock { .. } => refused(config, Errno::NOMEM.into()),
            SetupError::Other { ref source, .. }
                if Errno::from_io_error(source) == Some(Errno::NOMEM) =>
            {
                refused(config, Errno::NOMEM.into())
            }
            other => other,
        }
    }
}

/// How long the kernel's polling thread looks for work before it sleeps.
const SQPOLL_IDLE_MS: u32 = 50;

/// How often a ring is asked for again where its memory was refused: 300 ms in all.
const MEMORY_TRIES: u32 = 4;

/// Asks for a ring with all that `config` wants and steps down where the kernel answers EINVAL: by trying, because
/// version numbers say nothing about distribution kernels. Returns what is in use with it.
pub(crate) fn build(config: &Config) -> Result<(IoUring, Features), SetupError> {
    let mut features = config.features;
    loop {
        match when_memory_is_back(|| attempt(config, features)) {
            Ok(ring) => {
                use_each_call_once(&ring)?;
                return Ok((ring, features));
            }
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                // The youngest first: 6.6, then 6.1.
                let youngest = [Feature::NoSqarray, Feature::DeferTaskrun]
                    .into_iter()
                    .find(|feature| features.has(*feature));
                match youngest {
                    Some(feature) => features = features.without(feature),
                    None => return Err(refused(config, error)),
                }
            }
            Err(error) => return Err(refused(config, error)),
        }
    }
}

/// Makes a ring, and asks again for a while where its memory is refused: what an ended ring was charged is given back some
/// 30 to 90 ms after its end.
pub(crate) fn when_memory_is_back(
    mut make: impl FnMut() -> io::Result<IoUring>,
) -> io::Result<IoUring> {
    let mut tries = 0;
    loop {
        match make() {
            Err(error)
                if Errno::from_io_error(&error) == Some(Errno::NOMEM) && tries < MEMORY_TRIES =>
            {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10 << tries));
            }
            made => return made,
        }
    }
}

/// A filter may let a ring be made and refuse the other two calls: better learnt here than from a ring in use.
fn use_each_call_once(ring: &IoUring) -> Result<(), SetupError> {
    let registered = ring.submitter().register_probe(&mut Probe::new());
    allowed("io_uring_register", registered)?;
    // Nothing is there to be submitted. A ring that is to be confined first answers EBADFD.
    allowed("io_uring_enter", ring.submit())
}

fn allowed<T>(call: &'static str, result: io::Result<T>) -> Result<(), SetupError> {
    match result {
        Err(error) if is_denial(&error) => Err(denied(call, &error)),
        _ => Ok(()),
    }
}

/// Whether it is what sandboxes answer to calls that they forbid.
fn is_denial(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS)
    )
}

/// Whether a plain ring can be set up and used here, for one that is made elsewhere. It is made on the thread that calls:
/// its end interrupts a call that the thread is in some time later.
///
/// # Errors
/// [`SetupError::Denied`] and the other refusals of `io_uring_setup`.
pub fn plain_ring_is_allowed() -> Result<(), SetupError> {
    let config = Config {
        entries: 2,
        cq_entries: 4,
        ..Config::default()
    };
    let ring = IoUring::new(config.entries).map_err(|error| refused(&config, error))?;
    allowed("io_uring_enter", ring.submit())
}

fn attempt(config: &Config, features: Features) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    // SUBMIT_ALL (5.18): one bad request doesn't hold up those behind it. CLAMP: too large a queue is made smaller.
    builder
        .setup_clamp()
        .setup_cqsize(config.cq_entries)
        .setup_submit_all();
    if features.has(Feature::DeferTaskrun) {
        // Without TASKRUN_FLAG a plain submit never runs the deferred work, and the completion queue stays empty.
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag();
    }
    if features.has(Feature::NoSqarray) {
        builder.setup_no_sqarray();
    }
    if features.has(Feature::Sqpoll) {
        builder.setup_sqpoll(SQPOLL_IDLE_MS);
    }
    if features.has(Feature::Restrictions) {
        // Restrictions are set on a ring that can't be used yet.
        builder.setup_r_disabled();
    }
    builder.build(config.entries)
}

/// What a refused `io_uring_setup` means: the errno alone doesn't tell a sandbox from a sysctl.
fn refused(config: &Config, error: io::Error) -> SetupError {
    match Errno::from_io_error(&error) {
        Some(Errno::NOSYS) => SetupError::Unavailable {
            what: "io_uring_setup answers ENOSYS: an old kernel, or a sandbox that hides it".into(),
        },
        Some(Errno::INVAL) => SetupError::Unavailable {
            what: "io_uring_setup answers EINVAL to the plainest request".into(),
        },
        Some(Errno::PERM | Errno::ACCESS) => denied("io_uring_setup", &error),
        Some(Errno::NOMEM) => SetupError::Memlock {
            entries: config.entries,
            cq_entries: config.cq_entries,
            need: ring_bytes(config.entries, config.cq_entries),
            limit: limit_text(rustix::process::Resource::Memlock),
        },
        _ => SetupError::Other {
            step: "io_uring_setup",
            source: error,
        },
    }
}

/// Who forbids a call, and what helps.
fn denied(call: &str, error: &io::Error) -> SetupError {
    let answer = match Errno::from_io_error(error) {
        Some(Errno::ACCESS) => "EACCES",
        Some(Errno::NOSYS) => "ENOSYS",
        _ => "EPERM",
    };
    // The sysctl forbids the set-up, and nothing after it.
    let sysctl = match call {
        "io_uring_setup" => {
            fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default()
        }
        _ => String::new(),
    };
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let filtered = status.lines().any(|line| {
        line.strip_prefix("Seccomp:")
            .is_some_and(|v| v.trim() != "0")
    });
    match sysctl.trim() {
        "2" => SetupError::Denied {
            cause: "the sysctl kernel.io_uring_disabled is 2".into(),
            cure: "allow it with 'sysctl -w kernel.io_uring_disabled=0'",
        },
        "1" => SetupError::Denied {
            cause: "the sysctl kernel.io_uring_disabled is 1 and this user is not in kernel.io_uring_group".into(),
            cure: "allow it with 'sysctl -w kernel.io_uring_disabled=0'",
        },
        _ if filtered => SetupError::Denied {
            cause: format!(
                "a seccomp filter answers {answer} to {call} (the default profiles of Docker and containerd forbid it)"
            ),
            cure: "run the container with '--security-opt seccomp=unconfined' or a profile that allows io_uring",
        },
        _ => SetupError::Denied {
            cause: format!(
                "{call} answers {answer}, and neither the sysctl nor a seccomp filter explains it"
            ),
            cure: "look at the security module's log (SELinux, AppArmor)",
        },
    }
}

/// Bytes that the queues of a ring take: 64 a submission entry, 4 for its index, 16 a completion entry, each part in
/// whole pages (`io_uring_setup`: `rings_size`).
pub(crate) fn ring_bytes(entries: u32, cq_entries: u32) -> u64 {
    let entries = u64::from(entries.next_power_of_two());
    let cq_entries = u64::from(cq_entries.next_power_of_two());
    let page = 4_096;
    let rings = 64 + 16 * cq_entries + 4 * entries;
    rings.next_multiple_of(page) + (64 * entries).next_multiple_of(page)
}

/// A soft limit as text, for messages.
pub(crate) fn limit_text(resource: rustix::process::Resource) -> String {
    match rustix::process::getrlimit(resource).current {
        Some(limit) => format!("{limit} now"),
        None => "unlimited".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_cause_and_cure() {
        let refused = |errno: Errno| refused(&Config::default(), errno.into()).to_string();
        assert!(refused(Errno::NOSYS).contains("ENOSYS"));
        assert!(refused(Errno::NOMEM).contains("memlock"));
        assert!(refused(Errno::PERM).contains("forbidden"));
        assert!(refused(Errno::MFILE).contains("io_uring_setup"));
    }

    #[test]
    fn only_a_missing_ring_is_unavailable() {
        let unavailable = |errno: Errno| refused(&Config::default(), errno.into()).is_unavailable();
        assert!(unavailable(Errno::NOSYS) && unavailable(Errno::PERM));
        assert!(!unavailable(Errno::NOMEM) && !unavailable(Errno::MFILE));
    }

    #[test]
    fn only_what_sandboxes_answer_is_a_denial() {
        for errno in [Errno::PERM, Errno::ACCESS, Errno::NOSYS] {
            let error = allowed::<()>("io_uring_enter", Err(errno.into())).unwrap_err();
            assert!(error.is_unavailable(), "{error}");
            assert!(error.to_string().contains("io_uring_enter"), "{error}");
        }
        for errno in [Errno::BADFD, Errno::INVAL, Errno::BUSY] {
            assert!(allowed::<()>("io_uring_enter", Err(errno.into())).is_ok());
        }
    }

    #[test]
    fn a_ring_takes_what_the_kernel_charges() {
        // 256 + 4,096 entries: 97 rings fit 8 MiB, as was seen; so one takes 86 KiB at most, and 98 would not fit.
        let bytes = ring_bytes(256, 4_096);
        assert!(
            (8 << 20) / bytes >= 90 && (8 << 20) / bytes <= 105,
            "{bytes}"
        );
    }
}
