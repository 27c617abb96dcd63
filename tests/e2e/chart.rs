//! The chart on a real node, by real Helm of both majors.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, ensure};
use healthcheck_operator::api::HealthCheck;
use k8s_openapi::api::core::v1::Pod;
use libtest_mimic::Trial;
use serde_json::json;

use crate::hosts::{HTTP_PORT, Host};
use crate::release::{Helm, Release};
use crate::room::{Room, SOON};
use crate::suite::Suite;
use crate::support::recorder::Recorder;
use crate::support::wait::wait_until;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.show("chart::lives_in_a_restricted_namespace_and_leaves_checks_alone", lives)]
}

async fn lives(room: Arc<Room>) -> anyhow::Result<()> {
    for mode in ["enforce", "warn"] {
        let label = format!("pod-security.kubernetes.io/{mode}=restricted");
        room.node.kubectl(&["label", "namespace", &room.namespace, &label]).await?;
    }
    let release = room.release("healthcheck-operator");
    release.upgrade_by(Helm::Three, &[]).await?;
    let first = names(&release).await?;
    ensure!(first.len() == 2, "{first:?}");

    let hosts = room.http_hosts(&["good", "bad"]).await?;
    hosts[1].answer("500").await?;
    for (name, host) in ["good", "bad"].iter().zip(&hosts) {
        let target = json!({"name": "host", "host": host.ip, "port": HTTP_PORT});
        let spec = json!({
            "interval": "500ms", "timeout": "500ms", "failureThreshold": 2,
            "probe": {"http": {"path": "/", "expectedStatuses": [200]}}, "targets": [target],
        });
        room.check(name, spec).await?;
    }
    room.health("good", "Healthy").await?;
    room.health("bad", "Unhealthy").await?;
    let recorder = room.record().await?;
    let before = since(&room).await?;

    // The other major takes the release over, and every pod is replaced.
    release.upgrade_by(Helm::Four, &["--set", "logFormat=json"]).await?;
    let second = names(&release).await?;
    ensure!(second.len() == 2 && second.iter().all(|pod| !first.contains(pod)), "{first:?} {second:?}");
    release.taken_over(&first).await?;
    nothing_told(&room, &recorder, &before, &hosts).await?;
    // Doctor, as `helm test` runs it.
    release.test().await?;

    release.uninstall_by(Helm::Three).await?;
    gone(&release).await?;
    nothing_told(&room, &recorder, &before, &[]).await?;

    release.upgrade_by(Helm::Four, &[]).await?;
    release.taken_over(&second).await?;
    nothing_told(&room, &recorder, &before, &hosts).await
}

async fn names(release: &Release) -> anyhow::Result<Vec<String>> {
    let pods = release.pods().await?;
    pods.into_iter().map(|pod| pod.metadata.name.context("a pod without a name")).collect()
}

async fn gone(release: &Release) -> anyhow::Result<()> {
    wait_until("the pods to be gone", SOON, || async {
        let left: Vec<Pod> = release.pods().await?;
        ensure!(left.is_empty(), "{} pods", left.len());
        anyhow::Ok(())
    })
    .await
}

/// Since when each check has the health it has.
async fn since(room: &Room) -> anyhow::Result<BTreeMap<String, String>> {
    let checks = room.api::<HealthCheck>().list(&Default::default()).await?;
    let pair = |check: HealthCheck| {
        let status = check.status.unwrap_or_default();
        (check.metadata.name.unwrap_or_default(), format!("{:?} since {:?}", status.health, status.since))
    };
    Ok(checks.items.into_iter().map(pair).collect())
}

/// The objects are there, and no health changed meanwhile, not for a moment, while `hosts` are asked on.
async fn nothing_told(
    room: &Room,
    recorder: &Recorder<HealthCheck>,
    before: &BTreeMap<String, String>,
    hosts: &[Host],
) -> anyhow::Result<()> {
    for host in hosts {
        let seen = host.hits().await?;
        wait_until("further probes", SOON, || async {
            let now = host.hits().await?;
            ensure!(now >= seen + 6, "{now} hits, {seen} before");
            anyhow::Ok(())
        })
        .await?;
    }
    let now = since(room).await?;
    ensure!(&now == before, "{before:?} became {now:?}");
    for (check, want) in [("good", "Healthy"), ("bad", "Unhealthy")] {
        let health = |check: &HealthCheck| check.status.as_ref().and_then(|status| status.health.clone());
        let seen = recorder.history(check, health)?;
        ensure!(seen == [Some(want.to_owned())], "{check} was {seen:?}");
    }
    Ok(())
}
