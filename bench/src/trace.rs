//! `echometer trace`: one connection step by step, each step timed, with the call that does it and what it would have
//! said on failure. Of our own engines both sides are shown, done by the very calls or operations that the engine uses;
//! of a foreign server the client's.

pub(crate) mod command;
pub(crate) mod demos;
pub(crate) mod flags;
mod hands;
pub(crate) mod steps;
pub(crate) mod text;
mod walk;

use std::{
    env, fs,
    io::{self, Write as _},
    process,
};

use anyhow::Context;

use echometer_host::{
    address::Address,
    cpus,
    target::Target,
    threads,
    units::{counted, show_ns},
};

use crate::{
    serve::{
        arm::{Arm, Spec},
        launcher::{LET_GO_TIMEOUT, Launcher, remote_target},
        stray::left_listening,
    },
    trace::{
        demos::Demo,
        flags::{TraceSettings, TraceTarget},
        steps::{Broken, Recorder, SCHEMA, Trace},
        walk::{Pair, walk_client},
    },
};

/// What the listener of an ordinary trace asks for: the server's own default.
const BACKLOG: u32 = 4096;

/// Traces what `settings` name.
///
/// # Errors
/// The server can't be started or found, or the engine is not available. A step that fails is no error, but the
/// trace's end.
pub(crate) fn trace(settings: &TraceSettings) -> anyhow::Result<Trace> {
    match &settings.target {
        TraceTarget::Uring => {
            let demo = settings.demo;
            // A ring that ends interrupts the thread that used it some time later: so it has a thread of its own.
            let traced = threads::spawn("trace", move || {
                let pair = Pair::ring().context(
                    "io_uring is not available here (`echometer-server probe` says why): trace epoll instead",
                )?;
                Ok(both_sides("uring", pair, demo))
            })?;
            traced.join().expect("a trace does not panic")
        }
        TraceTarget::Epoll => {
            let pair = Pair::calls().context("cannot make an epoll set")?;
            Ok(both_sides("epoll", pair, settings.demo))
        }
        TraceTarget::Server(arm) => foreign(arm),
    }
}

/// A server and a client of our own.
fn both_sides(engine: &str, mut pair: Pair, demo: Option<Demo>) -> Trace {
    let outcome = match demo {
        Some(demo) => demo.play(&mut pair),
        None => pair.walk(BACKLOG).map(|()| walked(&pair.recorder)),
    };
    let demo = demo.and_then(|demo| {
        use clap::ValueEnum;
        Some(demo.to_possible_value()?.get_name().to_owned())
    });
    finish(engine.to_owned(), None, demo, pair.recorder, outcome)
}

/// A server that is not ours, or one of ours with flags of its own: it is started where need be.
fn foreign(arm: &Arm) -> anyhow::Result<Trace> {
    let (server, target) = match &arm.spec {
        // Not probed before: the first connection that it sees is the traced one.
        Spec::Remote { host, port } => (None, remote_target(host, *port)?),
        Spec::Engine { .. } | Spec::Command { .. } => {
            let cpus = cpus::allowed().context("cannot read this process's cpu mask")?;
            let launcher = Launcher::beside_this_program(std::slice::from_ref(arm), &cpus)?;
            let log = env::temp_dir().join(format!("echometer-trace-{}.stderr", process::id()));
            let started = launcher.start(arm, &log);
            // What it said is part of the error by now.
            let _ = fs::remove_file(&log);
            let server = started
                .map_err(|error| anyhow::anyhow!("arm '{}' ({}) {error}", arm.name, arm.spec))?;
            let target = Target::from(server.address);
            (Some(server), target)
        }
    };
    let mut recorder = Recorder::new();
    let (address, outcome) = walk_client(&mut recorder, &target);
    let outcome = outcome.map(|()| walked(&recorder));
    drop(server);
    if let (Spec::Command { .. }, Address::Tcp(address)) = (&arm.spec, &address)
        && let Some(stray) = left_listening(*address, LET_GO_TIMEOUT)
    {
        let _ = writeln!(io::stderr(), "note: {} {stray}", arm.name);
    }
    Ok(finish(
        arm.spec.to_string(),
        Some(address.to_string()),
        None,
        recorder,
        outcome,
    ))
}

/// What an ordinary trace comes to.
fn walked(recorder: &Recorder) -> String {
    let of = |kind| recorder.steps.iter().find(|step| step.kind == kind);
    let span = of(steps::Kind::Send).zip(of(steps::Kind::Return));
    let round_trip = span.map_or_else(
        || "unknown".to_owned(),
        |(send, back)| show_ns((back.at_ns + back.took_ns).saturating_sub(send.at_ns)),
    );
    format!(
        "{}. From the first send to the echo's arrival: {}. (Alone and for the first time: the benchmark's figures \
         are of warm connections.)",
        counted(recorder.steps.len() as u64, "step"),
        round_trip,
    )
}

fn finish(
    target: String,
    address: Option<String>,
    demo: Option<String>,
    recorder: Recorder,
    outcome: Result<String, Broken>,
) -> Trace {
    let complete = outcome.is_ok();
    let sentence = outcome.unwrap_or_else(|Broken| {
        let last = recorder.steps.last();
        last.map_or_else(
            || "Nothing could be done.".to_owned(),
            |step| {
                format!(
                    "It ended at '{}' of the {}: {}.",
                    step.kind.label(),
                    step.side.label(),
                    step.saw
                )
            },
        )
    });
    Trace {
        schema: SCHEMA.to_owned(),
        target,
        address,
        demo,
        steps: recorder.steps,
        sentence,
        complete,
    }
}
