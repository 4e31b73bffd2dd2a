//! At which priority does a thread run? Raises the calling thread, whose children, threads and processes alike, inherit
//! it: so a server runs at its priority from its first instruction on, and no child process has to be changed afterwards.

use std::{fmt, io, str::FromStr, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, Resource, Rlimit, getrlimit, prlimit, setpriority_process},
};
use serde::{Deserialize, Serialize};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

use crate::threads;

/// The nice value of [`Priority::Nice`]: the highest share of a cpu that the fair scheduler gives.
const NICE: i32 = -20;
/// The real-time priority of [`Priority::Rt`]: the lowest, which is above every thread that is not real-time.
const RT: i32 = 1;
/// So long may a real-time thread run without sleeping.
pub const RT_TIME: Duration = Duration::from_secs(1);
/// Where SIGXCPU has not ended it, SIGKILL does.
const RT_TIME_HARD: Duration = Duration::from_secs(2);
/// What the kernel's signal is that ends such a process.
pub const SIGNAL_OF_RT_TIME: i32 = 24;

/// How far threads are raised above those of others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// They stay as they are.
    #[default]
    None,
    /// Nice -20: others get a hundredth of the cpu.
    Nice,
    /// `SCHED_RR` 1: others wait until they sleep.
    Rt,
}

impl Priority {
    /// All of them, in rising order.
    pub const ALL: [Self; 3] = [Self::None, Self::Nice, Self::Rt];

    /// The word, as it is typed and stands in files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Nice => "nice",
            Self::Rt => "rt",
        }
    }

    /// What the kernel calls it; `None` where nothing is raised.
    #[must_use]
    pub const fn kernel_name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Nice => Some("nice -20"),
            Self::Rt => Some("SCHED_RR 1"),
        }
    }

    /// Whether nothing is raised.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

impl FromStr for Priority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|priority| priority.word() == text);
        found.ok_or_else(|| format!("'{text}' is no priority: none, nice or rt"))
    }
}

/// A thread could not be raised.
#[derive(Debug, thiserror::Error)]
#[error("cannot raise a thread to {}: {cause}{}", .priority.kernel_name().unwrap_or("none"), hint(*.priority, .cause))]
pub struct PriorityError {
    /// What was asked for.
    pub priority: Priority,
    /// What the kernel said. (No `source`: the text has it.)
    pub cause: io::Error,
}

/// Raises the calling thread, and what it starts from now on.
///
/// # Errors
/// A right is missing: the error names it.
pub fn raise_current_thread(priority: Priority) -> Result<(), PriorityError> {
    let raised = match priority {
        Priority::None => Ok(()),
        // In Linux the "process" is the calling thread.
        Priority::Nice => setpriority_process(None, NICE).map_err(io::Error::from),
        Priority::Rt => round_robin(),
    };
    raised.map_err(|cause| PriorityError { priority, cause })
}

fn round_robin() -> io::Result<()> {
    let lowest = ThreadPriority::from_posix(thread_priority::ScheduleParams { sched_priority: RT });
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    set_thread_priority_and_policy(thread_native_id(), lowest, policy).map_err(
        |error| match error {
            thread_priority::Error::OS(errno) => io::Error::from_raw_os_error(errno),
            other => io::Error::other(format!("{other:?}")),
        },
    )
}

/// Runs `work` on a thread of its own that is raised: what it starts inherits that, and the caller stays as it is.
///
/// # Errors
/// As [`raise_current_thread`]; no thread can be started.
pub fn raised<T: Send>(
    priority: Priority,
    work: impl FnOnce() -> T + Send,
) -> Result<T, PriorityError> {
    if priority.is_none() {
        return Ok(work());
    }
    std::thread::scope(|scope| {
        let work = || raise_current_thread(priority).map(|()| work());
        let thread =
            threads::spawn_scoped(scope, "raised", work).map_err(|error| PriorityError {
                priority,
                cause: io::Error::other(error),
            })?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Ends the process `pid`, and what it starts from now on, by SIGXCPU where one of its real-time threads runs for
/// [`RT_TIME`] without sleeping: it would keep its cpu from everybody else.
///
/// # Errors
/// There is no such process, or it is another user's.
pub fn limit_rt_time(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    let micros = |time: Duration| Some(time.as_micros() as u64);
    let limit = Rlimit {
        current: micros(RT_TIME),
        maximum: micros(RT_TIME_HARD),
    };
    prlimit(Some(pid), Resource::Rttime, limit)?;
    Ok(())
}

/// Which right is missing, on a line of its own; nothing for other errors.
fn hint(priority: Priority, cause: &io::Error) -> String {
    let denied = matches!(
        Errno::from_io_error(cause),
        Some(Errno::PERM | Errno::ACCESS)
    );
    let limit = |resource| {
        getrlimit(resource)
            .current
            .map_or("unlimited".to_owned(), |limit| limit.to_string())
    };
    match priority {
        Priority::Rt if denied => format!(
            "\nhint: this takes CAP_SYS_NICE (root; docker: --cap-add SYS_NICE) or an RLIMIT_RTPRIO of 1 (`ulimit -r`, \
             rtprio in /etc/security/limits.conf; here {}); with a cgroup of version 1 also a cpu.rt_runtime_us above \
             0. Or do without: --priority none",
            limit(Resource::Rtprio),
        ),
        Priority::Nice if denied => format!(
            "\nhint: this takes CAP_SYS_NICE (root; docker: --cap-add SYS_NICE) or an RLIMIT_NICE of 40 (`ulimit -e`, \
             nice -20 in /etc/security/limits.conf; here {}). Or do without: --priority none",
            limit(Resource::Nice),
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    /// The fields of `/proc/thread-self/stat`: nice, real-time priority, policy.
    fn scheduled(stat: &str) -> (i32, i32, i32) {
        let rest = stat.rsplit(')').next().expect("a name in brackets");
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields[field - 3].parse().expect("a number");
        (number(19), number(40), number(41))
    }

    fn of_this_thread() -> (i32, i32, i32) {
        scheduled(&fs::read_to_string("/proc/thread-self/stat").expect("procfs"))
    }

    #[test]
    fn what_a_raised_thread_starts_is_raised_and_the_caller_is_not() {
        let before = of_this_thread();
        for (priority, wanted) in [
            (Priority::Nice, (-20, 0, 0)),
            (Priority::Rt, (before.0, 1, 2)),
        ] {
            let seen = raised(priority, || {
                let child = Command::new("cat")
                    .arg("/proc/self/stat")
                    .output()
                    .expect("cat runs");
                let thread = std::thread::spawn(of_this_thread).join().expect("no panic");
                (
                    of_this_thread(),
                    thread,
                    scheduled(&String::from_utf8_lossy(&child.stdout)),
                )
            });
            match seen {
                Ok(seen) => assert_eq!(seen, (wanted, wanted, wanted), "{priority}"),
                // Who may not raise is told which right is missing.
                Err(error) => assert!(error.to_string().contains("CAP_SYS_NICE"), "{error}"),
            }
            assert_eq!(of_this_thread(), before);
        }
        assert_eq!(
            raised(Priority::None, of_this_thread).expect("nothing to raise"),
            before
        );
    }

    #[test]
    fn a_missing_right_is_named() {
        let denied = |priority, errno: Errno| {
            PriorityError {
                priority,
                cause: errno.into(),
            }
            .to_string()
        };
        let rt = denied(Priority::Rt, Errno::PERM);
        assert!(
            rt.starts_with("cannot raise a thread to SCHED_RR 1: Operation not permitted"),
            "{rt}"
        );
        assert!(
            rt.contains("CAP_SYS_NICE") && rt.contains("RLIMIT_RTPRIO of 1"),
            "{rt}"
        );
        let nice = denied(Priority::Nice, Errno::ACCESS);
        assert!(
            nice.contains("nice -20") && nice.contains("RLIMIT_NICE of 40"),
            "{nice}"
        );
        assert!(!denied(Priority::Rt, Errno::INVAL).contains("hint"));
    }

    #[test]
    fn words_are_read_back() {
        for priority in Priority::ALL {
            assert_eq!(priority.word().parse(), Ok(priority));
        }
        assert!(
            "fifo"
                .parse::<Priority>()
                .is_err_and(|text| text.contains("none, nice or rt"))
        );
    }
}
