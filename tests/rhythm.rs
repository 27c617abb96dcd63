//! From a manifest's rhythm to the moments at which the engine asks, on paused time.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use healthcheck_operator::{
    check::{Attempt, Outcome, Report},
    compile::Mode,
    engine::{self, Board, Limits, Parts, Surroundings},
    probe::Lane,
    source::{Source, desired, load},
    telemetry::{Beats, Metrics},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const INTERVAL_MS: i64 = 10_000;
const ROUNDS: usize = 200;

/// Everything is well, and when each attempt began is kept.
#[derive(Clone, Debug, Default)]
struct Clocked(Arc<Mutex<Vec<Instant>>>);

impl Lane for Clocked {
    async fn attempt(&self, _: Attempt) -> Report {
        self.0.lock().expect("no holder of this lock panics").push(Instant::now());
        let took = Duration::from_millis(2);
        sleep(took).await;
        Report::new(Outcome::Success, took)
    }
}

/// When a check with these lines in its spec is asked, in milliseconds since the engine's start; the first time, which
/// comes soon and not in its slot, is left out.
async fn asked(lines: &str) -> Vec<i64> {
    let text = format!(
        "apiVersion: healthcheck-operator.dev/v1alpha1\nkind: HealthCheck\nmetadata: {{name: db, namespace: shop}}\n\
         spec:\n  interval: 10s\n{lines}  targets: [{{name: a, host: 192.0.2.1, port: 5432}}]\n"
    );
    let loaded = load(&[Source { name: "checks.yaml".into(), text }], Mode::Standalone);
    assert!(loaded.faults.is_empty(), "{:?}", loaded.faults);
    let (lane, stop) = (Clocked::default(), CancellationToken::new());
    let parts = Parts {
        lane: Arc::new(lane.clone()),
        board: Arc::new(Board::new()),
        limits: Limits { in_flight: 10, per_host: 10 },
        surroundings: Surroundings::default(),
        metrics: Metrics::default(),
        beats: Beats::default(),
    };
    let metrics = parts.metrics.clone();
    let begun = Instant::now();
    let (engine, ended) = engine::start(parts, stop.clone());
    for declared in loaded.declared {
        engine.upsert(desired(Arc::new(declared.check))).await;
    }
    sleep(Duration::from_millis(INTERVAL_MS.unsigned_abs()) * u32::try_from(ROUNDS).expect("few")).await;
    stop.cancel();
    ended.await.expect("no panic");
    assert_eq!(metrics.skipped_rounds.get(), 0);
    let starts = lane.0.lock().expect("no holder of this lock panics");
    starts[1..].iter().map(|at| i64::try_from((*at - begun).as_millis()).expect("few")).collect()
}

/// How far each moment is from the slot it belongs to, where slots lie as in `plain`.
fn moved(starts: &[i64], plain: &[i64]) -> Vec<i64> {
    let phase = plain[0].rem_euclid(INTERVAL_MS);
    let half = INTERVAL_MS / 2;
    starts.iter().map(|at| (at - phase + half).rem_euclid(INTERVAL_MS) - half).collect()
}

#[tokio::test(start_paused = true)]
async fn without_jitter_every_probe_starts_in_its_slot() {
    let plain = asked("").await;
    assert!(plain.len() >= ROUNDS - 2, "{}", plain.len());
    // A millisecond or two of the wheel's own, never more.
    assert!(moved(&plain, &plain).iter().all(|by| by.abs() <= 2), "{plain:?}");
    assert_eq!(asked("  jitterPercent: 0\n").await.len(), plain.len());
}

#[tokio::test(start_paused = true)]
async fn jitter_moves_each_probe_around_its_slot_and_adds_up_to_nothing() {
    let plain = asked("").await;
    for percent in [20, 60] {
        let starts = asked(&format!("  jitterPercent: {percent}\n")).await;
        // The mean rate is exact: a round more or less is one at either end.
        assert!(starts.len().abs_diff(plain.len()) <= 1, "{percent}: {} and {}", starts.len(), plain.len());
        let moved = moved(&starts, &plain);
        let most = INTERVAL_MS * percent / 200;
        assert!(moved.iter().all(|by| by.abs() <= most + 2), "{percent}: {moved:?}");
        // To both sides, and nearly as far as it may.
        let (first, last) = (moved.iter().min().copied(), moved.iter().max().copied());
        assert!(first < Some(-most * 8 / 10) && last > Some(most * 8 / 10), "{percent}: {first:?} to {last:?}");
        let mean = moved.iter().sum::<i64>() / i64::try_from(moved.len()).expect("few");
        assert!(mean.abs() < most / 5, "{percent}: {mean} ms on average");
    }
}
