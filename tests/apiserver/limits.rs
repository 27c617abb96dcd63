//! What a check may have at most: checks below one another, and rows in its status.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::ensure;
use healthcheck_operator::api::HealthCheck;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, condition, fast, health, message, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::netns::fresh_address;
use crate::support::ports::free_port;
use crate::support::targets::HttpTarget;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("limits::a_composite_that_nests_too_deep_is_stalled", depth),
        suite.trial("limits::a_status_shows_a_hundred_rows_and_a_restart_keeps_the_rest", rows),
    ]
}

async fn depth(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "depth").await?;
    let web = HttpTarget::start().await?;
    let _operator = stage.operator("hco-0").await?;
    let of = |member: usize| json!({"targets": [{"name": "m", "healthCheck": {"name": format!("level-{member}")}}]});
    stage.apply("level-0", fast(&[target("a", web.address())])).await?;
    for level in 1..=6 {
        stage.apply(&format!("level-{level}"), of(level - 1)).await?;
    }
    // Five below it are allowed, and the verdict comes all the way up.
    let check = stage.wait_health("level-5", "Healthy").await?;
    ensure!(condition(&check, "Ready") == "True/Accepted", "{:?}", check.status);
    ensure!(condition(&check, "Stalled").is_empty(), "{:?}", check.status);
    let check = stage.wait("level-6", "stalled", |check| condition(check, "Stalled") == "True/TooDeep").await?;
    ensure!(condition(&check, "Ready") == "False/TooDeep", "{:?}", check.status);
    ensure!(condition(&check, "Healthy") == "Unknown/ProbeError", "{:?}", check.status);
    let wanted = "spec.targets[0].healthCheck.name: HealthChecks nest at most 5 deep";
    ensure!(message(&check, "Stalled").starts_with(wanted), "{:?}", check.status);

    web.set_status(500);
    stage.wait_health("level-5", "Unhealthy").await?;
    // The mend that the message names; the edit is the only one.
    stage.apply("level-6", of(1)).await?;
    let check = stage.wait_health("level-6", "Unhealthy").await?;
    ensure!(condition(&check, "Ready") == "True/Accepted", "{:?}", check.status);
    ensure!(condition(&check, "Stalled").is_empty(), "{:?}", check.status);
    Ok(())
}

/// Endpoints that answer, and that do not: together more than a status has rows.
const UP: usize = 110;
const DOWN: usize = 7;

/// A slice of the Service `shop` as another controller than the cluster's own may make it.
fn slice(name: &str, port: u16, addresses: &[Ipv4Addr]) -> Value {
    let endpoint = |address: &Ipv4Addr| json!({"addresses": [address], "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "shop"}},
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

fn summary(check: &HealthCheck) -> String {
    check.status.as_ref().and_then(|status| status.summary.clone()).unwrap_or_default()
}

/// How many rows there are, and whether it is the failing ones that are first.
fn shown(check: &HealthCheck) -> (usize, bool) {
    let rows = check.status.as_ref().map(|status| status.targets.as_slice()).unwrap_or_default();
    let failing_first = rows.iter().enumerate().all(|(place, row)| (row.state == "Unhealthy") == (place < DOWN));
    (rows.len(), failing_first)
}

async fn rows(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "rows").await?;
    // One listener each, at all addresses of this machine.
    let up = HttpTarget::start_on((Ipv4Addr::UNSPECIFIED, free_port()).into()).await?;
    let down = HttpTarget::start_on((Ipv4Addr::UNSPECIFIED, free_port()).into()).await?;
    down.set_status(500);
    let addresses = |count: usize| (0..count).map(|_| fresh_address()).collect::<Vec<_>>();
    // Without a selector, so that its slices are left to us.
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    });
    let items =
        [service, slice("shop-up", up.port(), &addresses(UP)), slice("shop-down", down.port(), &addresses(DOWN))];
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    cluster.apply(&stage.namespace, &list.to_string()).await?;

    let operator = stage.operator("hco-0").await?;
    let mut spec = fast(&[json!({"name": "svc", "service": {"name": "shop"}, "port": "http"})]);
    spec["interval"] = json!("2s");
    spec["minHealthy"] = json!("50%");
    stage.apply("shop", spec).await?;
    let whole = format!("{UP}/{}", UP + DOWN);
    let check = stage.wait("shop", "all to be decided", |check| decided(check) && summary(check) == whole).await?;
    ensure!(health(&check) == "Degraded", "{:?}", check.status);
    ensure!(shown(&check) == (100, true), "{:?}", check.status);

    // Another process knows of the rows that are not shown no more than that they were well.
    operator.process().stop()?;
    let events = stage.events("shop").await?;
    let record = stage.record().await?;
    let _operator = stage.operator("hco-1").await?;
    let claimed =
        |check: &HealthCheck| check.status.as_ref().and_then(|status| status.prober.as_deref()) == Some("hco-1");
    stage.wait("shop", "the claim", claimed).await?;
    up.wait_hits(2 * UP as u64, SOON).await?;
    down.wait_hits(2 * DOWN as u64, SOON).await?;
    for (what, told) in [("health", record.history("shop", health)?), ("summary", record.history("shop", summary)?)] {
        ensure!(told.len() == 1, "{what}: {told:?}");
    }
    ensure!(record.history("shop", shown)? == [(100, true)], "{:?}", record.history("shop", shown)?);
    ensure!(stage.events("shop").await? == events, "a restart is no transition");
    // It goes on from there: what is mended is seen, and what was not shown can fail.
    down.set_status(200);
    stage.wait_health("shop", "Healthy").await?;
    up.set_status(500);
    stage.wait_health("shop", "Unhealthy").await?;
    Ok(())
}

/// Whether every endpoint has its verdict.
fn decided(check: &HealthCheck) -> bool {
    check.status.as_ref().and_then(|status| status.counts).is_some_and(|counts| counts.unknown == 0)
}
