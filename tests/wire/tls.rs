//! The HTTP probe over TLS.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use healthcheck_operator::{
    check::{HttpProbe, Outcome, ProbeKind, Reason, Reference, ReferenceKind, Report, Scheme, Tls, TlsMode},
    probe::{Prober, ReferenceResult, References, Settings},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{
    HandshakeKind, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{ENOUGH, LOOPBACK, SHORT, assert_reason, at, attempt, get, named, run, target};

/// An authority made for one test.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        Self { issuer }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for `names` that holds in these years.
    pub fn leaf(&self, names: &[&str], years: (i32, i32)) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf_params(names, years).signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

fn leaf_params(names: &[&str], (from, to): (i32, i32)) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("parameters");
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    params
}

/// 2100-01-01T00:00:00Z and 2001-01-01T00:00:00Z.
const Y2100: i64 = 4_102_444_800;
const Y2001: i64 = 978_307_200;
pub const VALID: (i32, i32) = (2000, 2100);
const EXPIRED: (i32, i32) = (2000, 2001);

type Handshakes = Arc<Mutex<Vec<(HandshakeKind, Option<String>)>>>;

/// A TLS server that answers 200, and the handshakes it made: how, and with which SNI.
async fn server(
    (certificate, key): (CertificateDer<'static>, PrivateKeyDer<'static>),
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> (SocketAddr, Handshakes) {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let handshakes = Handshakes::default();
    let keep = Arc::clone(&handshakes);
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let (_, session) = stream.get_ref();
            assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
            let name = session.server_name().map(str::to_owned);
            keep.lock().expect("no panic").push((session.handshake_kind().expect("done"), name));
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    (address, handshakes)
}

/// Hands out one CA, whatever is asked for.
struct Ca(String);

impl References for Ca {
    fn get<'a>(&'a self, _: &'a str, _: &'a Reference) -> BoxFuture<'a, ReferenceResult> {
        Box::pin(std::future::ready(Ok(Bytes::from(self.0.clone()))))
    }
}

fn prober(ca: &str) -> Prober {
    Prober::new(Settings { references: Arc::new(Ca(ca.to_owned())), ..Settings::standalone() })
}

fn verify(server_name: Option<&str>) -> Tls {
    let ca = Reference { kind: ReferenceKind::ConfigMap, name: "ca".into(), key: "ca.crt".into() };
    Tls { mode: TlsMode::Verify, server_name: server_name.map(Into::into), ca: Some(ca), client: None }
}

fn skip() -> Tls {
    Tls { mode: TlsMode::SkipVerify, ..Tls::default() }
}

async fn probe(prober: &Prober, address: SocketAddr, host: Option<&str>, tls: Tls) -> Report {
    let probe = HttpProbe { scheme: Scheme::Https, host: host.map(Into::into), tls, ..get() };
    run(prober, attempt(Some(at(address)), ProbeKind::Http(probe), ENOUGH)).await
}

#[tokio::test]
async fn a_certificate_that_ends_too_soon_is_told_before_it_does() {
    let ca = Authority::new("ours");
    let (address, _) = server(ca.leaf(&["127.0.0.1"], VALID), &[&TLS13]).await;
    let prober = prober(&ca.pem());
    for tls in [verify(None), skip()] {
        for (hours, fails) in [(24, false), (99_999 * 24, true)] {
            let validity = Some(std::time::Duration::from_secs(hours * 3600));
            let probe =
                HttpProbe { scheme: Scheme::Https, tls: tls.clone(), min_certificate_validity: validity, ..get() };
            let report = run(&prober, attempt(Some(at(address)), ProbeKind::Http(probe), ENOUGH)).await;
            assert_eq!(report.certificate_expires, Some(Y2100));
            if fails {
                assert_reason(&report.outcome, Reason::CertificateExpiring, "h, want at least 2399976h");
            } else {
                assert_eq!(report.outcome, Outcome::Success);
            }
        }
    }
}

#[tokio::test]
async fn an_authority_that_serves_by_its_own_certificate_is_told_as_such() {
    let key = KeyPair::generate().expect("a key");
    let mut params = leaf_params(&["127.0.0.1"], VALID);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let itself = params.self_signed(&key).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let (address, _) = server((itself.der().clone(), key), &[&TLS13]).await;
    let report = probe(&prober(&itself.pem()), address, None, verify(None)).await;
    assert_reason(&report.outcome, Reason::CertificateInvalid, "it is an authority's, not a server's (self-signed?)");
}

#[tokio::test]
async fn a_certificate_is_verified_against_the_name_that_is_asked_for() {
    let ca = Authority::new("ours");
    let (address, handshakes) = server(ca.leaf(&["orders.example", "127.0.0.1"], VALID), &[&TLS13, &TLS12]).await;
    let prober = prober(&ca.pem());
    for (host, server_name) in [
        (None, None),
        (Some("orders.example"), None),
        (Some("orders.example:8443"), None),
        (Some("x.example"), Some("orders.example")),
    ] {
        let report = probe(&prober, address, host, verify(server_name)).await;
        assert_eq!(report.outcome, Outcome::Success, "{host:?} {server_name:?}");
        assert_eq!(report.certificate_expires, Some(Y2100));
    }
    let names: Vec<_> = handshakes.lock().expect("no panic").iter().map(|(_, name)| name.clone()).collect();
    assert_eq!(names[0], None, "an address is no SNI");
    assert_eq!(names[1..], vec![Some("orders.example".to_owned()); 3]);

    let report = probe(&prober, address, Some("x.example"), verify(None)).await;
    assert_reason(&report.outcome, Reason::CertificateInvalid, "not valid for name");
    let report = probe(&prober, address, Some("orders.example"), verify(Some("x.example"))).await;
    assert_reason(&report.outcome, Reason::CertificateInvalid, "not valid for name");
}

#[tokio::test]
async fn what_cannot_be_trusted_is_refused_and_taken_only_when_told_to() {
    let ca = Authority::new("ours");
    let trusting = prober(&ca.pem());
    let key = KeyPair::generate().expect("a key");
    let own = leaf_params(&["127.0.0.1"], VALID).self_signed(&key).expect("a certificate");
    let own = (own.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into());
    for (leaf, reason, message, expires, told) in [
        (own, Reason::CertificateInvalid, "certificate refused", Y2100, None),
        (
            Authority::new("another").leaf(&["127.0.0.1"], VALID),
            Reason::CertificateInvalid,
            "UnknownIssuer",
            Y2100,
            None,
        ),
        (ca.leaf(&["127.0.0.1"], EXPIRED), Reason::CertificateExpired, "2001-01-01T00:00:00Z", Y2001, Some(Y2001)),
        (ca.leaf(&["127.0.0.1"], (2090, 2100)), Reason::CertificateInvalid, "not valid yet", Y2100, None),
    ] {
        let (address, _) = server(leaf, &[&TLS13, &TLS12]).await;
        let report = probe(&trusting, address, None, verify(None)).await;
        assert_reason(&report.outcome, reason, message);
        assert_eq!(report.certificate_expires, told);
        let report = probe(&trusting, address, None, skip()).await;
        assert_eq!(report.outcome, Outcome::Success);
        assert_eq!(report.certificate_expires, Some(expires));
    }
}

#[tokio::test]
async fn sessions_are_resumed_and_still_tell_when_the_certificate_expires() {
    for version in [&TLS13, &TLS12] {
        let ca = Authority::new("ours");
        let (address, handshakes) = server(ca.leaf(&["127.0.0.1"], VALID), &[version]).await;
        let prober = prober(&ca.pem());
        for _ in 0..3 {
            let report = probe(&prober, address, None, verify(None)).await;
            assert_eq!((report.outcome, report.certificate_expires), (Outcome::Success, Some(Y2100)));
        }
        let kinds: Vec<_> = handshakes.lock().expect("no panic").iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed], "{version:?}");
        // A session that was never verified is not resumed by a probe that verifies, nor the other way round.
        assert_eq!(probe(&prober, address, None, skip()).await.outcome, Outcome::Success);
        assert_eq!(handshakes.lock().expect("no panic")[3].0, HandshakeKind::Full);
    }
}

#[tokio::test]
async fn a_target_that_is_no_tls_server_or_stalls_or_breaks_off() {
    let prober = prober("");
    let plain = target(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    let report = probe(&prober, plain, None, skip()).await;
    assert_reason(&report.outcome, Reason::TlsHandshakeFailed, "does not speak TLS");

    let closes = target(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    let report = probe(&prober, closes, None, skip()).await;
    assert_reason(&report.outcome, Reason::ConnectionClosed, "in the TLS handshake");

    let stalls = target(|mut stream| async move { while let Ok(1..) = stream.read(&mut [0; 4096]).await {} }).await;
    let probe = HttpProbe { scheme: Scheme::Https, tls: skip(), ..get() };
    let report = run(&prober, attempt(Some(at(stalls)), ProbeKind::Http(probe), SHORT)).await;
    assert_reason(&report.outcome, Reason::TimeoutTls, "no answer in 300ms (TLS)");
}

#[tokio::test]
async fn a_ca_that_is_none_is_our_own_trouble() {
    let ca = Authority::new("ours");
    let (address, handshakes) = server(ca.leaf(&["127.0.0.1"], VALID), &[&TLS13]).await;
    for (pem, message) in [("", "holds no certificate"), ("nonsense", "holds no certificate")] {
        let report = probe(&prober(pem), address, None, verify(None)).await;
        assert_reason(&report.outcome, Reason::SecretMissing, message);
        assert!(report.outcome.message().contains("key 'ca.crt' of ConfigMap 'ca'"), "{report:?}");
    }
    let broken = "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n";
    let report = probe(&prober(broken), address, None, verify(None)).await;
    assert_reason(&report.outcome, Reason::SecretMissing, "cannot be read");
    assert!(handshakes.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn a_name_is_its_own_sni() {
    let ca = Authority::new("ours");
    let (address, handshakes) = server(ca.leaf(&["localhost"], VALID), &[&TLS13]).await;
    let kind = ProbeKind::Http(HttpProbe { scheme: Scheme::Https, tls: verify(None), ..get() });
    let report = run(&prober(&ca.pem()), attempt(Some(named("localhost", address.port())), kind, ENOUGH)).await;
    assert_eq!((report.outcome, report.certificate_expires), (Outcome::Success, Some(Y2100)));
    assert_eq!(handshakes.lock().expect("no panic")[0].1.as_deref(), Some("localhost"));
}
