//! The fast lane beside the ordinary one: whatever a target does, both say the same of it.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use healthcheck_operator::{
    check::{
        Attempt, Dial, Handshake, HeaderSource, HttpHeader, HttpProbe, Outcome, ProbeKind, Reason, Report, StatusRange,
        TcpProbe,
    },
    probe::{Begun, DeniedDynamic, EgressGuard, FastLane, Lane as _, Prober, Settings, TimedOut},
};
use proptest::{prelude::*, test_runner::TestRunner};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    mutate::{mutated, seeds},
    support::{
        Deaf, ENOUGH, LOOPBACK, SHORT, assert_reason, at, attempt, closed_port, floods, get, loopback_v6, read_head,
        run, says, target,
    },
    tcp::{accepted, listen},
};

pub fn both() -> Prober {
    Prober::new(Settings { fast_lane: true, ..Settings::standalone() })
}

pub fn lane(prober: &Prober) -> FastLane {
    prober.fast().expect("a fast lane on Linux")
}

/// One attempt on the fast lane, which must take it; its deadline is kept as the engine keeps it.
pub async fn by(lane: &mut FastLane, attempt: &Attempt) -> Report {
    const TOKEN: u64 = 7;
    let (dial, kept, mut ended) = (attempt.dial.as_ref(), attempt.kept.as_ref(), vec![]);
    let asks = lane.asks(dial, &attempt.probe, kept.is_some()).expect("the fast lane takes it");
    let question = dial.and_then(|dial| asks.of(dial)).expect("an address");
    // What happened since the last round is known before the next.
    lane.poll(&mut ended);
    let (number, mut look) = match lane.begin(TOKEN, &question, &attempt.probe, kept) {
        Begun::Ended(report) => return report,
        Begun::Running { number, look, .. } => (number, look),
    };
    loop {
        // The target runs on this thread too.
        lane.poll(&mut ended);
        if let Some((token, report)) = ended.pop() {
            assert!(token == TOKEN && ended.is_empty());
            return report;
        }
        if Instant::now() >= look {
            match lane.time_out(TOKEN, number) {
                TimedOut::Ended(report) => return report,
                TimedOut::Later(left) => look = Instant::now() + left,
                TimedOut::Over => panic!("it is under way"),
            }
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// What both lanes say of `dial`, asked by `kind`; the fast one is asked three times, over whatever it uses again.
async fn said(dial: Dial, kind: ProbeKind, timeout: Duration) -> (Report, Vec<Report>) {
    let prober = both();
    let attempt = attempt(Some(dial), kind, timeout);
    let ordinary = run(&prober, attempt.clone()).await;
    let mut lane = lane(&prober);
    let mut fast = vec![];
    for _ in 0..3 {
        fast.push(by(&mut lane, &attempt).await);
    }
    (ordinary, fast)
}

/// Both lanes say `want` (`None`: a success, or a neutral answer), with the same words and the same status.
async fn agree(what: &str, dial: Dial, kind: ProbeKind, timeout: Duration, want: Option<Reason>) {
    let (ordinary, fast) = said(dial, kind, timeout).await;
    assert_eq!(ordinary.outcome.reason(), want, "{what}: {ordinary:?}");
    for fast in fast {
        assert_eq!(fast.outcome, ordinary.outcome, "{what}");
        assert_eq!(fast.status, ordinary.status, "{what}");
        assert!(fast.latency <= timeout + ENOUGH, "{what}: {fast:?}");
    }
}

fn tcp(handshake: Handshake) -> ProbeKind {
    ProbeKind::Tcp(TcpProbe { handshake, ..TcpProbe::default() })
}

/// A target that reads a request and then does `what`.
async fn after_the_request<F>(what: impl Fn(TcpStream) -> F + Clone + Send + 'static) -> SocketAddr
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

#[tokio::test]
async fn of_a_port_they_say_the_same() {
    let (listener, open) = listen();
    let (_held, closed) = closed_port();
    let deaf = Deaf::at(SocketAddr::new(LOOPBACK, 0));
    let nowhere = |text: &str| at(text.parse().expect("an address"));
    for handshake in [Handshake::HalfOpen, Handshake::Full] {
        let kind = || tcp(handshake);
        agree("a listener", at(open), kind(), ENOUGH, None).await;
        agree("a closed port", at(closed), kind(), ENOUGH, Some(Reason::ConnectionRefused)).await;
        agree("a full queue", at(deaf.address), kind(), SHORT, Some(Reason::TimeoutConnect)).await;
        for address in ["255.255.255.255:80", "224.0.0.1:80", "[fe80::1]:80"] {
            agree(address, nowhere(address), kind(), SHORT, Some(Reason::NoRoute)).await;
        }
        if let Some(loopback) = loopback_v6() {
            let there = std::net::TcpListener::bind((loopback, 0)).expect("a port");
            agree("IPv6", at(there.local_addr().expect("its address")), kind(), ENOUGH, None).await;
        }
    }
    drop(listener);
}

#[tokio::test]
async fn what_may_not_be_dialed_is_dialed_by_neither() {
    let (listener, address) = listen();
    let egress = Arc::new(EgressGuard::cluster(DeniedDynamic::default(), vec![]));
    let prober = Prober::new(Settings { egress: egress.clone(), fast_lane: true, ..Settings::standalone() });
    for kind in [tcp(Handshake::Full), ProbeKind::Http(get())] {
        let attempt = attempt(Some(at(address)), kind, ENOUGH);
        let (ordinary, fast) = (run(&prober, attempt.clone()).await, by(&mut lane(&prober), &attempt).await);
        assert_reason(&fast.outcome, Reason::EgressDenied, "--egress-allow");
        assert_eq!(fast.outcome, ordinary.outcome);
    }
    assert_eq!(accepted(&listener), 0);
}

#[tokio::test]
async fn the_handshake_is_half_open_or_full_on_both() {
    const ROUNDS: usize = 20;
    let (listener, address) = listen();
    let prober = both();
    let mut lane = lane(&prober);
    let half = attempt(Some(at(address)), tcp(Handshake::HalfOpen), ENOUGH);
    for _ in 0..ROUNDS {
        assert_eq!(by(&mut lane, &half).await.outcome, Outcome::Success);
    }
    // The kernel holds the last ACK back for 40 ms at least; a machine that stalls longer lets one through.
    let completed = accepted(&listener);
    assert!(completed < ROUNDS / 2, "{completed} of {ROUNDS} half-open handshakes were accepted");
    let full = attempt(Some(at(address)), tcp(Handshake::Full), ENOUGH);
    for _ in 0..ROUNDS {
        assert_eq!(by(&mut lane, &full).await.outcome, Outcome::Success);
    }
    assert_eq!(accepted(&listener), ROUNDS);
}

#[tokio::test]
async fn a_socket_is_used_again_after_a_verdict_and_after_anything_else_is_not() {
    let (_listener, open) = listen();
    let (_held, closed) = closed_port();
    let prober = both();
    let mut lane = lane(&prober);
    let ok = says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    for number in 0..200 {
        let (address, kind) = match number % 3 {
            0 => (open, tcp(Handshake::HalfOpen)),
            1 => (ok, ProbeKind::Http(get())),
            _ => (closed, tcp(Handshake::HalfOpen)),
        };
        let report = by(&mut lane, &attempt(Some(at(address)), kind, ENOUGH)).await;
        assert_eq!(report.outcome == Outcome::Success, number % 3 < 2, "{number}: {report:?}");
    }
    assert!(format!("{lane:?}").contains("lines: 1"), "one at a time needs one socket: {lane:?}");
}

#[tokio::test]
async fn of_an_answer_they_say_the_same() {
    use Reason::{HeadersTooLarge, MalformedResponse, UnexpectedStatus};
    let with_headers = |count: usize| {
        let headers: String = (0..count).map(|n| format!("x-{n}: y\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\n{headers}\r\n")
    };
    let with_bytes = |count: usize| {
        let frame = "HTTP/1.1 200 OK\r\nx: \r\n\r\n".len();
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(count - frame))
    };
    let table: Vec<(Vec<u8>, Option<Reason>)> = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", None),
        ("HTTP/1.1 399 X\r\n\r\n", None),
        ("HTTP/1.1 503 Down\r\n\r\n", Some(UnexpectedStatus)),
        ("HTTP/1.1 599 \r\n\r\n", Some(UnexpectedStatus)),
        ("HTTP/1.0 404\r\n\r\n", Some(UnexpectedStatus)),
        ("HTTP/1.1 999 x\r\n\r\n", Some(UnexpectedStatus)),
        ("HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", Some(UnexpectedStatus)),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", None),
        ("HTTP/1.1 200 OK\ncontent-length: 0\n\n", None),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", None),
        ("SSH-2.0-OpenSSH_9.6\r\n", Some(MalformedResponse)),
        ("220 mail.example ESMTP\r\n", Some(MalformedResponse)),
        ("HTTP/1.1 2000 OK\r\n\r\n", Some(MalformedResponse)),
        ("HTTP/1.1 099 OK\r\n\r\n", Some(MalformedResponse)),
        ("HTTP/1.1 abc OK\r\n\r\n", Some(MalformedResponse)),
        ("HTTP/9.9 200 OK\r\n\r\n", Some(MalformedResponse)),
        ("HTTP/1.1 200 OK\r\nno colon here\r\n\r\n", Some(MalformedResponse)),
        ("HTTP/1.1 200 OK\r\nname : x\r\n\r\n", Some(MalformedResponse)),
        ("HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n", Some(MalformedResponse)),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", Some(MalformedResponse)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\n", Some(MalformedResponse)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", Some(MalformedResponse)),
        ("HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n", Some(MalformedResponse)),
        ("HTTP/1.1 204 X\r\ncontent-length: -1\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n", Some(HeadersTooLarge)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\n", Some(MalformedResponse)),
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Some(MalformedResponse)),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ncontent-length: -1\r\n\r\n", None),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(MalformedResponse)),
        ("<html>HTTP/0.9 says no status</html>", Some(MalformedResponse)),
    ]
    .map(|(answer, want)| (answer.as_bytes().to_vec(), want))
    .into_iter()
    .chain([
        (b"\x00\x01\x02\x03 garbage \xff\xfe\r\n\r\n".to_vec(), Some(MalformedResponse)),
        (b"HTTP/1.1 200 OK\r\nx: \xff\xfe\r\n\r\n".to_vec(), None),
        (b"HTTP/1.1 200 OK\r\ncontent-length: \xff\r\n\r\n".to_vec(), Some(MalformedResponse)),
        (with_headers(64).into_bytes(), None),
        (with_headers(65).into_bytes(), Some(HeadersTooLarge)),
        (with_bytes(16_000).into_bytes(), None),
        (with_bytes(16 * 1024).into_bytes(), None),
        (with_bytes(16 * 1024 + 1).into_bytes(), Some(HeadersTooLarge)),
        (with_bytes(40_000).into_bytes(), Some(HeadersTooLarge)),
    ])
    .collect();
    for (answer, want) in table {
        let what = String::from_utf8_lossy(&answer).chars().take(80).collect::<String>();
        agree(&what, at(says(answer).await), ProbeKind::Http(get()), ENOUGH, want).await;
    }
    let head = HttpProbe { method: "HEAD".into(), ..get() };
    let odd = says("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n").await;
    agree("an answer to HEAD", at(odd), ProbeKind::Http(head), ENOUGH, None).await;
}

#[tokio::test]
async fn of_what_has_no_end_and_of_what_never_begins_they_say_the_same() {
    let none = Duration::ZERO;
    let http = || ProbeKind::Http(get());
    for (what, address) in [
        ("headers", floods("HTTP/1.1 200 OK\r\n", "x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n", none).await),
        ("one header", floods("HTTP/1.1 200 OK\r\nx: ", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy", none).await),
        ("a status line", floods("HTTP/1.1 200 ", "OK OK OK OK OK OK OK OK OK OK OK OK OK OK", none).await),
        ("interim answers", floods("", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", none).await),
    ] {
        agree(what, at(address), http(), ENOUGH * 6, Some(Reason::HeadersTooLarge)).await;
    }
    let endless = floods("HTTP/1.1 200 OK\r\n\r\n", "a body without an end ", none).await;
    agree("a body", at(endless), http(), ENOUGH * 6, None).await;
    let silent = after_the_request(|mut stream| async move {
        let _ = stream.read(&mut [0; 16]).await;
    })
    .await;
    let deaf = target(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let queue = Deaf::at(SocketAddr::new(LOOPBACK, 0));
    for (what, address, reason) in [
        ("silence", silent, Reason::TimeoutResponse),
        ("who never reads", deaf, Reason::TimeoutResponse),
        ("a drip", floods("HTTP/1.1 200 OK\r\nx: ", "y", SHORT / 3).await, Reason::TimeoutResponse),
        (
            "drips of interim answers",
            floods("", "HTTP/1.1 100 Continue\r\n\r\n", SHORT / 6).await,
            Reason::TimeoutResponse,
        ),
        ("a full queue", queue.address, Reason::TimeoutConnect),
    ] {
        agree(what, at(address), http(), SHORT, Some(reason)).await;
    }
}

#[tokio::test]
async fn of_a_target_that_breaks_off_they_say_the_same() {
    let http = || ProbeKind::Http(get());
    let at_once = after_the_request(|stream| async move { drop(stream) }).await;
    let midway = after_the_request(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
    })
    .await;
    let resets = after_the_request(|stream| async move { reset(&stream) }).await;
    for (what, address, reason) in [
        ("at once", at_once, Reason::ConnectionClosed),
        ("midway", midway, Reason::ConnectionClosed),
        ("by a reset", resets, Reason::ConnectionReset),
        ("before it is reached", closed_port().1, Reason::ConnectionRefused),
    ] {
        agree(what, at(address), http(), ENOUGH, Some(reason)).await;
    }
    // Which of the two it is depends on whether the reset comes before or after the request.
    let on_accept = target(|stream| async move { reset(&stream) }).await;
    let (ordinary, fast) = said(at(on_accept), http(), ENOUGH).await;
    for report in fast.iter().chain([&ordinary]) {
        let reason = report.outcome.reason();
        assert!(matches!(reason, Some(Reason::ConnectionReset | Reason::ConnectionClosed)), "{report:?}");
    }
}

/// Dropping `stream` resets it from now on.
fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("linger");
}

#[tokio::test]
async fn an_answer_is_judged_alike() {
    let ranges = |ranges: &[(u16, u16)]| -> Vec<StatusRange> {
        ranges.iter().map(|&(first, last)| StatusRange { first, last }).collect()
    };
    let picky = HttpProbe {
        expected_statuses: ranges(&[(200, 299)]),
        unhealthy_statuses: ranges(&[(500, 503), (204, 204)]),
        ..get()
    };
    for (status, want) in
        [(200, None), (404, None), (503, Some(Reason::UnexpectedStatus)), (204, Some(Reason::UnexpectedStatus))]
    {
        let address = says(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n")).await;
        agree(&status.to_string(), at(address), ProbeKind::Http(picky.clone()), ENOUGH, want).await;
    }
    let slow = after_the_request(|mut stream| async move {
        sleep(Duration::from_millis(60)).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let within = |limit| ProbeKind::Http(HttpProbe { max_latency: Some(limit), ..get() });
    // The words hold what it took.
    let (ordinary, fast) = said(at(slow), within(Duration::from_millis(50)), ENOUGH).await;
    for report in fast.iter().chain([&ordinary]) {
        assert_reason(&report.outcome, Reason::TooSlow, "ms, want at most 50ms");
        assert!(report.latency >= Duration::from_millis(50) && report.status == Some(200), "{report:?}");
    }
    agree("in time", at(slow), within(ENOUGH), ENOUGH, None).await;
}

#[tokio::test]
async fn a_target_is_sent_the_same_bytes() {
    let header = |name: &str, value: &str, append| HttpHeader {
        name: name.into(),
        source: HeaderSource::Value(value.into()),
        append,
    };
    let headers = vec![
        header("X-One", "a", true),
        header("x-two-three", "a", false),
        header("X-One", "b", true),
        header("User-Agent", "mine", true),
        header("Host", "orders.example:81", false),
    ];
    let probes = [
        get(),
        HttpProbe { path: "/health?deep=1&x=%20".into(), headers, ..get() },
        HttpProbe { method: "POST".into(), body: Some("ping".into()), ..get() },
        HttpProbe { method: "PUT".into(), ..get() },
        HttpProbe { method: "HEAD".into(), host: Some("orders.example".into()), ..get() },
        HttpProbe { method: "OPTIONS".into(), host: Some("fd00::1".into()), ..get() },
    ];
    for host in [Some(LOOPBACK), loopback_v6()].into_iter().flatten() {
        let seen = Arc::new(Mutex::new(vec![]));
        let keep = seen.clone();
        let listener = tokio::net::TcpListener::bind((host, 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let mut length = 0;
                // A request comes whole, or its body right behind it.
                while let Ok(count @ 1..) = stream.read(&mut request[length..]).await {
                    length += count;
                    let text = String::from_utf8_lossy(&request[..length]).into_owned();
                    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
                    if body.is_some_and(|body| !text.starts_with("POST") || body == "ping") {
                        break;
                    }
                }
                keep.lock().unwrap_or_else(PoisonError::into_inner).push(request[..length].to_vec());
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
        for probe in &probes {
            agree("an echo", at(address), ProbeKind::Http(probe.clone()), ENOUGH, None).await;
            let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
            let texts: Vec<_> = seen.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect();
            assert_eq!(texts.len(), 4);
            assert!(texts.iter().all(|text| *text == texts[0]), "{texts:#?}");
        }
    }
}

/// What is not plain goes the ordinary way, and so does what hyper frames by the probe's own headers.
#[tokio::test]
async fn what_is_not_plain_is_left_to_the_ordinary_lane() {
    use healthcheck_operator::check::{BodyRule, Connection, GrpcProbe, HttpVersion, Redirects, Scheme};
    let prober = both();
    let mut lane = lane(&prober);
    let to = at(SocketAddr::new(LOOPBACK, 80));
    let framed = |name: &str| HttpProbe {
        headers: vec![HttpHeader { name: name.into(), source: HeaderSource::Value("x".into()), append: false }],
        ..get()
    };
    let kinds = [
        ProbeKind::Http(HttpProbe { scheme: Scheme::Https, ..get() }),
        ProbeKind::Http(HttpProbe { version: HttpVersion::Http2, ..get() }),
        ProbeKind::Http(HttpProbe { redirects: Redirects::SameHost, ..get() }),
        ProbeKind::Http(HttpProbe { connection: Connection::Polite, ..get() }),
        ProbeKind::Http(HttpProbe { reuse_connection: true, scheme: Scheme::Https, ..get() }),
        ProbeKind::Http(HttpProbe { expected_body: Some(BodyRule::Contains("up".into())), ..get() }),
        ProbeKind::Http(HttpProbe { path: "no path".into(), ..get() }),
        ProbeKind::Http(framed("Transfer-Encoding")),
        ProbeKind::Http(framed("connection")),
        ProbeKind::Tcp(TcpProbe { send: Some(b"x"[..].into()), ..TcpProbe::default() }),
        ProbeKind::Tcp(TcpProbe { receive: vec![b"x"[..].into()], ..TcpProbe::default() }),
        ProbeKind::Tcp(TcpProbe { tls: Some(crate::secured::skip()), ..TcpProbe::default() }),
        ProbeKind::Grpc(GrpcProbe::default()),
    ];
    for kind in kinds {
        let attempt = attempt(Some(to.clone()), kind, ENOUGH);
        assert!(lane.asks(attempt.dial.as_ref(), &attempt.probe, true).is_none(), "{:?}", attempt.probe);
    }
    let named = attempt(Some(crate::support::named("localhost", 80)), tcp(Handshake::HalfOpen), ENOUGH);
    assert!(lane.asks(named.dial.as_ref(), &named.probe, false).is_none());
    assert!(lane.asks(None, &named.probe, false).is_none());
}

/// Answers changed at random: whatever comes, both say the same.
#[test]
fn of_answers_that_are_none_they_say_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let now = Arc::new(Mutex::new(vec![]));
    let answer = now.clone();
    let address = runtime.block_on(target(move |mut stream| {
        let bytes: Vec<u8> = answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            // Until the other side has read it: with unread bytes a close would be a reset.
            while let Ok(1..) = stream.read(&mut [0; 4096]).await {}
        }
    }));
    let prober = both();
    let mut lane = runtime.block_on(async { lane(&prober) });
    let asked = attempt(Some(at(address)), ProbeKind::Http(get()), ENOUGH);
    let mut check = |bytes: Vec<u8>| {
        *now.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
        let (ordinary, fast) = runtime.block_on(async {
            let ordinary = run(&prober, asked.clone()).await;
            (ordinary, by(&mut lane, &asked).await)
        });
        (ordinary.outcome, fast.outcome)
    };
    for seed in seeds("http1") {
        let (ordinary, fast) = check(seed);
        assert_eq!(fast, ordinary);
    }
    let check = std::cell::RefCell::new(check);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&mutated("http1"), |changed| {
            let (ordinary, fast) = check.borrow_mut()(changed);
            prop_assert_eq!(fast, ordinary);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}
