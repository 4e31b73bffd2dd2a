//! The addresses that the client connects from: a range, taken in turn. Each address has a full range of ports for each
//! peer.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// A range of addresses of one family, first and last included. `127.0.0.2-127.0.0.40`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sources {
    first: IpAddr,
    last: IpAddr,
}

impl Sources {
    /// The first and the last address.
    pub fn ends(&self) -> (IpAddr, IpAddr) {
        (self.first, self.last)
    }

    /// Whether these are IPv4 addresses.
    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// How many there are; at least 1. (More than 2^64 are as good as that many.)
    pub fn count(&self) -> u64 {
        u64::try_from(number(self.last) - number(self.first))
            .map_or(u64::MAX, |steps| steps.saturating_add(1))
    }

    /// The `index`-th of them, from 0, in turn.
    pub fn nth(&self, index: u64) -> IpAddr {
        let number = number(self.first) + u128::from(index % self.count());
        match self.first {
            IpAddr::V4(_) => IpAddr::V4((number as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(number.into()),
        }
    }
}

/// Whose turn it is.
#[derive(Clone, Debug)]
pub(crate) struct SourceTurn {
    sources: Option<Sources>,
    next: u64,
}

impl SourceTurn {
    pub(crate) fn new(sources: Option<Sources>, offset: usize) -> SourceTurn {
        SourceTurn {
            sources,
            next: offset as u64,
        }
    }

    /// The next source; `None` leaves it to the kernel.
    pub(crate) fn next(&mut self) -> Option<IpAddr> {
        let sources = self.sources?;
        self.next = self.next.wrapping_add(1);
        Some(sources.nth(self.next.wrapping_sub(1)))
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// Text that is no range of addresses. The message names the form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: write an address, or the first and the last of one family: 127.0.0.2-127.0.0.40")]
pub struct SourcesError(String);

impl FromStr for Sources {
    type Err = SourcesError;

    fn from_str(text: &str) -> Result<Sources, SourcesError> {
        let address = |text: &str| {
            text.parse::<IpAddr>()
                .map_err(|_| SourcesError(format!("'{text}' is no address")))
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (address(first)?, address(last)?),
            None => (address(text)?, address(text)?),
        };
        if first.is_ipv4() != last.is_ipv4() {
            return Err(SourcesError(format!(
                "{first} and {last} are of two families"
            )));
        }
        if last < first {
            return Err(SourcesError(format!("{last} comes before {first}")));
        }
        Ok(Sources { first, last })
    }
}

impl TryFrom<String> for Sources {
    type Error = SourcesError;

    fn try_from(text: String) -> Result<Sources, SourcesError> {
        text.parse()
    }
}

impl From<Sources> for String {
    fn from(sources: Sources) -> String {
        sources.to_string()
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_counted_and_written() {
        for (text, count, third) in [
            ("127.0.0.2-127.0.0.40", 39, "127.0.0.4"),
            ("127.0.0.255-127.0.1.0", 2, "127.0.0.255"),
            ("10.0.0.1", 1, "10.0.0.1"),
            ("fd00::1-fd00::1:0", 65_536, "fd00::3"),
            ("::-ffff::", u64::MAX, "::2"),
        ] {
            let sources: Sources = text.parse().unwrap();
            assert_eq!(
                (sources.count(), sources.to_string().as_str()),
                (count, text)
            );
            assert_eq!(sources.nth(2).to_string(), third);
            let json = serde_json::to_string(&sources).unwrap();
            assert_eq!(serde_json::from_str::<Sources>(&json).unwrap(), sources);
        }
        let mut turn = SourceTurn::new(Some("127.0.0.2-127.0.0.3".parse().unwrap()), 1);
        let seen: Vec<String> = (0..3).map(|_| turn.next().unwrap().to_string()).collect();
        assert_eq!(seen, ["127.0.0.3", "127.0.0.2", "127.0.0.3"]);
        assert_eq!(SourceTurn::new(None, 0).next(), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            ("", "no address"),
            ("127.0.0.1-", "no address"),
            ("127.0.0.9-127.0.0.1", "before"),
            ("127.0.0.1-::1", "two families"),
            ("lo", "'lo'"),
        ] {
            let error = text.parse::<Sources>().unwrap_err().to_string();
            assert!(
                error.contains(reason) && error.contains("127.0.0.2-"),
                "{error}"
            );
        }
    }
}
