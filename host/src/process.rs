//! What does a process cost? Its CPU time and that of its descendants, context switches, memory, and the
//! time its threads waited for a cpu. All of it is readable without privileges.
//!
//! Process numbers are those of `std::process::Child::id`.

mod cpu;
mod stat;
mod tree;
mod usage;

pub use cpu::{CpuClock, TreeClock, tree_cpu_ns};
pub use tree::descendants;
pub use usage::{
    Usage, migrations, process_run_delay_ns, thread_cpu_ns, thread_run_delay_ns, usage,
};

use std::{fs, io};

use stat::Stat;

/// The threads of `pid` that live now.
fn threads(pid: u32) -> io::Result<Vec<u32>> {
    numbered_entries(&format!("/proc/{pid}/task"))
}

/// The entries of a folder of `/proc` that are numbers.
pub(crate) fn numbered_entries(folder: &str) -> io::Result<Vec<u32>> {
    let names = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.file_name());
    Ok(names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect())
}

fn invalid(file: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{file} is not written as proc(5) says"),
    )
}
