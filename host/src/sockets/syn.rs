//! When is a SYN sent again that nobody answered?

use std::{fs, time::Duration};

/// The kernel's first wait for an answer to a SYN (`TCP_TIMEOUT_INIT`, RFC 6298).
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// No wait is longer (`TCP_RTO_MAX`).
const WAIT_MAX: Duration = Duration::from_secs(120);

/// How this kernel sends a SYN again: where a histogram of connect times has its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynSchedule {
    /// So many first waits are all of one second before they begin to double: `net.ipv4.tcp_syn_linear_timeouts`
    /// (Linux 6.5), 0 where it is absent.
    pub linear_timeouts: u32,
    /// How often it is sent again before the connect fails with ETIMEDOUT: `net.ipv4.tcp_syn_retries`.
    pub retries: u32,
}

/// Reads the schedule from the sysctls; what is absent is as in older kernels.
pub fn syn_schedule() -> SynSchedule {
    let number = |name: &str| -> Option<u32> {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?;
        text.trim().parse().ok()
    };
    SynSchedule {
        linear_timeouts: number("tcp_syn_linear_timeouts").unwrap_or(0),
        retries: number("tcp_syn_retries").unwrap_or(6),
    }
}

impl SynSchedule {
    /// When the SYN is sent for the `n`-th time again (from 1), since the connect began: with 4 linear timeouts after
    /// 1, 2, 3, 4, 5, 7, 11 s; with none after 1, 3, 7 s. A connect that such a SYN saved took this long.
    pub fn step(&self, n: u32) -> Duration {
        // `tcp_retransmit_timer`: the first `linear_timeouts` time-outs leave the wait as it is, each later one doubles
        // it. So the linear ones are followed by one more wait of a second, the first that is to be doubled.
        (0..n)
            .map(|timeout| {
                let doublings = timeout.saturating_sub(self.linear_timeouts).min(16);
                (FIRST_WAIT * (1 << doublings)).min(WAIT_MAX)
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(linear_timeouts: u32, count: u32) -> Vec<u64> {
        let schedule = SynSchedule {
            linear_timeouts,
            retries: 6,
        };
        (1..=count).map(|n| schedule.step(n).as_secs()).collect()
    }

    #[test]
    fn steps_are_the_kernels() {
        assert_eq!(seconds(4, 7), [1, 2, 3, 4, 5, 7, 11]);
        assert_eq!(seconds(0, 4), [1, 3, 7, 15]);
        assert!(seconds(0, 0).is_empty());
        // Beyond 120 s a wait grows no more.
        assert_eq!(seconds(0, 9)[8] - seconds(0, 8)[7], 120);
    }

    #[test]
    fn this_machine_has_a_schedule() {
        let schedule = syn_schedule();
        assert_eq!(schedule.step(1), FIRST_WAIT);
        assert!(schedule.linear_timeouts <= 127 && schedule.retries <= 127);
    }
}
