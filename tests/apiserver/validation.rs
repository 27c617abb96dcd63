//! The corpus of refusals before the real API server: every rule of the CRD and every bound, with its message and its
//! field, and a near miss of each accepted. `tests/validation.rs` holds the same table against `validate` and kube-cel.

#[path = "../corpus/mod.rs"]
mod corpus;

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, stream};
use healthcheck_operator::api::HealthCheck;
use kube::Client;
use kube::core::Status;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use corpus::{Case, File};

/// Requests at once: the API server is bound by two cores, not by waiting.
const AT_ONCE: usize = 4;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    let mut trials: Vec<_> = corpus::read()
        .into_iter()
        .map(|file| {
            suite.trial(
                &format!("validation::corpus_{}", file.name),
                |cluster| async move { judge(&cluster, file).await },
            )
        })
        .collect();
    trials.push(suite.trial("validation::defaults_are_those_of_the_files", defaults));
    trials.push(suite.trial("validation::unknown_fields_are_refused_by_kubectl_and_pruned_otherwise", unknown_fields));
    trials.push(suite.trial("validation::kubectl_names_columns_and_explains_fields", kubectl));
    trials
}

async fn judge(cluster: &ControlPlane, file: File) -> anyhow::Result<()> {
    cluster.install_crds().await?;
    let client = cluster.client();
    let failures: Vec<String> = stream::iter(&file.cases)
        .map(|case| {
            let client = client.clone();
            async move {
                match judge_case(&client, case).await {
                    Ok(()) => None,
                    Err(error) => Some(format!("{}: {error:#}", case.rule)),
                }
            }
        })
        .buffered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

async fn judge_case(client: &Client, case: &Case) -> anyhow::Result<()> {
    let status = match create(client, "default", &case.refused(), true).await {
        Ok(object) => bail!("accepted: {object}"),
        Err(kube::Error::Api(status)) => status,
        Err(error) => return Err(error).context("no answer of the API server's"),
    };
    ensure!(status.code == 422, "refused with {}: {}", status.code, status.message);
    let causes = causes(&status);
    let wanted = case.server.as_ref().unwrap_or(&case.message);
    let found = causes.iter().any(|(field, message)| case.is_at(field) && message.contains(wanted.as_str()));
    ensure!(found, "wanted '{wanted}' at {}, found {causes:?}", case.field);
    ensure!(case.among || causes.len() == 1, "more than one cause: {causes:?}");
    create(client, "default", &case.accepted(), true).await.context("the near miss is refused")?;
    Ok(())
}

/// Field and message of each reason for a refusal.
///
/// The API server notes once in a while that some rules were not looked at because the object is malformed; that is no
/// reason of its own.
fn causes(status: &Status) -> Vec<(String, String)> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .filter(|cause| !cause.message.contains("some validation rules were not checked"))
        .map(|cause| (cause.field.clone(), cause.message.clone()))
        .collect()
}

/// Creates the object as it is written; with `dry_run` the API server does everything but store it.
async fn create(client: &Client, namespace: &str, manifest: &Value, dry_run: bool) -> Result<Value, kube::Error> {
    let dry_run = if dry_run { "?dryRun=All" } else { "" };
    let uri = format!("/apis/healthcheck-operator.dev/v1alpha1/namespaces/{namespace}/healthchecks{dry_run}");
    let request = http::Request::post(uri)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(manifest.to_string().into_bytes())
        .expect("a valid request");
    client.request(request).await
}

/// What the API server fills in is what a file gets.
async fn defaults(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    cluster.install_crds().await?;
    let manifest = json!({
        "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck", "metadata": {"name": "defaults"},
        "spec": {"targets": [
            {"name": "a", "host": "db", "port": 1},
            {"name": "b", "host": "db", "probe": {"http": {"headers": [{"name": "A", "value": "b"}]}}},
            {"name": "c", "host": "db", "probe": {"tcp": {"port": 1}}},
            {"name": "d", "probe": {"script": {"source": "x", "env": [{"name": "A"}]}}},
            {"name": "e", "host": "db", "probe": {"http": {"scheme": "HTTPS", "tls": {}}}},
            {"name": "f", "service": {"name": "db"}, "zone": "eu-a"},
        ], "gates": [
            {"name": "a", "podReadiness": {"conditionType": "healthcheck-operator.dev/db"}},
            {"name": "b", "annotation": {}, "minReady": "50%"},
        ]},
    });
    let served = create(&cluster.client(), "default", &manifest, true).await?;
    let from_file: HealthCheck = serde_json::from_value(manifest)?;
    let written = serde_json::to_value(&from_file.spec)?;
    ensure!(served["spec"] == written, "served {:#}, from a file {written:#}", served["spec"]);
    Ok(())
}

/// A typing error must not go unseen: `kubectl` asks for strict checking; who does not loses the field.
async fn unknown_fields(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    cluster.install_crds().await?;
    let namespace = cluster.namespace("unknown").await?;
    let manifest = "{apiVersion: healthcheck-operator.dev/v1alpha1, kind: HealthCheck, metadata: {name: a}, \
        spec: {intervall: 1s, targets: [{name: a, host: db, port: 1}]}}";
    let refusal = cluster.apply(&namespace, manifest).await.err().context("kubectl applied an unknown field")?;
    ensure!(format!("{refusal:#}").contains("unknown field \"spec.intervall\""), "{refusal:#}");

    let manifest = json!({
        "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck", "metadata": {"name": "a"},
        "spec": {"intervall": "1s", "targets": [{"name": "a", "host": "db", "port": 1}]},
    });
    let stored = create(&cluster.client(), &namespace, &manifest, false).await?;
    ensure!(stored["spec"]["intervall"].is_null() && stored["spec"]["interval"] == "10s", "{stored}");
    Ok(())
}

async fn kubectl(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    cluster.install_crds().await?;
    let namespace = cluster.namespace("columns").await?;
    let manifest = "{apiVersion: healthcheck-operator.dev/v1alpha1, kind: HealthCheck, metadata: {name: db}, \
        spec: {suspend: true, targets: [{name: a, host: db, port: 1}]}}";
    cluster.apply(&namespace, manifest).await?;
    let status = json!({"status": {
        "health": "Degraded", "summary": "2/3", "since": "2026-01-01T00:00:00Z", "probes": "http,tcp", "prober": "hco-0",
        "gate": "traffic: FailOpen",
        "gates": [{"name": "traffic", "effective": "FailOpen", "desiredReady": 0, "publishedReady": 3,
            "since": "2026-01-01T00:00:00Z", "message": "0 of 3 healthy, minReady is 1"}],
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Probing", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Healthy", "status": "True", "reason": "MinimumMet", "message": "c: connection refused",
             "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ],
    }});
    let patch = status.to_string();
    let args =
        ["--namespace", &namespace, "patch", "hc", "db", "--subresource=status", "--type=merge", "--patch", &patch];
    cluster.kubectl_ok(&args).await?;

    for (args, head, row) in [
        (
            ["get", "hck"].as_slice(),
            "NAME HEALTH TARGETS REASON SINCE AGE",
            ["db", "Degraded", "2/3", "MinimumMet"].as_slice(),
        ),
        (
            &["get", "healthchecks", "--output=wide"],
            "NAME HEALTH TARGETS REASON SINCE PROBES INTERVAL GATE PROBER MESSAGE AGE",
            &["db", "Degraded", "2/3", "MinimumMet"],
        ),
        (&["get", "health"], "NAME HEALTH TARGETS REASON SINCE AGE", &["db", "Degraded"]),
        (
            &["get", "hc", "--field-selector=status.health=Degraded,spec.suspend=true"],
            "NAME HEALTH",
            &["db", "Degraded"],
        ),
    ] {
        let table = cluster.kubectl_ok(&[["--namespace", &namespace].as_slice(), args].concat()).await?;
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        ensure!(rows.len() == 2, "{args:?}: {table}");
        ensure!(rows[0].join(" ").starts_with(head), "{args:?}: {table}");
        ensure!(rows[1].starts_with(row), "{args:?}: {table}");
    }
    let wide = cluster.kubectl_ok(&["--namespace", &namespace, "get", "hc", "db", "--output=wide"]).await?;
    for cell in ["http,tcp", "10s", "traffic: FailOpen", "hco-0", "c: connection refused"] {
        ensure!(wide.contains(cell), "no '{cell}' in {wide}");
    }
    let none = cluster
        .kubectl_ok(&[
            "--namespace",
            &namespace,
            "get",
            "hc",
            "--field-selector=status.health=Healthy",
            "--output=name",
        ])
        .await?;
    ensure!(none.is_empty(), "{none}");

    let explained = cluster.kubectl_ok(&["explain", "healthcheck.spec.interval"]).await?;
    ensure!(explained.contains("100ms to 24h. Default 10s."), "{explained}");
    Ok(())
}
