//! 10,000 endpoints, each in a HealthCheck of its own and then 64 in one: from start to all scheduled, and the memory of
//! the whole operator with its caches.
//!
//! One tenth of the HealthChecks bears a label; an operator that selects it is the other point of the line that tells
//! bytes per endpoint.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use super::stage::{Stage, stop};
use crate::common::{listener::Listener, operator::Operator, rounds, scaled, stats::median, table::Table};

const ENDPOINTS: usize = 10_000;
/// As many targets as a HealthCheck may have.
const MOST_TARGETS: usize = 64;
/// Where every target listens.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 64, 1);
/// Creations at once.
const AT_ONCE: usize = 16;
/// `BENCH_ROUNDS` counts flips too, of which there are to be more.
const MOST_STARTS: usize = 5;
const START: Duration = Duration::from_secs(180);
/// At 50 writes a second it takes 200 s until each of 10,000 has its first status; more on a machine that is busy.
const WRITTEN: Duration = Duration::from_secs(900);
/// Confirmations go on for ever, at most this many a second (`behaviour.md`).
const CONFIRMATIONS: f64 = 5.0;

struct Run {
    ready: Duration,
    scheduled: Duration,
    resident: f64,
    anonymous: f64,
}

pub async fn measure(stage: &Stage) -> anyhow::Result<()> {
    let port = Listener::start()?.port;
    for (name, targets) in [("many", 1), ("large", MOST_TARGETS)] {
        measure_one(stage, name, scaled(ENDPOINTS).div_ceil(targets), targets, port).await?;
    }
    Ok(())
}

async fn measure_one(stage: &Stage, name: &str, checks: usize, targets: usize, port: u16) -> anyhow::Result<()> {
    let namespace = stage.cluster.namespace(name).await?;
    let begun = Instant::now();
    create(stage, &namespace, checks, targets, port).await?;
    let created = begun.elapsed();
    // Each object has its first status after this: what is measured below is the life of a cluster, not its first hour.
    let first = stage.operator(&namespace, &[])?;
    first.wait_scheduled(checks * targets, START)?;
    let written = wait_written(&first).await?;
    stop(first)?;
    let few_endpoints = checks.div_ceil(10) * targets;
    let (mut all, mut few) = (vec![], vec![]);
    for round in 1..=rounds(3).min(MOST_STARTS) {
        eprintln!("round {round}");
        few.push(run(stage, &namespace, &["--label-selector", "bench=few"], few_endpoints).await?);
        all.push(run(stage, &namespace, &[], checks * targets).await?);
    }
    let of = |runs: &[Run], part: fn(&Run) -> f64| median(runs.iter().map(part));
    let mut table = Table::new(["HealthChecks", "endpoints", "ready", "all scheduled", "RSS", "heap"]);
    for (count, runs) in [(checks.div_ceil(10), &few), (checks, &all)] {
        table.row([
            count.to_string(),
            (count * targets).to_string(),
            format!("{:.2} s", of(runs, |run| run.ready.as_secs_f64())),
            format!("{:.2} s", of(runs, |run| run.scheduled.as_secs_f64())),
            format!("{:.1} MB", of(runs, |run| run.resident) / 1e6),
            format!("{:.1} MB", of(runs, |run| run.anonymous) / 1e6),
        ]);
    }
    table.print(&format!("From the start of a controller (endpoints in each check: {targets})"));
    let grown = of(&all, |run| run.resident) - of(&few, |run| run.resident);
    println!("bytes per endpoint, caches included: {:.0}", grown / (checks * targets - few_endpoints) as f64);
    println!(
        "creating the checks took {:.0} s, writing the first status of each {:.0} s\n",
        created.as_secs_f64(),
        written.as_secs_f64()
    );
    Ok(())
}

async fn create(stage: &Stage, namespace: &str, checks: usize, targets: usize, port: u16) -> anyhow::Result<()> {
    let stage = Arc::new(stage);
    futures::stream::iter(0..checks)
        .map(|number| {
            let stage = stage.clone();
            let target = |index: usize| {
                let offset = u32::try_from(number * targets + index).unwrap_or(u32::MAX);
                json!({ "name": format!("db-{index}"), "host": Ipv4Addr::from(u32::from(FIRST) + offset), "port": port })
            };
            let spec = json!({
                "interval": "10s", "timeout": "1s", "probe": { "tcp": {} },
                "targets": (0..targets).map(target).collect::<Vec<_>>(),
            });
            let labels = if number % 10 == 0 { json!({ "bench": "few" }) } else { json!({ "bench": "many" }) };
            async move { stage.create(namespace, &format!("check-{number}"), labels, spec).await }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn run(stage: &Stage, namespace: &str, flags: &[&str], endpoints: usize) -> anyhow::Result<Run> {
    let operator = stage.operator(namespace, flags)?;
    let ready = stage.ready(&operator).await?;
    let scheduled = operator.wait_scheduled(endpoints, START)?;
    operator.wait_probes(3 * endpoints, START)?;
    let used = operator.usage()?;
    stop(operator)?;
    Ok(Run { ready, scheduled, resident: used.resident as f64, anonymous: used.anonymous as f64 })
}

/// Waits until nothing is written but confirmations, and returns how long that took.
async fn wait_written(operator: &Operator) -> anyhow::Result<Duration> {
    let pause = Duration::from_secs(5);
    let patches = || -> anyhow::Result<f64> {
        Ok(operator.metrics()?.sum("healthcheck_operator_api_requests_total", "verb=\"patch\""))
    };
    let (begun, mut before) = (Instant::now(), patches()?);
    while begun.elapsed() < WRITTEN {
        tokio::time::sleep(pause).await;
        let now = patches()?;
        if now > 0.0 && (now - before) / pause.as_secs_f64() <= CONFIRMATIONS {
            return Ok(begun.elapsed() - pause);
        }
        before = now;
    }
    bail!("still writing after {WRITTEN:?}")
}
