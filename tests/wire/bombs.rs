//! The HTTP probe against bodies that are not what they say: bombs, wrong lengths, broken chunks.

use std::{net::SocketAddr, process::Command, time::Duration};

use healthcheck_operator::check::{BodyRule, HttpProbe, Outcome, Reason};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use crate::support::{ENOUGH, SHORT, assert_reason, at, get, read_head, run_http, target};

/// A target that answers with `start` and then with `again` as often as it is taken; without `again` it closes, or waits.
async fn says(start: impl Into<Vec<u8>>, again: &'static [u8], closes: bool) -> SocketAddr {
    let start = start.into();
    target(move |mut stream| {
        let start = start.clone();
        async move {
            read_head(&mut stream).await;
            let mut sent = stream.write_all(&start).await;
            while sent.is_ok() && !again.is_empty() {
                sent = stream.write_all(again).await;
            }
            if !closes {
                let _ = stream.read(&mut [0; 16]).await;
            }
        }
    })
    .await
}

fn up() -> HttpProbe {
    HttpProbe { expected_body: Some(BodyRule::Contains("up".into())), ..get() }
}

/// What the probe makes of an answer whose body is looked at, and of one whose body is not.
async fn judged(address: SocketAddr) -> (Outcome, Outcome) {
    (run_http(at(address), up(), ENOUGH * 3).await, run_http(at(address), get(), ENOUGH * 3).await)
}

#[tokio::test]
async fn a_body_of_another_length_than_promised() {
    let of = |head: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}");
    // Less than promised, and then the end.
    for head in ["content-length: 10", "transfer-encoding: chunked"] {
        let (read, unread) = judged(says(of(head, "4\r\nup"), b"", true).await).await;
        assert_reason(&read, Reason::ConnectionClosed, "connection closed before the end of the body");
        assert_eq!(unread, Outcome::Success, "the status alone was asked for");
    }
    // More than promised: what is beyond belongs to no answer.
    let (read, _) = judged(says(of("content-length: 4", "downup"), b"", false).await).await;
    assert_reason(&read, Reason::UnexpectedBody, "up");
    let (read, _) = judged(says(of("content-length: 2", "up and much more"), b"", false).await).await;
    assert_eq!(read, Outcome::Success);
    // Lengths that contradict each other, or are none.
    for head in [
        "content-length: 2\r\ncontent-length: 3",
        "content-length: 2, 3",
        "content-length: +2",
        "content-length: 0x2",
        "content-length: 99999999999999999999999999",
        "content-length: ",
    ] {
        let (read, unread) = judged(says(of(head, "up"), b"", false).await).await;
        assert_reason(&read, Reason::MalformedResponse, "the answer is not HTTP/1.1");
        assert_reason(&unread, Reason::MalformedResponse, "the answer is not HTTP/1.1");
    }
    // Chunked wins over a length (RFC 9112, 6.3).
    let both = of("content-length: 1\r\ntransfer-encoding: chunked", "2\r\nup\r\n0\r\n\r\n");
    assert_eq!(judged(says(both, b"", false).await).await.0, Outcome::Success);
}

#[tokio::test]
async fn chunks_that_are_none() {
    for (body, reason) in [
        ("nonsense\r\nup\r\n0\r\n\r\n", Reason::MalformedResponse),
        ("-1\r\nup\r\n0\r\n\r\n", Reason::MalformedResponse),
        ("fffffffffffffffff\r\nup", Reason::MalformedResponse),
        ("2\r\nupX\r\n0\r\n\r\n", Reason::MalformedResponse),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        let (read, unread) = judged(says(answer, b"", false).await).await;
        assert_eq!((read.reason(), &unread), (Some(reason), &Outcome::Success), "{body:?}: {read:?}");
    }
    // The largest chunk there is, and no more than its beginning: none of it is set aside.
    let vast = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nup";
    let address = says(vast, b"", false).await;
    let outcome = run_http(at(address), up(), SHORT).await;
    assert_reason(&outcome, Reason::TimeoutResponse, "no answer in 300ms (Response)");
}

/// Each ends at a limit, long before its deadline.
#[tokio::test]
async fn endless_chunks_end_at_their_limit() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for (what, start, again, reasons) in [
        ("chunks", "", &b"8\r\nxxxxxxxx\r\n"[..], &[Reason::BodyTooLarge][..]),
        ("one chunk", "fffffff\r\n", b"xxxxxxxxxxxxxxxx", &[Reason::BodyTooLarge]),
        ("a size", "", b"0000000000000000", &[Reason::BodyTooLarge, Reason::MalformedResponse]),
        ("an extension", "2;", b"name=value;", &[Reason::BodyTooLarge, Reason::MalformedResponse]),
        ("trailers", "2\r\nup\r\n0\r\n", b"x: y\r\n", &[Reason::BodyTooLarge, Reason::MalformedResponse]),
    ] {
        let address = says(format!("{HEAD}{start}"), again, false).await;
        let outcome = run_http(at(address), up(), ENOUGH * 6).await;
        assert!(outcome.reason().is_some_and(|reason| reasons.contains(&reason)), "{what}: {outcome:?}");
    }
}

/// Nothing is unpacked: a kilobyte stays a kilobyte, and is judged as it came.
#[tokio::test]
async fn a_gzip_bomb_stays_packed() {
    let packed = Command::new("sh").args(["-c", "head -c 50000000 /dev/zero | gzip -9"]).output().expect("gzip").stdout;
    assert!((1_000..64 * 1024).contains(&packed.len()), "{} bytes", packed.len());
    for encoding in ["content-encoding: gzip", "transfer-encoding: gzip, chunked"] {
        let chunked = encoding.starts_with("transfer");
        let mut answer = format!("HTTP/1.1 200 OK\r\n{encoding}\r\n").into_bytes();
        if chunked {
            answer.extend(format!("\r\n{:x}\r\n", packed.len()).bytes());
        } else {
            answer.extend(format!("content-length: {}\r\n\r\n", packed.len()).bytes());
        }
        answer.extend(&packed);
        answer.extend(if chunked { &b"\r\n0\r\n\r\n"[..] } else { b"" });
        let (read, unread) = judged(says(answer, b"", false).await).await;
        assert_reason(&read, Reason::UnexpectedBody, "");
        assert_eq!(unread, Outcome::Success);
    }
}

#[tokio::test]
async fn a_body_that_drips_has_until_the_deadline() {
    let address = target(|mut stream| async move {
        read_head(&mut stream).await;
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while sent.is_ok() {
            sleep(Duration::from_millis(20)).await;
            sent = stream.write_all(b"x").await;
        }
    })
    .await;
    assert_reason(&run_http(at(address), up(), SHORT).await, Reason::TimeoutResponse, "no answer in 300ms (Response)");
}

/// A request that is not taken: the target reads nothing, and its buffer is small.
#[tokio::test]
async fn a_target_that_does_not_read_the_request() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(1024).expect("a small buffer");
    socket.bind(&SocketAddr::new(crate::support::LOOPBACK, 0).into()).expect("a port");
    socket.listen(16).expect("a listener");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("its address");
    let large = HttpProbe { method: "POST".into(), body: Some("x".repeat(64 * 1024).into()), ..get() };
    let outcome = run_http(at(address), large, SHORT).await;
    let reason = outcome.reason().expect("a reason");
    // Whether the last byte is still here or in the kernel's buffer is the kernel's affair.
    assert!(matches!(reason, Reason::TimeoutRequest | Reason::TimeoutResponse), "{outcome:?}");
    drop(socket);
}
