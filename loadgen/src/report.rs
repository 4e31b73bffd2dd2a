//! The report: a run file as text for people, 80 columns, the verdict last. Plain text: it needs no colour to be read.

use std::fmt::Write as _;

use crate::{
    file::{RunFile, SynRetransmits},
    plan::{Engine, Load, Plan, Wait},
    summary::Summary,
    verdict::RunStatus,
};
use echometer_host::{
    output::hanging,
    units::{counted, show_count, show_duration, show_ns, show_rate},
};

/// The whole report.
pub fn text(run: &RunFile) -> String {
    let mut text = String::new();
    let end = &run.end;
    line(
        &mut text,
        "",
        &format!("{}: {}", run.server.target, run.plan.words().in_full()),
    );
    line(&mut text, "", &client_of(&run.plan, end.client.engine));
    if run.cut_short {
        let measured = show_ns(end.window_ns);
        line(
            &mut text,
            "",
            &format!(
                "cut short by a signal: {measured} of {} measured",
                show_duration(run.plan.duration)
            ),
        );
    }
    text.push('\n');

    let columns = ["", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    table_row(&mut text, &columns.map(str::to_owned));
    let open = run.plan.load != Load::Closed;
    let rows: &[(&str, &Summary)] = &[
        ("latency", &end.latency_ns),
        ("service", &end.service_ns),
        ("queue", &end.queue_ns),
        ("send lag", &end.send_lag_ns),
        ("recv lag", &end.recv_lag_ns),
        ("connect", &end.connect_ns),
        ("first echo", &end.first_echo_ns),
    ];
    for (name, summary) in rows {
        // In closed loop there is no queue and no lag, and the service time is the latency.
        let shown = match *name {
            "latency" | "connect" => true,
            "recv lag" => end.recv_lag_ns.count != 0,
            "first echo" => end.first_echo_ns.count != 0,
            _ => open,
        };
        if shown {
            table_row(
                &mut text,
                &summary_cells(if open { name } else { closed_name(name) }, summary),
            );
        }
    }
    text.push('\n');

    line(&mut text, "messages  ", &messages_of(run));
    let rate = format!("{} replies per second", show_rate(end.rate_per_s));
    let rate = match end.offered_per_s {
        Some(offered) => format!("{rate}; {} per second were due", show_rate(offered)),
        None => rate,
    };
    line(&mut text, "rate      ", &rate);
    if run.plan.dials() {
        line(&mut text, "connects  ", &connects_of(run));
    }
    for row in &end.syn_retransmits {
        line(&mut text, "connects  ", &syn_row(row));
    }
    line(&mut text, "client    ", &client_figures(run));
    for (kind, count) in &end.errors {
        line(
            &mut text,
            "errors    ",
            &format!(
                "{}: {}",
                counted(*count, "connection"),
                kind.replace('_', " ")
            ),
        );
    }
    text.push('\n');
    text.push_str(&thresholds(run));
    text.push_str(&verdict(run));
    text
}

/// What was to hold, a line each.
pub fn thresholds(run: &RunFile) -> String {
    let mut text = String::new();
    for held in &run.thresholds {
        line(&mut text, "fail-if   ", &held.line());
    }
    text
}

/// The verdict with its reasons, and what else should be known.
pub fn verdict(run: &RunFile) -> String {
    let verdict = &run.verdict;
    let mut text = String::new();
    for warning in &verdict.warnings {
        line(&mut text, "note: ", warning);
    }
    match verdict.status {
        RunStatus::Valid if run.cut_short => {
            line(&mut text, "", "verdict: cut short, valid until then");
            line(&mut text, "  - ", &shortness(run));
        }
        RunStatus::Valid => line(&mut text, "", "verdict: valid"),
        status => {
            line(
                &mut text,
                "",
                &format!("verdict: not valid ({})", status.name()),
            );
            for reason in &verdict.reasons {
                line(&mut text, "  - ", reason);
            }
        }
    }
    text
}

/// How much of what was asked for there is.
fn shortness(run: &RunFile) -> String {
    let (measured, asked) = (show_ns(run.end.window_ns), show_duration(run.plan.duration));
    format!("it was stopped after {measured} of {asked}: the figures are of that time")
}

fn client_of(plan: &Plan, engine: Engine) -> String {
    let engine = match engine {
        Engine::Auto => "auto",
        Engine::Uring => "io_uring",
        Engine::Epoll => "epoll",
    };
    let wait = match plan.wait {
        Wait::Spin => "spinning",
        Wait::Block => "blocking",
    };
    let threads = counted(plan.workers.len() as u64, "thread");
    let pinned: Option<Vec<String>> = plan
        .workers
        .iter()
        .map(|worker| worker.as_ref().map(ToString::to_string))
        .collect();
    let place = pinned.map_or("not pinned".to_owned(), |cpus| {
        format!(
            "on cpu{} {}",
            if cpus.len() == 1 { "" } else { "s" },
            cpus.join(",")
        )
    });
    format!(
        "client: {engine}, {wait}, {threads} {place}, seed {}",
        plan.seed
    )
}

fn closed_name(name: &str) -> &str {
    if name == "latency" {
        "round trip"
    } else {
        name
    }
}

fn messages_of(run: &RunFile) -> String {
    let end = &run.end;
    let (sent, answered) = (show_count(end.sent), show_count(end.answered));
    let mut text = format!(
        "{sent} sent = {answered} answered + {} lost + {} outstanding",
        show_count(end.lost),
        show_count(end.outstanding)
    );
    if end.unsent != 0 {
        write!(text, "; {} due and never sent", show_count(end.unsent))
            .expect("a string takes all that is written");
    }
    text
}

fn connects_of(run: &RunFile) -> String {
    let end = &run.end;
    let (opened, again) = (
        show_count(end.connections_opened),
        show_count(end.reconnects),
    );
    let rate = end.connect_ns.count as f64 / (end.window_ns.max(1) as f64 / 1e9);
    let pace = if run.plan.requests_per_connection == 0 {
        String::new()
    } else {
        format!("{} per second, ", show_rate(rate))
    };
    let from = end
        .client
        .sources
        .map_or(String::new(), |sources| format!(", from {sources}"));
    format!("{pace}{opened} in all, {again} after a failure{from}")
}

fn syn_row(row: &SynRetransmits) -> String {
    let times = match row.retransmits {
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    format!(
        "{}: SYN sent again {times}, the last at {}",
        show_count(row.count),
        show_ns(row.step_ns)
    )
}

fn client_figures(run: &RunFile) -> String {
    let client = &run.end.client;
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let cpu = client
        .cpu_ns_per_message
        .map_or("unknown".to_owned(), |ns| show_ns(ns.round() as u64));
    let run_delay = percent(client.run_delay_ns as f64 / run.end.window_ns.max(1) as f64);
    let steal = client.steal_ratio.map_or("unknown".to_owned(), percent);
    let busy = percent(client.busiest_thread);
    format!("{cpu} CPU per message, busiest thread {busy}, run delay {run_delay}, steal {steal}")
}

fn summary_cells(name: &str, summary: &Summary) -> [String; 7] {
    let cell = |value: Option<u64>| match value {
        None => "-".to_owned(),
        Some(value) if summary.is_lower_bound(value) => format!(">={}", show_ns(value)),
        Some(value) => show_ns(value),
    };
    let quantiles = [
        summary.p50,
        summary.p90,
        summary.p99,
        summary.p99_9,
        summary.p99_99,
        summary.max,
    ]
    .map(cell);
    let [p50, p90, p99, p99_9, p99_99, max] = quantiles;
    [name.to_owned(), p50, p90, p99, p99_9, p99_99, max]
}

fn table_row(text: &mut String, cells: &[String; 7]) {
    let mut row = format!("{:<10}", cells[0]);
    for cell in &cells[1..] {
        write!(row, " {cell:>10}").expect("a string takes all that is written to it");
    }
    text.push_str(row.trim_end());
    text.push('\n');
}

/// Appends words behind a label, broken into lines, further ones indented below the first word and by two at least.
fn line(text: &mut String, label: &str, words: &str) {
    hanging(text, label, label.chars().count().max(2), words);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use echometer_host::{machine::Facts, output::COLUMNS};

    use super::*;
    use crate::fail_if::Held;
    use crate::file::{Client, End, Life, SCHEMA, Server};
    use crate::plan::Arrivals;
    use crate::verdict::RunVerdict;

    fn run() -> RunFile {
        let summary = |scale: u64| Summary {
            count: 200_112,
            min: Some(9_100 * scale),
            mean: Some(31_000 * scale),
            p50: Some(28_400 * scale),
            p90: Some(41_200 * scale),
            p99: Some(88_700 * scale),
            p99_9: Some(412_000 * scale),
            p99_99: Some(1_210_000 * scale),
            max: Some(2_340_000 * scale),
            censored_from: None,
        };
        RunFile {
            schema: SCHEMA.to_owned(),
            started_at: "2026-01-02T03:04:05Z".to_owned(),
            plan: Plan {
                load: Load::Open { rate_per_s: 20_000.0, arrivals: Arrivals::Poisson },
                pipeline: 1_024,
                wait: Wait::Spin,
                workers: vec![Some(1)],
                ..Plan::default()
            },
            machine: Facts::default(),
            doctor: Vec::new(),
            command: String::new(),
            server: Server { target: "127.0.0.1:7777".to_owned() },
            intervals: Vec::new(),
            end: End {
                messages: 200_012,
                sent: 200_112,
                answered: 200_012,
                lost: 100,
                outstanding: 0,
                unsent: 0,
                censored: 100,
                clipped: 0,
                window_ns: 10_000_000_000,
                connections_opened: 64,
                reconnects: 0,
                rate_per_s: 20_001.2,
                offered_per_s: Some(20_011.2),
                latency_ns: Summary { censored_from: Some(1_000_000), ..summary(1) },
                service_least_ns: Summary::default(),
                service_ns: summary(1),
                queue_ns: Summary { p99_99: None, ..summary(0) },
                send_lag_ns: summary(0),
                recv_lag_ns: Summary::default(),
                connect_ns: Summary { count: 64, p99: None, p99_9: None, p99_99: None, ..summary(2) },
                first_echo_ns: Summary::default(),
                syn_retransmits: Vec::new(),
                errors: BTreeMap::from([("closed_by_peer".to_owned(), 2)]),
                client: Client {
                    engine: Engine::Uring,
                    sources: None,
                    cpu_ns_per_message: Some(7_412.3),
                    busiest_thread: 0.153,
                    run_delay_ns: 12_000_000,
                    steal_ratio: None,
                },
                life: Life { sent: 0, answered: 0, lost: 0, outstanding: 0, sent_bytes: 0, received_bytes: 0 },
            },
            verdict: RunVerdict {
                status: RunStatus::Errors,
                reasons: vec!["2 connections failed (2 closed by peer), 100 messages lost: see the server's log".to_owned()],
                warnings: vec![],
            },
            thresholds: Vec::new(),
            cut_short: false,
        }
    }

    const GOLDEN: &str = "\
127.0.0.1:7777: 64 connections, 64 B, up to 1,024 in flight on each, open loop
  at 20,000/s, Poisson, 10s after 2s of warm-up
client: io_uring, spinning, 1 thread on cpu 1, seed 1

                  p50        p90        p99      p99.9     p99.99        max
latency       28.4 us    41.2 us    88.7 us     412 us  >=1.21 ms  >=2.34 ms
service       28.4 us    41.2 us    88.7 us     412 us    1.21 ms    2.34 ms
queue            0 ns       0 ns       0 ns       0 ns          -       0 ns
send lag         0 ns       0 ns       0 ns       0 ns       0 ns       0 ns
connect       56.8 us    82.4 us          -          -          -    4.68 ms

messages  200,112 sent = 200,012 answered + 100 lost + 0 outstanding
rate      20,001 replies per second; 20,011 per second were due
client    7.41 us CPU per message, busiest thread 15.3 %, run delay 0.1 %, steal
          unknown
errors    2 connections: closed by peer

verdict: not valid (errors)
  - 2 connections failed (2 closed by peer), 100 messages lost: see the server's
    log
";

    #[test]
    fn the_report_is_as_it_was() {
        assert_eq!(text(&run()), GOLDEN);
    }

    #[test]
    fn no_line_is_too_long() {
        let mut run = run();
        run.verdict.warnings = vec!["word ".repeat(60).trim_end().to_owned()];
        run.cut_short = true;
        for line in text(&run).lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
    }

    #[test]
    fn churn_reads_like_this() {
        let mut run = run();
        run.cut_short = true;
        run.verdict = RunVerdict {
            status: RunStatus::Noisy,
            reasons: vec!["the client waited for its cpu 5.2 % of the time: something else runs there; leave it alone (--cpus)".to_owned()],
            warnings: vec!["this is a debug build: build with --release before you trust a figure".to_owned()],
        };
        run.thresholds = ["p99<200us", "connect.p99<1ms", "errors==0"]
            .map(|expression| Held {
                expression: expression.to_owned(),
                value: [Some(88_700.0), None, Some(2.0)][usize::from(expression != "p99<200us")
                    + usize::from(expression == "errors==0")],
                at_least: false,
                holds: expression == "p99<200us",
            })
            .into();
        run.plan.requests_per_connection = 1;
        run.end.connections_opened = 12_345;
        run.end.client.sources = "127.0.0.2-127.0.0.65".parse().ok();
        run.end.first_echo_ns = run.end.connect_ns;
        run.end.syn_retransmits = vec![SynRetransmits {
            retransmits: 1,
            step_ns: 1_000_000_000,
            count: 382,
            connect_ns: Summary::default(),
        }];
        reads_like(&run, include_str!("../tests/golden/run-churn.txt"));
    }

    #[test]
    fn closed_loop_reads_like_this() {
        let mut run = run();
        run.plan.load = Load::Closed;
        run.plan.pipeline = 1;
        run.end.offered_per_s = None;
        run.end.errors.clear();
        run.verdict = RunVerdict {
            status: RunStatus::Valid,
            reasons: vec![],
            warnings: vec!["closed loop: while the server stalls nothing is sent, so that the tail is hidden (coordinated omission); -R shows it".to_owned()],
        };
        reads_like(&run, include_str!("../tests/golden/run-closed.txt"));
    }

    fn reads_like(run: &RunFile, golden: &str) {
        let text = text(run);
        assert!(
            text.lines().all(|line| line.chars().count() <= COLUMNS),
            "{text}"
        );
        assert_eq!(text, golden);
    }
}
