//! A selftest to look at: each truth, what was shown of it, and whether that lay within its bound.

use echometer_host::units::show_ns;
use echometer_loadgen::plan::Engine;

use crate::{
    file::selftest::{Finding, Outcome, Rule, Selftest},
    page::{
        chart::{Axis, Chart, Forest, ForestRow, Point, Scale, Series, Unit},
        frame::Frame,
        model::Page,
        table::{Cell, Table},
    },
    text::selftest::quantity_label,
};

/// The page of a selftest.
pub(crate) fn page(selftest: &Selftest) -> Page {
    let title = "Does the instrument tell the truth here?".to_owned();
    let mut page = Frame {
        kind: "selftest",
        title,
        started_at: &selftest.started_at,
        cut_short: selftest.cut_short,
        sentence: &selftest.sentence,
        verdict: None,
        machine: &selftest.machine,
        doctor: &selftest.doctor,
        commands: &[],
    }
    .page();
    page.trust.good = selftest.passed;
    let missed = selftest.checks().filter(|check| !check.passed).count();
    page.trust.word = match (selftest.passed, missed) {
        (true, _) => "passed",
        (false, 0) if selftest.cut_short => "cut short",
        (false, _) => "failed",
    }
    .to_owned();
    if 0 < missed {
        let reason = format!(
            "{missed} of {} figures were not shown within their bounds",
            selftest.checks().count()
        );
        page.trust.reasons.push(reason);
    }
    page.commands = selftest.truths.iter().flat_map(servers).collect();
    page.commands
        .insert(0, ("echometer".to_owned(), selftest.command.clone()));
    page.charts = vec![chart(selftest)];
    page.charts.retain(|chart| !chart.is_empty());
    page.forests = vec![forest(selftest)];
    page.forests.retain(|forest| !forest.rows.is_empty());
    page.tables = vec![checks(selftest), attempts(selftest)];
    page.facts = [
        (
            "form",
            if selftest.quick { "quick" } else { "full" }.to_owned(),
        ),
        ("servers on cpu", selftest.server_cpus.to_string()),
        ("client on cpu", selftest.client_cpus.to_string()),
        ("took", show_ns(selftest.elapsed_ns)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    page
}

fn servers(outcome: &Outcome) -> impl Iterator<Item = (String, String)> + '_ {
    let servers = outcome.servers.iter();
    servers.map(|server| (outcome.truth.title().to_owned(), server.clone()))
}

/// Latencies shown over latencies true: what is right lies on the diagonal.
fn chart(selftest: &Selftest) -> Chart {
    let mut truths = Vec::new();
    let mut shown = Vec::new();
    for check in selftest.checks() {
        if let Finding::Latency {
            truth_ns,
            shown_ns: Some(shown_ns),
            bound_ns,
        } = check.finding
        {
            let at = truth_ns.max(1) as f64;
            let mut truth = Point::at(at, at);
            truth.low = Some(at - bound_ns as f64);
            truth.high = Some((truth_ns + bound_ns) as f64);
            truths.push(truth);
            shown.push(Point::at(at, shown_ns.max(1) as f64));
        }
    }
    clip_low(&mut truths, &shown);
    for points in [&mut truths, &mut shown] {
        points.sort_by(|one, other| one.x.total_cmp(&other.x));
    }
    let axis = |label: &str| Axis {
        label: label.to_owned(),
        scale: Scale::Log,
        unit: Unit::Ns,
    };
    let series = |name: &str, points, dots| Series {
        name: name.to_owned(),
        points,
        dots,
        ..Series::default()
    };
    Chart {
        id: "truths".into(),
        title: "Shown against true".into(),
        caption: "Each latency that was checked: the truth with its bound, and what the instrument showed.".into(),
        x: axis("true latency"),
        y: axis("shown latency"),
        series: vec![series("truth, with its bound", truths, false), series("shown", shown, true)],
        marks: Vec::new(),
        figures: checks(selftest),
    }
}

/// A bound that is most of its truth, or more, reaches down to nothing, which a log axis has no place for: it ends where
/// the axis does, at the least of what else is drawn.
fn clip_low(truths: &mut [Point], shown: &[Point]) {
    let reaches_down = |truth: &Point, low: f64| low < truth.y / 2.0;
    let lows = truths.iter().filter_map(|truth| {
        let low = truth.low?;
        (!reaches_down(truth, low)).then_some(low)
    });
    let values = truths.iter().chain(shown).map(|point| point.y);
    let least = lows.chain(values).fold(f64::INFINITY, f64::min);
    for truth in truths {
        truth.low = truth.low.map(|low| match reaches_down(truth, low) {
            true => low.max(least),
            false => low,
        });
    }
}

fn forest(selftest: &Selftest) -> Forest {
    let mut rows = Vec::new();
    for outcome in selftest.counting() {
        for check in &outcome.checks {
            if let Finding::Ratio {
                ratio,
                ci_low,
                ci_high,
                ..
            } = check.finding
            {
                rows.push(ForestRow {
                    label: format!(
                        "{}: {}",
                        outcome.truth.title(),
                        quantity_label(&check.quantity)
                    ),
                    ratio,
                    low: ci_low,
                    high: ci_high,
                    verdict: said(check.passed).to_owned(),
                    lower_is_better: true,
                });
            }
        }
    }
    Forest {
        id: "ratios".into(),
        title: "Ratios whose truth is known".into(),
        caption: "Each comparison with its interval.".into(),
        margin: 0.02,
        rows,
    }
}

fn checks(selftest: &Selftest) -> Table {
    let mut table = Table::new(
        "Truths",
        [
            "the server",
            "client",
            "figure",
            "truth",
            "shown",
            "bound",
            "outcome",
        ],
    );
    for outcome in selftest.counting() {
        for check in &outcome.checks {
            let [truth, shown, bound] = figures(&check.finding);
            table.push(vec![
                Cell::text(outcome.truth.title()),
                client(outcome),
                Cell::text(quantity_label(&check.quantity)),
                truth,
                shown,
                bound,
                Cell::text(said(check.passed)),
            ]);
        }
    }
    table
}

fn figures(finding: &Finding) -> [Cell; 3] {
    match *finding {
        Finding::Latency {
            truth_ns,
            shown_ns,
            bound_ns,
        } => [
            Cell::ns(Some(truth_ns as f64)),
            Cell::ns(shown_ns.map(|ns| ns as f64)),
            Cell::text(format!("within {}", show_ns(bound_ns))),
        ],
        Finding::Ratio {
            rule,
            truth_low,
            ratio,
            ci_low,
            ci_high,
            ..
        } => {
            let interval = match (ci_low, ci_high) {
                (Some(low), Some(high)) => format!(" ({low:.3} - {high:.3})"),
                _ => String::new(),
            };
            let rule = match rule {
                Rule::HoldsTruth => "holds the truth, and not 1",
                Rule::Same => "holds 1, or within 2 % of it",
                Rule::Higher => "above 1.02",
                Rule::Lower => "below 0.98",
            };
            [
                Cell::ratio(truth_low),
                Cell {
                    text: Cell::ratio(ratio).text + &interval,
                    number: ratio,
                },
                Cell::text(rule),
            ]
        }
        Finding::Warning { shown } => [
            Cell::text("a warning"),
            Cell::text(if shown { "a warning" } else { "none" }),
            Cell::text("is there"),
        ],
    }
}

/// Every attempt, those that did not count included.
fn attempts(selftest: &Selftest) -> Table {
    let mut table = Table::new(
        "Attempts",
        [
            "the server",
            "client",
            "attempt",
            "load",
            "outcome",
            "remarks",
        ],
    );
    for outcome in &selftest.truths {
        table.push(vec![
            Cell::text(outcome.truth.title()),
            client(outcome),
            Cell::count(Some(outcome.attempt as f64)),
            Cell::text(outcome.load.clone()),
            Cell::text(said(outcome.passed())),
            Cell::text(outcome.remarks.join("; ")),
        ]);
    }
    table
}

fn client(outcome: &Outcome) -> Cell {
    Cell::text(outcome.client.map_or_else(|| "-".to_owned(), client_name))
}

fn said(passed: bool) -> &'static str {
    if passed { "pass" } else { "FAIL" }
}

fn client_name(engine: Engine) -> String {
    match engine {
        Engine::Uring => "uring".to_owned(),
        Engine::Epoll => "epoll".to_owned(),
        Engine::Auto => "auto".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_beyond_its_truth_ends_at_the_axis() {
        let with_bound = |at: f64, bound: f64| Point {
            low: Some(at - bound),
            high: Some(at + bound),
            ..Point::at(at, at)
        };
        let mut truths = [
            with_bound(77_000.0, 200_000.0),
            with_bound(1_000_000.0, 50_000.0),
            // Its low end is above nothing, and still far below all that is drawn.
            with_bound(200_001.0, 200_000.0),
        ];
        let shown = [Point::at(77_000.0, 79_000.0), Point::at(1e6, 70_000.0)];
        clip_low(&mut truths, &shown);
        let lows = truths.map(|truth| truth.low);
        assert_eq!(lows, [Some(70_000.0), Some(950_000.0), Some(70_000.0)]);
    }

    #[test]
    fn the_saved_selftest_is_drawn_where_its_latencies_are() {
        let saved = include_str!("../../tests/saved/selftest.json");
        let chart = chart(&serde_json::from_str(saved).expect("it was saved by us"));
        let points = chart.series.iter().flat_map(|series| &series.points);
        let ends = points.flat_map(|point| [Some(point.y), point.low, point.high]);
        let least = ends.flatten().fold(f64::INFINITY, f64::min);
        assert_eq!(least, 77_503.0, "the least that was shown or true");
    }
}
