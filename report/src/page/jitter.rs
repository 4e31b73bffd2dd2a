//! What disturbs the cpus, to look at: how often each meets a gap of which length, and who ran meanwhile.

use echometer_host::units::{show_ns, show_rate};

use crate::{
    file::jitter::{CpuJitter, JitterFile},
    page::{
        chart::{Axis, Chart, Point, Scale, Series, Unit},
        frame::Frame,
        model::Page,
        table::{Cell, Table},
    },
};

/// The page of a look at the cpus.
pub(crate) fn page(jitter: &JitterFile) -> Page {
    let mut page = Frame {
        kind: "jitter",
        title: "What disturbs the cpus".to_owned(),
        started_at: &jitter.started_at,
        cut_short: jitter.cut_short,
        sentence: &jitter.sentence,
        verdict: None,
        machine: &jitter.machine,
        doctor: &jitter.doctor,
        commands: &[],
    }
    .page();
    page.trust.warnings.extend(jitter.caveats.iter().cloned());
    page.commands = vec![(String::new(), jitter.command.clone())];
    page.charts = vec![chart(jitter)];
    page.charts.retain(|chart| !chart.is_empty());
    page.tables = vec![table(jitter), tasks(jitter), counts(jitter)];
    page.tables.retain(|table| !table.rows.is_empty());
    let cost = jitter.message_ns.map(|ns| show_ns(ns.round() as u64));
    page.facts = [
        ("how", jitter.method.clone()),
        ("each cpu", show_ns(jitter.duration_ns)),
        ("shorter is no gap", show_ns(jitter.gap_min_ns)),
        (
            "at a rate of",
            format!("{}/s", show_rate(jitter.rate_per_s)),
        ),
        (
            "CPU per message, at least",
            cost.unwrap_or_else(|| "unknown".to_owned()),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    page
}

/// How many gaps of at least each length a cpu meets per second.
fn chart(jitter: &JitterFile) -> Chart {
    let line = |cpu: &CpuJitter| {
        let mut above = 0;
        let mut points: Vec<Point> = cpu
            .buckets
            .iter()
            .rev()
            .map(|bucket| {
                above += bucket.gaps;
                let per_s = above as f64 * 1e9 / cpu.span_ns.max(1) as f64;
                Point::at(bucket.from_ns as f64, per_s)
            })
            .filter(|point| 0.0 < point.y)
            .collect();
        points.reverse();
        // One point is no line.
        if let [only] = points.as_slice() {
            points.push(Point::at(only.x * 2.0, only.y));
        }
        Series {
            name: format!("cpu {}", cpu.cpu),
            points,
            ..Series::default()
        }
    };
    Chart {
        id: "gaps".into(),
        title: "Gaps by length".into(),
        caption: "How often per second a thread that wants to run does not run for so long or longer. A server on that cpu \
                  meets the same; a cpu without a line has no gap."
            .into(),
        x: Axis {
            label: "at least".into(),
            scale: Scale::Log,
            unit: Unit::Ns,
        },
        y: Axis {
            label: "gaps per second".into(),
            scale: Scale::Log,
            unit: Unit::Number,
        },
        series: jitter.cpus.iter().map(line).filter(|line| !line.points.is_empty()).collect(),
        marks: Vec::new(),
        figures: lengths(jitter),
    }
}

fn table(jitter: &JitterFile) -> Table {
    let mut table = Table::new(
        "The cpus",
        [
            "cpu",
            "busy beside it",
            "gaps",
            "in gaps",
            "longest",
            "mean wait",
            "p99",
            "p99.9",
        ],
    );
    for cpu in &jitter.cpus {
        table.push(vec![
            Cell::count(Some(f64::from(cpu.cpu))),
            cpu.beside
                .map_or_else(Cell::none, |beside| Cell::count(Some(f64::from(beside)))),
            Cell::count(Some(cpu.gaps as f64)),
            Cell::ns(Some(cpu.gaps_ns as f64)),
            Cell::ns(Some(cpu.longest_ns as f64)),
            Cell::ns(Some(cpu.mean_wait_ns)),
            Cell::ns(cpu.p99_ns),
            Cell::ns(cpu.p999_ns),
        ]);
    }
    table
}

fn lengths(jitter: &JitterFile) -> Table {
    let mut table = Table::new("Gaps by length", ["cpu", "at least", "gaps", "their sum"]);
    for cpu in &jitter.cpus {
        for bucket in cpu.buckets.iter().filter(|bucket| 0 < bucket.gaps) {
            table.push(vec![
                Cell::count(Some(f64::from(cpu.cpu))),
                Cell::ns(Some(bucket.from_ns as f64)),
                Cell::count(Some(bucket.gaps as f64)),
                Cell::ns(Some(bucket.sum_ns as f64)),
            ]);
        }
    }
    table
}

fn tasks(jitter: &JitterFile) -> Table {
    let mut table = Table::new(
        "Who ran there",
        [
            "cpu",
            "task",
            "process",
            "CPU time",
            "came from another cpu",
        ],
    );
    for cpu in &jitter.cpus {
        for task in &cpu.tasks {
            table.push(vec![
                Cell::count(Some(f64::from(cpu.cpu))),
                Cell::text(task.name.clone()),
                Cell::text(task.pid.to_string()),
                Cell::ns(Some(task.ran_ns as f64)),
                Cell::text(if task.moved { "yes" } else { "no" }),
            ]);
        }
    }
    table
}

fn counts(jitter: &JitterFile) -> Table {
    let mut table = Table::new("Interrupts", ["cpu", "kind", "name", "count"]);
    for cpu in &jitter.cpus {
        for (kind, counts) in [
            ("interrupt", &cpu.interrupts),
            ("soft interrupt", &cpu.softirqs),
        ] {
            for counted in counts {
                table.push(vec![
                    Cell::count(Some(f64::from(cpu.cpu))),
                    Cell::text(kind),
                    Cell::text(counted.name.clone()),
                    Cell::count(Some(counted.count as f64)),
                ]);
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::jitter::tests::example;

    #[test]
    fn the_picture_counts_what_is_longer_too() {
        let page = page(&example());
        let line = &page.charts[0].series[0];
        let (first, last) = (
            line.points.first().expect("points"),
            line.points.last().expect("points"),
        );
        assert_eq!((first.x, first.y), (5_000.0, 40.0));
        assert_eq!((last.x, last.y), (2_000_000.0, 10.0));
        assert_eq!(page.tables.len(), 3);
    }
}
