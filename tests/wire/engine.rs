//! The engine on the fast lane: verdicts, deadlines, waiting for a permit, and what is given up.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use healthcheck_operator::{
    check::{Attempt, EndpointState, ObjectKey, Reason, Report},
    compile::Mode,
    engine::{self, Board, Engine, Limits, Parts, Surroundings},
    probe::{FastLane, Lane, Prober, Settings},
    source::{Source, desired, load},
    telemetry::{Beats, Metrics},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::{
    support::{closed_port, eventually, read_head, target},
    tcp::listen,
};

/// Counts what takes the ordinary lane.
struct Watched {
    prober: Prober,
    ordinary: Arc<AtomicUsize>,
}

impl Lane for Watched {
    async fn attempt(&self, attempt: Attempt) -> Report {
        self.ordinary.fetch_add(1, Ordering::Relaxed);
        self.prober.attempt(attempt).await
    }

    fn fast(&self) -> Option<FastLane> {
        self.prober.fast()
    }
}

struct Running {
    engine: Engine,
    board: Arc<Board>,
    metrics: Metrics,
    ordinary: Arc<AtomicUsize>,
    stop: CancellationToken,
}

fn start(per_host: usize) -> Running {
    let ordinary = Arc::<AtomicUsize>::default();
    let prober = Prober::new(Settings { fast_lane: true, ..Settings::standalone() });
    let (board, metrics, stop) = (Arc::new(Board::new()), Metrics::default(), CancellationToken::new());
    let parts = Parts {
        lane: Arc::new(Watched { prober, ordinary: ordinary.clone() }),
        board: board.clone(),
        limits: Limits { in_flight: 100, per_host },
        surroundings: Surroundings::default(),
        metrics: metrics.clone(),
        beats: Beats::default(),
    };
    let (engine, _) = engine::start(parts, stop.clone());
    Running { engine, board, metrics, ordinary, stop }
}

impl Running {
    async fn declare(&self, targets: &[(&str, &str, SocketAddr)]) {
        let lines: String = targets
            .iter()
            .map(|(name, probe, at)| {
                format!("    - {{name: {name}, host: {}, port: {}, probe: {probe}}}\n", at.ip(), at.port())
            })
            .collect();
        let text = format!(
            "apiVersion: healthcheck-operator.dev/v1alpha1\nkind: HealthCheck\nmetadata: {{name: all, namespace: shop}}\n\
             spec:\n  interval: 500ms\n  timeout: 300ms\n  failureThreshold: 1\n  targets:\n{lines}"
        );
        let loaded = load(&[Source { name: "checks.yaml".into(), text }], Mode::Standalone);
        assert!(loaded.faults.is_empty(), "{:?}", loaded.faults);
        for declared in loaded.declared {
            self.engine.upsert(desired(Arc::new(declared.check))).await;
        }
        self.engine.settle().await;
    }

    /// State and reason of a target.
    fn of(&self, target: &str) -> Option<(EndpointState, Option<Reason>)> {
        let view = self.board.get(&ObjectKey::new("shop", "all"))?;
        view.endpoints.iter().find(|row| *row.target == *target).map(|row| (row.state, row.reason))
    }
}

/// A target that takes a connection and never answers; it counts those that are still open.
async fn silent() -> (SocketAddr, Arc<AtomicUsize>) {
    let open = Arc::<AtomicUsize>::default();
    let count = open.clone();
    let address = target(move |mut stream| {
        let count = count.clone();
        async move {
            count.fetch_add(1, Ordering::Relaxed);
            while let Ok(1..) = stream.read(&mut [0; 1024]).await {}
            count.fetch_sub(1, Ordering::Relaxed);
        }
    })
    .await;
    (address, open)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_plain_probe_takes_the_fast_lane_and_comes_to_its_verdict() {
    let running = start(100);
    let good = target(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    let ((_listener, open), (_held, closed), (silent, _)) = (listen(), closed_port(), silent().await);
    running
        .declare(&[
            ("open", "{tcp: {}}", open),
            ("full", "{tcp: {handshake: Full}}", good),
            ("closed", "{tcp: {}}", closed),
            ("good", "{http: {}}", good),
            ("wrong", "{http: {expectedStatuses: [204]}}", good),
            ("silent", "{http: {}}", silent),
            ("nowhere", "{tcp: {}}", "255.255.255.255:80".parse().expect("an address")),
        ])
        .await;
    for (name, state, reason) in [
        ("open", EndpointState::Healthy, None),
        ("full", EndpointState::Healthy, None),
        ("good", EndpointState::Healthy, None),
        ("closed", EndpointState::Unhealthy, Some(Reason::ConnectionRefused)),
        ("wrong", EndpointState::Unhealthy, Some(Reason::UnexpectedStatus)),
        ("silent", EndpointState::Unhealthy, Some(Reason::TimeoutResponse)),
        ("nowhere", EndpointState::Unknown, Some(Reason::NoRoute)),
    ] {
        eventually(name, || running.of(name) == Some((state, reason))).await;
    }
    assert_eq!(running.ordinary.load(Ordering::Relaxed), 0);
    running.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waited_for_a_permit_has_a_deadline_too_and_who_is_given_up_holds_nothing() {
    // One at a time: whoever comes second waits for the first one's whole timeout.
    let running = start(1);
    let (address, open) = silent().await;
    let targets: Vec<String> = (0..3).map(|number| format!("silent-{number}")).collect();
    // Each asks something else: what is the same is asked once.
    let probes: Vec<String> = targets.iter().map(|name| format!("{{http: {{path: /{name}}}}}")).collect();
    let rows: Vec<_> =
        targets.iter().zip(&probes).map(|(name, probe)| (name.as_str(), probe.as_str(), address)).collect();
    running.declare(&rows).await;
    for name in &targets {
        let want = Some((EndpointState::Unhealthy, Some(Reason::TimeoutResponse)));
        eventually(name, || running.of(name) == want).await;
    }
    assert!(running.metrics.in_flight_probes.get() <= 1);
    running.engine.remove(ObjectKey::new("shop", "all")).await;
    eventually("nothing is in flight", || running.metrics.in_flight_probes.get() == 0).await;
    eventually("no connection is left", || open.load(Ordering::Relaxed) == 0).await;
    assert_eq!(running.ordinary.load(Ordering::Relaxed), 0);
    running.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_kept_over_the_rounds_of_its_check_and_ends_with_it() {
    let running = start(100);
    let (opened, open, requests) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let counts = (opened.clone(), open.clone(), requests.clone());
    let address = target(move |mut stream| {
        let (opened, open, requests) = counts.clone();
        async move {
            opened.fetch_add(1, Ordering::Relaxed);
            open.fetch_add(1, Ordering::Relaxed);
            while !read_head(&mut stream).await.is_empty() {
                requests.fetch_add(1, Ordering::Relaxed);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
            open.fetch_sub(1, Ordering::Relaxed);
        }
    })
    .await;
    running.declare(&[("kept", "{http: {reuseConnection: true}}", address)]).await;
    eventually("some rounds", || requests.load(Ordering::Relaxed) >= 4).await;
    assert_eq!(running.of("kept"), Some((EndpointState::Healthy, None)));
    assert_eq!((opened.load(Ordering::Relaxed), running.ordinary.load(Ordering::Relaxed)), (1, 0));
    // Another question, another connection.
    running.declare(&[("kept", "{http: {reuseConnection: true, path: /other}}", address)]).await;
    eventually("the second one", || opened.load(Ordering::Relaxed) == 2).await;
    eventually("and that alone", || open.load(Ordering::Relaxed) == 1).await;
    running.engine.remove(ObjectKey::new("shop", "all")).await;
    eventually("none is open", || open.load(Ordering::Relaxed) == 0).await;
    assert_eq!(opened.load(Ordering::Relaxed), 2);
    running.stop.cancel();
}

/// Connections of which the kernel has told: half of what two checks ask, for they ask the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_checks_of_one_target_are_one_connection_a_round_on_the_wire() {
    const ROUNDS: usize = 10;
    let hits = Arc::<AtomicUsize>::default();
    let count = hits.clone();
    let answers = target(move |mut stream| {
        let count = count.clone();
        async move {
            read_head(&mut stream).await;
            count.fetch_add(1, Ordering::Relaxed);
            let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    for probe in ["{http: {}}", "{http: {connectionClose: Polite}}"] {
        let running = start(100);
        let before = hits.load(Ordering::Relaxed);
        running.declare(&[("one", probe, answers), ("other", probe, answers)]).await;
        eventually("ten rounds of both", || running.metrics.shared_rounds.get() as usize >= ROUNDS).await;
        for name in ["one", "other"] {
            let want = Some((EndpointState::Unhealthy, Some(Reason::UnexpectedStatus)));
            assert_eq!(running.of(name), want, "{name}: each has the answer");
        }
        // Then nothing is counted any more, however long this machine takes from one line to the next.
        running.engine.remove(ObjectKey::new("shop", "all")).await;
        running.engine.settle().await;
        running.stop.cancel();
        let (asked, shared) = (hits.load(Ordering::Relaxed) - before, running.metrics.shared_rounds.get() as usize);
        // One more was shared where the last was given up before its target had heard of it; a few fewer where one of them
        // came too late for the other's answer, on a machine that does much else.
        assert!((shared - 1..=shared + 3).contains(&asked), "{probe}: {asked} connections, {shared} rounds shared");
    }
}
