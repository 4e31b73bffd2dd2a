//! What the kernel's settings mean for a storm: how long a queue may be, when a lost SYN is sent again, and what is done
//! with a connection for which there is no place.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use echometer_host::{sockets::SynSchedule, units::show_duration};

/// More steps than anybody waits for.
pub const STEPS_MAX: u32 = 12;

/// The settings that matter. What can't be read is `None`, which is not zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctls {
    /// `net.core.somaxconn`: no backlog counts for more.
    pub somaxconn: Option<u32>,
    /// `net.ipv4.tcp_max_syn_backlog`: where cookies are off, SYNs are dropped as soon as so many connections, less a
    /// quarter, have sent their SYN only. Otherwise the backlog alone bounds them.
    pub tcp_max_syn_backlog: Option<u32>,
    /// `net.ipv4.tcp_syncookies`: whether a full SYN queue is answered with cookies.
    pub tcp_syncookies: Option<u32>,
    /// `net.ipv4.tcp_abort_on_overflow`: whether a full accept queue is answered with a reset instead of silence.
    pub tcp_abort_on_overflow: Option<u32>,
    /// `net.ipv4.tcp_syn_linear_timeouts`: how often a SYN is sent again before the pauses double (since Linux 6.5).
    pub tcp_syn_linear_timeouts: Option<u32>,
    /// `net.ipv4.tcp_syn_retries`: how often a SYN is sent again before connect fails.
    pub tcp_syn_retries: Option<u32>,
}

impl Sysctls {
    /// When a SYN is sent again, counted from the first.
    #[must_use]
    pub fn syn_steps(&self) -> Vec<Duration> {
        let schedule = SynSchedule {
            linear_timeouts: self.tcp_syn_linear_timeouts.unwrap_or(0),
            // The kernel's default.
            retries: self.tcp_syn_retries.unwrap_or(6),
        };
        (1..=schedule.retries.min(STEPS_MAX))
            .map(|times| schedule.step(times))
            .collect()
    }

    /// The steps in words: `1, 2, 3, 4, 5, 7 s`.
    #[must_use]
    pub fn show_steps(&self) -> String {
        let steps: Vec<String> = self
            .syn_steps()
            .into_iter()
            .map(|step| show_duration(step).trim_end_matches('s').to_owned())
            .collect();
        match steps.is_empty() {
            true => "never".to_owned(),
            false => format!("{} s", steps.join(", ")),
        }
    }

    /// What happens to a connection for which the accept queue has no place.
    #[must_use]
    pub fn overflow_policy(&self) -> &'static str {
        match self.tcp_abort_on_overflow {
            Some(0) => {
                "tcp_abort_on_overflow is 0: where the accept queue is full the kernel drops SYNs and last ACKs in \
                 silence, so that a client sends them again and is late; nobody is told"
            }
            Some(_) => {
                "tcp_abort_on_overflow is on: where the accept queue is full the kernel resets the connection, so that \
                 clients fail at once (counted under failed) instead of coming late; 0 would let them try again"
            }
            None => "tcp_abort_on_overflow can't be read: whether overflows are silent is unknown",
        }
    }
}
