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

#[derive(Debug, Serialize)]
struct FeatureReport {
    name: &'static str,
    offered: bool,
    used: bool,
}

#[derive(Debug, Serialize)]
struct ByteCheck {
    receive: &'static str,
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
        features: features
            .iter()
            .map(|offer| FeatureReport {
                name: offer.feature.name(),
                offered: offer.offered,
                used: offer.used,
            })
            .collect(),
        byte_checks,
        memlock_bytes: finite(limits::memlock().soft),
        nofile: finite(limits::nofile().soft),
    }
}

/// Each way of receiving that this kernel offers, checked byte by byte.
fn byte_checks(offers: &[Offer]) -> Vec<ByteCheck> {
    let offered = |feature| {
        let mut these = offers.iter().filter(|offer| offer.feature == feature);
        these.any(|offer| offer.offered)
    };
    let multishot = Features::NONE.with(Feature::MultishotRecv);
    let mut ways = vec![("one-shot", Features::NONE)];
    if offered(Feature::MultishotRecv) {
        ways.push(("multishot", multishot));
    }
    if offered(Feature::Bundle) {
        ways.push(("multishot in bundles", multishot.with(Feature::Bundle)));
    }
    ways.into_iter()
        .map(|(receive, features)| {
            let fault = check_bytes(features, CHECK_BYTES).err();
            ByteCheck {
                receive,
                bytes: CHECK_BYTES,
                ok: fault.is_none(),
                fault,
            }
        })
        .collect()
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
        let _ = writeln!(text, "{:<18} {:>8} {:>8}", "feature", "offered", "used");
        for feature in &self.features {
            let mark = |yes: bool| if yes { "yes" } else { "-" };
            let _ = writeln!(
                text,
                "{:<18} {:>8} {:>8}",
                feature.name,
                mark(feature.offered),
                mark(feature.used)
            );
        }
        let _ = writeln!(text, "\nbyte check, random chunks, every byte compared:");
        for check in &self.byte_checks {
            let mebibytes = check.bytes >> 20;
            let result = match &check.fault {
                None => "ok".to_owned(),
                Some(fault) => format!("FAULT: {fault}"),
            };
            let _ = writeln!(text, "  {:<22} {mebibytes} MiB  {result}", check.receive);
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

    /// Whether a ring can be used here and every byte came through.
    pub fn is_sound(&self) -> bool {
        self.unavailable.is_none() && self.byte_checks.iter().all(|check| check.ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(unavailable: Option<&str>) -> Report {
        let feature = |name, offered, used| FeatureReport {
            name,
            offered,
            used,
        };
        let check = |receive, fault: Option<&str>| ByteCheck {
            receive,
            bytes: CHECK_BYTES,
            ok: fault.is_none(),
            fault: fault.map(str::to_owned),
        };
        Report {
            schema: "echometer.probe/1",
            kernel: Some("6.12.1".to_owned()),
            unavailable: unavailable.map(str::to_owned),
            features: vec![
                feature("multishot-recv", true, true),
                feature("sqpoll", true, false),
                feature("bundle", false, false),
            ],
            byte_checks: vec![
                check("one-shot", None),
                check("multishot", Some("byte 4,096 is 0x00 and not 0x17")),
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

feature             offered     used
multishot-recv          yes      yes
sqpoll                  yes        -
bundle                    -        -

byte check, random chunks, every byte compared:
  one-shot               16 MiB  ok
  multishot              16 MiB  FAULT: byte 4,096 is 0x00 and not 0x17

limits: memlock 8388608 bytes, nofile unlimited
"
        );
        assert!(!report(None).is_sound());
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
