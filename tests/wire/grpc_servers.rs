//! The gRPC probe against servers that others wrote: tonic-health, and Go's own (`tests/cluster/grpc-health`). A third, in
//! etcd, is asked in `tests/apiserver/grpc.rs`.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use healthcheck_operator::{
    check::{GrpcProbe, Outcome, ProbeKind, Reason, Report, Tls},
    probe::Prober,
};
use tokio::net::TcpListener;
use tonic::{
    service::Routes,
    transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming},
};
use tonic_health::ServingStatus;

use crate::{
    programs::{script, skip},
    secured::{self, Authority, VALID, Values, leaf_pem, verify},
    support::{ENOUGH, LOOPBACK, assert_reason, at, attempt, run},
};

/// One server, spoken to in three ways.
struct Servers {
    plain: SocketAddr,
    secured: SocketAddr,
    /// It serves, but no health.
    without: SocketAddr,
}

async fn ask(prober: &Prober, address: SocketAddr, service: &str, tls: Option<Tls>) -> Report {
    let probe = GrpcProbe { service: service.into(), tls, ..GrpcProbe::default() };
    run(prober, attempt(Some(at(address)), ProbeKind::Grpc(probe), ENOUGH)).await
}

/// What the protocol says, whoever wrote the server.
async fn every_answer(servers: &Servers, ca: &Authority) {
    let prober = secured::prober(&Values::new(&[("ca.crt", &ca.pem())]));
    for (address, tls) in [(servers.plain, None), (servers.secured, Some(verify(None)))] {
        for service in ["", "up"] {
            let report = ask(&prober, address, service, tls.clone()).await;
            assert_eq!(report.outcome, Outcome::Success, "'{service}' {tls:?}");
            assert_eq!(report.certificate_expires.is_some(), tls.is_some());
        }
        for (service, reason, message) in [
            ("down", Reason::GrpcNotServing, "service 'down' is NOT_SERVING"),
            ("nobody", Reason::GrpcServiceUnknown, "the server does not know service 'nobody'"),
        ] {
            assert_reason(&ask(&prober, address, service, tls.clone()).await.outcome, reason, message);
        }
    }
    let outcome = ask(&prober, servers.without, "", None).await.outcome;
    assert_reason(&outcome, Reason::GrpcUnimplemented, "the server does not implement grpc.health.v1.Health");
    // Without TLS to one that speaks it, and the other way round.
    let outcome = ask(&prober, servers.secured, "", None).await.outcome;
    assert!(matches!(outcome, Outcome::Failure { .. }), "{outcome:?}");
    let outcome = ask(&prober, servers.plain, "", Some(verify(None))).await.outcome;
    assert!(
        matches!(
            outcome.reason(),
            Some(Reason::TlsHandshakeFailed | Reason::ConnectionClosed | Reason::ConnectionReset)
        ),
        "{outcome:?}"
    );
}

/// Serves `routes` on a port of its own.
async fn tonic(routes: Routes, identity: Option<Identity>) -> SocketAddr {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let mut server = Server::builder();
    if let Some(identity) = identity {
        server = server.tls_config(ServerTlsConfig::new().identity(identity)).expect("a certificate");
    }
    tokio::spawn(server.add_routes(routes).serve_with_incoming(TcpIncoming::from(listener)));
    address
}

#[tokio::test]
async fn tonics_server_is_asked_by_its_protocol() {
    let ca = Authority::new("ours");
    let (certificate, key) = leaf_pem(&ca, &["127.0.0.1"], VALID);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("up", ServingStatus::Serving).await;
    reporter.set_service_status("down", ServingStatus::NotServing).await;
    let servers = Servers {
        plain: tonic(Routes::new(health.clone()), None).await,
        secured: tonic(Routes::new(health), Some(Identity::from_pem(certificate, key))).await,
        without: tonic(Routes::default(), None).await,
    };
    every_answer(&servers, &ca).await;

    // What changes is seen by the next who asks.
    let prober = secured::prober(&Values::default());
    reporter.set_service_status("up", ServingStatus::NotServing).await;
    let outcome = ask(&prober, servers.plain, "up", None).await.outcome;
    assert_reason(&outcome, Reason::GrpcNotServing, "service 'up' is NOT_SERVING");
}

/// Go's server. It ends with us.
struct Go(Child);

impl Drop for Go {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn gos_server_is_asked_by_its_protocol() {
    let directory = match tokio::task::spawn_blocking(|| script("grpc-health.sh")).await.expect("no panic") {
        Ok(directory) => directory,
        Err(error) => {
            assert_eq!(skip(&format!("{error:#}")), 0, "CI has Go");
            return;
        }
    };
    let ca = Authority::new("ours");
    let (certificate, key) = leaf_pem(&ca, &["127.0.0.1"], VALID);
    let files = tempfile::tempdir().expect("a directory");
    let (cert_file, key_file) = (files.path().join("tls.crt"), files.path().join("tls.key"));
    std::fs::write(&cert_file, certificate).expect("written");
    std::fs::write(&key_file, key).expect("written");
    let mut command = Command::new(directory.join("grpc-health"));
    command.arg("-cert").arg(&cert_file).arg("-key").arg(&key_file).args(["-authority", "ledger.example:443"]);
    let mut go = Go(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the server starts"));
    let lines = BufReader::new(go.0.stdout.take().expect("piped")).lines();
    let addresses: Vec<SocketAddr> =
        lines.take(3).map(|line| line.expect("a line").parse().expect("an address")).collect();
    let [plain, secured, without] = addresses[..] else { panic!("{addresses:?}") };
    every_answer(&Servers { plain, secured, without }, &ca).await;

    let prober = crate::support::prober();
    for (authority, serves) in [(Some("ledger.example:443"), true), (Some("other.example"), false), (None, false)] {
        let authority = authority.map(Into::into);
        let probe = GrpcProbe { service: "authority".into(), authority, ..GrpcProbe::default() };
        let outcome = run(&prober, attempt(Some(at(plain)), ProbeKind::Grpc(probe), ENOUGH)).await.outcome;
        assert_eq!(outcome == Outcome::Success, serves, "{outcome:?}");
    }
}
