//! How does a thread stay on its cpu? Sets the affinity of the calling thread and reads the mask back,
//! because a pin that silently did not take makes every later figure a lie.

use std::io;

use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::cpus::{self, CpuList};

/// Pins the calling thread to `cpu` and reads the mask back.
///
/// The cpu must be in the mask that the process started with (see [`cpus::allowed`]): the kernel itself
/// would let a thread leave the mask that `taskset` gave it, but the person who ran `taskset` meant it.
///
/// # Errors
/// [`PinError`] tells a cpu that is not there, one that is offline, one outside the mask and one that the
/// kernel refused apart. The affinity is then what it was before.
pub fn pin_current_thread(cpu: u32) -> Result<(), PinError> {
    refuse_unusable(cpu)?;
    // core_affinity says only whether it worked; the reason is sought above, where it can be named.
    let set = core_affinity::set_for_current(core_affinity::CoreId { id: cpu as usize });
    let mask = cpus::allowed_to_this_thread().map_err(PinError::Unreadable)?;
    if set && mask.len() == 1 && mask.contains(cpu) {
        return Ok(());
    }
    let mut one = CpuSet::new();
    one.set(cpu as usize);
    // Asked again for the kernel's word alone.
    let cause = sched_setaffinity(None, &one).err().map(io::Error::from);
    Err(PinError::Refused { cpu, mask, cause })
}

/// Confines the calling thread, and what it spawns from now on, to `cpus`, and reads the mask back.
///
/// Gives the mask that held before, for putting it back. A child process inherits the mask of the thread
/// that spawns it: this is how a server is started on its cpus without a shell or `taskset`.
///
/// # Errors
/// As for [`pin_current_thread`]; an empty set is [`PinError::Empty`].
pub fn confine_current_thread(cpus: &CpuList) -> Result<CpuList, PinError> {
    let Some(first) = cpus.first() else {
        return Err(PinError::Empty);
    };
    for cpu in cpus.iter() {
        refuse_unusable(cpu)?;
    }
    let before = cpus::allowed_to_this_thread().map_err(PinError::Unreadable)?;
    let mut mask = CpuSet::new();
    for cpu in cpus.iter() {
        mask.set(cpu as usize);
    }
    let set = sched_setaffinity(None, &mask);
    let mask = cpus::allowed_to_this_thread().map_err(PinError::Unreadable)?;
    if set.is_ok() && mask == *cpus {
        Ok(before)
    } else {
        Err(PinError::Refused {
            cpu: first,
            mask,
            cause: set.err().map(io::Error::from),
        })
    }
}

/// Why a thread could not be pinned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// No cpu of that number exists here.
    #[error("cpu {cpu} does not exist on this machine: its online cpus are {online}")]
    Absent {
        /// The cpu asked for.
        cpu: u32,
        /// The cpus that are online.
        online: CpuList,
    },
    /// The cpu exists but is switched off.
    #[error(
        "cpu {cpu} is offline: choose one of {online}, or switch it on (echo 1 > /sys/devices/system/cpu/cpu{cpu}/online)"
    )]
    Offline {
        /// The cpu asked for.
        cpu: u32,
        /// The cpus that are online.
        online: CpuList,
    },
    /// The cpu is outside the mask that `taskset`, a cgroup or a container gave this process.
    #[error(
        "cpu {cpu} is outside this process's affinity mask ({allowed}): choose one of those, or widen the mask (taskset, or the container's cpuset)"
    )]
    OutsideMask {
        /// The cpu asked for.
        cpu: u32,
        /// The cpus that the process may use.
        allowed: CpuList,
    },
    /// The kernel refused, or said yes and set another mask.
    #[error("the kernel did not pin this thread to cpu {cpu}: {}", refusal(.cause.as_ref(), .mask))]
    Refused {
        /// The cpu asked for, the first one of several.
        cpu: u32,
        /// The mask that holds now.
        mask: CpuList,
        /// What it said, where it said no. (No `source`: the text has it.)
        cause: Option<io::Error>,
    },
    /// A set of cpus without a cpu.
    #[error("cannot confine a thread to no cpu at all: name at least one")]
    Empty,
    /// The mask cannot be read, so no pin can be trusted.
    #[error("cannot read the affinity mask: {0}")]
    Unreadable(io::Error),
}

fn refusal(cause: Option<&io::Error>, mask: &CpuList) -> String {
    let Some(cause) = cause else {
        return format!("its mask is {mask}");
    };
    let denied = matches!(
        Errno::from_io_error(cause),
        Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS)
    );
    let hint = match denied {
        true => {
            "\nhint: a seccomp filter or a security module forbids sched_setaffinity: allow it, or do without pinning \
             (echometer-server: --threads N)"
        }
        false => "",
    };
    format!("{cause}{hint}")
}

/// Says why `cpu` cannot be had, before the kernel's bare EINVAL would.
fn refuse_unusable(cpu: u32) -> Result<(), PinError> {
    let allowed = cpus::allowed().map_err(PinError::Unreadable)?;
    if allowed.contains(cpu) {
        return Ok(());
    }
    // Without sysfs all that is known is the mask, and the cpu is not in it.
    let Ok(online) = cpus::online() else {
        return Err(PinError::OutsideMask { cpu, allowed });
    };
    Err(match online.contains(cpu) {
        true => PinError::OutsideMask { cpu, allowed },
        false if std::path::Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}")).exists() => {
            PinError::Offline { cpu, online }
        }
        false => PinError::Absent { cpu, online },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Affinity belongs to a thread: each test pins one of its own.
    fn on_a_thread(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test)
            .join()
            .expect("the test on its own thread holds");
    }

    #[test]
    fn a_pinned_thread_runs_there_and_nowhere_else() {
        on_a_thread(|| {
            for cpu in cpus::allowed().unwrap().iter() {
                pin_current_thread(cpu).unwrap();
                assert_eq!(
                    cpus::allowed_to_this_thread().unwrap().to_string(),
                    cpu.to_string()
                );
                assert_eq!(rustix::thread::sched_getcpu(), cpu as usize);
            }
        });
    }

    #[test]
    fn a_confined_thread_can_be_set_free_again() {
        on_a_thread(|| {
            let all = cpus::allowed_to_this_thread().unwrap();
            let one: CpuList = all.iter().take(1).collect();
            assert_eq!(confine_current_thread(&one).unwrap(), all);
            assert_eq!(cpus::allowed_to_this_thread().unwrap(), one);
            assert_eq!(confine_current_thread(&all).unwrap(), one);
            assert_eq!(cpus::allowed_to_this_thread().unwrap(), all);
        });
    }

    #[test]
    fn a_child_process_inherits_the_confinement() {
        on_a_thread(|| {
            let last = cpus::allowed()
                .unwrap()
                .iter()
                .last()
                .expect("at least one cpu");
            confine_current_thread(&[last].into_iter().collect()).unwrap();
            let output = std::process::Command::new("cat")
                .arg("/proc/self/status")
                .output()
                .unwrap();
            let status = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                status
                    .lines()
                    .any(|line| line == format!("Cpus_allowed_list:\t{last}")),
                "{status}"
            );
        });
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named_and_the_mask_stays() {
        on_a_thread(|| {
            let before = cpus::allowed_to_this_thread().unwrap();
            for cpu in [crate::cpus::CPU_MAX, 1_024, u32::MAX] {
                let error = pin_current_thread(cpu).unwrap_err();
                assert!(matches!(error, PinError::Absent { .. }), "{error}");
                assert!(
                    error
                        .to_string()
                        .starts_with(&format!("cpu {cpu} does not exist")),
                    "{error}"
                );
            }
            assert!(matches!(
                confine_current_thread(&CpuList::default()),
                Err(PinError::Empty)
            ));
            assert_eq!(cpus::allowed_to_this_thread().unwrap(), before);
        });
    }
}
