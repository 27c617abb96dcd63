//! What the operator takes on a node.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use healthcheck_operator::api::HealthCheck;
use libtest_mimic::Trial;
use serde_json::json;

use crate::hosts::{HTTP_PORT, Host};
use crate::room::{Room, SOON};
use crate::suite::Suite;
use crate::support::audit::AuditLog;
use crate::support::wait::wait_until;

const CHECKS: usize = 50;
/// Of these, with a gate.
const GATED: usize = 5;
/// The goal is 30 MB for the release's build; this one is another, and a leak is what would be far above.
const MOST_MB: f64 = 60.0;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.show("memory::fifty_checks_take_little_and_write_nothing", fifty)]
}

async fn fifty(room: Arc<Room>) -> anyhow::Result<()> {
    // The status of each is confirmed from time to time; that is no part of what is shown.
    let release = room.operator(&["--set", "statusRefresh=1h"]).await?;
    let hosts = room.http_hosts(&["target"]).await?;
    for number in 0..GATED {
        let ports = json!([{"name": "traffic", "port": 80}]);
        room.service(&format!("check-{number}"), json!({"ports": ports})).await?;
    }
    let check = |number: usize| {
        // Equal questions would be asked once for all of them.
        let http = json!({"http": {"path": format!("/?check={number}")}});
        let probe = if number.is_multiple_of(2) { http } else { json!({"tcp": {}}) };
        let gates = if number < GATED {
            json!([{"name": "traffic", "endpointSlice": {"service": format!("check-{number}")}}])
        } else {
            json!([])
        };
        json!({
            "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck",
            "metadata": {"name": format!("check-{number}")},
            "spec": {
                "interval": "1s", "probe": probe, "gates": gates,
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
    ten_rounds(&hosts[0]).await?;
    let audit = AuditLog::new(Path::new(room.node.fact("AUDIT_LOG")));
    let mark = audit.mark()?;
    ten_rounds(&hosts[0]).await?;
    let user = format!("system:serviceaccount:{}:{}", room.namespace, release.full_name());
    let (leases, others): (Vec<_>, Vec<_>) =
        audit.writes_by(&user, mark)?.into_iter().partition(|entry| entry.resource == "leases");
    println!("  ten rounds of {CHECKS} checks: {} writes of the lease, {} others", leases.len(), others.len());
    ensure!(others.is_empty(), "{others:?}");
    for (pod, process) in release.processes().await? {
        let megabytes = resident_megabytes(process)?;
        println!("  {pod}: {megabytes:.1} MB resident with {CHECKS} checks");
        ensure!(megabytes < MOST_MB, "{pod} has {megabytes:.1} MB");
    }
    Ok(())
}

/// Half of the checks ask the HTTP target once a second.
async fn ten_rounds(host: &Host) -> anyhow::Result<()> {
    let seen = host.hits().await?;
    wait_until("further probes", SOON, || async {
        let now = host.hits().await?;
        ensure!(now >= seen + 10 * CHECKS as u64 / 2, "{} more hits", now - seen);
        anyhow::Ok(())
    })
    .await
}

fn resident_megabytes(process: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process without VmRSS")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024.0 / 1e6)
}
