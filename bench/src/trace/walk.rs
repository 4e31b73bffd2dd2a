//! The ordinary life of a connection, from the server's socket to the end of its listener; and the client's half of it,
//! for a server that is not ours.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    net::{getsockname, sockopt},
};

use echometer_host::{address::Address, sockets::listen_queues, target::Target};

use crate::trace::{
    hands::Hands,
    steps::{Broken, Kind, Recorder, Side, file},
};

/// What the client says.
const MESSAGE: &[u8] = b"hello, echo";

/// A server and a client of our own, on loopback.
pub(super) struct Pair {
    pub(super) recorder: Recorder,
    pub(super) server: Hands,
    pub(super) client: Hands,
}

/// One end of a connection.
pub(super) type Socket = OwnedFd;

impl Pair {
    /// A pair whose steps are io_uring operations.
    pub(super) fn ring() -> io::Result<Pair> {
        Ok(Pair {
            recorder: Recorder::new(),
            server: Hands::ring()?,
            client: Hands::ring()?,
        })
    }

    /// A pair whose steps are system calls; the server waits with epoll.
    pub(super) fn calls() -> io::Result<Pair> {
        Ok(Pair {
            recorder: Recorder::new(),
            server: Hands::calls_of_a_server()?,
            client: Hands::calls_of_a_client(),
        })
    }

    /// Both sides of one connection, step by step.
    pub(super) fn walk(&mut self, backlog: u32) -> Result<(), Broken> {
        let (listener, address) = self.open(backlog)?;
        let client = self.client_socket(address)?;
        self.connect(&client, address)?;
        self.see_handshake(address)?;
        let server = self.accept(&listener)?;
        self.echo(&client, &server)?;
        self.end(client, server)?;
        self.unlisten(listener)
    }

    /// The server's socket, bind and listen on a free port of loopback.
    pub(super) fn open(&mut self, backlog: u32) -> Result<(Socket, SocketAddr), Broken> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = self.server_socket(any)?;
        let bound = self.bind(&listener, any).map_err(|_| Broken)?;
        self.listen(&listener, bound, backlog)?;
        Ok((listener, bound))
    }

    pub(super) fn server_socket(&mut self, address: SocketAddr) -> Result<Socket, Broken> {
        let hands = &mut self.server;
        let name = hands.name("socket", "SOCKET");
        let act = || {
            let socket = hands.socket(address)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            sockopt::set_tcp_nodelay(&socket, true)?;
            Ok(socket)
        };
        let saw = |_: &Socket| "SO_REUSEADDR and TCP_NODELAY set".to_owned();
        let socket = self
            .recorder
            .step((Side::Server, Kind::Socket), (&name, None), act, saw)?;
        self.recorder.made(&socket);
        Ok(socket)
    }

    /// Binds, and gives the address with its port.
    pub(super) fn bind(&mut self, socket: &Socket, address: SocketAddr) -> io::Result<SocketAddr> {
        let hands = &mut self.server;
        let name = hands.name("bind", "BIND");
        let act = || hands.bind(socket, address);
        let saw = |(): &()| {
            let bound = local_address(socket).unwrap_or(address);
            bound.to_string()
        };
        self.recorder
            .attempt((Side::Server, Kind::Bind), (&name, file(socket)), act, saw)?;
        Ok(local_address(socket).unwrap_or(address))
    }

    pub(super) fn listen(
        &mut self,
        socket: &Socket,
        address: SocketAddr,
        backlog: u32,
    ) -> Result<(), Broken> {
        let hands = &mut self.server;
        let name = hands.name("listen", "LISTEN");
        let act = || hands.listen(socket, backlog);
        let saw = |(): &()| {
            let effective = match queue(address) {
                Some((_, limit)) => format!("{limit} effective"),
                None => "the effective one is unknown".to_owned(),
            };
            format!("backlog {backlog} asked, {effective}")
        };
        self.recorder.step(
            (Side::Server, Kind::Listen),
            (&name, file(socket)),
            act,
            saw,
        )
    }

    pub(super) fn client_socket(&mut self, address: SocketAddr) -> Result<Socket, Broken> {
        client_socket(&mut self.recorder, &mut self.client, address)
    }

    pub(super) fn connect(&mut self, socket: &Socket, address: SocketAddr) -> Result<(), Broken> {
        connect(&mut self.recorder, &mut self.client, socket, address).map_err(|_| Broken)
    }

    /// What the kernel did meanwhile: the connection stands in the accept queue.
    pub(super) fn see_handshake(&mut self, address: SocketAddr) -> Result<(), Broken> {
        let act = || Ok(queue(address));
        let saw = |queue: &Option<(u32, u32)>| match queue {
            Some((waiting, limit)) => {
                format!("SYN queue to accept queue: {waiting} waiting there, limit {limit}")
            }
            None => "SYN queue to accept queue; the kernel doesn't show its queues here".to_owned(),
        };
        self.recorder
            .step(
                (Side::Kernel, Kind::Handshake),
                ("sock_diag", None),
                act,
                saw,
            )
            .map(drop)
    }

    pub(super) fn accept(&mut self, listener: &Socket) -> Result<Socket, Broken> {
        let hands = &mut self.server;
        let name = hands.name("epoll_wait, accept4", "ACCEPT");
        let act = || hands.accept(listener);
        let socket =
            self.recorder
                .step((Side::Server, Kind::Accept), (&name, None), act, peer_text)?;
        self.recorder.made(&socket);
        Ok(socket)
    }

    /// One message there and back.
    pub(super) fn echo(&mut self, client: &Socket, server: &Socket) -> Result<(), Broken> {
        let (client_side, server_side) = (Side::Client, Side::Server);
        send(
            &mut self.recorder,
            &mut self.client,
            (client_side, Kind::Send),
            client,
        )?;
        self.receive((server_side, Kind::Receive), server)
            .map_err(|_| Broken)?;
        send(
            &mut self.recorder,
            &mut self.server,
            (server_side, Kind::Echo),
            server,
        )?;
        self.receive((client_side, Kind::Return), client)
            .map(drop)
            .map_err(|_| Broken)
    }

    /// Receives on either side; the kernel's refusal comes back.
    pub(super) fn receive(
        &mut self,
        (side, kind): (Side, Kind),
        socket: &Socket,
    ) -> io::Result<Vec<u8>> {
        let hands = match side {
            Side::Client => &mut self.client,
            _ => &mut self.server,
        };
        receive(&mut self.recorder, hands, (side, kind), socket)
    }

    /// The orderly end: the client first, as a client does that has asked all it wanted.
    pub(super) fn end(&mut self, client: Socket, server: Socket) -> Result<(), Broken> {
        shutdown(&mut self.recorder, &mut self.client, &client)?;
        self.receive((Side::Server, Kind::End), &server)
            .map_err(|_| Broken)?;
        self.close(Side::Server, Kind::Close, server)?;
        self.receive((Side::Client, Kind::End), &client)
            .map_err(|_| Broken)?;
        self.close(Side::Client, Kind::Close, client)
    }

    pub(super) fn shutdown(&mut self, client: &Socket) -> Result<(), Broken> {
        shutdown(&mut self.recorder, &mut self.client, client)
    }

    pub(super) fn close(&mut self, side: Side, kind: Kind, socket: Socket) -> Result<(), Broken> {
        let hands = match side {
            Side::Client => &mut self.client,
            _ => &mut self.server,
        };
        close(&mut self.recorder, hands, (side, kind), socket)
    }

    pub(super) fn unlisten(&mut self, listener: Socket) -> Result<(), Broken> {
        self.close(Side::Server, Kind::Unlisten, listener)
    }
}

/// The client's half, with a server that is not ours: at the first of its addresses that takes a connection. Gives the
/// address that was tried last.
pub(super) fn walk_client(
    recorder: &mut Recorder,
    target: &Target,
) -> (Address, Result<(), Broken>) {
    let hands = &mut Hands::calls_of_a_client();
    let (last, others) = target
        .addresses()
        .split_last()
        .expect("one address at least");
    for address in others {
        match reach(recorder, hands, address) {
            Ok(client) => return (address.clone(), talk(recorder, hands, client)),
            Err(Broken) => recorder.remark("the name has another address, which is tried now"),
        }
    }
    let reached = reach(recorder, hands, last);
    let walked = reached.and_then(|client| talk(recorder, hands, client));
    (last.clone(), walked)
}

fn reach(recorder: &mut Recorder, hands: &mut Hands, address: &Address) -> Result<Socket, Broken> {
    let Address::Tcp(address) = *address else {
        return Err(Broken);
    };
    let client = client_socket(recorder, hands, address)?;
    connect(recorder, hands, &client, address).map_err(|_| Broken)?;
    Ok(client)
}

fn talk(recorder: &mut Recorder, hands: &mut Hands, client: Socket) -> Result<(), Broken> {
    send(recorder, hands, (Side::Client, Kind::Send), &client)?;
    let answer = receive(recorder, hands, (Side::Client, Kind::Return), &client);
    let answer = answer.map_err(|_| Broken)?;
    if answer.is_empty() {
        recorder.remark("it closed instead of echoing");
        return Err(Broken);
    }
    if !MESSAGE.starts_with(&answer) {
        recorder.remark("but that is not what was sent: this is no echo server");
        return Err(Broken);
    }
    shutdown(recorder, hands, &client)?;
    // A short first piece may be followed by the rest; then comes the end.
    loop {
        let more = receive(recorder, hands, (Side::Client, Kind::End), &client);
        if more.map_err(|_| Broken)?.is_empty() {
            break;
        }
    }
    close(recorder, hands, (Side::Client, Kind::Close), client)
}

fn client_socket(
    recorder: &mut Recorder,
    hands: &mut Hands,
    address: SocketAddr,
) -> Result<Socket, Broken> {
    let name = hands.name("socket", "SOCKET");
    let act = || {
        let socket = hands.socket(address)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        Ok(socket)
    };
    let saw = |_: &Socket| "TCP_NODELAY set".to_owned();
    let socket = recorder.step((Side::Client, Kind::Socket), (&name, None), act, saw)?;
    recorder.made(&socket);
    Ok(socket)
}

/// The kernel's refusal comes back.
pub(super) fn connect(
    recorder: &mut Recorder,
    hands: &mut Hands,
    socket: &Socket,
    address: SocketAddr,
) -> io::Result<()> {
    let name = hands.name("connect, poll", "CONNECT");
    let act = || hands.connect(socket, address);
    let saw = |(): &()| match local_address(socket) {
        Some(local) => format!("{local} to {address}"),
        None => format!("to {address}"),
    };
    let by = (name.as_str(), file(socket));
    let connected = recorder.attempt((Side::Client, Kind::Connect), by, act, saw);
    if let Err(error) = &connected
        && Errno::from_io_error(error) == Some(Errno::NETUNREACH)
        && address.ip().is_loopback()
    {
        recorder.remark("the loopback interface is down here (`ip link set lo up`)");
    }
    connected
}

fn send(
    recorder: &mut Recorder,
    hands: &mut Hands,
    step: (Side, Kind),
    socket: &Socket,
) -> Result<(), Broken> {
    let name = hands.name("send", "SEND");
    let act = || hands.send(socket, MESSAGE);
    let saw = |n: &usize| format!("{n} bytes");
    recorder
        .step(step, (&name, file(socket)), act, saw)
        .map(drop)
}

fn receive(
    recorder: &mut Recorder,
    hands: &mut Hands,
    step: (Side, Kind),
    socket: &Socket,
) -> io::Result<Vec<u8>> {
    let call = match step.0 {
        Side::Server => "epoll_wait, recv",
        _ => "poll, recv",
    };
    let name = hands.name(call, "RECV");
    let act = || hands.recv(socket);
    let saw = |bytes: &Vec<u8>| match bytes.len() {
        0 => "0 bytes: the peer sends no more".to_owned(),
        n => format!("{n} bytes"),
    };
    recorder.attempt(step, (&name, file(socket)), act, saw)
}

fn shutdown(recorder: &mut Recorder, hands: &mut Hands, socket: &Socket) -> Result<(), Broken> {
    let name = hands.name("shutdown", "SHUTDOWN");
    // IORING_OP_SHUTDOWN never runs inline: the kernel forces it to io-wq.
    let hands_are_a_ring = matches!(hands, Hands::Ring { .. });
    let act = || hands.shutdown(socket);
    let saw = |(): &()| match hands_are_a_ring {
        true => "SHUT_WR: a FIN goes out; io_uring has it done by a worker thread".to_owned(),
        false => "SHUT_WR: a FIN goes out".to_owned(),
    };
    let by = (name.as_str(), file(socket));
    recorder.step((Side::Client, Kind::Shutdown), by, act, saw)
}

fn close(
    recorder: &mut Recorder,
    hands: &mut Hands,
    step: (Side, Kind),
    socket: Socket,
) -> Result<(), Broken> {
    let name = hands.name("close", "CLOSE");
    let by = (name.as_str(), file(&socket));
    let act = || hands.close(socket);
    let text = match step.1 {
        Kind::Unlisten => "the port is free",
        Kind::Reset => "a RST goes out",
        _ => "closed",
    };
    recorder.step(step, by, act, |(): &()| text.to_owned())
}

/// How many connections wait at a listener of ours, and its limit.
pub(super) fn queue(address: SocketAddr) -> Option<(u32, u32)> {
    let queues = listen_queues(address.port()).ok()?;
    queues.first().map(|queue| (queue.waiting, queue.limit))
}

fn local_address(socket: &Socket) -> Option<SocketAddr> {
    SocketAddr::try_from(getsockname(socket).ok()?).ok()
}

fn peer_text(socket: &Socket) -> String {
    let peer = rustix::net::getpeername(socket)
        .ok()
        .flatten()
        .and_then(|peer| SocketAddr::try_from(peer).ok());
    peer.map_or_else(|| "a connection".to_owned(), |peer| format!("from {peer}"))
}
