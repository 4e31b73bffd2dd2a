//! Why can't an address be listened on? The kernel's word, who holds the address, and a cure.

use std::io;

use crate::{
    address::Address,
    limits,
    sockets::{Holder, is_abstract, listen::sysctl},
};

/// Why it could not be listened; the text names the address, the kernel's word and a cure.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}{}", hint(.cause, .address, .holder.as_ref()))]
pub struct ListenError {
    /// Where.
    pub address: Address,
    /// Who has the address, where that is the cause.
    pub holder: Option<Holder>,
    /// What the kernel said.
    pub cause: io::Error,
}

impl ListenError {
    /// Whether somebody else has the address.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.cause.kind() == io::ErrorKind::AddrInUse
    }

    /// Whether the address may become free by itself within moments; see [`Holder::may_pass`].
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.holder.as_ref().is_some_and(Holder::may_pass)
    }
}

/// On a line of its own, so that the first line stays what other programs print.
pub(super) fn hint(error: &io::Error, address: &Address, holder: Option<&Holder>) -> String {
    match (error.kind(), address, holder) {
        (_, Address::Tcp(tcp), Some(holder)) => format!(
            "\nhint: {holder}; stop what is there (`ss -tanp 'sport = :{}'`), or choose another port (port 0 picks a free \
             one)",
            tcp.port()
        ),
        (_, Address::Unix(_), Some(holder)) => {
            format!("\nhint: {holder}; stop what is there, or choose another path")
        }
        (io::ErrorKind::AddrNotAvailable, ..) => {
            "\nhint: no interface of this machine has that address (`ip address` lists them)".into()
        }
        (io::ErrorKind::PermissionDenied, Address::Tcp(tcp), _) => {
            match unprivileged_port_start() {
                Some(start) if (1..start).contains(&tcp.port()) => format!(
                    "\nhint: port {} is reserved for privileged processes (sysctl net.ipv4.ip_unprivileged_port_start is \
                 {start}); choose a higher one",
                    tcp.port()
                ),
                _ => "\nhint: a seccomp filter or a security module forbids it".into(),
            }
        }
        (io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound, Address::Unix(path), _)
            if !is_abstract(path) =>
        {
            "\nhint: the folder of that path must exist and be writable".into()
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
            "\nhint: this kernel or container has that address family switched off".into()
        }
        _ => limits::hint(error),
    }
}

/// The first port that needs no privilege.
pub(super) fn unprivileged_port_start() -> Option<u16> {
    sysctl("/proc/sys/net/ipv4/ip_unprivileged_port_start")
}
