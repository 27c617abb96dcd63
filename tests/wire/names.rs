//! Targets given by name, resolved by a name server of the test's own.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use healthcheck_operator::{
    check::{Outcome, ProbeKind, Reason, TcpProbe},
    probe::{DeniedDynamic, EgressGuard, NameServers, Prober, Settings},
};
use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    sync::watch,
};

use crate::{
    addresses::{each, found},
    name_server::{Zone, answer},
    support::{
        Deaf, ENOUGH, LOOPBACK, SHORT, assert_reason, attempt, closed_port, get, named, read_head, run, scripts, setup,
    },
};

/// A name server on loopback, and how many questions it was asked.
pub async fn name_server(zone: Zone) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind((LOOPBACK, 0)).await.expect("a port");
    let address = socket.local_addr().expect("its address");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::Relaxed);
            if let Some(answer) = answer(&buffer[..length], zone) {
                let _ = socket.send_to(&answer, peer).await;
            }
        }
    });
    (address, asked)
}

pub fn prober(server: SocketAddr, search: &[&str]) -> Prober {
    let search = search.iter().map(|domain| (*domain).to_owned()).collect();
    let name_servers = NameServers::Given { servers: vec![server], search };
    Prober::new(Settings { name_servers, scripts: scripts(&setup()), ..Settings::standalone() })
}

async fn probe(prober: &Prober, name: &str, port: u16, timeout: Duration) -> Outcome {
    run(prober, attempt(Some(named(name, port)), ProbeKind::Tcp(TcpProbe::default()), timeout)).await.outcome
}

pub fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((LOOPBACK, 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    (listener, port)
}

#[tokio::test]
async fn every_address_is_tried_and_one_that_answers_is_enough() {
    let (_listener, port) = listen();
    // Nobody listens on that port of 127.0.0.2 and 127.0.0.3.
    let (server, _) = name_server(|name, kind| match (name, kind) {
        ("some.example.", RecordType::A) => {
            Some(Ok(vec![[127, 0, 0, 2].into(), [127, 0, 0, 1].into(), [127, 0, 0, 3].into()]))
        }
        ("none.example.", RecordType::A) => Some(Ok(vec![[127, 0, 0, 2].into(), [127, 0, 0, 3].into()])),
        _ => Some(Ok(vec![])),
    })
    .await;
    let prober = prober(server, &[]);
    assert_eq!(probe(&prober, "some.example", port, ENOUGH).await, Outcome::Success);
    let outcome = probe(&prober, "none.example", port, ENOUGH).await;
    assert_reason(&outcome, Reason::ConnectionRefused, "connection refused (127.0.0.");
}

#[tokio::test]
async fn an_address_that_hangs_holds_up_no_other() {
    let (_listener, port) = listen();
    let _deaf = [2, 3].map(|last| Deaf::at((Ipv4Addr::new(127, 0, 0, last), port).into()));
    let (server, _) = name_server(|name, kind| match (name, kind) {
        ("first.example.", RecordType::A) => {
            Some(Ok(vec![[127, 0, 0, 2].into(), [127, 0, 0, 3].into(), [127, 0, 0, 1].into()]))
        }
        ("last.example.", RecordType::A) => {
            Some(Ok(vec![[127, 0, 0, 1].into(), [127, 0, 0, 3].into(), [127, 0, 0, 2].into()]))
        }
        ("deaf.example.", RecordType::A) => Some(Ok(vec![[127, 0, 0, 2].into(), [127, 0, 0, 3].into()])),
        _ => Some(Ok(vec![])),
    })
    .await;
    let prober = prober(server, &[]);
    for name in ["first.example", "last.example"] {
        assert_eq!(probe(&prober, name, port, ENOUGH).await, Outcome::Success, "{name}");
    }
    assert_reason(&probe(&prober, "deaf.example", port, SHORT).await, Reason::TimeoutConnect, "no answer in 300ms");
}

/// Each address answers only while all of them are being asked, so that one after the other would never do.
#[tokio::test]
async fn all_addresses_are_asked_at_once() {
    let asked = Arc::new(watch::Sender::new(0));
    let first = tokio::net::TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let port = first.local_addr().expect("its address").port();
    let mut listeners = vec![first];
    for last in [2, 3] {
        let address = Ipv4Addr::new(127, 0, 0, last);
        listeners.push(tokio::net::TcpListener::bind((address, port)).await.expect("the same port"));
    }
    for listener in listeners {
        let asked = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_among(3, stream, Arc::clone(&asked)));
            }
        });
    }
    let (server, _) = name_server(|_, kind| match kind {
        RecordType::A => Some(Ok((1..=3).map(|last| [127, 0, 0, last].into()).collect())),
        _ => Some(Ok(vec![])),
    })
    .await;
    let http = attempt(Some(named("all.example", port)), ProbeKind::Http(get()), ENOUGH);
    assert_eq!(run(&prober(server, &[]), http).await.outcome, Outcome::Success);
}

/// Answers once `all` requests are open at the same time; one whose asker has gone away is open no more.
async fn answer_among(all: usize, mut stream: TcpStream, open: Arc<watch::Sender<usize>>) {
    read_head(&mut stream).await;
    open.send_modify(|open| *open += 1);
    let mut seen = open.subscribe();
    let mut nothing = [0];
    // What `wait_for` gives is a lock, and must not be held while we write.
    let together = async { seen.wait_for(|open| *open >= all).await.is_ok() };
    tokio::select! {
        true = together => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
        _ = stream.read(&mut nothing) => open.send_modify(|open| *open -= 1),
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_the_targets_failure_and_a_sick_resolver_is_ours() {
    let (server, _) = name_server(|name, kind| match (name, kind) {
        ("nothing.example.", _) => Some(Err(ResponseCode::NXDomain)),
        ("empty.example.", _) => Some(Ok(vec![])),
        ("sick.example.", _) => Some(Err(ResponseCode::ServFail)),
        ("refused.example.", _) => Some(Err(ResponseCode::Refused)),
        ("broken.example.", _) => Some(Err(ResponseCode::FormErr)),
        ("old.example.", _) => Some(Err(ResponseCode::NotImp)),
        // No IPv4, and nobody knows about IPv6: then nobody knows.
        ("half.example.", RecordType::A) => Some(Ok(vec![])),
        ("half.example.", _) => Some(Err(ResponseCode::ServFail)),
        ("silent.example.", _) => None,
        // About the root it answers, if only that it will not say.
        _ => Some(Err(ResponseCode::Refused)),
    })
    .await;
    let prober = prober(server, &[]);
    for name in ["nothing.example", "empty.example"] {
        assert_reason(&probe(&prober, name, 80, ENOUGH).await, Reason::NameNotFound, &format!("no such name '{name}'"));
    }
    for name in ["sick.example", "refused.example", "broken.example", "old.example", "half.example"] {
        let outcome = probe(&prober, name, 80, ENOUGH * 2).await;
        assert_reason(&outcome, Reason::ResolverUnreachable, &format!("'{name}' could not be looked up"));
    }
    let outcome = probe(&prober, "silent.example", 80, SHORT).await;
    assert_reason(&outcome, Reason::TimeoutResolve, "no answer in 300ms (Resolve)");
}

#[tokio::test]
async fn a_resolver_that_is_not_there_is_ours() {
    let (_held, dead) = closed_port();
    let (mute, asked) = name_server(|_, _| None).await;
    for server in [dead, mute] {
        let outcome = probe(&prober(server, &[]), "any.example", 80, SHORT).await;
        assert_reason(&outcome, Reason::ResolverUnreachable, "no name server answered in 300ms");
    }
    assert!(asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn one_silent_family_does_not_hold_up_the_other() {
    let (_listener, port) = listen();
    let (server, _) = name_server(|_, kind| match kind {
        RecordType::A => Some(Ok(vec![Ipv4Addr::LOCALHOST.into()])),
        _ => None,
    })
    .await;
    assert_eq!(probe(&prober(server, &[]), "v4.example", port, ENOUGH).await, Outcome::Success);
}

#[tokio::test]
async fn search_domains_are_searched_and_a_sick_one_makes_nobody_sure() {
    let (_listener, port) = listen();
    let (server, _) = name_server(|name, kind| match (name, kind) {
        ("db.shop.svc.", RecordType::A) => Some(Ok(vec![Ipv4Addr::LOCALHOST.into()])),
        (name, _) if name.ends_with(".sick.") => Some(Err(ResponseCode::ServFail)),
        _ => Some(Err(ResponseCode::NXDomain)),
    })
    .await;
    assert_eq!(probe(&prober(server, &["other.svc", "shop.svc"]), "db", port, ENOUGH).await, Outcome::Success);
    let outcome = probe(&prober(server, &["other.svc"]), "db", port, ENOUGH).await;
    assert_reason(&outcome, Reason::NameNotFound, "'db'");
    let outcome = probe(&prober(server, &["sick"]), "db", port, ENOUGH * 2).await;
    assert_reason(&outcome, Reason::ResolverUnreachable, "'db'");
}

#[tokio::test]
async fn a_name_does_not_lead_around_the_guard() {
    let (listener, port) = listen();
    listener.set_nonblocking(true).expect("non-blocking");
    let (server, _) = name_server(|name, kind| match (name, kind) {
        ("lies.example.", RecordType::A) => Some(Ok(vec![Ipv4Addr::LOCALHOST.into()])),
        ("lies6.example.", RecordType::AAAA) => Some(Ok(vec![Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()])),
        _ => Some(Ok(vec![])),
    })
    .await;
    let name_servers = NameServers::Given { servers: vec![server], search: vec![] };
    let egress = Arc::new(EgressGuard::cluster(DeniedDynamic::default(), vec![]));
    let prober = Prober::new(Settings { name_servers, egress, ..Settings::standalone() });
    for name in ["lies.example", "lies6.example", "localhost"] {
        assert_reason(&probe(&prober, name, port, ENOUGH).await, Reason::EgressDenied, "loopback");
    }
    assert_eq!(listener.accept().expect_err("nobody").kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn answers_are_kept_for_a_moment() {
    let (_listener, port) = listen();
    let (server, asked) = name_server(|_, kind| match kind {
        RecordType::A => Some(Ok(vec![Ipv4Addr::LOCALHOST.into()])),
        _ => Some(Ok(vec![])),
    })
    .await;
    let prober = prober(server, &[]);
    for _ in 0..20 {
        assert_eq!(probe(&prober, "kept.example", port, ENOUGH).await, Outcome::Success);
    }
    let asked = asked.load(Ordering::Relaxed);
    assert!((1..30).contains(&asked), "{asked} questions for 20 probes");
}

/// Where `name` leads first, and after that.
const MOVED: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];

/// An answer is good for as long as it says, and then it is asked for again.
#[tokio::test]
async fn a_name_is_followed_by_its_time_to_live() {
    static ASKED: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
    let (server, _) = name_server(|name, kind| {
        let at = match name {
            "ttl-0.example." => 0,
            "ttl-1.example." => 1,
            _ => 2,
        };
        Some(Ok(match kind {
            RecordType::A => vec![MOVED[ASKED[at].fetch_add(1, Ordering::SeqCst).min(1)].into()],
            _ => vec![],
        }))
    })
    .await;
    let (_listener, port) = listen();
    let prober = prober(server, &[]);
    let leads_to = async |name: &str| each(&found(&prober, name, port).await)[0].0;
    let names = ["ttl-0.example", "ttl-1.example", "ttl-600.example"];
    for name in names {
        assert_eq!(leads_to(name).await, MOVED[0], "{name}");
    }
    assert_eq!(leads_to(names[0]).await, MOVED[1], "good for nothing beyond the one who asked");
    let begun = tokio::time::Instant::now();
    while leads_to(names[1]).await == MOVED[0] {
        assert!(begun.elapsed() < ENOUGH, "a second is over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Longer than any cap of a few seconds would let it live.
    while begun.elapsed() < Duration::from_secs(6) {
        assert_eq!(leads_to(names[2]).await, MOVED[0]);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(ASKED[2].load(Ordering::SeqCst), 1);
}
