//! The TCP probe.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use healthcheck_operator::{
    check::{Handshake, Outcome, ProbeKind, Reason, TcpProbe},
    probe::{DeniedDynamic, EgressGuard, Prober, Settings},
};

use crate::support::{
    Deaf, ENOUGH, LOOPBACK, SHORT, assert_reason, at, attempt, closed_port, loopback_v6, named, run, run_tcp,
};

const HALF: TcpProbe = connect(Handshake::HalfOpen);
const FULL: TcpProbe = connect(Handshake::Full);

const fn connect(handshake: Handshake) -> TcpProbe {
    TcpProbe { port: None, handshake, send: None, receive: vec![], tls: None }
}

pub fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((LOOPBACK, 0)).expect("a port on loopback");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// How many connections wait to be accepted before one that we make now. The queue is first in, first out.
pub fn accepted(listener: &TcpListener) -> usize {
    let marker = std::net::TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    let marker = marker.local_addr().expect("its address");
    let mut count = 0;
    loop {
        match listener.accept() {
            Ok((_, peer)) if peer == marker => return count,
            Ok(_) => count += 1,
            // A connection that was reset while it waited: it was there to be accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => count += 1,
            Err(error) => panic!("accept: {error}"),
        }
    }
}

#[tokio::test]
async fn a_half_open_handshake_gives_the_target_nothing_to_accept_and_a_full_one_does() {
    const ROUNDS: usize = 20;
    let (listener, address) = listen();
    for _ in 0..ROUNDS {
        assert_eq!(run_tcp(at(address), HALF, ENOUGH).await, Outcome::Success);
    }
    // The kernel holds the last ACK back for 40 ms at least; a machine that stalls longer lets one through.
    let half = accepted(&listener);
    assert!(half < ROUNDS / 2, "{half} of {ROUNDS} half-open handshakes were accepted");
    for _ in 0..ROUNDS {
        assert_eq!(run_tcp(at(address), FULL, ENOUGH).await, Outcome::Success);
    }
    assert_eq!(accepted(&listener), ROUNDS);
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    let (_held, address) = closed_port();
    for probe in [HALF, FULL] {
        let outcome = run_tcp(at(address), probe, ENOUGH).await;
        assert_reason(&outcome, Reason::ConnectionRefused, "connection refused");
        assert_eq!(outcome.message(), "connection refused");
    }
}

#[tokio::test]
async fn a_target_whose_queue_is_full_does_not_answer() {
    let deaf = Deaf::at(SocketAddr::new(LOOPBACK, 0));
    for probe in [HALF, FULL] {
        let outcome = run_tcp(at(deaf.address), probe, SHORT).await;
        assert_reason(&outcome, Reason::TimeoutConnect, "");
        assert_eq!(outcome.message(), "no answer in 300ms (Connect)");
    }
}

#[tokio::test]
async fn ipv6_is_dialed_like_ipv4() {
    let Some(loopback) = loopback_v6() else { return };
    let listener = TcpListener::bind((loopback, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    assert_eq!(run_tcp(at(address), HALF, ENOUGH).await, Outcome::Success);
    assert_eq!(run_tcp(at(address), FULL, ENOUGH).await, Outcome::Success);
    // The half-open one is there only when this machine stalled so long that its ACK went out.
    assert!((1..=2).contains(&accepted(&listener)));
}

#[tokio::test]
async fn what_our_own_machine_refuses_to_send_to_is_no_failure_of_the_target() {
    for address in ["255.255.255.255:80", "224.0.0.1:80", "[fe80::1]:80"] {
        let outcome = run_tcp(at(address.parse().expect("an address")), HALF, SHORT).await;
        assert_reason(&outcome, Reason::NoRoute, "no route from here");
    }
}

#[tokio::test]
async fn a_cluster_denies_loopback_however_it_is_named_and_nothing_is_sent() {
    let (listener, address) = listen();
    let settings = |allow: &[&str]| {
        let allow = allow.iter().map(|net| net.parse().expect("a network")).collect();
        let egress = Arc::new(EgressGuard::cluster(DeniedDynamic::default(), allow));
        Prober::new(Settings { egress, ..Settings::standalone() })
    };
    let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", address.port()).parse().expect("an address");
    for dial in [at(address), at(mapped), named("localhost", address.port())] {
        let outcome = run(&settings(&[]), attempt(Some(dial.clone()), ProbeKind::Tcp(FULL), ENOUGH)).await.outcome;
        assert_reason(&outcome, Reason::EgressDenied, "--egress-allow");
        assert!(outcome.message().contains("loopback"), "{outcome:?}");
    }
    assert_eq!(accepted(&listener), 0);
    let allowed = settings(&["127.0.0.0/8"]);
    let outcome = run(&allowed, attempt(Some(at(address)), ProbeKind::Tcp(FULL), ENOUGH)).await.outcome;
    assert_eq!(outcome, Outcome::Success);
    assert_eq!(accepted(&listener), 1);
}

#[tokio::test]
async fn a_target_without_a_place_or_port_cannot_be_probed() {
    let outcome = run(&crate::support::prober(), attempt(None, ProbeKind::Tcp(HALF), ENOUGH)).await.outcome;
    assert_reason(&outcome, Reason::CannotStart, "no place");
}
