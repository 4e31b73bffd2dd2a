//! Who is to be loaded: an address as typed, and what it resolves to.

use std::net::{SocketAddr, ToSocketAddrs};

use echometer_host::address::Address;

/// A server to load. Every address that its name resolves to is tried, in the resolver's order; all connections go
/// to the first that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    name: String,
    addresses: Vec<Address>,
}

/// A target that can't be understood, or whose name is not known.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not of the form that is asked for: a usage error.
    #[error("{name}: {reason}; write HOST:PORT, [v6]:PORT or unix:/path")]
    Malformed {
        /// As typed.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The resolver knows no such host.
    #[error("cannot resolve {name}: {source}")]
    Unresolved {
        /// As typed.
        name: String,
        /// What the resolver said.
        source: std::io::Error,
    },
}

impl Target {
    /// Resolves `HOST:PORT`, `[v6]:PORT` or `unix:/path`.
    ///
    /// # Errors
    /// Text of another form, port 0, or a name that doesn't resolve.
    pub fn resolve(name: &str) -> Result<Target, TargetError> {
        let malformed = |reason: String| TargetError::Malformed {
            name: name.to_owned(),
            reason,
        };
        let addresses = if name.starts_with("unix:") {
            vec![
                name.parse::<Address>()
                    .map_err(|error| malformed(error.to_string()))?,
            ]
        } else {
            let (host, port) = name
                .rsplit_once(':')
                .ok_or_else(|| malformed("the port is missing".to_owned()))?;
            if host.is_empty() {
                return Err(malformed("the host is missing".to_owned()));
            }
            if host.contains(':') && !host.starts_with('[') {
                return Err(malformed("an IPv6 address stands in brackets".to_owned()));
            }
            match port.parse::<u16>() {
                Err(_) => return Err(malformed(format!("'{port}' is no port"))),
                Ok(0) => return Err(malformed("nobody can listen on port 0".to_owned())),
                Ok(_) => {}
            }
            let unresolved = |source| TargetError::Unresolved {
                name: name.to_owned(),
                source,
            };
            let resolved: Vec<Address> = name
                .to_socket_addrs()
                .map_err(unresolved)?
                .map(Address::Tcp)
                .collect();
            if resolved.is_empty() {
                return Err(unresolved(std::io::Error::other("the name has no address")));
            }
            resolved
        };
        Ok(Target {
            name: name.to_owned(),
            addresses,
        })
    }

    /// The target as it was typed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.addresses.as_slice(), [Address::Unix(_), ..])
    }

    /// What it resolved to; at least one address.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Target {
        Target {
            name: address.to_string(),
            addresses: vec![Address::Tcp(address)],
        }
    }
}

impl From<Address> for Target {
    fn from(address: Address) -> Target {
        Target {
            name: address.to_string(),
            addresses: vec![address],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_resolves() {
        for (text, shown) in [
            ("127.0.0.1:7777", "127.0.0.1:7777"),
            ("[::1]:80", "[::1]:80"),
            ("unix:/run/echo", "unix:/run/echo"),
        ] {
            let target = Target::resolve(text).unwrap();
            assert_eq!(target.addresses()[0].to_string(), shown);
            assert_eq!(target.name(), text);
        }
    }

    #[test]
    fn every_address_of_a_name_is_tried() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [&nobody, &listener].map(|one| Address::Tcp(one.local_addr().unwrap()));
        drop(nobody);
        let target = Target {
            name: "two-faced:7777".to_owned(),
            addresses: addresses.to_vec(),
        };
        let mut fleet = crate::Fleet::start(&crate::Plan::default()).unwrap();
        fleet.open(&target).expect("the second address answers");
        // With nobody at any of them the error names one.
        drop(listener);
        let error = fleet.open(&target).unwrap_err().to_string();
        assert!(error.contains(&addresses[1].to_string()), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            ("127.0.0.1", "port is missing"),
            ("127.0.0.1:http", "no port"),
            ("127.0.0.1:0", "port 0"),
            (":80", "host is missing"),
            ("::1:80", "brackets"),
            ("host:99999", "no port"),
        ] {
            let error = Target::resolve(text).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(text), "{error}");
        }
    }
}
