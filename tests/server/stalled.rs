//! A loop of ours that hangs, for real: its thread is held.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use healthcheck_operator::{
    api::HealthCheck,
    check::{Attempt, Outcome, Report},
    compile::{Mode, compile},
    engine::{self, Board, Desired, Limits, Parts, Surroundings, WRITER_SILENCE},
    probe::Lane,
    server::Access,
    telemetry::Metrics,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::{Fixture, LONG, config};

/// Answers at once, until it is told to hold the thread that asks.
#[derive(Clone)]
struct Holding(watch::Receiver<bool>);

impl Lane for Holding {
    async fn attempt(&self, _: Attempt) -> Report {
        while *self.0.borrow() {
            thread::sleep(Duration::from_millis(20));
        }
        Report::new(Outcome::Success, Duration::from_millis(1))
    }
}

async fn waits(what: &str, fixture: &Fixture, good: impl Fn(&Value) -> bool) {
    let look = async {
        loop {
            let answer = fixture.get("/__health").await;
            assert_eq!(answer.code, 200, "it serves, whatever stands still");
            let seen: Value = serde_json::from_str(&answer.body).expect("JSON");
            if good(&seen) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(WRITER_SILENCE + LONG, look).await.expect(what);
}

#[tokio::test]
async fn a_loop_that_stands_still_is_shown_dead_until_it_turns_again() {
    let board = Arc::new(Board::new());
    let fixture = Fixture::on(board.clone(), &config(&[]), Access::Open).await;
    let (hold, held) = watch::channel(false);
    let (stop, beats) = (CancellationToken::new(), fixture.beats.clone());
    let (begun, begins) = mpsc::channel();
    let thread = {
        let stop = stop.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let parts = Parts {
                    lane: Arc::new(Holding(held)),
                    board: board.clone(),
                    limits: Limits { in_flight: 10, per_host: 10 },
                    surroundings: Surroundings::default(),
                    metrics: Metrics::default(),
                    beats,
                };
                let (engine, ended) = engine::start(parts, stop);
                let object: HealthCheck = serde_json::from_value(json!({
                    "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck",
                    "metadata": {"name": "web", "namespace": "shop"},
                    "spec": {"interval": "100ms", "targets": [{"name": "a", "host": "10.0.0.1", "port": 80}]},
                }))
                .expect("a HealthCheck");
                let check = Arc::new(compile(&object, Mode::Standalone).expect("a check"));
                let endpoints = check.targets.iter().filter_map(|target| target.own_endpoint()).collect();
                engine.upsert(Desired { check, endpoints, prior: None }).await;
                engine.settle().await;
                board.set_synced();
                begun.send(()).expect("awaited");
                ended.await.expect("no panic");
            });
        })
    };
    begins.recv_timeout(LONG).expect("it begins");
    let lists = |seen: &Value, list: &str, name: &str| seen[list].get(name).is_some();
    waits("all to turn", &fixture, |seen| seen["agents"]["shop/web"].is_string() && lists(seen, "agents", "engine"))
        .await;
    assert_eq!(fixture.admin("/livez").await.code, 200);

    hold.send_replace(true);
    waits("the loop to be missed", &fixture, |seen| {
        lists(seen, "stopped", "engine") && !lists(seen, "agents", "engine")
    })
    .await;
    assert_eq!(fixture.admin("/livez").await.code, 500, "a restart would help");
    assert_eq!(fixture.admin("/readyz").await.code, 503);
    assert_eq!(fixture.get("/healthz").await.code, 503, "nothing on the board may be believed");

    hold.send_replace(false);
    waits("all to turn again", &fixture, |seen| lists(seen, "agents", "engine") && !lists(seen, "stopped", "engine"))
        .await;
    assert_eq!((fixture.admin("/livez").await.code, fixture.get("/healthz").await.code), (200, 200));
    stop.cancel();
    thread.join().expect("no panic");
    waits("the end", &fixture, |seen| !lists(seen, "agents", "engine") && !lists(seen, "stopped", "engine")).await;
}
