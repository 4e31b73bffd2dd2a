//! Listening on this machine's loopback: groups, queues, options, refusals.

use std::{
    collections::HashSet,
    net::{Ipv6Addr, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    error::{hint, unprivileged_port_start},
    *,
};

fn loopback() -> Address {
    "127.0.0.1:0".parse().expect("an address")
}

fn connect(address: &Address) -> TcpStream {
    let Address::Tcp(address) = address else {
        panic!("{address} is not TCP")
    };
    TcpStream::connect(address).expect("the listener is there")
}

/// Waits for one connection and accepts it.
fn accept(listener: &Listener) -> Socket {
    let limit = Timespec {
        tv_sec: 30,
        tv_nsec: 0,
    };
    assert_eq!(
        poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&limit)).unwrap(),
        1,
        "nobody connected"
    );
    listener.socket.accept().unwrap().0
}

#[test]
fn port_0_picks_a_port_and_the_listener_does_not_block() {
    let listeners = listen(&loopback(), 1, &ListenOptions::default()).unwrap();
    assert_ne!(listeners[0].local_addr().port(), Some(0));
    assert_eq!(
        listeners[0].socket.accept().unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    assert!(
        !listeners[0].socket.reuse_port().unwrap(),
        "a lone listener shares its port with nobody"
    );
    let flags = rustix::io::fcntl_getfd(&listeners[0]).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn v6_works() {
    let address = Address::Tcp((Ipv6Addr::LOCALHOST, 0).into());
    let listeners = listen(&address, 2, &ListenOptions::default()).unwrap();
    assert!(listeners[0].local_addr().to_string().starts_with("[::1]:"));
    connect(listeners[1].local_addr());
}

#[test]
fn a_group_has_one_port_and_the_kernel_spreads_connections_over_it() {
    let listeners = listen(&loopback(), 4, &ListenOptions::default()).unwrap();
    let ports: HashSet<_> = listeners
        .iter()
        .map(|listener| listener.local_addr().port())
        .collect();
    assert_eq!(ports.len(), 1);

    const CONNECTIONS: usize = 200;
    let _clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| connect(listeners[0].local_addr()))
        .collect();
    let mut accepted = [0_usize; 4];
    let deadline = Instant::now() + Duration::from_secs(30);
    while accepted.iter().sum::<usize>() < CONNECTIONS {
        assert!(Instant::now() < deadline, "only {accepted:?} arrived");
        for (listener, count) in listeners.iter().zip(&mut accepted) {
            *count += usize::from(listener.socket.accept().is_ok());
        }
    }
    // By a hash over the ports: 50 each, give or take. 10 of 200 by chance is one in 10^13.
    assert!(accepted.iter().all(|&count| 10 <= count), "{accepted:?}");
}

#[test]
fn a_shared_queue_gives_to_whoever_asks() {
    let options = ListenOptions {
        shared: true,
        ..ListenOptions::default()
    };
    let listeners = listen(&loopback(), 2, &options).unwrap();
    assert!(listeners.iter().all(Listener::is_shared));
    let _clients = [0; 2].map(|_| connect(listeners[0].local_addr()));
    accept(&listeners[1]);
    accept(&listeners[1]);
    assert!(!listen(&loopback(), 1, &options).unwrap()[0].is_shared());
}

#[test]
fn v4_reaches_a_v6_listener_by_choice_only() {
    for dual_stack in [false, true] {
        let options = ListenOptions {
            dual_stack,
            ..ListenOptions::default()
        };
        let everywhere = Address::Tcp((Ipv6Addr::UNSPECIFIED, 0).into());
        let listeners = listen(&everywhere, 1, &options).unwrap();
        let port = listeners[0].local_addr().port().unwrap();
        TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        assert_eq!(TcpStream::connect(("127.0.0.1", port)).is_ok(), dual_stack);
    }
}

#[test]
fn a_taken_port_is_refused_even_where_the_owner_would_share_it() {
    for count in [1, 3] {
        for owner_shares in [false, true] {
            let owner = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            owner.set_reuse_port(owner_shares).unwrap();
            owner.set_reuse_address(true).unwrap();
            owner.bind(&raw_address(&loopback()).unwrap()).unwrap();
            owner.listen(1).unwrap();
            let taken = bound_address(&owner, &loopback()).unwrap();

            let error = listen(&taken, count, &ListenOptions::default()).unwrap_err();
            assert!(error.is_in_use());
            let text = error.to_string();
            let first_line =
                format!("cannot listen on {taken}: Address already in use (os error 98)");
            assert_eq!(text.lines().next(), Some(first_line.as_str()));
            assert!(text.contains("\nhint: "), "{text}");
        }
    }
}

#[test]
fn our_own_groups_refuse_each_other() {
    let group = listen(&loopback(), 2, &ListenOptions::default()).unwrap();
    for count in [1, 2] {
        let error = listen(group[0].local_addr(), count, &ListenOptions::default()).unwrap_err();
        assert!(error.is_in_use(), "{error}");
    }
}

#[test]
fn a_port_is_free_again_at_once_when_its_server_is_gone() {
    let listeners = listen(&loopback(), 2, &ListenOptions::default()).unwrap();
    let address = listeners[0].local_addr().clone();
    let client = connect(&address);
    // The server closes first, so its side of the connection lingers in TIME_WAIT.
    for listener in listeners {
        drop(listener.socket.accept());
        drop(listener);
    }
    drop(client);
    listen(&address, 2, &ListenOptions::default()).unwrap();
}

#[test]
fn accepted_connections_inherit_the_options() {
    for nodelay in [true, false] {
        let options = ListenOptions {
            nodelay,
            sndbuf: Some(65_536),
            rcvbuf: Some(32_768),
            ..ListenOptions::default()
        };
        let listener = listen(&loopback(), 1, &options).unwrap().remove(0);
        let _client = connect(listener.local_addr());
        let accepted = accept(&listener);
        assert_eq!(listener.nodelay().unwrap(), nodelay);
        assert_eq!(accepted.tcp_nodelay().unwrap(), nodelay);
        assert_eq!(
            accepted.send_buffer_size().unwrap(),
            listener.sndbuf().unwrap()
        );
        assert_eq!(
            accepted.recv_buffer_size().unwrap(),
            listener.rcvbuf().unwrap()
        );
        // socket(7): the kernel doubles what is asked.
        assert_eq!(listener.sndbuf().unwrap(), 2 * 65_536);
        assert_eq!(listener.rcvbuf().unwrap(), 2 * 32_768);
    }
}

#[test]
fn the_effective_backlog_is_what_somaxconn_leaves() {
    let somaxconn = somaxconn().expect("the sysctl is readable");
    for (asked, effective) in [
        (1, 1),
        (somaxconn, somaxconn),
        (somaxconn + 1, somaxconn),
        (u32::MAX, somaxconn),
    ] {
        let options = ListenOptions {
            backlog: asked,
            ..ListenOptions::default()
        };
        assert_eq!(
            listen(&loopback(), 1, &options).unwrap()[0].backlog_effective(),
            effective
        );
    }
}

#[test]
fn errors_say_the_cause_and_a_cure() {
    let text = |address: &str| {
        let address = address.parse::<Address>().unwrap();
        listen(&address, 1, &ListenOptions::default())
            .unwrap_err()
            .to_string()
    };
    // 192.0.2.0/24 is reserved for documentation (RFC 5737): no machine has it.
    let not_ours = text("192.0.2.1:0");
    assert!(
        not_ours.starts_with("cannot listen on 192.0.2.1:0: Cannot assign requested address"),
        "{not_ours}"
    );
    assert!(not_ours.contains("\nhint: no interface"), "{not_ours}");
    let no_folder = text("unix:/nonexistent/echo.sock");
    assert!(no_folder.contains("\nhint: the folder"), "{no_folder}");
}

#[test]
fn what_was_ended_is_free_although_somebody_still_has_the_socket() {
    for (count, shared) in [(1, false), (2, false), (2, true)] {
        let options = ListenOptions {
            shared,
            ..ListenOptions::default()
        };
        let mut listeners = listen(&loopback(), count, &options).unwrap();
        let address = listeners[0].local_addr().clone();
        // As a ring keeps them.
        let _kept: Vec<Socket> = listeners
            .iter()
            .map(|listener| listener.socket.try_clone().unwrap())
            .collect();
        let last = listeners.pop().expect("one at least");
        for other in listeners {
            other.end();
        }
        // The last still serves, also who waited before the others ended.
        let _client = connect(&address);
        if shared {
            accept(&last);
        }
        assert!(listen(&address, count, &options).is_err());
        last.end();
        listen(&address, count, &options).unwrap();
    }
}

#[test]
fn a_name_without_a_file_is_served_too() {
    let name = format!("@echometer-test-{}", std::process::id());
    let address: Address = format!("unix:{name}").parse().unwrap();
    let listener = listen(&address, 1, &ListenOptions::default())
        .unwrap()
        .remove(0);
    assert!(!Path::new(&name).exists());
    let options = crate::sockets::ConnectOptions::default();
    crate::sockets::connect_stream(&address, &options).unwrap();
    accept(&listener);
    let error = listen(&address, 1, &ListenOptions::default()).unwrap_err();
    assert!(matches!(error.holder, Some(Holder::Listener(_))), "{error}");
    drop(listener);
    listen(&address, 1, &ListenOptions::default()).unwrap();
}

#[test]
fn only_a_reserved_port_is_called_reserved() {
    let denied = io::Error::from(rustix::io::Errno::ACCESS);
    let hint = |address: &str| hint(&denied, &address.parse().unwrap(), None);
    let start = unprivileged_port_start().expect("the sysctl is readable");
    assert_eq!(hint("127.0.0.1:1").contains("is reserved"), 1 < start);
    for address in ["127.0.0.1:0", "127.0.0.1:65535"] {
        assert!(!hint(address).contains("reserved"), "{}", hint(address));
    }
}

#[test]
fn unix_listeners_share_one_queue_and_replace_a_dead_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let address = Address::unix(&path).unwrap();
    // A std listener leaves its path behind when dropped.
    drop(UnixListener::bind(&path).unwrap());

    let listeners = listen(&address, 2, &ListenOptions::default()).unwrap();
    assert_eq!(listeners[1].local_addr(), &address);
    let _clients = [
        UnixStream::connect(&path).unwrap(),
        UnixStream::connect(&path).unwrap(),
    ];
    accept(&listeners[0]);
    accept(&listeners[1]);

    let error = listen(&address, 1, &ListenOptions::default()).unwrap_err();
    assert!(error.is_in_use(), "{error}");
    assert!(
        UnixStream::connect(&path).is_ok(),
        "the living server lost its path"
    );
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = listen(
        &Address::unix(file.path()).unwrap(),
        1,
        &ListenOptions::default(),
    )
    .unwrap_err();
    assert!(error.is_in_use(), "{error}");
    assert!(file.path().exists());
}

#[test]
fn a_listener_can_be_given_up_as_a_descriptor() {
    let listener = listen(&loopback(), 1, &ListenOptions::default())
        .unwrap()
        .remove(0);
    let address = listener.local_addr().clone();
    let fd = listener.into_fd();
    connect(&address);
    assert!(SockRef::from(&fd).is_listener().unwrap());
}
