//! `echometer doctor`: is this machine fit to measure? Looks for a second, tries a ring, and says what it found, the
//! gravest first, each with why it matters and what mends it.

pub mod flags;

use std::{fmt::Write as _, time::Duration};

use serde::{Deserialize, Serialize};

use echometer_host::{
    cpus::CpuList,
    fitness::{self, Activity, Finding, Grade, Purpose, Seen, UringTrial, Use, judge},
    machine::Facts,
};

use crate::{
    place::placement::Placement,
    report::text::{compare::paragraph, counted::counted},
    serve::arm::{Arm, Spec},
};

/// What the file says of its form.
pub const SCHEMA: &str = "echometer.doctor/1";
/// The name of the file in its folder.
pub const FILE_NAME: &str = "doctor.json";
/// How long is watched what goes on.
const WATCHED: Duration = Duration::from_secs(1);

/// What the doctor has found, as `--json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Examination {
    /// [`SCHEMA`].
    pub schema: String,
    /// What the machine shall be fit for.
    #[serde(rename = "for")]
    pub engine: Use,
    /// The cpus of server and client.
    pub cpus: CpuList,
    /// How many connections there will be.
    pub connections: u64,
    /// The machine.
    pub machine: Facts,
    /// The gravest first.
    pub findings: Vec<Finding>,
}

/// Looks at this machine, for a second and some milliseconds.
#[must_use]
pub fn examine(purpose: Purpose) -> Examination {
    let mut seen = Seen::now(purpose);
    // Watched before anything is tried, so that our own work is not taken for another's.
    seen.activity = Some(Activity::watch(WATCHED));
    if seen.engine == Use::Uring {
        seen.uring = Some(match echometer_ring::offers(&[]) {
            Ok(_) => UringTrial::Works,
            Err(error) => UringTrial::Refused(error.to_string()),
        });
    }
    Examination::of(seen)
}

/// What a result file keeps of this: the findings for its cpus and its servers, without those that need watching.
/// Which cpus the two sides share is said elsewhere, and remote servers' machines can't be looked at.
#[must_use]
pub fn findings<'a>(
    servers: impl IntoIterator<Item = &'a Arm>,
    placement: &Placement,
    machine: &Facts,
) -> Vec<Finding> {
    let rings = servers
        .into_iter()
        .any(|arm| matches!(&arm.spec, Spec::Engine { engine, .. } if engine == "uring"));
    let purpose = Purpose {
        cpus: placement
            .server
            .iter()
            .chain(placement.client.iter())
            .collect(),
        cpus_min: 1,
        connections: None,
        engine: if rings { Use::Uring } else { Use::Epoll },
    };
    fitness::at_a_glance(machine, purpose)
}

impl Examination {
    fn of(seen: Seen) -> Self {
        let mut findings = judge(&seen);
        findings.sort_by_key(|finding| finding.grade);
        Self {
            schema: SCHEMA.to_owned(),
            engine: seen.engine,
            cpus: seen.cpus,
            connections: seen.connections.unwrap_or_default(),
            machine: seen.facts,
            findings,
        }
    }

    /// Whether anything makes figures mean something else than they say.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.grade == Grade::Fail)
    }

    /// For people, in at most 80 columns, without colours; ends with the sentence.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let header = format!(
            "Is this machine fit to measure {} on cpu {}, with {}? {}.",
            engine_name(self.engine),
            self.cpus,
            counted(self.connections, "connection"),
            self.machine.summary(),
        );
        paragraph(&mut text, "", &header);
        text.push('\n');
        for finding in &self.findings {
            let word = finding.grade.word();
            let first = format!("{}: {}", finding.check, finding.value);
            paragraph(&mut text, &format!("{word:<8} "), &first);
            paragraph(&mut text, "         why:  ", &finding.why);
            if let Some(cure) = &finding.cure {
                paragraph(&mut text, "         cure: ", cure);
            }
        }
        let _ = writeln!(text);
        paragraph(&mut text, "", &self.sentence());
        text
    }

    /// The answer in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let count = |grade| {
            let these = self
                .findings
                .iter()
                .filter(|finding| finding.grade == grade);
            these.count()
        };
        let names = |grade| {
            let these = self
                .findings
                .iter()
                .filter(|finding| finding.grade == grade);
            let names: Vec<&str> = these.map(|finding| finding.check.as_str()).collect();
            names.join(", ")
        };
        let counted = format!(
            "{} FAIL, {} WARN, {} unknown, {} PASS",
            count(Grade::Fail),
            count(Grade::Warn),
            count(Grade::Unknown),
            count(Grade::Pass)
        );
        match (count(Grade::Fail), count(Grade::Warn)) {
            (0, 0) => format!("{counted}: nothing that is known spoils a measurement here."),
            (0, _) => format!(
                "{counted}: fit to measure; noise and bias are to be expected from {}.",
                names(Grade::Warn)
            ),
            (_, _) => format!(
                "{counted}: not fit to measure, because of {}.",
                names(Grade::Fail)
            ),
        }
    }
}

fn engine_name(engine: Use) -> &'static str {
    match engine {
        Use::Uring => "io_uring",
        Use::Epoll => "epoll",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::folder::json;

    fn finding(check: &str, grade: Grade, value: &str, cure: Option<&str>) -> Finding {
        Finding {
            check: check.into(),
            grade,
            value: value.into(),
            why: format!(
                "{check} matters because every message would otherwise take longer than it needs"
            ),
            cure: cure.map(str::to_owned),
        }
    }

    fn examination() -> Examination {
        let mut machine = Facts {
            kernel: Some("6.18.2".into()),
            ..Facts::default()
        };
        machine.cpu_model = Some("AMD EPYC".into());
        machine.cpus_online = "0-1".parse().ok();
        machine.hypervisor = Some("KVM".into());
        Examination {
            schema: SCHEMA.into(),
            engine: Use::Uring,
            cpus: "0-1".parse().expect("a list"),
            connections: 1_000,
            machine,
            findings: vec![
                finding(
                    "clocksource",
                    Grade::Fail,
                    "hpet",
                    Some(
                        "# echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource",
                    ),
                ),
                finding(
                    "hypervisor",
                    Grade::Warn,
                    "KVM",
                    Some("measure on bare metal where times matter"),
                ),
                finding(
                    "boost",
                    Grade::Unknown,
                    "it can't be seen from here",
                    Some("none: in a guest the host decides"),
                ),
                finding("somaxconn", Grade::Pass, "4,096", None),
            ],
        }
    }

    #[test]
    fn the_text_is_as_it_was() {
        let text = examination().text();
        crate::report::golden::check("doctor.txt", &text);
        assert!(
            text.lines()
                .all(|line| line.chars().count() <= 80 || !line.trim().contains(' '))
        );
    }

    #[test]
    fn the_sentence_names_what_is_wrong() {
        let mut examination = examination();
        assert!(examination.failed());
        examination.findings.remove(0);
        assert!(!examination.failed());
        assert!(
            examination
                .sentence()
                .contains("fit to measure; noise and bias are to be expected from hypervisor")
        );
        examination.findings.remove(0);
        assert!(
            examination
                .sentence()
                .contains("0 FAIL, 0 WARN, 1 unknown, 1 PASS: nothing")
        );
    }

    #[test]
    fn the_gravest_comes_first() {
        let seen = Seen {
            activity: Some(Activity::default()),
            ..Seen::now(Purpose::default())
        };
        let examination = Examination::of(seen);
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
