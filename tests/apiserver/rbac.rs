//! The operator with what the chart grants it, and nothing else.

use std::sync::Arc;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use serde_json::json;

use crate::chart::{Helm, helms};
use crate::stage::{SOON, Stage, condition, fast, message, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::netns::fresh_address;
use crate::support::operator;
use crate::support::ports::free_port;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.trial_alone("rbac::the_charts_own_roles_are_enough", true, enough)]
}

async fn enough(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let Some(directory) = helms()? else { return Ok(()) };
    let release = cluster.namespace("release").await?;
    cluster.install_crds().await?;
    // The chart's own pods never run here: there is no kubelet.
    let values = ["--set", "replicaCount=1,crds.enabled=false"];
    Helm::new(&cluster, directory, "helm4", &release)?.install(&values).await?;
    let name = "healthcheck-operator";
    let account = cluster.token(&release, name).await?;
    let stage = Stage::new(cluster.clone(), "tenant").await?;
    let user = format!("system:serviceaccount:{release}:{name}");
    let mark = cluster.audit().mark()?;
    let operator = operator::command("controller")
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig(&account, None)?)
        .args(["--egress-allow", "127.0.0.0/8,198.18.0.0/15", "--lease-name", name])
        .env("POD_NAME", "hco-0")
        .env("POD_NAMESPACE", &release)
        .serve()?;
    stage.ready(&operator).await?;

    // Everything it does at all: a host, a Service, pods, an annotation, events, a Secret it may not read yet.
    let pod = fresh_address();
    let web = HttpTarget::start_on((pod, free_port()).into()).await?;
    cluster.service(&stage.namespace, "shop", json!({"port": 80, "targetPort": web.port()})).await?;
    cluster.pod(&stage.namespace, "a", "shop", pod.into(), true).await?;
    cluster.wait_endpoints(&stage.namespace, "shop", &[(pod.into(), true)]).await?;
    let selector = json!({"matchLabels": {"app": "shop"}});
    let targets = [
        target("host", web.address()),
        json!({"name": "service", "service": {"name": "shop"}}),
        json!({"name": "pods", "pods": {"selector": selector}, "port": web.port()}),
    ];
    stage.apply("shop", fast(&targets)).await?;
    stage.wait_health("shop", "Healthy").await?;
    wait_until("the annotation and the event", SOON, || async {
        let slices = cluster.slices(&stage.namespace, "shop").await?;
        let annotated = |slice: &k8s_openapi::api::discovery::v1::EndpointSlice| {
            slice.metadata.annotations.iter().flatten().any(|(key, _)| key == "healthcheck-operator.dev/shop")
        };
        ensure!(slices.iter().all(annotated), "{slices:?}");
        ensure!(!stage.events("shop").await?.is_empty(), "no event");
        anyhow::Ok(())
    })
    .await?;

    let mut spec = fast(&[target("a", web.address())]);
    let reference = json!({"secretKeyRef": {"name": "token", "key": "bearer"}});
    spec["probe"]["http"]["headers"] = json!([{"name": "X-Token", "valueFrom": reference}]);
    stage.kubectl(&["create", "secret", "generic", "token", "--from-literal=bearer=x"]).await?;
    stage.apply("secret", spec).await?;
    let check = stage.wait("secret", "the refusal", |check| condition(check, "Ready") == "False/Forbidden").await?;
    // The message is the line to run: so run it.
    let told = message(&check, "Ready");
    let line = told.split("kubectl ").nth(1).with_context(|| told.clone())?;
    let args: Vec<_> = line.split_whitespace().collect();
    cluster.kubectl_ok(&args).await?;
    stage.wait("secret", "the grant to be used", |check| condition(check, "Ready") == "True/Accepted").await?;
    stage.wait_health("secret", "Healthy").await?;

    // Nothing else was ever refused.
    let refused: Vec<_> = cluster
        .audit()
        .since(mark)?
        .into_iter()
        .filter(|entry| entry.user == user && entry.code == 403 && entry.resource != "secrets")
        .map(|entry| format!("{} {}/{}", entry.verb, entry.resource, entry.subresource))
        .collect();
    ensure!(refused.is_empty(), "{refused:?}");
    let status = operator.process().stop()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
