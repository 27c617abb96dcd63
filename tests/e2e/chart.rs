//! The chart on a real node, by real Helm of both majors.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::ensure;
use healthcheck_operator::api::HealthCheck;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::ListParams;
use libtest_mimic::Trial;
use serde_json::json;

use crate::gated::{self, Gated};
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
    let first = release.pod_names().await?;
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
    // Whoever told that has all the system calls that the fast lane takes.
    let log = release.logs().await?;
    ensure!(log.contains("health changed") && !log.contains("no fast lane"), "{log}");
    let gated = Gated::new(&room, "traffic", &hosts, gated::spec(&hosts), json!({})).await?;
    let settled = gated.settled(&[true, false]).await?;
    room.health("traffic", "Degraded").await?;
    let recorder = room.record().await?;
    let (before, slices) = (since(&room).await?, slices(&room).await?);

    // The other major takes the release over, and every pod is replaced.
    let traffic = gated.traffic().await?;
    release.upgrade_by(Helm::Four, &["--set", "logFormat=json"]).await?;
    let second = release.pod_names().await?;
    ensure!(second.len() == 2 && second.iter().all(|pod| !first.contains(pod)), "{first:?} {second:?}");
    release.taken_over(&first).await?;
    nothing_told(&room, &recorder, &before, &hosts).await?;
    traffic.stop("helm upgrade").await?.lossless()?;
    gated.published.unchanged(settled)?;
    // Doctor, as `helm test` runs it.
    release.test().await?;

    // What nobody probes any more is not withheld any more: a Service is never taken down with the operator.
    release.uninstall_by(Helm::Three).await?;
    gone(&release).await?;
    nothing_told(&room, &recorder, &before, &[]).await?;
    gated.says(&[true, true]).await?;
    ensure!(self::slices(&room).await? == slices, "the slices stay");

    release.upgrade_by(Helm::Four, &[]).await?;
    release.taken_over(&second).await?;
    nothing_told(&room, &recorder, &before, &hosts).await?;
    gated.says(&[true, false]).await?;
    gated.effective("Enforced").await?;
    ensure!(self::slices(&room).await? == slices, "what is there is adopted");
    let traffic = gated.traffic().await?;
    traffic.more(100).await?;
    traffic.stop("installed again").await?.lossless()?;
    for (host, wanted) in hosts.iter().zip([&[true][..], &[false, true, false]]) {
        let seen = gated.published.history(host.ip, settled)?;
        ensure!(seen.iter().copied().eq(wanted.iter().copied().map(Some)), "{} was {seen:?}", host.name);
    }
    Ok(())
}

/// The EndpointSlices of the namespace that a gate has written.
async fn slices(room: &Room) -> anyhow::Result<BTreeMap<String, Option<String>>> {
    let ours = ListParams::default().labels("endpointslice.kubernetes.io/managed-by=healthcheck-operator.dev");
    let found = room.api::<EndpointSlice>().list(&ours).await?.items;
    ensure!(!found.is_empty(), "no slices");
    Ok(found.into_iter().map(|slice| (slice.name_any(), slice.metadata.uid)).collect())
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

/// The objects are there, and no health of `good` and `bad` changed meanwhile, not for a moment, while `hosts` are asked on.
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
