//! What load balancers really send.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use healthcheck_operator::server::{Access, AccessRequest, Authorizer, Decision, Servers, State};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};

use crate::support::{Fixture, LONG, answer, config, fill, raw, rest};

#[tokio::test]
async fn old_and_terse_clients_are_answered() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    for (request, status, body) in [
        ("GET /healthz/bank HTTP/1.0\r\n\r\n", "HTTP/1.0 200", true),
        ("OPTIONS / HTTP/1.0\r\n\r\n", "HTTP/1.0 503", true),
        ("OPTIONS /healthz/bank/ HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 200", true),
        ("GET /healthz/bank/ledger/ HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 200", true),
        (
            "GET http://lb.example/healthz/bank HTTP/1.1\r\nHost: lb.example\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200",
            true,
        ),
        ("HEAD /healthz HTTP/1.0\r\n\r\n", "HTTP/1.0 503", false),
        ("HEAD /healthz/bank HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 200", false),
        ("OPTIONS /__health HTTP/1.0\r\n\r\n", "HTTP/1.0 200", true),
        ("OPTIONS * HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 404", true),
    ] {
        let response = raw(fixture.public, request).await;
        let (head, sent) = response.split_once("\r\n\r\n").expect("a whole answer");
        assert!(head.starts_with(status), "{request}: {head}");
        assert_eq!(!sent.is_empty(), body, "{request}: {response}");
        assert!(head.to_lowercase().contains("cache-control: no-store"), "{head}");
        assert!(!head.to_lowercase().contains("location:"), "{head}");
    }
}

#[tokio::test]
async fn old_and_terse_clients_are_answered_by_the_admin_listener_too() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    fixture.readiness.not_ready("crd", "waiting");
    for (path, code, within) in [
        ("/livez", 200, "ok\n"),
        ("/livez/", 200, "ok\n"),
        ("/readyz", 503, "[-]crd failed: waiting\n"),
        ("/readyz?verbose", 503, "[-]crd failed: waiting\n"),
        ("/readyz/board/", 200, "ok\n"),
        ("/metrics", 200, "\n# TYPE healthcheck_operator_endpoints gauge\n"),
        ("/metrics/", 200, "\n# TYPE healthcheck_operator_endpoints gauge\n"),
        ("/metrics/probes/", 200, "\nprobe_success{namespace=\"bank\",name=\"ledger\","),
        ("/probe/?target=bank/ledger", 200, "\nprobe_success 1.0\n"),
        ("/v1/healthchecks", 200, "\"name\":\"ledger\""),
        ("/v1/healthchecks/bank/", 200, "\"name\":\"ledger\""),
        ("/v1/healthchecks/bank/ledger", 200, "\"name\":\"ledger\""),
        ("/v1/healthchecks/bank/nothing", 404, "{\"error\":"),
        ("/", 404, "{\"error\":"),
    ] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            for request in [
                format!("{method} {path} HTTP/1.0\r\n\r\n"),
                format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n\r\n"),
                format!("{method} http://lb.example{path} HTTP/1.1\r\nHost: lb.example\r\nConnection: close\r\n\r\n"),
            ] {
                let response = raw(fixture.admin, &request).await;
                let (head, sent) = response.split_once("\r\n\r\n").expect("a whole answer");
                let version = if request.contains("HTTP/1.0") { "HTTP/1.0" } else { "HTTP/1.1" };
                assert!(head.starts_with(&format!("{version} {code} ")), "{request}: {head}");
                assert!(!head.to_lowercase().contains("location:"), "{request}: {head}");
                if method == "HEAD" {
                    assert_eq!(sent, "", "{request}");
                    assert!(!head.contains("content-length: 0"), "the length that GET would have: {head}");
                } else {
                    assert!(sent.contains(within), "{request}: {sent}");
                }
            }
        }
    }
}

#[tokio::test]
async fn head_and_options_say_what_get_says() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    let get = fixture.get("/healthz?verbose").await;
    for method in [reqwest::Method::HEAD, reqwest::Method::OPTIONS] {
        let url = format!("http://{}/healthz?verbose", fixture.public);
        let other = answer(fixture.http.request(method.clone(), url)).await;
        assert_eq!(other.code, get.code, "{method}");
        assert_eq!(other.headers["content-length"], get.headers["content-length"], "{method}");
        assert_eq!(other.body, if method == "HEAD" { "" } else { &get.body });
    }
}

#[tokio::test]
async fn other_methods_are_refused_and_told_which_work() {
    let fixture = Fixture::start().await;
    for method in [reqwest::Method::POST, reqwest::Method::PUT, reqwest::Method::DELETE, reqwest::Method::PATCH] {
        for (address, path) in
            [(fixture.public, "/healthz"), (fixture.admin, "/v1/healthchecks"), (fixture.admin, "/livez")]
        {
            let refused = answer(fixture.http.request(method.clone(), format!("http://{address}{path}"))).await;
            assert_eq!(refused.code, 405, "{method} {path}");
            let mut allowed: Vec<_> = refused.headers["allow"].to_str().expect("ASCII").split(',').collect();
            allowed.sort_unstable();
            assert_eq!(allowed, ["GET", "HEAD", "OPTIONS"]);
        }
    }
}

/// Lets everybody in, but not before it is told to.
#[derive(Debug, Default)]
struct Gate {
    reached: Notify,
    open: Notify,
}

impl Authorizer for Gate {
    fn authorize<'a>(&'a self, _: &'a str, _: AccessRequest<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            self.reached.notify_one();
            self.open.notified().await;
            Decision::Allowed(None)
        })
    }
}

const GUARDED: &[u8] = b"GET /v1/healthchecks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n";

#[tokio::test]
async fn a_client_that_says_no_more_is_still_answered() {
    let gate = Arc::new(Gate::default());
    let fixture = Fixture::with(&config(&[]), Access::Cluster(gate.clone())).await;
    let mut stream = TcpStream::connect(fixture.admin).await.expect("the listener accepts");
    stream.write_all(GUARDED).await.expect("the listener reads");
    stream.shutdown().await.expect("half closed");
    timeout(LONG, gate.reached.notified()).await.expect("the request arrived");
    // Time for the server to see the end of the client's half, and to draw a wrong conclusion from it.
    tokio::time::sleep(Duration::from_millis(100)).await;
    gate.open.notify_one();
    let response = rest(&mut stream).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

#[tokio::test]
async fn an_answer_that_never_comes_does_not_hold_up_the_shutdown() {
    let gate = Arc::new(Gate::default());
    let mut config = config(&[]);
    config.limits.drain = Duration::from_millis(100);
    let fixture = Fixture::with(&config, Access::Cluster(gate.clone())).await;
    let mut stream = TcpStream::connect(fixture.admin).await.expect("the listener accepts");
    stream.write_all(GUARDED).await.expect("the listener reads");
    timeout(LONG, gate.reached.notified()).await.expect("the request arrived");
    fixture.stop.cancel();
    timeout(LONG, fixture.served).await.expect("the drain is bounded").expect("no panic");
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn an_answer_that_was_begun_is_finished_at_the_shutdown() {
    let gate = Arc::new(Gate::default());
    let mut config = config(&[]);
    config.limits.drain = LONG;
    let fixture = Fixture::with(&config, Access::Cluster(gate.clone())).await;
    let mut stream = TcpStream::connect(fixture.admin).await.expect("the listener accepts");
    stream.write_all(GUARDED).await.expect("the listener reads");
    timeout(LONG, gate.reached.notified()).await.expect("the request arrived");
    fixture.stop.cancel();
    gate.open.notify_one();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"));
    timeout(LONG, fixture.served).await.expect("the drain is bounded").expect("no panic");
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let fixture = Fixture::start().await;
    let mut stream = TcpStream::connect(fixture.public).await.expect("the listener accepts");
    for _ in 0..3 {
        stream.write_all(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the listener reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(LONG, stream.read_u8()).await.expect("in time").expect("an answer"));
        }
        assert!(head.starts_with(b"HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn a_shutdown_closes_idle_connections_and_frees_the_ports() {
    let fixture = Fixture::start().await;
    let mut idle = TcpStream::connect(fixture.public).await.expect("the listener accepts");
    idle.write_all(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the listener reads");
    let _ = idle.readable().await;
    let mut half_a_head = TcpStream::connect(fixture.admin).await.expect("the listener accepts");
    half_a_head.write_all(b"GET /livez HT").await.expect("the listener reads");
    fixture.stop.cancel();
    timeout(LONG, fixture.served).await.expect("the drain is bounded").expect("no panic");
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"));
    assert!(TcpStream::connect(fixture.public).await.is_err());
    assert!(TcpStream::connect(fixture.admin).await.is_err());
}

#[tokio::test]
async fn a_port_in_use_is_told_with_the_flag_and_the_address() {
    let fixture = Fixture::start().await;
    let state = || State {
        board: fixture.board.clone(),
        beats: fixture.beats.clone(),
        readiness: fixture.readiness.clone(),
        metrics: fixture.metrics.clone(),
        access: Access::Open,
        on_demand: None,
        passive: Default::default(),
    };
    let mut taken = config(&[]);
    taken.listen = fixture.public;
    let error = Servers::bind(&taken, state()).expect_err("in use").to_string();
    let expected = format!("cannot listen on --listen {}: the port is in use", fixture.public);
    assert!(error.starts_with(&expected), "{error}");
    let mut taken = config(&[]);
    taken.admin_listen = fixture.admin;
    let error = Servers::bind(&taken, state()).expect_err("in use").to_string();
    assert!(error.starts_with(&format!("cannot listen on --admin-listen {}", fixture.admin)), "{error}");
    let mut foreign = config(&[]);
    foreign.listen = "192.0.2.1:0".parse().expect("TEST-NET-1, RFC 5737");
    let error = Servers::bind(&foreign, state()).expect_err("not ours").to_string();
    assert!(error.contains("no such address"), "{error}");
}

#[tokio::test]
async fn every_address_means_both_families() {
    let mut both = config(&[]);
    both.listen = "[::]:0".parse().expect("valid");
    let fixture = Fixture::with(&both, Access::Open).await;
    let port = fixture.public.port();
    let request = "GET /healthz HTTP/1.0\r\n\r\n";
    assert!(raw(([127, 0, 0, 1], port).into(), request).await.starts_with("HTTP/1.0 200"));
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        let v6 = std::net::SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), port);
        assert!(raw(v6, request).await.starts_with("HTTP/1.0 200"));
    }
}
