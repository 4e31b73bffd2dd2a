//! What disturbs the cpus, as text of at most 80 columns, and its answer.

use std::fmt::Write as _;

use echometer_host::units::{show_count, show_ns, show_rate};

use crate::{
    file::jitter::{CpuJitter, JitterFile, TaskEntry},
    text::columns::{paragraph, plain_table, render_right},
};

/// So many tasks and interrupts are named in the text.
const NAMED_MAX: usize = 5;
/// A task that ran for less than this share of the time is not worth a word in the sentence.
const NAMED_SHARE: f64 = 0.0005;

/// The report, of at most 80 columns; ends with the sentence.
#[must_use]
pub fn text(file: &JitterFile) -> String {
    let mut text = String::new();
    paragraph(&mut text, "", &file.method);
    text.push('\n');
    let mut table = plain_table();
    table.set_header([
        "cpu",
        "gaps/s",
        "of the time",
        "longest",
        "mean wait",
        "p99",
        "p99.9",
    ]);
    for cpu in &file.cpus {
        table.add_row([
            cpu.cpu.to_string(),
            format!("{:.1}", cpu.gaps as f64 * 1e9 / cpu.span_ns.max(1) as f64),
            format!("{:.3} %", share(cpu.gaps_ns, cpu) * 100.0),
            show_ns(cpu.longest_ns),
            show_ns(cpu.mean_wait_ns.round() as u64),
            wait(file, cpu.p99_ns),
            wait(file, cpu.p999_ns),
        ]);
    }
    text.push_str(&render_right(&mut table, 0..=6));
    text.push_str("\n\n");
    if file.cpus.iter().any(|cpu| !cpu.buckets.is_empty()) {
        text.push_str(&lengths(file));
        text.push_str("\n\n");
    }
    for cpu in &file.cpus {
        paragraph(&mut text, "", &meanwhile(cpu));
    }
    text.push('\n');
    for caveat in &file.caveats {
        paragraph(&mut text, "- ", caveat);
    }
    text.push('\n');
    paragraph(&mut text, "", &file.sentence);
    text
}

/// How many gaps of which length each cpu had.
fn lengths(file: &JitterFile) -> String {
    let mut table = plain_table();
    let heads = file.cpus.iter().map(|cpu| format!("cpu {}", cpu.cpu));
    table.set_header(std::iter::once("gaps of".to_owned()).chain(heads));
    let longest = file.cpus.iter().max_by_key(|cpu| cpu.buckets.len());
    let rows = longest.map_or(&[][..], |cpu| cpu.buckets.as_slice());
    for (index, bucket) in rows.iter().enumerate() {
        let counts: Vec<u64> = file
            .cpus
            .iter()
            .map(|cpu| cpu.buckets.get(index).map_or(0, |bucket| bucket.gaps))
            .collect();
        if counts.iter().all(|&count| count == 0) {
            continue;
        }
        let counts = counts.into_iter().map(show_count);
        table.add_row(
            std::iter::once(format!("{} and more", show_ns(bucket.from_ns))).chain(counts),
        );
    }
    render_right(&mut table, 0..=file.cpus.len())
}

/// Who ran on a cpu, and what interrupted it.
fn meanwhile(cpu: &CpuJitter) -> String {
    let tasks = cpu.tasks.iter().take(NAMED_MAX).map(|task| ran(task, cpu));
    let tasks: Vec<String> = tasks.collect();
    let mut text = format!("cpu {}: ", cpu.cpu);
    match tasks.is_empty() {
        true => text.push_str("no task ran there"),
        false => text.push_str(&tasks.join(", ")),
    }
    for (kind, counts) in [
        ("interrupts", &cpu.interrupts),
        ("soft interrupts", &cpu.softirqs),
    ] {
        let named: Vec<String> = counts
            .iter()
            .take(NAMED_MAX)
            .map(|count| {
                let per_s = count.count as f64 * 1e9 / cpu.span_ns.max(1) as f64;
                format!("{} {per_s:.1}/s", count.name)
            })
            .collect();
        if !named.is_empty() {
            let _ = write!(text, "; {kind}: {}", named.join(", "));
        }
    }
    if let Some(steal) = cpu.steal_ns.filter(|&ns| 0 < ns) {
        let _ = write!(text, "; the hypervisor took {}", show_ns(steal));
    }
    text
}

/// `backup (pid 12) 2.05 %`
fn ran(task: &TaskEntry, cpu: &CpuJitter) -> String {
    let most = if task.moved { "up to " } else { "" };
    format!(
        "{} (pid {}) {most}{:.2} %",
        task.name,
        task.pid,
        share(task.ran_ns, cpu) * 100.0
    )
}

fn share(ns: u64, cpu: &CpuJitter) -> f64 {
    ns as f64 / cpu.span_ns.max(1) as f64
}

/// A quantile; where few messages meet a gap it is what other things make of it.
fn wait(file: &JitterFile, ns: Option<f64>) -> String {
    match ns {
        Some(ns) => show_ns(ns.round() as u64),
        None => format!("< {}", show_ns(file.gap_min_ns)),
    }
}

/// The answer: what each cpu makes of p99.9, and who is to blame.
#[must_use]
pub fn sentence(file: &JitterFile) -> String {
    let cut = if file.cut_short { "Cut short. " } else { "" };
    if file.cpus.iter().all(|cpu| cpu.span_ns == 0) {
        return format!("{cut}Nothing was measured.");
    }
    let at = format!("{}/s", show_rate(file.rate_per_s));
    let parts: Vec<String> = file
        .cpus
        .iter()
        .map(|cpu| match cpu.p999_ns {
            None => format!("none to speak of on cpu {}", cpu.cpu),
            Some(ns) => {
                let first = cpu.tasks.first();
                let first = first.filter(|task| NAMED_SHARE <= share(task.ran_ns, cpu));
                let who = first.map_or_else(String::new, |task| {
                    format!(" (most of the time had {})", ran(task, cpu))
                });
                format!(
                    "a p99.9 of {} on cpu {}{who}",
                    show_ns(ns.round() as u64),
                    cpu.cpu
                )
            }
        })
        .collect();
    format!(
        "{cut}On {}, your machine alone makes, at {at}: {}.",
        file.machine.summary(),
        parts.join("; "),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use echometer_host::machine::Facts;

    use super::*;
    use crate::file::jitter::{Counted, SCHEMA, buckets_of};

    /// A noisy cpu and a quiet one.
    pub(crate) fn example() -> JitterFile {
        let gaps = [vec![2_000_000; 100], vec![6_000; 300]].concat();
        let noisy = CpuJitter {
            cpu: 0,
            beside: Some(1),
            span_ns: 10_000_000_000,
            gaps: 400,
            left_out: 0,
            gaps_ns: gaps.iter().sum(),
            longest_ns: 2_000_000,
            buckets: buckets_of(&gaps),
            mean_wait_ns: 20_000.5,
            p99_ns: Some(1_000_000.0),
            p999_ns: Some(1_900_000.0),
            tasks: vec![TaskEntry {
                name: "backup".to_owned(),
                pid: 12,
                ran_ns: 200_000_000,
                moved: false,
            }],
            interrupts: vec![Counted {
                name: "Local timer interrupts".to_owned(),
                count: 2_500,
            }],
            softirqs: vec![Counted {
                name: "TIMER".to_owned(),
                count: 100,
            }],
            steal_ns: Some(10_000_000),
        };
        let quiet = CpuJitter {
            cpu: 1,
            beside: Some(0),
            gaps: 1,
            gaps_ns: 6_000,
            longest_ns: 6_000,
            buckets: buckets_of(&[6_000]),
            mean_wait_ns: 0.002,
            p99_ns: None,
            p999_ns: None,
            tasks: Vec::new(),
            interrupts: Vec::new(),
            softirqs: Vec::new(),
            steal_ns: None,
            ..noisy.clone()
        };
        let mut file = JitterFile {
            schema: SCHEMA.to_owned(),
            started_at: "2026-11-29T00:00:00Z".to_owned(),
            cut_short: false,
            method: "A loop reads the clock.".to_owned(),
            caveats: vec!["Who came and went is not named.".to_owned()],
            sentence: String::new(),
            command: "echometer jitter".to_owned(),
            machine: Facts::default(),
            doctor: Vec::new(),
            duration_ns: 10_000_000_000,
            gap_min_ns: 5_000,
            rate_per_s: 50_000.0,
            message_ns: Some(7_000.0),
            busy: 0.35,
            cpus: vec![noisy, quiet],
        };
        file.sentence = sentence(&file);
        file
    }

    #[test]
    fn the_disturber_is_named_and_what_it_does_to_the_tail() {
        let file = example();
        assert!(
            file.sentence.contains(
                "at 50,000/s: a p99.9 of 1.90 ms on cpu 0 (most of the time had backup (pid 12) 2.00 %); none to speak of on cpu 1."
            ),
            "{}",
            file.sentence
        );
        let text = text(&file);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        for part in [
            "2.00 ms and more",
            "Local timer interrupts 250.0/s",
            "the hypervisor took 10.0 ms",
            "< 5.00 us",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let read: JitterFile =
            serde_json::from_str(&serde_json::to_string(&file).expect("plain")).expect("read back");
        assert_eq!(read, file);
    }

    #[test]
    fn nothing_measured_is_said() {
        let mut file = example();
        file.cut_short = true;
        file.cpus.clear();
        assert_eq!(sentence(&file), "Cut short. Nothing was measured.");
    }
}
