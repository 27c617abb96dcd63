//! The TCP probe that sends, and waits for what must come.

use std::{net::SocketAddr, time::Duration};

use healthcheck_operator::check::{Outcome, Reason, TcpProbe};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use crate::support::{ENOUGH, SHORT, assert_reason, at, run_tcp, target};

fn talk(send: Option<&[u8]>, receive: &[&[u8]]) -> TcpProbe {
    TcpProbe {
        send: send.map(Into::into),
        receive: receive.iter().map(|block| (*block).into()).collect(),
        ..TcpProbe::default()
    }
}

/// A target that answers `PING\r\n` as Redis does, and breaks off whoever says anything else.
async fn redis() -> SocketAddr {
    target(|mut stream| async move {
        let mut asked = [0; 6];
        if stream.read_exact(&mut asked).await.is_ok() && &asked == b"PING\r\n" {
            let _ = stream.write_all(b"+PONG\r\n").await;
            let _ = stream.read(&mut asked).await;
        }
    })
    .await
}

/// A target that says `pieces`, each on its own, and then waits, or closes.
async fn greets(pieces: &'static [&'static [u8]], waits: bool) -> SocketAddr {
    target(move |mut stream| async move {
        for piece in pieces {
            let _ = stream.write_all(piece).await;
            sleep(Duration::from_millis(5)).await;
        }
        if waits {
            let _ = stream.read(&mut [0; 16]).await;
        }
    })
    .await
}

#[tokio::test]
async fn what_is_sent_is_answered() {
    let redis = redis().await;
    assert_eq!(run_tcp(at(redis), talk(Some(b"PING\r\n"), &[b"+PONG"]), ENOUGH).await, Outcome::Success);
    let outcome = run_tcp(at(redis), talk(Some(b"PING\r\n"), &[b"-ERR"]), SHORT).await;
    assert_reason(&outcome, Reason::TimeoutReceive, "block 1 of 1 is not in the 7 bytes that came in");
    let outcome = run_tcp(at(redis), talk(Some(b"QUIT\r\n"), &[b"+PONG"]), ENOUGH).await;
    assert_reason(
        &outcome,
        Reason::ReceiveMismatch,
        "unexpected answer; 0 bytes until it closed, without block 1 of 1",
    );
}

#[tokio::test]
async fn blocks_come_in_order_over_any_number_of_segments() {
    let mail = greets(&[b"22", b"0 mail.exa", b"mple ES", b"MTP ready\r\n"], true).await;
    for blocks in [&[&b"220"[..], b"ESMTP"][..], &[b"220 mail.example ESMTP"], &[b"2", b"0", b" ready\r\n"]] {
        assert_eq!(run_tcp(at(mail), talk(None, blocks), ENOUGH).await, Outcome::Success, "{blocks:?}");
    }
    let outcome = run_tcp(at(mail), talk(None, &[b"ESMTP", b"220"]), SHORT).await;
    assert_reason(&outcome, Reason::TimeoutReceive, "block 2 of 2 is not in the ");
    let closes = greets(&[b"220 mail.example"], false).await;
    let outcome = run_tcp(at(closes), talk(None, &[b"220", b"ESMTP"]), ENOUGH).await;
    assert_reason(&outcome, Reason::ReceiveMismatch, "16 bytes until it closed, without block 2 of 2");
    // Zero bytes and high ones are bytes as any other, and none of them is ever told.
    let binary = greets(&[&[0, 255, 0, 1], &[128, 10]], false).await;
    assert_eq!(run_tcp(at(binary), talk(None, &[&[255, 0], &[128]]), ENOUGH).await, Outcome::Success);
}

#[tokio::test]
async fn a_flood_is_read_up_to_64_kib() {
    let of = |noise: usize| {
        target(move |mut stream| async move {
            let _ = stream.write_all(&vec![b'.'; noise]).await;
            let mut sent = stream.write_all(b"OK").await;
            while sent.is_ok() {
                sent = stream.write_all(&[b'.'; 1024]).await;
            }
        })
    };
    assert_eq!(run_tcp(at(of(64 * 1024 - 2).await), talk(None, &[b"OK"]), ENOUGH).await, Outcome::Success);
    let outcome = run_tcp(at(of(64 * 1024 - 1).await), talk(None, &[b"OK"]), ENOUGH).await;
    assert_reason(&outcome, Reason::ReceiveMismatch, "unexpected answer; 65536 bytes, without block 1 of 1");
}

#[tokio::test]
async fn to_send_alone_is_enough_where_nothing_is_awaited() {
    let (told, mut heard) = tokio::sync::mpsc::channel(1);
    let address = target(move |mut stream| {
        let told = told.clone();
        async move {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            let _ = told.send(all).await;
        }
    })
    .await;
    assert_eq!(run_tcp(at(address), talk(Some(b"hello"), &[]), ENOUGH).await, Outcome::Success);
    let heard = tokio::time::timeout(ENOUGH, heard.recv()).await.expect("in time");
    assert_eq!(heard.as_deref(), Some(&b"hello"[..]), "all of it, and an ordinary end");
}

#[tokio::test]
async fn a_target_that_resets_is_a_connection_failure() {
    let address = target(|stream| async move {
        let stream = stream.into_std().map(socket2::Socket::from).expect("a socket");
        let _ = stream.set_linger(Some(Duration::ZERO));
    })
    .await;
    let outcome = run_tcp(at(address), talk(None, &[b"x"]), ENOUGH).await;
    assert_reason(&outcome, Reason::ConnectionReset, "connection reset");
}
