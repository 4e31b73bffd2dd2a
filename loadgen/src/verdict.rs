//! The verdict: can this run be believed? Rules over the run's own figures, each with a reason that a person can act
//! on. Pure: figures in, words out.

use serde::{Deserialize, Serialize};

use crate::{
    failure::Failure,
    summary::quantile,
    tally::{Tally, Third},
};
use echometer_host::units::{counted, show_count, show_ns};

mod lateness;

pub use self::lateness::{LATENESS_MAX, Lateness};
// The names that the bench uses.
#[doc(hidden)]
pub use self::{RunStatus as Status, RunVerdict as Verdict};

/// Whether a run can be believed, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunVerdict {
    /// The gravest of the reasons, or valid.
    pub status: RunStatus,
    /// Why it is not valid; empty if it is.
    pub reasons: Vec<String>,
    /// What a reader should know of a valid run, too.
    pub warnings: Vec<String>,
}

impl RunVerdict {
    /// Takes reasons from the machine for not believing the run; none changes nothing.
    pub fn object(&mut self, reasons: Vec<String>) {
        if !reasons.is_empty() {
            self.status = self.status.min(RunStatus::Noisy);
            self.reasons.extend(reasons);
        }
    }
}

/// What is wrong with a run, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunStatus {
    /// Connections failed, or messages were lost.
    Errors,
    /// The client was the bottleneck, or late.
    ClientBound,
    /// The server did not keep up with what was due.
    Overloaded,
    /// The machine was not ours alone.
    Noisy,
    /// The run's end doesn't look like its beginning.
    Unsteady,
    /// None of these.
    Valid,
}

impl RunStatus {
    /// Its name in files and in the report: `client-bound`.
    pub fn name(self) -> &'static str {
        match self {
            RunStatus::Errors => "errors",
            RunStatus::ClientBound => "client-bound",
            RunStatus::Overloaded => "overloaded",
            RunStatus::Noisy => "noisy",
            RunStatus::Unsteady => "unsteady",
            RunStatus::Valid => "valid",
        }
    }
}

/// What the rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The run's figures.
    pub tally: &'a Tally,
    /// Open loop: messages were due.
    pub open: bool,
    /// Share of the client's cpus' time that the hypervisor gave to others, if known.
    pub steal_ratio: Option<f64>,
    /// The client fell back to another engine, and why.
    pub fallback: Option<&'a str>,
}

/// Above this share of the window the client's busiest thread bounds an open loop.
const BUSY_MAX: f64 = 0.90;
/// The least share of what was due that must have been answered.
const ACHIEVED_MIN: f64 = 0.99;
/// The most of the window that the hypervisor or other threads may take from a client thread.
const NOISE_MAX: f64 = 0.01;
/// The most by which the median may change from the first third to the last.
const DRIFT_MAX: f64 = 0.05;
/// The most by which the number of unanswered messages may grow from the first third to the last, as a share of the
/// messages answered in a third: an overload by half a percent makes it grow that much.
const GROWTH_MAX: f64 = 0.01;
/// A gap counts as an omission if it is longer than so many times the p99.
const GAP_P99S: u64 = 10;
/// The most of the window that such gaps may take in closed loop.
const GAPS_MAX: f64 = 0.01;

/// Judges a run.
pub fn judge(evidence: &Evidence<'_>) -> RunVerdict {
    let mut reasons: Vec<(RunStatus, String)> = Vec::new();
    let rules = [
        errors,
        client_bound,
        overloaded,
        noisy,
        unsteady,
        unanswered,
    ];
    rules.iter().for_each(|rule| rule(evidence, &mut reasons));
    reasons.sort_by_key(|(status, _)| *status);
    let status = reasons
        .first()
        .map_or(RunStatus::Valid, |(status, _)| *status);
    let reasons = reasons.into_iter().map(|(_, reason)| reason).collect();
    RunVerdict {
        status,
        reasons,
        warnings: warnings(evidence),
    }
}

fn errors(evidence: &Evidence<'_>, reasons: &mut Vec<(RunStatus, String)>) {
    let tally = evidence.tally;
    let mut say = |reason| reasons.push((RunStatus::Errors, reason));
    if let Some(difference) = tally.mismatch {
        say(format!("what came back is not what was sent: {difference}"));
    }
    if tally.errors.total() != 0 {
        let kinds: Vec<String> = tally
            .errors
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        let (failed, kinds) = (
            counted(tally.errors.total(), "connection"),
            kinds.join(", "),
        );
        let lost = counted(tally.lost, "message");
        let mut cures = tally.errors.iter().filter_map(|(kind, _)| kind.cure());
        let cure = match cures.next() {
            Some(cure) => cure,
            None if tally.connections_alive == 0 => "none is left: did the server die?",
            None => "see the server's log, and its limits on connections and descriptors",
        };
        say(format!("{failed} failed ({kinds}), {lost} lost; {cure}"));
        if tally.errors.of(Failure::Surplus) != 0 {
            say("more came back than was sent: this is no echo server".to_owned());
        }
    }
    // Where something failed, that is why.
    let window = tally.window;
    let nothing = window.sent + window.unsent == 0 && window.answered == 0;
    if nothing && tally.errors.total() == 0 && tally.outstanding == 0 {
        let why = if tally.stopped_early {
            "the run was stopped before that; let it run"
        } else if evidence.open {
            "the run was too short for its rate; raise -d or -R"
        } else if tally.think_ns != 0 {
            "the run was too short for its pauses; raise -d, or lower --think"
        } else {
            "the run was too short; raise -d"
        };
        say(format!("nothing was sent while it was recorded: {why}"));
    }
}

/// Comes last: where a server is plainly overloaded, that is why messages are left unanswered.
fn unanswered(evidence: &Evidence<'_>, reasons: &mut Vec<(RunStatus, String)>) {
    let overloaded = reasons
        .iter()
        .any(|(status, _)| *status == RunStatus::Overloaded);
    if evidence.tally.outstanding != 0 && !(overloaded && evidence.tally.messages != 0) {
        let outstanding = counted(evidence.tally.outstanding, "message");
        let reason =
            format!("{outstanding} not answered in time: is this an echo server, and is it alive?");
        reasons.push((RunStatus::Errors, reason));
    }
}

fn client_bound(evidence: &Evidence<'_>, reasons: &mut Vec<(RunStatus, String)>) {
    let tally = evidence.tally;
    let mut say = |reason| reasons.push((RunStatus::ClientBound, reason));
    if !evidence.open {
        return;
    }
    // With no connection left it has tried to make new ones, and that says nothing of its speed.
    if BUSY_MAX < tally.busiest_thread && tally.connections_alive != 0 {
        let busy = tally.busiest_thread * 100.0;
        say(format!(
            "client core {busy:.0} % busy: add --threads (or --cpus), or lower -R"
        ));
    }
    let lateness = tally
        .open
        .as_ref()
        .and_then(|open| Lateness::at(0.99, &tally.latency, open));
    if let Some(lateness) = lateness {
        lateness.objections("p99").into_iter().for_each(say);
    }
}

fn overloaded(evidence: &Evidence<'_>, reasons: &mut Vec<(RunStatus, String)>) {
    let overload = overload(evidence.tally).into_iter();
    if evidence.open {
        reasons.extend(overload.map(|reason| (RunStatus::Overloaded, reason)));
    }
}

/// Why the server of an open loop did not keep up with what was due; empty if it did.
pub fn overload(tally: &Tally) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut say = |reason| reasons.push(reason);
    // What failed connections took with them is not for lack of speed.
    let due = tally.window.sent + tally.window.unsent - tally.window.lost;
    let achieved = tally.window.answered as f64 / due.max(1) as f64;
    if due != 0 && achieved < ACHIEVED_MIN && tally.connections_alive != 0 {
        let (answered, due, share) = (
            show_count(tally.window.answered),
            show_count(due),
            achieved * 100.0,
        );
        say(format!(
            "only {answered} of {due} messages due were answered ({share:.1} %): lower -R"
        ));
    }
    let Some([first, _, last]) = &tally.thirds else {
        return reasons;
    };
    let growth = last.unanswered_mean - first.unanswered_mean;
    if GROWTH_MAX * last.answered.max(1) as f64 <= growth {
        let (from, to) = (first.unanswered_mean, last.unanswered_mean);
        say(format!(
            "unanswered messages grew from {from:.0} in the first third to {to:.0} in the last: lower -R"
        ));
    }
    // The queue's median is 0 as long as half of all messages find room at once.
    if settled(first)
        && settled(last)
        && first.queue_p50_ns as f64 * (1.0 + DRIFT_MAX) < last.queue_p50_ns as f64
    {
        let (from, to) = (show_ns(first.queue_p50_ns), show_ns(last.queue_p50_ns));
        say(format!(
            "the wait for room on the connections grew: p50 {from} in the first third, {to} in the last: lower -R"
        ));
    }
    reasons
}

fn noisy(evidence: &Evidence<'_>, reasons: &mut Vec<(RunStatus, String)>) {
    let mut say = |reason| reasons.push((RunStatus::Noisy, reason));
    if let Some(steal) = evidence.steal_ratio
        && NOISE_MAX < steal
    {
        let share = steal * 100.0;
        say(format!(
            "the hypervisor took {share:.1} % of the client's time: use a quieter host, or dedicated cpus"
        ));
    }
    let run_delay =
        evidence.tally.run_delay_ns as f64 / evidence.tally.recorded_span_ns.max(1) as f64;
    if NOISE_MAX < run_delay {
        let share = run_delay * 100.0;
        say(format!(
            "a client thread waited {share:.1} % of the window for its cpu: stop what else runs there, or pin it to a \
             cpu of its own (--cpus)"
        ));
    }
}

fn unsteady(evidence: &Evidence<'_>, reasons: &mut Vec<(RunStatus, String)>) {
    let Some([first, _, last]) = &evidence.tally.thirds else {
        return;
    };
    if !settled(first) || !settled(last) || evidence.tally.ramped {
        return;
    }
    let (from, to) = (first.latency_p50_ns as f64, last.latency_p50_ns as f64);
    if DRIFT_MAX < (to - from).abs() / from.max(1.0) {
        let (from, to) = (show_ns(first.latency_p50_ns), show_ns(last.latency_p50_ns));
        reasons.push((
            RunStatus::Unsteady,
            format!("p50 went from {from} in the first third to {to} in the last: warm up longer (-w), or run longer (-d)"),
        ));
    }
}

/// Whether a third has enough messages for a median.
fn settled(third: &Third) -> bool {
    20 <= third.answered
}

fn warnings(evidence: &Evidence<'_>) -> Vec<String> {
    let tally = evidence.tally;
    let mut warnings = Vec::new();
    if !evidence.open {
        warnings.push(
            "closed loop: it sends only when the server has answered, so this is throughput and service time, and no \
             latency under load; for that use -R"
                .to_owned(),
        );
        warnings.extend(coordinated_omission(tally));
    }
    if tally.window.censored() != 0 {
        let censored = counted(tally.window.censored(), "message");
        warnings.push(format!(
            "{censored} without an answer count in the latency with the time that they had waited; a quantile that \
             reaches them is shown as >= x"
        ));
    }
    if tally.window.clipped != 0 {
        warnings.push(format!(
            "{} above 60 s, recorded as 60 s",
            counted(tally.window.clipped, "value")
        ));
    }
    if let Some(reason) = evidence.fallback {
        warnings.push(format!("the client uses epoll: {reason}"));
    }
    if cfg!(debug_assertions) {
        warnings.push(
            "this is a debug build: build with --release before you trust a figure".to_owned(),
        );
    }
    warnings
}

/// A closed loop waits with a server that stands still, and so records one slow message where a user would have met
/// many. Such stands show as gaps in which nothing at all came back.
fn coordinated_omission(tally: &Tally) -> Option<String> {
    let p99_ns = quantile(&tally.latency, 0.99)?;
    let mut omitted = (0u64, 0u128, 0u64);
    for step in tally.gaps.iter_recorded() {
        let gap_ns = step.value_iterated_to();
        // Who thinks is silent too.
        if (GAP_P99S * p99_ns).saturating_add(tally.think_ns) < gap_ns {
            let count = step.count_at_value();
            omitted = (
                omitted.0 + count,
                omitted.1 + u128::from(gap_ns) * u128::from(count),
                gap_ns,
            );
        }
    }
    let (count, sum_ns, longest_ns) = omitted;
    let share = sum_ns as f64 / (tally.recorded_span_ns as f64 * tally.workers.max(1) as f64);
    (GAPS_MAX < share).then(|| {
        format!(
            "coordinated omission: {} without any reply (the longest {}) take {:.1} % of the window, and closed loop \
             sent nothing meanwhile: the true p99 is far above the {} shown; use -R",
            counted(count, "gap"),
            show_ns(longest_ns),
            share * 100.0,
            show_ns(p99_ns),
        )
    })
}

#[cfg(test)]
mod tests;
