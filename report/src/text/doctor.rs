//! What the doctor found, as text of at most 80 columns, without colours.

use std::fmt::Write as _;

use echometer_host::{
    fitness::{Grade, Use},
    units::counted,
};

use crate::{file::doctor::Examination, text::columns::paragraph};

/// For people, in at most 80 columns, without colours; ends with the sentence.
#[must_use]
pub fn text(examination: &Examination) -> String {
    let mut text = String::new();
    let header = format!(
        "Is this machine fit to measure {} on cpu {}, with {}? {}.",
        engine_name(examination.engine),
        examination.cpus,
        counted(examination.connections, "connection"),
        examination.machine.summary(),
    );
    paragraph(&mut text, "", &header);
    text.push('\n');
    for finding in &examination.findings {
        let word = finding.grade.word();
        let first = format!("{}: {}", finding.check, finding.value);
        paragraph(&mut text, &format!("{word:<8} "), &first);
        paragraph(&mut text, "         why:  ", &finding.why);
        if let Some(cure) = &finding.cure {
            paragraph(&mut text, "         cure: ", cure);
        }
    }
    let _ = writeln!(text);
    paragraph(&mut text, "", &sentence(examination));
    text
}

/// The answer in a sentence.
#[must_use]
pub fn sentence(examination: &Examination) -> String {
    let count = |grade| {
        let these = examination
            .findings
            .iter()
            .filter(|finding| finding.grade == grade);
        these.count()
    };
    let names = |grade| {
        let these = examination
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

fn engine_name(engine: Use) -> &'static str {
    match engine {
        Use::Uring => "io_uring",
        Use::Epoll => "epoll",
    }
}

#[cfg(test)]
mod tests {
    use echometer_host::{fitness::Finding, machine::Facts};

    use super::*;
    use crate::file::doctor::SCHEMA;

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
        let text = text(&examination());
        crate::golden::check("doctor.txt", &text);
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
            sentence(&examination)
                .contains("fit to measure; noise and bias are to be expected from hypervisor")
        );
        examination.findings.remove(0);
        assert!(sentence(&examination).contains("0 FAIL, 0 WARN, 1 unknown, 1 PASS: nothing"));
    }
}
