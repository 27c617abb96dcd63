//! The `uninstall` command: what gates held is let go, and stays so until another installation.

use std::sync::Arc;

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::pod_gates::Web;
use crate::stage::SOON;
use crate::suite::Suite;
use crate::support::audit::Mark;
use crate::support::control_plane::ControlPlane;
use crate::support::operator;
use crate::support::ports::free_port;
use crate::support::wait::wait_until;

const CHECK: &str = "web";
const LEASE: &str = "healthcheck-operator";
const MARKER: &str = "healthcheck-operator.dev/release";

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.trial("uninstall::what_gates_held_is_let_go_until_another_installation", lets_go)]
}

fn leases(web: &Web) -> Api<Lease> {
    Api::namespaced(web.stage.cluster.client(), &web.stage.namespace)
}

/// What the chart makes.
async fn install(web: &Web) -> anyhow::Result<()> {
    let name = format!("{LEASE}-installation");
    let lease = json!({"metadata": {"name": name, "annotations": {"healthcheck-operator.dev/revision": "1"}}});
    leases(web).create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
    Ok(())
}

/// Runs the command, and returns what it printed.
async fn uninstall(web: &Web, server: Option<&str>, within: &str) -> anyhow::Result<String> {
    let out = operator::command("uninstall")
        .arg("--kubeconfig")
        .arg(web.stage.kubeconfig(server)?)
        .args(["--watch-namespace", &web.stage.namespace, "--within", within])
        .env("POD_NAMESPACE", &web.stage.namespace)
        .run(SOON)
        .await?;
    let said = String::from_utf8(out.stdout)?;
    ensure!(out.status.success(), "{}: {said}", out.status);
    Ok(said)
}

async fn published(web: &Web) -> anyhow::Result<Vec<bool>> {
    let slices = web.stage.cluster.slices(&web.stage.namespace, "gated").await?;
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter_map(|endpoint| endpoint.conditions.as_ref()?.ready);
    Ok(ready.collect())
}

/// The operator's writes to what gates write to.
fn writes(web: &Web, since: Mark) -> anyhow::Result<Vec<String>> {
    let writes = web.stage.cluster.audit().writes_by(&web.stage.user(), since)?;
    let gated = writes.iter().filter(|entry| ["pods", "endpointslices"].contains(&entry.resource.as_str()));
    Ok(gated.map(|entry| format!("{} {} {}", entry.verb, entry.name, entry.code)).collect())
}

async fn lets_go(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let web = Web::new(cluster.clone(), "uninstall", 2).await?;
    install(&web).await?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "gated"}, "spec": {"ports": [{"port": 80}]},
    });
    cluster.apply(&web.stage.namespace, &service.to_string()).await?;
    let operator = web.stage.operator("hco-0").await?;
    let mut spec = web.spec(json!({}));
    let slices = json!({"name": "slices", "endpointSlice": {"service": "gated"}});
    spec["gates"].as_array_mut().context("gates")?.push(slices);
    web.stage.apply(CHECK, spec).await?;
    web.wait_said(&["True/Admitted", "True/Admitted"]).await?;
    web.pods[1].set_status(500);
    web.wait_said(&["True/Admitted", "False/Withheld"]).await?;
    wait_until("the slice to follow", SOON, || async {
        let mut published = published(&web).await?;
        published.sort_unstable();
        ensure!(published == [false, true], "{published:?}");
        anyhow::Ok(())
    })
    .await?;

    // Nobody answers: it says so, and lets the uninstall go on.
    let nobody = format!("https://127.0.0.1:{}", free_port());
    let said = uninstall(&web, Some(&nobody), "2s").await?;
    ensure!(said.contains("[-] not released: release marker"), "{said}");

    let said = uninstall(&web, None, "45s").await?;
    ensure!(said.contains("[+] release marker set") && !said.contains("[-]"), "{said}");
    ensure!(said.contains("published as ready: 1") && said.contains("pods released: 2"), "{said}");
    let let_go = async || {
        web.wait_said(&["True/Released", "True/Released"]).await?;
        let published = published(&web).await?;
        ensure!(published == [true, true], "{published:?}");
        anyhow::Ok(())
    };
    let_go().await?;
    // The operator lives on and probes, and no gate acts: not in another life of it either.
    let mark = cluster.audit().mark()?;
    web.pods[0].set_status(500);
    web.stage.wait_health(CHECK, "Unhealthy").await?;
    operator.process().kill()?;
    let _operator = web.stage.operator("hco-0").await?;
    for pod in &web.pods {
        pod.wait_hits(20, SOON).await?;
    }
    ensure!(writes(&web, mark)?.is_empty(), "{:?}", writes(&web, mark)?);
    let_go().await?;
    // The checks are the user's.
    web.stage.get(CHECK).await?;

    // Another installation: the marker is that of the former one, and what is there is taken over.
    web.pods[0].set_status(200);
    leases(&web).delete(&format!("{LEASE}-installation"), &DeleteParams::default()).await?;
    ensure!(leases(&web).get(LEASE).await?.annotations().contains_key(MARKER), "it holds while nobody is installed");
    install(&web).await?;
    web.wait_said(&["True/Admitted", "False/Withheld"]).await?;
    wait_until("the marker to go", SOON, || async {
        ensure!(!leases(&web).get(LEASE).await?.annotations().contains_key(MARKER));
        anyhow::Ok(())
    })
    .await
}
