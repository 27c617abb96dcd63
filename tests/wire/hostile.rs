//! HTTP targets that lie, drip, flood, stall and break off: the fast lane and the ordinary one say the same of them, and this.

use std::{net::SocketAddr, time::Duration};

use healthcheck_operator::check::{Class, Connection, HttpProbe, Outcome, ProbeKind, Reason};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    lanes::{agreed, said},
    reuse::ANSWER,
    support::{
        Deaf, ENOUGH, LOOPBACK, SHORT, after_the_request, assert_reason, at, closed_port, floods, get, run_http, says,
        target,
    },
};

/// Long before this all ends that is not waited for.
const LONG: Duration = Duration::from_secs(60);

/// Both lanes pass what is at `address`.
async fn passes(what: &str, address: SocketAddr, timeout: Duration) {
    assert_eq!(agreed(what, at(address), ProbeKind::Http(get()), timeout).await, Outcome::Success, "{what}");
}

/// Both lanes fail what is at `address` for this reason, with these words in the message.
async fn fails(what: &str, address: SocketAddr, timeout: Duration, reason: Reason, message: &str) {
    let outcome = agreed(what, at(address), ProbeKind::Http(get()), timeout).await;
    assert_eq!(outcome.reason(), Some(reason), "{what}: {outcome:?}");
    assert_reason(&outcome, reason, message);
}

/// The beginning of what is said, for messages.
fn start_of(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer).chars().take(80).collect()
}

#[tokio::test]
async fn headers_are_taken_up_to_64_and_16_kib() {
    let with_headers = |count: usize| {
        let headers: String = (0..count).map(|n| format!("x-{n}: y\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\n{headers}\r\n")
    };
    let with_bytes = |count: usize| {
        let frame = "HTTP/1.1 200 OK\r\nx: \r\n\r\n".len();
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(count - frame))
    };
    for answer in [with_headers(64), with_bytes(16_000), with_bytes(16 * 1024)] {
        passes(&start_of(answer.as_bytes()), says(answer).await, ENOUGH).await;
    }
    for answer in [with_headers(65), with_bytes(16 * 1024 + 1), with_bytes(40_000)] {
        let what = start_of(answer.as_bytes());
        fails(&what, says(answer).await, ENOUGH, Reason::HeadersTooLarge, "over 64 or 16 KiB").await;
    }
}

#[tokio::test]
async fn endless_heads_end_at_their_limit_not_at_the_deadline() {
    let none = Duration::ZERO;
    for (what, address) in [
        ("headers", floods("HTTP/1.1 200 OK\r\n", "x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n", none).await),
        ("one header", floods("HTTP/1.1 200 OK\r\nx: ", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy", none).await),
        ("a status line", floods("HTTP/1.1 200 ", "OK OK OK OK OK OK OK OK OK OK OK OK OK OK", none).await),
        ("interim answers", floods("", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", none).await),
    ] {
        fails(what, address, LONG, Reason::HeadersTooLarge, "over 64 or 16 KiB").await;
    }
}

#[tokio::test]
async fn a_body_is_never_waited_for() {
    let endless = floods("HTTP/1.1 200 OK\r\n\r\n", "a body without an end ", Duration::ZERO).await;
    passes("without an end", endless, LONG).await;
    let promised = says("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
    passes("promised", promised, LONG).await;
    // A polite end reads some of it, and gives up by the deadline. It is the ordinary lane's alone.
    let polite = HttpProbe { connection: Connection::Polite, ..get() };
    assert_eq!(run_http(at(endless), polite.clone(), LONG).await, Outcome::Success);
    assert_eq!(run_http(at(promised), polite, SHORT).await, Outcome::Success);
}

#[tokio::test]
async fn what_can_be_read_is_an_answer_however_odd() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..],
        b"HTTP/1.1 399 X\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: \xff\xfe\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\n",
        b"HTTP/1.1 204 X\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        passes(&start_of(answer), says(answer).await, ENOUGH).await;
    }
    let head = ProbeKind::Http(HttpProbe { method: "HEAD".into(), ..get() });
    let odd = says("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n").await;
    assert_eq!(agreed("an answer to HEAD", at(odd), head, ENOUGH).await, Outcome::Success);
}

#[tokio::test]
async fn what_is_no_http_is_malformed() {
    for answer in [
        &b"\x00\x01\x02\x03 garbage \xff\xfe\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nname : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: \xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"<html>HTTP/0.9 says no status</html>",
    ] {
        let what = start_of(answer);
        let address = says(answer).await;
        fails(&what, address, ENOUGH, Reason::MalformedResponse, "the answer is not HTTP/1.1").await;
    }
    // A number, but of more than anybody counts to.
    let most = says("HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n").await;
    fails("the longest body", most, ENOUGH, Reason::HeadersTooLarge, "").await;
}

#[tokio::test]
async fn an_odd_status_is_an_answer() {
    for (answer, got) in [
        ("HTTP/1.1 503 Down\r\n\r\n", "503"),
        ("HTTP/1.1 599 \r\n\r\n", "599"),
        ("HTTP/1.0 404\r\n\r\n", "404"),
        ("HTTP/1.1 999 x\r\n\r\n", "999"),
        ("HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "101"),
    ] {
        let message = format!("got '{got}', want '200-399'");
        fails(got, says(answer).await, ENOUGH, Reason::UnexpectedStatus, &message).await;
    }
}

#[tokio::test]
async fn a_target_that_breaks_off_is_told_by_how() {
    let at_once = after_the_request(|stream| async move { drop(stream) }).await;
    let midway = after_the_request(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
    })
    .await;
    let resets = after_the_request(|stream| async move { reset(&stream) }).await;
    let (_held, closed) = closed_port();
    for (what, address, reason, message) in [
        ("at once", at_once, Reason::ConnectionClosed, "connection closed before an answer"),
        ("midway", midway, Reason::ConnectionClosed, "connection closed before an answer"),
        ("by a reset", resets, Reason::ConnectionReset, "connection reset"),
        ("before it is reached", closed, Reason::ConnectionRefused, "connection refused"),
    ] {
        fails(what, address, ENOUGH, reason, message).await;
    }
    // What was said before counts.
    let answered = after_the_request(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        reset(&stream);
    })
    .await;
    passes("behind its answer", answered, ENOUGH).await;
}

/// Dropping `stream` resets it from now on.
fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("linger");
}

#[tokio::test]
async fn a_reset_on_accept_is_a_connect_failure() {
    let address = target(|stream| async move { reset(&stream) }).await;
    let (ordinary, fast) = said(at(address), ProbeKind::Http(get()), ENOUGH).await;
    for report in fast.iter().chain([&ordinary]) {
        // Which of the two depends on whether the reset comes before or after the request is written.
        let reason = report.outcome.reason().expect("a reason");
        assert!(matches!(reason, Reason::ConnectionReset | Reason::ConnectionClosed), "{report:?}");
        assert_eq!(reason.class(), Some(Class::Connect));
    }
}

#[tokio::test]
async fn silence_and_drips_end_at_the_deadline() {
    let silent = after_the_request(|mut stream| async move {
        let _ = stream.read(&mut [0; 16]).await;
    })
    .await;
    let deaf = target(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    for (what, address) in [
        ("silence", silent),
        ("who never reads", deaf),
        ("a drip", floods("HTTP/1.1 200 OK\r\nx: ", "y", SHORT / 3).await),
        ("drips of interim answers", floods("", "HTTP/1.1 100 Continue\r\n\r\n", SHORT / 6).await),
    ] {
        fails(what, address, SHORT, Reason::TimeoutResponse, "no answer in 300ms (Response)").await;
    }
    let queue = Deaf::at(SocketAddr::new(LOOPBACK, 0));
    fails("a full queue", queue.address, SHORT, Reason::TimeoutConnect, "no answer in 300ms (Connect)").await;
}

/// A target that speaks first, on a thread of its own: its words are there before the request, or with it.
fn speaks_first(words: &'static [u8]) -> SocketAddr {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind((LOOPBACK, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    // Ends with the process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(words);
            std::thread::spawn(move || while let Ok(1..) = stream.read(&mut [0; 4096]) {});
        }
    });
    address
}

/// As those do whose greeting or whose only answer is ready.
#[tokio::test]
async fn who_speaks_before_he_is_asked_is_heard() {
    let (answer, greeting) = (speaks_first(ANSWER), speaks_first(b"220 mail.example ESMTP\r\n"));
    // Who comes first is by chance.
    for _ in 0..20 {
        fails("a greeting", greeting, ENOUGH, Reason::MalformedResponse, "the answer is not HTTP/1.1").await;
        passes("an answer", answer, ENOUGH).await;
    }
}
