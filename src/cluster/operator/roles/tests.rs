use std::sync::Arc;

use super::*;
use crate::{
    check::{Attempt, Report},
    engine::{Limits, Surroundings},
    passive::Overflow,
    probe::Lane,
    telemetry::{Beats, Metrics, Source},
};

#[tokio::test]
async fn an_engine_that_breaks_down_ends_the_leading_and_is_told() {
    let (leading, engine_stop) = (CancellationToken::new(), CancellationToken::new());
    let engine = tokio::spawn(async { panic!("a bug") });
    let told = watch_engine(engine, &leading, &engine_stop).await.expect_err("told");
    assert!(told.to_string().contains("the engine broke down"), "{told:#}");
    assert!(leading.is_cancelled());
    let leading = CancellationToken::new();
    let told = watch_engine(tokio::spawn(async {}), &leading, &engine_stop).await.expect_err("told");
    assert!(told.to_string().contains("ended by itself") && leading.is_cancelled(), "{told:#}");
}

/// Nobody is probed.
struct Nobody;

impl Lane for Nobody {
    async fn attempt(&self, _: Attempt) -> Report {
        std::future::pending().await
    }
}

#[tokio::test]
async fn before_the_first_settle_of_a_takeover_reports_shall_come_back() {
    let (passive, stop) = (Intake::default(), CancellationToken::new());
    let limits = Limits { in_flight: 1, per_host: 1 };
    let parts = engine::Parts {
        lane: Arc::new(Nobody),
        board: Arc::default(),
        limits,
        surroundings: Surroundings::default(),
        metrics: Metrics::default(),
        beats: Beats::default(),
    };
    let (engine, task) = engine::start(parts, stop.clone());
    let mut listening = std::pin::pin!(listen(&passive, engine.clone(), stop.clone()));
    assert!(futures::poll!(&mut listening).is_pending());
    assert_eq!(passive.seat(Source::Api).expect_err("too early"), Overflow::NotJudging);
    engine.settle().await;
    listening.await;
    assert!(passive.seat(Source::Api).is_ok());
    stop.cancel();
    task.await.expect("ends");
}

#[tokio::test]
async fn an_engine_is_stopped_with_the_leading() {
    let (leading, engine_stop) = (CancellationToken::new(), CancellationToken::new());
    let engine = tokio::spawn(engine_stop.clone().cancelled_owned());
    leading.cancel();
    watch_engine(engine, &leading, &engine_stop).await.expect("as it should");
}
