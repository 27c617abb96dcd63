//! Slow, silent, greedy and many clients.

use std::time::Duration;

use healthcheck_operator::{check::Health, server::Access};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Check, Fixture, LONG, config, raw, rest};

#[tokio::test]
async fn a_client_that_never_ends_its_head_is_cut() {
    let mut config = config(&[]);
    config.limits.head = Duration::from_millis(300);
    let fixture = Fixture::with(&config, Access::Open).await;
    for begun in ["", "GET /healthz HTTP/1.1\r\nX-Slow: "] {
        let mut slow = TcpStream::connect(fixture.public).await.expect("the listener accepts");
        slow.write_all(begun.as_bytes()).await.expect("the listener reads");
        let (mut reading, mut writing) = slow.into_split();
        let drip = async {
            while writing.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let mut got = Vec::new();
        tokio::select! {
            read = timeout(LONG, reading.read_to_end(&mut got)) => { let _ = read.expect("the server closes"); }
            () = drip => {}
        }
        assert!(!String::from_utf8_lossy(&got).contains(" 200 "), "no answer to half a question");
    }
    assert_eq!(fixture.get("/healthz").await.code, 200, "others are served");
}

#[tokio::test]
async fn silent_clients_cannot_shut_others_out() {
    let mut config = config(&[]);
    config.limits.connections = 8;
    let fixture = Fixture::with(&config, Access::Open).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(fixture.public).await.expect("the listener accepts"));
        let answer = raw(fixture.public, "GET /healthz HTTP/1.0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.0 200"), "after {} silent clients: {answer:?}", silent.len());
    }
    // The first of them had to make room.
    assert_eq!(rest(&mut silent[0]).await, "");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() {
    let mut config = config(&[]);
    config.limits.stalled_write = Duration::from_millis(300);
    let fixture = Fixture::with(&config, Access::Open).await;
    // More than the kernel buffers between two sockets of loopback.
    let message = "x".repeat(4000);
    let check = |number| Check::new("shop", &format!("check-{number}"), Health::Unhealthy).message(&message).build();
    fixture.board.publish((0..5000).map(check).collect(), &[]);
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut deaf = socket.connect(fixture.public).await.expect("the listener accepts");
    deaf.write_all(b"GET /healthz?verbose HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the listener reads");
    let whole = fixture.get("/healthz?verbose").await.body.len();
    // Nothing is read until the server has given up: its end is gone when writing to it fails.
    let gone = async {
        while deaf.write_all(b"\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, gone).await.expect("the server gives up");
    let mut got = Vec::new();
    let _ = timeout(LONG, deaf.read_to_end(&mut got)).await.expect("the connection has ended");
    assert!(got.len() < whole, "the answer was cut: {} of {whole} bytes", got.len());
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read() {
    let fixture = Fixture::start().await;
    let request = "GET /v1/healthchecks HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n";
    let response = raw(fixture.admin, request).await;
    assert!(response.starts_with("HTTP/1.1 413"), "{response}");
    assert!(response.ends_with("{\"error\":\"the body has more than 65536 bytes\"}\n"), "{response}");
    assert!(raw(fixture.public, &request.replace("/v1/healthchecks", "/healthz")).await.starts_with("HTTP/1.1 413"));
    let small =
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\n{}", "12345");
    assert!(raw(fixture.public, &small).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_nothing_breaks() {
    let fixture = Fixture::start().await;
    let huge = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
    for bad in ["\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "hello\r\n\r\n", "GET /\x01 HTTP/1.1\r\n\r\n", &huge, &many] {
        let mut stream = TcpStream::connect(fixture.public).await.expect("the listener accepts");
        let _ = stream.write_all(bad.as_bytes()).await;
        let response = rest(&mut stream).await;
        assert!(!response.contains(" 200 "), "{response}");
    }
    assert_eq!(fixture.get("/healthz").await.code, 200);
    assert_eq!(fixture.get("/healthz/%ff/%fe").await.code, 400, "a name that is no text");
}
