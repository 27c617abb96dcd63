//! What the operator leaves alone: everything while it is a standby, checks that its selector does not choose, and
//! what it may not read.

use std::sync::Arc;

use anyhow::ensure;
use k8s_openapi::api::rbac::v1::PolicyRule;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, condition, fast, health, message, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::netns::fresh_address;
use crate::support::operator::Operator;
use crate::support::ports::free_port;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("bounds::a_standby_writes_nothing", standby),
        suite.trial("bounds::a_check_that_leaves_the_selector_is_dropped", selector),
        suite.trial("bounds::what_may_not_be_read_is_said_and_comes_with_the_grant", forbidden),
    ]
}

fn user(stage: &Stage, account: &str) -> String {
    format!("system:serviceaccount:{}:{account}", stage.namespace)
}

async fn standby(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "standby").await?;
    let second = stage.as_account("second").await?;
    cluster.bind(&stage.namespace, "second", "cluster-admin").await?;
    let address = fresh_address();
    let web = HttpTarget::start_on((address, free_port()).into()).await?;
    cluster.service(&stage.namespace, "shop", json!({"port": 80, "targetPort": web.port()})).await?;
    cluster.pod(&stage.namespace, "a", "shop", address.into(), true).await?;
    cluster.wait_endpoints(&stage.namespace, "shop", &[(address.into(), true)]).await?;

    let leader = stage.operator("hco-0").await?;
    let mark = cluster.audit().mark()?;
    let standby = second.operator("hco-1").await?;
    stage.apply("shop", fast(&[json!({"name": "svc", "service": {"name": "shop"}})])).await?;
    // Everything there is to write, twice: status, annotation and event.
    for (status, word, code) in [(200, "Healthy", 200), (500, "Unhealthy", 503), (200, "Healthy", 200)] {
        web.set_status(status);
        stage.wait_health("shop", word).await?;
        standby.wait_get(&format!("/healthz/{}/shop", stage.namespace), SOON, |answer| answer.status == code).await?;
    }
    // What the status says of a probe, the standby says too.
    let told = |body: &str| body.contains("observedValue") && body.contains("\"time\"");
    let path = format!("/healthz/{}/shop?format=json", stage.namespace);
    standby.wait_get(&path, SOON, |answer| told(&answer.body)).await?;
    web.wait_hits(10, SOON).await?;
    let writes = |account: &str| -> anyhow::Result<Vec<String>> {
        let mut entries = cluster.audit().writes_by(&user(&stage, account), mark)?;
        entries.retain(|entry| !entry.resource.ends_with("reviews"));
        Ok(entries.into_iter().map(|entry| entry.resource).collect())
    };
    ensure!(writes("second")?.iter().all(|resource| resource == "leases"), "{:?}", writes("second")?);
    for resource in ["healthchecks", "endpointslices", "events"] {
        ensure!(
            writes("operator")?.iter().any(|written| written == resource),
            "no {resource}: {:?}",
            writes("operator")?
        );
    }

    // The same account does write once it leads.
    leader.process().stop()?;
    web.set_status(500);
    stage.wait_health("shop", "Unhealthy").await?;
    wait_until("the second to write", SOON, || async {
        let written = writes("second")?;
        ensure!(written.iter().any(|resource| resource == "healthchecks"), "{written:?}");
        anyhow::Ok(())
    })
    .await
}

async fn selector(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "selector").await?;
    let (web, other) = (HttpTarget::start().await?, HttpTarget::start().await?);
    let operator =
        stage.serve(stage.command("hco-0", None)?.args(["--label-selector", "team=shop,tier!=test"])).await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.apply("other", fast(&[target("a", other.address())])).await?;
    stage.kubectl(&["label", "healthcheck", "other", "team=shop"]).await?;
    stage.wait_health("other", "Healthy").await?;
    other.wait_hits(5, SOON).await?;
    ensure!(web.hits() == 0 && stage.get("web").await?.status.is_none(), "never chosen, and asked all the same");

    stage.kubectl(&["label", "healthcheck", "web", "team=shop"]).await?;
    let chosen = stage.wait_health("web", "Healthy").await?;
    board(&operator, &stage, 200).await?;

    // It leaves by a label of its own that the selector excludes.
    stage.kubectl(&["label", "healthcheck", "web", "tier=test"]).await?;
    board(&operator, &stage, 404).await?;
    let (hits, version) = (web.hits(), stage.get("web").await?.metadata.resource_version);
    web.set_status(500);
    other.wait_hits(10, SOON).await?;
    ensure!(web.hits() == hits, "still asked");
    let left = stage.get("web").await?;
    ensure!(left.metadata.resource_version == version, "still written to");
    ensure!(health(&left) == health(&chosen), "what was written stays: {:?}", left.status);

    stage.kubectl(&["label", "healthcheck", "web", "tier-"]).await?;
    stage.wait_health("web", "Unhealthy").await?;
    board(&operator, &stage, 503).await
}

/// Waits until the operator answers for the check `web` with this status.
async fn board(operator: &Operator, stage: &Stage, status: u16) -> anyhow::Result<()> {
    let path = format!("/healthz/{}/web", stage.namespace);
    operator.wait_get(&path, SOON, |answer| answer.status == status).await.map(|_| ())
}

fn rules(rules: Value) -> anyhow::Result<Vec<PolicyRule>> {
    Ok(serde_json::from_value(rules)?)
}

async fn forbidden(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "forbidden").await?;
    let limited = stage.as_account("limited").await?;
    let checks = json!([
        {"apiGroups": ["healthcheck-operator.dev"], "resources": ["healthchecks"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["healthcheck-operator.dev"], "resources": ["healthchecks/status"], "verbs": ["patch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]},
    ]);
    cluster.grant(&stage.namespace, "limited", rules(checks)?).await?;
    let address = fresh_address();
    let web = HttpTarget::start_on((address, free_port()).into()).await?;
    cluster.service(&stage.namespace, "shop", json!({"port": 80, "targetPort": web.port()})).await?;
    cluster.pod(&stage.namespace, "a", "shop", address.into(), true).await?;
    cluster.wait_endpoints(&stage.namespace, "shop", &[(address.into(), true)]).await?;
    let _operator = limited.operator("hco-0").await?;

    let selector = json!({"matchLabels": {"app": "shop"}});
    stage.apply("service", fast(&[json!({"name": "svc", "service": {"name": "shop"}})])).await?;
    stage.apply("pods", fast(&[json!({"name": "p", "pods": {"selector": selector}, "port": web.port()})])).await?;
    stage.apply("host", fast(&[target("a", web.address())])).await?;
    refused(&stage, "service", "services").await?;
    refused(&stage, "pods", "pods").await?;
    // Nobody else suffers.
    stage.wait_health("host", "Healthy").await?;

    let name = format!("{}-more", stage.namespace);
    let resources = "--resource=services,pods";
    cluster.kubectl_ok(&["create", "clusterrole", &name, "--verb=list,watch", resources]).await?;
    cluster.bind(&stage.namespace, "limited", &name).await?;
    stage.wait_health("pods", "Healthy").await?;
    refused(&stage, "service", "endpointslices").await?;

    let name = format!("{}-slices", stage.namespace);
    let resources = "--resource=endpointslices.discovery.k8s.io";
    cluster.kubectl_ok(&["create", "clusterrole", &name, "--verb=list,watch", resources]).await?;
    cluster.bind(&stage.namespace, "limited", &name).await?;
    let check = stage.wait_health("service", "Healthy").await?;
    ensure!(condition(&check, "Ready") == "True/Accepted", "{:?}", check.status);
    Ok(())
}

/// Waits until a check says that these may not be read.
async fn refused(stage: &Stage, check: &str, resource: &str) -> anyhow::Result<()> {
    let says = |check: &healthcheck_operator::api::HealthCheck| {
        condition(check, "Ready") == "False/Forbidden" && message(check, "Ready").contains(resource)
    };
    let refused = stage.wait(check, &format!("{check} to miss {resource}"), says).await?;
    ensure!(health(&refused) == "Unknown", "{:?}", refused.status);
    Ok(())
}
