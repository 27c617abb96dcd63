//! What the operator takes on a node.

use std::sync::Arc;

use anyhow::{Context, ensure};
use healthcheck_operator::api::HealthCheck;
use libtest_mimic::Trial;
use serde_json::json;

use crate::hosts::HTTP_PORT;
use crate::room::{Room, SOON};
use crate::suite::Suite;
use crate::support::wait::wait_until;

const CHECKS: usize = 50;
/// The goal is 30 MB for the release's build; this one is another, and a leak is what would be far above.
const MOST_MB: f64 = 60.0;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.show("memory::of_the_operator_with_fifty_checks", fifty)]
}

async fn fifty(room: Arc<Room>) -> anyhow::Result<()> {
    let release = room.operator(&[]).await?;
    let hosts = room.http_hosts(&["target"]).await?;
    let check = |number: usize| {
        let probe = if number.is_multiple_of(2) { json!({"http": {"path": "/"}}) } else { json!({"tcp": {}}) };
        json!({
            "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck",
            "metadata": {"name": format!("check-{number}")},
            "spec": {
                "interval": "1s", "probe": probe,
                "targets": [{"name": "host", "host": hosts[0].ip, "port": HTTP_PORT}],
            },
        })
    };
    let checks: Vec<_> = (0..CHECKS).map(check).collect();
    room.apply(&json!({"apiVersion": "v1", "kind": "List", "items": checks})).await?;
    wait_until("all checks to be healthy", SOON, || async {
        let checks = room.api::<HealthCheck>().list(&Default::default()).await?.items;
        let healthy =
            |check: &&HealthCheck| check.status.as_ref().is_some_and(|s| s.health.as_deref() == Some("Healthy"));
        let count = checks.iter().filter(healthy).count();
        ensure!(count == CHECKS, "{count} of {CHECKS}");
        anyhow::Ok(())
    })
    .await?;
    // Ten rounds of all, so that what a probe needs was needed.
    let seen = hosts[0].hits().await?;
    wait_until("further probes", SOON, || async {
        let now = hosts[0].hits().await?;
        ensure!(now >= seen + 250, "{} more hits", now - seen);
        anyhow::Ok(())
    })
    .await?;
    for (pod, process) in release.processes().await? {
        let megabytes = resident_megabytes(process)?;
        println!("  {pod}: {megabytes:.1} MB resident with {CHECKS} checks");
        ensure!(megabytes < MOST_MB, "{pod} has {megabytes:.1} MB");
    }
    Ok(())
}

fn resident_megabytes(process: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process without VmRSS")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024.0 / 1e6)
}
