//! How many descriptors and how much locked memory may we have? The two limits that bound a server's
//! connections and its rings.

use std::io;

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// A limit of "no limit".
pub const UNLIMITED: u64 = u64::MAX;

/// A resource limit of this process; [`UNLIMITED`] for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limit {
    /// What holds now. A process may raise it up to `hard`.
    pub soft: u64,
    /// What `soft` may be raised to. Only a privileged process may raise this.
    pub hard: u64,
}

/// Open descriptors (`RLIMIT_NOFILE`), as a count. A ring's table of direct descriptors is bounded by
/// `soft` too, though its entries are not counted against it.
#[must_use]
pub fn nofile() -> Limit {
    limit(Resource::Nofile)
}

/// Locked memory (`RLIMIT_MEMLOCK`), in bytes. Rings are charged to it, per user; root is exempt.
#[must_use]
pub fn memlock() -> Limit {
    limit(Resource::Memlock)
}

/// Makes room for `needed` descriptors: raises the soft limit if it is lower, and never lowers it.
///
/// Gives the limit that holds now.
///
/// # Errors
/// [`RaiseError`] where the hard limit is lower than `needed`; nothing is changed then.
pub fn raise_nofile(needed: u64) -> Result<Limit, RaiseError> {
    let now = nofile();
    if needed <= now.soft {
        return Ok(now);
    }
    let refused = |cause| RaiseError {
        needed,
        hard: now.hard,
        cause,
    };
    if now.hard < needed {
        return Err(refused(None));
    }
    let hard = Some(now.hard).filter(|&hard| hard != UNLIMITED);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(needed),
            maximum: hard,
        },
    )
    .map_err(|errno| refused(Some(errno.into())))?;
    Ok(nofile())
}

/// The cure for an error that a limit caused, of descriptors or of a file's size, on a line of its own; nothing for
/// other errors.
#[must_use]
pub fn hint(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            let Limit { soft, hard } = nofile();
            format!(
                "\nhint: this process may have {soft} descriptors, and up to {hard} by `ulimit -n` (nofile): raise it, or \
                 ask for fewer threads"
            )
        }
        Some(Errno::NFILE) => {
            "\nhint: the whole system has no descriptor left: raise it by sysctl fs.file-max, or end what else runs"
                .to_owned()
        }
        Some(Errno::FBIG) => {
            let limit = match limit(Resource::Fsize).soft {
                UNLIMITED => "the file system's".to_owned(),
                soft => format!("{soft} bytes, `ulimit -f` in the shell's blocks"),
            };
            format!("\nhint: the file would be larger than the limit on file sizes ({limit}): raise it")
        }
        _ => String::new(),
    }
}

/// As [`hint`], for the first in the chain of an error's causes that has one; nothing where the error's text has it.
#[must_use]
pub fn hint_of_chain(error: &(dyn std::error::Error + 'static), text: &str) -> String {
    if text.contains("hint: ") {
        return String::new();
    }
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref())
        .map(hint)
        .find(|hint| !hint.is_empty())
        .unwrap_or_default()
}

/// The descriptor limit is too low and cannot be raised from here.
#[derive(Debug, thiserror::Error)]
#[error(
    "{needed} open files (nofile) are needed and this process may have {hard}{}: \
     raise the hard limit (as root: prlimit --nofile={needed} --pid $$; for good: /etc/security/limits.conf or LimitNOFILE=), \
     or ask for fewer connections",
    self.cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default()
)]
#[non_exhaustive]
pub struct RaiseError {
    /// Descriptors asked for.
    pub needed: u64,
    /// The hard limit in the way.
    pub hard: u64,
    /// What the kernel said, where it was asked. (No `source`: the text has it.)
    pub cause: Option<std::io::Error>,
}

fn limit(resource: Resource) -> Limit {
    let Rlimit { current, maximum } = getrlimit(resource);
    Limit {
        soft: current.unwrap_or(UNLIMITED),
        hard: maximum.unwrap_or(UNLIMITED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_in_order() {
        for limit in [nofile(), memlock()] {
            assert!(limit.soft <= limit.hard, "{limit:?}");
        }
        assert!(3 < nofile().soft);
    }

    #[test]
    fn raising_never_lowers_and_stops_at_the_hard_limit() {
        let before = nofile();
        assert_eq!(raise_nofile(1).unwrap(), before);
        assert_eq!(
            raise_nofile(before.hard.min(before.soft + 1)).unwrap(),
            nofile()
        );
        assert!(before.soft <= nofile().soft);
        // Above fs.nr_open the kernel refuses even where the hard limit is unlimited.
        let error = raise_nofile(UNLIMITED - 1).unwrap_err();
        assert!(error.to_string().contains("(nofile)"), "{error}");
        assert_eq!(error.hard, before.hard);
    }

    #[test]
    fn a_cause_below_brings_its_cure() {
        let error = RaiseError {
            needed: 1,
            hard: 1,
            cause: None,
        };
        assert_eq!(hint_of_chain(&error, "x"), "");
        let error = io::Error::from(Errno::MFILE);
        assert!(hint_of_chain(&error, "x").contains("ulimit -n"));
        assert_eq!(hint_of_chain(&error, "x\nhint: raise it"), "");
    }

    #[test]
    fn the_shell_sees_the_same_limit() {
        let output = std::process::Command::new("sh")
            .args(["-c", "ulimit -H -n"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let hard = nofile().hard;
        assert_eq!(
            text,
            if hard == UNLIMITED {
                "unlimited".to_owned()
            } else {
                hard.to_string()
            }
        );
    }
}
