//! TLS from targets that answer a greeting with junk, stall in the middle of it, and break off.

use std::{net::SocketAddr, time::Duration};

use healthcheck_operator::check::{GrpcProbe, HttpProbe, Outcome, ProbeKind, Reason, Scheme, TcpProbe};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use crate::{
    secured::skip,
    support::{ENOUGH, SHORT, at, attempt, prober, run, target},
};

/// What each kind of probe makes of it: they share one handshake.
async fn outcomes(address: SocketAddr, timeout: Duration) -> Vec<Outcome> {
    let kinds = [
        ProbeKind::Http(HttpProbe { scheme: Scheme::Https, tls: skip(), ..HttpProbe::default() }),
        ProbeKind::Grpc(GrpcProbe { tls: Some(skip()), ..GrpcProbe::default() }),
        ProbeKind::Tcp(TcpProbe { tls: Some(skip()), ..TcpProbe::default() }),
    ];
    let prober = prober();
    let asked = kinds.into_iter().map(|kind| run(&prober, attempt(Some(at(address)), kind, timeout)));
    futures::future::join_all(asked).await.into_iter().map(|report| report.outcome).collect()
}

async fn says(answer: &'static [u8]) -> SocketAddr {
    target(move |mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(answer).await;
        while let Ok(1..) = stream.read(&mut [0; 4096]).await {}
    })
    .await
}

#[tokio::test]
async fn an_answer_that_is_no_tls_is_told_as_such() {
    for answer in [
        // A type of record that is none, a version that is none, a length that is none, a record of nothing.
        &b"\xff\x03\x03\x00\x05hello"[..],
        b"\x16\x09\x09\x00\x05hello",
        b"\x16\x03\x03\xff\xffhello",
        // Handshake messages that are none, or not the one that is due.
        b"\x16\x03\x03\x00\x05hello",
        b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00",
        b"\x16\x03\x03\x00\x04\x02\xff\xff\xff\x16\x03\x03\x00\x05\x00\x00\x00\x00\x00",
        // Data before there are keys; alerts, and half of one.
        b"\x17\x03\x03\x00\x05hello",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x15\x03\x03\x00\x01\x02",
        // What listens on a port that was mistaken for another.
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"220 mail.example ESMTP\r\n",
    ] {
        for outcome in outcomes(says(answer).await, ENOUGH).await {
            assert_eq!(outcome.reason(), Some(Reason::TlsHandshakeFailed), "{answer:?}: {outcome:?}");
            assert!(!outcome.message().contains("hello"), "nothing of it is told: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn junk_without_an_end_ends_at_once() {
    for again in [&b"\x16\x03\x03\x40\x00"[..], b"\x14\x03\x03\x00\x01\x01", b"\x15\x03\x03\x00\x02\x01\x5a", b"\0"] {
        let address = target(move |mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let flood = again.repeat(1000);
            while stream.write_all(&flood).await.is_ok() {}
        })
        .await;
        for outcome in outcomes(address, ENOUGH * 3).await {
            assert_eq!(outcome.reason(), Some(Reason::TlsHandshakeFailed), "{again:?}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_handshake_that_stalls_or_drips_ends_by_the_deadline_and_one_that_breaks_off_at_once() {
    let half = says(b"\x16\x03\x03\x00\x40\x02").await;
    let drips = target(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        // A record of 16 KiB, a byte at a time.
        let mut sent = stream.write_all(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc").await;
        while sent.is_ok() {
            sleep(Duration::from_millis(20)).await;
            sent = stream.write_all(b"x").await;
        }
    })
    .await;
    for address in [half, drips] {
        for outcome in outcomes(address, SHORT).await {
            assert_eq!(outcome.reason(), Some(Reason::TimeoutTls), "{outcome:?}");
            assert_eq!(outcome.message(), "no answer in 300ms (TLS)");
        }
    }
    let resets = target(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
    })
    .await;
    for outcome in outcomes(resets, ENOUGH).await {
        assert_eq!(outcome.reason(), Some(Reason::ConnectionReset), "{outcome:?}");
    }
}
