//! The raw data of a block, so that every figure can be found again: a histogram log per arm, and a table of all
//! slices.

use std::{
    fmt::Write as _,
    io,
    time::{Duration, SystemTime},
};

use echometer_loadgen::histogram_log::{self, Line};
use echometer_report::{
    file::floor::LABEL,
    folder::{BLOCKS, ResultFolder, hlog_name},
};

use crate::measure::{
    block::{ArmBlock, Block},
    floor::FloorSlice,
};

/// Writes a block (counted from 1) into the result's folder: `blocks/003-ARM.hlog` for each arm that had a slice, and
/// `blocks/003-slices.csv`.
///
/// # Errors
/// The files can't be written.
pub(crate) fn write(
    folder: &ResultFolder,
    index: usize,
    block: &Block,
    names: &[String],
) -> io::Result<()> {
    write_part(folder, index, "slices", block, names)
}

/// As [`write()`], of a block that is measured in parts: the table is `blocks/003-PART.csv`.
///
/// # Errors
/// The files can't be written.
pub(crate) fn write_part(
    folder: &ResultFolder,
    index: usize,
    part: &str,
    block: &Block,
    names: &[String],
) -> io::Result<()> {
    for (name, arm) in names
        .iter()
        .zip(&block.arms)
        .filter(|(_, arm)| !arm.slices.is_empty())
    {
        folder.write(&hlog_name(index, name), &histogram(arm)?)?;
    }
    folder.write(
        &format!("{BLOCKS}/{index:03}-{part}.csv"),
        slices_csv(block, names).as_bytes(),
    )
}

/// The latency of the whole block on one line, or of each run on its own, tagged as in the load generator's logs.
fn histogram(arm: &ArmBlock) -> io::Result<Vec<u8>> {
    let line = |histogram, start_ns, length_ns| Line {
        tag: "latency",
        histogram,
        start: Duration::from_nanos(start_ns),
        length: Duration::from_nanos(length_ns),
    };
    let mut lines = Vec::new();
    if arm.runs.is_empty() {
        let recorded_ns = arm.slices.iter().map(|slice| slice.recorded_span_ns).sum();
        lines.push(line(&arm.latency, 0, recorded_ns));
    }
    // One after the other, as if nothing had been between them.
    let mut start_ns = 0;
    for run in &arm.runs {
        let length_ns = run.stretch.recorded_span_ns;
        lines.push(line(&run.stretch.latency, start_ns, length_ns));
        start_ns += length_ns;
    }
    histogram_log::whole(SystemTime::now(), lines)
}

/// One row per slice, in the order in which they were run.
fn slices_csv(block: &Block, names: &[String]) -> String {
    let mut text = String::from(
        "cycle,arm,messages,recorded,recorded_span_ns,span_ns,server_cpu_ns,client_cpu_ns,client_busiest,\
         server_cpus_busy_ns,server_cpus_softirq_ns,server_cpus_steal_ns\n",
    );
    let mut next = vec![0; block.arms.len()];
    let mut floor = block.floor.iter();
    for &arm in &block.order {
        if arm == block.arms.len() {
            // Its messages are the echoes of either side, and its CPU time holds the syscalls.
            if let Some((cycle, slice)) = floor.next() {
                let FloorSlice {
                    echoes,
                    cpu_ns,
                    span_ns,
                    ..
                } = slice;
                let _ = writeln!(
                    text,
                    "{cycle},{LABEL},{echoes},{echoes},{span_ns},{span_ns},{cpu_ns},,,,,"
                );
            }
            continue;
        }
        // The slice during which a block broke off is in its order and has no figures.
        let Some(slice) = block.arms[arm].slices.get(next[arm]) else {
            continue;
        };
        next[arm] += 1;
        let [server_cpu_ns, client_cpu_ns] = [slice.server_cpu_ns, slice.client_cpu_ns]
            .map(|ns| ns.map_or_else(String::new, |ns| ns.to_string()));
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{server_cpu_ns},{client_cpu_ns},{:.4},{},{},{}",
            slice.cycle,
            names[arm],
            slice.messages,
            slice.recorded,
            slice.recorded_span_ns,
            slice.span_ns,
            slice.client_busiest,
            slice.server_cpus.busy_ns,
            slice.server_cpus.softirq_ns,
            slice.server_cpus.steal_ns,
        );
    }
    text
}
