//! Do the limits of a process allow the load that is planned?

use super::{Check, Judgement, Needs, fail, pass, unknown, warn};
use crate::{
    fitness::Seen,
    machine::LimitFact,
    units::{show_count, show_size},
};

/// What rings with registered buffers ask for, with room for a second server.
const MEMLOCK_BYTES_MIN: u64 = 8 << 20;

pub(super) const CHECKS: &[Check] = &[
    Check::new(
        "open files",
        open_files,
        "each connection is a descriptor in the client and one in the server: beyond the limit they fail",
    )
    .needs(Needs::Connections),
    Check::new(
        "locked memory",
        locked_memory,
        "older kernels charge rings, and all of them registered buffers, to this limit: set-up fails beyond it",
    )
    .needs(Needs::Uring),
];

fn open_files(seen: &Seen) -> Judgement {
    // What a program holds besides its connections, generously.
    let needed = seen.connections.unwrap_or_default() + 256;
    let Some(LimitFact { soft, hard }) = seen.facts.nofile else {
        return unknown("the limit can't be read", "none");
    };
    let show = |limit: Option<u64>| limit.map_or("no limit".to_owned(), show_count);
    if hard.is_some_and(|hard| hard < needed) {
        return fail(
            format!(
                "{} at most, and {} are needed",
                show(hard),
                show_count(needed)
            ),
            format!(
                "# prlimit --nofile={needed} --pid PID_OF_YOUR_SHELL; for good: LimitNOFILE= or /etc/security/limits.conf"
            ),
        );
    }
    match soft {
        Some(soft) if soft < needed => pass(format!(
            "{} now, raised by our programs to {}",
            show_count(soft),
            show_count(needed)
        )),
        soft => pass(show(soft)),
    }
}

fn locked_memory(seen: &Seen) -> Judgement {
    match seen.facts.memlock_bytes {
        None => unknown("the limit can't be read", "none"),
        Some(LimitFact {
            soft: Some(soft), ..
        }) if soft < MEMLOCK_BYTES_MIN => warn(
            show_size(soft),
            format!(
                "# prlimit --memlock={MEMLOCK_BYTES_MIN} --pid PID_OF_YOUR_SHELL; for good: LimitMEMLOCK= or \
                 /etc/security/limits.conf"
            ),
        ),
        Some(limit) => pass(limit.soft.map_or("no limit".to_owned(), show_size)),
    }
}
