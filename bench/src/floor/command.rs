//! `echometer floor`: the floor at several numbers of connections, in blocks of random order, with its interval.

use std::process::ExitCode;

use anyhow::Context;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

use echometer_host::{
    clock, counters::IrqTimeAccounting, cpus::CpuList, machine::Facts, signals::Stop,
};
use echometer_report::{
    file::floor::{FILE_NAME, FloorFile, FloorRow, SCHEMA},
    folder::{REPORT_NAME, ResultFolder},
    text::floor::{sentence, text},
};
use echometer_statistics::{ALPHA, median, signed_rank};

use crate::{
    floor::flags::FloorSettings,
    invocation::Invocation,
    measure::floor::{Floor, FloorSlice, pairs::PairsPlan},
    place::placement::{self, Placement},
    screen::stdout::{Finished, show},
    site::findings,
};

const METHOD: &str = "One thread on one cpu holds both ends of the connections, non-blocking, over loopback: it sends on \
     all, receives on all, sends back, receives back. Shown is its CPU time per echo and side, minus two empty \
     syscalls.";

/// Runs the command.
///
/// # Errors
/// It can't be done; see [`measure`].
pub(crate) fn run(settings: &FloorSettings, how: &Invocation) -> anyhow::Result<ExitCode> {
    let finished = measure(settings, &how.command_line, &how.stop()?)?;
    let file = show(finished, FILE_NAME, settings.output.json)?;
    let whole = file.rows.iter().all(|row| row.ci_low.is_some());
    Ok(ExitCode::from(if whole { 0 } else { 3 }))
}

/// Measures and saves.
///
/// # Errors
/// A cpu or the sockets can't be had, a connection broke, a file can't be written.
pub(crate) fn measure(
    settings: &FloorSettings,
    command_line: &str,
    stop: &Stop,
) -> anyhow::Result<Finished<FloorFile>> {
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
    let folder = ResultFolder::create(
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
        .map(|(&connections, slices)| row_of(connections, slices))
        .collect();
    let file = FloorFile {
        schema: SCHEMA.to_owned(),
        started_at,
        cut_short,
        method: METHOD.to_owned(),
        caveats: caveats(&machine),
        sentence: sentence(&rows, settings.message_size, &machine, cut_short),
        command: command_line.to_owned(),
        doctor: findings([], &alone_on(cpu), &machine),
        machine,
        cpu,
        message_size: settings.message_size,
        duration_ns: settings.duration.as_nanos() as u64,
        seed: settings.seed,
        rows,
    };
    let text = text(&file);
    let unsaved = folder.save(&text, FILE_NAME, &file).err();
    folder.without_blocks();
    Ok(Finished {
        report: folder.join(REPORT_NAME),
        file,
        text,
        unsaved,
    })
}

/// Where the thread is: it is both sides.
fn alone_on(cpu: u32) -> Placement {
    Placement {
        server: [cpu].into_iter().collect(),
        client: CpuList::default(),
    }
}

fn row_of(connections: u32, slices: &[FloorSlice]) -> FloorRow {
    let blocks: Vec<f64> = slices.iter().filter_map(FloorSlice::ns_per_echo).collect();
    let logarithms: Vec<f64> = blocks.iter().map(|ns| ns.ln()).collect();
    let test = signed_rank(&logarithms, ALPHA);
    let interval = test.and_then(|test| test.interval);
    let syscalls: Vec<f64> = slices.iter().map(|slice| slice.two_syscalls_ns).collect();
    FloorRow {
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
        let row = row_of(50, &slices(&costs));
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
            row_of(1, &slices(&[7_250; 8])),
            row_of(1_000, &slices(&[9_250; 3])),
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
        let rows = vec![row_of(1, &[])];
        assert!(sentence(&rows, 64, &Facts::default(), true).starts_with("Cut short. Nothing"));
    }
}
