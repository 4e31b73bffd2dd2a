//! `echometer floor`: the floor at several numbers of connections, in blocks of random order, with its interval.

use std::process::ExitCode;

use anyhow::Context;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use echometer_host::{
    clock,
    counters::IrqTimeAccounting,
    cpus::CpuList,
    fitness::Finding,
    machine::Facts,
    signals::Stop,
    units::{show_count, show_ns, show_size},
};

use crate::{
    doctor,
    floor::{Floor, FloorSlice, flags::FloorSettings, pairs::PairsPlan},
    place::placement::{self, Placement},
    report::{
        folder::{REPORT_NAME, ResultFolder, json},
        text::{
            compare::{interval_title, paragraph, plain_table, render_right},
            counted::counted,
        },
    },
    screen::stdout::{show_report, show_text},
    statistics::{ALPHA, blocks_min, median, signed_rank},
};

/// What the file says of its form.
pub const SCHEMA: &str = "echometer.floor/1";
/// The name of the file in its folder.
pub const FILE_NAME: &str = "floor.json";

/// A measurement of the floor, as it is saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloorFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Whether it was stopped before its last block; only whole blocks are in it.
    pub cut_short: bool,
    /// How it is measured, in words.
    pub method: String,
    /// What to know when reading it.
    pub caveats: Vec<String>,
    /// The answer for people.
    pub sentence: String,
    /// The command line.
    pub command: String,
    /// Where it was measured.
    pub machine: Facts,
    /// Whether that machine is fit to measure on; empty in files from before it was asked.
    #[serde(default)]
    pub doctor: Vec<Finding>,
    /// The cpu that the thread was pinned to.
    pub cpu: u32,
    /// Bytes in a message.
    pub message_size: u32,
    /// How long each row was measured in a block, in ns.
    pub duration_ns: u64,
    /// Repeats the order within the blocks.
    pub seed: u64,
    /// One a number of connections.
    pub rows: Vec<FloorRow>,
}

/// The floor at one number of connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloorRow {
    /// Pairs of sockets.
    pub connections: u32,
    /// CPU time an echo and side, less two empty syscalls: Hodges-Lehmann over the blocks.
    pub cpu_ns_per_message: Option<f64>,
    /// Lower end of its interval; `null` below six blocks.
    pub ci_low: Option<f64>,
    /// Upper end of its interval.
    pub ci_high: Option<f64>,
    /// How sure the interval is.
    pub confidence: Option<f64>,
    /// What two empty syscalls cost: the median over the blocks.
    pub two_syscalls_ns: Option<f64>,
    /// Every block's value of `cpu_ns_per_message`, in order.
    pub blocks: Vec<f64>,
    /// Echoes of either side, over all blocks.
    pub echoes: u64,
}

const METHOD: &str = "One thread on one cpu holds both ends of the connections, non-blocking, over loopback: it sends on \
     all, receives on all, sends back, receives back. Shown is its CPU time an echo and side, less two empty syscalls.";

/// Measures, saves, prints.
///
/// # Errors
/// A cpu or the sockets can't be had, a connection broke, a file can't be written.
pub fn run(settings: &FloorSettings, command_line: &str) -> anyhow::Result<ExitCode> {
    let stop = Stop::on_signals().context("cannot watch for signals")?;
    let cpu = match settings.cpu {
        Some(cpu) => cpu,
        None => placement::lone().context("cannot choose a cpu: name one with --cpu")?,
    };
    let plans: Vec<PairsPlan> = settings
        .connections
        .iter()
        .map(|&pairs| PairsPlan {
            pairs,
            message_size: settings.message_size,
            nagle: false,
            sndbuf: None,
            rcvbuf: None,
        })
        .collect();
    let mut open = 64;
    let mut floors = Vec::new();
    for plan in &plans {
        floors.push(Floor::start(cpu, plan, open)?);
        open += 2 * u64::from(plan.pairs);
    }
    let machine = Facts::read();
    let folder = ResultFolder::wanted(
        settings.output.out.as_deref(),
        settings.machine.as_deref(),
        &machine,
        "floor",
        FILE_NAME,
    )?;
    let started_at = clock::wall_time().to_string();
    let mut slices: Vec<Vec<FloorSlice>> = vec![Vec::new(); floors.len()];
    let mut random = StdRng::seed_from_u64(settings.seed);
    let mut order: Vec<usize> = (0..floors.len()).collect();
    let mut cut_short = false;
    for _ in 0..settings.blocks {
        order.shuffle(&mut random);
        let mut block = Vec::with_capacity(order.len());
        for &row in &order {
            cut_short = stop.requested();
            if cut_short {
                break;
            }
            let slice = floors[row].slice(settings.duration).inspect_err(|_| {
                folder.discard_if_empty();
            });
            block.push((row, slice.map_err(anyhow::Error::msg)?));
        }
        if cut_short {
            break;
        }
        for (row, slice) in block {
            slices[row].push(slice);
        }
    }
    let rows: Vec<FloorRow> = settings
        .connections
        .iter()
        .zip(&slices)
        .map(|(&connections, slices)| FloorRow::of(connections, slices))
        .collect();
    let file = FloorFile {
        schema: SCHEMA.to_owned(),
        started_at,
        cut_short,
        method: METHOD.to_owned(),
        caveats: caveats(&machine),
        sentence: sentence(&rows, settings.message_size, &machine, cut_short),
        command: command_line.to_owned(),
        doctor: doctor::findings([], &alone_on(cpu), &machine),
        machine,
        cpu,
        message_size: settings.message_size,
        duration_ns: settings.duration.as_nanos() as u64,
        seed: settings.seed,
        rows,
    };
    let text = text(&file);
    folder.save(&text, FILE_NAME, &file)?;
    folder.without_blocks();
    match settings.output.json {
        true => show_text(&json(&file))?,
        false => show_report(&text, &folder.join(REPORT_NAME), FILE_NAME)?,
    }
    let whole = file.rows.iter().all(|row| row.ci_low.is_some());
    Ok(ExitCode::from(if whole { 0 } else { 3 }))
}

/// Where the thread is: it is both sides.
fn alone_on(cpu: u32) -> Placement {
    Placement {
        server: [cpu].into_iter().collect(),
        client: CpuList::default(),
    }
}

impl FloorRow {
    fn of(connections: u32, slices: &[FloorSlice]) -> Self {
        let blocks: Vec<f64> = slices.iter().filter_map(FloorSlice::ns_per_echo).collect();
        let logarithms: Vec<f64> = blocks.iter().map(|ns| ns.ln()).collect();
        let test = signed_rank(&logarithms, ALPHA);
        let interval = test.and_then(|test| test.interval);
        let syscalls: Vec<f64> = slices.iter().map(|slice| slice.two_syscalls_ns).collect();
        Self {
            connections,
            cpu_ns_per_message: test.map(|test| test.estimate.exp()),
            ci_low: interval.map(|interval| interval.low.exp()),
            ci_high: interval.map(|interval| interval.high.exp()),
            confidence: interval.map(|interval| interval.confidence),
            two_syscalls_ns: median(&syscalls),
            blocks,
            echoes: slices.iter().map(|slice| slice.echoes).sum(),
        }
    }
}

fn caveats(machine: &Facts) -> Vec<String> {
    let mut caveats = vec![
        "A floor of this kernel, this cpu and loopback: a network card's driver costs something else.".to_owned(),
        "Nothing sleeps and nothing is woken here; a server that waits for its client pays for that, too.".to_owned(),
    ];
    if machine.irq_time_accounting == Some(IrqTimeAccounting::On) {
        caveats.push(
            "This kernel accounts for interrupts apart (irq time accounting): most of TCP's work is missing from these \
             figures, and comparisons withhold the multiple of the floor."
                .to_owned(),
        );
    }
    caveats
}

/// The report, of at most 80 columns; ends with the sentence.
#[must_use]
pub fn text(file: &FloorFile) -> String {
    let mut text = String::new();
    paragraph(
        &mut text,
        "",
        &format!("{} On cpu {}.", file.method, file.cpu),
    );
    text.push('\n');
    let confidence = file.rows.iter().find_map(|row| row.confidence);
    let mut table = plain_table();
    table.set_header([
        "connections",
        "CPU/message",
        &interval_title(confidence),
        "two empty syscalls",
        "echoes",
    ]);
    let ns = |ns: Option<f64>| ns.map_or("-".to_owned(), |ns| show_ns(ns.round() as u64));
    for row in &file.rows {
        let interval = match (row.ci_low, row.ci_high) {
            (Some(_), Some(_)) => format!("{} - {}", ns(row.ci_low), ns(row.ci_high)),
            _ => "-".to_owned(),
        };
        table.add_row([
            show_count(u64::from(row.connections)),
            ns(row.cpu_ns_per_message),
            interval,
            ns(row.two_syscalls_ns),
            show_count(row.echoes),
        ]);
    }
    text.push_str(&render_right(&mut table, 0..=4));
    text.push_str("\n\n");
    for caveat in &file.caveats {
        paragraph(&mut text, "- ", caveat);
    }
    text.push('\n');
    paragraph(&mut text, "", &file.sentence);
    text
}

fn sentence(rows: &[FloorRow], size: u32, machine: &Facts, cut_short: bool) -> String {
    let parts: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let sure = match (row.ci_low, row.ci_high) {
                (Some(low), Some(high)) => format!(
                    " ({} to {})",
                    show_ns(low.round() as u64),
                    show_ns(high.round() as u64)
                ),
                _ => format!(
                    " (without an interval: that needs {} blocks)",
                    blocks_min(ALPHA)
                ),
            };
            let ns = show_ns(row.cpu_ns_per_message?.round() as u64);
            let connections = counted(u64::from(row.connections), "connection");
            Some(format!("{ns}{sure} at {connections}"))
        })
        .collect();
    let cut = if cut_short { "Cut short. " } else { "" };
    if parts.is_empty() {
        return format!("{cut}Nothing was measured.");
    }
    format!(
        "{cut}On {}, an echo of {} costs the kernel, on the server's side, at least {}.",
        machine.summary(),
        show_size(u64::from(size)),
        parts.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(costs: &[u64]) -> Vec<FloorSlice> {
        costs
            .iter()
            .map(|&cost| FloorSlice {
                echoes: 1_000,
                cpu_ns: cost * 1_000,
                span_ns: cost * 1_000,
                two_syscalls_ns: 250.0,
            })
            .collect()
    }

    fn file(rows: Vec<FloorRow>) -> FloorFile {
        let machine = Facts {
            cpu_model: Some("Made-up 3000".to_owned()),
            irq_time_accounting: Some(IrqTimeAccounting::On),
            ..Facts::default()
        };
        FloorFile {
            schema: SCHEMA.to_owned(),
            started_at: String::new(),
            cut_short: false,
            method: METHOD.to_owned(),
            caveats: caveats(&machine),
            sentence: sentence(&rows, 64, &machine, false),
            command: String::new(),
            machine,
            doctor: Vec::new(),
            cpu: 0,
            message_size: 64,
            duration_ns: 200_000_000,
            seed: 1,
            rows,
        }
    }

    #[test]
    fn a_row_is_the_middle_of_its_blocks_with_an_interval() {
        let costs = [7_250, 7_350, 7_150, 7_250, 7_450, 7_250, 7_050, 7_250];
        let row = FloorRow::of(50, &slices(&costs));
        assert!(
            row.cpu_ns_per_message
                .is_some_and(|ns| (ns - 7_000.0).abs() < 20.0),
            "{row:?}"
        );
        assert!(row.ci_low < row.cpu_ns_per_message && row.cpu_ns_per_message < row.ci_high);
        assert_eq!((row.echoes, row.blocks.len()), (8_000, 8));
    }

    #[test]
    fn the_report_fits_and_says_what_is_missing() {
        let rows = vec![
            FloorRow::of(1, &slices(&[7_250; 8])),
            FloorRow::of(1_000, &slices(&[9_250; 3])),
        ];
        let file = file(rows);
        let text = text(&file);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(text.contains("irq time accounting"), "{text}");
        assert!(
            file.sentence
                .contains("7.00 us (7.00 us to 7.00 us) at 1 connection,"),
            "{}",
            file.sentence
        );
        assert!(
            file.sentence.contains("needs 6 blocks"),
            "{}",
            file.sentence
        );
        let read: FloorFile = serde_json::from_str(&serde_json::to_string(&file).expect("plain"))
            .expect("it is read back");
        assert_eq!(read.rows, file.rows);
    }

    #[test]
    fn nothing_measured_is_said() {
        let rows = vec![FloorRow::of(1, &[])];
        assert!(sentence(&rows, 64, &Facts::default(), true).starts_with("Cut short. Nothing"));
    }
}
