//! The HTTP probe against targets that behave.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::IntoResponse,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use healthcheck_operator::{
    check::{
        Connection, HeaderSource, HttpHeader, HttpProbe, Outcome, ProbeKind, Reason, Redirects, Reference,
        ReferenceKind, StatusRange,
    },
    probe::{Prober, ReferenceResult, References, Settings},
};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpListener, sync::mpsc};

use crate::support::{
    ENOUGH, LOOPBACK, SHORT, assert_reason, at, attempt, named, prober, read_head, run, run_http, target,
};

/// A real HTTP server that answers by `answer` and keeps what it was asked.
async fn server<A, R>(answer: A) -> (SocketAddr, Seen)
where
    A: Fn(&Uri) -> R + Clone + Send + Sync + 'static,
    R: IntoResponse,
{
    let seen = Seen::default();
    let keep = Arc::clone(&seen);
    let handler = move |method: Method, uri: Uri, headers: HeaderMap| {
        let response = answer(&uri).into_response();
        keep.lock().expect("no panic").push((method, uri, headers));
        async move { response }
    };
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
    (address, seen)
}

type Seen = Arc<Mutex<Vec<(Method, Uri, HeaderMap)>>>;

fn requests(seen: &Seen) -> Vec<(Method, Uri, HeaderMap)> {
    seen.lock().expect("no panic").clone()
}

fn header(name: &str, value: &str, append: bool) -> HttpHeader {
    HttpHeader { name: name.into(), source: HeaderSource::Value(value.into()), append }
}

#[tokio::test]
async fn the_status_decides() {
    for (status, ranges, message) in [
        (200, vec![(200, 399)], None),
        (399, vec![(200, 399)], None),
        (503, vec![(200, 399)], Some("unexpected status code; got '503', want '200-399'")),
        (199 + 1, vec![(202, 202)], Some("unexpected status code; got '200', want '202'")),
        (404, vec![(200, 200), (400, 404)], None),
        (405, vec![(200, 200), (400, 404)], Some("unexpected status code; got '405', want '200,400-404'")),
        (302, vec![(200, 399)], None),
    ] {
        let (address, _) = server(move |_| StatusCode::from_u16(status).expect("a status")).await;
        let expected_statuses = ranges.into_iter().map(|(first, last)| StatusRange { first, last }).collect();
        let outcome = run_http(at(address), HttpProbe { expected_statuses, ..get() }, ENOUGH).await;
        match message {
            None => assert_eq!(outcome, Outcome::Success),
            Some(message) => {
                assert_reason(&outcome, Reason::UnexpectedStatus, "");
                assert_eq!(outcome.message(), message);
            }
        }
    }
}

use crate::support::get;

#[tokio::test]
async fn the_request_is_what_the_probe_says() {
    let (address, seen) = server(|_| StatusCode::OK).await;
    assert_eq!(run_http(at(address), get(), ENOUGH).await, Outcome::Success);
    let probe = HttpProbe {
        method: "POST".into(),
        path: "/health?deep=1&x=%20".into(),
        host: Some("orders.example".into()),
        headers: vec![
            header("X-One", "a", true),
            header("X-One", "b", true),
            header("X-Two", "a", true),
            header("X-Two", "b", false),
            header("User-Agent", "mine", true),
        ],
        ..get()
    };
    assert_eq!(run_http(at(address), probe, ENOUGH).await, Outcome::Success);
    let dial = named("localhost", address.port());
    assert_eq!(run_http(dial, HttpProbe { method: "HEAD".into(), ..get() }, ENOUGH).await, Outcome::Success);

    let seen = requests(&seen);
    let (method, uri, headers) = &seen[0];
    assert_eq!((method, uri.to_string()), (&Method::GET, "/".to_owned()));
    assert_eq!(headers[header::HOST], address.to_string());
    assert_eq!(headers[header::USER_AGENT], concat!("healthcheck-operator/", env!("CARGO_PKG_VERSION")));
    assert_eq!(headers[header::CONNECTION], "close");
    assert!(!headers.contains_key(header::ACCEPT_ENCODING), "what is not asked for need not be unpacked");

    let (method, uri, headers) = &seen[1];
    assert_eq!((method, uri.to_string()), (&Method::POST, "/health?deep=1&x=%20".to_owned()));
    assert_eq!(headers[header::HOST], "orders.example");
    assert_eq!(headers[header::CONTENT_LENGTH], "0");
    let all = |name: &str| headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect::<Vec<_>>();
    assert_eq!(all("x-one"), ["a", "b"]);
    assert_eq!(all("x-two"), ["b"]);
    assert_eq!(all("user-agent"), ["mine"]);

    let (method, _, headers) = &seen[2];
    assert_eq!(method, Method::HEAD);
    assert_eq!(headers[header::HOST], format!("localhost:{}", address.port()));
}

fn redirect(location: String) -> impl IntoResponse {
    (StatusCode::FOUND, [(header::LOCATION, location)])
}

#[tokio::test]
async fn redirects_are_followed_only_when_asked_only_on_the_host_and_only_three_times() {
    // Each path says how many redirects are still to come; the last one answers 204.
    let (address, seen) = server(|uri: &Uri| match uri.path().trim_start_matches('/').parse::<u32>() {
        Ok(0) | Err(_) => StatusCode::NO_CONTENT.into_response(),
        Ok(left) => redirect(format!("/{}", left - 1)).into_response(),
    })
    .await;
    let probe = |path: &str, redirects| HttpProbe {
        path: path.into(),
        redirects,
        expected_statuses: vec![StatusRange { first: 204, last: 204 }],
        ..get()
    };
    let outcome = run_http(at(address), probe("/1", Redirects::None), ENOUGH).await;
    assert_eq!(outcome.message(), "unexpected status code; got '302', want '204'");
    assert_eq!(requests(&seen).len(), 1);
    assert_eq!(run_http(at(address), probe("/3", Redirects::SameHost), ENOUGH).await, Outcome::Success);
    assert_eq!(requests(&seen).len(), 1 + 4);
    let outcome = run_http(at(address), probe("/4", Redirects::SameHost), ENOUGH).await;
    assert_reason(&outcome, Reason::RedirectRefused, "more than 3 times");
    assert_eq!(requests(&seen).len(), 1 + 4 + 4);
}

#[tokio::test]
async fn a_redirect_elsewhere_is_refused_and_elsewhere_hears_nothing() {
    let (elsewhere, elsewhere_seen) = server(|_| StatusCode::OK).await;
    for (location, why) in [
        (format!("http://{elsewhere}/"), "another port"),
        (format!("//localhost:{}/", elsewhere.port()), "another host"),
        ("https://127.0.0.1/?token=s3cret".to_owned(), "another scheme"),
        (format!("http://127.0.0.1@localhost:{}/", elsewhere.port()), "credentials"),
    ] {
        let (address, _) = server(move |_| redirect(location.clone())).await;
        let outcome = run_http(at(address), HttpProbe { redirects: Redirects::SameHost, ..get() }, ENOUGH).await;
        assert_reason(&outcome, Reason::RedirectRefused, why);
        assert!(!outcome.message().contains("s3cret"), "{outcome:?}");
    }
    assert!(requests(&elsewhere_seen).is_empty());
}

#[tokio::test]
async fn interim_answers_come_before_the_answer() {
    let address = target(|mut stream| async move {
        read_head(&mut stream).await;
        let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    assert_eq!(run_http(at(address), get(), ENOUGH).await, Outcome::Success);
}

/// What the target's read says once the probe has let go: its end, or a reset.
async fn goodbye(connection: Connection, body: &'static str) -> io::Result<usize> {
    let (tell, mut told) = mpsc::unbounded_channel();
    let address = target(move |mut stream| {
        let tell = tell.clone();
        async move {
            read_head(&mut stream).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.expect("an answer sent");
            let _ = tell.send(stream.read(&mut [0; 16]).await);
        }
    })
    .await;
    assert_eq!(run_http(at(address), HttpProbe { connection, ..get() }, ENOUGH).await, Outcome::Success);
    told.recv().await.expect("the target's word")
}

#[tokio::test]
async fn the_connection_ends_by_a_reset_or_politely() {
    let error = goodbye(Connection::Reset, "a body that nobody reads").await.expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(goodbye(Connection::Polite, "a body that is read").await.expect("an end"), 0);
    assert_eq!(goodbye(Connection::Polite, "").await.expect("an end"), 0);
}

struct Vault;

impl References for Vault {
    fn get<'a>(&'a self, namespace: &'a str, reference: &'a Reference) -> BoxFuture<'a, ReferenceResult> {
        Box::pin(async move {
            match (namespace, &*reference.name) {
                ("shop", "token") => Ok(Bytes::from_static(b"Bearer s3cret\n")),
                ("shop", "broken") => Ok(Bytes::from_static(b"s3cret\nX-Evil: s3cret")),
                ("shop", "forbidden") => Err((Reason::SecretForbidden, "not allowed to read it".into())),
                ("shop", "slow") => std::future::pending().await,
                _ => Err((Reason::SecretMissing, format!("Secret '{}' is not there", reference.name))),
            }
        })
    }
}

fn with_secret(name: &str) -> ProbeKind {
    let reference = Reference { kind: ReferenceKind::Secret, name: name.into(), key: "value".into() };
    let header = HttpHeader { name: "Authorization".into(), source: HeaderSource::Secret(reference), append: false };
    ProbeKind::Http(HttpProbe { headers: vec![header], ..get() })
}

#[tokio::test]
async fn a_header_from_a_secret_is_sent_and_never_told() {
    let (address, seen) = server(|_| StatusCode::IM_A_TEAPOT).await;
    let prober = Prober::new(Settings { references: Arc::new(Vault), ..Settings::standalone() });
    let report = run(&prober, attempt(Some(at(address)), with_secret("token"), ENOUGH)).await;
    assert_reason(&report.outcome, Reason::UnexpectedStatus, "got '418'");
    assert_eq!(requests(&seen)[0].2[header::AUTHORIZATION], "Bearer s3cret");

    for (name, reason, message, timeout) in [
        ("gone", Reason::SecretMissing, "'gone' is not there", ENOUGH),
        ("forbidden", Reason::SecretForbidden, "not allowed", ENOUGH),
        ("broken", Reason::SecretMissing, "key 'value' of Secret 'broken'", ENOUGH),
        ("slow", Reason::SecretMissing, "could not be read in 300ms", SHORT),
    ] {
        let outcome = run(&prober, attempt(Some(at(address)), with_secret(name), timeout)).await.outcome;
        assert_reason(&outcome, reason, message);
        assert!(!outcome.message().contains("s3cret"), "{outcome:?}");
    }
    assert_eq!(requests(&seen).len(), 1, "without its Secret a request is never sent");
    let outcome = run(&crate::support::prober(), attempt(Some(at(address)), with_secret("token"), ENOUGH)).await;
    assert_reason(&outcome.outcome, Reason::SecretMissing, "without a cluster");
}

#[tokio::test]
async fn every_attempt_has_a_connection_of_its_own() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let address = target(move |mut stream| {
        count.fetch_add(1, Ordering::Relaxed);
        async move {
            while !read_head(&mut stream).await.is_empty() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let prober = prober();
    for _ in 0..3 {
        let report = run(&prober, attempt(Some(at(address)), ProbeKind::Http(get()), ENOUGH)).await;
        assert_eq!(report.outcome, Outcome::Success);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 3);
}
