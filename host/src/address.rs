//! Where is a server? A TCP address or the path of a unix socket, in one notation: `127.0.0.1:7777`,
//! `[::1]:0`, `[fe80::1%eth0]:7777`, `unix:/run/echo.sock`, `unix:@echo`.

use std::{
    ffi::OsStr,
    fmt,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Bytes that the path of a unix socket may have: `sun_path` holds 108 with its closing NUL (unix(7)).
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// IPv4 or IPv6; port 0 lets the kernel pick one when listening.
    Tcp(SocketAddr),
    /// A unix stream socket in the file system, or, where its name begins with `@`, in the abstract namespace, which has no
    /// files (unix(7)). A file of such a name is written `./@name`.
    Unix(PathBuf),
}

impl Address {
    /// The TCP port; none for a unix socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Tcp(address) => Some(address.port()),
            Address::Unix(_) => None,
        }
    }

    /// Makes the address of a unix socket.
    ///
    /// # Errors
    /// The path is empty, too long or holds a NUL.
    pub fn unix(path: impl AsRef<Path>) -> Result<Address, AddressError> {
        let path = path.as_ref();
        let bytes = path.as_os_str().as_bytes();
        if bytes.is_empty() {
            return Err(AddressError::UnixPathEmpty);
        }
        if bytes.contains(&0) {
            return Err(AddressError::UnixPathNul);
        }
        if UNIX_PATH_BYTES_MAX < bytes.len() {
            return Err(AddressError::UnixPathTooLong {
                path: path.to_owned(),
                bytes: bytes.len(),
            });
        }
        Ok(Address::Unix(path.to_owned()))
    }
}

/// Why a text is no address; says what is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing was given.
    #[error("the address is empty: write HOST:PORT such as 127.0.0.1:7777, or unix:/path")]
    Empty,
    /// There is no `:PORT`.
    #[error("`{0}` has no port: write {0}:7777, or {0}:0 to let the kernel pick one")]
    PortMissing(String),
    /// What follows the last colon is no port.
    #[error("`{port}` in `{address}` is not a port: ports are numbers from 0 to 65535")]
    PortBad {
        /// The whole text.
        address: String,
        /// The part after the last colon.
        port: String,
    },
    /// An IPv6 address without its brackets.
    #[error("`{0}`: an IPv6 address stands in brackets before its port, such as [::1]:7777")]
    BracketsMissing(String),
    /// The host part is no IP address.
    #[error(
        "`{host}` in `{address}` is not an IP address: write 127.0.0.1:7777, [::1]:7777 or unix:/path (names are not looked up here)"
    )]
    HostBad {
        /// The whole text.
        address: String,
        /// The part before the port.
        host: String,
    },
    /// The zone of an IPv6 address is no interface here.
    #[error(
        "`{scope}` in `{address}` is no interface of this machine or this network namespace (`ip link` lists them)"
    )]
    ScopeUnknown {
        /// The whole text.
        address: String,
        /// What stands after the `%`.
        scope: String,
    },
    /// `unix:` and nothing after it.
    #[error("`unix:` lacks its path: write unix:/run/echo.sock")]
    UnixPathEmpty,
    /// A path that no unix socket can have.
    #[error("the path of a unix socket cannot hold a NUL byte")]
    UnixPathNul,
    /// Longer than `sun_path`.
    #[error("`{}` has {bytes} bytes: the path of a unix socket may have {UNIX_PATH_BYTES_MAX}; choose a shorter one", .path.display())]
    UnixPathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Address::unix(OsStr::new(path));
        }
        if let Ok(address) = text.parse() {
            return Ok(Address::Tcp(address));
        }
        if let Some(address) = scoped_by_name(text) {
            return address.map(|address| Address::Tcp(address.into()));
        }
        Err(what_is_wrong(text))
    }
}

/// Reads `[fe80::1%eth0]:7777`. (The standard library takes an interface by its number only.) `None` for another form.
fn scoped_by_name(text: &str) -> Option<Result<SocketAddrV6, AddressError>> {
    let (host, port) = text.strip_prefix('[')?.split_once("]:")?;
    let (ip, scope) = host.split_once('%')?;
    let (ip, port) = (ip.parse().ok()?, port_number(port)?);
    // 0 would be "no interface", which is said by leaving it away.
    let index = nix::net::if_::if_nametoindex(scope)
        .ok()
        .filter(|&index| index != 0);
    let unknown = || AddressError::ScopeUnknown {
        address: text.to_owned(),
        scope: scope.to_owned(),
    };
    let address = |index| SocketAddrV6::new(ip, port, 0, index);
    Some(index.map(address).ok_or_else(unknown))
}

fn port_number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// Finds the part that kept `text` from being a socket address.
fn what_is_wrong(text: &str) -> AddressError {
    let address = text.to_owned();
    if text.is_empty() {
        return AddressError::Empty;
    }
    if text.parse::<Ipv6Addr>().is_ok() || text.matches(':').count() > 1 && !text.starts_with('[') {
        return AddressError::BracketsMissing(address);
    }
    // The port follows the last colon, unless that colon lies within brackets.
    let colon = text
        .rfind(':')
        .filter(|&colon| text.rfind(']').is_none_or(|bracket| bracket < colon));
    let Some(colon) = colon else {
        return AddressError::PortMissing(address);
    };
    let (host, port) = (text[..colon].to_owned(), text[colon + 1..].to_owned());
    match port_number(&port) {
        Some(_) => AddressError::HostBad { address, host },
        None => AddressError::PortBad { address, port },
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddrV6};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_three_kinds() {
        let read = |text: &str| text.parse::<Address>().unwrap();
        assert_eq!(
            read("127.0.0.1:7777"),
            Address::Tcp(([127, 0, 0, 1], 7777).into())
        );
        assert_eq!(
            read("[::1]:0"),
            Address::Tcp((Ipv6Addr::LOCALHOST, 0).into())
        );
        assert_eq!(
            read("unix:/run/echo.sock"),
            Address::Unix("/run/echo.sock".into())
        );
        assert_eq!(read("unix:a b:1"), Address::Unix("a b:1".into()));
        assert_eq!(
            (read("[::1]:9").port(), read("unix:x").port()),
            (Some(9), None)
        );
    }

    #[test]
    fn says_what_is_wrong() {
        let error = |text: &str| text.parse::<Address>().unwrap_err();
        assert_eq!(error(""), AddressError::Empty);
        assert_eq!(
            error("127.0.0.1"),
            AddressError::PortMissing("127.0.0.1".into())
        );
        assert_eq!(error("[::1]"), AddressError::PortMissing("[::1]".into()));
        assert_eq!(error("::1"), AddressError::BracketsMissing("::1".into()));
        assert_eq!(
            error("fe80::1:zz:7777"),
            AddressError::BracketsMissing("fe80::1:zz:7777".into())
        );
        for port in ["", "70000", "x", "-1", "+1"] {
            let address = format!("127.0.0.1:{port}");
            assert_eq!(
                error(&address),
                AddressError::PortBad {
                    address,
                    port: port.into()
                }
            );
        }
        let host_bad = |address: &str, host: &str| AddressError::HostBad {
            address: address.into(),
            host: host.into(),
        };
        assert_eq!(error("localhost:80"), host_bad("localhost:80", "localhost"));
        assert_eq!(error("1.2.3.256:80"), host_bad("1.2.3.256:80", "1.2.3.256"));
        assert_eq!(error("[::g]:80"), host_bad("[::g]:80", "[::g]"));
        assert_eq!(error("unix:"), AddressError::UnixPathEmpty);
        assert_eq!(error("unix:/a\0b"), AddressError::UnixPathNul);
        let long = "x".repeat(UNIX_PATH_BYTES_MAX);
        assert!(format!("unix:{long}").parse::<Address>().is_ok());
        assert!(matches!(
            error(&format!("unix:{long}x")),
            AddressError::UnixPathTooLong { bytes: 108, .. }
        ));
    }

    #[test]
    fn an_interface_is_taken_by_its_name() {
        let read = |text: &str| text.parse::<Address>();
        // Every network namespace has its loopback, and that is number 1.
        let address =
            Address::Tcp(SocketAddrV6::new("fe80::1".parse().unwrap(), 7777, 0, 1).into());
        assert_eq!(read("[fe80::1%lo]:7777"), Ok(address.clone()));
        assert_eq!(read("[fe80::1%1]:7777"), Ok(address));
        let unknown = read("[fe80::1%no-such-if]:7777").unwrap_err();
        assert!(unknown.to_string().contains("no interface"), "{unknown}");
        for bad in ["[fe80::1%lo]:70000", "[fe80::1%lo]", "[fe80::g%lo]:1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn tcp_addresses_survive_their_text(ip: IpAddr, port: u16) {
            let address = Address::Tcp(SocketAddr::new(ip, port));
            prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }

        #[test]
        fn scoped_addresses_survive_their_text(ip: Ipv6Addr, port: u16, scope: u32) {
            let address = Address::Tcp(SocketAddrV6::new(ip, port, 0, scope).into());
            prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }

        #[test]
        fn unix_paths_survive_their_text(path in "[^\\x00]{1,26}") {
            let address = Address::unix(&path).unwrap();
            prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}|[0-9a-f:.\\[\\]%]{0,24}") {
            match text.parse::<Address>() {
                Ok(address) => prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
