//! The HTTP probe's judgement of an answer beyond its expected status.

use std::{net::SocketAddr, time::Duration};

use healthcheck_operator::check::{BodyRule, HttpProbe, Outcome, Pattern, Reason, Redirects, StatusRange};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use crate::support::{ENOUGH, SHORT, assert_reason, at, get, read_head, run_http, target};

/// A target that answers with these pieces, each on its own, and then keeps the connection or closes it.
async fn says(pieces: &'static [&'static str], keeps: bool) -> SocketAddr {
    target(move |mut stream| async move {
        read_head(&mut stream).await;
        for piece in pieces {
            let _ = stream.write_all(piece.as_bytes()).await;
            let _ = stream.flush().await;
            sleep(Duration::from_millis(5)).await;
        }
        if keeps {
            let _ = stream.read(&mut [0; 16]).await;
        }
    })
    .await
}

fn contains(text: &str) -> HttpProbe {
    HttpProbe { expected_body: Some(BodyRule::Contains(text.into())), ..get() }
}

fn ranges(ranges: &[(u16, u16)]) -> Vec<StatusRange> {
    ranges.iter().map(|&(first, last)| StatusRange { first, last }).collect()
}

#[tokio::test]
async fn unhealthy_statuses_leave_the_rest_neutral() {
    let probe = HttpProbe {
        expected_statuses: ranges(&[(200, 299)]),
        unhealthy_statuses: ranges(&[(500, 503), (204, 204)]),
        ..get()
    };
    for (status, bad) in [("200", Some(false)), ("503", Some(true)), ("204", Some(true)), ("404", None), ("504", None)]
    {
        let answer: &'static str = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").leak();
        let address = says(Box::leak(Box::new([answer])), true).await;
        let outcome = run_http(at(address), probe.clone(), ENOUGH).await;
        match bad {
            Some(false) => assert_eq!(outcome, Outcome::Success, "{status}"),
            None => {
                let message = format!("got '{status}', which counts for nothing");
                assert_eq!(outcome, Outcome::Neutral { message }, "{status}");
            }
            Some(true) => {
                assert_reason(&outcome, Reason::UnexpectedStatus, &format!("got '{status}', one of unhealthyStatuses"))
            }
        }
    }
}

#[tokio::test]
async fn a_body_is_judged_however_it_comes() {
    let whole = says(&["HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"status\": \"up\"}"], true).await;
    let cut = says(&["HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"sta", "tus\": ", "\"up\"", "}"], true).await;
    let chunks = says(
        &[
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "8\r\n{\"status\r\n",
            "8\r\n\": \"up\"}\r\n",
            "0\r\n\r\n",
        ],
        true,
    )
    .await;
    let until_the_end = says(&["HTTP/1.1 200 OK\r\n\r\n", "{\"status\":", " \"up\"}"], false).await;
    let json = |equals: &str| HttpProbe {
        expected_body: Some(BodyRule::Json { pointer: "/status".into(), equals: equals.into() }),
        ..get()
    };
    for (what, address) in [("in pieces", cut), ("in chunks", chunks), ("until the end", until_the_end)] {
        assert_eq!(run_http(at(address), json("up"), ENOUGH).await, Outcome::Success, "{what}");
        let outcome = run_http(at(address), json("down"), ENOUGH).await;
        assert_reason(&outcome, Reason::UnexpectedBody, "unexpected body; another value at '/status', want 'down'");
    }
    // One byte less than it is: what came is cut off where the length says.
    assert_reason(&run_http(at(whole), json("up"), ENOUGH).await, Reason::UnexpectedBody, "it is not JSON");
    assert_eq!(run_http(at(whole), contains("\"up\""), ENOUGH).await, Outcome::Success);
    let pattern = Pattern::new("\"(up|ok)\"").expect("a pattern");
    let matching = HttpProbe { expected_body: Some(BodyRule::Matches(pattern)), ..get() };
    assert_eq!(run_http(at(whole), matching, ENOUGH).await, Outcome::Success);
}

#[tokio::test]
async fn a_status_that_is_not_expected_needs_no_body() {
    let address = says(&["HTTP/1.1 503 X\r\ncontent-length: 1000\r\n\r\n"], true).await;
    assert_reason(&run_http(at(address), contains("up"), ENOUGH).await, Reason::UnexpectedStatus, "got '503'");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_timeout_and_one_that_breaks_off_a_closed_connection() {
    let waits = says(&["HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nup"], true).await;
    assert_reason(&run_http(at(waits), contains("up"), SHORT).await, Reason::TimeoutResponse, "(Response)");
    let breaks = says(&["HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nup"], false).await;
    let outcome = run_http(at(breaks), contains("up"), ENOUGH).await;
    assert_reason(&outcome, Reason::ConnectionClosed, "before the end of the body");
    let garbage = says(&["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nup\r\n"], true).await;
    assert_reason(&run_http(at(garbage), contains("up"), ENOUGH).await, Reason::MalformedResponse, "");
}

#[tokio::test]
async fn a_body_is_read_up_to_64_kib() {
    let of = |size: usize| {
        let body = "x".repeat(size - 2) + "up";
        let answer: &'static str = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}").leak();
        says(Box::leak(Box::new([answer])), false)
    };
    assert_eq!(run_http(at(of(64 * 1024).await), contains("up"), ENOUGH).await, Outcome::Success);
    let outcome = run_http(at(of(64 * 1024 + 1).await), contains("up"), ENOUGH).await;
    assert_reason(&outcome, Reason::BodyTooLarge, "the answer's body is over 64 KiB");
    // Promised is enough: none of it is waited for.
    let promised = says(&["HTTP/1.1 200 OK\r\ncontent-length: 65537\r\n\r\n"], true).await;
    assert_reason(&run_http(at(promised), contains("up"), ENOUGH).await, Reason::BodyTooLarge, "");
    // The smallest chunks there are: six bytes on the wire for one of the body.
    let drops = target(|mut stream| async move {
        read_head(&mut stream).await;
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let drops = "1\r\nx\r\n".repeat(1000);
        while sent.is_ok() {
            sent = stream.write_all(drops.as_bytes()).await;
        }
    })
    .await;
    assert_reason(&run_http(at(drops), contains("up"), ENOUGH * 6).await, Reason::BodyTooLarge, "");
}

#[tokio::test]
async fn a_redirect_that_is_followed_is_judged_by_where_it_leads() {
    let address = target(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let answer = match head.starts_with("GET /there ") {
            true => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nup",
            false => "HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 4\r\n\r\ndown",
        };
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let follows = HttpProbe { redirects: Redirects::SameHost, ..contains("up") };
    assert_eq!(run_http(at(address), follows, ENOUGH).await, Outcome::Success);
    assert_reason(&run_http(at(address), contains("up"), ENOUGH).await, Reason::UnexpectedBody, "");
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_too_slow() {
    let address = target(|mut stream| async move {
        read_head(&mut stream).await;
        sleep(Duration::from_millis(60)).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let within = |limit| HttpProbe { max_latency: Some(limit), ..get() };
    let outcome = run_http(at(address), within(Duration::from_millis(50)), ENOUGH).await;
    assert_reason(&outcome, Reason::TooSlow, "ms, want at most 50ms");
    assert!(outcome.message().starts_with("too slow; took "), "{outcome:?}");
    assert_eq!(run_http(at(address), within(ENOUGH), ENOUGH).await, Outcome::Success);
}

#[tokio::test]
async fn a_post_sends_its_body() {
    let address = target(|mut stream| async move {
        let head = read_head(&mut stream).await.to_ascii_lowercase();
        let mut body = [0; 4];
        let read = stream.read_exact(&mut body).await.is_ok();
        let right = read && &body == b"ping" && head.contains("content-length: 4\r\n");
        let status = if right { "200 OK" } else { "400 Bad Request" };
        let _ = stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
    })
    .await;
    let post = HttpProbe { method: "POST".into(), body: Some("ping".into()), ..get() };
    assert_eq!(run_http(at(address), post, ENOUGH).await, Outcome::Success);
}
