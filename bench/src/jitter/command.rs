//! `echometer jitter`: the looks, who ran meanwhile, and what is made of it.

use std::{process, process::ExitCode, time::Duration};

use anyhow::Context;

use echometer_host::{
    clock,
    counters::{ByName, CpuTimes, counted_since, cpu_times, interrupts, softirqs},
    cpus::{self, CpuList},
    gaps::{self, GAP_MIN, Gaps},
    machine::Facts,
    signals::Stop,
    tasks::Tasks,
};
use echometer_report::{
    file::jitter::{Counted, CpuJitter, FILE_NAME, JitterFile, SCHEMA, TaskEntry, buckets_of},
    folder::{REPORT_NAME, ResultFolder},
    text::jitter::{sentence, text},
};
use echometer_statistics::{mean_wait, wait_quantile};

use crate::{
    invocation::Invocation,
    jitter::flags::JitterSettings,
    measure::floor::{Floor, pairs::PairsPlan},
    place::{placement::Placement, quiet::rounds},
    screen::stdout::{Finished, show},
    site::findings,
};

const METHOD: &str = "A loop on each of two cpus at a time reads the clock without pause; where two readings lie 5 us or \
     more apart, something else ran: a gap. p99 and p99.9 are what the gaps alone make of latencies: a message that is due \
     in a gap waits for the rest of it, and for what came before it.";
/// How long a message's cost is measured.
const FLOOR_LENGTH: Duration = Duration::from_millis(100);
/// The connections with which it is measured: the usual ones.
const FLOOR_PAIRS: u32 = 50;
/// A server that works for more of its time is overloaded, and its latencies are not its machine's.
const BUSY_MAX: f64 = 0.95;
/// Where gaps take a greater share of the time they are not rare, as the formula takes them to be.
const GAPS_RARE: f64 = 0.05;
/// So many tasks and interrupts of a cpu are kept.
const KEPT_MAX: usize = 20;

/// Runs the command.
///
/// # Errors
/// It can't be done; see [`measure`].
pub(crate) fn run(settings: &JitterSettings, how: &Invocation) -> anyhow::Result<ExitCode> {
    let finished = measure(settings, &how.command_line, &how.stop()?)?;
    let file = show(finished, FILE_NAME, settings.output.json)?;
    let seen = file.cpus.iter().any(|cpu| 0 < cpu.span_ns);
    Ok(ExitCode::from(if seen { 0 } else { 3 }))
}

/// Looks and saves.
///
/// # Errors
/// A cpu can't be had, a file can't be written.
pub(crate) fn measure(
    settings: &JitterSettings,
    command_line: &str,
    stop: &Stop,
) -> anyhow::Result<Finished<JitterFile>> {
    let mut caveats = vec![
        "Who began and ended during a look is not named; its gaps are counted.".to_owned(),
        "The time of a task that came from another cpu may have passed there.".to_owned(),
    ];
    let cpus = match &settings.cpus {
        Some(cpus) => cpus.clone(),
        None => usual(&mut caveats)?,
    };
    let rounds = rounds(&cpus.iter().collect::<Vec<_>>());
    let first = cpus.first().context("there is no cpu to look at")?;
    let machine = Facts::read();
    let folder = ResultFolder::create(
        settings.output.out.as_deref(),
        settings.machine.as_deref(),
        &machine,
        "jitter",
        FILE_NAME,
    )?;
    let message_ns = message_ns(first).map_err(|reason| {
        caveats.push(format!(
            "What a message costs could not be measured ({reason}): the figures hold for a server that is hardly busy."
        ));
    });
    let message_ns = message_ns.ok();
    let busy = (settings.rate_per_s * message_ns.unwrap_or(0.0) / 1e9).min(BUSY_MAX);
    let started_at = clock::wall_time().to_string();
    let mut seen: Vec<CpuJitter> = Vec::new();
    for round in rounds {
        if stop.requested() {
            break;
        }
        let before = Meanwhile::now();
        let gaps =
            gaps::watch(&round, settings.duration, &|| stop.requested()).inspect_err(|_| {
                folder.discard_if_empty();
            })?;
        let after = Meanwhile::now();
        for gaps in gaps {
            // A cpu without a partner of its own had one that was looked at before.
            if seen.iter().all(|before| before.cpu != gaps.cpu) {
                let beside = round.iter().copied().find(|&cpu| cpu != gaps.cpu);
                seen.push(of(&gaps, beside, busy, (&before, &after)));
            }
        }
    }
    let crowded = |cpu: &&CpuJitter| GAPS_RARE * cpu.span_ns as f64 <= cpu.gaps_ns as f64;
    if seen.iter().any(|cpu| crowded(&cpu)) {
        caveats.push(format!(
            "A cpu spent more than {:.0} % of the time in gaps: what one of them leaves behind meets the next, so that its \
             p99 and p99.9 are at least as shown.",
            GAPS_RARE * 100.0,
        ));
    }
    let both = Placement {
        server: cpus,
        client: CpuList::default(),
    };
    let mut file = JitterFile {
        schema: SCHEMA.to_owned(),
        started_at,
        cut_short: stop.requested(),
        method: METHOD.to_owned(),
        caveats,
        sentence: String::new(),
        command: command_line.to_owned(),
        doctor: findings([], &both, &machine),
        machine,
        duration_ns: settings.duration.as_nanos() as u64,
        gap_min_ns: GAP_MIN.as_nanos() as u64,
        rate_per_s: settings.rate_per_s,
        message_ns,
        busy,
        cpus: seen,
    };
    file.sentence = sentence(&file);
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

/// The cpus that are looked at where none are named: all, or the first few.
fn usual(caveats: &mut Vec<String>) -> anyhow::Result<CpuList> {
    const USUAL_MAX: usize = 8;
    let allowed = cpus::allowed().context("cannot read this process's cpu mask")?;
    if allowed.len() <= USUAL_MAX {
        return Ok(allowed);
    }
    let first: CpuList = allowed.iter().take(USUAL_MAX).collect();
    caveats.push(format!(
        "Only the first {USUAL_MAX} cpus were looked at: name others with --cpus."
    ));
    Ok(first)
}

/// What a message costs a server at least on this cpu, in ns.
fn message_ns(cpu: u32) -> Result<f64, String> {
    let plan = PairsPlan {
        pairs: FLOOR_PAIRS,
        message_size: 64,
        nagle: false,
        sndbuf: None,
        rcvbuf: None,
    };
    let mut floor = Floor::start(cpu, &plan, 64).map_err(|error| error.to_string())?;
    let slice = floor.slice(FLOOR_LENGTH)?;
    slice.ns_per_echo().ok_or_else(|| "no echo".to_owned())
}

/// What the kernel had counted at some time; what can't be read is empty.
struct Meanwhile {
    tasks: Tasks,
    interrupts: ByName,
    softirqs: ByName,
    times: std::collections::BTreeMap<u32, CpuTimes>,
}

impl Meanwhile {
    fn now() -> Self {
        Self {
            tasks: Tasks::now().unwrap_or_default(),
            interrupts: interrupts().unwrap_or_default(),
            softirqs: softirqs().unwrap_or_default(),
            times: cpu_times().unwrap_or_default(),
        }
    }
}

fn of(
    gaps: &Gaps,
    beside: Option<u32>,
    busy: f64,
    (before, after): (&Meanwhile, &Meanwhile),
) -> CpuJitter {
    let cpu = gaps.cpu;
    let wait = |quantile| wait_quantile(&gaps.gaps_ns, gaps.span_ns, busy, quantile);
    let ran = after.tasks.ran_on(cpu, &before.tasks, &[process::id()]);
    let tasks = ran.into_iter().take(KEPT_MAX).map(|ran| TaskEntry {
        name: ran.task.name,
        pid: ran.task.pid,
        ran_ns: ran.ran_ns,
        moved: ran.moved,
    });
    let counted = |after: &ByName, before: &ByName| {
        let counts = counted_since(after, before, cpu).into_iter().take(KEPT_MAX);
        counts
            .map(|(name, count)| Counted { name, count })
            .collect()
    };
    let times = after.times.get(&cpu).zip(before.times.get(&cpu));
    CpuJitter {
        cpu,
        beside,
        span_ns: gaps.span_ns,
        gaps: gaps.gaps_ns.len() as u64,
        left_out: gaps.left_out,
        gaps_ns: gaps.gaps_ns.iter().sum(),
        longest_ns: gaps.gaps_ns.iter().copied().max().unwrap_or(0),
        buckets: buckets_of(&gaps.gaps_ns),
        mean_wait_ns: mean_wait(&gaps.gaps_ns, gaps.span_ns),
        p99_ns: wait(0.99),
        p999_ns: wait(0.999),
        tasks: tasks.collect(),
        interrupts: counted(&after.interrupts, &before.interrupts),
        softirqs: counted(&after.softirqs, &before.softirqs),
        steal_ns: times.map(|(after, before)| after.since(before).steal_ns),
    }
}
