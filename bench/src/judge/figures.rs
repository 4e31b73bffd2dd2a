//! From a block's slices to its figures: what each arm did, and how it compares with the baseline in this block.
//! A block gives one ratio per metric and arm; these are the samples of the statistics.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use echometer_loadgen::{OpenLoop, file::Summary};
use echometer_report::file::{
    figures::{ArmFigures, BlockFigures, CpuShares, OpenFigures, RunFigures},
    floor::{FloorFigures, LABEL},
    metric::{COMPARED_ABOVE_MIN, METRICS, Metric},
};
use echometer_statistics::median;

use crate::measure::{
    block::{ArmBlock, Block, Slice},
    floor::FloorSlice,
    sides::{Judged, WholeRun},
};

/// The figures of `block`, the `index`-th (from 1). `names` are the arms' in their order, the first the baseline;
/// `hlogs` their histograms' files; `server_cpus` how many cpus the servers may use.
#[must_use]
pub(crate) fn block_figures(
    index: usize,
    block: &Block,
    names: &[String],
    hlogs: &[String],
    server_cpus: usize,
) -> BlockFigures {
    let mut reasons: Vec<String> = block
        .faults
        .iter()
        .map(|fault| format!("{} {}", names[fault.arm], fault.reason))
        .collect();
    if block.cut_short {
        reasons.push("cut short".to_owned());
    }
    let arms: BTreeMap<String, ArmFigures> = names
        .iter()
        .zip(hlogs)
        .zip(&block.arms)
        .filter(|(_, arm)| !arm.slices.is_empty())
        .map(|((name, hlog), arm)| (name.clone(), arm_figures(arm, hlog.clone(), server_cpus)))
        .collect();
    let valid = reasons.is_empty();
    // What broke off has cycles that are not whole; its ratios would mean something else.
    let ratios = match block.arms.split_first() {
        Some((baseline, _)) if valid && !baseline.runs.is_empty() => names[1..]
            .iter()
            .filter_map(|name| {
                let ratios = run_ratios(arms.get(name)?, arms.get(&names[0])?);
                Some((name.clone(), ratios))
            })
            .collect(),
        Some((baseline, others)) if valid => others
            .iter()
            .zip(&names[1..])
            .map(|(arm, name)| (name.clone(), ratios(arm, baseline)))
            .collect(),
        _ => BTreeMap::new(),
    };
    let ratios_least = ratios_least(&ratios, &arms, &names[0]);
    let floor = floor_figures(block, names).filter(|_| valid);
    let name = |&arm: &usize| names.get(arm).map_or(LABEL, String::as_str).to_owned();
    let order = block.order.iter().map(name).collect();
    BlockFigures {
        index,
        order,
        valid,
        reasons,
        slice_ns: block.slice.as_nanos() as u64,
        arms,
        ratios,
        ratios_least,
        floor,
    }
}

/// What the ratios of latencies become without the client's own lateness; nothing in closed loop.
fn ratios_least(
    ratios: &BTreeMap<String, BTreeMap<Metric, f64>>,
    arms: &BTreeMap<String, ArmFigures>,
    baseline: &str,
) -> BTreeMap<String, BTreeMap<Metric, f64>> {
    let least = |name: &str, metric| arms.get(name)?.least(metric);
    let of_arm = |name: &str, ratios: &BTreeMap<Metric, f64>| {
        let least = ratios.keys().filter_map(|&metric| {
            let ratio = least(name, metric)? / least(baseline, metric)?;
            Some((metric, ratio))
        });
        least.collect::<BTreeMap<_, _>>()
    };
    ratios
        .iter()
        .map(|(name, ratios)| (name.clone(), of_arm(name, ratios)))
        .filter(|(_, ratios)| !ratios.is_empty())
        .collect()
}

fn open_figures(open: &OpenLoop, slices: &[Slice], overload: Option<String>) -> OpenFigures {
    let of = |histogram| Summary::of(histogram, None);
    OpenFigures {
        service_ns: Summary::of(&open.service, open.service_censored_from_ns),
        service_least_ns: of(&open.service_least),
        queue_ns: of(&open.queue),
        send_lag_ns: of(&open.send_lag),
        overloaded_slices: slices.iter().filter(|slice| slice.overloaded).count(),
        overload,
    }
}

/// A block that came to nothing.
#[must_use]
pub(crate) fn failed_block(index: usize, reason: String) -> BlockFigures {
    BlockFigures {
        index,
        order: Vec::new(),
        valid: false,
        reasons: vec![reason],
        slice_ns: 0,
        arms: BTreeMap::new(),
        ratios: BTreeMap::new(),
        ratios_least: BTreeMap::new(),
        floor: None,
    }
}

/// The figures of an arm that had a slice or more. `hlog` is its histogram's file, `server_cpus` how many cpus its
/// server may use.
pub(crate) fn arm_figures(arm: &ArmBlock, hlog: String, server_cpus: usize) -> ArmFigures {
    let slices = &arm.slices;
    let total = |part: fn(&Slice) -> u64| slices.iter().map(part).sum::<u64>();
    let span_ns = total(|slice| slice.span_ns).max(1) as f64;
    let messages = total(|slice| slice.messages);
    let cpu_ns: Option<u64> = slices.iter().map(|slice| slice.server_cpu_ns).sum();
    let client_cpu_ns: Option<u64> = slices.iter().map(|slice| slice.client_cpu_ns).sum();
    let cpus_ns = span_ns * server_cpus as f64;
    let a_message = |cpu_ns: u64| positive(cpu_ns as f64 / messages as f64);
    // Slices weigh by their length.
    let share = |part: fn(&Slice) -> f64| {
        slices
            .iter()
            .map(|slice| part(slice) * slice.span_ns as f64)
            .sum::<f64>()
            / span_ns
    };
    ArmFigures {
        rate_per_s: rate(slices),
        server_cpu_ns_per_message: cpu_ns.and_then(a_message),
        client_cpu_ns_per_message: client_cpu_ns.and_then(a_message),
        context_switches: arm.usage.map(|usage| usage.context_switches),
        rss_bytes: arm.usage.map(|usage| usage.rss_bytes),
        hlog,
        messages,
        recorded: total(|slice| slice.recorded),
        slices: slices.len(),
        latency_ns: Summary::of(&arm.latency, None),
        open: arm
            .open
            .as_ref()
            .map(|open| open_figures(open, slices, arm.overload.clone())),
        server_busy: cpu_ns.map(|cpu_ns| cpu_ns as f64 / cpus_ns),
        client_busy: share(|slice| slice.client_busiest),
        server_cpus: CpuShares {
            busy: total(|slice| slice.server_cpus.busy_ns) as f64 / cpus_ns,
            softirq: total(|slice| slice.server_cpus.softirq_ns) as f64 / cpus_ns,
            steal: total(|slice| slice.server_cpus.steal_ns) as f64 / cpus_ns,
        },
        resting_cpu: arm.resting_share(),
        client_run_delay: share(|slice| slice.client_run_delay),
        rate_drift: drift(slices),
        runs: slices
            .iter()
            .zip(&arm.runs)
            .map(|(slice, run)| run_figures(slice, run))
            .collect(),
    }
}

fn run_figures(slice: &Slice, run: &WholeRun) -> RunFigures {
    let a_message = |cpu_ns: u64| positive(cpu_ns as f64 / slice.messages as f64);
    let Judged {
        verdict,
        offered_per_s,
        censored_from_ns,
    } = &run.judged;
    RunFigures {
        rate_per_s: rate(&[*slice]),
        offered_per_s: *offered_per_s,
        server_cpu_ns_per_message: slice.server_cpu_ns.and_then(a_message),
        client_cpu_ns_per_message: slice.client_cpu_ns.and_then(a_message),
        latency_ns: Summary::of(&run.stretch.latency, *censored_from_ns),
        open: run
            .stretch
            .open
            .as_ref()
            .map(|open| open_figures(open, &[], None)),
        status: verdict.status,
        reasons: verdict.reasons.clone(),
    }
}

/// arm / baseline in each metric that both have: between the geometric means of their runs. The test takes the runs
/// themselves; this is for whoever wants one number per block.
fn run_ratios(arm: &ArmFigures, baseline: &ArmFigures) -> BTreeMap<Metric, f64> {
    let middle = |figures: &ArmFigures, metric| {
        let logarithms: Option<Vec<f64>> = figures
            .runs
            .iter()
            .map(|run| Some(run.value(metric)?.ln()))
            .collect();
        let logarithms = logarithms.filter(|all| !all.is_empty())?;
        Some(logarithms.iter().sum::<f64>() / logarithms.len() as f64)
    };
    METRICS
        .into_iter()
        .filter_map(|metric| {
            let ratio = middle(arm, metric)? - middle(baseline, metric)?;
            Some((metric, ratio.exp()))
        })
        .collect()
}

/// arm / baseline in each metric that both have.
fn ratios(arm: &ArmBlock, baseline: &ArmBlock) -> BTreeMap<Metric, f64> {
    METRICS
        .into_iter()
        .filter_map(|metric| Some((metric, ratio(metric, arm, baseline)?)))
        .collect()
}

/// arm / baseline in one metric; `None` where it can't be had. CPU and rate are compared within cycles, so both must
/// have had theirs in turns.
pub(crate) fn ratio(metric: Metric, arm: &ArmBlock, baseline: &ArmBlock) -> Option<f64> {
    let a_message = |cpu_ns: u64, slice: &Slice| cpu_ns as f64 / slice.messages as f64;
    match metric {
        Metric::ServerCpuPerMessage => cycle_ratio(arm, baseline, |slice| {
            Some(a_message(slice.server_cpu_ns?, slice))
        }),
        Metric::ClientCpuPerMessage => cycle_ratio(arm, baseline, |slice| {
            Some(a_message(slice.client_cpu_ns?, slice))
        }),
        Metric::Rate => cycle_ratio(arm, baseline, |slice| {
            Some(slice.recorded as f64 / slice.recorded_span_ns as f64)
        }),
        _ => {
            let value = |latency: &Histogram<u64>| {
                let comparable = COMPARED_ABOVE_MIN <= metric.samples_above(latency.len())?;
                comparable.then_some(latency.value_at_quantile(metric.quantile()?) as f64)
            };
            positive(value(&arm.latency)? / value(&baseline.latency)?)
        }
    }
}

/// The median over the cycles of the logarithm of the ratio within the same cycle: what disturbs a whole cycle hits
/// both, and what disturbs one slice is an outlier that a median leaves aside.
fn cycle_ratio(
    arm: &ArmBlock,
    baseline: &ArmBlock,
    figure: impl Fn(&Slice) -> Option<f64>,
) -> Option<f64> {
    let logarithms: Vec<f64> = arm
        .slices
        .iter()
        .zip(&baseline.slices)
        .filter(|(arm, baseline)| arm.cycle == baseline.cycle)
        .filter_map(|(arm, baseline)| positive(figure(arm)? / figure(baseline)?))
        .map(f64::ln)
        .collect();
    median(&logarithms).map(f64::exp)
}

/// A number that has a logarithm: not what comes of dividing by or into nothing.
fn positive(number: f64) -> Option<f64> {
    (0.0 < number && number.is_finite()).then_some(number)
}

fn rate(slices: &[Slice]) -> f64 {
    let recorded: u64 = slices.iter().map(|slice| slice.recorded).sum();
    let span_ns: u64 = slices.iter().map(|slice| slice.recorded_span_ns).sum();
    recorded as f64 * 1e9 / span_ns.max(1) as f64
}

/// `None` where there are no thirds to compare.
fn drift(slices: &[Slice]) -> Option<f64> {
    let third = slices.len() / 3;
    if third == 0 {
        return None;
    }
    positive(rate(&slices[slices.len() - third..]) / rate(&slices[..third]))
}

/// The figures of a whole `block`; `names` are the arms' in their order. `None` where the floor had no slice, or
/// nothing was left of it.
#[must_use]
pub(crate) fn floor_figures(block: &Block, names: &[String]) -> Option<FloorFigures> {
    let slices: Vec<&FloorSlice> = block.floor.iter().map(|(_, slice)| slice).collect();
    let of_slices = |part: &dyn Fn(&FloorSlice) -> Option<f64>| {
        let parts: Vec<f64> = slices.iter().filter_map(|slice| part(slice)).collect();
        median(&parts)
    };
    let multiples = names
        .iter()
        .zip(&block.arms)
        .filter_map(|(name, arm)| Some((name.clone(), multiple(arm, &block.floor)?)));
    Some(FloorFigures {
        cpu_ns_per_message: of_slices(&FloorSlice::ns_per_echo)?,
        two_syscalls_ns: of_slices(&|slice| Some(slice.two_syscalls_ns))?,
        echoes: slices.iter().map(|slice| slice.echoes).sum(),
        slices: slices.len(),
        multiples: multiples.collect(),
    })
}

/// The median over the cycles of the logarithm, as for every ratio of a block.
fn multiple(arm: &ArmBlock, floor: &[(u32, FloorSlice)]) -> Option<f64> {
    let floor: BTreeMap<u32, f64> = floor
        .iter()
        .filter_map(|(cycle, slice)| Some((*cycle, slice.ns_per_echo()?)))
        .collect();
    let logarithms: Vec<f64> = arm
        .slices
        .iter()
        .filter_map(|slice| {
            let a_message = slice.server_cpu_ns? as f64 / slice.messages as f64;
            let ratio = a_message / floor.get(&slice.cycle)?;
            (0.0 < ratio && ratio.is_finite()).then(|| ratio.ln())
        })
        .collect();
    median(&logarithms).map(f64::exp)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::measure::{
        block::Fault,
        sides::{CpuTimes, Usage},
    };

    /// One slice of 50 ms: what it takes a server of this cost per message to fill a core.
    fn slice(cycle: u32, message_ns: u64) -> Slice {
        let messages = 50_000_000 / message_ns;
        Slice {
            cycle,
            recorded: messages * 9 / 10,
            recorded_span_ns: 45_000_000,
            messages,
            span_ns: 50_000_000,
            server_cpu_ns: Some(messages * message_ns),
            client_cpu_ns: Some(messages * 5_000),
            client_busiest: 0.5,
            client_run_delay: 0.01,
            server_cpus: CpuTimes {
                busy_ns: 50_000_000,
                softirq_ns: 10_000_000,
                steal_ns: 500_000,
            },
            overloaded: false,
        }
    }

    fn arm(costs: &[u64]) -> ArmBlock {
        let mut latency = Histogram::new(3).expect("digits");
        for &cost in costs {
            latency.record_n(cost * 50, 1_000).expect("in range");
        }
        ArmBlock {
            slices: costs
                .iter()
                .zip(0..)
                .map(|(&cost, cycle)| slice(cycle, cost))
                .collect(),
            runs: Vec::new(),
            latency,
            open: None,
            overload: None,
            resting_cpu_ns: Some(1_000_000),
            resting_span_ns: 1_000_000_000,
            usage: Some(Usage {
                context_switches: 77,
                rss_bytes: 4096,
            }),
        }
    }

    fn block(arms: Vec<ArmBlock>) -> Block {
        Block {
            faults: Vec::new(),
            cut_short: false,
            order: vec![0, 1, 1, 0],
            slice: Duration::from_millis(50),
            arms,
            floor: Vec::new(),
            floor_fault: None,
        }
    }

    fn figures(block: &Block) -> BlockFigures {
        let names = ["epoll", "uring"].map(str::to_owned);
        let hlogs = ["blocks/001-epoll.hlog", "blocks/001-uring.hlog"].map(str::to_owned);
        block_figures(1, block, &names, &hlogs, 1)
    }

    #[test]
    fn ratios_are_medians_over_cycles() {
        // The machine is twice as slow in the second cycle, for both; the last slice of uring was hit by a neighbour.
        let block = block(vec![
            arm(&[10_000, 20_000, 10_000]),
            arm(&[8_000, 16_000, 50_000]),
        ]);
        let figures = figures(&block);
        assert!(figures.valid);
        let ratios = &figures.ratios["uring"];
        assert!((ratios[&Metric::ServerCpuPerMessage] - 0.8).abs() < 1e-9);
        assert!((ratios[&Metric::Rate] - 1.25).abs() < 1e-3);
        assert!((ratios[&Metric::ClientCpuPerMessage] - 1.0).abs() < 1e-9);
        assert!(
            !figures.ratios.contains_key("epoll"),
            "the baseline has none to itself"
        );
        assert_eq!(figures.order, ["epoll", "uring", "uring", "epoll"]);
    }

    #[test]
    fn values_are_sums_over_sums() {
        let figures = figures(&block(vec![arm(&[10_000, 20_000]), arm(&[10_000, 10_000])]));
        let epoll = &figures.arms["epoll"];
        assert_eq!(epoll.messages, 5_000 + 2_500);
        assert!((epoll.rate_per_s - 6_750.0 / 0.09).abs() < 1e-6);
        let cpu = epoll.server_cpu_ns_per_message.expect("it is local");
        assert!((cpu - 100e6 / 7_500.0).abs() < 1e-6);
        assert_eq!(epoll.server_busy, Some(1.0));
        assert!(
            (epoll.client_busy - 0.5).abs() < 1e-12
                && (epoll.client_run_delay - 0.01).abs() < 1e-12
        );
        assert!(
            (epoll.server_cpus.softirq - 0.2).abs() < 1e-12
                && (epoll.server_cpus.steal - 0.01).abs() < 1e-12
        );
        assert_eq!(
            (epoll.context_switches, epoll.rss_bytes),
            (Some(77), Some(4096))
        );
        assert_eq!(epoll.resting_cpu, Some(0.001));
        assert_eq!(epoll.hlog, "blocks/001-epoll.hlog");
    }

    #[test]
    fn quantiles_need_samples_above_them() {
        // 2,000 samples: 1,000 above p50, 200 above p90, 20 above p99, 2 above p99.9.
        let figures = figures(&block(vec![arm(&[10_000, 10_000]), arm(&[9_000, 9_000])]));
        let latency = figures.arms["epoll"].latency_ns;
        assert_eq!(latency.count, 2_000);
        assert!(latency.p99.is_some(), "shown with 10 above");
        assert_eq!(latency.p99_9, None);
        let compared: Vec<Metric> = figures.ratios["uring"].keys().copied().collect();
        assert!(compared.contains(&Metric::LatencyP90));
        assert!(
            !compared.contains(&Metric::LatencyP99),
            "compared only with 100 above"
        );
        assert!((figures.ratios["uring"][&Metric::LatencyP50] - 0.9).abs() < 0.001);
    }

    #[test]
    fn an_unreadable_cpu_is_no_figure_and_no_ratio() {
        let mut remote = arm(&[10_000, 10_000]);
        for slice in &mut remote.slices {
            slice.server_cpu_ns = None;
        }
        remote.resting_cpu_ns = None;
        let figures = figures(&block(vec![arm(&[10_000, 10_000]), remote]));
        let uring = &figures.arms["uring"];
        assert_eq!(
            (
                uring.server_cpu_ns_per_message,
                uring.server_busy,
                uring.resting_cpu
            ),
            (None, None, None)
        );
        assert!(!figures.ratios["uring"].contains_key(&Metric::ServerCpuPerMessage));
        assert!(figures.ratios["uring"].contains_key(&Metric::Rate));
    }

    #[test]
    fn invalid_blocks_keep_their_figures_and_lose_their_ratios() {
        let mut broken = block(vec![
            arm(&[10_000]),
            ArmBlock {
                slices: Vec::new(),
                ..arm(&[])
            },
        ]);
        broken.faults.push(Fault {
            arm: 1,
            reason: "was killed by signal 9".to_owned(),
        });
        broken.cut_short = true;
        let figures = figures(&broken);
        assert!(!figures.valid);
        assert_eq!(
            figures.reasons,
            ["uring was killed by signal 9", "cut short"]
        );
        assert_eq!(figures.arms.keys().collect::<Vec<_>>(), ["epoll"]);
        assert!(figures.ratios.is_empty());
        // The other way round each keeps its own file.
        broken.arms.swap(0, 1);
        assert_eq!(
            self::figures(&broken).arms["uring"].hlog,
            "blocks/001-uring.hlog"
        );
    }

    #[test]
    fn a_silent_slice_is_left_out_of_the_median() {
        let mut silent = arm(&[8_000, 8_000, 8_000]);
        silent.slices[1].recorded = 0;
        let figures = figures(&block(vec![arm(&[10_000, 10_000, 10_000]), silent]));
        assert!((figures.ratios["uring"][&Metric::Rate] - 1.25).abs() < 1e-3);
    }

    #[test]
    fn drift_compares_the_last_third_with_the_first() {
        let drift =
            |costs: &[u64]| figures(&block(vec![arm(costs), arm(costs)])).arms["epoll"].rate_drift;
        assert!((drift(&[10_000, 1_000, 20_000]).expect("thirds") - 0.5).abs() < 1e-3);
        assert_eq!(drift(&[10_000, 10_000]), None);
    }
}
