//! What does the kernel count that spoils or explains a measurement? Network events, cpu time by kind
//! (steal above all), and pressure. Every reader takes a snapshot; differences are the caller's, but for [`Steal`].

mod cpu;
mod interrupts;
mod net;
mod pressure;

pub(crate) use cpu::irq_time_accounting_in;
pub use cpu::{CpuTimes, IrqTimeAccounting, Steal, cpu_times, irq_time_accounting};
pub use interrupts::{ByName, counted_since, interrupts, softirqs};
pub use net::{NetCounters, netstat};
pub use pressure::{Pressure, cpu_pressure};

use std::{fs, io};

/// Reads a file and names it in the error.
fn read(file: &str) -> io::Result<String> {
    fs::read_to_string(file)
        .map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))
}

fn invalid(file: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{file} is not written as proc(5) says"),
    )
}
