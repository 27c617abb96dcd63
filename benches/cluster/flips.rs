//! Verdict → API, and death of a target → API.
//!
//! The operator logs "health changed" at the moment it puts a verdict on its board, with microseconds; a watch of our own
//! notes when the event with that verdict arrives. Both clocks are the same machine's. The difference is what the
//! operator's writer, the API server and etcd took, and our own reading of the event.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use kube::api::{Api, DynamicObject};
use serde_json::{Value, json};

use super::seen::follow;
use super::stage::{SOON, Stage, stop, until};
use crate::common::{
    figures::Figures,
    operator::Operator,
    rounds,
    stats::{percentile, sorted},
    table::Table,
};
use crate::support::{netns::fresh_address, targets::HttpTarget};

const FLIPS: usize = 50;
const DEATHS: usize = 20;

/// When which health arrived by the watch.
type Arrivals = Arc<Mutex<Vec<(Timestamp, String)>>>;

pub async fn measure(stage: &Stage, figures: &mut Figures) -> anyhow::Result<()> {
    let flips = verdicts(stage, rounds(FLIPS)).await?;
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
async fn verdicts(stage: &Stage, flips: usize) -> anyhow::Result<Vec<f64>> {
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
    let arrivals = watch(stage.checks(&namespace)).await?;
    until("the first verdict", async || Ok(last(&arrivals).as_deref() == Some("Healthy"))).await?;
    for flip in 0..flips {
        // At ever other places of the probe's round, and late enough for the writer to be idle again.
        tokio::time::sleep(Duration::from_millis(700 + 37 * (flip as u64 % 8))).await;
        let (status, wanted) = if flip % 2 == 0 { (503, "Unhealthy") } else { (200, "Healthy") };
        target.set_status(status);
        until(wanted, async || Ok(last(&arrivals).as_deref() == Some(wanted))).await?;
    }
    let seen = pair(&logged(&operator)?, &lock(&arrivals))?;
    ensure!(seen.len() >= flips, "{} verdicts of {flips} were told", seen.len());
    stop(operator)?;
    // The first verdict of all was written while the operator started.
    Ok(seen[seen.len() - flips..].to_vec())
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
    let arrivals = watch(stage.checks(&namespace)).await?;
    let mut seen = Vec::new();
    for death in 0..deaths {
        until("Healthy", async || Ok(last(&arrivals).as_deref() == Some("Healthy"))).await?;
        tokio::time::sleep(Duration::from_millis(1000 + 61 * (death as u64 % 16))).await;
        let died = Timestamp::now();
        target.close().await;
        until("Unhealthy", async || Ok(last(&arrivals).as_deref() == Some("Unhealthy"))).await?;
        let arrived = lock(&arrivals).last().context("nothing arrived")?.0;
        seen.push(arrived.duration_since(died).as_secs_f64() * 1e3);
        let shown =
            stage.cluster.kubectl_ok(&["get", "-n", &namespace, "hck/web", "-o", "jsonpath={.status.health}"]).await?;
        ensure!(shown == "Unhealthy", "kubectl shows {shown:?}");
        target.reopen().await?;
    }
    stop(operator)?;
    Ok((seen, interval * failures + timeout + Duration::from_secs(1)))
}

/// Notes every change of `status.health` from now on.
async fn watch(api: Api<DynamicObject>) -> anyhow::Result<Arrivals> {
    let arrivals = Arrivals::default();
    let noted = arrivals.clone();
    follow(api, move |object| note(&noted, object)).await?;
    Ok(arrivals)
}

fn note(arrivals: &Arrivals, object: &DynamicObject) {
    let now = Timestamp::now();
    let health = object.data.pointer("/status/health").and_then(Value::as_str).unwrap_or_default();
    let mut arrivals = lock(arrivals);
    if arrivals.last().is_none_or(|(_, last)| last != health) {
        arrivals.push((now, health.to_owned()));
    }
}

/// When the board changed to which health, by the operator's log.
pub fn logged(operator: &Operator) -> anyhow::Result<Vec<(Timestamp, String)>> {
    let mut changes = Vec::new();
    for line in operator.process().output().lines().filter(|line| line.contains("health changed")) {
        let line: Value = serde_json::from_str(line)?;
        let text = |name: &str| line[name].as_str().with_context(|| format!("no {name} in {line}"));
        changes.push((text("timestamp")?.parse()?, text("to")?.to_owned()));
    }
    Ok(changes)
}

/// Finds for each logged change its arrival: both are in the same order. Milliseconds.
fn pair(logged: &[(Timestamp, String)], arrived: &[(Timestamp, String)]) -> anyhow::Result<Vec<f64>> {
    let mut rest = arrived.iter();
    let mut seen = Vec::new();
    for (at, health) in logged {
        let Some((arrival, _)) = rest.find(|(arrival, word)| word == health && arrival >= at) else { break };
        let took = arrival.duration_since(*at);
        ensure!(took.unsigned_abs() < SOON, "{health} of {at} arrived at {arrival}");
        seen.push(took.as_secs_f64() * 1e3);
    }
    Ok(seen)
}

fn last(arrivals: &Arrivals) -> Option<String> {
    lock(arrivals).last().map(|(_, health)| health.clone())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
