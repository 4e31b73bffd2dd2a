//! Who has an address that was refused as taken? Looked up in `/proc`, so that the answer names what is there to be seen
//! and nothing else: a listener can live without any process that could be named, because an io_uring holds files too.

use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::FileTypeExt,
    path::Path,
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::process::geteuid;

use super::{is_abstract, raw_address, stream_socket};
use crate::address::Address;

/// Who has an address. Its text is the hint of an error: whole clauses, without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A process listens there.
    Listener(Process),
    /// A process listens there, and was sent SIGKILL: it is about to be gone.
    Dying(Process),
    /// A process has a connection from that port.
    Connection(Process),
    /// A socket listens there, and no process that can be seen from here has it open.
    Unseen {
        /// Whose it is, where that is another user than we are.
        uid: Option<u32>,
    },
    /// Nothing that listens can be seen there: a socket that is only bound, or the remains of a connection.
    Nothing,
    /// The path leads to something that is no socket.
    NoSocket,
}

/// A process, as it can be named to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name (`comm`, 15 bytes at most).
    pub name: String,
}

impl Holder {
    /// Who has `address`, of those that can be seen from here. It reads the descriptors of all processes.
    #[must_use]
    pub fn of(address: &Address) -> Holder {
        match address {
            Address::Tcp(tcp) => of_tcp(*tcp),
            Address::Unix(path) => of_unix(address, path),
        }
    }

    /// Whether the address may become free by itself within moments, or has become so while we looked: the kernel lets go
    /// of what a ring had some time after the ring's process has ended.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Holder::Unseen { .. } | Holder::Dying(_) | Holder::Nothing
        )
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Listener(process) => write!(f, "{process} listens there"),
            Holder::Dying(process) => write!(f, "{process} listens there, and is being killed"),
            Holder::Connection(process) => write!(f, "{process} has a connection from that port"),
            Holder::Unseen { uid } => {
                f.write_str("no process that can be seen from here holds the listener: ")?;
                if let Some(uid) = uid {
                    write!(f, "its server runs as another user (uid {uid}), or ")?;
                } else {
                    f.write_str("its server ")?;
                }
                f.write_str("is in another container (pid namespace), or has it in an io_uring only")
            }
            Holder::Nothing => f.write_str(
                "nobody that can be seen from here listens there: a socket is bound to it without listening, or what is \
                 left of a client's connection",
            ),
            Holder::NoSocket => f.write_str("there is a file at that path, and it is no socket"),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

fn of_tcp(address: SocketAddr) -> Holder {
    let mut sockets = Vec::new();
    for file in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        if let Ok(text) = fs::read_to_string(file) {
            sockets.extend(text.lines().filter_map(TcpSocket::parse));
        }
    }
    sockets.retain(|socket| in_the_way(socket.local, address));
    // One of the other family is in the way only where it takes both, which is not to be seen here.
    if sockets
        .iter()
        .any(|socket| socket.local.is_ipv4() == address.is_ipv4())
    {
        sockets.retain(|socket| socket.local.is_ipv4() == address.is_ipv4());
    }
    let listeners: Vec<&TcpSocket> = sockets.iter().filter(|socket| socket.listens).collect();
    if let Some(first) = listeners.first() {
        let inodes: Vec<u64> = listeners.iter().map(|socket| socket.inode).collect();
        return match process_with(&inodes) {
            Some(process) => listening(process),
            None => Holder::Unseen {
                uid: (first.uid != geteuid().as_raw()).then_some(first.uid),
            },
        };
    }
    let inodes: Vec<u64> = sockets.iter().map(|socket| socket.inode).collect();
    process_with(&inodes).map_or(Holder::Nothing, Holder::Connection)
}

fn of_unix(address: &Address, path: &Path) -> Holder {
    if !is_abstract(path) {
        match fs::symlink_metadata(path) {
            Ok(file) if file.file_type().is_socket() => {}
            Ok(_) => return Holder::NoSocket,
            Err(_) => return Holder::Nothing,
        }
    }
    // The kernel notes who called listen(2), and tells whoever connects.
    let connect = || -> io::Result<i32> {
        let socket = stream_socket(address, true)?;
        socket.connect(&raw_address(address)?)?;
        Ok(getsockopt(&socket, PeerCredentials)?.pid())
    };
    let process = match connect() {
        // 0 is a process of a pid namespace that can't be seen from here.
        Ok(pid) => u32::try_from(pid).ok().and_then(Process::of),
        // Its queue is full.
        Err(_) => process_with(&unix_listeners(path)),
    };
    process.map_or(Holder::Unseen { uid: None }, listening)
}

fn listening(process: Process) -> Holder {
    if is_dying(process.pid) {
        Holder::Dying(process)
    } else {
        Holder::Listener(process)
    }
}

/// Whether a socket bound to `other` keeps `wanted` from being bound, as far as addresses go.
fn in_the_way(other: SocketAddr, wanted: SocketAddr) -> bool {
    let (other_ip, wanted_ip) = (other.ip().to_canonical(), wanted.ip().to_canonical());
    other.port() == wanted.port()
        && (other_ip == wanted_ip || other_ip.is_unspecified() || wanted_ip.is_unspecified())
}

/// A line of `/proc/net/tcp` or `tcp6` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct TcpSocket {
    local: SocketAddr,
    listens: bool,
    uid: u32,
    inode: u64,
}

impl TcpSocket {
    fn parse(line: &str) -> Option<TcpSocket> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, uid, _, inode, ..] = words[..] else {
            return None;
        };
        let (ip, port) = local.split_once(':')?;
        Some(TcpSocket {
            local: SocketAddr::new(ip_of(ip)?, u16::from_str_radix(port, 16).ok()?),
            listens: state == "0A",
            uid: uid.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    }
}

/// The address's 32-bit words, each as a number of the machine's own byte order.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| -> Option<[u8; 4]> {
        let digits = hex.get(8 * at..8 * at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, piece) in bytes.chunks_exact_mut(4).enumerate() {
                piece.copy_from_slice(&word(at)?);
            }
            Some(IpAddr::from(bytes))
        }
        _ => None,
    }
}

/// The listeners at a path as it was bound, by inode: `/proc/net/unix`, whose flag 10000 is "accepts connections".
fn unix_listeners(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
    let inode = |line: &str| -> Option<u64> {
        // Num, RefCount, Protocol, Flags, Type, St, Inode; then the path, which may hold blanks.
        let (mut words, mut rest) = ([""; 7], line);
        for word in &mut words {
            (*word, rest) = rest.trim_start().split_once(' ')?;
        }
        let inode = words[6].parse().ok()?;
        (words[3] == "00010000" && Path::new(rest) == path).then_some(inode)
    };
    text.lines().filter_map(inode).collect()
}

/// The first process that has one of these sockets open.
fn process_with(inodes: &[u64]) -> Option<Process> {
    let wanted: Vec<String> = inodes
        .iter()
        // Nobody has a socket without an inode open any more.
        .filter(|&&inode| inode != 0)
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if wanted.is_empty() {
        return None;
    }
    let mut pids = crate::process::numbered_entries("/proc").ok()?;
    pids.sort_unstable();
    let has_it = |pid: &u32| {
        // Not readable where the process is another user's.
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        descriptors.flatten().any(|entry| {
            fs::read_link(entry.path()).is_ok_and(|to| {
                wanted
                    .iter()
                    .any(|wanted| to.as_os_str() == wanted.as_str())
            })
        })
    };
    pids.into_iter().find(has_it).and_then(Process::of)
}

impl Process {
    /// The process of that number, while it lives.
    fn of(pid: u32) -> Option<Process> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        // Whoever names a process chooses the bytes: none of them is to reach a terminal as a command.
        let name = name
            .trim_end()
            .chars()
            .map(|c| if c.is_control() { '?' } else { c });
        Some(Process {
            pid,
            name: name.collect(),
        })
    }
}

/// Whether a SIGKILL is on its way to the process, or it has ended and only its parent has not looked.
fn is_dying(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
        return true;
    };
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let killed = |pending: &str| {
        u64::from_str_radix(pending.trim(), 16).is_ok_and(|set| set & (1 << (9 - 1)) != 0)
    };
    field("State:").is_some_and(|state| state.trim_start().starts_with(['Z', 'X']))
        || ["SigPnd:", "ShdPnd:"]
            .iter()
            .any(|name| field(name).is_some_and(killed))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, net::TcpStream, os::unix::net::UnixListener};

    use super::*;

    fn me() -> Process {
        Process::of(std::process::id()).expect("this process lives")
    }

    #[test]
    fn a_listener_of_ours_is_named() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let bound = listener.local_addr().unwrap();
            assert_eq!(of_tcp(bound), Holder::Listener(me()), "{address}");
            // Whoever wants all addresses meets it too, and one of all addresses is in everybody's way.
            let any = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), bound.port());
            assert_eq!(of_tcp(any), Holder::Listener(me()), "{address}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let elsewhere = SocketAddr::new(
            IpAddr::from([127, 0, 0, 2]),
            listener.local_addr().unwrap().port(),
        );
        assert_eq!(of_tcp(elsewhere), Holder::Nothing);
    }

    #[test]
    fn a_connection_from_the_port_is_no_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let from = stream.local_addr().unwrap();
        assert_eq!(of_tcp(from), Holder::Connection(me()));
        assert!(!of_tcp(from).may_pass());
    }

    #[test]
    fn unix_listeners_are_named_by_who_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a socket");
        let address = Address::unix(&path).unwrap();
        assert_eq!(Holder::of(&address), Holder::Nothing);
        fs::write(&path, "a file").unwrap();
        assert_eq!(Holder::of(&address), Holder::NoSocket);
        fs::remove_file(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(Holder::of(&address), Holder::Listener(me()));
        let inode = rustix::fs::fstat(&listener).unwrap().st_ino;
        assert_eq!(unix_listeners(&path), [inode]);
        assert_eq!(process_with(&[inode]), Some(me()));
    }

    #[test]
    fn lines_of_proc_are_read() {
        let v4 = "   0: 0100007F:1E61 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0000000000000000 100 0 0 10 0";
        let v6 = "   1: 00000000000000000000000001000000:1E61 00000000000000000000000000000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000000000000 100 0 0 10 0";
        let read = |line| TcpSocket::parse(line).expect("a socket");
        if cfg!(target_endian = "little") {
            assert_eq!(read(v4).local, "127.0.0.1:7777".parse().unwrap());
            assert_eq!(read(v6).local, "[::1]:7777".parse().unwrap());
        }
        assert_eq!(
            (read(v4).listens, read(v4).uid, read(v4).inode),
            (true, 1000, 4242)
        );
        assert!(!read(v6).listens);
        for line in [
            "",
            "  sl  local_address rem_address   st",
            "0: 01:1 0:0 0A 0 0 0 1 0 1",
        ] {
            assert_eq!(TcpSocket::parse(line), None, "{line}");
        }
    }

    #[test]
    fn who_lives_is_not_dying() {
        assert!(!is_dying(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        // A child that has ended and was not waited for is as good as gone.
        while !is_dying(child.id()) {}
        child.wait().unwrap();
        assert!(is_dying(child.id()));
        assert_eq!(Process::of(child.id()), None);
    }
}
