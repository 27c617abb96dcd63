//! Verdict → API, and death of a target → API.
//!
//! The operator logs "health changed" at the moment it puts a verdict on its board, with microseconds; a watch of our own
//! notes when the event with that verdict arrives. Both clocks are the same machine's. The difference is what the
//! operator's writer, the API server and etcd took, and our own reading of the event.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use serde_json::json;

use super::seen::{Seen, verdicts};
use super::stage::{Stage, stop, until};
use crate::common::{
    figures::Figures,
    rounds,
    stats::{percentile, sorted},
    table::Table,
};
use crate::support::{netns::fresh_address, targets::HttpTarget};

const FLIPS: usize = 50;
const DEATHS: usize = 20;

pub async fn measure(stage: &Stage, figures: &mut Figures) -> anyhow::Result<()> {
    let flips = flips(stage, rounds(FLIPS)).await?;
    let (deaths, bound) = deaths(stage, rounds(FLIPS).min(DEATHS)).await?;
    let mut table = Table::new(["from → to", "times", "p50", "p99", "max", "goal"]);
    let mut row = |name: &str, seen: Vec<f64>, goal: &str| {
        let seen = sorted(seen);
        let at = |percent| format!("{:.1} ms", percentile(&seen, percent));
        table.row([name.to_owned(), seen.len().to_string(), at(50.0), at(99.0), at(100.0), goal.to_owned()]);
    };
    let sorted_flips = sorted(flips.clone());
    let idle = |percent| percentile(&sorted_flips, percent);
    figures.reach("9", "verdict → status, idle, p99", idle(99.0));
    figures.note("verdict → status, idle, p50", idle(50.0), "ms");
    row("verdict on the board → watch event", flips, "≤ 100 ms");
    row("target refuses → watch event and kubectl", deaths, &format!("≤ {} ms", bound.as_millis()));
    table.print("How soon the API shows it (idle, one check)");
    Ok(())
}

/// Milliseconds from each verdict to its arrival.
async fn flips(stage: &Stage, flips: usize) -> anyhow::Result<Vec<f64>> {
    let namespace = stage.cluster.namespace("flips").await?;
    let target = HttpTarget::start_on((fresh_address(), 8080).into()).await?;
    let spec = json!({
        "interval": "200ms", "timeout": "200ms", "failureThreshold": 1, "successThreshold": 1,
        "probe": { "http": { "path": "/" } },
        "targets": [{ "name": "web", "host": target.ip(), "port": target.port() }],
    });
    stage.create(&namespace, "web", json!({}), spec).await?;
    let operator = stage.operator(&namespace, &["--log-format", "json"])?;
    stage.ready(&operator).await?;
    let seen = Seen::watch(stage.checks(&namespace)).await?;
    shown(&seen, "Healthy").await?;
    for flip in 0..flips {
        // At ever other places of the probe's round, and late enough for the writer to be idle again.
        tokio::time::sleep(Duration::from_millis(700 + 37 * (flip as u64 % 8))).await;
        let (status, wanted) = if flip % 2 == 0 { (503, "Unhealthy") } else { (200, "Healthy") };
        target.set_status(status);
        shown(&seen, wanted).await?;
    }
    let told = verdicts(&operator)?;
    ensure!(told.len() >= flips, "{} verdicts of {flips} were told", told.len());
    stop(operator)?;
    // The first verdict of all was written while the operator started.
    seen.after(&told[told.len() - flips..])
}

/// Milliseconds from each death of a target to its arrival in the API, and what the issue allows for it.
async fn deaths(stage: &Stage, deaths: usize) -> anyhow::Result<(Vec<f64>, Duration)> {
    let namespace = stage.cluster.namespace("deaths").await?;
    let target = HttpTarget::start_on((fresh_address(), 8080).into()).await?;
    let (interval, timeout, failures) = (Duration::from_secs(1), Duration::from_secs(1), 3);
    let spec = json!({
        "interval": "1s", "timeout": "1s", "failureThreshold": failures, "successThreshold": 1,
        "probe": { "http": { "path": "/" } },
        "targets": [{ "name": "web", "host": target.ip(), "port": target.port() }],
    });
    stage.create(&namespace, "web", json!({}), spec).await?;
    let operator = stage.operator(&namespace, &[])?;
    stage.ready(&operator).await?;
    let seen = Seen::watch(stage.checks(&namespace)).await?;
    let mut took = Vec::new();
    for death in 0..deaths {
        shown(&seen, "Healthy").await?;
        tokio::time::sleep(Duration::from_millis(1000 + 61 * (death as u64 % 16))).await;
        let died = Timestamp::now();
        target.close().await;
        shown(&seen, "Unhealthy").await?;
        let arrived = seen.latest(|_| true).context("nothing arrived")?;
        took.push(arrived.duration_since(died).as_secs_f64() * 1e3);
        let printed =
            stage.cluster.kubectl_ok(&["get", "-n", &namespace, "hck/web", "-o", "jsonpath={.status.health}"]).await?;
        ensure!(printed == "Unhealthy", "kubectl shows {printed:?}");
        target.reopen().await?;
    }
    stop(operator)?;
    Ok((took, interval * failures + timeout + Duration::from_secs(1)))
}

/// Waits until the API shows `health`, of the only check.
async fn shown(seen: &Seen, health: &str) -> anyhow::Result<()> {
    until(health, async || Ok(seen.count(|shown| shown.health == health) == 1)).await?;
    Ok(())
}
