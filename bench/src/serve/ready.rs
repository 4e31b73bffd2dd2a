//! Is there an echo server? One byte, there and back, at any of the target's addresses.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use echometer_host::{
    address::Address,
    sockets::{ConnectOptions, close_trial, connect_stream},
    target::Target,
};
use rustix::io::Errno;

/// Neither a newline nor a letter of any protocol's greeting, so that only an echo looks like one.
pub(super) const PROBE: u8 = 0xA5;

/// The least time that each address gets.
const ADDRESS_LIMIT_MIN: Duration = Duration::from_millis(20);

/// Why there is no echo.
#[derive(Debug)]
pub(super) enum Silent {
    /// Somebody answers, but with something else.
    NoEcho { address: SocketAddr, got: u8 },
    /// Not yet, or not any more: it may be another time.
    NotNow(String),
    /// No waiting can help.
    Never(String),
}

/// Sends one byte to each of the target's addresses in turn until one comes back, for `limit` at most; gives the address
/// that echoed.
pub(super) fn probe(target: &Target, limit: Duration) -> Result<SocketAddr, Silent> {
    let deadline = Instant::now() + limit;
    let mut of_all: Option<Silent> = None;
    for (index, address) in target.addresses().iter().enumerate() {
        let Address::Tcp(address) = *address else {
            continue;
        };
        // An address that says nothing leaves the others their share.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(target.addresses().len() - index).unwrap_or(u32::MAX);
        let silent = match probe_one(address, share.max(ADDRESS_LIMIT_MIN)) {
            Ok(()) => return Ok(address),
            Err(silent) => silent,
        };
        // What tells most is kept: a wrong answer, then what may yet change.
        of_all = Some(match (of_all, silent) {
            (Some(kept @ Silent::NoEcho { .. }), _) => kept,
            (Some(kept @ Silent::NotNow(_)), Silent::Never(_)) => kept,
            (_, new) => new,
        });
    }
    Err(of_all.unwrap_or_else(|| Silent::Never("it has no TCP address".to_owned())))
}

fn probe_one(address: SocketAddr, limit: Duration) -> Result<(), Silent> {
    let deadline = Instant::now() + limit;
    let options = ConnectOptions {
        time_limit: limit,
        ..ConnectOptions::default()
    };
    let connected = connect_stream(&address.into(), &options);
    let mut stream = TcpStream::from(connected.map_err(|error| not_connected(address, &error))?);
    let left = deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1));
    let mut answer = [0];
    let read = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(left)))
        .and_then(|()| stream.set_write_timeout(Some(left)))
        .and_then(|()| stream.write_all(&[PROBE]))
        .and_then(|()| stream.read(&mut answer));
    let what = match read {
        Ok(0) => "it closed the connection".to_owned(),
        Ok(_) if answer == [PROBE] => {
            close_trial(stream);
            return Ok(());
        }
        Ok(_) => {
            return Err(Silent::NoEcho {
                address,
                got: answer[0],
            });
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) =>
        {
            "it took a connection, but sent nothing back".to_owned()
        }
        Err(error) => format!("after connecting: {error}"),
    };
    Err(Silent::NotNow(format!("at {address} {what}")))
}

fn not_connected(address: SocketAddr, error: &io::Error) -> Silent {
    let what = format!("at {address} connecting: {error}");
    let cure = match Errno::from_io_error(error) {
        Some(Errno::NETUNREACH) if address.ip().is_loopback() => {
            " (the loopback interface is down in this network namespace: `ip link set lo up`)"
        }
        Some(Errno::NETUNREACH) => " (there is no route to it: check the address and the network)",
        Some(Errno::INVAL) if is_link_local(address) => {
            " (a link-local address needs its interface: [fe80::1%eth0]:7777)"
        }
        Some(Errno::ACCESS | Errno::PERM) => {
            " (a firewall or a sandbox of this machine forbids it)"
        }
        Some(Errno::AFNOSUPPORT) => " (this address family is switched off here)",
        _ => return Silent::NotNow(what),
    };
    Silent::Never(format!("{what}{cure}"))
}

fn is_link_local(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, Ipv6Addr, SocketAddrV6, TcpListener},
        thread,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// Answers each first byte with `answer` of it, on a thread that lives as long as the test run.
    fn answering(answer: fn(u8) -> u8) -> Address {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_ok() {
                    let _ = stream.write_all(&[answer(byte[0])]);
                }
            }
        });
        address.into()
    }

    fn nobody() -> Address {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.local_addr().expect("an address").into()
    }

    #[test]
    fn the_first_address_that_echoes_is_taken() {
        let echo = answering(|byte| byte);
        let other = answering(|_| b'H');
        let target = Target::new("name:1", vec![nobody(), other.clone(), echo.clone()]);
        let found = probe(&target, LONG).expect("the third echoes");
        assert_eq!(Address::from(found), echo);

        let target = Target::new("name:1", vec![nobody(), other, nobody()]);
        let silent = probe(&target, LONG).expect_err("none echoes");
        assert!(
            matches!(silent, Silent::NoEcho { got: b'H', .. }),
            "{silent:?}"
        );
        let silent = probe(&Target::new("name:1", vec![nobody()]), LONG);
        let Err(Silent::NotNow(what)) = silent else {
            panic!("{silent:?}")
        };
        assert!(what.contains("Connection refused"), "{what}");
    }

    #[test]
    fn what_can_t_heal_is_told_apart() {
        // A link-local address without its interface is refused at once.
        let link_local = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 1, 0, 0);
        let target = Target::from(SocketAddr::from(link_local));
        let silent = probe(&target, LONG).expect_err("nobody can connect there");
        assert!(matches!(silent, Silent::Never(_)), "{silent:?}");
        // Where another address may yet answer there is hope.
        let both = vec![target.addresses()[0].clone(), nobody()];
        for addresses in [both.clone(), both.into_iter().rev().collect()] {
            let silent = probe(&Target::new("name:1", addresses), LONG);
            assert!(matches!(silent, Err(Silent::NotNow(_))), "{silent:?}");
        }
    }
}
