//! Where the server is, and whether it is there at all: names with several addresses, interfaces by name, a client that
//! meets nobody but itself.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use echometer_loadgen::{Failure, Plan, Target, plan::Engine};

use crate::support::{drive, in_a_namespace, output, plan, run_of};

crate::for_each_engine! {
    fn the_second_address_answers;
    fn a_client_that_reconnects_leaves_the_dead_server_its_port;
}

#[test]
fn with_nobody_at_any_address_the_error_names_one() {
    let addresses = [nobody(), nobody()];
    let target = Target::new("two-faced:7777", addresses.map(Into::into).to_vec());
    let mut fleet = echometer_loadgen::Fleet::start(&Plan::default()).expect("a fleet");
    let error = fleet.open(&target).expect_err("nobody").to_string();
    assert!(error.contains(&addresses[1].to_string()), "{error}");
}

fn the_second_address_answers(engine: Engine) {
    let echo = echo_on(TcpListener::bind("127.0.0.1:0").expect("a port"));
    let target = Target::new("two-faced:7777", vec![nobody().into(), echo.into()]);
    let tally = drive(&plan(engine), &target, &run_of(0, 100));
    assert!(0 < tally.messages && tally.errors.total() == 0);
}

/// `localhost` is `::1` first on many machines, and the server listens on 127.0.0.1.
#[test]
fn a_name_is_tried_at_all_its_addresses() {
    let hosts = "hosts=$(mktemp); printf '::1 two-faced\\n127.0.0.1 two-faced\\n' > $hosts; mount --bind $hosts /etc/hosts";
    if in_a_namespace("addresses::a_name_is_tried_at_all_its_addresses", hosts) {
        let echo = echo_on(TcpListener::bind("127.0.0.1:7777").expect("a port"));
        let target = Target::resolve("two-faced:7777").expect("it is in /etc/hosts");
        assert_eq!(target.addresses().len(), 2, "{target:?}");
        assert_eq!(target.addresses()[1], echo.into());
        let (code, _, stderr) = output(&["two-faced:7777", "-c", "2", "-d", "200ms", "-w", "0s"]);
        assert!(matches!(code, Some(0 | 3)), "{stderr}");
    }
}

/// An interface by its name, as `ip address` shows it.
#[test]
fn a_scope_by_name_is_found() {
    // A veth pair's ends are link-local neighbours; nodad: usable at once.
    let setup = "ip link add veth0 type veth peer name veth1; \
        ip address add fe80::a/64 dev veth0 nodad; ip link set veth0 up; ip link set veth1 up";
    if in_a_namespace("addresses::a_scope_by_name_is_found", setup) {
        let listen = "[fe80::a%veth0]:7777";
        let server = crate::support::Server::start_on(listen, "none");
        let (code, _, stderr) = output(&[listen, "-c", "2", "-d", "200ms", "-w", "0s"]);
        assert!(matches!(code, Some(0 | 3)), "{stderr}");
        // A source of the same interface needs no scope of its own.
        let (code, _, stderr) = output(&[
            listen, "-c", "2", "-d", "200ms", "-w", "0s", "--source", "fe80::a",
        ]);
        assert!(matches!(code, Some(0 | 3)), "{stderr}");
        assert!(0 < server.finish().total.bytes_in);
        let (code, _, stderr) = output(&["[fe80::a%veth9]:7777", "-d", "100ms"]);
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("`veth9`") && stderr.contains("no interface"),
            "{stderr}"
        );
        let (code, _, stderr) = output(&["[fe80::a]:7777", "-d", "100ms"]);
        assert_eq!(code, Some(1));
        assert!(stderr.contains("%eth0"), "{stderr}");
    }
}

/// One local port is left, and that is the one to connect to: TCP connects it to itself, and all comes back.
#[test]
fn a_client_that_meets_itself_has_no_server() {
    let one_port = "echo 40000 40000 > /proc/sys/net/ipv4/ip_local_port_range";
    if in_a_namespace(
        "addresses::a_client_that_meets_itself_has_no_server",
        one_port,
    ) {
        // Connections that come and go have sources of their own on loopback, unless told.
        let churn = ["--requests-per-connection", "3", "--source", "127.0.0.1"];
        for engine in ["epoll", "auto"] {
            for more in [&[][..], &churn, &["--reconnect"]] {
                let words = [
                    "127.0.0.1:40000",
                    "-c",
                    "1",
                    "-d",
                    "200ms",
                    "--engine",
                    engine,
                ];
                let (code, _, stderr) = output(&[&words, more].concat());
                assert_eq!(code, Some(1), "{more:?} {stderr}");
                let said = "connect to 127.0.0.1:40000: connected to itself: nobody listens";
                assert!(stderr.contains(said), "{stderr}");
            }
        }
    }
}

fn a_client_that_reconnects_leaves_the_dead_server_its_port(engine: Engine) {
    let name = match engine {
        Engine::Epoll => {
            "addresses::epoll::a_client_that_reconnects_leaves_the_dead_server_its_port"
        }
        _ => "addresses::uring::a_client_that_reconnects_leaves_the_dead_server_its_port",
    };
    // So few that each redial may be given the server's.
    let few_ports = "echo 40000 40003 > /proc/sys/net/ipv4/ip_local_port_range";
    if !in_a_namespace(name, few_ports) {
        return;
    }
    let at = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let server = thread::spawn(move || {
        let listener = TcpListener::bind(at).expect("nobody has it");
        echo_bytes(listener.accept().expect("the client").0, 64 * 10);
        drop(listener);
        thread::sleep(Duration::from_secs(2));
        // Again, as a supervisor would do it.
        let began = Instant::now();
        let listener = loop {
            match TcpListener::bind(at) {
                Ok(listener) => break listener,
                // Just now the port may be on its way from one end to the other.
                Err(error) if began.elapsed() < Duration::from_millis(50) => {
                    println!("taken: {error}");
                }
                Err(error) => panic!("its port is taken: {error}"),
            }
        };
        let (client, _) = listener.accept().expect("the client comes back");
        echo_bytes(client, usize::MAX);
    });
    let plan = Plan {
        connections: 1,
        reconnect: true,
        ..plan(engine)
    };
    let tally = drive(&plan, &Target::from(at), &run_of(0, 4_000));
    server.join().expect("the server had its port");
    assert!(10 < tally.messages, "{tally:?}");
    let itself = tally.errors.of(Failure::ConnectedToItself);
    assert!(1 <= itself, "{:?}", tally.errors);
}

/// As many ports as connections: what only looked whether the server is there may not keep one of them.
#[test]
fn every_local_port_is_the_load_s() {
    let ten_ports = "echo 40000 40009 > /proc/sys/net/ipv4/ip_local_port_range";
    if in_a_namespace("addresses::every_local_port_is_the_load_s", ten_ports) {
        let server = crate::support::Server::start_on("127.0.0.1:7777", "none");
        for engine in ["epoll", "auto"] {
            let words = [
                "127.0.0.1:7777",
                "-c",
                "10",
                "-d",
                "200ms",
                "-w",
                "0s",
                "--engine",
                engine,
                "--requests-per-connection",
                "1000000",
                "--source",
                "127.0.0.1",
                "--json",
            ];
            let (code, stdout, stderr) = output(&words);
            assert!(matches!(code, Some(0 | 3)), "{stderr}");
            let run: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
            assert_eq!(run["end"]["connections_opened"], 10, "{}", run["end"]);
            assert_eq!(
                run["end"]["errors"],
                serde_json::json!({}),
                "{}",
                run["end"]
            );
            // Its own ten go into TIME_WAIT, and the kernel has them again after a second.
            thread::sleep(Duration::from_millis(1_200));
        }
        drop(server);
    }
}

fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}

fn echo_on(listener: TcpListener) -> SocketAddr {
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || echo_bytes(stream, usize::MAX));
        }
    });
    address
}

/// Echoes at most so many bytes, and closes.
fn echo_bytes(mut stream: TcpStream, mut left: usize) {
    let mut bytes = [0; 4096];
    while 0 < left {
        let room = left.min(bytes.len());
        match stream.read(&mut bytes[..room]) {
            Ok(read @ 1..) if stream.write_all(&bytes[..read]).is_ok() => left -= read,
            _ => return,
        }
    }
}
