//! The fast lane beside the ordinary one: whatever a target does, both say the same of it. What it does at its worst is in
//! `hostile.rs`.

use std::{
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
    time::{Instant, sleep},
};

use crate::{
    mutate::{mutated, seeds},
    support::{
        Deaf, ENOUGH, LOOPBACK, SHORT, after_the_request, assert_reason, at, attempt, closed_port, get, loopback_v6,
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
pub async fn said(dial: Dial, kind: ProbeKind, timeout: Duration) -> (Report, Vec<Report>) {
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

/// What both lanes say, in the same words and with the same status.
pub async fn agreed(what: &str, dial: Dial, kind: ProbeKind, timeout: Duration) -> Outcome {
    let (ordinary, fast) = said(dial, kind, timeout).await;
    for fast in fast {
        assert_eq!(fast.outcome, ordinary.outcome, "{what}");
        assert_eq!(fast.status, ordinary.status, "{what}");
        assert!(fast.latency <= timeout + ENOUGH, "{what}: {fast:?}");
    }
    ordinary.outcome
}

/// Both lanes say `want` (`None`: a success, or a neutral answer).
async fn agree(what: &str, dial: Dial, kind: ProbeKind, timeout: Duration, want: Option<Reason>) {
    let outcome = agreed(what, dial, kind, timeout).await;
    assert_eq!(outcome.reason(), want, "{what}: {outcome:?}");
}

fn tcp(handshake: Handshake) -> ProbeKind {
    ProbeKind::Tcp(TcpProbe { handshake, ..TcpProbe::default() })
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
