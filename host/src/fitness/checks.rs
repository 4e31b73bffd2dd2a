//! The checks: a table of names and reasons, each with a pure function from what was seen to a grade, a value and a
//! cure. Each file holds the checks of one subject, its rows of the table above its functions.

mod cpus;
mod limits;
mod load;
mod network;
mod platform;
mod system;

use super::{Finding, Grade, Seen, Use};

/// All checks; the order is that of the report within a grade.
const CHECKS: [&[Check]; 6] = [
    cpus::CHECKS,
    system::CHECKS,
    load::CHECKS,
    network::CHECKS,
    limits::CHECKS,
    platform::CHECKS,
];

/// Judges what was seen. Checks that need watching are left out where nobody watched, those of io_uring where epoll is
/// asked about. The order is that of the table; readers sort by grade.
#[must_use]
pub fn judge(seen: &Seen) -> Vec<Finding> {
    let applies = |check: &&Check| match check.needs {
        Needs::Nothing => true,
        Needs::Watching => seen.activity.is_some(),
        Needs::Uring => seen.engine == Use::Uring,
        Needs::Connections => seen.connections.is_some(),
    };
    CHECKS
        .into_iter()
        .flatten()
        .filter(applies)
        .map(|check| check.judge(seen))
        .collect()
}

/// One check.
struct Check {
    name: &'static str,
    /// Why it matters, and what it does to the figures.
    why: &'static str,
    needs: Needs,
    judge: fn(&Seen) -> Judgement,
}

enum Needs {
    Nothing,
    Watching,
    Uring,
    Connections,
}

/// A grade, a value, a cure.
struct Judgement(Grade, String, Option<String>);

impl Check {
    const fn new(name: &'static str, judge: fn(&Seen) -> Judgement, why: &'static str) -> Self {
        Self {
            name,
            why,
            needs: Needs::Nothing,
            judge,
        }
    }

    const fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }

    fn judge(&self, seen: &Seen) -> Finding {
        let Judgement(grade, value, cure) = (self.judge)(seen);
        Finding {
            check: self.name.to_owned(),
            grade,
            value,
            why: self.why.to_owned(),
            cure,
        }
    }
}

fn pass(value: impl Into<String>) -> Judgement {
    Judgement(Grade::Pass, value.into(), None)
}

fn warn(value: impl Into<String>, cure: impl Into<String>) -> Judgement {
    Judgement(Grade::Warn, value.into(), Some(cure.into()))
}

fn fail(value: impl Into<String>, cure: impl Into<String>) -> Judgement {
    Judgement(Grade::Fail, value.into(), Some(cure.into()))
}

fn unknown(value: impl Into<String>, cure: impl Into<String>) -> Judgement {
    Judgement(Grade::Unknown, value.into(), Some(cure.into()))
}

#[cfg(test)]
mod tests;
