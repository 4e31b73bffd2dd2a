//! Whom do we connect to? An address as typed, and what it resolves to: the one resolver of all programs.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::address::{Address, AddressError};

/// A server. Every address that its name resolves to is to be tried, in the resolver's order: `localhost` may be
/// `::1` first, where nobody listens.
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
    /// Resolves `HOST:PORT`, `[v6]:PORT`, `[fe80::1%eth0]:PORT`, `unix:/path` or `unix:@name`.
    ///
    /// # Errors
    /// Text of another form, port 0, or a name that doesn't resolve.
    pub fn resolve(name: &str) -> Result<Target, TargetError> {
        let malformed = |reason: String| TargetError::Malformed {
            name: name.to_owned(),
            reason,
        };
        if name.starts_with("unix:") {
            let address = name.parse::<Address>();
            return Ok(address
                .map_err(|error| malformed(error.to_string()))?
                .into());
        }
        let (host, port) = name
            .rsplit_once(':')
            .ok_or_else(|| malformed("the port is missing".to_owned()))?;
        if host.is_empty() {
            return Err(malformed("the host is missing".to_owned()));
        }
        if host.contains(':') && !host.starts_with('[') {
            return Err(malformed("an IPv6 address stands in brackets".to_owned()));
        }
        let port = match port.parse::<u16>() {
            Err(_) => return Err(malformed(format!("'{port}' is no port"))),
            Ok(0) => return Err(malformed("nobody can listen on port 0".to_owned())),
            Ok(port) => port,
        };
        let addresses = if host.starts_with('[') {
            match name.parse::<Address>() {
                Ok(address) => vec![address],
                Err(error @ AddressError::ScopeUnknown { .. }) => {
                    return Err(TargetError::Unresolved {
                        name: name.to_owned(),
                        source: std::io::Error::other(error.to_string()),
                    });
                }
                Err(_) => return Err(malformed(format!("'{host}' is no IPv6 address"))),
            }
        } else {
            look_up(host, port).map_err(|source| TargetError::Unresolved {
                name: name.to_owned(),
                source,
            })?
        };
        Ok(Target::new(name, addresses))
    }

    /// A target of that name with these addresses, which are to be tried in this order.
    ///
    /// # Panics
    /// Without an address.
    pub fn new(name: impl Into<String>, addresses: Vec<Address>) -> Target {
        assert!(!addresses.is_empty(), "a target has at least one address");
        Target {
            name: name.into(),
            addresses,
        }
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

/// What the system's resolver says: `/etc/hosts`, DNS and what else is set up. At least one address.
fn look_up(host: &str, port: u16) -> std::io::Result<Vec<Address>> {
    let mut addresses: Vec<Address> = Vec::new();
    for address in (host, port).to_socket_addrs()? {
        // A name that stands in /etc/hosts twice comes twice.
        if !addresses.contains(&Address::Tcp(address)) {
            addresses.push(Address::Tcp(address));
        }
    }
    if addresses.is_empty() {
        return Err(std::io::Error::other("the name has no address"));
    }
    Ok(addresses)
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
            ("unix:@echo", "unix:@echo"),
            ("[fe80::1%lo]:80", "[fe80::1%1]:80"),
            ("[fe80::1%1]:80", "[fe80::1%1]:80"),
        ] {
            let target = Target::resolve(text).unwrap();
            assert_eq!(target.addresses()[0].to_string(), shown);
            assert_eq!(target.name(), text);
        }
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
            ("[localhost]:80", "no IPv6 address"),
            ("[fe80::1%no-such-if]:80", "no interface"),
        ] {
            let error = Target::resolve(text).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(text), "{error}");
        }
    }
}
