//! `find-rate.json`: what was asked, every run, the blocks' answers, the curve and the answer. Saved after every block.

use std::{
    fmt::Write as _,
    io,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use hdrhistogram::Histogram;

use echometer_host::{clock, fitness, machine::Facts, units::counted};
use echometer_loadgen::{
    Plan,
    file::Summary,
    histogram_log::{self, Line},
};
use echometer_report::{
    file::{
        entries::CommandEntry,
        find_rate::{
            BlockEntry, CURVE_NAME, CurvePoint, FILE_NAME, FindRateDesign, FindRateFile, RunEntry,
            SCHEMA,
        },
        quiet::QuietEntry,
        slo::Slo,
        trust::{Status, Trust},
    },
    folder::{BLOCKS, ResultFolder},
    text::{counted::counted_were, find_rate as text},
};
use echometer_statistics::{ALPHA, blocks_min};

use crate::{
    find_rate::{Found, Tried, flags::FindRateSettings, middle::middle, trial::Trial},
    judge::objections::too_few_blocks,
    measure::priority::priorities,
    measure::sides::{Started, remarks},
    place::placement::Placement,
    search::rungs::STEP,
    site::findings,
};

/// A search under way.
#[derive(Debug)]
pub(crate) struct Record {
    /// As it will be saved.
    pub file: FindRateFile,
    slos: Vec<Slo>,
    /// By rate: the histograms of its runs together, with the sum of what was achieved and how many held.
    points: Vec<Point>,
    started: Option<Started>,
    /// What is to be known of the server besides.
    notes: Vec<String>,
    folder: ResultFolder,
    /// Its report, as it was saved last.
    pub text: String,
}

#[derive(Debug)]
struct Point {
    rate_per_s: f64,
    latency: Histogram<u64>,
    achieved: f64,
    runs: usize,
    held: usize,
}

impl Record {
    /// A search of which nothing was measured yet. `load` is the settings' with its workers placed.
    #[must_use]
    pub(crate) fn new(
        settings: &FindRateSettings,
        placement: &Placement,
        load: Plan,
        machine: Facts,
        folder: ResultFolder,
        command_line: &str,
    ) -> Self {
        let file = FindRateFile {
            schema: SCHEMA.to_owned(),
            started_at: clock::wall_time().to_string(),
            cut_short: false,
            sentence: String::new(),
            verdict: Trust::nothing_yet(),
            slo: show_slos(&settings.slos),
            rate_per_s: None,
            ci_low: None,
            ci_high: None,
            confidence: None,
            arm: settings.arm.entry(),
            seed: load.seed,
            design: FindRateDesign {
                blocks: settings.blocks,
                lowest_per_s: settings.lowest,
                highest_per_s: settings.highest,
                step: STEP,
                server_cpus: placement.server_cpus(),
                client_cpus: placement.client.clone(),
                quiet: None,
                priority: priorities(settings.machine.priority, &load),
                load,
            },
            doctor: findings([&settings.arm], placement, &machine),
            machine,
            commands: vec![CommandEntry::bench(command_line)],
            curve: Vec::new(),
            blocks: Vec::new(),
            runs: Vec::new(),
        };
        Self {
            file,
            slos: settings.slos.clone(),
            points: Vec::new(),
            started: None,
            notes: Vec::new(),
            folder,
            text: String::new(),
        }
    }

    /// What a look at the cpus showed before, where there was one.
    pub(crate) fn set_quiet(&mut self, quiet: Option<QuietEntry>) {
        self.notes
            .extend(quiet.iter().filter_map(|quiet| quiet.moved.clone()));
        self.file.design.quiet = quiet;
    }

    /// Whether nothing was measured yet.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.file.runs.is_empty()
    }

    /// How the server was started.
    pub(crate) fn server(&mut self, started: Option<Started>) {
        self.started = started;
        self.started();
    }

    /// Notes how the server was started last.
    pub(crate) fn started(&mut self) {
        let Some(started) = &self.started else { return };
        let name = std::slice::from_ref(&self.file.arm.name);
        for note in remarks(name, std::slice::from_ref(&self.started)) {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        self.file.arm.ready_line.clone_from(&started.ready_line);
        let server = started.command.iter();
        CommandEntry::list_servers(
            &mut self.file.commands,
            server.map(|command| (&self.file.arm.name, command)),
        );
    }

    /// Takes in a run, with its histogram.
    ///
    /// # Errors
    /// Its file can't be written.
    pub(crate) fn keep_run(&mut self, block: usize, tried: &Tried) -> anyhow::Result<()> {
        let run = &tried.run;
        let hlog = format!("{BLOCKS}/{block:03}-{:04}.hlog", self.file.runs.len() + 1);
        let holds = match tried.trial {
            Trial::Holds => Some(true),
            Trial::Fails => Some(false),
            Trial::Invalid { .. } => None,
        };
        if let Some(holds) = holds {
            self.add_to_curve(tried, holds);
        }
        self.file.runs.push(RunEntry {
            block,
            rate_per_s: tried.rate_per_s,
            attempt: tried.attempt,
            offered_per_s: run.judged.offered_per_s.unwrap_or_default(),
            achieved_per_s: run.rate_per_s(),
            slo_ns: self.slos[0].value_ns(&run.stretch.latency),
            latency_ns: Summary::of(&run.stretch.latency, None),
            holds,
            status: run.judged.verdict.status,
            reasons: run.judged.verdict.reasons.clone(),
            client_busy: run.stretch.client_busiest,
            hlog: hlog.clone(),
        });
        // Last: what can't be written down was measured all the same.
        histogram(run.stretch.recorded_span_ns, &run.stretch.latency)
            .and_then(|bytes| self.folder.write(&hlog, &bytes))
            .with_context(|| format!("cannot write {}", self.folder.join(&hlog).display()))
    }

    fn add_to_curve(&mut self, tried: &Tried, holds: bool) {
        let same = |point: &Point| point.rate_per_s.total_cmp(&tried.rate_per_s).is_eq();
        let place = match self.points.iter().position(same) {
            Some(place) => place,
            None => {
                self.points.push(Point {
                    rate_per_s: tried.rate_per_s,
                    latency: Histogram::new(3).expect("three significant digits are allowed"),
                    achieved: 0.0,
                    runs: 0,
                    held: 0,
                });
                self.points.len() - 1
            }
        };
        let point = &mut self.points[place];
        point
            .latency
            .add(&tried.run.stretch.latency)
            .expect("a histogram that grows takes any other");
        point.achieved += tried.run.rate_per_s();
        point.runs += 1;
        point.held += usize::from(holds);
    }

    /// What a block found, or why it found nothing.
    pub(crate) fn keep_block(&mut self, index: usize, outcome: Result<Found, String>) {
        let entry = match outcome {
            Ok(found) => BlockEntry {
                index,
                valid: true,
                reasons: Vec::new(),
                rate_per_s: found.rate_per_s,
                client_bound: found.client_bound,
                at_the_top: found.at_the_top,
                doubtful: found.doubtful,
            },
            Err(reason) => BlockEntry {
                index,
                valid: false,
                reasons: vec![reason],
                rate_per_s: None,
                client_bound: false,
                at_the_top: false,
                doubtful: 0,
            },
        };
        self.file.blocks.push(entry);
    }

    /// The answer so far, for the progress.
    #[must_use]
    pub(crate) fn estimate(&self) -> Option<String> {
        let rate = self.file.rate_per_s?;
        Some(format!("{} {}", self.file.slo, text::show_rate(rate)))
    }

    /// Draws the conclusion from what is there and writes it down.
    ///
    /// # Errors
    /// The files can't be written.
    pub(crate) fn save(&mut self) -> anyhow::Result<()> {
        self.conclude();
        self.file.sentence = text::sentence(&self.file);
        self.text = text::text(&self.file);
        self.folder
            .write_text(CURVE_NAME, &curve_csv(&self.file.curve))?;
        self.folder.save(&self.text, FILE_NAME, &self.file)
    }

    fn conclude(&mut self) {
        let slo = &self.slos[0];
        self.points
            .sort_by(|one, other| one.rate_per_s.total_cmp(&other.rate_per_s));
        let curve = self.points.iter().map(|point| CurvePoint {
            rate_per_s: point.rate_per_s,
            achieved_per_s: point.achieved / point.runs.max(1) as f64,
            runs: point.runs,
            held: point.held,
            slo_ns: slo.value_ns(&point.latency),
            latency_ns: Summary::of(&point.latency, None),
        });
        self.file.curve = curve.collect();
        let valid: Vec<&BlockEntry> = self
            .file
            .blocks
            .iter()
            .filter(|block| block.valid)
            .collect();
        let found: Vec<Option<f64>> = valid.iter().map(|block| block.rate_per_s).collect();
        let needed = blocks_min(ALPHA);
        let (rate, low, high) = middle(&found);
        let enough = needed <= valid.len();
        self.file.rate_per_s = rate;
        self.file.ci_low = low.filter(|_| enough);
        self.file.ci_high = high.filter(|_| enough);
        // The median of a population lies outside the range of K draws with probability 2 / 2^K.
        self.file.confidence = enough.then(|| 1.0 - 2.0 * 0.5_f64.powi(valid.len() as i32));
        let mut reasons = Vec::new();
        reasons.extend(too_few_blocks(valid.len(), self.file.blocks.len()));
        let bound = valid.iter().filter(|block| block.client_bound).count();
        if 0 < bound && valid.len() <= 2 * bound {
            reasons.push(format!(
                "client-bound: in {bound} of {} the client could not make the next higher rate, so that the server \
                 may hold more: give it more cpus (--client-cpus)",
                counted(valid.len() as u64, "block")
            ));
        }
        let mut warnings = self.notes.clone();
        let top = valid.iter().filter(|block| block.at_the_top).count();
        if 0 < top && valid.len() <= 2 * top {
            warnings.push(format!(
                "in {top} of {} even the highest rate tried held: the true one is higher (--highest)",
                counted(valid.len() as u64, "block")
            ));
        }
        let doubtful: u32 = valid.iter().map(|block| block.doubtful).sum();
        if 0 < doubtful {
            warnings.push(format!(
                "{} judged by runs that stayed invalid each time (see the runs' status): a quieter machine \
                 would make the answer surer",
                counted_were(doubtful.into(), "rate")
            ));
        }
        self.file.verdict = Trust {
            status: match reasons.is_empty() {
                true => Status::Valid,
                false => Status::Invalid,
            },
            reasons,
            warnings,
        };
        self.file
            .verdict
            .object(fitness::objections(&self.file.doctor));
    }
}

/// All that has to hold, in words: `p99<200us and p99.9<1ms`.
fn show_slos(slos: &[Slo]) -> String {
    let texts: Vec<String> = slos.iter().map(ToString::to_string).collect();
    texts.join(" and ")
}

/// One row per point.
fn curve_csv(curve: &[CurvePoint]) -> String {
    let mut text = String::from(
        "rate_per_s,achieved_per_s,runs,held,slo_ns,p50_ns,p90_ns,p99_ns,p99_9_ns,max_ns\n",
    );
    let show = |value: Option<u64>| value.map(|ns| ns.to_string()).unwrap_or_default();
    for point in curve {
        let latency = &point.latency_ns;
        let _ = writeln!(
            text,
            "{:.1},{:.1},{},{},{},{},{},{},{},{}",
            point.rate_per_s,
            point.achieved_per_s,
            point.runs,
            point.held,
            point.slo_ns,
            show(latency.p50),
            show(latency.p90),
            show(latency.p99),
            show(latency.p99_9),
            show(latency.max),
        );
    }
    text
}

fn histogram(window_ns: u64, latency: &Histogram<u64>) -> io::Result<Vec<u8>> {
    let line = Line {
        tag: "latency",
        histogram: latency,
        start: Duration::ZERO,
        length: Duration::from_nanos(window_ns),
    };
    histogram_log::whole(SystemTime::now(), [line])
}
