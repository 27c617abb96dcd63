//! The `uninstall` command: what gates held is let go, and stays so until another installation.

use std::sync::Arc;

use anyhow::{Context, ensure};
use healthcheck_operator::api::HealthCheck;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::pod_gates::Web;
use crate::stage::{SOON, condition, health};
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
    vec![
        suite.trial("uninstall::what_gates_held_is_let_go_until_another_installation", lets_go),
        suite.trial("uninstall::what_another_release_holds_is_left_alone", sharded),
        suite.trial("uninstall::without_an_operator_it_tells_and_frees_the_lease", alone),
    ]
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
async fn uninstall(web: &Web, server: Option<&str>, more: &[&str]) -> anyhow::Result<String> {
    let out = operator::command("uninstall")
        .arg("--kubeconfig")
        .arg(web.stage.kubeconfig(server)?)
        .args(["--watch-namespace", &web.stage.namespace])
        .args(more)
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

/// Two pods, one of them taken out by two gates of the check: a condition, and a slice.
async fn staged(cluster: &Arc<ControlPlane>, test: &str) -> anyhow::Result<Web> {
    let web = Web::new(cluster.clone(), test, 2).await?;
    install(&web).await?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "gated"}, "spec": {"ports": [{"port": 80}]},
    });
    cluster.apply(&web.stage.namespace, &service.to_string()).await?;
    let mut spec = web.spec(json!({}));
    let slices = json!({"name": "slices", "endpointSlice": {"service": "gated"}});
    spec["gates"].as_array_mut().context("gates")?.push(slices);
    web.stage.apply(CHECK, spec).await?;
    Ok(web)
}

async fn wait_held(web: &Web) -> anyhow::Result<()> {
    web.wait_said(&["True/Admitted", "True/Admitted"]).await?;
    web.pods[1].set_status(500);
    web.wait_said(&["True/Admitted", "False/Withheld"]).await?;
    wait_until("the slice to follow", SOON, || async {
        let mut published = published(web).await?;
        published.sort_unstable();
        ensure!(published == [false, true], "{published:?}");
        anyhow::Ok(())
    })
    .await
}

async fn let_go(web: &Web) -> anyhow::Result<()> {
    web.wait_said(&["True/Released", "True/Released"]).await?;
    let published = published(web).await?;
    ensure!(published == [true, true], "{published:?}");
    Ok(())
}

async fn lets_go(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let web = staged(&cluster, "uninstall").await?;
    let operator = web.stage.operator("hco-0").await?;
    wait_held(&web).await?;

    // Nobody answers: it says so, and lets the uninstall go on.
    let nobody = format!("https://127.0.0.1:{}", free_port());
    let said = uninstall(&web, Some(&nobody), &["--within", "2s"]).await?;
    ensure!(said.contains("[-] not released: release marker"), "{said}");

    let said = uninstall(&web, None, &[]).await?;
    ensure!(said.contains("[+] release marker set") && !said.contains("[-]"), "{said}");
    ensure!(said.contains("published as ready: 1") && said.contains("pods released: 2"), "{said}");
    ensure!(
        said.contains("take readinessGates out") && said.contains(&format!("Pod {}/web-0", web.stage.namespace)),
        "{said}"
    );
    let_go(&web).await?;
    let check = web.stage.wait(CHECK, "its gates to be told", released).await?;
    let told = json!(check.status.context("a status")?.gates);
    let ready: Vec<_> = told.as_array().into_iter().flatten().map(|gate| &gate["publishedReady"]).collect();
    ensure!(ready == [&json!(2), &json!(2)], "{told}");
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
    let_go(&web).await?;
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

/// Empty: nobody.
async fn holder(web: &Web) -> anyhow::Result<String> {
    Ok(leases(web).get(LEASE).await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default())
}

fn released(check: &HealthCheck) -> bool {
    condition(check, "GatesApplied") == "False/Released"
}

async fn sharded(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let web = staged(&cluster, "uninstallshard").await?;
    web.stage.kubectl(&["label", "healthcheck", CHECK, "team=a"]).await?;
    let command = web.stage.command("hco-0", None)?.args(["--label-selector", "team=a"]);
    let operator = web.stage.serve(command).await?;
    wait_held(&web).await?;
    // A neighbour that holds nothing yet.
    let bystander = json!({"targets": [{"name": "t", "host": web.pods[0].ip().to_string(), "port": 8080}]});
    web.stage.apply("bystander", bystander).await?;
    web.stage.kubectl(&["label", "healthcheck", "bystander", "team=b"]).await?;

    let mark = cluster.audit().mark()?;
    let theirs = ["--label-selector", "team=b", "--lease-name", "theirs"];
    let said = uninstall(&web, None, &theirs).await?;
    ensure!(said.contains("published as ready: 0") && said.contains("pods released: 0"), "{said}");
    ensure!(said.contains("[+] release marker set") && !said.contains("[-]"), "{said}");
    ensure!(writes(&web, mark)?.is_empty(), "{:?}", writes(&web, mark)?);
    wait_held_still(&web).await?;

    let said = uninstall(&web, None, &["--label-selector", "team=a", "--free-lease"]).await?;
    ensure!(holder(&web).await?.is_empty(), "the lease was freed");
    // Whoever lives stands by, and if nobody else comes it goes on once the lease could have run out.
    for leads in [0, 1] {
        wait_until("the operator to stand by, and to go on", SOON, || async {
            let metrics = operator.admin_get("/metrics").await?.body;
            ensure!(
                metrics.lines().any(|line| line == format!("healthcheck_operator_leader {leads}")),
                "not yet {leads}"
            );
            anyhow::Ok(())
        })
        .await?;
    }
    ensure!(!holder(&web).await?.is_empty(), "it holds the lease");
    ensure!(said.contains("published as ready: 1") && said.contains("pods released: 2"), "{said}");
    let_go(&web).await?;
    kept_by_hand(&web).await
}

/// As `docs/gates.md` says: without its owner a slice stays when the HealthCheck goes.
async fn kept_by_hand(web: &Web) -> anyhow::Result<()> {
    let selector = "endpointslice.kubernetes.io/managed-by=healthcheck-operator.dev";
    let slice = web.stage.kubectl(&["get", "endpointslices", "-l", selector, "-o", "name"]).await?;
    let slice = slice.trim();
    let patch = r#"{"metadata": {"ownerReferences": null}}"#;
    web.stage.kubectl(&["patch", slice, "--type=merge", "-p", patch]).await?;
    let by_hand = "endpointslice.kubernetes.io/managed-by=by-hand";
    web.stage.kubectl(&["label", "--overwrite", slice, by_hand]).await?;
    let uid = web.stage.get(CHECK).await?.uid().context("a uid")?;
    let owned = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned", "ownerReferences": [{
        "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck", "name": CHECK, "uid": uid,
    }]}});
    web.stage.cluster.apply(&web.stage.namespace, &owned.to_string()).await?;
    web.stage.checks().delete(CHECK, &DeleteParams::default()).await?;
    wait_until("the garbage collector", SOON, || async {
        let left = web.stage.kubectl(&["get", "configmap", "owned", "--ignore-not-found", "-o", "name"]).await?;
        ensure!(left.is_empty(), "{left}");
        anyhow::Ok(())
    })
    .await?;
    let published = published(web).await?;
    ensure!(published == [true, true], "{published:?}");
    Ok(())
}

/// The gate acts as before.
async fn wait_held_still(web: &Web) -> anyhow::Result<()> {
    web.pods[1].set_status(200);
    web.wait_said(&["True/Admitted", "True/Admitted"]).await?;
    web.pods[1].set_status(500);
    web.wait_said(&["True/Admitted", "False/Withheld"]).await
}

async fn alone(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let web = staged(&cluster, "uninstallalone").await?;
    let operator = web.stage.operator("hco-0").await?;
    wait_held(&web).await?;
    let both = |check: &HealthCheck| {
        let gates = check.status.iter().flat_map(|status| &status.gates);
        health(check) == "Unhealthy" && gates.filter(|gate| gate.published_ready == 1).count() == 2
    };
    let before = web.stage.wait(CHECK, "the status to follow", both).await?;
    operator.process().kill()?;
    ensure!(!holder(&web).await?.is_empty(), "it was killed");

    let said = uninstall(&web, None, &["--free-lease"]).await?;
    ensure!(said.contains("[+] lease freed") && said.contains("statuses that say so: 1"), "{said}");
    ensure!(holder(&web).await?.is_empty(), "{}", holder(&web).await?);
    let_go(&web).await?;
    // Nobody but the command was there to say it, and it says nothing else.
    let after = web.stage.get(CHECK).await?;
    ensure!(released(&after), "{:?}", after.status);
    let others = |check: &HealthCheck| -> anyhow::Result<_> {
        let mut status = serde_json::to_value(&check.status)?;
        let conditions = status["conditions"].as_array_mut().context("conditions")?;
        conditions.retain(|condition| condition["type"] != "GatesApplied");
        let status = status.as_object_mut().context("an object")?;
        let gates: Vec<_> = ["gates", "gate"].into_iter().filter_map(|name| status.remove(name)).collect();
        Ok((status.clone(), gates))
    };
    let ((before, _), (after, gates)) = (others(&before)?, others(&after)?);
    ensure!(before == after, "{before:?}, now {after:?}");
    ensure!(gates[0][0]["publishedReady"] == 2 && gates[0][1]["publishedReady"] == 2, "{gates:?}");

    // A new installation begins where the command ended.
    leases(&web).delete(&format!("{LEASE}-installation"), &DeleteParams::default()).await?;
    install(&web).await?;
    let _operator = web.stage.operator("hco-1").await?;
    web.wait_said(&["True/Admitted", "False/Withheld"]).await
}
