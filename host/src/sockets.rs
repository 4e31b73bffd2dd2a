//! How do we listen and connect? A room for each side, and one to see who waits between them. Sockets are
//! non-blocking, close-on-exec streams with their options set before the first byte.

mod connect;
mod holder;
mod listen;
mod ports;
mod queue;
mod syn;

pub use connect::{
    ConnectOptions, ConnectedToItself, Connecting, close_trial, connect_start, connect_stream,
    end_by_reset, is_connected_to_itself, may_connect_to_itself, prepare_stream,
};
pub use holder::{Holder, Process};
pub use listen::{ListenError, ListenOptions, Listener, Opening, SetOptions, listen, listen_by};
pub use ports::{local_ports, local_ports_of};
pub use queue::{ListenQueue, listen_queues};
pub use syn::{SynSchedule, syn_schedule};

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use rustix::net::{SocketAddrAny, SocketAddrUnix};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::address::Address;

/// A stream socket fit for `address`: close-on-exec, and non-blocking if asked.
fn stream_socket(address: &Address, nonblocking: bool) -> io::Result<Socket> {
    let (domain, protocol) = match address {
        Address::Tcp(address) => (Domain::for_address(*address), Some(Protocol::TCP)),
        Address::Unix(_) => (Domain::UNIX, None),
    };
    let kind = Type::STREAM.cloexec();
    Socket::new_raw(
        domain,
        if nonblocking {
            kind.nonblocking()
        } else {
            kind
        },
        protocol,
    )
}

fn raw_address(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::Tcp(address) => Ok((*address).into()),
        Address::Unix(path) if is_abstract(path) => {
            let mut name = path.as_os_str().as_bytes().to_vec();
            name[0] = 0;
            SockAddr::unix(OsString::from_vec(name))
        }
        Address::Unix(path) => SockAddr::unix(path),
    }
}

/// An address as the calls of rustix and io_uring's operations take it.
///
/// # Errors
/// A unix path that no socket address can hold.
pub fn for_calls(address: &Address) -> io::Result<SocketAddrAny> {
    Ok(match address {
        Address::Tcp(address) => SocketAddrAny::from(*address),
        Address::Unix(path) if is_abstract(path) => {
            let name = &path.as_os_str().as_bytes()[1..];
            SocketAddrUnix::new_abstract_name(name)?.into()
        }
        Address::Unix(path) => SocketAddrUnix::new(path.as_path())?.into(),
    })
}

/// Whether it is a name of the abstract namespace, which is no file (unix(7)): written with `@`, as other programs have it.
fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_bytes().starts_with(b"@")
}

/// Asks for buffer sizes in bytes. The kernel doubles what is asked and caps it at `net.core.wmem_max`
/// and `rmem_max` (socket(7)), so what holds must be read back.
fn set_buffers(socket: &Socket, sndbuf: Option<usize>, rcvbuf: Option<usize>) -> io::Result<()> {
    if let Some(bytes) = sndbuf {
        socket.set_send_buffer_size(bytes.min(i32::MAX as usize))?;
    }
    if let Some(bytes) = rcvbuf {
        socket.set_recv_buffer_size(bytes.min(i32::MAX as usize))?;
    }
    Ok(())
}

/// The address that a socket of `kind` is bound to.
fn bound_address(socket: &Socket, kind: &Address) -> io::Result<Address> {
    match kind {
        Address::Unix(path) => Ok(Address::Unix(Path::new(path).to_owned())),
        Address::Tcp(_) => {
            let address = socket.local_addr()?.as_socket();
            Ok(Address::Tcp(
                address.expect("a socket bound to an IP address has one"),
            ))
        }
    }
}
