//! What the wire tests share: a prober, attempts, and targets on loopback.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use healthcheck_operator::{
    check::{
        Attempt, Dial, Host, HttpProbe, ObjectKey, Outcome, Probe, ProbeKind, Reason, Report, ScriptProbe, TcpProbe,
    },
    probe::{
        Lane as _, Prober, ScriptBackend, Settings,
        script::{Scripts, Setup},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// For what must end well before it.
pub const ENOUGH: Duration = Duration::from_secs(10);
/// For what never answers.
pub const SHORT: Duration = Duration::from_millis(300);

pub fn prober() -> Prober {
    prober_with(setup())
}

/// A prober that runs scripts like this.
pub fn prober_with(setup: Setup) -> Prober {
    Prober::new(Settings { scripts: scripts(&setup), ..Settings::standalone() })
}

pub fn scripts(setup: &Setup) -> ScriptBackend {
    ScriptBackend::Local(Arc::new(Scripts::new(setup)))
}

/// The usual, with workers made of the built binary: this program is a test.
pub fn setup() -> Setup {
    Setup { program: env!("CARGO_BIN_EXE_healthcheck-operator").into(), ..Setup::default() }
}

pub fn at(address: SocketAddr) -> Dial {
    Dial { host: Host::Address(address.ip()), port: Some(address.port()) }
}

pub fn named(name: &str, port: u16) -> Dial {
    Dial { host: Host::Name(name.into()), port: Some(port) }
}

pub fn attempt(dial: Option<Dial>, kind: ProbeKind, timeout: Duration) -> Attempt {
    let probe = Arc::new(Probe { timeout, kind });
    Attempt { check: ObjectKey::new("shop", "orders"), target: "web".into(), dial, probe, known: vec![], kept: None }
}

/// Makes one attempt, which must end soon after its timeout whatever the target does.
pub async fn run(prober: &Prober, attempt: Attempt) -> Report {
    let bound = attempt.probe.timeout + ENOUGH;
    tokio::time::timeout(bound, prober.attempt(attempt)).await.expect("an attempt ends by itself")
}

pub async fn run_tcp(dial: Dial, probe: TcpProbe, timeout: Duration) -> Outcome {
    run(&prober(), attempt(Some(dial), ProbeKind::Tcp(probe), timeout)).await.outcome
}

pub async fn run_http(dial: Dial, probe: HttpProbe, timeout: Duration) -> Outcome {
    run(&prober(), attempt(Some(dial), ProbeKind::Http(probe), timeout)).await.outcome
}

pub fn script(command: &[&str]) -> ScriptProbe {
    ScriptProbe { command: command.iter().map(|part| (*part).into()).collect(), source: None, env: vec![] }
}

/// `GET /`, anything from 200 to 399 passes.
pub fn get() -> HttpProbe {
    HttpProbe::default()
}

#[track_caller]
pub fn assert_reason(outcome: &Outcome, reason: Reason, message: &str) {
    assert_eq!(outcome.reason(), Some(reason), "{outcome:?}");
    assert!(outcome.message().contains(message), "'{message}' is not in {outcome:?}");
    assert_eq!(matches!(outcome, Outcome::Local { .. }), reason.class().is_none(), "{outcome:?}");
}

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A target that hands every connection to `serve`, for as long as the test's runtime lives.
pub async fn target<S, F>(serve: S) -> SocketAddr
where
    S: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port on loopback");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A target that reads a request and then does `what`.
pub async fn after_the_request<F>(what: impl Fn(TcpStream) -> F + Clone + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    target(move |mut stream| {
        let what = what.clone();
        async move {
            read_head(&mut stream).await;
            what(stream).await;
        }
    })
    .await
}

/// A target that answers every request with these bytes and then says no more.
pub async fn says(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    after_the_request(move |mut stream| {
        let answer = answer.clone();
        async move {
            let _ = stream.write_all(&answer).await;
            let _ = stream.read(&mut [0; 16]).await;
        }
    })
    .await
}

/// A target that answers with `start`, and then with `again` until nobody listens.
pub async fn floods(start: &'static str, again: &'static str, pause: Duration) -> SocketAddr {
    after_the_request(move |mut stream| async move {
        let mut sent = stream.write_all(start.as_bytes()).await;
        while sent.is_ok() {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            sent = stream.write_all(again.as_bytes()).await;
        }
    })
    .await
}

/// A port of loopback on which nobody listens, held so that nobody else comes to listen on it meanwhile.
pub fn closed_port() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(LOOPBACK, 0).into()).expect("a port");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("its address");
    (socket, address)
}

/// Takes connections no further than the kernel does: its queue is full, so whoever comes later hears nothing.
pub struct Deaf {
    pub address: SocketAddr,
    _sockets: Vec<socket2::Socket>,
}

impl Deaf {
    /// On `address`; port 0 takes any.
    pub fn at(address: SocketAddr) -> Self {
        let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let listener = socket();
        listener.bind(&address.into()).expect("a port");
        listener.listen(0).expect("a listener");
        let address = listener.local_addr().ok().and_then(|address| address.as_socket()).expect("its address");
        let waiting = (0..4).map(|_| {
            let client = socket();
            client.set_nonblocking(true).expect("non-blocking");
            let _ = client.connect(&address.into());
            client
        });
        Self { address, _sockets: waiting.chain([listener]).collect() }
    }
}

/// IPv6's loopback, or a word on why there is none.
pub fn loopback_v6() -> Option<IpAddr> {
    let there = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !there {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this machine has no IPv6 loopback");
        println!("SKIP this machine has no IPv6 loopback");
    }
    there.then_some(IpAddr::V6(Ipv6Addr::LOCALHOST))
}

/// Reads until the end of a request's head.
pub async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("a head in UTF-8")
}

/// Waits until `done`, with a bound.
pub async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + ENOUGH;
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
