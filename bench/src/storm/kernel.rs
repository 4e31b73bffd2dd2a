//! What the kernel's settings mean for a storm: how long a queue may be, when a lost SYN is sent again, and what is done
//! with a connection for which there is no place.

use std::fs;

use serde::{Deserialize, Serialize};

use echometer_host::units::show_duration;
use std::time::Duration;

/// The settings that matter. What can't be read is `None`, which is not zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctls {
    /// `net.core.somaxconn`: no backlog counts for more.
    pub somaxconn: Option<u32>,
    /// `net.ipv4.tcp_max_syn_backlog`: connections that have sent their SYN only; beyond it cookies, or nothing.
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
    /// Reads them.
    #[must_use]
    pub fn read() -> Self {
        let read = |path: &str| {
            let text = fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?;
            text.trim().parse().ok()
        };
        Self {
            somaxconn: read("core/somaxconn"),
            tcp_max_syn_backlog: read("ipv4/tcp_max_syn_backlog"),
            tcp_syncookies: read("ipv4/tcp_syncookies"),
            tcp_abort_on_overflow: read("ipv4/tcp_abort_on_overflow"),
            tcp_syn_linear_timeouts: read("ipv4/tcp_syn_linear_timeouts"),
            tcp_syn_retries: read("ipv4/tcp_syn_retries"),
        }
    }

    /// When a SYN is sent again, counted from the first.
    #[must_use]
    pub fn syn_steps(&self) -> Vec<Duration> {
        // Six is the kernel's default, and more steps than anybody waits for.
        syn_steps(
            self.tcp_syn_linear_timeouts.unwrap_or(0),
            self.tcp_syn_retries.unwrap_or(6),
        )
    }

    /// The steps in words: `1, 2, 3, 4, 5, 7 s`.
    #[must_use]
    pub fn show_steps(&self) -> String {
        let steps: Vec<String> = self
            .syn_steps()
            .into_iter()
            .map(|step| show_duration(step).trim_end_matches('s').to_owned())
            .collect();
        format!("{} s", steps.join(", "))
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

/// When a lost SYN is sent again, counted from the first: one second after the last, `linear` times, then with pauses
/// that double (`tcp_retransmit_timer` in the kernel: the back-off begins after `tcp_syn_linear_timeouts`).
#[must_use]
pub fn syn_steps(linear: u32, retries: u32) -> Vec<Duration> {
    let mut at = Duration::ZERO;
    let mut pause = Duration::from_secs(1);
    // The sysctls are bytes; a pause never exceeds 120 s (TCP_RTO_MAX).
    (0..retries.min(255))
        .map(|sent| {
            at += pause;
            if linear <= sent {
                pause = (pause * 2).min(Duration::from_secs(120));
            }
            at
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(linear: u32, retries: u32) -> Vec<u64> {
        syn_steps(linear, retries)
            .iter()
            .map(Duration::as_secs)
            .collect()
    }

    #[test]
    fn steps_are_those_that_the_kernel_takes() {
        assert_eq!(seconds(4, 6), [1, 2, 3, 4, 5, 7]);
        assert_eq!(seconds(0, 3), [1, 3, 7]);
        assert_eq!(seconds(0, 0), [0; 0]);
        assert_eq!(seconds(2, 5), [1, 2, 3, 5, 9]);
    }

    #[test]
    fn pauses_have_an_end() {
        let steps = seconds(0, 255);
        assert_eq!(steps.len(), 255);
        assert_eq!(steps[254] - steps[253], 120);
    }

    #[test]
    fn what_this_kernel_does_is_said() {
        let here = Sysctls::read();
        assert!(here.somaxconn.is_some_and(|limit| 0 < limit));
        assert!(here.show_steps().starts_with("1, "));
        let silent = Sysctls {
            tcp_abort_on_overflow: Some(0),
            ..Sysctls::default()
        };
        assert!(silent.overflow_policy().contains("in silence"));
        assert!(Sysctls::default().overflow_policy().contains("can't be read"));
    }
}
