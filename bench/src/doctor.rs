//! `echometer doctor`: is this machine fit to measure? Looks for a second, tries a ring, and says what it found, the
//! gravest first, each with why it matters and what mends it.

pub(crate) mod command;
pub(crate) mod flags;

use std::time::Duration;

use echometer_host::fitness::{Activity, Purpose, Seen, UringTrial, Use, judge};
use echometer_report::file::doctor::{Examination, SCHEMA};

/// How long is watched what goes on.
const WATCHED: Duration = Duration::from_secs(1);

/// Looks at this machine, for a second and some milliseconds.
#[must_use]
pub(crate) fn examine(purpose: Purpose) -> Examination {
    let mut seen = Seen::now(purpose);
    // Watched before anything is tried, so that our own work is not taken for another's.
    seen.activity = Some(Activity::watch(WATCHED));
    if seen.engine == Use::Uring {
        seen.uring = Some(match echometer_ring::offers(&[]) {
            Ok(_) => UringTrial::Works,
            Err(error) => UringTrial::Refused(error.to_string()),
        });
    }
    examination_of(seen)
}

fn examination_of(seen: Seen) -> Examination {
    let mut findings = judge(&seen);
    findings.sort_by_key(|finding| finding.grade);
    Examination {
        schema: SCHEMA.to_owned(),
        engine: seen.engine,
        cpus: seen.cpus,
        connections: seen.connections.unwrap_or_default(),
        machine: seen.facts,
        findings,
    }
}

#[cfg(test)]
mod tests {
    use echometer_host::fitness::Grade;

    use super::*;
    use echometer_report::folder::json;

    #[test]
    fn the_gravest_comes_first() {
        let seen = Seen {
            activity: Some(Activity::default()),
            ..Seen::now(Purpose::default())
        };
        let examination = examination_of(seen);
        let grades: Vec<Grade> = examination
            .findings
            .iter()
            .map(|finding| finding.grade)
            .collect();
        assert!(grades.is_sorted());
        let read: Examination = serde_json::from_str(&json(&examination)).expect("it is JSON");
        assert_eq!(read, examination);
    }
}
