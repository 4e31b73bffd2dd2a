//! `echometer selftest`: proves on this machine that the instrument tells the truth. A calibration server, whose
//! slowness is known, is put under the load generator and into a comparison, and what they show is held against what
//! is known.
//!
//! The [`truths`] say what must be shown; what is kept of it and how it reads is `echometer-report`'s.

pub(crate) mod command;
pub(crate) mod flags;
mod screen;
pub(crate) mod step;
pub(crate) mod truths;

use std::{
    collections::VecDeque,
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use hdrhistogram::Histogram;

use echometer_host::{
    clock,
    counters::Steal,
    limits,
    process::process_run_delay_ns,
    signals::Stop,
    units::{counted, show_duration},
};
use echometer_loadgen::{
    Fleet, Plan, Target,
    plan::Engine,
    run::{Run, run},
    verdict::Status,
};
use echometer_report::{
    file::selftest::{FILE_NAME, Outcome, SCHEMA, Selftest, Truth},
    folder::ResultFolder,
};

use crate::{
    compare::{self, compare},
    place::placement::Placement,
    selftest::{
        flags::SelftestSettings,
        step::{Item, Step},
        truths::{Method, RunMethod, check_comparison, check_run, method},
    },
    serve::{arm::parse_arms, launcher::Launcher},
    site::{Site, findings},
};

/// A truth that is missed while the machine is disturbed is looked at so often at most.
const ATTEMPTS_MAX: usize = 3;
/// Above this share of the time without a cpu on either side, or of it taken by the hypervisor, the machine was
/// disturbed: it moves a p99 of 5 ms by about a hundredth.
const DISTURBANCE_MAX: f64 = 0.005;
/// `--quick` looks at nothing again that would not be over by then.
const QUICK_LIMIT: Duration = Duration::from_secs(58);

/// Looks at all truths that `settings` name. `command_line` is kept in the file.
///
/// A request on `stop` ends it; the truth that was being looked at is left out.
///
/// # Errors
/// The calibration server can't be started, a cpu can't be had, a file can't be written. A truth that is not shown is
/// no error: see [`Selftest::passed`].
pub(crate) fn selftest(
    settings: &SelftestSettings,
    command_line: &str,
    stop: &Stop,
    watch: &mut dyn FnMut(Step<'_>),
) -> anyhow::Result<(Selftest, ResultFolder)> {
    let server = parse_arms(&["auto"]).expect("an engine is an arm");
    let site = Site::prepare(&settings.machine, &server)?;
    let clients = match settings.engines.as_slice() {
        [] => usable_engines(settings.quick)?,
        named => named.to_vec(),
    };
    let folder = site.folder(&settings.output, &settings.machine, "selftest", FILE_NAME)?;
    let Site {
        placement,
        launcher,
        machine,
    } = site;
    let mut bench = Bench {
        settings,
        placement: &placement,
        launcher,
        folder: folder.clone(),
        stop,
    };
    let mut selftest = Selftest {
        schema: SCHEMA.to_owned(),
        started_at: clock::wall_time().to_string(),
        elapsed_ns: 0,
        cut_short: false,
        passed: false,
        sentence: String::new(),
        quick: settings.quick,
        doctor: findings([], &placement, &machine),
        machine,
        server_cpus: placement.server.clone(),
        client_cpus: placement.client.clone(),
        command: command_line.to_owned(),
        truths: Vec::new(),
    };
    let mut agenda = agenda(&settings.truths, &clients, settings.quick);
    let begun = Instant::now();
    let mut number = 0;
    while let Some(item) = agenda.pop_front() {
        if settings.quick && 1 < item.attempt && QUICK_LIMIT < begun.elapsed() + item.took {
            continue;
        }
        number += 1;
        watch(Step::Begin {
            number,
            of: number + agenda.len(),
            item,
        });
        let outcome = bench.look(item);
        if outcome.is_err() && selftest.truths.is_empty() {
            folder.discard_if_empty();
        }
        let outcome = outcome?;
        let stopped = stop.requested();
        if !stopped {
            if !outcome.passed() && outcome.disturbed && item.attempt < ATTEMPTS_MAX {
                agenda.push_back(Item {
                    attempt: item.attempt + 1,
                    took: Duration::from_nanos(outcome.elapsed_ns),
                    ..item
                });
            }
            selftest.truths.push(outcome);
        }
        selftest.elapsed_ns = begun.elapsed().as_nanos() as u64;
        // A part is no proof, and what is saved now may be all that is ever saved.
        conclude(&mut selftest, stopped || !agenda.is_empty());
        let saved = save(&folder, &selftest);
        // What was seen is shown, whether it can be saved or not.
        if !stopped {
            watch(Step::End(&selftest));
        }
        saved?;
        if stopped {
            break;
        }
    }
    if selftest.cut_short && !stop.requested() {
        // What was left was not to be looked at again.
        conclude(&mut selftest, false);
        save(&folder, &selftest)?;
    }
    // The raw results lie in folders of their own.
    folder.without_blocks();
    Ok((selftest, folder))
}

fn conclude(selftest: &mut Selftest, cut_short: bool) {
    selftest.cut_short = cut_short;
    selftest.passed =
        !cut_short && !selftest.truths.is_empty() && selftest.checks().all(|check| check.passed);
    selftest.sentence = echometer_report::text::selftest::sentence(selftest);
}

fn save(folder: &ResultFolder, selftest: &Selftest) -> anyhow::Result<()> {
    let text = echometer_report::text::selftest::text(selftest);
    folder.save(&text, FILE_NAME, selftest)
}

/// Both engines of the client, or those that this kernel has; in a hurry the better one.
fn usable_engines(quick: bool) -> anyhow::Result<Vec<Engine>> {
    let tried = Fleet::start(&Plan::default()).context("the client cannot start")?;
    Ok(match (tried.engine(), quick) {
        (Engine::Epoll, _) => vec![Engine::Epoll],
        (_, true) => vec![Engine::Uring],
        (_, false) => vec![Engine::Uring, Engine::Epoll],
    })
}

/// Which truth is looked at with which client, in order. Comparisons are about the statistics, which don't know how
/// the client moves its bytes: once is enough for them.
fn agenda(wanted: &[Truth], clients: &[Engine], quick: bool) -> VecDeque<Item> {
    let item = |truth, client| Item {
        truth,
        client,
        attempt: 1,
        took: Duration::ZERO,
    };
    wanted
        .iter()
        .flat_map(|&truth| {
            let clients = match method(truth, quick) {
                Method::Run(_) => clients,
                Method::Compare(_) => &clients[..1],
            };
            clients.iter().map(move |&client| item(truth, client))
        })
        .collect()
}

struct Bench<'a> {
    settings: &'a SelftestSettings,
    placement: &'a Placement,
    launcher: Launcher,
    folder: ResultFolder,
    stop: &'a Stop,
}

impl Bench<'_> {
    fn look(&mut self, item: Item) -> anyhow::Result<Outcome> {
        let begun = Instant::now();
        let mut outcome = match method(item.truth, self.settings.quick) {
            Method::Run(method) => self.look_at_run(item, &method),
            Method::Compare(words) => self.look_at_comparison(item, &words),
        }
        .with_context(|| format!("selftest of '{}'", item.truth.title()))?;
        outcome.elapsed_ns = begun.elapsed().as_nanos() as u64;
        Ok(outcome)
    }

    fn look_at_run(&mut self, item: Item, method: &RunMethod) -> anyhow::Result<Outcome> {
        let plan = Plan {
            engine: item.client,
            workers: self.placement.client.iter().map(Some).collect(),
            ..method.plan.clone()
        };
        plan.validate()?;
        // The server inherits the limit, and needs a descriptor per connection as the client does.
        limits::raise_nofile(u64::from(plan.connections) * 2 + 256)?;
        let mut name = format!("{}-{}", name_of(&item.truth), name_of(&item.client));
        if 1 < item.attempt {
            let _ = write!(name, "-{}", item.attempt);
        }
        let mut outcome = Outcome {
            truth: item.truth,
            attempt: item.attempt,
            disturbed: false,
            client: Some(item.client),
            load: load_words(&plan),
            servers: Vec::new(),
            folders: Vec::new(),
            checks: Vec::new(),
            remarks: Vec::new(),
            elapsed_ns: 0,
        };
        let floor_plan = method.floor.map(|duration| Plan {
            duration: duration / 2,
            ..plan.clone()
        });
        // The machine's wake-ups take now 40 us and now 60: so f is measured on both sides of what it is part of.
        let mut floor: Option<Histogram<u64>> = None;
        if let Some(plan) = &floor_plan {
            let (run, _) = self.measure(&format!("{name}-floor-1"), "none", plan, &mut outcome)?;
            floor = Some(run.latency);
        }
        let (shown, disturbances) = self.measure(&name, method.delay, &plan, &mut outcome)?;
        if let (Some(plan), Some(floor)) = (&floor_plan, &mut floor) {
            let (run, _) = self.measure(&format!("{name}-floor-2"), "none", plan, &mut outcome)?;
            floor
                .add(&run.latency)
                .expect("all latencies have histograms of one shape");
        }
        let verdict = &shown.file.verdict;
        outcome.checks = check_run(item.truth, &shown.latency, floor.as_ref(), verdict);
        outcome.disturbed = !disturbances.is_empty();
        outcome.remarks = disturbances;
        if verdict.status != Status::Valid {
            outcome.remarks.extend(verdict.reasons.iter().cloned());
        }
        Ok(outcome)
    }

    /// One run on a server of its own, and what disturbed it.
    ///
    /// At the first attempt the server sleeps while it has nothing to do: one that spins leaves no cpu to whatever else
    /// the machine has to do, which then takes its turn on one of ours, for milliseconds at a time. At the next it spins:
    /// where the hypervisor is slow to give a cpu back that slept, the server that sleeps is the one that is late.
    fn measure(
        &mut self,
        name: &str,
        delay: &str,
        plan: &Plan,
        outcome: &mut Outcome,
    ) -> anyhow::Result<(Run, Vec<String>)> {
        let wait = if outcome.attempt == 1 {
            "block"
        } else {
            "spin"
        };
        let arm = format!("auto:--delay {delay} --wait {wait}");
        let arm = &parse_arms(&[arm]).expect("an engine with flags is an arm")[0];
        let log = self.folder.join(format!("{name}.stderr"));
        let server = self.launcher.start(arm, &log).map_err(|error| {
            discard_if_empty(&log);
            anyhow::anyhow!("the calibration server ({}) {error}", arm.spec)
        })?;
        // Where the kernel keeps no such account, nothing is known to disturb.
        let server_delay_ns = || {
            let pid = server.group.as_ref()?.pid();
            process_run_delay_ns(pid).ok()
        };
        let before_ns = server_delay_ns();
        let server_steal = Steal::begin(self.placement.server.iter().collect());
        let run = run(
            plan,
            &Target::from(server.address),
            Some(&self.folder.join(name)),
            self.stop,
            &mut |_| {},
        );
        let server_waited_ns = server_delay_ns()
            .zip(before_ns)
            .map_or(0, |(after_ns, before_ns)| {
                after_ns.saturating_sub(before_ns)
            });
        let server_steal = server_steal.ratio();
        outcome.servers.extend(server.command.clone());
        outcome.folders.push(name.to_owned());
        drop(server);
        discard_if_empty(&log);
        let run = run?;
        let client = &run.file.end.client;
        let time_ns = (plan.duration + plan.warmup).as_nanos() as f64;
        let shares = [
            (
                "the server waited for its cpu",
                server_waited_ns as f64 / time_ns,
            ),
            (
                "the client waited for its cpu",
                client.run_delay_ns as f64 / time_ns,
            ),
            (
                "the hypervisor took the server's cpu",
                server_steal.unwrap_or_default(),
            ),
            (
                "the hypervisor took the client's cpu",
                client.steal_ratio.unwrap_or_default(),
            ),
        ];
        let disturbances = shares
            .into_iter()
            .filter(|(_, share)| DISTURBANCE_MAX < *share)
            .map(|(what, share)| format!("{what} {:.1} % of the time", share * 100.0))
            .collect();
        Ok((run, disturbances))
    }

    fn look_at_comparison(&mut self, item: Item, words: &[String]) -> anyhow::Result<Outcome> {
        let name = name_of(&item.truth);
        let out = self.folder.join(&name).display().to_string();
        let cpus = [
            self.placement.server.to_string(),
            self.placement.client.to_string(),
        ];
        let client_name = name_of(&item.client);
        let mut line: Vec<&str> = vec!["echometer", "compare"];
        line.extend(words.iter().map(String::as_str));
        line.extend(["--engine", &client_name, "--quiet", "--out", &out]);
        line.extend(["--server-cpus", &cpus[0], "--client-cpus", &cpus[1]]);
        let settings = compare::flags::parse(&line[2..])
            .map_err(anyhow::Error::msg)
            .context("a fault of ours in the selftest")?;
        let load = format!(
            "{}; {}",
            settings.load.words(),
            counted(settings.blocks as u64, "block")
        );
        // The selftest's own folder is not the comparison's business.
        let command_line = shell_words::join(&line[..line.len() - 6]);
        let comparison = compare(&settings, &command_line, self.stop)?.file;
        let mut remarks = Vec::new();
        if comparison.verdict.status == echometer_report::file::trust::Status::Invalid {
            remarks.extend(comparison.verdict.reasons.iter().cloned());
        }
        Ok(Outcome {
            truth: item.truth,
            attempt: item.attempt,
            // Interleaving answers whatever disturbs all arms alike.
            disturbed: false,
            client: Some(item.client),
            load,
            servers: comparison
                .commands
                .iter()
                .filter(|entry| entry.of != "echometer")
                .map(|entry| entry.command.clone())
                .collect(),
            folders: vec![name],
            checks: check_comparison(item.truth, &comparison),
            remarks,
            elapsed_ns: 0,
        })
    }
}

/// `fixed`, `uring`: as it is typed and as it stands in the file.
fn name_of(value: &impl clap::ValueEnum) -> String {
    let value = value
        .to_possible_value()
        .expect("no value of these is hidden");
    value.get_name().to_owned()
}

/// `10 connections, 64 B, open loop at 1,000/s, Poisson, 10s`.
fn load_words(plan: &Plan) -> String {
    format!("{}, {}", plan.words(), show_duration(plan.duration))
}

/// Of what the servers wrote only that is kept which says something.
fn discard_if_empty(log: &Path) {
    if fs::metadata(log).is_ok_and(|log| log.len() == 0) {
        let _ = fs::remove_file(log);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use echometer_report::file::selftest::TRUTHS;

    #[test]
    fn comparisons_are_made_once_and_runs_with_every_client() {
        let agenda = agenda(&TRUTHS, &[Engine::Uring, Engine::Epoll], false);
        let of = |wanted| {
            agenda
                .iter()
                .filter(|item| item.truth == wanted)
                .map(|item| item.client)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(Truth::Freeze), [Engine::Uring, Engine::Epoll]);
        assert_eq!(of(Truth::Ratio), [Engine::Uring]);
        assert_eq!(agenda.len(), 4 * 2 + 3);
    }

    #[test]
    fn the_comparisons_are_lines_that_can_be_typed() {
        for truth in TRUTHS {
            for quick in [false, true] {
                let Method::Compare(words) = method(truth, quick) else {
                    continue;
                };
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let settings = compare::flags::parse(&words).expect("a line that can be typed");
                assert!(6 <= settings.blocks, "an interval needs six");
            }
        }
    }
}
