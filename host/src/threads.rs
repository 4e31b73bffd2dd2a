//! How is a thread started? In one way for all programs: named, and with an error that says which limit is in the way.
//! (`std::thread::spawn` panics there.)

use std::{
    fs, io,
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread::{Builder, JoinHandle, Scope, ScopedJoinHandle},
};

use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
};

/// A thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start a thread: {cause}{}", hint(.cause))]
pub struct ThreadError {
    /// What the kernel said. (No `source`: the text has it.)
    pub cause: io::Error,
}

/// Starts a thread. The kernel keeps 15 bytes of its name.
///
/// # Errors
/// [`ThreadError`]; `work` is dropped then.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, ThreadError> {
    let started = Builder::new().name(name.into()).spawn(work);
    started.map_err(|cause| ThreadError { cause })
}

/// The same, with a stack of so many bytes.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_with_stack<T: Send + 'static>(
    name: impl Into<String>,
    stack_bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, ThreadError> {
    let builder = Builder::new().name(name.into()).stack_size(stack_bytes);
    builder.spawn(work).map_err(|cause| ThreadError { cause })
}

/// The same within a scope of [`std::thread::scope`].
///
/// # Errors
/// As [`spawn`].
pub fn spawn_scoped<'scope, 'env, T: Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    name: impl Into<String>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, ThreadError> {
    let started = Builder::new().name(name.into()).spawn_scoped(scope, work);
    started.map_err(|cause| ThreadError { cause })
}

/// What a whole program has to have for its stack; half of Linux's default for a main thread.
const STACK_BYTES: usize = 4 << 20;

/// Runs `work`, which is all that the program does, with a stack that is large enough for it: where the limit on stacks
/// (`ulimit -s`) leaves the main thread less, on a thread that has its own. An overflow would end the process without a
/// word about the limit.
///
/// # Errors
/// The limit is low and no thread can be started.
pub fn with_enough_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, ThreadError> {
    let limit = getrlimit(Resource::Stack).current;
    if limit.is_none_or(|bytes| STACK_BYTES as u64 <= bytes) {
        return Ok(work());
    }
    std::thread::scope(|scope| {
        let builder = Builder::new().name("main".to_owned());
        let main = builder.stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let main = main.map_err(|cause| ThreadError { cause })?;
        Ok(main.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// The cure for an error of a call that started a thread, on a line of its own; nothing for other errors.
#[must_use]
pub fn hint(cause: &io::Error) -> String {
    if Errno::from_io_error(cause) != Some(Errno::AGAIN) {
        return String::new();
    }
    let mut limits = Vec::new();
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if let Some((max, met)) = pids_max(Path::new("/sys/fs/cgroup"), &cgroup) {
        let said = format!("pids.max of the cgroup is {max}");
        if met {
            return format!(
                "\nhint: {said}, and as many are there: raise it (a container's --pids-limit, TasksMax=)"
            );
        }
        limits.push(said);
    }
    if let Some(max) = getrlimit(Resource::Nproc).current {
        limits.push(format!(
            "this user may have {max} processes and threads (`ulimit -u`, nproc)"
        ));
    }
    if let Some(bytes) = getrlimit(Resource::As).current {
        limits.push(format!(
            "the address space is limited to {bytes} bytes (`ulimit -v`)"
        ));
    }
    if let Ok(max) = fs::read_to_string("/proc/sys/kernel/threads-max") {
        limits.push(format!("sysctl kernel.threads-max is {}", max.trim()));
    }
    if limits.is_empty() {
        limits.push("which one can't be read here".into());
    }
    format!(
        "\nhint: a limit on threads is met, or a sandbox forbids them: {}; raise it, or ask for fewer threads",
        limits.join(", ")
    )
}

/// The lowest `pids.max` on the way from this process's cgroup to the root, and whether it is met.
fn pids_max(root: &Path, cgroup: &str) -> Option<(u64, bool)> {
    // Version 2 has one line, `0::/path`; version 1 one for each controller, with a tree for each.
    let folder = cgroup.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        match controllers {
            "" => Some((root.to_owned(), root.join(path))),
            _ if controllers.split(',').any(|name| name == "pids") => {
                let root = root.join("pids");
                Some((root.clone(), root.join(path)))
            }
            _ => None,
        }
    });
    let (root, folder) = folder?;
    let number = |folder: &Path, name: &str| -> Option<u64> {
        let file: PathBuf = folder.join(name);
        fs::read_to_string(file).ok()?.trim().parse().ok()
    };
    folder
        .ancestors()
        .take_while(|folder| folder.starts_with(&root))
        .filter_map(|folder| {
            // "max" is no number, and no limit.
            let max = number(folder, "pids.max")?;
            let met = number(folder, "pids.current").is_some_and(|current| max <= current);
            Some((max, met))
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_run_under_their_names() {
        let named = || std::thread::current().name().map(str::to_owned);
        let own = spawn("one", named).unwrap().join().unwrap();
        assert_eq!(own.as_deref(), Some("one"));
        let small = spawn_with_stack("two", 64 * 1024, named).unwrap();
        assert_eq!(small.join().unwrap().as_deref(), Some("two"));
        let scoped = std::thread::scope(|scope| {
            spawn_scoped(scope, "three", named).unwrap().join().unwrap()
        });
        assert_eq!(scoped.as_deref(), Some("three"));
    }

    #[test]
    fn the_error_names_limits_and_a_cure() {
        let error = ThreadError {
            cause: Errno::AGAIN.into(),
        };
        let text = error.to_string();
        assert!(
            text.starts_with("cannot start a thread: Resource temporarily"),
            "{text}"
        );
        assert!(
            text.contains("\nhint: ") && text.contains("threads"),
            "{text}"
        );
        assert_eq!(hint(&Errno::PERM.into()), "");
    }

    #[test]
    fn the_lowest_limit_of_the_cgroups_counts() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("outer/inner");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("pids.max"), "max\n").unwrap();
        assert_eq!(pids_max(root.path(), "0::/outer/inner\n"), None);
        fs::write(root.path().join("outer/pids.max"), "20\n").unwrap();
        fs::write(root.path().join("outer/pids.current"), "20\n").unwrap();
        assert_eq!(pids_max(root.path(), "0::/outer/inner\n"), Some((20, true)));
        fs::write(folder.join("pids.max"), "10\n").unwrap();
        fs::write(folder.join("pids.current"), "3\n").unwrap();
        assert_eq!(
            pids_max(root.path(), "0::/outer/inner\n"),
            Some((10, false))
        );
        let old = root.path().join("pids/deep");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("pids.max"), "7\n").unwrap();
        assert_eq!(
            pids_max(root.path(), "3:cpu:/x\n2:pids:/deep\n"),
            Some((7, false))
        );
    }
}
