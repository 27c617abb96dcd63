//! The HTTP probe against targets that lie, drip, flood, stall and break off.

use std::time::Duration;

use healthcheck_operator::check::{Connection, HttpProbe, Outcome, Reason};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{ENOUGH, SHORT, assert_reason, at, floods, get, read_head, run_http, says, target};

#[tokio::test]
async fn headers_are_taken_up_to_64_and_16_kib() {
    let with_headers = |count: usize| {
        let headers: String = (0..count).map(|n| format!("x-{n}: y\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\n{headers}\r\n")
    };
    assert_eq!(run_http(at(says(with_headers(64)).await), get(), ENOUGH).await, Outcome::Success);
    let outcome = run_http(at(says(with_headers(65)).await), get(), ENOUGH).await;
    assert_reason(&outcome, Reason::HeadersTooLarge, "over 64 or 16 KiB");

    let with_bytes = |count: usize| {
        let frame = "HTTP/1.1 200 OK\r\nx: \r\n\r\n".len();
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(count - frame))
    };
    assert_eq!(run_http(at(says(with_bytes(16_000)).await), get(), ENOUGH).await, Outcome::Success);
    let outcome = run_http(at(says(with_bytes(40_000)).await), get(), ENOUGH).await;
    assert_reason(&outcome, Reason::HeadersTooLarge, "");
}

#[tokio::test]
async fn endless_heads_end_at_their_limit_not_at_the_deadline() {
    for (what, address) in [
        (
            "headers",
            floods("HTTP/1.1 200 OK\r\n", "x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n", Duration::ZERO).await,
        ),
        (
            "one header",
            floods("HTTP/1.1 200 OK\r\nx: ", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy", Duration::ZERO).await,
        ),
        ("a status line", floods("HTTP/1.1 200 ", "OK OK OK OK OK OK OK OK OK OK OK OK OK OK", Duration::ZERO).await),
        ("interim answers", floods("", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", Duration::ZERO).await),
    ] {
        let outcome = run_http(at(address), get(), ENOUGH * 6).await;
        assert_eq!(outcome.reason(), Some(Reason::HeadersTooLarge), "{what}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_body_is_never_waited_for() {
    let endless = floods("HTTP/1.1 200 OK\r\n\r\n", "a body without an end ", Duration::ZERO).await;
    assert_eq!(run_http(at(endless), get(), ENOUGH * 6).await, Outcome::Success);
    let promised = says("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
    assert_eq!(run_http(at(promised), get(), ENOUGH * 6).await, Outcome::Success);
    // A polite end reads some of it, and gives up by the deadline.
    let polite = HttpProbe { connection: Connection::Polite, ..get() };
    assert_eq!(run_http(at(endless), polite.clone(), ENOUGH * 6).await, Outcome::Success);
    assert_eq!(run_http(at(promised), polite, SHORT).await, Outcome::Success);
}

#[tokio::test]
async fn what_is_no_http_is_malformed() {
    let greeting = "SSH-2.0-OpenSSH_9.6\r\n";
    for answer in [
        &b"\x00\x01\x02\x03 garbage \xff\xfe\r\n\r\n"[..],
        greeting.as_bytes(),
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"<html>HTTP/0.9 says no status</html>",
    ] {
        let outcome = run_http(at(says(answer).await), get(), ENOUGH).await;
        assert_reason(&outcome, Reason::MalformedResponse, "the answer is not HTTP/1.1");
    }
}

#[tokio::test]
async fn an_odd_status_is_an_answer() {
    for (answer, got) in
        [("HTTP/1.1 599 \r\n\r\n", "599"), ("HTTP/1.0 404\r\n\r\n", "404"), ("HTTP/1.1 999 x\r\n\r\n", "999")]
    {
        let outcome = run_http(at(says(answer).await), get(), ENOUGH).await;
        assert_reason(&outcome, Reason::UnexpectedStatus, &format!("got '{got}', want '200-399'"));
    }
    let outcome =
        run_http(at(says("HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await), get(), ENOUGH);
    assert_reason(&outcome.await, Reason::UnexpectedStatus, "got '101'");
}

#[tokio::test]
async fn a_target_that_breaks_off_is_told_by_how() {
    let at_once = target(|mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let midway = target(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
    })
    .await;
    for address in [at_once, midway] {
        let outcome = run_http(at(address), get(), ENOUGH).await;
        assert_reason(&outcome, Reason::ConnectionClosed, "connection closed before an answer");
    }
    let reset = target(|mut stream| async move {
        read_head(&mut stream).await;
        reset(&stream);
    })
    .await;
    let outcome = run_http(at(reset), get(), ENOUGH).await;
    assert_reason(&outcome, Reason::ConnectionReset, "connection reset");
}

/// Dropping `stream` resets it from now on.
fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("linger");
}

#[tokio::test]
async fn a_reset_on_accept_is_a_connect_failure() {
    let address = target(|stream| async move { reset(&stream) }).await;
    let outcome = run_http(at(address), get(), ENOUGH).await;
    // Which of the two depends on whether the reset comes before or after the request is written.
    let reason = outcome.reason().expect("a reason");
    assert!(matches!(reason, Reason::ConnectionReset | Reason::ConnectionClosed), "{outcome:?}");
    assert_eq!(reason.class(), Some(healthcheck_operator::check::Class::Connect));
}

#[tokio::test]
async fn silence_and_drips_end_at_the_deadline() {
    let silent = target(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.read(&mut [0; 16]).await;
    })
    .await;
    let deaf = target(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let drip = floods("HTTP/1.1 200 OK\r\nx: ", "y", Duration::from_millis(100)).await;
    let interim = floods("", "HTTP/1.1 100 Continue\r\n\r\n", Duration::from_millis(50)).await;
    for address in [silent, deaf, drip, interim] {
        let outcome = run_http(at(address), get(), SHORT).await;
        assert_reason(&outcome, Reason::TimeoutResponse, "");
        assert_eq!(outcome.message(), "no answer in 300ms (Response)");
    }
}
