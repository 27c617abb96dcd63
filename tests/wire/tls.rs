//! The HTTP probe over TLS.

use std::net::SocketAddr;

use healthcheck_operator::{
    check::{HttpProbe, Outcome, ProbeKind, Reason, Report, Scheme, Tls},
    probe::Prober,
};
use rcgen::{BasicConstraints, IsCa, KeyPair};
use rustls::{
    HandshakeKind,
    pki_types::PrivatePkcs8KeyDer,
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    secured::{self, Authority, Handshakes, Leaf, Secured, VALID, Values, leaf_params, skip, verify},
    support::{ENOUGH, SHORT, assert_reason, at, attempt, get, named, run, target},
};

/// 2100-01-01T00:00:00Z and 2001-01-01T00:00:00Z.
const Y2100: i64 = 4_102_444_800;
const Y2001: i64 = 978_307_200;
const EXPIRED: (i32, i32) = (2000, 2001);

/// A server with this certificate that speaks these versions.
async fn server(leaf: Leaf, versions: &[&'static rustls::SupportedProtocolVersion]) -> Secured {
    Secured::start(leaf, Handshakes { versions, ..Handshakes::default() }).await
}

/// A prober that is told to trust `ca`.
fn prober(ca: &str) -> Prober {
    secured::prober(&Values::new(&[("ca.crt", ca)]))
}

async fn probe(prober: &Prober, address: SocketAddr, host: Option<&str>, tls: Tls) -> Report {
    let probe = HttpProbe { scheme: Scheme::Https, host: host.map(Into::into), tls, ..get() };
    run(prober, attempt(Some(at(address)), ProbeKind::Http(probe), ENOUGH)).await
}

#[tokio::test]
async fn a_certificate_that_ends_too_soon_is_told_before_it_does() {
    let ca = Authority::new("ours");
    let server = server(ca.leaf(&["127.0.0.1"], VALID), &[&TLS13]).await;
    let prober = prober(&ca.pem());
    for tls in [verify(None), skip()] {
        for (hours, fails) in [(24, false), (99_999 * 24, true)] {
            let validity = Some(std::time::Duration::from_secs(hours * 3600));
            let probe =
                HttpProbe { scheme: Scheme::Https, tls: tls.clone(), min_certificate_validity: validity, ..get() };
            let report = run(&prober, attempt(Some(at(server.address)), ProbeKind::Http(probe), ENOUGH)).await;
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
    let server = server((itself.der().clone(), key), &[&TLS13]).await;
    let report = probe(&prober(&itself.pem()), server.address, None, verify(None)).await;
    assert_reason(&report.outcome, Reason::CertificateInvalid, "it is an authority's, not a server's (self-signed?)");
}

#[tokio::test]
async fn a_certificate_is_verified_against_the_name_that_is_asked_for() {
    let ca = Authority::new("ours");
    let server = server(ca.leaf(&["orders.example", "127.0.0.1"], VALID), &[&TLS13, &TLS12]).await;
    let prober = prober(&ca.pem());
    for (host, server_name) in [
        (None, None),
        (Some("orders.example"), None),
        (Some("orders.example:8443"), None),
        (Some("x.example"), Some("orders.example")),
    ] {
        let report = probe(&prober, server.address, host, verify(server_name)).await;
        assert_eq!(report.outcome, Outcome::Success, "{host:?} {server_name:?}");
        assert_eq!(report.certificate_expires, Some(Y2100));
    }
    let names: Vec<_> = server.sessions().into_iter().map(|session| session.server_name).collect();
    assert_eq!(names[0], None, "an address is no SNI");
    assert_eq!(names[1..], vec![Some("orders.example".to_owned()); 3]);

    let report = probe(&prober, server.address, Some("x.example"), verify(None)).await;
    assert_reason(&report.outcome, Reason::CertificateInvalid, "not valid for name");
    let report = probe(&prober, server.address, Some("orders.example"), verify(Some("x.example"))).await;
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
        let server = server(leaf, &[&TLS13, &TLS12]).await;
        let report = probe(&trusting, server.address, None, verify(None)).await;
        assert_reason(&report.outcome, reason, message);
        assert_eq!(report.certificate_expires, told);
        let report = probe(&trusting, server.address, None, skip()).await;
        assert_eq!(report.outcome, Outcome::Success);
        assert_eq!(report.certificate_expires, Some(expires));
    }
}

#[tokio::test]
async fn sessions_are_resumed_and_still_tell_when_the_certificate_expires() {
    for version in [&TLS13, &TLS12] {
        let ca = Authority::new("ours");
        let server = server(ca.leaf(&["127.0.0.1"], VALID), &[version]).await;
        let prober = prober(&ca.pem());
        for _ in 0..3 {
            let report = probe(&prober, server.address, None, verify(None)).await;
            assert_eq!((report.outcome, report.certificate_expires), (Outcome::Success, Some(Y2100)));
        }
        let kinds: Vec<_> = server.sessions().iter().map(|session| session.kind).collect();
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed], "{version:?}");
        // A session that was never verified is not resumed by a probe that verifies, nor the other way round.
        assert_eq!(probe(&prober, server.address, None, skip()).await.outcome, Outcome::Success);
        assert_eq!(server.sessions()[3].kind, HandshakeKind::Full);
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
    let server = server(ca.leaf(&["127.0.0.1"], VALID), &[&TLS13]).await;
    for (pem, message) in [("", "holds no certificate"), ("nonsense", "holds no certificate")] {
        let report = probe(&prober(pem), server.address, None, verify(None)).await;
        assert_reason(&report.outcome, Reason::SecretMissing, message);
        assert!(report.outcome.message().contains("key 'ca.crt' of ConfigMap 'ca'"), "{report:?}");
    }
    let broken = "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n";
    let report = probe(&prober(broken), server.address, None, verify(None)).await;
    assert_reason(&report.outcome, Reason::SecretMissing, "cannot be read");
    assert!(server.sessions().is_empty());
}

#[tokio::test]
async fn a_name_is_its_own_sni() {
    let ca = Authority::new("ours");
    let server = server(ca.leaf(&["localhost"], VALID), &[&TLS13]).await;
    let kind = ProbeKind::Http(HttpProbe { scheme: Scheme::Https, tls: verify(None), ..get() });
    let report = run(&prober(&ca.pem()), attempt(Some(named("localhost", server.address.port())), kind, ENOUGH)).await;
    assert_eq!((report.outcome, report.certificate_expires), (Outcome::Success, Some(Y2100)));
    assert_eq!(server.sessions()[0].server_name.as_deref(), Some("localhost"));
}
