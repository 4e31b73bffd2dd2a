//! `echometer-server probe`: what io_uring offers on this kernel, to this user, and what the server would use of it.

use std::fmt::Write as _;

use echometer_host::{kernel, limits};
use echometer_ring::{Feature, Features, Offer, SetupError, check_bytes, offers};
use serde::Serialize;

use crate::engine::uring::sizing::failing_trials;

/// Bytes that each byte check pushes through a connection: about a second for all of them.
const CHECK_BYTES: usize = 16 << 20;

/// What was found, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    kernel: Option<String>,
    /// Why there is no ring here, if so.
    unavailable: Option<String>,
    features: Vec<FeatureReport>,
    byte_checks: Vec<ByteCheck>,
    memlock_bytes: Option<u64>,
    nofile: Option<u64>,
}

/// How one feature stands: what the server's own trials found.
#[derive(Debug, Serialize)]
struct FeatureReport {
    name: &'static str,
    state: State,
    offered: bool,
    used: bool,
    /// Why it is not offered, where a trial failed.
    why: Option<String>,
}

/// The same as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// The server uses it unless told otherwise.
    InUse,
    /// It works, and is off unless asked for.
    Offered,
    /// The kernel has it not, or does not allow it here.
    Absent,
    /// The kernel has it, and does not do what it promises.
    FailedTrial,
}

#[derive(Debug, Serialize)]
struct ByteCheck {
    receive: &'static str,
    /// Whether the server receives that way unless told otherwise.
    used: bool,
    bytes: usize,
    ok: bool,
    fault: Option<String>,
}

/// Tries everything out; it takes about a second.
pub fn probe() -> Report {
    let (features, unavailable) = match offers(&failing_trials()) {
        Ok(offers) => (offers, None),
        Err(error) => (Vec::new(), Some(SetupError::to_string(&error))),
    };
    let byte_checks = if unavailable.is_some() {
        Vec::new()
    } else {
        byte_checks(&features)
    };
    let finite = |limit: u64| (limit != limits::UNLIMITED).then_some(limit);
    Report {
        schema: "echometer.probe/1",
        kernel: kernel::release(),
        unavailable,
        features: features.iter().map(FeatureReport::new).collect(),
        byte_checks,
        memlock_bytes: finite(limits::memlock().soft),
        nofile: finite(limits::nofile().soft),
    }
}

/// Each way of receiving that this kernel offers, checked byte by byte.
fn byte_checks(offers: &[Offer]) -> Vec<ByteCheck> {
    let find = |feature| offers.iter().find(|offer| offer.feature == feature);
    let offered = |feature| find(feature).is_some_and(|offer| offer.offered);
    let used = |feature| find(feature).is_some_and(|offer| offer.used);
    let multishot = Features::NONE.with(Feature::MultishotRecv);
    let ways = [
        ("one-shot", Features::NONE, None),
        ("multishot", multishot, Some(Feature::MultishotRecv)),
        (
            "multishot in bundles",
            multishot.with(Feature::Bundle),
            Some(Feature::Bundle),
        ),
    ];
    // The server receives in the last of these ways that it uses.
    let in_use = ways
        .iter()
        .rposition(|(_, _, needs)| needs.is_none_or(used))
        .unwrap_or(0);
    let tried = |(at, (receive, features, needs)): (usize, (_, Features, Option<Feature>))| {
        if !needs.is_none_or(offered) {
            return None;
        }
        let fault = check_bytes(features, CHECK_BYTES).err();
        Some(ByteCheck {
            receive,
            used: at == in_use,
            bytes: CHECK_BYTES,
            ok: fault.is_none(),
            fault,
        })
    };
    ways.into_iter().enumerate().filter_map(tried).collect()
}

impl FeatureReport {
    fn new(offer: &Offer) -> FeatureReport {
        FeatureReport {
            name: offer.feature.name(),
            state: match (offer.used, offer.offered, &offer.why) {
                (true, ..) => State::InUse,
                (_, true, _) => State::Offered,
                (.., Some(_)) => State::FailedTrial,
                (.., None) => State::Absent,
            },
            offered: offer.offered,
            used: offer.used,
            why: offer.why.clone(),
        }
    }

    fn words(&self) -> String {
        match (self.state, &self.why) {
            (State::InUse, _) => "in use".into(),
            (State::Offered, _) => format!("offered (--uring +{})", self.name),
            (State::FailedTrial, Some(why)) => format!("failed its trial: {why}"),
            (State::FailedTrial | State::Absent, _) => "not here".into(),
        }
    }
}

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let kernel = self.kernel.as_deref().unwrap_or("unknown");
        let _ = writeln!(text, "io_uring on Linux {kernel}\n");
        if let Some(why) = &self.unavailable {
            let _ = writeln!(text, "not usable: {why}");
            return text;
        }
        for feature in &self.features {
            let _ = writeln!(text, "{:<18} {}", feature.name, feature.words());
        }
        let _ = writeln!(text, "\nbyte check, random chunks, every byte compared:");
        for check in &self.byte_checks {
            let mebibytes = check.bytes >> 20;
            let result = match &check.fault {
                None => "ok".to_owned(),
                Some(fault) => format!("FAULT: {fault}"),
            };
            let used = if check.used { "  (in use)" } else { "" };
            let _ = writeln!(
                text,
                "  {:<22} {mebibytes} MiB  {result}{used}",
                check.receive
            );
        }
        let limit = |limit: Option<u64>| limit.map_or("unlimited".into(), |n| n.to_string());
        let _ = writeln!(
            text,
            "\nlimits: memlock {} bytes, nofile {}",
            limit(self.memlock_bytes),
            limit(self.nofile)
        );
        text
    }

    /// For programs.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data with string keys")
    }

    /// Whether a ring can be used here, and every byte came through in the way in which the server receives.
    pub fn is_sound(&self) -> bool {
        let sound = |check: &ByteCheck| check.ok || !check.used;
        self.unavailable.is_none() && self.byte_checks.iter().all(sound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(unavailable: Option<&str>) -> Report {
        let feature = |name, offered, used, why: Option<&str>| FeatureReport {
            name,
            state: match (used, offered, why) {
                (true, ..) => State::InUse,
                (_, true, _) => State::Offered,
                (.., Some(_)) => State::FailedTrial,
                _ => State::Absent,
            },
            offered,
            used,
            why: why.map(str::to_owned),
        };
        let check = |receive, used, fault: Option<&str>| ByteCheck {
            receive,
            used,
            bytes: CHECK_BYTES,
            ok: fault.is_none(),
            fault: fault.map(str::to_owned),
        };
        Report {
            schema: "echometer.probe/1",
            kernel: Some("6.12.1".to_owned()),
            unavailable: unavailable.map(str::to_owned),
            features: vec![
                feature("multishot-recv", true, true, None),
                feature("sqpoll", true, false, None),
                feature("bundle", false, false, None),
                feature("direct", false, false, Some("a closed file stays open")),
            ],
            byte_checks: vec![
                check("one-shot", false, Some("byte 4,096 is 0x00 and not 0x17")),
                check("multishot", true, None),
            ],
            memlock_bytes: Some(8_388_608),
            nofile: None,
        }
    }

    #[test]
    fn the_text_reads_like_this() {
        let text = report(None).text();
        assert_eq!(
            text,
            "\
io_uring on Linux 6.12.1

multishot-recv     in use
sqpoll             offered (--uring +sqpoll)
bundle             not here
direct             failed its trial: a closed file stays open

byte check, random chunks, every byte compared:
  one-shot               16 MiB  FAULT: byte 4,096 is 0x00 and not 0x17
  multishot              16 MiB  ok  (in use)

limits: memlock 8388608 bytes, nofile unlimited
"
        );
    }

    #[test]
    fn only_what_is_used_must_be_sound() {
        let mut report = report(None);
        assert!(report.is_sound());
        report.byte_checks[1].ok = false;
        assert!(!report.is_sound());
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json["features"][3]["state"], "failed-trial");
        assert_eq!(json["features"][3]["why"], "a closed file stays open");
    }

    #[test]
    fn without_a_ring_only_the_reason_is_told() {
        let denied = report(Some(
            "io_uring is switched off: sysctl kernel.io_uring_disabled=0",
        ));
        assert_eq!(
            denied.text(),
            "io_uring on Linux 6.12.1\n\n\
             not usable: io_uring is switched off: sysctl kernel.io_uring_disabled=0\n"
        );
        assert!(!denied.is_sound());
    }
}
