//! The gRPC probe: an HTTP/2 server of the test's own where an answer is wrong on purpose. Real servers answer in
//! `tests/apiserver/grpc.rs`.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use healthcheck_operator::check::{GrpcProbe, Outcome, ProbeKind, Reason};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use crate::support::{ENOUGH, SHORT, assert_reason, at, attempt, closed_port, prober, run, target};

const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 2];

/// What a server answers with: status, content type, message, `grpc-status` in the trailers (or in the headers, of an
/// answer that is all trailers).
#[derive(Clone, Copy)]
struct Answer {
    http: u16,
    kind: &'static str,
    message: &'static [u8],
    status: Option<&'static str>,
    trailers_only: bool,
}

const WELL: Answer =
    Answer { http: 200, kind: "application/grpc+proto", message: SERVING, status: Some("0"), trailers_only: false };

/// Answers every call with `answer`, and hands on what it was asked: path, authority, content type, message.
async fn server(answer: Answer) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<(http::request::Parts, Bytes)>) {
    let (asked, seen) = tokio::sync::mpsc::unbounded_channel();
    let address = target(move |stream| {
        let asked = asked.clone();
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let (parts, mut body) = request.into_parts();
                let asked = asked.clone();
                tokio::spawn(async move {
                    let mut message = vec![];
                    while let Some(Ok(data)) = body.data().await {
                        message.extend_from_slice(&data);
                    }
                    let _ = asked.send((parts, message.into()));
                    let mut head = http::Response::builder().status(answer.http).header("content-type", answer.kind);
                    if let (true, Some(status)) = (answer.trailers_only, answer.status) {
                        head = head.header("grpc-status", status);
                    }
                    let head = head.body(()).expect("a head");
                    let Ok(mut stream) = respond.send_response(head, answer.trailers_only) else { return };
                    if answer.trailers_only {
                        return;
                    }
                    let _ = stream.send_data(Bytes::from_static(answer.message), answer.status.is_none());
                    if let Some(status) = answer.status {
                        let mut trailers = http::HeaderMap::new();
                        trailers.insert("grpc-status", http::HeaderValue::from_static(status));
                        let _ = stream.send_trailers(trailers);
                    }
                });
            }
        }
    })
    .await;
    (address, seen)
}

async fn ask(address: SocketAddr, service: &str, timeout: Duration) -> Outcome {
    let probe = GrpcProbe { service: service.into(), ..GrpcProbe::default() };
    run(&prober(), attempt(Some(at(address)), ProbeKind::Grpc(probe), timeout)).await.outcome
}

#[tokio::test]
async fn a_server_that_serves_is_healthy_and_is_asked_by_the_protocol() {
    let (address, mut seen) = server(WELL).await;
    assert_eq!(ask(address, "bank.Ledger", ENOUGH).await, Outcome::Success);
    let (head, message) = seen.recv().await.expect("asked");
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/grpc.health.v1.Health/Check"));
    assert_eq!(head.uri.authority().map(|authority| authority.as_str()), Some(address.to_string().as_str()));
    assert_eq!(
        (&head.headers["content-type"], &head.headers["te"]),
        (&"application/grpc".parse().expect("a value"), &"trailers".parse().expect("a value"))
    );
    let timeout = head.headers["grpc-timeout"].to_str().expect("text").strip_suffix('m').map(str::parse::<u128>);
    assert!(matches!(timeout, Some(Ok(millis)) if millis > 0 && millis <= ENOUGH.as_millis()), "{timeout:?}");
    assert_eq!(&message[..], b"\0\0\0\0\x0d\x0a\x0bbank.Ledger");
}

#[tokio::test]
async fn every_other_word_fails_with_its_own_reason() {
    let trailers_only = |status| Answer { status: Some(status), trailers_only: true, message: &[], ..WELL };
    for (answer, reason, message) in [
        (Answer { message: NOT_SERVING, ..WELL }, Reason::GrpcNotServing, "service 'x' is NOT_SERVING"),
        (Answer { message: &[0, 0, 0, 0, 0], ..WELL }, Reason::GrpcNotServing, "service 'x' is UNKNOWN"),
        (Answer { message: &[0, 0, 0, 0, 2, 8, 3], ..WELL }, Reason::GrpcServiceUnknown, "does not know service 'x'"),
        (trailers_only("5"), Reason::GrpcServiceUnknown, "the server does not know service 'x'"),
        (trailers_only("12"), Reason::GrpcUnimplemented, "does not implement grpc.health.v1.Health"),
        (trailers_only("14"), Reason::GrpcNotServing, "gRPC status 14 (UNAVAILABLE)"),
        (trailers_only("99"), Reason::GrpcNotServing, "gRPC status 99 (unknown)"),
        (Answer { status: Some("7"), ..WELL }, Reason::GrpcNotServing, "gRPC status 7 (PERMISSION_DENIED)"),
        (Answer { status: None, ..WELL }, Reason::MalformedResponse, "not one of grpc.health.v1"),
        (Answer { status: Some("x"), ..WELL }, Reason::MalformedResponse, "not one of grpc.health.v1"),
        (Answer { message: &[1, 2, 3], ..WELL }, Reason::MalformedResponse, "not one of grpc.health.v1"),
        (trailers_only("0"), Reason::MalformedResponse, "not one of grpc.health.v1"),
        (Answer { http: 503, ..WELL }, Reason::UnexpectedStatus, "unexpected status code; got '503', want '200'"),
        (Answer { kind: "text/html", ..WELL }, Reason::MalformedResponse, "the answer is not gRPC"),
    ] {
        let (address, _seen) = server(answer).await;
        assert_reason(&ask(address, "x", ENOUGH).await, reason, message);
    }
    let (address, _seen) = server(Answer { message: NOT_SERVING, ..WELL }).await;
    assert_reason(&ask(address, "", ENOUGH).await, Reason::GrpcNotServing, "the server is NOT_SERVING");
}

#[tokio::test]
async fn what_is_no_http_2_is_told_as_such() {
    let http1 = target(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        let _ = stream.read(&mut [0; 16]).await;
    })
    .await;
    assert_reason(&ask(http1, "", ENOUGH).await, Reason::MalformedResponse, "the answer is not HTTP/2");
    let closes = target(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    let outcome = ask(closes, "", ENOUGH).await;
    assert!(matches!(outcome.reason(), Some(Reason::ConnectionClosed | Reason::ConnectionReset)), "{outcome:?}");
    let silent = target(|stream| async move {
        sleep(ENOUGH).await;
        drop(stream);
    })
    .await;
    assert_reason(&ask(silent, "", SHORT).await, Reason::TimeoutResponse, "(Response)");
    let (_held, nobody) = closed_port();
    assert_reason(&ask(nobody, "", ENOUGH).await, Reason::ConnectionRefused, "connection refused");
}

#[tokio::test]
async fn an_answer_without_an_end_is_cut_off() {
    let floods = target(|stream| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let head =
                    http::Response::builder().header("content-type", "application/grpc").body(()).expect("a head");
                let Ok(mut stream) = respond.send_response(head, false) else { return };
                while stream.send_data(Bytes::from_static(&[0; 1024]), false).is_ok() {
                    sleep(Duration::from_millis(1)).await;
                }
            });
        }
    })
    .await;
    assert_reason(&ask(floods, "", ENOUGH).await, Reason::BodyTooLarge, "the answer's body is over 4 KiB");
}
