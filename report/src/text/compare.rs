//! A comparison as text of at most 80 columns: what to know about it, the tables, the sentence. Colour supports the
//! words and adds nothing to them.

use std::fmt::Write as _;

use echometer_host::units::{counted, show_ns, show_size};
use echometer_statistics::{Verdict, median};

use crate::{
    file::{
        compare::{Comparison, MetricResult},
        design::Design,
        figures::ArmFigures,
        floor::FloorEntry,
    },
    text::{
        columns::{
            cpus, five_chars, interval_title, paragraph, plain_table, render_right, short,
            show_interval, show_value,
        },
        remarks::{self, spoilt},
    },
};

/// The whole report, without colours; ends with the sentence.
#[must_use]
pub fn text(comparison: &Comparison) -> String {
    let mut text = String::new();
    let valid = comparison.valid_blocks().count();
    let design = &comparison.design;
    let cpus = cpus(design.server_cpus.as_ref(), &design.client_cpus);
    let slice = comparison
        .blocks
        .iter()
        .map(|block| block.slice_ns)
        .max()
        .filter(|&ns| 0 < ns)
        .unwrap_or(design.slice_min_ns);
    let header = format!(
        "{}; {cpus}{}; {valid} of {} valid, {} of {}",
        design.load.words(),
        design.priority.clause(),
        counted(comparison.blocks.len().max(design.blocks) as u64, "block"),
        match design.kind {
            Design::Slices => "slices",
            Design::Runs => "runs",
        },
        show_ns(slice),
    );
    paragraph(&mut text, "", &header);
    let remarks = remarks(comparison);
    if !remarks.is_empty() {
        text.push('\n');
    }
    for remark in &remarks {
        paragraph(&mut text, "- ", remark);
    }
    for arm in comparison.arms.iter().skip(1) {
        let _ = writeln!(text, "\n{}", metrics_table(comparison, &arm.name));
    }
    let _ = writeln!(text, "\n{}\n", arms_table(comparison));
    if let Some(table) = comparison.floor.as_ref().and_then(floor_table) {
        let _ = writeln!(text, "{table}\n");
    }
    paragraph(&mut text, "", &comparison.sentence);
    text
}

/// What to know before the figures, the gravest first, each once.
pub(crate) fn remarks(comparison: &Comparison) -> Vec<String> {
    let invalid = comparison.blocks.iter().filter(|block| !block.valid);
    let floor = comparison.floor.iter().flat_map(|floor| {
        let withheld = floor.withheld.iter();
        let withheld = withheld.map(|reason| format!("no floor: {reason}"));
        withheld.chain(floor.notes.iter().cloned())
    });
    remarks::remarks(
        &comparison.verdict,
        invalid.map(|block| spoilt(block.index, &block.reasons)),
        objections(comparison)
            .into_iter()
            .chain(narrower(comparison))
            .chain(floor),
    )
}

/// What would narrow a tail's interval that says little, with what the look at the cpus showed.
fn narrower(comparison: &Comparison) -> Option<String> {
    /// An interval of less than a quarter to either side is no wide one.
    const WIDE: f64 = 1.6;
    let design = &comparison.design;
    let quiet = design.quiet.as_ref()?;
    let servers = design.server_cpus.as_ref()?;
    let wide = comparison.metrics.iter().find_map(|metric| {
        let (low, high) = (metric.ci_low?, metric.ci_high?);
        let tail = metric
            .name
            .quantile()
            .is_some_and(|quantile| 0.99 <= quantile);
        (tail && WIDE * low < high).then(|| {
            format!(
                "{} of {} is known only to x{low:.2} to x{high:.2}",
                metric.name.label(),
                metric.arm
            )
        })
    })?;
    let cpu = quiet.cpus.iter().find(|cpu| servers.contains(cpu.cpu));
    let gaps = cpu.map_or_else(String::new, |cpu| {
        format!(
            " (cpu {} had gaps up to {} in a look of {})",
            cpu.cpu,
            show_ns(cpu.longest_ns),
            show_ns(quiet.look_ns)
        )
    });
    let cure = match design.priority.servers.is_none() {
        true => {
            "--priority rt or nice keeps other tasks off the servers' cpu, and `echometer jitter` names them"
        }
        false => {
            "`echometer jitter` names what disturbs both sides' cpus; end it, or take more --blocks"
        }
    };
    Some(format!("{wide}{gaps}: {cure}"))
}

/// Metrics without a verdict, those together that have the same reason. A reason that was told already is not repeated.
fn objections(comparison: &Comparison) -> Vec<String> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    let invalid = comparison
        .metrics
        .iter()
        .filter(|metric| metric.verdict == Verdict::Invalid);
    for (metric, reason) in invalid.filter_map(|metric| Some((metric, metric.reason.as_deref()?))) {
        let label = metric.name.label();
        match groups.iter_mut().find(|(told, _)| *told == reason) {
            Some((_, labels)) if labels.contains(&label) => {}
            Some((_, labels)) => labels.push(label),
            None => groups.push((reason, vec![label])),
        }
    }
    let told = |reason: &str| {
        let mut reasons = comparison.verdict.reasons.iter();
        reasons.any(|told| told.contains(reason))
    };
    groups
        .into_iter()
        .map(|(reason, labels)| {
            let labels = labels.join(", ");
            match told(reason) {
                true => format!("no verdict on {labels}: as said"),
                false => format!("no verdict on {labels}: {reason}"),
            }
        })
        .collect()
}

fn metrics_table(comparison: &Comparison, arm: &str) -> String {
    let metrics: Vec<&MetricResult> = comparison
        .metrics
        .iter()
        .filter(|metric| metric.arm == arm)
        .collect();
    let baseline = comparison.arms.first().map_or("", |arm| arm.name.as_str());
    let confidence = metrics.iter().find_map(|metric| metric.confidence);
    let interval = interval_title(confidence);
    let mut table = plain_table();
    table.set_header([
        "",
        &short(baseline),
        &short(arm),
        "ratio",
        &interval,
        "verdict",
    ]);
    for metric in metrics {
        let star = if metric.primary { " *" } else { "" };
        let interval = show_interval(metric.ci_low, metric.ci_high);
        table.add_row([
            format!("{}{star}", metric.name.label()),
            show_value(metric.name, metric.baseline_value),
            show_value(metric.name, metric.arm_value),
            metric
                .ratio
                .map_or("-".to_owned(), |ratio| format!("x{}", five_chars(ratio))),
            interval,
            metric.verdict.word().to_owned(),
        ]);
    }
    render_right(&mut table, 1..=4)
}

/// What each arm did, beside the comparison: who was busy, and what it took.
fn arms_table(comparison: &Comparison) -> String {
    let mut table = plain_table();
    table.set_header([
        "",
        "server busy",
        "client busy",
        "cpu softirq",
        "switches/msg",
        "memory",
    ]);
    for arm in &comparison.arms {
        let figures: Vec<&ArmFigures> = comparison
            .valid_blocks()
            .filter_map(|block| block.arms.get(&arm.name))
            .collect();
        let of = |part: &dyn Fn(&ArmFigures) -> Option<f64>| {
            median(
                &figures
                    .iter()
                    .filter_map(|figures| part(figures))
                    .collect::<Vec<_>>(),
            )
        };
        let percent = |share: Option<f64>| {
            share.map_or("-".to_owned(), |share| format!("{:.0} %", share * 100.0))
        };
        let switches = of(&|arm| Some(arm.context_switches? as f64 / arm.messages.max(1) as f64));
        let memory = of(&|arm| Some(arm.rss_bytes? as f64));
        let local = arm_is_local(comparison, &arm.name);
        table.add_row([
            short(&arm.name),
            percent(of(&|arm| arm.server_busy)),
            percent(of(&|arm| Some(arm.client_busy))),
            percent(of(&|arm| Some(arm.server_cpus.softirq)).filter(|_| local)),
            switches.map_or("-".to_owned(), |switches| format!("{switches:.3}")),
            memory.map_or("-".to_owned(), |bytes| show_size(bytes as u64)),
        ]);
    }
    render_right(&mut table, 1..=5)
}

/// Each server as a multiple of the kernel's own cost; `None` where no block has one.
fn floor_table(floor: &FloorEntry) -> Option<String> {
    let floor_ns = floor.cpu_ns_per_message?;
    let confidence = floor
        .multiples
        .iter()
        .find_map(|multiple| multiple.confidence);
    let mut table = plain_table();
    table.set_header(["server CPU/message", "x floor", &interval_title(confidence)]);
    table.add_row([
        format!("floor: {}", show_ns(floor_ns.round() as u64)),
        "1".to_owned(),
        String::new(),
    ]);
    for multiple in &floor.multiples {
        let ratio = multiple
            .ratio
            .map_or("-".to_owned(), |ratio| format!("x{}", five_chars(ratio)));
        table.add_row([
            short(&multiple.arm),
            ratio,
            show_interval(multiple.ci_low, multiple.ci_high),
        ]);
    }
    Some(render_right(&mut table, 1..=2))
}

fn arm_is_local(comparison: &Comparison, name: &str) -> bool {
    comparison.commands.iter().any(|command| command.of == name)
}

#[cfg(test)]
mod tests {
    use echometer_host::priority::Priority;

    use super::*;
    use crate::{
        file::{
            metric::Metric,
            quiet::{QuietCpu, QuietEntry},
        },
        text::columns::coloured,
    };

    #[test]
    fn a_wide_tail_says_what_would_narrow_it() {
        let saved = include_str!("../../tests/saved/runs/compare.json");
        let mut comparison: Comparison = serde_json::from_str(saved).expect("it is one");
        let tail = |comparison: &mut Comparison, low, high| {
            let metrics = comparison.metrics.iter_mut();
            for metric in metrics.filter(|metric| metric.name.quantile().is_some()) {
                let (low, high) = match metric.name {
                    Metric::LatencyP99_9 => (low, high),
                    _ => (0.9, 1.1),
                };
                (metric.ci_low, metric.ci_high) = (Some(low), Some(high));
            }
        };
        tail(&mut comparison, 0.5, 2.5);
        // Older files know nothing of the cpus.
        assert_eq!(narrower(&comparison), None);
        comparison.design.server_cpus = Some([0].into_iter().collect());
        comparison.design.quiet = Some(QuietEntry {
            look_ns: 200_000_000,
            cpus: vec![QuietCpu {
                cpu: 0,
                mean_wait_ns: 20_000.0,
                longest_ns: 2_100_000,
            }],
            moved: None,
        });
        let advice = narrower(&comparison).expect("it is wide");
        for part in [
            "latency p99.9 of",
            "x0.50 to x2.50",
            "cpu 0 had gaps up to 2.10 ms",
            "--priority rt",
            "`echometer jitter`",
        ] {
            assert!(advice.contains(part), "{part}: {advice}");
        }
        comparison.design.priority.servers = Priority::Rt;
        let advice = narrower(&comparison).expect("it is wide");
        assert!(
            !advice.contains("--priority") && advice.contains("--blocks"),
            "{advice}"
        );
        tail(&mut comparison, 0.8, 1.2);
        assert_eq!(narrower(&comparison), None);
    }

    #[test]
    fn colour_touches_verdicts_in_tables_and_nothing_else() {
        let text = " rate   x1.2  better\nit got better\n p50  x0.9  worse\n";
        let painted = coloured(text);
        assert_eq!(
            painted,
            " rate   x1.2  \x1b[32mbetter\x1b[0m\nit got better\n p50  x0.9  \x1b[31mworse\x1b[0m\n"
        );
    }

    #[test]
    fn a_selftests_verdicts_are_painted_where_they_stand() {
        let painted = coloured(
            "  p50   1.01 ms      5 %  pass\n  p99   99 ms      2 %  FAIL\nFAIL: 1 of 2\n",
        );
        assert_eq!(
            painted,
            "  p50   1.01 ms      5 %  \x1b[32mpass\x1b[0m\n  p99   99 ms      2 %  \x1b[31mFAIL\x1b[0m\nFAIL: 1 of 2\n"
        );
    }

    #[test]
    fn numbers_keep_their_width() {
        let shown = [0.0, 0.98765, 9.9994, 9.9996, 99.994, 99.996, 999.94].map(five_chars);
        assert_eq!(
            shown,
            [
                "0.000", "0.988", "9.999", "10.00", "99.99", "100.0", "999.9"
            ]
        );
        assert_eq!(show_value(Metric::Rate, Some(999_999.4)), "999,999/s");
        assert_eq!(show_value(Metric::Rate, Some(1_234_567.0)), "1.235 M/s");
    }

    #[test]
    fn long_names_are_shortened() {
        assert_eq!(short("epoll"), "epoll");
        assert_eq!(short("eleven-char"), "eleven-char");
        assert_eq!(short("twelve-chars"), "twelve-ch..");
    }
}
