//! Which HTTP is spoken, and who we are: `httpVersion` and client certificates.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use healthcheck_operator::{
    check::{
        BodyRule, ClientCertificate, Connection, HeaderSource, HttpHeader, HttpProbe, HttpVersion, Outcome, ProbeKind,
        Reason, Redirects, ReferenceKind, Report, Scheme, Tls,
    },
    probe::Prober,
};
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    secured::{self, Authority, Handshakes, Secured, VALID, Values, leaf_pem, reference, skip},
    support::{ENOUGH, SHORT, assert_reason, at, attempt, get, read_head, run, target},
};

type Seen = Arc<Mutex<Vec<http::request::Parts>>>;

/// How an HTTP/2 server answers.
#[derive(Clone, Copy)]
struct Answer {
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: &'static [u8],
    /// Sends the body over and over.
    endless: bool,
}

const OK: Answer = Answer { status: 200, headers: &[], body: b"all is well", endless: false };

/// Serves HTTP/2 on one connection.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, answer: Answer, seen: Seen) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let path = request.uri().path().to_owned();
        seen.lock().expect("no panic").push(request.into_parts().0);
        let mut head = http::Response::builder().status(if path == "/moved" { 302 } else { answer.status });
        if path == "/moved" {
            head = head.header("location", "/here");
        }
        for (name, value) in answer.headers {
            head = head.header(*name, *value);
        }
        let Ok(mut stream) = respond.send_response(head.body(()).expect("a head"), false) else { return };
        tokio::spawn(async move {
            while stream.send_data(Bytes::from_static(answer.body), !answer.endless).is_ok() && answer.endless {
                tokio::task::yield_now().await;
            }
        });
    }
}

/// An HTTP/2 server without TLS.
async fn h2c(answer: Answer) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let keep = Arc::clone(&seen);
    let address = target(move |stream| serve(stream, answer, Arc::clone(&keep))).await;
    (address, seen)
}

fn prober(values: &[(&str, &str)]) -> Prober {
    secured::prober(&Values::new(values))
}

/// A server that offers these protocols, and asks for a certificate of `clients` where there is one.
async fn secured(ca: &Authority, offers: &[&str], clients: Option<&Authority>) -> Secured {
    Secured::start(ca.leaf(&["127.0.0.1"], VALID), Handshakes { offers, clients, ..Handshakes::default() }).await
}

async fn ask(prober: &Prober, address: SocketAddr, probe: HttpProbe) -> Report {
    run(prober, attempt(Some(at(address)), ProbeKind::Http(probe), ENOUGH)).await
}

fn two() -> HttpProbe {
    HttpProbe { version: HttpVersion::Http2, ..get() }
}

#[tokio::test]
async fn without_tls_http2_is_spoken_by_prior_knowledge() {
    for connection in [Connection::Reset, Connection::Polite] {
        let (address, seen) = h2c(OK).await;
        let header = HttpHeader { name: "x-who".into(), source: HeaderSource::Value("probe".into()), append: true };
        let probe = HttpProbe { path: "/ready?deep=1".into(), headers: vec![header], connection, ..two() };
        assert_eq!(ask(&prober(&[]), address, probe).await.outcome, Outcome::Success);
        let seen = seen.lock().expect("no panic");
        let asked = &seen[0];
        assert_eq!(asked.uri.to_string(), format!("http://{address}/ready?deep=1"));
        assert_eq!(asked.headers["x-who"], "probe");
        assert!(!asked.headers.contains_key("connection") && !asked.headers.contains_key("host"), "{asked:?}");
    }
}

#[tokio::test]
async fn over_http2_answers_are_judged_like_any_other() {
    let well = HttpProbe { expected_body: Some(BodyRule::Contains("well".into())), ..two() };
    let (address, _) = h2c(OK).await;
    assert_eq!(ask(&prober(&[]), address, well.clone()).await.outcome, Outcome::Success);
    let sick = HttpProbe { expected_body: Some(BodyRule::Contains("sick".into())), ..two() };
    assert_reason(&ask(&prober(&[]), address, sick).await.outcome, Reason::UnexpectedBody, "sick");
    let head = HttpProbe { method: "HEAD".into(), ..two() };
    assert_eq!(ask(&prober(&[]), address, head).await.outcome, Outcome::Success);

    let (address, _) = h2c(Answer { status: 503, ..OK }).await;
    assert_reason(&ask(&prober(&[]), address, two()).await.outcome, Reason::UnexpectedStatus, "got '503'");
    let (address, _) = h2c(Answer { body: &[b'x'; 8192], endless: true, ..OK }).await;
    assert_reason(&ask(&prober(&[]), address, well).await.outcome, Reason::BodyTooLarge, "over 64 KiB");
    assert_eq!(ask(&prober(&[]), address, two()).await.outcome, Outcome::Success, "nobody reads it");

    let (address, seen) = h2c(OK).await;
    let moved = HttpProbe { path: "/moved".into(), redirects: Redirects::SameHost, ..two() };
    assert_eq!(ask(&prober(&[]), address, moved).await.outcome, Outcome::Success);
    let paths: Vec<_> = seen.lock().expect("no panic").iter().map(|asked| asked.uri.path().to_owned()).collect();
    assert_eq!(paths, ["/moved", "/here"]);

    let (address, seen) = h2c(OK).await;
    let post = HttpProbe { method: "POST".into(), body: Some("ping".into()), ..two() };
    assert_eq!(ask(&prober(&[]), address, post).await.outcome, Outcome::Success);
    assert_eq!(seen.lock().expect("no panic")[0].headers["content-length"], "4");
}

#[tokio::test]
async fn a_server_that_speaks_no_http2_is_told_as_such() {
    let old = target(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    assert_reason(&ask(&prober(&[]), old, two()).await.outcome, Reason::MalformedResponse, "not HTTP/2");

    let mute = target(|mut stream| async move { while let Ok(1..) = stream.read(&mut [0; 1024]).await {} }).await;
    let report = run(&prober(&[]), attempt(Some(at(mute)), ProbeKind::Http(two()), SHORT)).await;
    assert_reason(&report.outcome, Reason::TimeoutResponse, "no answer in 300ms");

    let closes = target(|mut stream| async move {
        let _ = stream.read(&mut [0; 24]).await;
    })
    .await;
    let outcome = ask(&prober(&[]), closes, two()).await.outcome;
    assert!(matches!(outcome, Outcome::Failure { .. }), "{outcome:?}");
}

/// What the handshake agrees on is spoken, and what is asked for is all that is offered.
#[tokio::test]
async fn over_tls_the_handshake_decides_unless_the_probe_does() {
    use HttpVersion::{Auto, Http2, Http11};
    let ca = Authority::new("ours");
    for (offers, version, agreed) in [
        (&["h2", "http/1.1"][..], Auto, Some("h2")),
        (&["http/1.1"], Auto, Some("http/1.1")),
        (&[], Auto, None),
        (&["h2", "http/1.1"], Http11, Some("http/1.1")),
        (&["h2", "http/1.1"], Http2, Some("h2")),
    ] {
        let server = secured(&ca, offers, None).await;
        let probe = HttpProbe { scheme: Scheme::Https, version, tls: skip(), ..get() };
        let report = ask(&prober(&[]), server.address, probe).await;
        assert_eq!(report.outcome, Outcome::Success, "{offers:?} {version:?}");
        assert!(report.certificate_expires.is_some());
        assert_eq!(server.sessions()[0].protocol.as_deref(), agreed, "{offers:?} {version:?}");
    }
    for offers in [&["http/1.1"][..], &[]] {
        let server = secured(&ca, offers, None).await;
        let probe = HttpProbe { scheme: Scheme::Https, tls: skip(), ..two() };
        let report = ask(&prober(&[]), server.address, probe).await;
        assert_reason(&report.outcome, Reason::TlsHandshakeFailed, "");
    }
}

fn secret(key: &str) -> healthcheck_operator::check::Reference {
    reference(ReferenceKind::Secret, "we", key)
}

/// A certificate of `authority` for a client, and its key, in PEM.
fn client(authority: &Authority) -> (String, String) {
    leaf_pem(authority, &["probe.example"], VALID)
}

fn shown() -> HttpProbe {
    let client = ClientCertificate { certificate: secret("tls.crt"), key: secret("tls.key") };
    let tls = Tls { ca: Some(secret("ca.crt")), client: Some(client), ..Tls::default() };
    HttpProbe { scheme: Scheme::Https, tls, ..get() }
}

#[tokio::test]
async fn a_server_that_asks_who_we_are_is_shown_our_certificate() {
    let (ca, clients) = (Authority::new("ours"), Authority::new("clients"));
    let ours = client(&clients);
    for offers in [&["h2"][..], &["http/1.1"]] {
        let server = secured(&ca, offers, Some(&clients)).await;
        let prober = prober(&[("ca.crt", &ca.pem()), ("tls.crt", &ours.0), ("tls.key", &ours.1)]);
        for _ in 0..2 {
            assert_eq!(ask(&prober, server.address, shown()).await.outcome, Outcome::Success, "{offers:?}");
        }
        assert!(server.sessions().iter().all(|session| session.client));
        // Without it, or with one that the server does not trust.
        let mut nobody = shown();
        nobody.tls.client = None;
        let report = ask(&prober, server.address, nobody).await;
        assert_reason(&report.outcome, Reason::TlsHandshakeFailed, "the target asks for a client certificate");
        let stranger = client(&Authority::new("strangers"));
        let stranger = self::prober(&[("ca.crt", &ca.pem()), ("tls.crt", &stranger.0), ("tls.key", &stranger.1)]);
        let report = ask(&stranger, server.address, shown()).await;
        assert_reason(&report.outcome, Reason::TlsHandshakeFailed, "TLS handshake failed");
    }
}

#[tokio::test]
async fn a_client_certificate_that_is_none_is_our_own_trouble() {
    let ca = Authority::new("ours");
    let server = secured(&ca, &["h2"], Some(&ca)).await;
    let (ours, other) = (client(&ca), client(&ca));
    let foreign = CertificateParams::new(vec![]).expect("parameters");
    let foreign = foreign.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").pem();
    for (certificate, key, message) in [
        ("", &*ours.1, "Secret 'we' cannot be used as a client certificate: its tls.crt holds no certificate in PEM"),
        ("nonsense", &ours.1, "its tls.crt holds no certificate in PEM"),
        (&ours.0, "", "its tls.key holds no private key in PEM"),
        (&ours.0, &ours.0, "its tls.key holds no private key in PEM"),
        (&ours.0, &other.1, "its tls.key is not the key of its tls.crt"),
        (&foreign, &ours.1, "its tls.key is not the key of its tls.crt"),
    ] {
        let prober = prober(&[("ca.crt", &ca.pem()), ("tls.crt", certificate), ("tls.key", key)]);
        let report = ask(&prober, server.address, shown()).await;
        assert_reason(&report.outcome, Reason::SecretMissing, message);
        assert!(!report.outcome.message().contains("BEGIN"));
    }
    assert!(server.sessions().is_empty());
}

#[tokio::test]
async fn http11_without_tls_is_what_it_was() {
    let address = target(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    for version in [HttpVersion::Auto, HttpVersion::Http11] {
        assert_eq!(ask(&prober(&[]), address, HttpProbe { version, ..get() }).await.outcome, Outcome::Success);
    }
}
