//! `reuseConnection`: a connection that is kept from round to round, and what becomes of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use healthcheck_operator::{
    check::{
        Attempt, BodyRule, Connection, HeaderSource, HttpHeader, HttpProbe, HttpVersion, Kept, Outcome, ProbeKind,
        Reason, Redirects, ReferenceKind, Report, Scheme,
    },
    probe::{KeptConnections, Prober, Settings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::sleep,
};

use crate::{
    secured::{Authority, Handshakes, Secured, VALID, Values, reference, skip, verify},
    support::{ENOUGH, assert_reason, at, attempt, eventually, get, prober, read_head, run, target},
};

pub const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server on which connection `n`, counted from 0, is served by `serve(n, stream)`; and how many there were.
pub async fn server<F>(serve: impl Fn(usize, TcpStream) -> F + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let address = target(move |stream| serve(count.fetch_add(1, Ordering::SeqCst), stream)).await;
    (address, connections)
}

/// Answers the first connection once and no more, without ending it, and every other as long as it is asked.
pub async fn forgetful(number: usize, mut stream: TcpStream) {
    read_head(&mut stream).await;
    let _ = stream.write_all(ANSWER).await;
    if number == 0 {
        while let Ok(1..) = stream.read(&mut [0; 1024]).await {}
    } else {
        serve_on(stream, ANSWER).await;
    }
}

/// Answers every request, until the other side is gone.
pub async fn serve_on(mut stream: TcpStream, answer: &[u8]) {
    while !read_head(&mut stream).await.is_empty() {
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

pub fn kept() -> HttpProbe {
    HttpProbe { reuse_connection: true, ..get() }
}

/// One endpoint, round after round.
struct Rounds {
    prober: Prober,
    attempt: Attempt,
    connections: KeptConnections,
}

impl Rounds {
    fn new(address: SocketAddr, probe: HttpProbe) -> Self {
        Self::with(Settings::standalone(), address, probe)
    }

    fn with(settings: Settings, address: SocketAddr, probe: HttpProbe) -> Self {
        let connections = settings.connections.clone();
        let attempt = attempt(Some(at(address)), ProbeKind::Http(probe), ENOUGH);
        let attempt = Attempt { kept: Some(Kept::default()), ..attempt };
        Self { prober: Prober::new(settings), attempt, connections }
    }

    async fn report(&self) -> Report {
        run(&self.prober, self.attempt.clone()).await
    }

    async fn next(&self) -> Outcome {
        self.report().await.outcome
    }

    async fn pass(&self, times: usize) {
        for time in 0..times {
            assert_eq!(self.next().await, Outcome::Success, "round {time}");
        }
    }

    fn lost(&self) -> u64 {
        self.connections.lost.get()
    }

    fn idle(&self) -> i64 {
        self.connections.idle.get()
    }
}

#[tokio::test]
async fn a_connection_is_kept_from_round_to_round() {
    let heads = Arc::new(Mutex::new(vec![]));
    let keep = Arc::clone(&heads);
    let (address, connections) = server(move |_, mut stream| {
        let keep = Arc::clone(&keep);
        async move {
            loop {
                let head = read_head(&mut stream).await;
                if head.is_empty() || stream.write_all(ANSWER).await.is_err() {
                    return;
                }
                keep.lock().expect("no panic").push(head);
            }
        }
    })
    .await;
    for connection in [Connection::Reset, Connection::Polite] {
        let before = connections.load(Ordering::SeqCst);
        let rounds = Rounds::new(address, HttpProbe { connection, ..kept() });
        rounds.pass(5).await;
        assert_eq!(connections.load(Ordering::SeqCst), before + 1);
        assert_eq!((rounds.idle(), rounds.lost()), (1, 0));
    }
    assert!(heads.lock().expect("no panic").iter().all(|head| !head.to_ascii_lowercase().contains("connection:")));
    // Who holds nothing for the next attempt, as a probe on demand, has a connection of his own that ends.
    let alone = attempt(Some(at(address)), ProbeKind::Http(kept()), ENOUGH);
    let before = connections.load(Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(run(&prober(), alone.clone()).await.outcome, Outcome::Success);
    }
    assert_eq!(connections.load(Ordering::SeqCst), before + 2);
    let last = heads.lock().expect("no panic").last().cloned().unwrap_or_default();
    assert!(last.to_ascii_lowercase().contains("connection: close"), "{last}");
}

#[tokio::test]
async fn over_tls_and_http2_it_is_kept_as_well() {
    let ca = Authority::new("ours");
    for offers in [&["http/1.1"][..], &["h2"]] {
        let handshakes = Handshakes { offers, ..Handshakes::default() };
        let server = Secured::start(ca.leaf(&["127.0.0.1"], VALID), handshakes).await;
        let settings =
            Settings { references: Arc::new(Values::new(&[("ca.crt", &ca.pem())])), ..Settings::standalone() };
        let probe = HttpProbe { scheme: Scheme::Https, tls: verify(None), ..kept() };
        let rounds = Rounds::with(settings, server.address, probe);
        for _ in 0..3 {
            let report = rounds.report().await;
            assert_eq!(report.outcome, Outcome::Success, "{offers:?}");
            assert!(report.certificate_expires.is_some(), "it is still known");
        }
        assert_eq!(server.sessions().len(), 1, "{offers:?}");
    }
    let (address, connections) = server(|_, stream| serve_h2c(stream)).await;
    let body = Some(BodyRule::Contains("up".into()));
    for probe in [kept(), HttpProbe { expected_body: body, ..kept() }] {
        let before = connections.load(Ordering::SeqCst);
        Rounds::new(address, HttpProbe { version: HttpVersion::Http2, ..probe }).pass(4).await;
        assert_eq!(connections.load(Ordering::SeqCst), before + 1);
    }
}

async fn serve_h2c(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let Ok(mut body) = respond.send_response(http::Response::new(()), false) else { return };
        let _ = body.send_data("all is up".into(), true);
    }
}

/// Closed while nobody looked: by a word before it, by a reset, after a time-out, or just so.
#[tokio::test]
async fn an_idle_connection_that_the_target_closed_is_no_failure() {
    for says in [&b""[..], b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"] {
        for by_reset in [false, true] {
            let closed = Arc::new(Notify::new());
            let tell = Arc::clone(&closed);
            let (address, connections) = server(move |_, mut stream| {
                let tell = Arc::clone(&tell);
                async move {
                    read_head(&mut stream).await;
                    let _ = stream.write_all(ANSWER).await;
                    let _ = stream.write_all(says).await;
                    if by_reset {
                        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
                    }
                    drop(stream);
                    tell.notify_one();
                }
            })
            .await;
            let rounds = Rounds::new(address, kept());
            for round in 1..=3 {
                let report = rounds.report().await;
                // A reset may overtake the answer, of a connection that was begun for it: that one counts.
                if !by_reset {
                    assert_eq!(report.outcome, Outcome::Success, "round {round}");
                }
                closed.notified().await;
            }
            assert_eq!(connections.load(Ordering::SeqCst), 3);
        }
    }
}

#[tokio::test]
async fn a_target_that_closes_on_the_request_is_asked_once_more() {
    // The race: the first connection ends when the second request is already out.
    let (address, connections) = server(|number, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(ANSWER).await;
        read_head(&mut stream).await;
        if number > 0 {
            let _ = stream.write_all(ANSWER).await;
            serve_on(stream, ANSWER).await;
        }
    })
    .await;
    let rounds = Rounds::new(address, kept());
    rounds.pass(4).await;
    assert_eq!((connections.load(Ordering::SeqCst), rounds.lost()), (2, 1));

    // Only once, and a fresh connection speaks for the target.
    let (address, connections) = server(|number, mut stream| async move {
        read_head(&mut stream).await;
        if number == 0 {
            let _ = stream.write_all(ANSWER).await;
            read_head(&mut stream).await;
        }
    })
    .await;
    let rounds = Rounds::new(address, kept());
    rounds.pass(1).await;
    assert_reason(&rounds.next().await, Reason::ConnectionClosed, "connection closed before an answer");
    assert_eq!(connections.load(Ordering::SeqCst), 2);

    // What was begun to be said is said by the target, on whatever connection.
    let (address, connections) = server(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(ANSWER).await;
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
    })
    .await;
    let rounds = Rounds::new(address, kept());
    rounds.pass(1).await;
    assert_reason(&rounds.next().await, Reason::ConnectionClosed, "connection closed before an answer");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

/// Over HTTP/2 a server says that it goes away, or just closes.
#[tokio::test]
async fn over_http2_too_a_connection_that_is_gone_is_no_failure() {
    for says_so in [true, false] {
        let (address, connections) = server(move |_, stream| async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            if let Some(Ok((_, mut respond))) = connection.accept().await {
                let _ = respond.send_response(http::Response::new(()), true);
            }
            if says_so {
                connection.graceful_shutdown();
                while connection.accept().await.is_some() {}
            } else {
                // Once the answer is out.
                let _ = tokio::time::timeout(Duration::from_millis(20), connection.accept()).await;
            }
        })
        .await;
        let rounds = Rounds::new(address, HttpProbe { version: HttpVersion::Http2, ..kept() });
        for _ in 0..3 {
            rounds.pass(1).await;
            sleep(Duration::from_millis(60)).await;
        }
        assert!(connections.load(Ordering::SeqCst) > 1, "{says_so}");
    }
}

/// A firewall that forgot the connection tells nobody: the request leads nowhere.
#[tokio::test]
async fn a_connection_on_which_nothing_comes_back_is_not_waited_for_to_the_end() {
    let (address, connections) = server(forgetful).await;
    let mut rounds = Rounds::new(address, kept());
    rounds.attempt = Attempt { probe: with_timeout(&rounds.attempt, Duration::from_secs(2)), ..rounds.attempt };
    rounds.pass(3).await;
    assert_eq!((connections.load(Ordering::SeqCst), rounds.lost()), (2, 1));

    // A target that is only slow has all of its time on the old connection.
    let (address, _) = server(|number, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(ANSWER).await;
        read_head(&mut stream).await;
        if number == 0 {
            sleep(Duration::from_millis(1_200)).await;
            let _ = stream.write_all(ANSWER).await;
        }
        std::future::pending::<()>().await;
    })
    .await;
    let mut rounds = Rounds::new(address, HttpProbe { path: "/slow".into(), ..kept() });
    rounds.attempt = Attempt { probe: with_timeout(&rounds.attempt, Duration::from_secs(2)), ..rounds.attempt };
    rounds.pass(1).await;
    let report = rounds.report().await;
    assert_eq!(report.outcome, Outcome::Success);
}

pub fn with_timeout(attempt: &Attempt, timeout: Duration) -> Arc<healthcheck_operator::check::Probe> {
    Arc::new(healthcheck_operator::check::Probe { timeout, kind: attempt.probe.kind.clone() })
}

/// Whatever becomes of a connection: a request that changes something is not sent again (RFC 9110, 9.2.2).
#[tokio::test]
async fn what_is_not_safe_is_never_sent_twice() {
    for closes in [true, false] {
        for (method, safe) in [("GET", true), ("HEAD", true), ("OPTIONS", true), ("POST", false), ("PUT", false)] {
            let requests = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&requests);
            // The second request of a connection is taken, and its answer never comes.
            let (address, _) = server(move |_, mut stream| {
                let count = Arc::clone(&count);
                async move {
                    for answered in [true, false] {
                        if read_head(&mut stream).await.is_empty() {
                            return;
                        }
                        count.fetch_add(1, Ordering::SeqCst);
                        if answered {
                            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                        }
                    }
                    if !closes {
                        while let Ok(1..) = stream.read(&mut [0; 1024]).await {}
                    }
                }
            })
            .await;
            let mut rounds = Rounds::new(address, HttpProbe { method: method.into(), ..kept() });
            rounds.attempt = Attempt { probe: with_timeout(&rounds.attempt, Duration::from_secs(2)), ..rounds.attempt };
            rounds.pass(3).await;
            let sent = requests.load(Ordering::SeqCst);
            assert_eq!(sent, if safe { 5 } else { 3 }, "{method}, closed: {closes}");
        }
    }
}

/// What does not end in an ordinary way cannot be asked again.
#[tokio::test]
async fn only_a_connection_whose_answer_ended_is_kept() {
    let whole = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nall u\r\n1\r\np\r\n0\r\n\r\n";
    let large = format!("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{}", "x".repeat(100_000));
    for (answer, keeps) in [
        (whole.to_owned(), true),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), true),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(), false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(), false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nand more".to_owned(), false),
        (large, false),
    ] {
        let answer: &'static str = answer.leak();
        let (address, connections) = server(move |_, stream| serve_on(stream, answer.as_bytes())).await;
        let rounds = Rounds::new(address, kept());
        rounds.pass(3).await;
        let what = &answer[..answer.len().min(60)];
        assert_eq!(connections.load(Ordering::SeqCst), if keeps { 1 } else { 3 }, "{what}");
        // What came beyond the answer may be seen only when it is asked again.
        assert!(keeps || rounds.idle() == 0 || answer.ends_with("more"), "{what}");
    }
}

#[tokio::test]
async fn redirects_and_bodies_go_over_the_same_connection() {
    let (address, connections) = server(|_, mut stream| async move {
        loop {
            let head = read_head(&mut stream).await;
            let answer = match () {
                () if head.is_empty() => return,
                () if head.starts_with("GET /there ") => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nup",
                () => "HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 4\r\n\r\ndown",
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let body = Some(BodyRule::Contains("up".into()));
    let rounds = Rounds::new(address, HttpProbe { redirects: Redirects::SameHost, expected_body: body, ..kept() });
    rounds.pass(3).await;
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn another_credential_or_authority_drops_it() {
    let (address, connections) = server(|_, stream| serve_on(stream, ANSWER)).await;
    let values = Values::new(&[("token", "first")]);
    let header = HttpHeader {
        name: "Authorization".into(),
        source: HeaderSource::Secret(reference(ReferenceKind::Secret, "vault", "token")),
        append: false,
    };
    let settings = || Settings { references: Arc::new(values.clone()), ..Settings::standalone() };
    let rounds = Rounds::with(settings(), address, HttpProbe { headers: vec![header], ..kept() });
    rounds.pass(2).await;
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    values.set("token", "second");
    rounds.pass(2).await;
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    values.remove("token");
    assert_reason(&rounds.next().await, Reason::SecretMissing, "not there");
    assert_eq!(rounds.idle(), 0, "what was opened with it is gone");

    let (ca, other) = (Authority::new("ours"), Authority::new("another"));
    let server = Secured::start(ca.leaf(&["127.0.0.1"], VALID), Handshakes::default()).await;
    values.set("ca.crt", &ca.pem());
    let probe = HttpProbe { scheme: Scheme::Https, tls: verify(None), ..kept() };
    let rounds = Rounds::with(settings(), server.address, probe);
    rounds.pass(2).await;
    values.set("ca.crt", &other.pem());
    assert_reason(&rounds.next().await, Reason::CertificateInvalid, "UnknownIssuer");
}

/// A connection shows its certificate once. One that will not do any longer is looked at anew.
#[tokio::test]
async fn a_certificate_that_ends_is_seen_on_a_connection_that_does_not() {
    let ca = Authority::new("ours");
    let server = Secured::start(ca.leaf(&["127.0.0.1"], VALID), Handshakes::default()).await;
    let probe = |days: u64| HttpProbe {
        scheme: Scheme::Https,
        tls: skip(),
        min_certificate_validity: Some(Duration::from_secs(days * 86_400)),
        ..kept()
    };
    let mut rounds = Rounds::new(server.address, probe(1));
    rounds.pass(2).await;
    assert_eq!(server.sessions().len(), 1);
    let kind = ProbeKind::Http(probe(99_999));
    let later = attempt(rounds.attempt.dial.clone(), kind, ENOUGH);
    rounds.attempt = Attempt { kept: rounds.attempt.kept.clone(), ..later };
    for _ in 0..2 {
        assert_reason(&rounds.next().await, Reason::CertificateExpiring, "certificate expires in");
    }
    assert_eq!(server.sessions().len(), 3, "there might have been a new one");
}

#[tokio::test]
async fn as_many_are_kept_as_there_is_room_for_and_they_end_with_who_holds_them() {
    let open = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&open);
    let (address, connections) = server(move |_, stream| {
        let count = Arc::clone(&count);
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            serve_on(stream, ANSWER).await;
            count.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let all = KeptConnections { limit: 2, ..KeptConnections::default() };
    let settings = || Settings { connections: all.clone(), ..Settings::standalone() };
    let endpoints = [(); 3].map(|()| Rounds::with(settings(), address, kept()));
    for _ in 0..3 {
        for endpoint in &endpoints {
            endpoint.pass(1).await;
        }
    }
    assert_eq!(all.idle.get(), 2);
    assert_eq!(connections.load(Ordering::SeqCst), 2 + 3, "the third has one of its own each time");
    eventually("two are open", || open.load(Ordering::SeqCst) == 2).await;
    drop(endpoints);
    assert_eq!(all.idle.get(), 0);
    eventually("none is open", || open.load(Ordering::SeqCst) == 0).await;
}

/// It is dialed elsewhere: what led to the old place is let go.
#[tokio::test]
async fn an_attempt_that_goes_elsewhere_drops_it() {
    let (here, first) = server(|_, stream| serve_on(stream, ANSWER)).await;
    let (there, second) = server(|_, stream| serve_on(stream, ANSWER)).await;
    let mut rounds = Rounds::new(here, kept());
    rounds.pass(2).await;
    for (address, of_here, of_there) in [(there, 1, 1), (there, 1, 1), (here, 2, 1)] {
        rounds.attempt.dial = Some(at(address));
        rounds.pass(1).await;
        assert_eq!((first.load(Ordering::SeqCst), second.load(Ordering::SeqCst)), (of_here, of_there));
        assert_eq!(rounds.idle(), 1);
    }
}
