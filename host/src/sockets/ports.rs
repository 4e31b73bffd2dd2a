//! How many local ports does a connect have to choose from?

use std::{fs, ops::RangeInclusive};

/// The ports that the kernel gives out by itself (`net.ipv4.ip_local_port_range`, for both families): each source
/// address has them once for each peer. `None` where it can't be read.
pub fn local_ports() -> Option<RangeInclusive<u16>> {
    local_ports_of(&fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?)
}

/// As [`local_ports`], from the text of the sysctl: two numbers.
pub fn local_ports_of(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next()?, numbers.next()?) {
        (Ok(first), Ok(last)) if first <= last => Some(first..=last),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_are_a_range_and_nothing_else_is() {
        assert_eq!(local_ports_of("32768\t60999\n"), Some(32_768..=60_999));
        for text in ["", "1", "2 1", "a b", "1 70000"] {
            assert_eq!(local_ports_of(text), None, "{text}");
        }
    }
}
