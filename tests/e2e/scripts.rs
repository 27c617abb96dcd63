//! Scripts in pods of their own, of an image that is not ours, asked over mutual TLS.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use healthcheck_operator::api::HealthCheck;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::ListParams;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::release::Release;
use crate::room::{Room, SOON};
use crate::suite::Suite;
use crate::support::wait::wait_until;

/// An image without a trace of ours: a shell and some tools.
const VALUES: [&str; 10] = [
    "--set",
    "scripts.enabled=true",
    "--set",
    "runner.mode=Deployment",
    "--set",
    "runner.image.repository=node-tools",
    "--set-string",
    "runner.image.tag=1",
    "--set",
    "replicaCount=1",
];

/// What a script finds out of the place it runs in; it leaves a process in a session of its own behind.
const SOURCE: &str = r#"
    test "$(id -u)" = 65533 || { echo "runs as $(id -u)"; exit 1; }
    for secret in /etc/healthcheck-operator /var/run/secrets/kubernetes.io; do
        test ! -e $secret || { echo "sees $secret"; exit 1; }
    done
    if touch /opt/healthcheck-operator/x 2>/dev/null; then echo "may change its runner"; exit 1; fi
    setsid sleep 7777 &
    test ! -e /tmp/broken || { echo "the disk is full"; exit 1; }
"#;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.show("scripts::run_apart_in_an_image_of_the_users_choice", apart)]
}

async fn apart(room: Arc<Room>) -> anyhow::Result<()> {
    for mode in ["enforce", "warn"] {
        let label = format!("pod-security.kubernetes.io/{mode}=restricted");
        room.node.kubectl(&["label", "namespace", &room.namespace, &label]).await?;
    }
    let release = room.operator(&VALUES).await?;
    let record = room.record().await?;
    let spec = json!({
        "interval": "500ms", "timeout": "500ms", "failureThreshold": 2, "successThreshold": 2, "staleAfter": "1m",
        "targets": [{"name": "disk", "probe": {"script": {"source": SOURCE}}}],
    });
    room.check("disk", spec).await?;
    room.health("disk", "Healthy").await?;
    shell(&room, &release, "touch /tmp/broken").await?;
    let check = room.health("disk", "Unhealthy").await?;
    let told = row(&check);
    ensure!(told["reason"] == "ExitCode" && told["message"] == "exit code 1: the disk is full", "{told}");
    shell(&room, &release, "rm /tmp/broken").await?;
    room.health("disk", "Healthy").await?;
    // Each run left one, and no more than the one of a run under way is there.
    let left = shell(&room, &release, "ps | grep -c '[s]leep 7777' || true").await?;
    ensure!(left.trim().parse::<u32>().is_ok_and(|left| left <= 1), "{left} are left");

    // An upgrade keeps the certificates; without them it makes new ones, which both sides take up as they run.
    let first = certificates(&room).await?;
    release.upgrade(&room.own_values(&VALUES)).await?;
    ensure!(certificates(&room).await? == first, "an upgrade made new certificates");
    let pods = pod_names(&room).await?;
    for name in first.iter().map(|(name, _)| name) {
        room.node.kubectl(&["delete", "secret", "--namespace", &room.namespace, name]).await?;
    }
    release.upgrade(&room.own_values(&VALUES)).await?;
    let second = certificates(&room).await?;
    ensure!(second.iter().zip(&first).all(|(now, then)| now.1 != then.1), "the same certificates again");
    ensure!(pod_names(&room).await? == pods, "pods were replaced");

    // Without its runner nothing can be seen; that is nothing of the disk's.
    let runner = format!("deployment/{}-runner", release.full_name());
    scale(&room, &runner, 0).await?;
    wait_until("the runner to be missed", SOON, || async {
        let told = row(&room.api::<HealthCheck>().get("disk").await?);
        ensure!(told["reason"] == "RunnerUnreachable", "{told}");
        anyhow::Ok(())
    })
    .await?;
    scale(&room, &runner, 1).await?;
    // The new pod has the new certificates from its start; the operator has them as soon as the kubelet brings them.
    wait_until("the runner to be asked again", Duration::from_secs(150), || async {
        let told = row(&room.api::<HealthCheck>().get("disk").await?);
        ensure!(told["reason"] == Value::Null || told["reason"] == "", "{told}");
        ensure!(told["state"] == "Healthy", "{told}");
        anyhow::Ok(())
    })
    .await?;
    let words = |check: &HealthCheck| check.status.as_ref().and_then(|status| status.health.clone());
    let seen = record.history("disk", words)?;
    let fell = seen.iter().filter(|word| word.as_deref() == Some("Unhealthy")).count();
    ensure!(fell == 1, "only the full disk is a failure: {seen:?}");
    Ok(())
}

/// What the status says of the only target.
fn row(check: &HealthCheck) -> Value {
    json!(check.status)["targets"][0].clone()
}

/// Runs a command beside the scripts.
async fn shell(room: &Room, release: &Release, source: &str) -> anyhow::Result<String> {
    let runner = format!("deployment/{}-runner", release.full_name());
    let exec =
        ["exec", "--namespace", &room.namespace, &runner, "--container", "runner", "--", "/bin/sh", "-c", source];
    room.node.kubectl(&exec).await
}

async fn scale(room: &Room, deployment: &str, replicas: u32) -> anyhow::Result<()> {
    let replicas = format!("--replicas={replicas}");
    room.node.kubectl(&["scale", "--namespace", &room.namespace, deployment, &replicas]).await?;
    room.node.kubectl(&["rollout", "status", "--namespace", &room.namespace, deployment, "--timeout=60s"]).await?;
    Ok(())
}

/// The names of the Secrets that the chart made, and what is in them.
async fn certificates(room: &Room) -> anyhow::Result<Vec<(String, Option<ByteString>)>> {
    let of_runner = ListParams::default().labels("app.kubernetes.io/component=runner");
    let found = room.api::<Secret>().list(&of_runner).await?.items;
    ensure!(found.len() == 2, "{} Secrets", found.len());
    let pair = |secret: Secret| {
        let name = secret.metadata.name.context("a Secret without a name")?;
        Ok((name, secret.data.and_then(|mut data| data.remove("tls.crt"))))
    };
    found.into_iter().map(pair).collect()
}

async fn pod_names(room: &Room) -> anyhow::Result<Vec<String>> {
    let mut pods = room.api::<Pod>().list(&ListParams::default()).await?.items;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    let mut names: Vec<_> = pods.into_iter().filter_map(|pod| pod.metadata.name).collect();
    names.sort();
    Ok(names)
}
