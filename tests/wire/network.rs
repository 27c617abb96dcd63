//! What only a process and a network of the test's own can show: routers that refuse, hosts without a route, local ports and
//! descriptors that run out. Both lanes say the same of it.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, ErrorKind},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

use healthcheck_operator::check::{Attempt, Handshake, Kept, Outcome, ProbeKind, Reason, TcpProbe};
use tokio::runtime::Runtime;

use crate::{
    lanes::{agreed, both, by, lane},
    netns::unshare,
    reuse::{ANSWER, kept, serve_on, server},
    support::{ENOUGH, LOOPBACK, assert_reason, at, attempt, get, run},
};

/// Set in the process that is already inside.
const INSIDE: &str = "HEALTHCHECK_TEST_WIRE_NETNS";
const HALF: TcpProbe = TcpProbe { port: None, handshake: Handshake::HalfOpen, send: None, receive: vec![], tls: None };
const FULL: TcpProbe = TcpProbe { port: None, handshake: Handshake::Full, send: None, receive: vec![], tls: None };

/// Whether this process is in a network of its own, set up by the shell commands `set_up`. Otherwise runs this one test
/// again in a process that is, and checks that it passed.
fn inside(test: &str, set_up: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let output = unshare()
        .args(["sh", "-ec", &format!("ip link set lo up\n{set_up}\nexec \"$@\""), "sh"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output()
        .expect("cannot run `unshare` (Debian: util-linux)");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "in a network of its own (needs iproute2, and root or user namespaces):\n{said}");
    false
}

fn sh(command: &mut Command) {
    let output = command.output().expect("a shell");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Another host, one hop away at 198.18.0.2: it forwards, and refuses to forward to these.
struct Router(Child);

impl Router {
    fn start() -> Self {
        // It lives for as long as its standard input does, so it cannot outlive us.
        let mut process = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "echo there && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a network namespace");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert_eq!(line, "there\n");
        let router = Self(process);
        let pid = router.0.id();
        // 203.0.113.0/24 (RFC 5737) is nowhere; 198.18.0.0/15 is for benchmarks (RFC 2544).
        sh(Command::new("sh").args([
            "-ec",
            &format!(
                "ip link add v0 type veth peer name v1 netns {pid}
                ip address add 198.18.0.1/24 dev v0
                ip link set v0 up"
            ),
        ]));
        sh(Command::new("nsenter").arg(format!("--net=/proc/{pid}/ns/net")).args(["sh", "-ec"]).arg(
            "ip address add 198.18.0.2/24 dev v1
            ip link set v1 up
            echo 1 >/proc/sys/net/ipv4/ip_forward
            echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
            ip route add unreachable 203.0.113.1
            ip route add prohibit 203.0.113.2",
        ));
        sh(Command::new("sh").args(["-ec", "ip route add 203.0.113.0/24 via 198.18.0.2"]));
        router
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// What both lanes say of `address`.
fn probe(address: &str, probe: TcpProbe) -> Outcome {
    let dial = at(address.parse().expect("an address"));
    runtime().block_on(agreed(address, dial, ProbeKind::Tcp(probe), ENOUGH))
}

#[test]
fn what_a_router_says_is_the_targets_failure_and_what_our_own_machine_says_is_ours() {
    let own_routes = "ip route add unreachable 192.0.2.1
        ip route add prohibit 192.0.2.2
        ip route add blackhole 192.0.2.3";
    let test = "network::what_a_router_says_is_the_targets_failure_and_what_our_own_machine_says_is_ours";
    if !inside(test, own_routes) {
        return;
    }
    let _router = Router::start();
    for (address, reason, message) in [
        // Late: an ICMP message in answer to the SYN.
        ("203.0.113.1:80", Reason::HostUnreachable, "host unreachable"),
        ("203.0.113.2:80", Reason::HostUnreachable, "host unreachable"),
        ("203.0.113.3:80", Reason::NetworkUnreachable, "network unreachable"),
        // At once: by `connect` itself.
        ("192.0.2.1:80", Reason::NoRoute, "no route from here"),
        ("192.0.2.2:80", Reason::NoRoute, "this machine's own rules forbid it"),
        ("192.0.2.3:80", Reason::NoRoute, "the kernel takes no such destination"),
        ("192.0.2.4:80", Reason::NoRoute, "no route from here"),
    ] {
        for handshake in [HALF, FULL] {
            assert_reason(&probe(address, handshake), reason, message);
        }
    }
}

#[test]
fn local_ports_that_run_out_are_our_own_lack_and_come_back() {
    let few_ports = "echo 40000 40015 >/proc/sys/net/ipv4/ip_local_port_range";
    if !inside("network::local_ports_that_run_out_are_our_own_lack_and_come_back", few_ports) {
        return;
    }
    let listener = TcpListener::bind((LOOPBACK, 20_000)).expect("a port of its own");
    let address = listener.local_addr().expect("its address");
    for handshake in [HALF, FULL] {
        assert_eq!(probe(&address.to_string(), handshake), Outcome::Success);
    }
    // What `Full` left behind waits for a minute, so all that can be had is taken, however many that are.
    let mut held = vec![];
    let lack = loop {
        match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(stream) => held.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(lack.kind(), ErrorKind::AddrNotAvailable, "{lack}");
    for handshake in [HALF, FULL] {
        let outcome = probe(&address.to_string(), handshake);
        assert_reason(&outcome, Reason::NoPorts, "widen net.ipv4.ip_local_port_range");
    }
    for stream in held {
        // Reset, so that nothing waits in TIME_WAIT.
        let socket = socket2::Socket::from(stream);
        socket.set_linger(Some(Duration::ZERO)).expect("an option");
    }
    assert_eq!(probe(&address.to_string(), HALF), Outcome::Success);
}

/// Every descriptor there is, until they are dropped.
fn all_descriptors() -> Vec<File> {
    let files: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!files.is_empty(), "there were some");
    files
}

/// So few descriptors that they are soon taken.
const FEW: &str = "ulimit -n 64";

#[test]
fn descriptors_that_run_out_are_our_own_lack_and_come_back() {
    if !inside("network::descriptors_that_run_out_are_our_own_lack_and_come_back", FEW) {
        return;
    }
    runtime().block_on(async {
        let (address, _) = server(|_, stream| serve_on(stream, ANSWER)).await;
        let prober = both();
        for kind in [ProbeKind::Tcp(HALF), ProbeKind::Tcp(FULL), ProbeKind::Http(get()), ProbeKind::Http(kept())] {
            // Without a socket of the kind before, which would do for this one.
            let mut lane = lane(&prober);
            let asked = attempt(Some(at(address)), kind, ENOUGH);
            let held = all_descriptors();
            let ordinary = run(&prober, asked.clone()).await.outcome;
            assert_reason(&ordinary, Reason::NoDescriptors, "raise the limit (RLIMIT_NOFILE)");
            assert_eq!(by(&mut lane, &asked).await.outcome, ordinary);
            drop(held);
            assert_eq!(run(&prober, asked.clone()).await.outcome, Outcome::Success);
            assert_eq!(by(&mut lane, &asked).await.outcome, Outcome::Success);
        }
    });
}

#[test]
fn a_connection_that_is_kept_needs_no_descriptor_and_gives_way_to_who_has_none() {
    if !inside("network::a_connection_that_is_kept_needs_no_descriptor_and_gives_way_to_who_has_none", FEW) {
        return;
    }
    runtime().block_on(async {
        let (address, connections) = server(|_, stream| serve_on(stream, ANSWER)).await;
        let prober = both();
        let mut lane = lane(&prober);
        let keeping =
            || Attempt { kept: Some(Kept::default()), ..attempt(Some(at(address)), ProbeKind::Http(kept()), ENOUGH) };
        let (ordinary, fast) = (keeping(), keeping());
        assert_eq!(run(&prober, ordinary.clone()).await.outcome, Outcome::Success);
        assert_eq!(by(&mut lane, &fast).await.outcome, Outcome::Success);
        let _held = all_descriptors();
        assert_eq!(run(&prober, ordinary).await.outcome, Outcome::Success);
        assert_eq!(by(&mut lane, &fast).await.outcome, Outcome::Success);
        assert_eq!(connections.load(Ordering::SeqCst), 2);
        // The kernel answers it: the target has no descriptor to accept with, either.
        let other = attempt(Some(at(address)), ProbeKind::Tcp(HALF), ENOUGH);
        assert_eq!(by(&mut lane, &other).await.outcome, Outcome::Success);
    });
}
