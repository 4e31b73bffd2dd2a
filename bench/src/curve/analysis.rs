//! From the blocks of a curve to its answers: each metric of each arm at each rate with its interval, against the baseline at
//! the same rate, and the knees. Pure.

use std::collections::BTreeMap;

use echometer_report::file::{
    curve::{CURVE_METRICS, CurveBlock, CurveCell, CurveMetric, CurvePoint, KNEE_RATIO, Knee},
    figures::ArmFigures,
    metric::{COMPARED_ABOVE_MIN, Metric},
};
use echometer_statistics::{
    ALPHA, Answer, End, Question, Samples, Verdict, answer_all, of_both_ends, signed_rank,
};

use crate::judge::objections;

/// A cell is overloaded where most of its slices were in most of its blocks.
const MOST: f64 = 0.5;

/// A rate that is measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rate {
    /// Messages per second.
    pub per_s: f64,
    /// Of the smallest capacity.
    pub share: Option<f64>,
    /// The only arm that is measured here.
    pub own: Option<usize>,
}

impl Rate {
    /// Whether an arm is measured at it.
    #[must_use]
    pub(crate) fn is_of(&self, arm: usize) -> bool {
        self.own.is_none_or(|own| own == arm)
    }
}

/// What was asked before the blocks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Terms {
    /// The arms' names, the baseline first.
    pub arms: Vec<String>,
    /// Ascending.
    pub rates: Vec<Rate>,
    /// A smaller difference is of no practical use; a share.
    pub margin: f64,
}

/// The answers at all rates.
#[must_use]
pub(crate) fn points(terms: &Terms, blocks: &[CurveBlock]) -> Vec<CurvePoint> {
    let valid: Vec<&CurveBlock> = blocks.iter().filter(|block| block.valid).collect();
    let mut points: Vec<CurvePoint> = terms
        .rates
        .iter()
        .map(|rate| point(terms, rate, &valid))
        .collect();
    compare(terms, &valid, &mut points);
    points
}

/// One rate, nothing compared yet.
fn point(terms: &Terms, rate: &Rate, valid: &[&CurveBlock]) -> CurvePoint {
    let measured = || {
        let arms = terms.arms.iter().enumerate();
        arms.filter(|(arm, _)| rate.is_of(*arm))
            .map(|(_, name)| name)
    };
    let overloaded: BTreeMap<String, String> = measured()
        .filter_map(|arm| Some((arm.clone(), overload(valid, arm, rate.per_s)?)))
        .collect();
    let metrics = measured().flat_map(|arm| {
        CURVE_METRICS
            .into_iter()
            .map(|name| alone(valid, arm, rate.per_s, name))
    });
    CurvePoint {
        rate_per_s: rate.per_s,
        share: rate.share,
        own: rate.own.map(|arm| terms.arms[arm].clone()),
        overloaded,
        metrics: metrics.collect(),
    }
}

/// What an arm did at a rate in a block.
fn figures<'a>(block: &'a CurveBlock, arm: &str, per_s: f64) -> Option<&'a ArmFigures> {
    let same = |cell: &&CurveCell| cell.arm == arm && cell.rate_per_s.total_cmp(&per_s).is_eq();
    block.cells.iter().find(same).map(|cell| &cell.figures)
}

/// Why an arm did not keep up, the first time, where that was so in most slices of most blocks.
fn overload(valid: &[&CurveBlock], arm: &str, per_s: f64) -> Option<String> {
    let figures: Vec<&ArmFigures> = valid
        .iter()
        .filter_map(|block| figures(block, arm, per_s))
        .collect();
    let overloaded = figures.iter().filter_map(|figures| {
        let open = figures.open.as_ref()?;
        let most = figures.slices < 2 * open.overloaded_slices;
        open.overload.as_ref().filter(|_| most)
    });
    let reasons: Vec<&String> = overloaded.collect();
    (MOST < reasons.len() as f64 / figures.len().max(1) as f64).then(|| reasons[0].clone())
}

/// The figure of a block with which a metric can be shown and compared; `None` where too few samples lie above its quantile.
fn sample(block: &CurveBlock, arm: &str, per_s: f64, name: Metric) -> Option<f64> {
    let figures = figures(block, arm, per_s)?;
    let above = name.samples_above(figures.latency_ns.count);
    let enough = above.is_none_or(|above| COMPARED_ABOVE_MIN <= above);
    let value = figures.value(name).filter(|_| enough)?;
    (0.0 < value && value.is_finite()).then_some(value)
}

fn alone(valid: &[&CurveBlock], arm: &str, per_s: f64, name: Metric) -> CurveMetric {
    let logarithms: Vec<f64> = valid
        .iter()
        .filter_map(|block| sample(block, arm, per_s, name))
        .map(f64::ln)
        .collect();
    let missing = valid.len() - logarithms.len();
    let reason = (0 < missing).then(|| match name.quantile() {
        Some(_) => format!(
            "fewer than {COMPARED_ABOVE_MIN} samples above it in {missing} of {} blocks: raise -d",
            valid.len()
        ),
        None => objections::cpu_unknown(arm),
    });
    // Blocks that happen to have enough would not stand for all.
    let test = signed_rank(&logarithms, ALPHA).filter(|_| missing == 0);
    let interval = test.and_then(|test| test.interval);
    CurveMetric {
        arm: arm.to_owned(),
        name,
        unit: name.unit().to_owned(),
        value: test.map(|test| test.estimate.exp()),
        ci_low: interval.map(|interval| interval.low.exp()),
        ci_high: interval.map(|interval| interval.high.exp()),
        confidence: interval.map(|interval| interval.confidence),
        blocks_used: logarithms.len(),
        ratio: None,
        ratio_low: None,
        ratio_high: None,
        p_adjusted: None,
        verdict: None,
        reason,
    }
}

/// Where the baseline and another arm were both measured and both kept up, and the metric is known for both.
fn compare(terms: &Terms, valid: &[&CurveBlock], points: &mut [CurvePoint]) {
    let baseline = &terms.arms[0];
    let mut asked: Vec<(usize, usize)> = Vec::new();
    for (index, point) in points.iter().enumerate() {
        let known = |arm: &str, name| {
            let metric = point.metric(arm, name);
            metric.is_some_and(|metric| metric.value.is_some())
                && !point.overloaded.contains_key(arm)
        };
        for (place, metric) in point.metrics.iter().enumerate() {
            let (arm, name) = (&metric.arm, metric.name);
            if arm != baseline && known(arm, name) && known(baseline, name) {
                asked.push((index, place));
            }
        }
    }
    let questions = |figure: &dyn Fn(&CurveBlock, &str, f64, Metric) -> Option<f64>| {
        let of = |&(index, place): &(usize, usize)| {
            let point: &CurvePoint = &points[index];
            let CurveMetric { arm, name, .. } = &point.metrics[place];
            let ratio = |block: &&CurveBlock| {
                let of = |arm: &str| figure(block, arm, point.rate_per_s, *name);
                Some((of(arm)? / of(baseline)?).ln())
            };
            let ratios: Vec<Option<f64>> = valid.iter().map(ratio).collect();
            Question {
                missing: ratios.iter().filter(|ratio| ratio.is_none()).count(),
                samples: Samples::Ratios(ratios),
                good: name.good(),
                primary: *name == Metric::LatencyP99,
                decidable: true,
            }
        };
        answer_all(&asked.iter().map(of).collect::<Vec<_>>(), terms.margin)
    };
    let seen = questions(&sample);
    // A latency without what the client's own lateness may add; anything else is what it is.
    let least = questions(&|block, arm, per_s, name| match name.quantile() {
        Some(_) => figures(block, arm, per_s)?.least(name),
        None => sample(block, arm, per_s, name),
    });
    for ((index, place), (seen, least)) in asked.into_iter().zip(seen.iter().zip(&least)) {
        answer(&mut points[index].metrics[place], seen, least);
    }
}

/// A verdict holds with the client's own lateness and without it, or is none.
fn answer(metric: &mut CurveMetric, seen: &Answer, least: &Answer) {
    metric.ratio = seen.ratio;
    metric.ratio_low = seen.interval.map(|interval| interval.low);
    metric.ratio_high = seen.interval.map(|interval| interval.high);
    metric.p_adjusted = seen.p_adjusted;
    let ends = [seen, least].map(|end| {
        Some(End {
            verdict: end.verdict,
            ratio: end.ratio?,
        })
    });
    let [Some(one), Some(other)] = ends else {
        metric.verdict = Some(Verdict::Undecided);
        return;
    };
    let both = of_both_ends(one, other);
    metric.verdict = Some(both.unwrap_or(Verdict::Undecided));
    metric.reason = match both {
        None => Some(format!(
            "it depends on whether the client's own lateness is counted: x{:.3} with it, x{:.3} without",
            one.ratio, other.ratio
        )),
        Some(Verdict::Undecided) => objections::undecided(metric.name, seen),
        Some(_) => None,
    };
}

/// The highest rate of each arm up to which p99 is at most [`KNEE_RATIO`] times that at its lowest rate
/// where it is known.
#[must_use]
pub(crate) fn knees(arms: &[String], points: &[CurvePoint]) -> Vec<Knee> {
    let of = |arm: &String| {
        let at: Vec<(f64, Option<f64>)> = points
            .iter()
            .filter_map(|point| {
                let metric = point.metric(arm, Metric::LatencyP99)?;
                let kept_up = !point.overloaded.contains_key(arm);
                Some((point.rate_per_s, metric.value.filter(|_| kept_up)))
            })
            .collect();
        // The lowest rates may be too slow for it.
        let unknown = |point: &&CurvePoint| {
            let metric = point.metric(arm, Metric::LatencyP99);
            !point.overloaded.contains_key(arm)
                && metric.is_none_or(|metric| metric.value.is_none())
        };
        let unknown = points.iter().take_while(unknown);
        let unknown = unknown.filter(|point| point.metric(arm, Metric::LatencyP99).is_some());
        let at = &at[unknown.count()..];
        let least = at.first().and_then(|(_, p99)| *p99);
        let below = at.iter().take_while(|(_, p99)| {
            let both = p99.zip(least);
            both.is_some_and(|(p99, least)| p99 <= KNEE_RATIO * least)
        });
        let below: Vec<f64> = below.map(|(rate, _)| *rate).collect();
        Knee {
            arm: arm.clone(),
            rate_per_s: below.last().copied(),
            at_highest: !below.is_empty() && below.len() == at.len(),
        }
    };
    arms.iter().map(of).collect()
}

#[cfg(test)]
mod tests;
