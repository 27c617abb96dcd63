//! What goes on while nothing happens: confirmations, several namespaces, the operator's own figures, and addresses that
//! are never probed.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::ensure;
use healthcheck_operator::api::HealthCheck;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, fast, health, lasting, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::operator;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("upkeep::a_status_is_confirmed_and_says_nothing_else", confirmed),
        suite.trial("upkeep::every_namespace_that_is_named_is_watched_and_no_other", namespaces),
        suite.trial("upkeep::the_pods_of_our_own_release_are_never_probed", own_pods),
    ]
}

async fn confirmed(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "confirmed").await?;
    let web = HttpTarget::start().await?;
    let operator = stage.serve(stage.command("hco-0", None)?.args(["--status-refresh", "10s"])).await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    let first = stage.wait_health("web", "Healthy").await?;
    let record = stage.record().await?;
    let observed = |check: &HealthCheck| json!(check.status)["observedAt"].clone();
    let hits = web.hits();
    let later = stage.wait("web", "a confirmation", |check| observed(check) != observed(&first)).await?;
    // The rows carry counters and latency as of the write; everything else is as it was.
    let words = |check: &HealthCheck| -> anyhow::Result<Value> {
        let mut status = lasting(check)?;
        for row in status["targets"].as_array_mut().into_iter().flatten() {
            for moving in ["counters", "latency"] {
                row.as_object_mut().map(|row| row.remove(moving));
            }
        }
        Ok(status)
    };
    ensure!(words(&first)? == words(&later)?, "{} became {}", words(&first)?, words(&later)?);
    ensure!(web.hits() > hits, "nothing was probed meanwhile");
    ensure!(
        record.history("web", health)?.iter().all(|word| word == "Healthy"),
        "{:?}",
        record.history("web", health)?
    );

    // The operator keeps count of what it asks of the API server, and of when it last heard from it.
    let metrics = operator.admin_get("/metrics").await?.body;
    for series in [
        "healthcheck_operator_api_requests_total{kind=\"healthchecks\",verb=\"patch\",result=\"success\"}",
        "healthcheck_operator_api_request_duration_seconds_count{kind=\"healthchecks\",verb=\"patch\",result=\"success\"}",
        "healthcheck_operator_watch_last_event_timestamp_seconds{kind=\"healthchecks\"}",
    ] {
        let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok());
        ensure!(value.is_some_and(|value| value > 0.0), "{series}: {value:?} in\n{metrics}");
    }
    Ok(())
}

async fn namespaces(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "several").await?;
    let (second, third) = (cluster.namespace("second").await?, cluster.namespace("third").await?);
    let web = HttpTarget::start().await?;
    let operator = stage.serve(stage.command("hco-0", None)?.args(["--watch-namespace", &second])).await?;
    let manifest = json!({
        "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck",
        "metadata": {"name": "web"}, "spec": fast(&[target("a", web.address())]),
    });
    for namespace in [&third, &stage.namespace, &second] {
        cluster.apply(namespace, &manifest.to_string()).await?;
    }
    for namespace in [&stage.namespace, &second] {
        operator.wait_get(&format!("/healthz/{namespace}/web"), SOON, |answer| answer.status == 200).await?;
    }
    let answer = operator.get(&format!("/healthz/{third}/web")).await?;
    ensure!(answer.status == 404, "{answer:?}");
    // One of them emptied takes nothing from the other.
    cluster.kubectl_ok(&["--namespace", &second, "delete", "healthcheck", "web"]).await?;
    operator.wait_get(&format!("/healthz/{second}/web"), SOON, |answer| answer.status == 404).await?;
    ensure!(operator.get(&format!("/healthz/{}/web", stage.namespace)).await?.status == 200);
    Ok(())
}

async fn own_pods(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    const OURS: [(&str, &str); 2] = [("hco-0", "198.18.200.1"), ("hco-1", "198.18.200.2")];
    const OTHER: (&str, &str) = ("other", "198.18.200.3");
    let stage = Stage::new(cluster.clone(), "ownpods").await?;
    for (name, address) in [OURS[0], OURS[1], OTHER] {
        let instance = if name == OTHER.0 { "another" } else { "ours" };
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {
                "app.kubernetes.io/name": "healthcheck-operator", "app.kubernetes.io/instance": instance,
            }},
            "spec": {"nodeName": "none", "containers": [{"name": "app", "image": "none.invalid/app"}]},
        });
        cluster.apply(&stage.namespace, &manifest.to_string()).await?;
        let address: IpAddr = address.parse()?;
        let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]});
        cluster.pod_status(&stage.namespace, name, status).await?;
    }
    // Nothing is allowed that is denied by default.
    let command = operator::command("controller")
        .arg("--kubeconfig")
        .arg(stage.kubeconfig(None)?)
        .args(["--watch-namespace", &stage.namespace])
        .env("POD_NAME", OURS[0].0)
        .env("POD_NAMESPACE", &stage.namespace);
    let _operator = stage.serve(command).await?;
    let spec = |address: &str| {
        json!({
            "interval": "200ms", "timeout": "200ms", "failureThreshold": 2,
            "targets": [{"name": "pod", "host": address, "port": 8080}],
        })
    };
    let reason = |check: &HealthCheck| json!(check.status)["targets"][0]["reason"].clone();
    for (name, address) in OURS {
        stage.apply(name, spec(address)).await?;
        let check = stage.wait(name, "the refusal", |check| reason(check) == "EgressDenied").await?;
        ensure!(health(&check) == "Unknown", "{:?}", check.status);
    }
    // Beside them everything is probed: nobody answers there, or no road leads there.
    stage.apply(OTHER.0, spec(OTHER.1)).await?;
    wait_until("the other pod to be probed", SOON, || async {
        let reason = reason(&stage.get(OTHER.0).await?);
        ensure!(reason.is_string() && reason != "EgressDenied", "{reason}");
        anyhow::Ok(())
    })
    .await
}
