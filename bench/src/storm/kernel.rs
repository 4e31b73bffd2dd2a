//! What the kernel's settings mean for a storm: how long a queue may be, when a lost SYN is sent again, and what is done
//! with a connection for which there is no place.

use std::fs;

use echometer_report::file::sysctls::Sysctls;

/// Reads them.
#[must_use]
pub(crate) fn read() -> Sysctls {
    let read = |path: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?;
        text.trim().parse().ok()
    };
    Sysctls {
        somaxconn: read("core/somaxconn"),
        tcp_max_syn_backlog: read("ipv4/tcp_max_syn_backlog"),
        tcp_syncookies: read("ipv4/tcp_syncookies"),
        tcp_abort_on_overflow: read("ipv4/tcp_abort_on_overflow"),
        tcp_syn_linear_timeouts: read("ipv4/tcp_syn_linear_timeouts"),
        tcp_syn_retries: read("ipv4/tcp_syn_retries"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_the_sysctls() {
        let with = |linear, retries| {
            let sysctls = Sysctls {
                tcp_syn_linear_timeouts: linear,
                tcp_syn_retries: retries,
                ..Sysctls::default()
            };
            sysctls.show_steps()
        };
        assert_eq!(with(Some(4), Some(6)), "1, 2, 3, 4, 5, 7 s");
        assert_eq!(with(None, Some(3)), "1, 3, 7 s");
        assert_eq!(with(None, Some(0)), "never");
    }

    #[test]
    fn what_this_kernel_does_is_said() {
        let here = read();
        assert!(here.somaxconn.is_some_and(|limit| 0 < limit));
        assert!(here.show_steps().starts_with("1, "));
        let silent = Sysctls {
            tcp_abort_on_overflow: Some(0),
            ..Sysctls::default()
        };
        assert!(silent.overflow_policy().contains("in silence"));
        assert!(
            Sysctls::default()
                .overflow_policy()
                .contains("can't be read")
        );
    }
}
